"""Distilling: a student of the champion, measured beside the others, changing nothing, and scoring at tree speed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from conftest import BINARY, make_features, signal_table, write_recipe
from test_blend import WITHOUT, Context, columns

import tabkit
from tabkit import learner
from tabkit.adapt import Runtime, Wanted
from tabkit.adapt.student import teach, teach_again
from tabkit.adapt.tables import Lessons, Origins, make_all
from tabkit.data.encode import Features
from tabkit.evaluate import ledger
from tabkit.evaluate.conformal import conformal_half_width
from tabkit.learner import BUDGETS, Adapted, Block, Cost, Proof
from tabkit.models.base import TableCandidate, model_class
from tabkit.result import result_schema

BUDGET = replace(BUDGETS["quick"], trials=3, epochs=4, trees=80)


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", BUDGET)


def run(folder: Path, frame: pl.DataFrame, recipe: str, out: str = "run", **more: object):  # type: ignore[no-untyped-def]
    path = write_recipe(folder, frame, recipe)
    frame.write_parquet(folder / "data.parquet")
    return tabkit.run(str(path), data=folder / "data.parquet", out=folder / out, budget="quick", **more)  # type: ignore[arg-type]


def teacher(task: str, n_train: int = 600) -> tuple[TableCandidate, Features, Features]:
    train, valid = make_features(task, n_train, seed=1, signal=3.0), make_features(task, 200, seed=2, signal=3.0)
    (linear,) = make_all((Wanted("linear", "scratch", "baseline"),), origins(train), train, valid)
    return linear, train, valid


def origins(train: Features) -> Origins:
    return Origins(Lessons(train), {}, Runtime(0, BUDGET))


def student_of(
    taught_by: TableCandidate, train: Features, valid: Features, unlabelled: Features | None = None
) -> TableCandidate:
    return teach(taught_by, (train, valid, unlabelled), origins(train))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_student_answers_new_rows_as_its_teacher_does(task: str) -> None:
    linear, train, valid = teacher(task)
    pupil = student_of(linear, train, valid)
    new = make_features(task, 500, seed=9, signal=3.0)
    own, taught = pupil.adapted.model.predict(new), linear.adapted.model.predict(new)
    if task == "regression":
        assert 1 - np.mean((own - taught) ** 2) / np.var(taught) > 0.9
    else:
        assert np.mean(own.argmax(axis=1) == taught.argmax(axis=1)) > 0.93
        assert np.abs(own - taught).mean() < 0.06
    assert pupil.name == "lgbm_student" and pupil.kind == "student"


def test_a_student_never_reads_a_label() -> None:
    linear, train, valid = teacher("binary")
    told = student_of(linear, train, valid)
    flipped = [rows.with_y(1 - rows.labels) for rows in (train, valid)]
    lied_to = student_of(linear, *flipped)
    np.testing.assert_array_equal(told.adapted.model.predict(valid), lied_to.adapted.model.predict(valid))


def test_an_in_context_teacher_answers_train_rows_context_safe() -> None:
    """This teacher says .9 where a row's own label is in its context, .4 where it is not: .4 is to be learned."""
    _, train, valid = teacher("binary", 200)
    model = Context()
    adapted = Adapted(model, "scratch", Proof((Block("x", 1, 1, 1.0),)))
    safe = TableCandidate(
        "context",
        "context",
        "scratch",
        "baseline",
        model,
        adapted,
        Cost(0, 0, 0),
        model.predict_train(train),
        columns(np.full(len(valid), 0.4)),
    )
    pupil = student_of(safe, train, valid)
    np.testing.assert_allclose(pupil.adapted.model.predict(valid)[:, 1], 0.4, atol=1e-3)
    everything = teach_again(pupil, model, (train, None), 0, BUDGET)
    np.testing.assert_allclose(everything.predict(valid)[:, 1], 0.4, atol=1e-3)


def test_unlabelled_rows_teach_too() -> None:
    linear, train, valid = teacher("binary", 80)
    more, new = make_features("binary", 3000, seed=7, signal=3.0), make_features("binary", 500, seed=9, signal=3.0)
    off = []
    for unlabelled in (None, more.with_y(None)):
        pupil = student_of(linear, train, valid, unlabelled)
        off.append(np.abs(pupil.adapted.model.predict(new) - linear.adapted.model.predict(new)).mean())
    assert off[1] < 0.7 * off[0]


def test_it_changes_nothing_and_reads_the_holdout_in_the_same_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = ledger.Sealed.open
    monkeypatch.setattr(ledger.Sealed, "open", lambda self: (opened.append(1), real(self))[1])
    frame, recipe = signal_table(500), BINARY + WITHOUT
    plain = run(tmp_path, frame, recipe, "plain").result
    done = run(tmp_path, frame, recipe, "distilled", distill=True)
    told = done.result
    assert len(opened) == 2 and told.holdout_opened == 2  # once a run
    for key in ("verdict", "champion", "chosen", "planned", "curve", "importance", "slices"):
        assert getattr(told, key) == getattr(plain, key), key
    by_name = {c.name: c for c in told.candidates}
    assert {n: c.scores for n, c in by_name.items() if n != "lgbm_student"} == {
        c.name: c.scores for c in plain.candidates
    }
    assert plain.student is None and not (tmp_path / "plain" / "student").exists()
    assert "lgbm_student" not in told.chosen.names and told.planned is None
    assert "lgbm_student" in {e.candidate for e in told.exploratory}


def test_the_student_is_measured_described_and_scores(tmp_path: Path) -> None:
    frame = signal_table(600)
    # Rows whose answer is not known yet teach as well.
    frame = frame.with_columns(y=pl.when(pl.int_range(600) < 500).then("y"))
    done = run(tmp_path, frame, BINARY + WITHOUT, distill=True)
    jsonschema.Draft202012Validator(result_schema()).validate(json.loads((done.folder / "result.json").read_text()))
    result = done.result
    student = result.student
    assert student is not None and student.agreement is not None and student.speedup is not None
    assert student.teacher == result.champion and student.unlabelled == 100
    predicted = pl.read_parquet(done.folder / "holdout_predictions.parquet")
    own, taught = (predicted[n].to_numpy() for n in ("lgbm_student", result.champion))
    assert student.agreement == pytest.approx(np.mean((own >= 0.5) == (taught >= 0.5)))
    assert student.mean_difference == pytest.approx(np.abs(own - taught).mean())
    assert student.agreement > 0.85 and student.speedup > 0
    by_name = {c.name: c.scores["holdout"]["roc_auc"].value for c in result.candidates}
    assert student.gain.value == pytest.approx(by_name["lgbm_student"] - by_name[result.champion])
    assert student.sentence in (done.folder / "report.html").read_text().replace("&#39;", "'")
    card = (done.folder / "student" / "CARD.md").read_text()
    assert student.sentence in card and "learned the answers of" in card
    assert json.loads((done.folder / "student" / "manifest.json").read_text())["champion"] == "lgbm_student"
    scored = tabkit.score(done.folder / "student", tmp_path / "data.parquet", tmp_path / "s.parquet", chunk_rows=77)
    both = tabkit.score(done.folder / "bundle", tmp_path / "data.parquet", tmp_path / "b.parquet")
    assert scored.rows_scored == both.rows_scored == 600
    same = pl.read_parquet(scored.out)["prediction"] == pl.read_parquet(both.out)["prediction"]
    assert same.mean() > 0.85  # type: ignore[operator]


def test_a_regression_student_has_its_own_intervals(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "amount": 3 * x[:, 0] + rng.normal(size=500)})
    recipe = 'task = "regression"\ntarget = "amount"\n[metrics]\nprimary = "rmse"\nreport = ["r2"]\n'
    done = run(tmp_path, frame, recipe + WITHOUT + "[bundle]\ntrain_on = 'train'\n", distill=True)
    student = done.result.student
    assert student.agreement is None and student.r2 > 0.8
    scored = tabkit.score(done.folder / "student", tmp_path / "data.parquet", tmp_path / "s.parquet")
    rows = pl.read_parquet(scored.out)
    measured = pl.read_parquet(done.folder / "holdout_predictions.parquet")
    np.testing.assert_array_equal(rows["prediction"].to_numpy()[measured["row"].to_numpy()], measured["lgbm_student"])
    own = conformal_half_width(measured["target"].to_numpy(), measured["lgbm_student"].to_numpy())
    np.testing.assert_allclose((rows["prediction_high"] - rows["prediction_low"]).to_numpy() / 2, own)


def test_a_teacher_for_a_student_is_no_candidate_of_a_recipe() -> None:
    hows = model_class("lgbm").hows
    assert hows["student"] == "student" and "student" not in {h for h, kind in hows.items() if kind == "adapted"}
