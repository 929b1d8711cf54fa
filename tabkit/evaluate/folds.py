"""Outer cross-validation: one set of findings from those of the folds, with intervals that respect what they share.

In every fold the whole procedure ran anew: encode, adapt, choose. A row's predictions come from the fold that held it
out, once per repeat. What is compared is the procedure "adapt, and choose on valid", whichever candidate each fold
chose; what is bundled is the candidate chosen most often.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.split import Split
from tabkit.evaluate import explain, roles, value
from tabkit.evaluate.checks import few_cases
from tabkit.evaluate.choice import Choice, Terms
from tabkit.evaluate.comparison import carried_out, decide, explore, may_not_stay, plan_of
from tabkit.evaluate.harness import gaps, intervals_of, with_excess
from tabkit.evaluate.intervals import Resampled, corrected_t, interval
from tabkit.evaluate.ledger import Looks, question_number
from tabkit.evaluate.metrics import ranked_within
from tabkit.evaluate.pooled import Fold, Pooled, test_to_train
from tabkit.evaluate.tables import HeldOut, TableFound, interval_facts, slices_of, unit_drawn
from tabkit.learner import candidate_name
from tabkit.models.blend import described, mean_weights, title_of, unweighted_of
from tabkit.recipe import Plan
from tabkit.recipe import Value as Rule
from tabkit.result import (
    PARTS,
    Ablation,
    CandidateFacts,
    CheckOutcome,
    Chosen,
    Importance,
    Interval,
    Part,
    Planned,
    TableFindings,
    Value,
)
from tabkit.result.tables import ColumnImportance


def pool(
    plan: Plan, frame: pl.DataFrame, everything: Features, folds: tuple[Fold, ...], terms: Terms
) -> tuple[TableFound, Split]:
    """Return one set of findings of all folds, and a split whose holdout is every row that was held out.

    Parameters
    ----------
    frame, everything
        All labelled rows, as a table and encoded.
    """
    pooled = Pooled.of(everything, folds, terms)
    every = [c for f in folds for c in f.findings.candidates]
    names = [n for n in dict.fromkeys(c.name for c in every) if all(roles.named(n)(f.findings) for f in folds)]
    refused = {c.name: c for c in every if c.refused is not None}

    spread = {name: pooled.scored(terms, roles.named(name)) for name in names}
    measured = [_candidate(name, pooled, spread[name], terms) for name in names]
    unmeasured = [c for n, c in refused.items() if n not in names]
    choice = _choice(folds, measured, unmeasured, terms)
    chosen = choice.chosen
    candidates = (*with_excess(measured, chosen.baseline), *unmeasured)
    looks = _looks(folds)
    planned = _planned(chosen, names, pooled, terms, question_number(looks))
    # Every row is in the holdout; parts of a fold are not rows beside them.
    on_holdout = {name: found[terms.primary] for name, found in spread.items()}
    barred = may_not_stay(chosen, terms.metric, on_holdout)
    verdict, champion = decide(planned, choice, terms, {"holdout": len(pooled.split.holdout)}, {}, barred)
    verdict = verdict.model_copy(update={"reason": _reason(verdict.reason, planned, folds)})

    rows = pooled.split.holdout
    means = {name: pooled.mean(roles.named(name)) for name in names}
    fold_of = pooled.fold_of[0] if len(pooled.repeats) == 1 else None
    shared = means
    if terms.metric.by_order and fold_of is not None:
        shared = {
            name: ranked_within(predicted, fold_of, pooled.resampler.row_weights) for name, predicted in means.items()
        }
    held = HeldOut(frame[rows], everything.take(rows), shared, pooled.resampler)
    shown = list(dict.fromkeys((champion, *chosen.names)))
    first = folds[0].findings
    widths = [i.half_width for f in folds if (i := f.findings.prediction_interval) is not None]
    coverages = [c for f in folds if (c := f.findings.interval_coverage) is not None]
    by_name = {c.name: c for c in candidates}
    findings = TableFindings(
        primary=first.primary,
        metrics=first.metrics,
        candidates=candidates,
        chosen=chosen,
        planned=planned,
        exploratory=explore(chosen, terms.metric, on_holdout),
        verdict=verdict,
        champion=champion,
        slices=slices_of(plan, held, shown, terms.metric)[1],
        checks=_checks(folds, held.rows, plan),
        intervals=intervals_of(pooled.resampler, unit_drawn(pooled.split, pooled.resampler), pooled.method),
        holdout_opened=None if looks is None else looks.openings,
        holdout_question=None if looks is None else looks.question,
        curve=first.curve,
        value=_value(frame, plan.recipe.value, value.priced(chosen, champion), pooled, by_name, chosen),
        importance=_importance(folds, champion),
        ablations=_ablations(folds),
        interval_coverage=float(np.mean(coverages)) if coverages else None,
        prediction_interval=interval_facts(float(np.mean(widths)) if widths else None, plan.recipe.scale),
    )
    return TableFound(findings, means, fold_of=fold_of), pooled.split


def _reason(reason: str, planned: Planned | None, folds: tuple[Fold, ...]) -> str:
    counted = "; ".join(
        f"{title}: {_counted(folds, pick)}" for title, pick in roles.ROLES if any(pick(f.findings) for f in folds)
    )
    if planned is None and any(roles.adapted(f.findings) for f in folds):
        reason = "What most folds adapted, or its base, was refused in some: nothing can be said of adapting."
    return f"{reason} Measured over {len(folds)} folds, each of which chose for itself ({counted})."


def _choice(
    folds: tuple[Fold, ...], measured: Sequence[CandidateFacts], refused: Sequence[CandidateFacts], terms: Terms
) -> Choice:
    """Return what most folds chose.

    Nothing counts as adapted if some fold cannot say what the adapted candidate, or its base, is worth.
    """
    on_valid = {c.name: c.scores["valid"][terms.primary].value for c in measured}

    def modal(pick: roles.Pick) -> str | None:
        """Return the candidate that most folds picked; among equals, the best on valid."""
        votes = Counter(name for f in folds if (name := pick(f.findings)) is not None)
        sign, worst = terms.metric.sign, -math.inf
        return max(votes, key=lambda n: (votes[n], sign * on_valid[n] if n in on_valid else worst), default=None)

    adapted = modal(roles.adapted)
    base = next((roles.base(f.findings) for f in folds if roles.adapted(f.findings) == adapted), None)
    everywhere = {adapted, base} <= on_valid.keys() and all(
        roles.adapted(f.findings) and roles.base(f.findings) for f in folds
    )
    if not everywhere:
        adapted = base = None
    best_base = modal(roles.best_base)
    if best_base not in on_valid or not all(roles.best_base(f.findings) for f in folds):
        best_base = None  # some fold cannot say what it is worth
    chosen = Chosen(adapted=adapted, base=base, baseline=modal(roles.baseline) or "prior", best_base=best_base)
    titles = {c.name: c.title for c in (*measured, *refused)}
    return Choice(chosen, on_valid, titles, {c.name: c.refused or "" for c in refused})


def _counted(folds: tuple[Fold, ...], pick: roles.Pick) -> str:
    return ", ".join(f"{name} {n} times" for name, n in Counter(pick(f.findings) for f in folds).most_common())


def _value(
    frame: pl.DataFrame,
    rule: Rule | None,
    names: Sequence[str],
    pooled: Pooled,
    candidates: Mapping[str, CandidateFacts],
    chosen: Chosen,
) -> Value | None:
    """Return what decisions pay if every fold acts at the threshold of its own valid rows.

    The gains are those of the planned comparison: what each fold adapted over what each chose as rivals. What is bundled
    decides at the threshold that is best on all rows, each predicted by the fold that held it out.

    Parameters
    ----------
    names
        The candidates whose decisions are priced.
    """
    if rule is None:
        return None
    n, own = len(pooled.repeats), pooled.weights()
    everything = value.Payoffs(
        pl.concat([frame[pooled.split.holdout]] * n), rule, None if own is None else np.tile(own, n)
    )
    worths = {}
    for name in names:
        per_row, acted = pooled.payoffs(frame, rule, roles.named(name))
        mean = value.mean_payoff(per_row, pooled.resampler, rule.per)
        threshold = value.best_threshold(everything, np.concatenate(pooled.predictions(roles.named(name))))
        worths[name] = value.Worth(name, threshold, mean, acted, per_row)
    picks = {chosen.best_base: roles.best_base, chosen.base: roles.base, chosen.baseline: roles.baseline}
    ours = pooled.payoffs(frame, rule, roles.baseline if chosen.adapted is None else roles.adapted)[0]
    theirs = {name: pooled.payoffs(frame, rule, picks[name])[0] for name in chosen.rivals}
    gains = {n: value.mean_payoff(ours - paid, pooled.resampler, rule.per) for n, paid in theirs.items()}
    cpu_seconds = candidates[chosen.adapted or chosen.baseline].cpu_seconds / len(pooled.folds)
    return value.summary(rule, chosen, worths, gains, candidates, cpu_seconds)


def _candidate(name: str, pooled: Pooled, on_holdout: Mapping[str, Resampled], terms: Terms) -> CandidateFacts:
    """Return a candidate's facts over all folds."""
    folds, metrics, ratio = pooled.folds, terms.metrics, test_to_train(pooled.folds)
    each = [f.findings.candidate(own) for f in folds if (own := roles.named(name)(f.findings))]
    like = next(c for f in folds for c in f.findings.candidates if c.name == name and c.scores)
    scores: dict[Part, dict[str, Interval]] = {
        part: {m: corrected_t([c.scores[part][m].value for c in each], ratio) for m in metrics} for part in PARTS[:2]
    }
    scores["holdout"] = {m: interval(on_holdout[m], metric.within) for m, metric in metrics.items()}
    calibrated = like.calibration is not None
    changed = {
        "scores": scores,
        **gaps({part: scores[part][terms.primary].value for part in PARTS}, terms.metric),
        "calibration": explain.calibration(pooled.y, pooled.mean(roles.named(name))[:, 1], pooled.weights())
        if calibrated
        else None,
        "seconds": sum(c.seconds for c in each),
        "cpu_seconds": sum(c.cpu_seconds for c in each),
        "peak_mb": max(c.peak_mb or 0.0 for c in each),
        "energy_wh": sum(c.energy_wh or 0.0 for c in each),
        "score_cpu_seconds_per_million": float(np.mean([c.score_cpu_seconds_per_million or 0.0 for c in each])),
        "cost_per_million": float(np.mean([c.cost_per_million or 0.0 for c in each])),
    }
    facts = like.model_copy(update=changed)
    return _mean_blend(facts, each, folds) if facts.members else facts


def _mean_blend(like: CandidateFacts, blends: Sequence[CandidateFacts], folds: tuple[Fold, ...]) -> CandidateFacts:
    """Return a blend with the mean of the weights that the folds found.

    A member is that of the first fold that gave it weight. A blend that is called adapted keeps its heaviest adapted
    member, however small its mean weight.

    Parameters
    ----------
    blends
        The blend of each fold; those without weight on a kind of member may be blends of the others.
    """
    order = dict.fromkeys(name for blend in (like, *reversed(blends)) for name in blend.members)
    homes = list(zip(blends, folds, strict=True))
    members = {name: next(f.findings.candidate(name) for blend, f in homes if name in blend.members) for name in order}
    adapted = {name for name, c in members.items() if c.kind == "adapted"} if like.kind == "adapted" else set()
    weights = mean_weights([blend.settings["weights"] for blend in blends], list(members), adapted)
    proof, settings, notes = described([members[n] for n in weights], weights)
    note = f"{notes[0]}; the mean of the weights of {len(blends)} outer folds"
    changed = {
        "title": title_of(like.how, {members[n].kind for n in weights}),
        "proof": proof.blocks,
        "trained_parameters": proof.trained_parameters,
        "total_parameters": proof.total_parameters,
        "settings": settings,
        "notes": (note, *notes[1:]),
        "members": tuple(weights),
        "unweighted": unweighted_of(members[n] for n in weights),
        "weights": {base: w for n in weights for base, w in members[n].weights.items()},
    }
    return like.model_copy(update=changed)


def _planned(chosen: Chosen, names: list[str], pooled: Pooled, terms: Terms, question: int) -> Planned | None:
    if chosen.adapted is None:
        return None
    alone = candidate_name("blend", "baselines")
    picks = {
        chosen.best_base: roles.best_base,
        alone: roles.blended_alone,
        chosen.baseline: roles.baseline,
        chosen.base: roles.base,
    }
    opponents = dict(plan_of(chosen, names))
    if any(roles.blended_alone(f.findings) != roles.baseline(f.findings) for f in pooled.folds):
        opponents.setdefault(alone, "the blend of baselines alone")
    ours = pooled.primary(terms, roles.adapted)
    theirs = [(name, role, pooled.primary(terms, picks[name])) for name, role in opponents.items()]
    return carried_out(chosen.adapted, ours, theirs, terms, question)


def _looks(folds: tuple[Fold, ...]) -> Looks | None:
    """Return the most looks at any fold's rows."""
    each = [(f.findings.holdout_opened, f.findings.holdout_question) for f in folds]
    openings, questions = [n for n, _ in each if n is not None], [q for _, q in each if q is not None]
    return Looks(max(openings), max(questions)) if openings and questions else None


def _checks(folds: tuple[Fold, ...], held_out: Features, plan: Plan) -> tuple[CheckOutcome, ...]:
    """Return each check as most folds found it, and in how many it failed; too few cases are counted over all."""
    out = []
    for outcomes in zip(*(f.findings.checks for f in folds), strict=True):
        failed = [o for o in outcomes if o.outcome == "fail"]
        if outcomes[0].code == "too_few_holdout_cases":
            outcome, message = few_cases(held_out, plan.recipe.task)
            merged = outcomes[0].model_copy(update={"outcome": outcome, "message": message})
        elif 2 * len(failed) >= len(outcomes):
            message = f"In {len(failed)} of {len(outcomes)} folds: {failed[0].message}"
            merged = failed[0].model_copy(update={"message": message})
        else:
            other = next(o for o in outcomes if o.outcome != "fail")
            note = f" (It fails in {len(failed)} of {len(outcomes)} folds.)" if failed else ""
            merged = other.model_copy(update={"message": f"In the first fold: {other.message}{note}"})
        out.append(merged)
    return tuple(out)


def _mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Return the mean of intervals, end by end."""
    return Interval(*(float(np.mean([getattr(i, end) for i in intervals])) for end in ("value", "low", "high")))


def _importance(folds: tuple[Fold, ...], champion: str) -> Importance | None:
    """Return the columns' importance, the mean of the folds whose champion is the one of all, else the first fold's."""
    measured = [i for f in folds if (i := f.findings.importance) is not None and i.candidate == champion]
    if not measured:
        return folds[0].findings.importance
    seen: dict[str, list[Interval]] = {}
    for importance in measured:
        for c in importance.columns:
            seen.setdefault(c.name, []).append(Interval(c.drop, c.low, c.high))
    means = {name: _mean_interval(drops) for name, drops in seen.items()}
    columns = [ColumnImportance(name=n, drop=i.value, low=i.low, high=i.high) for n, i in means.items()]
    return measured[0].model_copy(update={"columns": tuple(sorted(columns, key=lambda c: -c.drop))})


def _ablations(folds: tuple[Fold, ...]) -> tuple[Ablation, ...]:
    """Return each ablation with the mean of the folds; the intervals are those of the folds, averaged."""
    return tuple(
        each[0].model_copy(
            update={"score": _mean_interval([a.score for a in each]), "gain": _mean_interval([a.gain for a in each])}
        )
        for each in zip(*(f.findings.ablations for f in folds), strict=True)
    )
