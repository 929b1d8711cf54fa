"""Outer cross-validation: one scorecard from those of the folds, with intervals that respect what they share.

In every fold the whole procedure ran anew: encode, adapt, choose. A row's predictions come from the fold that held it
out, once per repeat. What is compared is the procedure "adapt, and choose on valid", whichever candidate each fold
chose; what is bundled is the candidate chosen most often.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.split import Split
from tabkit.evaluate import explain, value
from tabkit.evaluate.checks import few_cases
from tabkit.evaluate.comparison import Against, Chosen, Planned, decide, explore, plan_of
from tabkit.evaluate.harness import PARTS, Score, Scorecard, priced, slices_of, value_of, with_excess
from tabkit.evaluate.intervals import LEVEL, RESAMPLES, Interval, Resampler, interval, paired, widening_over_folds
from tabkit.evaluate.metrics import Floats, Metric
from tabkit.models.base import Cost, Predictions, candidate_name
from tabkit.models.blend import mean_blend
from tabkit.recipe import Plan, Value
from tabkit.result import CheckOutcome

Pick = Callable[[Scorecard], str | None]


@dataclass(frozen=True)
class Fold:
    """One outer fold: how its rows were cut, and what the harness measured on its holdout."""

    split: Split
    scorecard: Scorecard


def corrected_t(values: list[float], test_to_train: float) -> Interval:
    """Return the mean over folds with the 95% interval of the corrected resampled t.

    Folds train on mostly the same rows, so their scores are not independent: the variance of their mean is
    (1/k + n_test/n_train) of theirs, not 1/k. Source: Nadeau & Bengio, *Inference for the Generalization Error*,
    Machine Learning 2003.

    Parameters
    ----------
    values
        One score or gain a fold, all folds of all repeats.
    test_to_train
        Rows held out over rows learned from, in one fold.

    >>> found = corrected_t([0.1, 0.2, 0.3], 0.5)
    >>> round(found.low, 4), round(found.high, 4)
    (-0.1928, 0.5928)
    """
    from scipy import stats

    k, mean = len(values), float(np.mean(values))
    if k < 2 or not np.isfinite(values).all():
        return Interval(mean, float("nan"), float("nan"))
    spread = math.sqrt((1 / k + test_to_train) * float(np.var(values, ddof=1)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, k - 1)) * spread
    return Interval(mean, mean - half, mean + half)


def pool(
    plan: Plan, frame: pl.DataFrame, everything: Features, folds: tuple[Fold, ...], level: str, seed: int
) -> tuple[Scorecard, Split]:
    """Return one scorecard of all folds, and a split whose holdout is every row that was held out.

    Parameters
    ----------
    frame, everything
        All labelled rows, as a table and encoded.
    level
        The budget's level, which sets the number of resamples.
    """
    pooled = _Pooled.of(everything, folds, level, seed)
    first = folds[0].scorecard
    metric = first.metrics[first.primary]
    every = [s for f in folds for s in f.scorecard.scores]
    names = [n for n in dict.fromkeys(s.candidate.name for s in every) if all(_named(n)(f.scorecard) for f in folds)]
    refused = {s.candidate.name: s for s in every if s.refused is not None}

    spread = {name: pooled.scored(first.metrics, _named(name)) for name in names}
    measured = [_score(name, folds, pooled, spread[name]) for name in names]
    by_name = {s.candidate.name: s for s in measured}
    on_valid = {name: s.scores["valid"][first.primary].value for name, s in by_name.items()}
    adapted, base = _adapted_and_base(folds, on_valid, metric)
    chosen = Chosen(adapted, base, _modal(folds, _baseline, on_valid, metric) or "prior")
    baseline_gap = by_name[chosen.baseline].overfit_gap or 0.0
    scores = [with_excess(s, baseline_gap) for s in measured] + [s for n, s in refused.items() if n not in names]
    planned = _planned(chosen, names, pooled, first.primary, metric)
    verdict = decide(
        planned,
        chosen,
        on_valid,
        metric,
        plan.recipe.metrics.worthwhile,
        {"holdout": len(pooled.split.holdout)},  # every row is in it; parts of a fold are not rows beside them
        {},
        {s.candidate.name: s.candidate.title for s in scores},
    )
    counted = "; ".join(
        f"{title}: {_counted(folds, pick)}" for title, pick in _ROLES if any(pick(f.scorecard) for f in folds)
    )
    reason = verdict.reason
    if planned is None and any(_adapted(f.scorecard) for f in folds):
        reason = "What most folds adapted, or its base, was refused in some: nothing can be said of adapting."
    reason = f"{reason} Measured over {len(folds)} folds, each of which chose for itself ({counted})."
    verdict = replace(verdict, reason=reason)

    shown = [n for n in dict.fromkeys((verdict.champion, chosen.adapted, chosen.base, chosen.baseline)) if n]
    means = {name: pooled.mean(_named(name)) for name in names}
    rows = pooled.split.holdout
    _, slices = slices_of(
        plan, frame[rows], everything.take(rows), shown, verdict.champion, means, metric, pooled.resampler, pooled.split
    )
    coverages = [f.scorecard.interval_coverage for f in folds if f.scorecard.interval_coverage is not None]
    opened = [f.scorecard.opened for f in folds if f.scorecard.opened is not None]
    widths = [f.scorecard.half_width for f in folds if f.scorecard.half_width is not None]
    scorecard = Scorecard(
        primary=first.primary,
        metrics=first.metrics,
        scores=tuple(scores),
        chosen=chosen,
        planned=planned,
        exploratory=explore(chosen, metric, {name: found[first.primary] for name, found in spread.items()}),
        verdict=verdict,
        checks=_checks(folds, everything.take(rows), plan),
        curve=first.curve,
        value=_value(plan, frame, chosen, verdict.champion, pooled, by_name),
        importance=_importance(folds, verdict.champion),
        slices=slices,
        ablations=_ablations(folds),
        holdout_predictions=means,
        interval_coverage=float(np.mean(coverages)) if coverages else None,
        opened=max(opened) if opened else None,
        resamples=RESAMPLES[level],
        widening=pooled.resampler.stretch,
        half_width=float(np.mean(widths)) if widths else None,
    )
    return scorecard, pooled.split


def _adapted(card: Scorecard) -> str | None:
    return card.chosen.adapted


def _base(card: Scorecard) -> str | None:
    return card.chosen.base


def _baseline(card: Scorecard) -> str | None:
    return card.chosen.baseline


def _named(name: str) -> Pick:
    """Return what stands for a candidate in a fold; None where it was refused or not made.

    A blend without weight on a base, or on an adapted member, is the blend without them, and was made as that alone.
    """
    stand_ins = [name, *(candidate_name("blend", how) for how in _SMALLER.get(name, ()))]

    def pick(card: Scorecard) -> str | None:
        measured = {s.candidate.name for s in card.scores if s.scores}
        return next((name for name in stand_ins if name in measured), None)

    return pick


_SMALLER = {candidate_name("blend", "all"): ("bases", "baselines"), candidate_name("blend", "bases"): ("baselines",)}


def _blended_alone(card: Scorecard) -> str | None:
    """Return the blend of baselines where a blend was adapted; what it gains is not adapting's to claim."""
    alone = _named(candidate_name("blend", "baselines"))(card)
    blended = card.chosen.adapted == candidate_name("blend", "all")
    return alone if blended and alone else card.chosen.baseline


_ROLES: tuple[tuple[str, Pick], ...] = (("adapted", _adapted), ("baseline", _baseline))


def _adapted_and_base(
    folds: tuple[Fold, ...], on_valid: dict[str, float], metric: Metric
) -> tuple[str | None, str | None]:
    """Return what most folds adapted, and its base; None, None where some fold cannot say what either is worth."""
    cards = [f.scorecard for f in folds]
    adapted = _modal(folds, _adapted, on_valid, metric)
    base = next((_base(card) for card in cards if _adapted(card) == adapted), None)
    everywhere = {adapted, base} <= on_valid.keys() and all(_adapted(card) and _base(card) for card in cards)
    return (adapted, base) if everywhere else (None, None)


def _modal(folds: tuple[Fold, ...], pick: Pick, on_valid: dict[str, float], metric: Metric) -> str | None:
    """Return the candidate that most folds picked; among equals, the best on valid."""
    picked = Counter(name for f in folds if (name := pick(f.scorecard)) is not None)
    worst = -math.inf
    return max(picked, key=lambda n: (picked[n], metric.sign * on_valid[n] if n in on_valid else worst), default=None)


def _counted(folds: tuple[Fold, ...], pick: Pick) -> str:
    return ", ".join(f"{name} {n} times" for name, n in Counter(pick(f.scorecard) for f in folds).most_common())


@dataclass(frozen=True)
class _Pooled:
    """Out-of-fold predictions by repeat, and the resamples that all comparisons share."""

    folds: tuple[Fold, ...]
    repeats: tuple[tuple[Fold, ...], ...]
    y: npt.NDArray[np.generic]
    split: Split
    resampler: Resampler

    @classmethod
    def of(cls, everything: Features, folds: tuple[Fold, ...], level: str, seed: int) -> _Pooled:
        """Arrange folds by repeat: a new repeat begins where a row would be held out again."""
        repeats: list[list[Fold]] = []
        seen: set[int] = set()
        for fold in folds:
            held = set(fold.split.holdout.tolist())
            if not repeats or seen & held:
                repeats.append([])
                seen = set()
            repeats[-1].append(fold)
            seen |= held
        rows = np.sort(np.concatenate([f.split.holdout for f in repeats[0]]))
        one = folds[0].split
        split = replace(one, holdout=rows, fold=0)
        groups = None if one.groups is None else one.groups[rows]
        widening = widening_over_folds(len(repeats[0]), _test_to_train(folds))
        resampler = Resampler(len(rows), groups, RESAMPLES[level], seed, widening)
        return cls(folds, tuple(map(tuple, repeats)), everything.labels[rows], split, resampler)

    def predictions(self, pick: Pick) -> list[Predictions]:
        """Return out-of-fold predictions, in the order of the pooled rows, one array a repeat."""
        out = []
        for repeat in self.repeats:
            rows = np.concatenate([f.split.holdout for f in repeat])
            parts = [f.scorecard.holdout_predictions[name] for f in repeat if (name := pick(f.scorecard)) is not None]
            out.append(np.concatenate(parts)[np.argsort(rows)])
        return out

    def mean(self, pick: Pick) -> Predictions:
        """Return each row's prediction, the mean over repeats."""
        return np.asarray(np.mean(self.predictions(pick), axis=0))

    def scored(self, metrics: dict[str, Metric], pick: Pick) -> dict[str, tuple[float, Floats]]:
        """Return each metric of all rows and its resamples, both the mean over repeats."""
        each = self.predictions(pick)
        drawn = [self.resampler.distributions(metrics, self.y, p) for p in each]
        return {
            name: (float(np.mean([m.value(self.y, p) for p in each])), np.mean([d[name] for d in drawn], axis=0))
            for name, m in metrics.items()
        }

    def payoffs(self, frame: pl.DataFrame, rule: Value, pick: Pick) -> tuple[Floats, float | None]:
        """Return what each row pays at its fold's threshold, the mean over repeats, and the share of rows acted upon."""
        per_row, acted = np.zeros(len(self.split.holdout)), 0.0
        for fold in self.folds:
            held, own = fold.split.holdout, pick(fold.scorecard)
            assert own is not None
            predicted, score = fold.scorecard.holdout_predictions[own], fold.scorecard.score(own)
            paid, share = value.Payoffs(frame[held], rule).of(predicted, score.threshold)
            per_row[np.searchsorted(self.split.holdout, held)] += paid / len(self.repeats)
            acted += (share or 0.0) * len(held) / (len(self.split.holdout) * len(self.repeats))
        return per_row, None if rule.acted is None else acted


def _value(
    plan: Plan,
    frame: pl.DataFrame,
    chosen: Chosen,
    champion: str,
    pooled: _Pooled,
    scores: dict[str, Score],
) -> dict[str, object] | None:
    """Return what decisions pay where every fold acts at the threshold of its own valid rows.

    The gain is that of the planned comparison: what each fold adapted over what each chose as baseline. What is bundled
    decides at the threshold that is best on all rows, each predicted by the fold that held it out.
    """
    rule = plan.recipe.value
    if rule is None:
        return None
    everything = value.Payoffs(pl.concat([frame[pooled.split.holdout]] * len(pooled.repeats)), rule)
    worths = {}
    for name in priced(chosen, champion):
        per_row, acted = pooled.payoffs(frame, rule, _named(name))
        mean = value.mean_payoff(per_row, pooled.resampler, rule.per)
        threshold = value.best_threshold(everything, np.concatenate(pooled.predictions(_named(name))))
        worths[name] = value.Worth(name, threshold, mean, acted, per_row)
    pick = _baseline if chosen.adapted is None else _adapted
    ours, theirs = (pooled.payoffs(frame, rule, p)[0] for p in (pick, _baseline))
    gain = value.mean_payoff(ours - theirs, pooled.resampler, rule.per)
    cpu_seconds = scores[chosen.adapted or chosen.baseline].candidate.cost.cpu_seconds / len(pooled.folds)
    return value_of(plan, chosen, worths, gain, scores, cpu_seconds)


def _test_to_train(folds: tuple[Fold, ...]) -> float:
    """Return rows held out over rows learned from (train and valid), of all folds."""
    return sum(len(f.split.holdout) for f in folds) / sum(len(f.split.before) for f in folds)


def _score(name: str, folds: tuple[Fold, ...], pooled: _Pooled, on_holdout: dict[str, tuple[float, Floats]]) -> Score:
    first = folds[0].scorecard
    each = [f.scorecard.score(own) for f in folds if (own := _named(name)(f.scorecard))]
    like = next(s for f in folds for s in f.scorecard.scores if s.candidate.name == name and s.scores)
    test_to_train = _test_to_train(folds)
    by_part: dict[str, dict[str, Interval]] = {}
    for part in PARTS[:2]:
        by_part[part] = {m: corrected_t([s.scores[part][m].value for s in each], test_to_train) for m in first.metrics}
    by_part["holdout"] = {m: interval(*on_holdout[m], metric.within) for m, metric in first.metrics.items()}
    at = {part: by_part[part][first.primary].value for part in PARTS}
    sign = first.metrics[first.primary].sign
    costs = [s.candidate.cost for s in each]
    cost = Cost(sum(c.seconds for c in costs), sum(c.cpu_seconds for c in costs), max(c.peak_mb for c in costs))
    binary = like.calibration is not None
    candidate = like.candidate
    if candidate.members:  # what is bundled: other candidates are those of the first fold
        candidate = mean_blend(candidate, [s.candidate for s in each])
    return replace(
        like,
        candidate=replace(candidate, cost=cost),
        scores=by_part,
        overfit_gap=sign * (at["train"] - at["holdout"]),
        selection_optimism=sign * (at["valid"] - at["holdout"]),
        calibration=explain.calibration(pooled.y, pooled.mean(_named(name))[:, 1]) if binary else None,
        score_cpu_seconds_per_row=float(np.mean([s.score_cpu_seconds_per_row for s in each])),
    )


def _planned(chosen: Chosen, names: list[str], pooled: _Pooled, primary: str, metric: Metric) -> Planned | None:
    if chosen.adapted is None:
        return None
    alone = candidate_name("blend", "baselines")
    picks = {alone: _blended_alone, chosen.baseline: _baseline, chosen.base: _base}
    opponents = dict(plan_of(chosen, names))
    if any(_blended_alone(f.scorecard) != _baseline(f.scorecard) for f in pooled.folds):
        opponents.setdefault(alone, "the blend of baselines alone")
    ours = pooled.scored({primary: metric}, _adapted)[primary]
    against = (
        Against(name, role, paired(metric, ours, pooled.scored({primary: metric}, picks[name])[primary])[0])
        for name, role in opponents.items()
    )
    return Planned(chosen.adapted, primary, tuple(against))


def _checks(folds: tuple[Fold, ...], held_out: Features, plan: Plan) -> tuple[CheckOutcome, ...]:
    """Return each check as most folds found it, and in how many it failed; too few cases are counted over all."""
    out = []
    for outcomes in zip(*(f.scorecard.checks for f in folds), strict=True):
        failed = [o for o in outcomes if o.outcome == "fail"]
        if outcomes[0].code == "too_few_holdout_cases":
            outcome, message = few_cases(held_out, plan.recipe.task)
            out.append(outcomes[0].model_copy(update={"outcome": outcome, "message": message}))
        elif 2 * len(failed) >= len(outcomes):
            text = f"In {len(failed)} of {len(outcomes)} folds: {failed[0].message}"
            out.append(failed[0].model_copy(update={"message": text}))
        else:
            kept = next(o for o in outcomes if o.outcome != "fail")
            note = f" (It fails in {len(failed)} of {len(outcomes)} folds.)" if failed else ""
            out.append(kept.model_copy(update={"message": f"In the first fold: {kept.message}{note}"}))
    return tuple(out)


def _importance(folds: tuple[Fold, ...], champion: str) -> tuple[str, list[tuple[str, Interval]]]:
    """Return the columns' importance, the mean of the folds whose champion is the one of all, else the first fold's."""
    those = [f.scorecard.importance[1] for f in folds if f.scorecard.importance[0] == champion]
    if not those:
        return folds[0].scorecard.importance
    seen: dict[str, list[Interval]] = {}
    for columns in those:
        for name, drop in columns:
            seen.setdefault(name, []).append(drop)
    means = [
        (name, Interval(*(float(np.mean([getattr(d, end) for d in drops])) for end in ("value", "low", "high"))))
        for name, drops in seen.items()
    ]
    return champion, sorted(means, key=lambda entry: -entry[1].value)


def _ablations(folds: tuple[Fold, ...]) -> list[dict[str, object]]:
    """Return each ablation with the mean of the folds; the intervals are those of the folds, averaged."""
    out: list[dict[str, object]] = []
    for entries in zip(*(f.scorecard.ablations for f in folds), strict=True):
        merged = dict(entries[0])
        for key in ("score", "gain"):
            merged[key] = Interval(
                *(float(np.mean([getattr(e[key], end) for e in entries])) for end in ("value", "low", "high"))
            )
        out.append(merged)
    return out
