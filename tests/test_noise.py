"""The verdict is true at both ends: noise is never adapted to, a planted transfer is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, noise_table, write_recipe

import tabkit
from tabkit import learner

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", range(20))
def test_pure_noise_is_never_adapted_to(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=3, epochs=8, trees=60))
    frame = noise_table(500, seed)
    path = write_recipe(tmp_path, frame, BINARY + "[candidates]\nwithout = ['catboost']\n")
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", seed=seed, budget="quick")
    assert done.decision != "adapt"


def related(n: int, seed: int, shift: float) -> pl.DataFrame:
    """Rows of a relation no small table can teach: products of pairs among ten columns."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 10))
    score = 2.2 * (x[:, 0] * x[:, 1] + x[:, 2] * x[:, 3] - x[:, 4] * x[:, 5]) + shift * x[:, 6]
    y = np.where(rng.random(n) < 1 / (1 + np.exp(-score)), "yes", "no")
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(10)}, "y": y.tolist()})


def test_a_planted_transfer_is_adapted_to(tmp_path: Path) -> None:
    """Source and target share their structure; the target's own effect of x6 is worth adapting for."""
    source, target = related(8000, 0, shift=0.0), related(2400, 1, shift=2.5)
    recipe = (
        BINARY + "[candidates]\nwithout = ['catboost']\n[candidates.adapt]\nlgbm = ['refit', 'continue']\n[source]\n"
    )
    recipe += "[split]\nkind = 'given'\ncolumn = 'part'\n"
    part = pl.Series(["train"] * 300 + ["valid"] * 300 + ["holdout"] * 1800)
    target = target.with_columns(part=part)
    path = write_recipe(tmp_path, target, recipe)
    target.write_parquet(tmp_path / "target.parquet")
    source.with_columns(part=pl.lit("train")).write_parquet(tmp_path / "source.parquet")
    done = tabkit.run(
        str(path),
        data=tmp_path / "target.parquet",
        source=tmp_path / "source.parquet",
        out=tmp_path / "out",
        budget="quick",
    )
    assert done.decision == "adapt", done.result.verdict.reason
    assert done.result.champion == "lgbm_continue"
