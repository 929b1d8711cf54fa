"""Bad sources and odd tables: each ends in a sentence that says what to do, or in a result that says what was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, make_features, signal_table, write_recipe

import tabkit
from tabkit import learner
from tabkit.errors import DataError, UsageError
from tabkit.evaluate.checks.tables import SourceDistance
from tabkit.recipe import load_recipe
from tabkit.result import TableResult

LINES = '[candidates]\nwithout = ["catboost"]\n[candidates.adapt]\nlinear = ["pool"]\n'
REGRESSION = 'task = "regression"\ntarget = "y"\n[metrics]\nprimary = "rmse"\nreport = ["r2"]\n'


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, epochs=3, trees=30))


def numbers(n_rows: int, seed: int = 0) -> pl.DataFrame:
    """A table in which x0 and x1 predict a number."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, 3))
    return pl.DataFrame(
        {**{f"x{i}": x[:, i] for i in range(3)}, "y": x[:, 0] - 0.5 * x[:, 1] + 0.3 * rng.normal(size=n_rows)}
    )


@pytest.fixture
def run_with(tmp_path: Path) -> Callable[..., TableResult]:
    def run(frame: pl.DataFrame, recipe: str, *sources: pl.DataFrame, more: str = "") -> TableResult:
        path = write_recipe(tmp_path, frame, recipe + more)
        frame.write_parquet(tmp_path / "d.parquet")
        for i, source in enumerate(sources):
            source.write_parquet(tmp_path / f"s{i}.parquet")
        given = tmp_path / "s0.parquet" if sources else None
        done = tabkit.run(str(path), tmp_path / "d.parquet", source=given, out=tmp_path / "out", budget="quick")
        assert isinstance(done.result, TableResult)
        return done.result

    return run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.select("y"), "shares no feature with the target, which has x0, x1"),
        (lambda s: s.drop("y"), "no column 'y', the target; without labels it teaches nothing"),
        (lambda s: s.rename({"y": "yy"}), "Did you mean 'yy'"),
        (lambda s: s.head(0), "no rows"),
        (lambda s: s.with_columns(y=pl.lit(None, dtype=pl.String)), "0 labelled rows. Expected at least 30"),
        (lambda s: s.with_columns(y=pl.lit("yes")), "target 'y' is 'yes' in every row, so it teaches nothing"),
        (
            lambda s: s.with_columns(y=pl.col("y").replace("no", "never")),
            "has 'never', which the target table never has",
        ),
        (lambda s: s.with_columns(x0=pl.lit("high")), "do not fit schema case"),
    ],
)
def test_a_bad_source_says_what_is_wrong(
    change: Callable[[pl.DataFrame], pl.DataFrame], words: str, run_with: Callable[..., Any]
) -> None:
    with pytest.raises(DataError, match=words) as problem:
        run_with(signal_table(120), BINARY + LINES, change(signal_table(100, seed=1)))
    assert "s0.parquet" in str(problem.value) or "training" in str(problem.value)


def test_a_column_that_a_source_lacks_is_missing_there_and_said(run_with: Callable[..., Any], tmp_path: Path) -> None:
    result = run_with(signal_table(300), BINARY + LINES, signal_table(200, seed=1).drop("x3", "kind"))
    (source,) = result.sources
    assert source.lacking == ("x3", "kind") and source.rows == result.rows.source == 200
    assert (
        "200 rows, without x3, kind, which are missing in all of them" in (tmp_path / "out" / "report.html").read_text()
    )
    pooled = result.candidate("linear_pool")
    assert pooled.refused is None and pooled.scores["holdout"]["roc_auc"].value > 0.7


def test_features_may_all_be_derived(run_with: Callable[..., Any]) -> None:
    exclude = 'exclude = ["x0", "x1", "x2", "x3", "x4", "kind"]\n'
    derived = '[derived]\nsum = "x0 - x1"\nproduct = "x2 * x3"\n'
    result = run_with(signal_table(300), exclude + BINARY + derived + LINES, signal_table(99, 1).drop("x3"))
    (source,) = result.sources
    assert source.lacking == ("product",) and source.rows == 99


def test_several_sources_are_aligned_each_by_its_own_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, one, two = (signal_table(n, seed=n) for n in (200, 80, 90))
    samples = {
        "test:here": here,
        "test:one": one.rename({"x0": "first"}),
        "test:two": two.with_columns(x1=pl.col("x1") * 100).drop("x2"),
    }
    monkeypatch.setattr("tabkit.workflow.reading.load_sample", samples.__getitem__)
    more = (
        '[[source]]\nname = "one"\nsample = "test:one"\n[source.columns]\nx0 = "first"\n'
        '[[source]]\nname = "two"\nsample = "test:two"\nwhere = "x3 > -9"\n[source.columns]\nx1 = "x1 / 100"\n'
    )
    path = write_recipe(tmp_path, here, 'sample = "test:here"\n' + BINARY + LINES + more)
    result = tabkit.run(str(path), out=tmp_path / "out", budget="quick").result
    assert [(s.name, s.rows, s.lacking) for s in result.sources] == [("one", 80, ()), ("two", 90, ("x2",))]
    with pytest.raises(UsageError, match="names 2 source tables"):
        tabkit.run(str(path), source=path, out=tmp_path / "again", budget="quick")
    path.write_text(path.read_text().replace('name = "two"', 'name = "one"'))
    with pytest.raises(UsageError, match="need names that differ"):
        load_recipe(str(path))


@pytest.mark.parametrize(("where", "fails"), [("", True), ('where = "x0 < 0.5"', True), ('where = "x0 > 0"', False)])
def test_a_row_is_never_source_and_target_at_once(
    where: str, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is cut from the target's own table: its base would otherwise know the holdout."""
    frame = signal_table(400)
    path = write_recipe(tmp_path, frame, f'where = "x0 <= 0"\n{BINARY}{LINES}[source]\n{where}\n')
    frame.write_parquet(tmp_path / "d.parquet")
    if fails:
        with pytest.raises(DataError, match="rows would be source and target at once"):
            tabkit.run(str(path), tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    else:
        result = tabkit.run(str(path), tmp_path / "d.parquet", out=tmp_path / "out", budget="quick").result
        assert result.rows.source + result.rows.train + result.rows.valid + result.rows.holdout == 400


def test_holdout_rows_in_a_source_file_are_found(run_with: Callable[..., Any]) -> None:
    frame = signal_table(200)
    result = run_with(frame, BINARY + LINES, pl.concat([signal_table(100, seed=1), frame.head(60)]))
    (check,) = [c for c in result.checks if c.code == "source_copies"]
    assert check.outcome == "fail" and "the bases have seen them" in check.message


def test_a_source_in_another_unit_is_asked_about() -> None:
    rows = make_features("regression", 400)
    near, far = rows.take(np.arange(200)), rows.take(np.arange(200, 400))
    grams = replace(near, x_num=np.where([True, False, False, False], near.x_num + 1000, near.x_num))
    for source, words in ((grams, "'x0' is"), (near.with_y(near.labels + 1000), "'the target' is")):
        outcome, text = SourceDistance().find(SimpleNamespace(source=source, train=far, seed=0))  # type: ignore[arg-type]
        assert outcome == "fail" and words in text and "another unit" in text
    _, text = SourceDistance().find(SimpleNamespace(source=near, train=far, seed=0))  # type: ignore[arg-type]
    assert "another unit" not in text


def test_a_field_of_thirty_rows_is_measured_over_folds(run_with: Callable[..., Any]) -> None:
    result = run_with(numbers(30), REGRESSION, more='[split]\nfolds = 5\n[candidates.adapt]\nicl = ["full"]\n')
    assert result.rows.holdout == 30
    assert {c.name: c.refused for c in result.candidates}["lgbm"] is None
    few = next(c for c in result.checks if c.code == "too_few_holdout_cases")
    assert few.outcome == "fail" and "30" in few.message


def test_twenty_nine_rows_are_too_few_and_say_so(run_with: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"29 labelled rows in scope\. Expected at least 30"):
        run_with(numbers(29), REGRESSION + LINES.replace('linear = ["pool"]', ""))


NO_ADAPTATION = '[candidates]\nwithout = ["catboost"]\n[candidates.adapt]\n'


def test_a_target_that_never_varies_says_so(run_with: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"'y' is 2\.5 in every row: nothing can be learned"):
        run_with(numbers(60).with_columns(y=pl.lit(2.5)), REGRESSION + NO_ADAPTATION)


GIVEN = '[split]\nkind = "given"\ncolumn = "f"\nfolds = "given"\n'


def test_a_fold_that_learns_from_a_constant_target_says_which(run_with: Callable[..., Any]) -> None:
    frame = numbers(60).with_columns(f=pl.Series([1, 2, 3] * 20))
    frame = frame.with_columns(y=pl.when(pl.col("f") == 2).then("y").otherwise(pl.lit(1.0)))
    with pytest.raises(DataError, match=r"'y' is 1\.0 in every training row after the given split .* fold 2 of 3"):
        run_with(frame, REGRESSION + GIVEN + NO_ADAPTATION)


def test_a_fold_that_lacks_a_class_in_training_says_which(run_with: Callable[..., Any]) -> None:
    frame = signal_table(90).with_columns(f=pl.Series([1, 2, 3] * 30))
    frame = frame.with_columns(y=pl.when(pl.col("f") == 3).then("y").otherwise(pl.lit("no")))
    with pytest.raises(DataError, match=r"Class 'yes' of 'y' has no training row .* fold 3 of 3"):
        run_with(frame, BINARY + GIVEN + NO_ADAPTATION)


def test_a_fold_with_one_class_is_scored_with_the_others(run_with: Callable[..., Any]) -> None:
    """Its own ROC AUC does not exist; the pooled one counts its rows all the same."""
    frame = signal_table(240).with_columns(f=pl.Series([1, 2, 3] * 80))
    frame = frame.with_columns(y=pl.when(pl.col("f") == 3).then(pl.lit("no")).otherwise("y"))
    result = run_with(frame, BINARY + GIVEN + NO_ADAPTATION)
    linear = result.candidate("linear").scores["holdout"]["roc_auc"]
    assert result.rows.holdout == 240 and linear.low < linear.value < linear.high
