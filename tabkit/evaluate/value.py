"""What predictions are worth: the recipe's payoffs, at a threshold chosen on valid, measured on holdout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.evaluate.intervals import Interval, Resampler, interval
from tabkit.evaluate.metrics import Floats
from tabkit.recipe import Recipe, Value


@dataclass(frozen=True)
class Payoffs:
    """What each row pays: acted upon or left (n_rows,); for regression the payoff depends on the prediction."""

    frame: pl.DataFrame
    rule: Value

    def of(self, predicted: Floats, threshold: float | None) -> tuple[Floats, float | None]:
        """Return the payoff per row, and the share of rows acted upon."""
        if self.rule.payoff is not None:
            return _evaluate(self.frame.with_columns(pl.Series("prediction", predicted)), self.rule.payoff), None
        assert threshold is not None
        acted = _acts(predicted[:, 1], threshold, self.rule)
        taken, left = self.sides()
        return np.where(acted, taken, left), float(acted.mean())

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
    p = predicted[:, 1]
    order = np.argsort(p, kind="stable")
    ranked, gained = p[order], np.r_[0.0, np.cumsum((taken - left)[order])]
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


def gain(a: Worth, b: Worth, resampler: Resampler, per: int) -> Interval:
    """Return what a pays above b per ``per`` decisions, on the same resamples."""
    return mean_payoff(a.per_row - b.per_row, resampler, per)


def mean_payoff(per_row: Floats, resampler: Resampler, per: int) -> Interval:
    """Return the payoff of ``per`` decisions."""
    means = np.concatenate([(w @ per_row) / w.sum(axis=1) for w in resampler.weights()])
    value = float(per_row.mean())
    return interval(value * per, resampler.around(value, means) * per)


def cost_of(cpu_seconds: float, rule: Value) -> float:
    """Return the price of CPU seconds, in the value's unit."""
    return cpu_seconds / 3600 * rule.cpu_hour_cost


def summary(
    recipe: Recipe,
    worths: dict[str, Worth],
    candidate: str,
    baseline: str,
    difference: Interval,
    cpu_seconds: float,
    score_cpu_per_row: dict[str, float],
    titles: dict[str, str],
) -> dict[str, object]:
    """Return the value block of ``result.json``: payoffs, gain, costs, and whether it was worth it.

    Parameters
    ----------
    difference
        What the candidate pays above the baseline per ``per`` decisions.
    cpu_seconds
        What it takes to make the candidate once.
    """
    rule = recipe.value
    assert rule is not None
    adapt_cost = cost_of(cpu_seconds, rule)
    score_cost = cost_of(score_cpu_per_row[candidate], rule)
    extra = cost_of(score_cpu_per_row[candidate] - score_cpu_per_row[baseline], rule)
    yearly = rule.decisions_per_year

    def net(per_many: float) -> float:
        return (per_many / rule.per - extra) * yearly - adapt_cost

    worth_it = candidate != baseline and net(difference.low) > 0
    unit = rule.unit
    if candidate == baseline:
        sentence = f"{titles[candidate]} earns {worths[candidate].payoff.value:,.0f} {unit} per {rule.per:,} decisions."
    else:
        sentence = (
            f"{titles[candidate]} changes the result by {difference.value:+,.0f} {unit} per {rule.per:,} decisions against "
            f"{titles[baseline]} [{difference.low:+,.0f}, {difference.high:+,.0f}], at "
            f"{f'{adapt_cost:,.2f}' if adapt_cost >= 0.005 else 'under 0.01'} {unit} of computing to adapt: "
            + ("worth it." if worth_it else "not shown to be worth it.")
        )
    return {
        "unit": unit,
        "per": rule.per,
        "action": rule.action,
        "threshold": worths[candidate].threshold,
        "assumptions": rule.assumptions,
        "candidates": [
            {
                "name": w.name,
                "value": w.payoff.value,
                "low": w.payoff.low,
                "high": w.payoff.high,
                "acted_share": w.acted_share,
                "threshold": w.threshold,
            }
            for w in worths.values()
        ],
        "gain": {
            "candidate": candidate,
            "against": baseline,
            "value": difference.value,
            "low": difference.low,
            "high": difference.high,
        },
        "adapt_cost": adapt_cost,
        "score_cost_per_1000": score_cost * 1000,
        "decisions_per_year": yearly,
        "net_gain_per_year": net(difference.value),
        "worth_it": worth_it,
        "sentence": sentence,
    }


def _acts(p: Floats, threshold: float, rule: Value) -> np.ndarray:
    return p < threshold if rule.act_when == "below" else p > threshold


def _evaluate(frame: pl.DataFrame, expression: str) -> Floats:
    values = frame.select(pl.sql_expr(expression).cast(pl.Float64).alias("payoff"))["payoff"].to_numpy()
    return np.broadcast_to(values, (frame.height,)).astype(np.float64)
