"""Intervals around predictions: what is reported of them is what is shipped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import make_features, write_recipe

import tabkit
from tabkit import learner
from tabkit.data.split import Split
from tabkit.evaluate.conformal import PARTS, intervals_around, parts_of

NONE = np.empty(0, dtype=np.int64)


def split(n: int, groups: np.ndarray | None = None, days: np.ndarray | None = None) -> Split:
    return Split("random", NONE, NONE, np.arange(n), groups, "", days=days)


def test_parts_keep_groups_and_days_together_and_days_in_order() -> None:
    rng = np.random.default_rng(0)
    codes, rows = rng.integers(0, 40, 500), np.arange(500)
    alone, grouped, dated = (
        parts_of(split(500, *given), rows, 0) for given in ((None, None), (codes, None), (None, codes))
    )
    assert set(alone) == set(grouped) == set(dated) == set(range(PARTS))
    for code in range(40):
        assert len(set(grouped[codes == code])) == len(set(dated[codes == code])) == 1
    assert (np.diff(dated[np.argsort(codes, kind="stable")]) >= 0).all()


def test_a_drift_within_the_holdout_is_seen() -> None:
    """The width of all rows holds nine of ten of them by its making; that of the others does not."""
    rng = np.random.default_rng(1)
    day = np.repeat(np.arange(100), 20)
    y = rng.normal(size=2000) + 0.2 * np.maximum(day - 60, 0)
    held, zero = make_features("regression", 2000).with_y(y), np.zeros(2000)
    in_time = intervals_around(held, zero, None, parts_of(split(2000, days=day), np.arange(2000), 0))
    at_random = intervals_around(held, zero, None, parts_of(split(2000), np.arange(2000), 0))
    assert in_time[0] == at_random[0]
    assert at_random[1] == pytest.approx(0.9, abs=0.01) and in_time[1] is not None and in_time[1] < 0.85


@pytest.mark.parametrize("folds", ["", "[split]\nfolds = 3\n"])
def test_the_width_told_is_the_width_shipped(tmp_path: Path, folds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, trees=20))
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": rng.normal(size=200), "y": rng.normal(size=200)})
    frame.write_parquet(tmp_path / "d.parquet")
    text = 'task = "regression"\ntarget = "y"\n[metrics]\nprimary = "rmse"\n[candidates]\nwithout = ["catboost", "blend"]\n'
    recipe = write_recipe(tmp_path, frame, text + "[candidates.adapt]\n" + folds)
    done = tabkit.run(recipe, tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    told, manifest = done.result, json.loads((tmp_path / "out" / "bundle" / "manifest.json").read_text())
    assert told.prediction_interval.half_width == manifest["half_width"]
    assert told.interval_coverage == pytest.approx(0.9, abs=0.1)
