"""Inverse-probability-of-censoring weights against what is known of their sums."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf

from tabkit.data.censoring import censoring_weights
from tabkit.errors import DataError


def test_weighted_share_is_the_true_risk_and_the_unweighted_is_not() -> None:
    rng = np.random.default_rng(0)
    comes, lost = rng.exponential(5.0, 20_000), rng.exponential(4.0, 20_000)
    time, event = np.minimum(comes, lost), comes <= lost
    weights = censoring_weights(time, event, 3.0, np.ones(len(time), dtype=bool))
    by_then, truth = event & (time <= 3.0), 1 - np.exp(-3.0 / 5.0)
    assert np.average(by_then, weights=weights) == pytest.approx(truth, abs=0.015)
    assert by_then[weights > 0].mean() > truth + 0.05


@pytest.mark.parametrize("horizon", [2.0, 2.5, 3.0])
def test_weights_give_the_kaplan_meier_risk_where_times_tie(horizon: float) -> None:
    rng = np.random.default_rng(1)
    time, event = rng.integers(1, 6, 200).astype(float), rng.random(200) < 0.4
    weights = censoring_weights(time, event, horizon, np.ones(200, dtype=bool))
    risk = 1 - ecdf(CensoredData.right_censored(time, ~event)).sf.evaluate(horizon)
    assert weights.sum() == pytest.approx(200)
    assert np.average(event & (time <= horizon), weights=weights) == pytest.approx(risk)


def test_rows_censored_early_weigh_nothing_and_only_train_rows_are_estimated_on() -> None:
    time, event = np.array([1.0, 1.0, 2.0, 3.0, 1.0]), np.array([True, False, True, False, False])
    train = np.array([True, True, True, True, False])
    # One of the three train rows left after the event at 1 is censored there: G(2-) is two thirds.
    assert censoring_weights(time, event, 3.0, train) == pytest.approx([1.0, 0.0, 1.5, 1.5, 0.0])


def test_faults_are_named() -> None:
    yes = np.ones(2, dtype=bool)
    with pytest.raises(DataError, match="row 1 is nan"):
        censoring_weights(np.array([1.0, np.nan]), yes, 1.0, yes)
    with pytest.raises(DataError, match="shorter horizon"):
        censoring_weights(np.array([1.0, 5.0]), np.array([False, True]), 4.0, np.array([True, False]))
