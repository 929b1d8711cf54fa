"""The planned comparison and the verdict.

One comparison is fixed before the holdout is opened: the adapted candidate chosen on valid, against its own
base untouched and against the best baseline on valid. Both lower bounds must clear the worthwhile gain: an
intersection-union test (Berger 1982), so neither needs a correction. The rest is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tabkit.data.encode import Features
from tabkit.errors import count
from tabkit.evaluate.intervals import Interval, holm, paired
from tabkit.evaluate.metrics import Floats, Metric
from tabkit.learner import Kind, Predictions, candidate_name
from tabkit.models.base import TableCandidate, folds_of
from tabkit.models.blend import FOLDS

Decision = Literal["adapt", "keep_base", "use_baseline", "not_enough_evidence"]

MOST_ROWS = 100
"""A forecast beyond this many times today's rows is not made: it would be a guess."""


@dataclass(frozen=True)
class Chosen:
    """What valid chose, before the holdout was opened. Names of candidates."""

    adapted: str | None
    base: str | None
    baseline: str


@dataclass(frozen=True)
class Against:
    """The gain over one opponent of the planned comparison; positive is better."""

    name: str
    role: str
    gain: Interval


@dataclass(frozen=True)
class Planned:
    """The planned comparison, carried out."""

    candidate: str
    metric: str
    against: tuple[Against, ...]


@dataclass(frozen=True)
class Exploratory:
    """One unplanned comparison, its p-value adjusted for all of them."""

    candidate: str
    against: str
    gain: Interval
    p: float
    p_holm: float


@dataclass(frozen=True)
class Verdict:
    """What to do, in one sentence, with the numbers behind it.

    ``rows_needed`` is how many more labelled rows would likely settle it; None where that is not the question,
    or where no reachable number would.
    """

    decision: Decision
    sentence: str
    reason: str
    rows_needed: int | None
    champion: str


def choose(
    candidates: tuple[TableCandidate, ...], on_valid: dict[str, float], metric: Metric, picking: Mapping[Kind, float]
) -> Chosen:
    """Choose on valid alone: the best adapted candidate, its base, and the best baseline.

    A blend's value on valid comes from weights found on other rows; that of the best single candidate was picked
    because it is high on these very rows. So a blend is compared with what picking is worth on rows not picked by.

    Parameters
    ----------
    candidates
        Those whose proof was accepted.
    on_valid
        The primary metric on valid, by candidate.
    picking
        The primary metric of :func:`picked_on_valid`, by kind.
    """

    def rank(c: TableCandidate) -> tuple[float, int]:
        # Ties go to the candidate with fewer trained parameters.
        return metric.sign * _or_worst(on_valid[c.name], metric), -c.adapted.proof.trained_parameters

    def best(kind: Kind) -> TableCandidate | None:
        those = [c for c in candidates if c.kind == kind]
        single = max((c for c in those if c.base != "blend"), key=rank, default=None)
        blend = max((c for c in those if c.base == "blend"), key=rank, default=None)
        if single is None or blend is None:
            return single or blend
        return blend if rank(blend)[0] > metric.sign * _or_worst(picking[kind], metric) else single

    baseline, adapted = best("baseline"), best("adapted")
    assert baseline is not None, "baselines are always in the table"
    base = next((c for c in candidates if adapted and c.kind == "base" and c.base == adapted.base), None)
    return Chosen(adapted.name if adapted else None, base.name if base else None, baseline.name)


def picked_on_valid(candidates: Sequence[TableCandidate], valid: Features, metric: Metric) -> Predictions:
    """Predict each row of valid by the candidate that is best on the folds without it."""
    fold = folds_of(valid, FOLDS, np.random.default_rng(0))
    out = np.zeros_like(candidates[0].valid)
    for k in np.unique(fold):
        inside, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        labels = valid.labels[rest]
        best = max(candidates, key=lambda c: metric.sign * _or_worst(metric.value(labels, c.valid[rest]), metric))
        out[inside] = best.valid[inside]
    return out


def _or_worst(value: float, metric: Metric) -> float:
    return value if math.isfinite(value) else -metric.sign * math.inf


def plan_of(chosen: Chosen, names: Collection[str]) -> list[tuple[str, str]]:
    """Return the opponents of the planned comparison and their roles; fixed before the holdout is opened.

    A blend with adapted members has a third one: what blending baselines alone gains is not adapting's to claim.

    Parameters
    ----------
    names
        All candidates that were accepted.
    """
    blended = chosen.adapted == candidate_name("blend", "all")
    own = "the same blend without adapted members" if blended else "its own base, untouched"
    opponents = [(chosen.base, own), (chosen.baseline, "the best baseline on valid")]
    alone = candidate_name("blend", "baselines")
    if blended and alone in names and alone != chosen.baseline:
        opponents.append((alone, "the blend of baselines alone"))
    return [(name, role) for name, role in opponents if name is not None]


def compare_planned(
    chosen: Chosen, primary: str, metric: Metric, scores: dict[str, tuple[float, Floats]]
) -> Planned | None:
    """Carry out the planned comparison; None where nothing was adapted.

    Parameters
    ----------
    scores
        The primary metric on holdout and its distribution over the common resamples, by candidate.
    """
    if chosen.adapted is None:
        return None
    against = (
        Against(name, role, paired(metric, scores[chosen.adapted], scores[name])[0])
        for name, role in plan_of(chosen, scores)
    )
    return Planned(chosen.adapted, primary, tuple(against))


def explore(chosen: Chosen, metric: Metric, scores: dict[str, tuple[float, Floats]]) -> tuple[Exploratory, ...]:
    """Compare every other candidate with the best baseline; p-values are adjusted for their number."""
    others = [name for name in scores if name not in (chosen.baseline, chosen.adapted)]
    gains = [paired(metric, scores[name], scores[chosen.baseline]) for name in others]
    adjusted = holm([p for _, p in gains])
    return tuple(
        Exploratory(name, chosen.baseline, gain, p, p_holm)
        for name, (gain, p), p_holm in zip(others, gains, adjusted, strict=True)
    )


def decide(
    planned: Planned | None,
    chosen: Chosen,
    on_valid: dict[str, float],
    metric: Metric,
    worthwhile: float,
    n_rows: dict[str, int],
    curve: dict[str, list[tuple[int, float]]],
    titles: dict[str, str],
    unit: str = "row",
) -> Verdict:
    """Turn the planned comparison into a verdict.

    Parameters
    ----------
    on_valid
        The primary metric on valid, by candidate: it decides between base and baseline where adapting did not.
    n_rows
        Rows of train, valid and holdout.
    curve
        Per opponent, the gain on valid at each number of train rows: whether the gain shrinks as rows grow.
    titles
        What each candidate is called in a sentence.
    unit
        What is counted: rows, or users.
    """
    baseline = titles[chosen.baseline]
    if planned is None:
        sentence = f"Nothing was adapted: use {baseline}, the best baseline."
        return Verdict("use_baseline", sentence, "The recipe names no strategy to adapt by.", None, chosen.baseline)
    gains = {a.name: a.gain for a in planned.against}
    numbers = "; ".join(f"against {titles[a.name]} ({a.role}): {_signed(a.gain)}" for a in planned.against)
    reason = f"Gain of {titles[planned.candidate]} in {metric.called} on {n_rows['holdout']:,} untouched {unit}s, with 95% intervals: {numbers}."
    if worthwhile:
        reason += f" A gain counts from {worthwhile:g}."
    name = titles[planned.candidate]
    if chosen.base is not None and all(gain.low > worthwhile for gain in gains.values()):
        weakest = min(planned.against, key=lambda a: a.gain.value)
        beaten = f"both its own untouched base and the best baseline, {baseline},"
        if planned.candidate == candidate_name("blend", "all"):
            beaten = f"the same blend without adapted members, the blend of baselines alone and the best baseline, {baseline},"
        sentence = f"Fine-tuning paid: {name} beats {beaten} on rows nobody had touched (by at least {_plain(weakest.gain.low)} {metric.called}, at 95% confidence)."
        return Verdict("adapt", sentence, reason, None, planned.candidate)
    stay = better_on_valid(chosen, on_valid, metric)
    if all(gain.value > worthwhile for gain in gains.values()):
        needed = rows_needed(gains, worthwhile, sum(n_rows.values()), curve)
        more = (
            f"collect about {count(needed, f'more {unit}')}"
            if needed
            else f"more {unit}s of this kind are unlikely to prove it"
        )
        sentence = (
            f"Not enough evidence: {name} looks better, but the holdout cannot tell its gain from chance; {more}. "
            f"Until then use {titles[stay]}."
        )
        return Verdict("not_enough_evidence", sentence, reason, needed, stay)
    worst = min(planned.against, key=lambda a: a.gain.value)
    shown = _plain(abs(worst.gain.value))
    against = titles[worst.name]
    if worst.gain.value <= 0:
        finding = (
            f"{name} scored {shown} {metric.called} worse than {against}"
            if shown != "0"
            else f"{name} scored the same as {against}"
        )
    else:
        finding = (
            f"{name} gained only {shown} {metric.called} over {against}, below the {worthwhile:g} that would matter"
        )
    if stay != chosen.baseline:
        return Verdict(
            "keep_base", f"Keep the base: fine-tuning did not pay. {finding}; use {titles[stay]}.", reason, None, stay
        )
    return Verdict("use_baseline", f"Fine-tuning did not pay: use {titles[stay]}. {finding}.", reason, None, stay)


def over_cutoffs(verdict: Verdict, earlier: list[dict[str, Any]], worthwhile: float, stay: str, title: str) -> Verdict:
    """Let ``adapt`` stand only where most cutoffs agree: one window of four weeks can be lucky.

    Parameters
    ----------
    earlier
        The planned comparison at earlier cutoffs: ``gains``, each with its ``low``.
    stay, title
        What stays where the verdict falls, and what it is called.
    """
    if not earlier:
        return verdict
    agree = sum(bool(e["gains"]) and all(g["low"] > worthwhile for g in e["gains"]) for e in earlier)
    held, total = agree + (verdict.decision == "adapt"), len(earlier) + 1
    told = f"{verdict.reason} Of {total} cutoffs, {held} showed all gains to be worthwhile."
    if verdict.decision != "adapt" or 2 * held > total:
        return replace(verdict, reason=told)
    sentence = f"Not enough evidence: the gain at the last cutoff is not there at most of the {total} cutoffs. Until then use {title}."
    return Verdict("not_enough_evidence", sentence, told, None, stay)


def better_on_valid(chosen: Chosen, on_valid: dict[str, float], metric: Metric) -> str:
    """Return what stays where adapting did not pay; a tie goes to the baseline."""
    if chosen.base is None:
        return chosen.baseline
    blended = candidate_name("blend", "bases")  # there without an adapted blend where no adapted member had weight
    options = [chosen.baseline, chosen.base, *([blended] if blended in on_valid else [])]
    return max(options, key=lambda name: metric.sign * _or_worst(on_valid[name], metric))


def rows_needed(
    gains: dict[str, Interval], worthwhile: float, rows_now: int, curve: dict[str, list[tuple[int, float]]]
) -> int | None:
    """Forecast how many more rows would bring every lower bound above ``worthwhile``.

    The interval narrows with the square root of the rows. A gain that shrinks along the learning curve is
    forecast to go on shrinking; one that grows is not counted on, so the forecast does not promise.

    >>> rows_needed({"lgbm": Interval(0.02, -0.02, 0.06)}, 0.0, 1000, {})
    3100
    """
    slopes = {name: min(0.0, _slope(curve.get(name, []))) for name in gains}
    steps = 1000
    for step in range(steps + 1):
        times = MOST_ROWS ** (step / steps)
        lows = (
            gain.value + slopes[name] * math.log2(times) - (gain.value - gain.low) / math.sqrt(times)
            for name, gain in gains.items()
        )
        if all(low > worthwhile for low in lows):
            return _two_digits((times - 1.0) * rows_now)
    return None


def _slope(points: list[tuple[int, float]]) -> float:
    """Return the least-squares change of the gain per doubling of the train rows."""
    if len(points) < 2:
        return 0.0
    xs = [math.log2(n) for n, _ in points]
    ys = [gain for _, gain in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


def _two_digits(number: float) -> int:
    if number < 1:
        return 1
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return int(math.ceil(number / unit - 1e-9) * unit)


def _plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}".rstrip("0").rstrip(".")


def _signed(gain: Interval) -> str:
    width = gain.high - gain.low  # all three to the same decimals, as many as the interval's width bears
    decimals = max(0, 2 - math.floor(math.log10(width))) if 0 < width < math.inf else 4
    return f"{gain.value:+.{decimals}f} [{gain.low:+.{decimals}f}, {gain.high:+.{decimals}f}]"
