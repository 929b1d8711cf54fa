"""Every shipped recipe runs on a cut of its own sample: what it names is there, and a bundle comes out that scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

import tabkit
from tabkit import learner
from tabkit.errors import UsageError
from tabkit.recipe import Recipe, load_recipe
from tabkit.samples import load_sample
from tabkit.shipped import recipe_names
from tabkit.workflow import reading

pytestmark = pytest.mark.slow

ROWS = 300
FOLDS = 2
FEATURES = 3
USERS = 400
ITEMS = 1500


def cut(sample: str, recipe: Recipe) -> pl.DataFrame:
    """Return part of a sample: few folds and columns if folds are given, the busiest users of events, else rows at random."""
    frame = load_sample(sample)
    if recipe.split.kind == "given":
        column = str(recipe.split.column)
        features = [name for name in frame.columns if load_recipe(recipe.name).is_feature(name)]
        frame = frame.drop(features[FEATURES:])  # each is shuffled for every model of every fold
        return frame.filter(pl.col(column).is_in(frame[column].unique().sort()[:FOLDS].implode()))
    if recipe.ranking is None:
        return frame.sample(min(ROWS, frame.height), seed=0)
    assert recipe.id is not None
    if recipe.ranking.home_stores:  # users of those stores
        frame = frame.filter(pl.col(str(recipe.ranking.store)).is_in(recipe.ranking.home_stores))
    if frame.height < 200_000:  # a small table: all users, fewer items
        return frame.filter(pl.col(recipe.target).is_in(_most(frame, recipe.target, ITEMS).implode()))
    one_in_ten = pl.col(recipe.target).hash(0) % 10 == 0  # of the items, or the catalogue is most of the work
    return frame.filter(pl.col(recipe.id).is_in(_most(frame, recipe.id, USERS).implode()) & one_in_ten)


def _most(frame: pl.DataFrame, column: str, n: int) -> pl.Series:
    return frame.group_by(column).len().sort("len", column, descending=[True, False])[column][:n]


def some_rows(frame: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Return rows to score: of the recipe's own, without the target; users of lists."""
    if recipe.ranking is not None:
        return frame.select(str(recipe.id)).unique(maintain_order=True).head(5)
    return frame.drop(recipe.target, strict=False).head(60)  # a derived target is not there


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_runs_and_its_bundle_scores(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(name).recipe
    assert recipe.sample is not None
    try:
        frame = cut(recipe.sample, recipe)
    except UsageError as problem:
        pytest.skip(str(problem))
    tiny = replace(learner.BUDGETS["quick"], seconds=5, trials=2, epochs=2, trees=20)
    monkeypatch.setitem(learner.BUDGETS, "quick", tiny)
    # The recipe's own samples, those of its sources among them, but cut.
    loading: Callable[[str], pl.DataFrame] = lambda sample: cut(sample, recipe)  # noqa: E731
    monkeypatch.setattr(reading, "load_sample", loading)
    done = tabkit.run(name, out=tmp_path / "run", budget="quick")
    assert {path.name for path in done.folder.iterdir()} >= {
        "result.json",
        "report.html",
        "scorecard.parquet",
        "holdout_predictions.parquet",
        "bundle",
    }
    assert tabkit.read_result(done.folder).recipe == name
    assert done.result.verdict.sentence in done.report.read_text(encoding="utf-8")
    rows = some_rows(frame, recipe)
    scored = tabkit.score(done.folder / "bundle", rows, tmp_path / "scored.parquet")
    assert scored.rows_in == rows.height == scored.rows_scored + scored.rows_rejected
    assert scored.rows_scored > 0 and pl.read_parquet(scored.out).height >= scored.rows_scored
