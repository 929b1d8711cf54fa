"""The planned comparison and the verdict.

One comparison is fixed before the holdout is opened: the adapted candidate chosen on valid, against its own
base untouched and against the best baseline on valid. Both lower bounds must clear the worthwhile gain: an
intersection-union test (Berger 1982), so neither needs a correction. The rest is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from tabkit.errors import count
from tabkit.evaluate.choice import Choice, Terms, better_on_valid
from tabkit.evaluate.intervals import Resampled, holm, paired
from tabkit.evaluate.metrics import Metric
from tabkit.learner import candidate_name
from tabkit.result import Against, Chosen, Exploratory, Planned, Verdict
from tabkit.result.lists import Cutoff

MOST_ROWS = 100
"""A forecast beyond this many times today's rows is not made: it would be a guess."""

GainCurve = Mapping[str, list[tuple[int, float]]]
"""Per opponent, the gain on valid at each number of train rows: whether the gain shrinks as rows grow."""


def plan_of(chosen: Chosen, names: Collection[str]) -> list[tuple[str, str]]:
    """Return the opponents of the planned comparison and their roles; fixed before the holdout is opened.

    A blend with adapted members has a third one: the gain of blending baselines must not be credited to adaptation.

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


def compare_planned(chosen: Chosen, terms: Terms, scores: Mapping[str, Resampled]) -> Planned | None:
    """Carry out the planned comparison; None if nothing was adapted.

    Parameters
    ----------
    scores
        The primary metric on holdout, by candidate, over the common resamples.
    """
    if chosen.adapted is None:
        return None
    ours = scores[chosen.adapted]
    against = (
        Against.of(name, role, paired(terms.metric, ours, scores[name])[0]) for name, role in plan_of(chosen, scores)
    )
    return Planned(candidate=chosen.adapted, metric=terms.primary, against=tuple(against))


def explore(chosen: Chosen, metric: Metric, scores: Mapping[str, Resampled]) -> tuple[Exploratory, ...]:
    """Compare every other candidate with the best baseline; p-values are adjusted for their number."""
    others = [name for name in scores if name not in (chosen.baseline, chosen.adapted)]
    gains = [paired(metric, scores[name], scores[chosen.baseline]) for name in others]
    adjusted = holm([p for _, p in gains])
    return tuple(
        Exploratory(
            candidate=name,
            against=chosen.baseline,
            gain=gain.value,
            low=gain.low,
            high=gain.high,
            p=p,
            p_holm=p_holm,
        )
        for name, (gain, p), p_holm in zip(others, gains, adjusted, strict=True)
    )


def decide(
    planned: Planned | None,
    choice: Choice,
    terms: Terms,
    n_rows: Mapping[str, int],
    curve: GainCurve,
    barred: Collection[str] = (),
) -> tuple[Verdict, str]:
    """Turn the planned comparison into a verdict, and name the champion that follows it.

    Parameters
    ----------
    n_rows
        Rows (or users) of the parts, ``holdout`` among them.
    barred
        Who does not stay, whatever valid says: see :func:`proven_worse`.
    """
    titles, baseline = choice.titles, choice.chosen.baseline
    if planned is None:
        sentence = f"Nothing was adapted: use {titles[baseline]}, the best baseline."
        reason = "The recipe names no strategy to adapt by."
        return Verdict(decision="use_baseline", sentence=sentence, reason=reason), baseline
    metric, worthwhile, name = terms.metric, terms.worthwhile, titles[planned.candidate]
    numbers = "; ".join(f"against {titles[a.name]} ({a.role}): {_signed(a)}" for a in planned.against)
    reason = f"Gain of {name} in {metric.called} on {n_rows['holdout']:,} untouched {terms.unit}s, with 95% intervals: {numbers}."
    if worthwhile:
        reason += f" A gain counts from {worthwhile:g}."
    if choice.chosen.base is not None and all(a.low > worthwhile for a in planned.against):
        sentence = _paid(planned, titles, titles[baseline], metric)
        return Verdict(decision="adapt", sentence=sentence, reason=reason), planned.candidate
    stay = better_on_valid(choice, metric, barred)
    if all(a.gain > worthwhile for a in planned.against):
        needed = rows_needed(planned.against, worthwhile, sum(n_rows.values()), curve)
        more = (
            f"collect about {count(needed, f'more {terms.unit}')}"
            if needed
            else f"more {terms.unit}s of this kind are unlikely to prove it"
        )
        sentence = (
            f"Not enough evidence: {name} looks better, but the holdout cannot tell its gain from chance; {more}. "
            f"Until then use {titles[stay]}."
        )
        verdict = Verdict(decision="not_enough_evidence", sentence=sentence, reason=reason, rows_needed=needed)
        return verdict, stay
    finding = _shortfall(planned, titles, metric, worthwhile)
    if stay != baseline:
        sentence = f"Keep the base: fine-tuning did not pay. {finding}; use {titles[stay]}."
        return Verdict(decision="keep_base", sentence=sentence, reason=reason), stay
    sentence = f"Fine-tuning did not pay: use {titles[stay]}. {finding}."
    return Verdict(decision="use_baseline", sentence=sentence, reason=reason), stay


def proven_worse(chosen: Chosen, metric: Metric, scores: Mapping[str, Resampled]) -> frozenset[str]:
    """Return the candidates that the holdout proves worse than the best baseline: none of them may be the champion."""
    return frozenset(n for n in scores if paired(metric, scores[n], scores[chosen.baseline])[0].high < 0)


def _paid(planned: Planned, titles: Mapping[str, str], baseline: str, metric: Metric) -> str:
    weakest = min(planned.against, key=lambda a: a.gain)
    beaten = f"both its own untouched base and the best baseline, {baseline},"
    if planned.candidate == candidate_name("blend", "all"):
        beaten = (
            f"the same blend without adapted members, the blend of baselines alone and the best baseline, {baseline},"
        )
    return (
        f"Fine-tuning paid: {titles[planned.candidate]} beats {beaten} on rows nobody had touched (by at least "
        f"{_plain(weakest.low)} {metric.called}, at 95% confidence)."
    )


def _shortfall(planned: Planned, titles: Mapping[str, str], metric: Metric, worthwhile: float) -> str:
    worst = min(planned.against, key=lambda a: a.gain)
    name, against, shown = titles[planned.candidate], titles[worst.name], _plain(abs(worst.gain))
    if worst.gain > 0:
        return f"{name} gained only {shown} {metric.called} over {against}, below the {worthwhile:g} that would matter"
    if shown == "0":
        return f"{name} scored the same as {against}"
    return f"{name} scored {shown} {metric.called} worse than {against}"


def over_cutoffs(
    verdict: Verdict,
    champion: str,
    earlier: Sequence[Cutoff],
    choice: Choice,
    terms: Terms,
    barred: Collection[str] = (),
) -> tuple[Verdict, str]:
    """Let ``adapt`` stand only if most cutoffs agree: one window of four weeks can be lucky.

    Parameters
    ----------
    earlier
        The planned comparison at earlier cutoffs.
    """
    if not earlier:
        return verdict, champion
    agree = sum(bool(e.gains) and all(g.low > terms.worthwhile for g in e.gains) for e in earlier)
    held, total = agree + (verdict.decision == "adapt"), len(earlier) + 1
    reason = f"{verdict.reason} Of {total} cutoffs, {held} showed all gains to be worthwhile."
    if verdict.decision != "adapt" or 2 * held > total:
        return verdict.model_copy(update={"reason": reason}), champion
    stay = better_on_valid(choice, terms.metric, barred)
    sentence = (
        f"Not enough evidence: the gain at the last cutoff is not there at most of the {total} cutoffs. "
        f"Until then use {choice.titles[stay]}."
    )
    return Verdict(decision="not_enough_evidence", sentence=sentence, reason=reason), stay


def rows_needed(gains: Sequence[Against], worthwhile: float, rows_now: int, curve: GainCurve) -> int | None:
    """Forecast how many more rows would bring every lower bound above ``worthwhile``.

    The interval narrows with the square root of the rows. A gain that shrinks along the learning curve is
    forecast to go on shrinking; one that grows is not counted on, so the forecast does not promise.

    >>> rows_needed([Against(name="lgbm", role="", gain=0.02, low=-0.02, high=0.06)], 0.0, 1000, {})
    3100
    """
    slopes = {a.name: min(0.0, _slope(curve.get(a.name, []))) for a in gains}
    steps = 1000
    for step in range(steps + 1):
        times = MOST_ROWS ** (step / steps)
        lows = (a.gain + slopes[a.name] * math.log2(times) - (a.gain - a.low) / math.sqrt(times) for a in gains)
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


def _signed(a: Against) -> str:
    width = a.high - a.low  # all three to the same decimals, as many as the interval's width bears
    decimals = max(0, 2 - math.floor(math.log10(width))) if 0 < width < math.inf else 4
    return f"{a.gain:+.{decimals}f} [{a.low:+.{decimals}f}, {a.high:+.{decimals}f}]"
