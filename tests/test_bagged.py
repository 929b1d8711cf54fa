"""Inner folds: choices are made on rows that a model did not learn from; bags save, load and run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, holds_pickle, make_features, noise_table, signal_table, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import tabkit
from tabkit import learner
from tabkit.data.encode import Features
from tabkit.data.split import split_rows
from tabkit.errors import DataError, UsageError
from tabkit.evaluate.proof import contradiction
from tabkit.learner import BUDGETS, Adapted
from tabkit.models.base import Model, folds_of, model_class
from tabkit.models.parts.bagged import Bagged, read_model
from tabkit.models.parts.target_scale import OnScale
from tabkit.recipe import Recipe, load_recipe
from tabkit.seed import stream

BUDGET = replace(BUDGETS["quick"], trials=3, epochs=3, trees=40)
FAST = "[candidates]\nwithout = ['catboost']\n[candidates.adapt]\nicl = ['head']\n"
INNER = "[split]\ninner = 3\n"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", BUDGET)


def bag(name: str, rows: Features, how: str = "scratch", n_folds: int = 3) -> Adapted:
    inner = model_class(name)() if how == "scratch" else model_class(name).open_weights(None, rows.layout.task)
    return Bagged(inner, n_folds, 0).adapt(rows, rows, how, np.random.default_rng(0), BUDGET)


def members(adapted: Adapted) -> tuple[Model, ...]:
    assert isinstance(adapted.model, Bagged)
    return adapted.model.members_


@given(sizes=st.lists(st.integers(2, 30), min_size=2, max_size=5), n_folds=st.integers(2, 6), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_every_class_is_in_two_folds_and_folds_are_even(sizes: list[int], n_folds: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rows = make_features("multiclass", n_rows=len(labels)).with_y(labels)
    fold = folds_of(rows, n_folds, np.random.default_rng(seed))
    counts = np.bincount(fold, minlength=n_folds)
    assert counts.max() - counts.min() <= 1
    for code in range(len(sizes)):
        own = np.bincount(fold[labels == code], minlength=n_folds)
        assert own.max() - own.min() <= 1 and (own > 0).sum() >= 2


def test_a_row_is_judged_by_the_model_that_did_not_learn_from_it() -> None:
    """A column that names the row memorises its label: what train shows, the judged predictions must not."""
    rng = np.random.default_rng(0)
    rows = make_features("binary", n_rows=300, n_num=1, with_cat=False)
    rows = replace(rows, x_num=np.arange(300, dtype=np.float32)[:, None], y=rng.integers(0, 2, 300))
    made = bag("lgbm", rows)
    judged = made.predict_valid(rows)
    fold = folds_of(rows, 3, stream(0, "inner folds"))
    for k, member in enumerate(members(made)):
        np.testing.assert_array_equal(judged[fold == k], member.predict(rows.take(np.flatnonzero(fold == k))))
    assert (
        roc_auc_score(rows.labels, judged[:, 1])
        < 0.6
        < roc_auc_score(rows.labels, made.model.predict_train(rows)[:, 1])
    )


def test_train_is_scored_by_the_models_that_learned_from_a_row() -> None:
    rows = make_features("regression", n_rows=90)
    made = bag("linear", rows)
    fold = folds_of(rows, 3, stream(0, "inner folds"))
    each = np.stack([m.predict(rows) for m in members(made)])
    expected = [np.mean([each[k, i] for k in range(3) if k != fold[i]]) for i in range(90)]
    np.testing.assert_allclose(made.model.predict_train(rows), expected)
    np.testing.assert_allclose(made.model.predict(rows), each.mean(axis=0))


@pytest.mark.parametrize(("name", "how"), [("lgbm", "scratch"), ("linear", "scratch"), ("icl", "as_is")])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_bag_reads_back_what_it_wrote(name: str, how: str, task: str, tmp_path: Path) -> None:
    rows = make_features(task, n_rows=120)
    made = bag(name, rows, how)
    made.model.save(tmp_path)
    again = read_model(name, tmp_path)
    np.testing.assert_array_equal(again.predict(rows), made.model.predict(rows))
    np.testing.assert_array_equal(again.predict_train(rows), made.model.predict_train(rows))
    assert not any(holds_pickle(p.read_bytes()) for p in tmp_path.rglob("*") if p.is_file())


def test_a_bag_of_models_behind_a_scale_reads_back(tmp_path: Path) -> None:
    rows = make_features("regression", n_rows=120)
    rows = rows.with_y(np.exp(rows.labels))
    origin = Bagged(OnScale(model_class("linear")(), "log", "mean"), 3, 0)
    made = origin.adapt(rows, rows, "scratch", np.random.default_rng(0), BUDGET)
    made.model.save(tmp_path)
    np.testing.assert_array_equal(read_model("linear", tmp_path).predict(rows), made.model.predict(rows))


def test_settings_run_the_same_procedure_again() -> None:
    rows = make_features("binary", n_rows=150)
    made = bag("lgbm", rows)
    origin = Bagged(model_class("lgbm")(), 3, 0)
    twice = [
        origin.adapt(rows, None, "scratch", np.random.default_rng(0), BUDGET, made.settings).model.predict(rows)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*twice)
    more = origin.adapt(rows.stack(rows), None, "scratch", np.random.default_rng(0), BUDGET, made.settings)
    assert len(members(more)) == 3 and len(more.predict_valid(rows.stack(rows))) == 300


def test_the_proof_counts_the_parameters_of_every_model() -> None:
    rows = make_features("binary", n_rows=90)
    alone = model_class("icl").open_weights(None, "binary").adapt(rows, rows, "as_is", np.random.default_rng(0), BUDGET)
    made = bag("icl", rows, "as_is")
    assert made.proof.total_parameters == 3 * alone.proof.total_parameters and made.proof.trained_parameters == 0
    head = bag("icl", rows, "head")
    assert contradiction(made, "icl") is None and contradiction(head, "icl") is None
    assert contradiction(replace(head, how="as_is"), "icl") is not None


@pytest.mark.parametrize("folds", ["", "folds = 3\n"])
def test_a_run_chooses_on_all_rows_that_are_not_held_out(folds: str, tmp_path: Path) -> None:
    frame = signal_table(240)
    path = write_recipe(tmp_path, frame, BINARY + INNER + folds + FAST)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    rows, split = done.result.rows, done.result.split
    assert rows.valid == 0 and split.inner == 3 and "3 inner folds" in split.text
    assert rows.train + rows.holdout == (240 if not folds else 400)  # over folds, a row is learned from twice
    linear = done.result.candidate("linear")
    assert linear.scores["valid"]["roc_auc"].value > 0.7
    assert any("mean of 3 models" in note for note in linear.notes)
    scored = tabkit.score(done.folder / "bundle", tmp_path / "d.parquet", tmp_path / "s.parquet")
    assert scored.rows_scored == 240
    told = roc_auc_score(frame["y"] == "yes", pl.read_parquet(tmp_path / "s.parquet")["probability_yes"])
    assert told > 0.75


def test_a_leak_check_that_saw_the_rows_would_cry_wolf(tmp_path: Path) -> None:
    """A tree on one noise column knows the rows that it learned from; the check must try it on others."""
    frame = noise_table(150, 0)
    path = write_recipe(tmp_path, frame, BINARY + INNER + FAST)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    check = next(c for c in done.result.checks if c.code == "single_feature_leak")
    strongest = float(check.message.split("reaches ")[1].split()[0])
    assert check.outcome == "pass" and strongest < 0.72
    assert done.decision != "adapt"


def test_inner_folds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    frame = signal_table(60).with_columns(g=pl.int_range(60))
    for line, words in (("group = 'g'\n", "split.inner cuts rows at random"), ("time = 'g'\n", "split.inner")):
        path = write_recipe(tmp_path, frame, line + BINARY + INNER + FAST)
        with pytest.raises(UsageError, match=words):
            load_recipe(str(path))
    few = Recipe.model_validate(
        {
            "name": "a/b", "title": "T", "schema": "s", "task": "regression", "target": "y",
            "metrics": {"primary": "r2"}, "split": {"inner": 10},
        }
    )  # fmt: skip
    with pytest.raises(DataError, match="30 rows to learn from cannot be cut into 10 inner folds"):
        split_rows(pl.DataFrame({"y": np.arange(40.0)}), few, 0)
    given_parts = Recipe.model_validate(
        {**few.model_dump(by_alias=True), "split": {"kind": "given", "column": "part", "inner": 3}}
    )
    parts = pl.DataFrame({"y": np.arange(60.0), "part": ["train"] * 30 + ["valid"] * 10 + ["holdout"] * 20})
    with pytest.raises(DataError, match="names 10 valid rows, and split"):
        split_rows(parts, given_parts, 0)
    path = write_recipe(tmp_path, signal_table(120), BINARY + INNER + FAST)
    signal_table(120).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(UsageError, match="--distill"):
        tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick", distill=True)
