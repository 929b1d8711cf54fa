"""What predictions are worth: the recipe's payoffs, at a threshold chosen on valid, measured on holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.evaluate.intervals import Resampled, Resampler, interval
from tabkit.evaluate.metrics import Floats
from tabkit.recipe import Value as Rule
from tabkit.result import CandidateFacts, Chosen, Interval, Value
from tabkit.result.tables import Payoff, PayoffGain


@dataclass(frozen=True)
class Payoffs:
    """What each row pays: acted upon or left (n_rows,); for regression the payoff depends on the prediction.

    ``weights`` (n_rows,) say for how many rows each stands; None if each counts once.
    """

    frame: pl.DataFrame
    rule: Rule
    weights: Floats | None = None

    def of(self, predicted: Floats, threshold: float | None) -> tuple[Floats, float | None]:
        """Return the payoff per row, and the share of rows acted upon."""
        if self.rule.payoff is not None:
            return _evaluate(self.frame.with_columns(pl.Series("prediction", predicted)), self.rule.payoff), None
        assert threshold is not None
        acted = _acts(predicted[:, 1], threshold, self.rule)
        taken, left = self.sides()
        return np.where(acted, taken, left), float(np.average(acted, weights=self.weights))

    def sides(self) -> tuple[Floats, Floats]:
        """Return what each row pays when acted upon, and when left."""
        assert self.rule.acted is not None
        return _evaluate(self.frame, self.rule.acted), _evaluate(self.frame, self.rule.not_acted)


@dataclass(frozen=True)
class Worth:
    """A candidate's payoff per ``per`` decisions on holdout."""

    name: str
    threshold: float | None
    payoff: Interval
    acted_share: float | None
    per_row: Floats


def best_threshold(payoffs: Payoffs, predicted: Floats) -> float | None:
    """Return the probability at which acting pays most on these (valid) rows; None for regression.

    Acting on everyone and on no one are among the options.
    """
    if payoffs.rule.payoff is not None:
        return None
    taken, left = payoffs.sides()
    p, gain = predicted[:, 1], taken - left
    gain = gain if payoffs.weights is None else gain * payoffs.weights
    order = np.argsort(p, kind="stable")
    ranked, gained = p[order], np.r_[0.0, np.cumsum(gain[order])]
    distinct = np.unique(p)
    options = np.r_[0.0, (distinct[1:] + distinct[:-1]) / 2, 1.0]
    if payoffs.rule.act_when == "below":
        total = gained[np.searchsorted(ranked, options, side="left")]
    else:
        total = gained[-1] - gained[np.searchsorted(ranked, options, side="right")]
    return float(options[int(np.argmax(total))])


def worth(name: str, payoffs: Payoffs, predicted: Floats, threshold: float | None, resampler: Resampler) -> Worth:
    """Measure a candidate's payoff on holdout rows."""
    per_row, share = payoffs.of(predicted, threshold)
    return Worth(name, threshold, mean_payoff(per_row, resampler, payoffs.rule.per), share, per_row)


def mean_payoff(per_row: Floats, resampler: Resampler, per: int) -> Interval:
    """Return the payoff of ``per`` decisions; of a difference of payoffs, the gain."""
    mean = resampler.mean(per_row)
    return interval(Resampled(mean.value * per, mean.draws * per))


def cost_of(cpu_seconds: float, rule: Rule) -> float:
    """Return the price of CPU seconds, in the value's unit."""
    return cpu_seconds / 3600 * rule.cpu_hour_cost


def priced(chosen: Chosen, champion: str) -> tuple[str, ...]:
    """Return the candidates whose decisions are priced: those of the planned comparison, the champion, and the prior."""
    return tuple(dict.fromkeys((*chosen.names, champion, "prior")))


def summary(
    rule: Rule,
    chosen: Chosen,
    worths: Mapping[str, Worth],
    gains: Mapping[str, Interval],
    candidates: Mapping[str, CandidateFacts],
    cpu_seconds: float,
) -> Value:
    """Return payoffs, gain, costs, and whether it was worth it.

    Parameters
    ----------
    gains
        What the candidate (the adapted one, if any) pays above each rival of the planned comparison per ``per`` decisions.
        Told is the one with the least lower end: what is worth it is so against every rival.
    cpu_seconds
        What it takes to make the candidate once.
    """
    name = chosen.adapted or chosen.baseline
    rival = min(gains, key=lambda n: gains[n].low)
    gain = gains[rival]
    per_row = {n: (candidates[n].score_cpu_seconds_per_million or 0.0) / 1e6 for n in (name, *gains)}
    adapt_cost = cost_of(cpu_seconds, rule)

    def net(per_many: float, over: str) -> float:
        extra = cost_of(per_row[name] - per_row[over], rule)
        return (per_many / rule.per - extra) * rule.decisions_per_year - adapt_cost

    worth_it = name != rival and all(net(g.low, n) > 0 for n, g in gains.items())
    title, against = candidates[name].title, candidates[rival].title
    if name == rival:
        sentence = f"{title} earns {worths[name].payoff.value:,.0f} {rule.unit} per {rule.per:,} decisions."
    else:
        sentence = (
            f"{title} changes the result by {gain.value:+,.0f} {rule.unit} per {rule.per:,} decisions against "
            f"{against} [{gain.low:+,.0f}, {gain.high:+,.0f}], at "
            f"{f'{adapt_cost:,.2f}' if adapt_cost >= 0.005 else 'under 0.01'} {rule.unit} of computing to adapt: "
            + ("worth it." if worth_it else "not shown to be worth it.")
        )
    return Value(
        unit=rule.unit,
        per=rule.per,
        action=rule.action,
        threshold=worths[name].threshold,
        assumptions=rule.assumptions,
        candidates=tuple(_payoff(w) for w in worths.values()),
        gain=PayoffGain(candidate=name, against=rival, value=gain.value, low=gain.low, high=gain.high),
        adapt_cost=adapt_cost,
        score_cost_per_1000=cost_of(per_row[name], rule) * 1000,
        decisions_per_year=rule.decisions_per_year,
        net_gain_per_year=net(gain.value, rival),
        worth_it=worth_it,
        sentence=sentence,
    )


def _payoff(worth: Worth) -> Payoff:
    paid = worth.payoff
    return Payoff(
        name=worth.name,
        value=paid.value,
        low=paid.low,
        high=paid.high,
        acted_share=worth.acted_share,
        threshold=worth.threshold,
    )


def _acts(p: Floats, threshold: float, rule: Rule) -> np.ndarray:
    return p < threshold if rule.act_when == "below" else p > threshold


def _evaluate(frame: pl.DataFrame, expression: str) -> Floats:
    values = frame.select(pl.sql_expr(expression).cast(pl.Float64).alias("payoff"))["payoff"].to_numpy()
    return np.broadcast_to(values, (frame.height,)).astype(np.float64)
