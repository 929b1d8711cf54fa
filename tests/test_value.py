"""Money: the threshold chosen on valid is the best there is, and payoffs are counted row by row."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tabkit.evaluate.intervals import Resampler
from tabkit.evaluate.value import Payoffs, best_threshold, gain, worth
from tabkit.recipe import Value


def payoffs(y: list[int], when: str = "below") -> Payoffs:
    acted = "CASE WHEN y = 1 THEN -10 ELSE 1 END" if when == "below" else "CASE WHEN y = 1 THEN 10 ELSE -1 END"
    rule = Value.model_validate({"unit": "EUR", "act_when": when, "acted": acted})
    return Payoffs(pl.DataFrame({"y": y}), rule)


def two(p: list[float]) -> np.ndarray:
    return np.column_stack([1 - np.array(p), p])


@pytest.mark.parametrize("when", ["below", "above"])
def test_threshold_is_the_best_of_all(when: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        y = rng.integers(0, 2, 40).tolist()
        p = two(rng.random(40).round(1).tolist())
        paid = payoffs(y, when)
        chosen = best_threshold(paid, p)
        assert chosen is not None
        best = max(paid.of(p, t)[0].sum() for t in np.linspace(-0.05, 1.05, 221))
        assert paid.of(p, chosen)[0].sum() >= best - 1e-9 or not 0 < p[:, 1].min() <= p[:, 1].max() < 1


def test_known_answer() -> None:
    paid = payoffs([0, 0, 1, 0])
    p = two([0.1, 0.2, 0.9, 0.3])
    threshold = best_threshold(paid, p)
    assert threshold == pytest.approx(0.6)
    resampler = Resampler(4, None, 200, 0)
    ours, nobody = worth("m", paid, p, threshold, resampler), worth("none", paid, p, 0.0, resampler)
    assert ours.payoff.value == pytest.approx(750)  # three of four pay 1, per 1,000 decisions
    assert ours.acted_share == 0.75
    assert nobody.payoff.value == 0
    assert gain(ours, nobody, resampler, 1000).value == pytest.approx(750)


def test_regression_payoff_sees_the_prediction() -> None:
    rule = Value.model_validate({"unit": "kg", "payoff": "-ABS(prediction - y)"})
    paid = Payoffs(pl.DataFrame({"y": [1.0, 2.0]}), rule)
    assert paid.of(np.array([1.5, 2.0]), None)[0].tolist() == [-0.5, 0.0]
