"""The planned comparison and the verdict.

One comparison is fixed before the holdout is opened: the adapted candidate chosen on valid, against its own base
untouched, the best baseline and the best untouched base of all. Every lower bound must clear the worthwhile gain: an
intersection-union test (Berger 1982), so none needs a correction. That adapting did not pay is said only if an upper
bound lies below the worthwhile gain: any opponent's is enough, so their errors are shared out among them (Bonferroni).
Between the two, the question is not settled. The rest is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from tabkit.errors import count
from tabkit.evaluate.choice import Choice, Terms, better_on_valid
from tabkit.evaluate.intervals import Resampled, at_level, holm, level_of, paired, with_limits
from tabkit.evaluate.metrics import Metric
from tabkit.learner import candidate_name
from tabkit.result import Against, Chosen, Decision, Exploratory, Planned, Verdict
from tabkit.result.facts import GainState
from tabkit.result.lists import Cutoff

MOST_ROWS = 100
"""A forecast beyond this many times today's rows is not made: it would be a guess."""
MOST_QUESTIONS = 50
"""Beyond so many questions, the same rows prove no gain any more."""
ASSURANCE = 0.8
"""The chance with which ``rows_needed`` settles it."""
SHRINK = 0.5
"""Share of an estimate, and of its variance, that is believed: the weight of the data beside that of a guess of no gain."""
_NORMAL = NormalDist()
_Z = _NORMAL.inv_cdf(0.975)

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
    if chosen.best_base != chosen.base:
        opponents.append((chosen.best_base, "the best untouched base on valid"))
    alone = candidate_name("blend", "baselines")
    if blended and alone in names and alone != chosen.baseline:
        opponents.append((alone, "the blend of baselines alone"))
    return [(name, role) for name, role in opponents if name is not None]


def compare_planned(chosen: Chosen, terms: Terms, scores: Mapping[str, Resampled], question: int = 1) -> Planned | None:
    """Carry out the planned comparison; None if nothing was adapted.

    Parameters
    ----------
    scores
        The primary metric on holdout, by candidate, over the common resamples.
    question
        The number of this question among those asked of these rows.
    """
    if chosen.adapted is None:
        return None
    opponents = [(name, role, scores[name]) for name, role in plan_of(chosen, scores)]
    return carried_out(chosen.adapted, scores[chosen.adapted], opponents, terms, question)


def carried_out(
    candidate: str, ours: Resampled, opponents: Sequence[tuple[str, str, Resampled]], terms: Terms, question: int
) -> Planned:
    """Compare a candidate with its opponents, each with its role and score, at the level that is left for the question."""
    level = level_of(question)
    against = (
        Against.of(name, role, at_level(paired(terms.metric, ours, theirs)[0], level, len(opponents)), terms.worthwhile)
        for name, role, theirs in opponents
    )
    return Planned(candidate=candidate, metric=terms.primary, against=tuple(against), question=question, level=level)


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
        Who does not stay, whatever valid says: see :func:`may_not_stay`.
    """
    titles, baseline, metric = choice.titles, choice.chosen.baseline, terms.metric
    stay = better_on_valid(choice, metric, barred)
    kept: Decision = "use_baseline" if stay == baseline else "keep_base"
    if planned is None:
        what = "the best baseline" if stay == baseline else "the best untouched base"
        sentence = f"Nothing was adapted: use {titles[stay]}, {what} on valid."
        return Verdict(decision=kept, sentence=sentence, reason="The recipe names no strategy to adapt by."), stay
    reason = _reason(planned, titles, terms, n_rows["holdout"])
    if planned.question > MOST_QUESTIONS:
        sentence = (
            f"Not enough evidence: these rows have been asked {planned.question - 1} other questions, and can prove no gain any "
            f"more. Hold out rows that nobody has looked at. Until then use {titles[stay]}."
        )
        return Verdict(decision="not_enough_evidence", sentence=sentence, reason=reason), stay
    if choice.chosen.base is not None and all(a.state == "worthwhile" for a in planned.against):
        return Verdict(decision="adapt", sentence=_paid(planned, titles, metric), reason=reason), planned.candidate
    if any(a.state == "not_worthwhile" for a in planned.against):
        lead = "Fine-tuning did not pay:" if stay == baseline else "Keep the base: fine-tuning did not pay;"
        sentence = f"{lead} use {titles[stay]}. {_shortfall(planned, titles, metric, terms.worthwhile)}"
        return Verdict(decision=kept, sentence=sentence, reason=reason), stay
    forecast = Forecast(planned.against, terms.worthwhile, sum(n_rows.values()), curve)
    return _not_settled(planned, titles, terms, forecast, reason, titles[stay]), stay


def _reason(planned: Planned, titles: Mapping[str, str], terms: Terms, n_holdout: int) -> str:
    numbers = "; ".join(
        f"against {titles[a.name]} ({a.role}): {_signed(a)}, {_STATES[a.state]}" for a in planned.against
    )
    name = titles[planned.candidate]
    reason = f"Gain of {name} in {terms.metric.called} on {n_holdout:,} untouched {terms.unit}s, with {_percent(planned)} intervals: {numbers}."
    if (n := len(planned.against)) > 1:
        reason += f" Upper ends allow for {n} opponents, any of which can show that it did not pay."
    if planned.question > 1:
        reason += f" These rows were asked {count(planned.question - 1, 'other question')} before: the level is that of question {planned.question}."
    return f"{reason} A gain counts from {terms.worthwhile:g}." if terms.worthwhile else reason


_STATES: dict[GainState, str] = {
    "worthwhile": "shown to be worthwhile",
    "not_worthwhile": "shown not to be",
    "not_settled": "not settled",
}


def _not_settled(
    planned: Planned, titles: Mapping[str, str], terms: Terms, forecast: Forecast, reason: str, stay: str
) -> Verdict:
    """Say that these rows cannot tell, and how many more probably would."""
    name, unit = titles[planned.candidate], terms.unit
    if not all(math.isfinite(bound) for a in planned.against for bound in (a.low, a.high)):
        sentence = (
            f"Not enough evidence: the holdout has too few cases to tell what {name} gains in {terms.metric.called}; hold out "
            f"more of them. Until then use {stay}."
        )
        return Verdict(decision="not_enough_evidence", sentence=sentence, reason=reason)
    even, likely = forecast.rows_needed(0.5), forecast.rows_needed(ASSURANCE)
    if likely is None:
        more = f"more {unit}s of this kind are unlikely to settle it"
    else:
        more = f"about {count(likely, f'more {unit}')} would settle it in four of five cases"
        if even is not None and even < likely:
            more = (
                f"about {count(even, f'more {unit}')} would settle it with even odds, {likely:,} in four of five cases"
            )
    if all(a.gain > terms.worthwhile for a in planned.against):
        lead = f"{name} looks better, but the holdout cannot tell its gain from chance"
    else:
        least = min(planned.against, key=lambda a: a.gain)
        lead = f"whether {name} is worth it against {titles[least.name]} cannot be told from these {unit}s"
    return Verdict(
        decision="not_enough_evidence",
        sentence=f"Not enough evidence: {lead}; {more}. Until then use {stay}.",
        reason=reason,
        rows_needed=likely,
        rows_even_odds=even,
    )


def may_not_stay(chosen: Chosen, metric: Metric, scores: Mapping[str, Resampled]) -> frozenset[str]:
    """Return the candidates that the holdout keeps from being the champion, whatever valid says.

    Nothing stays that is proven worse than the best baseline. If the best untouched base is proven better than that
    baseline, nothing stays that is not.
    """
    gains = {name: paired(metric, score, scores[chosen.baseline])[0] for name, score in scores.items()}
    if chosen.best_base is not None and gains[chosen.best_base].low > 0:
        return frozenset(name for name, gain in gains.items() if not gain.low > 0)
    return frozenset(name for name, gain in gains.items() if gain.high < 0)


def _paid(planned: Planned, titles: Mapping[str, str], metric: Metric) -> str:
    least = min(planned.against, key=lambda a: a.low)
    beaten = [f"{a.role}, {titles[a.name]}" for a in planned.against]
    return (
        f"Fine-tuning paid: {titles[planned.candidate]} beats {'; '.join(beaten)}, on rows nobody had touched, by at least "
        f"{_plain(least.low)} {metric.called} at {_percent(planned)} confidence. (What had to be shown tends to be estimated too high: count "
        "on the lower bound.)"
    )


def _shortfall(planned: Planned, titles: Mapping[str, str], metric: Metric, worthwhile: float) -> str:
    """Say what is shown: the opponent whose interval lies below the worthwhile gain, the lowest of them."""
    worst = min((a for a in planned.against if a.state == "not_worthwhile"), key=lambda a: a.high)
    name, against, shown = titles[planned.candidate], titles[worst.name], _plain(abs(worst.gain))
    bound = f"a gain of at most {_plain(worst.high)}" if worst.high >= 0 else f"at least {_plain(-worst.high)} worse"
    bound += f" at {_percent(planned)} confidence"
    if worst.gain > 0:
        return f"{name} gained only {shown} {metric.called} over {against} ({bound}), below the {worthwhile:g} that would matter."
    if shown == "0":
        return f"{name} scored the same as {against} ({bound})."
    return f"{name} scored {shown} {metric.called} worse than {against} ({bound})."


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


@dataclass(frozen=True)
class Forecast:
    """What it would take to settle every gain: shown to be worthwhile, or shown not to be.

    Assurance (O'Hagan, Stevens & Campbell, *Pharmaceutical Statistics* 2005): the chance of a settled interval, averaged
    over what the gain may truly be. That is normal around half the estimate: a guess that there is no gain weighs as much
    as these rows, for a gain that looks good tends to be overestimated. Each gain has to reach the chance by itself. The interval narrows with the square root of the rows. A gain that shrinks
    along the learning curve is forecast to go on shrinking; one that grows is not counted on.
    """

    against: Sequence[Against]
    worthwhile: float
    rows_now: int
    curve: GainCurve

    def rows_needed(self, assurance: float = ASSURANCE) -> int | None:
        """Return how many more rows settle it with this chance; None if no reachable number does."""
        steps = 400
        for step in range(steps + 1):
            times = MOST_ROWS ** (step / steps)
            if all(self._chance(a, times) >= assurance for a in self.against):
                return _two_digits((times - 1.0) * self.rows_now)
        return None

    def _chance(self, a: Against, times: float) -> float:
        upper = _NORMAL.inv_cdf(1 - 0.025 / len(self.against))
        now = (a.high - a.low) / (_Z + upper)
        if not now > 0:
            return float(now == 0)
        mean = SHRINK * a.gain + min(0.0, _slope(self.curve.get(a.name, []))) * math.log2(times)
        then = now / math.sqrt(times)
        spread = math.hypot(math.sqrt(SHRINK) * now, then)
        above = 1.0 - _NORMAL.cdf((self.worthwhile + _Z * then - mean) / spread)
        return above + _NORMAL.cdf((self.worthwhile - upper * then - mean) / spread)


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


def _percent(planned: Planned) -> str:
    """Return the level, to as many digits as tell it from certainty.

    >>> _percent(Planned(candidate="", metric="", against=(), level=0.99662))
    '99.7%'
    """
    digits = max(0, math.ceil(-math.log10(100 * (1 - planned.level))))
    return f"{100 * planned.level:.{digits}f}%"


def _plain(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}".rstrip("0").rstrip(".")


def _signed(a: Against) -> str:
    width = a.high - a.low  # all three to the same decimals, as many as the interval's width bears
    decimals = max(0, 2 - math.floor(math.log10(width))) if 0 < width < math.inf else 4
    return with_limits(a.interval, decimals)
