"""A run as it is asked for and as it is handed back: options of each kind, frames as files, a typed result."""

from __future__ import annotations

import html
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import BINARY, signal_table, write_recipe
from polars.testing import assert_frame_equal
from run_folders import NASTY

import tabkit
from tabkit import learner
from tabkit.bundle import TableBundle
from tabkit.errors import DataError, UsageError
from tabkit.recipe import Recipe, load_recipe
from tabkit.result import TableResult
from tabkit.workflow import ListOptions, Run, TableOptions
from tabkit.workflow.options import Settings, options_for

LEAST = "[candidates]\nadapt = {}\nwithout = ['catboost', 'blend']\n"
LISTS = "retail/next_purchases"
TABLES = "finance/loan_default"


def recipe_of(name: str) -> Recipe:
    return load_recipe(name).recipe


def test_options_are_those_of_the_recipes_kind() -> None:
    table = options_for(recipe_of(TABLES), {"seed": 3, "distill": True, "jobs": 2})
    assert table == TableOptions(seed=3, distill=True, jobs=2)
    assert options_for(recipe_of(LISTS), {"cutoffs": 4}) == ListOptions(cutoffs=4)
    assert set(Settings.__annotations__) == {*TableOptions.__annotations__, *ListOptions.__annotations__} | {
        "out", "seed", "budget", "device", "watch", "command"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        (LISTS, {"source": "s.csv"}, "--source is for tables; a ranking recipe makes its bases from its own past"),
        (LISTS, {"source": pl.DataFrame({"x": [1]})}, "--source is for tables"),
        (LISTS, {"source": pd.DataFrame({"x": [1]})}, "--source is for tables"),
        (LISTS, {"distill": True}, "--distill is for tables; a ranking recipe makes its bases from its own past"),
        (LISTS, {"weights": {"icl": "w"}}, "--weights is for tables; a ranking recipe makes its bases"),
        (LISTS, {"jobs": 2}, "--jobs 2: folds are measured side by side, and this recipe has one holdout"),
        (TABLES, {"cutoffs": 3}, "--cutoffs is for ranking recipes, and finance/loan_default is a binary task"),
        (TABLES, {"base": "b"}, "--base is for ranking recipes.*fitted again by running the recipe on all rows"),
    ],
)
def test_an_option_of_the_other_kind_is_refused(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options_for(recipe_of(name), settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (LISTS, {"source": None, "distill": False, "weights": {}, "jobs": None}),
        (TABLES, {"cutoffs": 1, "base": None}),
    ],
)
def test_an_option_that_asks_for_nothing_may_be_there(name: str, settings: dict[str, Any]) -> None:
    assert options_for(recipe_of(name), settings) == options_for(recipe_of(name), {})


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"knows no option 'sed'.*'seed'"):
        options_for(recipe_of(TABLES), {"sed": 1})
    with pytest.raises(UsageError, match=r"knows no option 'cutofs'.*'cutoffs'"):
        tabkit.run(TABLES, cutofs=2)  # type: ignore[call-arg]


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return signal_table(240)


@pytest.fixture(scope="module")
def finished(frame: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The same rows given as a file and as frames."""
    folder = tmp_path_factory.mktemp("workflow")
    path = write_recipe(folder, frame, BINARY + LEAST)
    frame.write_csv(folder / "rows.csv")
    given = {"csv": folder / "rows.csv", "polars": frame, "pandas": frame.to_pandas()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABKIT_LEDGER", str(folder / "ledger.jsonl"))
        patch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, trees=30))
        return {kind: tabkit.run(path, data, out=folder / kind, budget="quick") for kind, data in given.items()}


def test_a_run_is_typed_frozen_and_knows_its_files(finished: dict[str, Run]) -> None:
    done = finished["csv"]
    assert isinstance(done, Run) and isinstance(done.result, TableResult)
    assert done.result.model_dump(mode="json") == tabkit.read_result(done.folder).model_dump(mode="json")
    assert done.decision == done.result.verdict.decision == "use_baseline"
    assert done.report.is_file() and done.report.parent == done.folder
    assert isinstance(done.bundle, TableBundle) and done.bundle is done.bundle  # loaded once
    assert done.bundle.manifest.champion == done.result.champion
    with pytest.raises(FrozenInstanceError):
        done.folder = Path()  # type: ignore[misc]


def test_a_notebook_shows_the_verdict_and_nothing_that_runs(finished: dict[str, Run]) -> None:
    done = finished["csv"]
    shown = html.unescape(done._repr_html_())
    assert done.result.verdict.sentence in shown and all(c.title in shown for c in done.result.candidates)
    verdict = done.result.verdict.model_copy(update={"sentence": NASTY})
    named = tuple(c.model_copy(update={"title": NASTY}) for c in done.result.candidates)
    nasty = done.result.model_copy(update={"verdict": verdict, "candidates": named, "title": NASTY})
    page = replace(done, result=nasty)._repr_html_()
    assert "<script>" not in page and page.count("&lt;script&gt;") > len(named) and NASTY in html.unescape(page)


def test_frames_and_files_of_the_same_rows_are_the_same_run(finished: dict[str, Run]) -> None:
    one, *others = finished.values()
    for other in others:
        assert other.result.data_fingerprint == one.result.data_fingerprint
        assert other.result.verdict == one.result.verdict
        for a, b in zip(one.result.candidates, other.result.candidates, strict=True):
            assert a.scores == b.scores, a.name


@pytest.mark.parametrize("kind", ["polars", "pandas", "pyarrow"])
def test_a_bundle_answers_in_the_kind_given_with_the_numbers_of_score(
    kind: str, finished: dict[str, Run], tmp_path: Path
) -> None:
    rows = signal_table(50, seed=9).drop("y")
    given: Any = {"polars": rows, "pandas": rows.to_pandas(), "pyarrow": rows.to_arrow()}[kind]
    folder = finished["csv"].folder / "bundle"
    answers = tabkit.load_bundle(folder).predict(given)
    assert type(answers) is type(given)
    rows.write_parquet(tmp_path / "rows.parquet")
    scored = pl.read_parquet(tabkit.score(folder, tmp_path / "rows.parquet", tmp_path / "scored.parquet").out)
    back = pl.from_pandas(answers) if isinstance(answers, pd.DataFrame) else pl.DataFrame(answers)
    assert_frame_equal(back, scored, check_exact=True)
    assert np.isfinite(back["probability_yes"].to_numpy()).all() and len(back) == 50


def test_a_bundle_refuses_rows_that_do_not_fit(finished: dict[str, Run]) -> None:
    rows = signal_table(5, seed=9).drop("y").with_columns(x0=pl.lit("high"))
    with pytest.raises(DataError, match=r"'x0', 'high'.*5 rows do not fit"):
        finished["csv"].bundle.predict(rows)
    with pytest.raises(DataError, match="'x0' is missing"):
        finished["csv"].bundle.predict(rows.drop("x0").to_pandas())
    assert isinstance(finished["csv"].bundle.predict(pa.table(signal_table(3).to_dict(as_series=False))), pa.Table)
