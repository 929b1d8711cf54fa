"""Checks keep their error rates: against other packages where there are any, by simulation where there are none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import make_features

from tabkit.data.encode import Features
from tabkit.evaluate.checks.fair import MATTERS, gaps
from tabkit.evaluate.checks.shift import ALPHA, column_shift, discoveries, two_sample_auc
from tabkit.evaluate.checks.tables import UNFAIR
from tabkit.evaluate.dependence import alike


def categories(codes: np.ndarray) -> Features:
    return replace(make_features("binary", len(codes), n_num=1), x_cat=codes[:, None].astype(np.int64))


@pytest.mark.parametrize("moved", [0.0, 0.03])
def test_the_chance_of_a_psi_is_that_of_other_packages(moved: float) -> None:
    psi_inference = pytest.importorskip("psi_inference", reason="psi-inference, the oracle, is not installed")
    null = pytest.importorskip("iyipada.null", reason="iyipada, the oracle, is not installed")
    rng = np.random.default_rng(0)
    share = np.array([0.4, 0.3, 0.2, 0.1])
    a = 2 + rng.choice(4, 2900, p=share)
    b = 2 + rng.choice(4, 1700, p=share + moved * np.array([-1, 0, 0, 1]))
    ours = column_shift(categories(a), categories(b))["kind"]
    theirs = psi_inference.psi_test(np.bincount(a)[2:], np.bincount(b)[2:])
    assert ours.chance == pytest.approx(theirs.p_value)
    assert ours.chance == pytest.approx(null.analytic_pvalue("psi", theirs.statistic, 2900, 1700, 4))
    assert ours.psi == pytest.approx(max(0.0, theirs.statistic - 3 * (1 / 2900 + 1 / 1700)))


@pytest.mark.parametrize(("n", "m"), [(110, 40), (900, 300)])
def test_columns_without_a_shift_are_seldom_discovered(n: int, m: int) -> None:
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        rows = make_features("binary", n + m, n_num=20, seed=seed)
        rows = replace(rows, x_cat=2 + (12 * rng.random((n + m, 1)) ** 2).astype(np.int64))
        rows = replace(rows, layout=replace(rows.layout, cat_sizes=(14,)))
        alarms += bool(discoveries(column_shift(rows.take(np.arange(n)), rows.take(np.arange(n, n + m))), ALPHA))
    assert alarms <= 3  # 1 in 100 is wanted, and four of 60 would be a chance of .003


def test_rows_of_one_group_alike_are_no_shift() -> None:
    rows, group = make_features("binary", 600), np.arange(600) // 20
    level = np.random.default_rng(0).normal(size=(30, 4))[group]
    alike_rows = replace(rows, x_num=(rows.x_num * 0.2 + level).astype(np.float32))
    a, b = alike_rows.take(np.arange(400)), alike_rows.take(np.arange(400, 600))
    units = (group[:400], group[400:])
    assert discoveries(column_shift(a, b), ALPHA), "taken for independent, these rows have moved: this guards nothing"
    assert not discoveries(column_shift(a, b, units), ALPHA)
    assert two_sample_auc(a, b, 0) > 0.8 > 0.7 > two_sample_auc(a, b, 0, units=units)
    moved = replace(b, x_num=b.x_num + 4)
    assert discoveries(column_shift(a, moved, units), ALPHA)


def people(seed: int, off: float, n: int = 3000) -> tuple[np.ndarray, np.ndarray, dict[str, pl.Series]]:
    """True probabilities, and two groups whose base rates are .2 and .5; one group's outcomes come ``off`` more often."""
    rng = np.random.default_rng(seed)
    group = rng.random(n) < 0.4
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + np.where(group, 0.0, -1.5))))
    y = (rng.random(n) < p + off * group).astype(np.int64)
    return y, np.column_stack([1 - p, p]), {"sex": pl.Series(np.where(group, "f", "m").tolist())}


def test_true_probabilities_are_fair_whatever_the_base_rates() -> None:
    alarms, found = 0, 0
    for seed in range(100):
        alarms += any(g.chance <= UNFAIR and g.relative >= MATTERS for g in gaps(*people(seed, 0.0), None, 100))
        found += any(g.chance <= UNFAIR and g.relative >= MATTERS for g in gaps(*people(seed, 0.1), None, 100))
    assert alarms <= 3 and found >= 97


def test_an_unjust_spread_is_found_where_the_mean_is_right() -> None:
    y, p, groups = people(0, 0.0)
    inside = (groups["sex"] == "f").to_numpy()
    p[inside] = p[inside][np.random.default_rng(0).permutation(inside.sum())]  # of one group, no order is left
    (worst, *_) = sorted(gaps(y, p, groups, None, 100), key=lambda gap: gap.chance)
    assert worst.says.startswith("the Brier score") and worst.chance < 1e-6 and worst.relative > MATTERS


def test_groups_without_a_case_are_not_certain() -> None:
    rng = np.random.default_rng(0)
    p = np.full(2000, 0.01)
    y = (np.arange(2000) >= 1900).astype(np.int64) * (rng.random(2000) < 0.2)
    groups = {"sex": pl.Series(["f"] * 150 + ["m"] * 1850)}
    found = gaps(y, np.column_stack([1 - p, p]), groups, None, 100)
    assert min(gap.chance for gap in found if gap.group == "f") > UNFAIR


@pytest.mark.parametrize("rho", [0.0, 0.3])
def test_the_correlation_within_groups_is_found(rho: float) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 200, 4000)
    values = np.sqrt(rho) * rng.normal(size=200)[codes] + np.sqrt(1 - rho) * rng.normal(size=4000)
    found = alike(values, codes)
    assert found.correlation == pytest.approx(rho, abs=0.06) and found.n_groups == 200
    assert (found.chance < 0.001) == (rho > 0)
    assert found.design_effect == pytest.approx(1 + 20 * rho, abs=1.3)
