"""The harness: plan on valid, open the holdout once, measure every candidate on the same resamples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.split import Split
from tabkit.data.target import band, on_scale, to_scale
from tabkit.evaluate import explain, value
from tabkit.evaluate.checks import MIN_GROUP_ROWS, TableEvidence, run_checks, sensitive_groups
from tabkit.evaluate.comparison import (
    Chosen,
    Exploratory,
    Planned,
    Verdict,
    choose,
    compare_planned,
    decide,
    explore,
    picked_on_valid,
)
from tabkit.evaluate.intervals import RESAMPLES, Interval, Resampler, interval, paired
from tabkit.evaluate.ledger import Sealed
from tabkit.evaluate.metrics import Floats, Metric
from tabkit.evaluate.proof import contradiction
from tabkit.models.base import Candidate, Kind, Predictions, candidate_name, folds_of
from tabkit.models.blend import Blend
from tabkit.recipe import Plan
from tabkit.result import PARTS as EVERY_PART
from tabkit.result import Calibration, CheckOutcome
from tabkit.result import Interval as Reported
from tabkit.seed import stream

PARTS = ("train", "valid", "holdout")
TRAIN_SHARE = 4
"""Intervals on train and valid only describe; a quarter of the resamples does."""
INTERVAL_LEVEL = 0.9
"""Share of new rows that a regression's intervals are made to hold."""
WATTS_PER_CORE = 10.0
"""Assumed power of a busy core, for the energy estimate; stated beside the figure."""


@dataclass(frozen=True)
class Parts:
    """The rows of a table by part; the holdout is sealed. ``source`` is what bases were pretrained on."""

    train: Features
    valid: Features
    holdout: Sealed[Features]
    frame: pl.DataFrame
    split: Split
    source: Features | None = None


@dataclass(frozen=True)
class Extras:
    """What else adaptation ran for the harness: learning curve, ablations, and the control on labels shuffled anew."""

    curve: list[tuple[int, dict[str, Predictions]]]
    ablations: tuple[tuple[Candidate, list[str]], ...]
    shuffled: tuple[Predictions, ...]


@dataclass(frozen=True)
class Choice:
    """What valid chose, and the candidates that the harness refused, with why. Made before the holdout opens."""

    chosen: Chosen
    on_valid: dict[str, float]
    refused: dict[str, str]
    accepted: tuple[Candidate, ...]


@dataclass(frozen=True)
class Score:
    """One candidate, measured."""

    candidate: Candidate
    refused: str | None
    scores: dict[str, dict[str, Interval]]
    overfit_gap: float | None = None
    excess_gap: float | None = None
    selection_optimism: float | None = None
    calibration: dict[str, Any] | None = None
    score_cpu_seconds_per_row: float = 0.0
    threshold: float | None = None
    """Where the recipe says what decisions pay: the probability from which acting pays most on valid."""


@dataclass(frozen=True)
class Fidelity:
    """How well a student stands in for its teacher, measured on the holdout.

    Attributes
    ----------
    agreement
        Share of rows on which both predict the same class, at the teacher's threshold; None for regression.
    mean_difference
        Mean absolute difference of their probabilities, over classes; of their predictions, in the target's unit.
    r2
        Share of the variance of the teacher's predictions that the student's explain; None for classification.
    speedup
        Rows scored per CPU second, student over teacher.
    gain
        Of the student over the teacher in the primary metric; positive is better.
    """

    student: str
    teacher: str
    agreement: float | None
    mean_difference: float
    r2: float | None
    speedup: float | None
    gain: Interval


@dataclass(frozen=True)
class Scorecard:
    """All that the harness measured."""

    primary: str
    metrics: dict[str, Metric]
    scores: tuple[Score, ...]
    chosen: Chosen
    planned: Planned | None
    exploratory: tuple[Exploratory, ...]
    verdict: Verdict
    checks: tuple[CheckOutcome, ...]
    curve: list[tuple[int, dict[str, float]]]
    value: dict[str, object] | None
    importance: tuple[str, list[tuple[str, Interval]]]
    slices: list[dict[str, Any]]
    ablations: list[dict[str, Any]]
    holdout_predictions: dict[str, Predictions] = field(repr=False)
    interval_coverage: float | None
    opened: int | None
    resamples: int
    widening: float = 1.0
    """Of the intervals on holdout; see :class:`Resampler`."""
    fidelity: Fidelity | None = None
    half_width: float | None = None
    """Half-width of the 90% intervals that ``interval_coverage`` speaks of, on the target's scale."""

    def score(self, name: str) -> Score:
        """Return the score of a candidate by name."""
        return next(s for s in self.scores if s.candidate.name == name)


def refusals(candidates: tuple[Candidate, ...]) -> dict[str, str]:
    """Return the candidates whose proof contradicts their ``how``, and why."""
    faults = {c.name: contradiction(c.adapted, c.base) for c in candidates}
    return {name: fault for name, fault in faults.items() if fault is not None}


def choose_on_valid(candidates: tuple[Candidate, ...], valid: Features, metric: Metric) -> Choice:
    """Check every proof and choose on valid; nothing here sees the holdout."""
    assert valid.y is not None
    refused = refusals(candidates)
    accepted = tuple(c for c in candidates if c.name not in refused)
    on_valid = {c.name: metric.value(valid.y, c.valid) for c in accepted}
    picking: dict[Kind, float] = {}
    for kind in ("baseline", "adapted"):
        singles = [c for c in accepted if c.kind == kind and c.base != "blend"]
        if singles:
            picking[kind] = metric.value(valid.y, picked_on_valid(singles, valid, metric))
    return Choice(choose(accepted, on_valid, metric, picking), on_valid, refused, accepted)


def evaluate(
    plan: Plan,
    candidates: tuple[Candidate, ...],
    choice: Choice,
    parts: Parts,
    extras: Extras,
    metrics: dict[str, Metric],
    level: str,
    seed: int,
    watch: Callable[[float, str], None] = lambda fraction, note: None,
    distil: Callable[[Candidate], Candidate] | None = None,
) -> Scorecard:
    """Open the holdout and measure everything.

    Parameters
    ----------
    choice
        What valid chose; fixed from here on.
    metrics
        The metrics reported, the primary one first.
    level
        The budget's level, which sets the number of resamples.
    distil
        Makes a student of the champion, from train and valid alone; it is measured beside the others, in the same
        opening of the holdout, and takes no part in any choice.
    """
    primary = next(iter(metrics))
    metric = metrics[primary]
    split, train, valid = parts.split, parts.train, parts.valid
    assert train.y is not None and valid.y is not None
    resamplers = {
        part: Resampler(
            len(rows), None if split.groups is None else split.groups[rows], RESAMPLES[level] // fewer, seed
        )
        for part, rows, fewer in (
            ("train", split.train, TRAIN_SHARE),
            ("valid", split.valid, TRAIN_SHARE),
            ("holdout", split.holdout, 1),
        )
    }
    holdout, opened = parts.holdout.open()
    assert holdout.y is not None

    rule = plan.recipe.value
    paid_on_valid = None if rule is None else value.Payoffs(parts.frame[split.valid], rule)
    scores: list[Score] = []
    spread: dict[str, tuple[float, Floats]] = {}
    predictions: dict[str, Predictions] = {}

    def measure(candidate: Candidate) -> Score:
        predicted, cpu_per_row = _timed_predict(candidate, holdout, predictions, scores)
        predictions[candidate.name] = predicted
        by_part = {}
        for part, rows, p in (
            ("train", train, candidate.train),
            ("valid", valid, candidate.valid),
            ("holdout", holdout, predicted),
        ):
            drawn = resamplers[part].distributions(metrics, rows.labels, p)
            by_part[part] = {n: interval(m.value(rows.labels, p), drawn[n]) for n, m in metrics.items()}
            if part == "holdout":
                spread[candidate.name] = (by_part[part][primary].value, drawn[primary])
        at = {part: by_part[part][primary].value for part in PARTS}
        return Score(
            candidate,
            None,
            by_part,
            overfit_gap=metric.sign * (at["train"] - at["holdout"]),
            selection_optimism=metric.sign * (at["valid"] - at["holdout"]),
            calibration=explain.calibration(rows.labels, predicted[:, 1]) if plan.recipe.task == "binary" else None,
            score_cpu_seconds_per_row=cpu_per_row,
            threshold=None if paid_on_valid is None else value.best_threshold(paid_on_valid, candidate.valid),
        )

    for done, candidate in enumerate(candidates):
        watch(done / len(candidates), f"measuring {candidate.name}")
        refused = choice.refused.get(candidate.name)
        scores.append(measure(candidate) if refused is None else Score(candidate, refused, {}))
    baseline_gap = next(s.overfit_gap or 0.0 for s in scores if s.candidate.name == choice.chosen.baseline)
    scores = [with_excess(s, baseline_gap) for s in scores]

    watch(1.0, "comparing")
    planned = compare_planned(choice.chosen, primary, metric, spread)
    curve = [(n, {name: metric.value(valid.y, p) for name, p in by.items()}) for n, by in extras.curve]
    verdict = decide(
        planned,
        choice.chosen,
        choice.on_valid,
        metric,
        plan.recipe.metrics.worthwhile,
        split.sizes(),
        _gain_curve(curve, choice.chosen, metric),
        {c.name: c.title for c in candidates},
    )
    by_name = {s.candidate.name: s for s in scores}
    shown = [
        n
        for n in dict.fromkeys((verdict.champion, choice.chosen.adapted, choice.chosen.base, choice.chosen.baseline))
        if n
    ]
    frame = parts.frame[split.holdout]
    groups, slices = slices_of(
        plan, frame, holdout, shown, verdict.champion, predictions, metric, resamplers["holdout"], split
    )
    champion = by_name[verdict.champion].candidate
    columns = explain.importance(champion.adapted.model, train, valid, holdout, metric, resamplers["holdout"])
    learned, tried = _apart(train, valid, split, seed)
    calibrated = by_name[verdict.champion].calibration
    checks = run_checks(
        TableEvidence(
            plan=plan,
            frame=parts.frame,
            split=split,
            train=learned,
            valid=tried,
            holdout=holdout,
            metric=metric,
            scores={
                n: {part: s.scores[part][primary].value for part in EVERY_PART} for n, s in by_name.items() if s.scores
            },
            kinds={c.name: c.kind for c in candidates},
            champion=verdict.champion,
            baseline=choice.chosen.baseline,
            champion_gain=(
                None
                if verdict.champion == choice.chosen.baseline
                else Reported(*astuple(paired(metric, spread[verdict.champion], spread[choice.chosen.baseline])[0]))
            ),
            shuffled=tuple(
                Reported(*astuple(_against_prior(p, candidates, valid, metric, resamplers["valid"])))
                for p in extras.shuffled
            ),
            calibration=None if calibrated is None else Calibration.model_validate(calibrated),
            envelopes={
                c.name: why for c in candidates if c.kind == "base" and (why := c.adapted.model.envelope(train))
            },
            groups=groups,
            opened=opened,
            seed=seed,
            source=parts.source,
        )
    )
    worth = _value(plan, choice.chosen, parts, predictions, by_name, resamplers["holdout"], verdict.champion)
    fidelity = None
    if distil is not None:  # after everything is decided: it can change nothing
        watch(1.0, f"student of {verdict.champion}")
        student = with_excess(measure(distil(champion)), baseline_gap)
        scores.append(student)
        fidelity = _fidelity(student, by_name[champion.name], predictions, spread, metric, worth)
    half_width = (
        conformal_half_width(valid.y, champion.valid, plan.recipe.scale) if plan.recipe.task == "regression" else None
    )
    return Scorecard(
        primary=primary,
        metrics=metrics,
        scores=tuple(scores),
        chosen=choice.chosen,
        planned=planned,
        exploratory=explore(choice.chosen, metric, spread),
        verdict=verdict,
        checks=checks,
        curve=curve,
        value=worth,
        importance=(verdict.champion, columns),
        slices=slices,
        ablations=_ablations(extras, spread, holdout, metric, resamplers["holdout"]),
        holdout_predictions=predictions,
        interval_coverage=_coverage(holdout.labels, predictions[champion.name], half_width, plan.recipe.scale),
        half_width=half_width,
        opened=opened,
        resamples=RESAMPLES[level],
        fidelity=fidelity,
    )


def _apart(train: Features, valid: Features, split: Split, seed: int) -> tuple[Features, Features]:
    """Return train and valid without a row in both, for checks that learn from the one and try on the other."""
    if split.inner is None:
        return train, valid
    fold = folds_of(train, split.inner, stream(seed, "inner folds"))
    return train.take(np.flatnonzero(fold != 0)), train.take(np.flatnonzero(fold == 0))


def conformal_half_width(
    y: npt.NDArray[np.float64], predicted: Predictions, scale: str | None = None, level: float = INTERVAL_LEVEL
) -> float:
    """Return the split-conformal half-width, on the target's scale: the residual that covers ``level`` of new rows.

    Source: Lei et al., *Distribution-Free Predictive Inference for Regression*, JASA 2018.
    """
    residuals = np.sort(np.abs(to_scale(scale, y) - on_scale(scale, predicted)))
    rank = int(np.ceil(level * (len(residuals) + 1))) - 1
    return float(residuals[min(rank, len(residuals) - 1)])


def _coverage(
    y: npt.NDArray[np.float64], predicted: Predictions, half_width: float | None, scale: str | None
) -> float | None:
    if half_width is None:
        return None
    low, high = band(scale, predicted, half_width)
    return float(np.mean((low <= y) & (y <= high)))


def with_excess(score: Score, baseline_gap: float) -> Score:
    """Return a score with its gap beyond the baseline's."""
    return replace(score, excess_gap=None if score.overfit_gap is None else score.overfit_gap - baseline_gap)


def _timed_predict(
    candidate: Candidate, rows: Features, known: dict[str, Predictions], scores: list[Score]
) -> tuple[Predictions, float]:
    """Predict, and return CPU seconds per row; a blend is put together of its members' predictions and seconds."""
    start = time.process_time()
    model = candidate.adapted.model
    if candidate.members and isinstance(model, Blend):
        names = [member.name for member in candidate.members]
        spent = sum(s.score_cpu_seconds_per_row for s in scores if s.candidate.name in names)
        predicted = model.combine(known)
    else:
        spent, predicted = 0.0, model.predict(rows)
    return predicted, spent + (time.process_time() - start) / max(1, len(rows))


def _fidelity(
    student: Score,
    teacher: Score,
    predictions: dict[str, Predictions],
    spread: dict[str, tuple[float, Floats]],
    metric: Metric,
    worth: dict[str, Any] | None,
) -> Fidelity:
    names = student.candidate.name, teacher.candidate.name
    own, taught = predictions[names[0]], predictions[names[1]]
    agreement = r2 = None
    if own.ndim == 1:
        spread_of = float(np.sum((taught - taught.mean()) ** 2))
        r2 = 1.0 - float(np.sum((own - taught) ** 2)) / spread_of if spread_of > 0 else None
    elif own.shape[1] == 2:
        threshold = threshold_of(names[1], worth)
        agreement = float(np.mean((own[:, 1] >= threshold) == (taught[:, 1] >= threshold)))
    else:
        agreement = float(np.mean(own.argmax(axis=1) == taught.argmax(axis=1)))
    seconds = student.score_cpu_seconds_per_row, teacher.score_cpu_seconds_per_row
    return Fidelity(
        *names,
        agreement=agreement,
        mean_difference=float(np.mean(np.abs(own - taught))),
        r2=r2,
        speedup=seconds[1] / seconds[0] if seconds[0] > 0 else None,
        gain=paired(metric, spread[names[0]], spread[names[1]])[0],
    )


def threshold_of(name: str, worth: dict[str, Any] | None) -> float:
    """Return the probability from which the positive class is predicted: the value's threshold, else one half."""
    worths = (worth or {}).get("candidates", [])
    return float(next((w["threshold"] for w in worths if w["name"] == name), 0.5))


def _gain_curve(
    curve: list[tuple[int, dict[str, float]]], chosen: Chosen, metric: Metric
) -> dict[str, list[tuple[int, float]]]:
    opponents = [name for name in (chosen.base, chosen.baseline) if name]
    if chosen.adapted is None:
        return {}
    return {
        name: [
            (n, metric.sign * (by[chosen.adapted] - by[name])) for n, by in curve if chosen.adapted in by and name in by
        ]
        for name in opponents
    }


def _against_prior(
    shuffled: Predictions, candidates: tuple[Candidate, ...], valid: Features, metric: Metric, resampler: Resampler
) -> Interval:
    prior = next(c for c in candidates if c.name == "prior").valid
    assert valid.y is not None
    both = [(metric.value(valid.y, p), resampler.distribution(metric, valid.y, p)) for p in (shuffled, prior)]
    return paired(metric, both[0], both[1])[0]


def slices_of(
    plan: Plan,
    frame: pl.DataFrame,
    holdout: Features,
    shown: list[str],
    champion: str,
    predictions: dict[str, Predictions],
    metric: Metric,
    resampler: Resampler,
    split: Split,
) -> tuple[dict[str, dict[str, tuple[float, int]]], list[dict[str, Any]]]:
    """Score the recipe's slices and the groups of sensitive fields; the latter also as the fairness check wants them."""
    assert holdout.y is not None
    named: list[tuple[str, npt.NDArray[np.bool_], str | None]] = [
        (s.name, explain.in_slice(frame, s.where), None) for s in plan.recipe.slices
    ]
    for column, schema_field in plan.schema.fields.items():
        if schema_field.sensitive and column in frame.columns and column != plan.recipe.target:
            values = sensitive_groups(frame, column)
            for group in values.drop_nulls().unique().sort():
                inside = (values == group).fill_null(False).to_numpy()
                if inside.sum() >= MIN_GROUP_ROWS:
                    named.append((f"{column}: {group}", inside, column))
    groups: dict[str, dict[str, tuple[float, int]]] = {}
    out: list[dict[str, Any]] = []
    for name, inside, sensitive in named:
        rows = np.flatnonzero(inside)
        y = holdout.y[rows]
        enough = len(rows) >= 20 and (holdout.layout.task == "regression" or len(np.unique(y)) > 1)
        entry: dict[str, Any] = {"name": name, "rows": len(rows), "too_few": not enough, "scores": {}}
        if enough:
            clusters = None if split.groups is None else split.groups[split.holdout][rows]
            few = replace(resampler, n_rows=len(rows), groups=clusters, resamples=min(500, resampler.resamples))
            for candidate in shown:
                p = predictions[candidate][rows]
                entry["scores"][candidate] = interval(metric.value(y, p), few.distribution(metric, y, p), metric.within)
            if sensitive is not None:
                groups.setdefault(sensitive, {})[name.split(": ", 1)[1]] = (entry["scores"][champion].value, len(rows))
        out.append(entry)
    return {column: values for column, values in groups.items() if len(values) > 1}, out


def _ablations(
    extras: Extras, spread: dict[str, tuple[float, Floats]], holdout: Features, metric: Metric, resampler: Resampler
) -> list[dict[str, Any]]:
    assert holdout.y is not None
    out = []
    for candidate, dropped in extras.ablations:
        full_name = candidate_name(candidate.base, candidate.how)
        predicted = candidate.adapted.model.predict(holdout.without(dropped))
        own = (metric.value(holdout.y, predicted), resampler.distribution(metric, holdout.y, predicted))
        gain, _ = paired(metric, own, spread[full_name])
        out.append(
            {"name": candidate.name, "drop": dropped, "candidate": full_name, "score": interval(*own), "gain": gain}
        )
    return out


def _value(
    plan: Plan,
    chosen: Chosen,
    parts: Parts,
    predictions: dict[str, Predictions],
    scores: dict[str, Score],
    resampler: Resampler,
    champion: str,
) -> dict[str, Any] | None:
    if plan.recipe.value is None:
        return None
    on_holdout = value.Payoffs(parts.frame[parts.split.holdout], plan.recipe.value)
    worths = {
        name: value.worth(name, on_holdout, predictions[name], scores[name].threshold, resampler)
        for name in priced(chosen, champion)
    }
    candidate = chosen.adapted or chosen.baseline
    gain = value.gain(worths[candidate], worths[chosen.baseline], resampler, plan.recipe.value.per)
    return value_of(plan, chosen, worths, gain, scores, scores[candidate].candidate.cost.cpu_seconds)


def priced(chosen: Chosen, champion: str) -> list[str]:
    """Return the candidates whose decisions are priced: those of the planned comparison, the champion, and the prior."""
    return [n for n in dict.fromkeys((chosen.adapted, chosen.base, chosen.baseline, champion, "prior")) if n]


def value_of(
    plan: Plan,
    chosen: Chosen,
    worths: dict[str, value.Worth],
    gain: Interval,
    scores: dict[str, Score],
    cpu_seconds: float,
) -> dict[str, Any]:
    """Return the value block of ``result.json``; ``cpu_seconds`` is what it takes to make the candidate once."""
    return value.summary(
        plan.recipe,
        worths,
        chosen.adapted or chosen.baseline,
        chosen.baseline,
        gain,
        cpu_seconds,
        {name: scores[name].score_cpu_seconds_per_row for name in worths},
        {name: scores[name].candidate.title for name in worths},
    )
