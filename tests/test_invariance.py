"""A table says the same in any unit and from any zero: every model's answers, and the verdict of a run."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import write_recipe

import tabkit
from tabkit.adapt.runtime import Runtime, Wanted
from tabkit.adapt.tables import Lessons, Origins, make
from tabkit.data.encode import Encoder, Features, fit_encoder
from tabkit.learner import BUDGETS, Predictions
from tabkit.models.base import model_class, model_names
from tabkit.models.parts.target_scale import OnScale
from tabkit.recipe import TargetScale

BUDGET = replace(BUDGETS["quick"], epochs=2, trials=3, trees=30, seconds=600.0)
TARGETS = [(1.0, 1e9), (1.0, 1.7e9), (1e-6, 0.0), (1e-11, 0.0), (1e6, -3e8)]
COLUMNS = [(1.0, 1e9), (1e-12, 0.0), (1e-30, 0.0), (1e25, 0.0), (1e6, -3e8)]
EXACT = [(1.0, 1e9), (2.0**-40, 0.0), (2.0**-100, 0.0), (2.0**83, 0.0), (2.0**20, -3e8)]
"""Maps that round nothing: TabNet magnifies a last bit, since the first steps of Adam go by a gradient's sign."""
INNER = 3

CASES = [
    (name, how)
    for name in model_names()
    if name != "blend" and model_class(name).lacks() is None
    for how, kind in model_class(name).hows.items()
    if kind != "student"
]
REGRESSIONS = [(name, how) for name, how in CASES if "regression" in model_class(name).tasks]


@pytest.fixture(autouse=True)
def small_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    from tabkit.models import icl

    small = icl.Effort(members=1, context_rows=100, epochs=1, episodes=1, episode_rows=48)
    monkeypatch.setitem(icl.EFFORTS, "quick", small)


@cache
def table(task: str) -> pl.DataFrame:
    """Rows whose numbers have few binary digits: a shift by a whole number is then exact, and rounds nothing off."""
    rng = np.random.default_rng(0)
    x = rng.integers(-5, 6, (600, 3)) / 2.0
    kind = rng.choice(["a", "b", "c"], 600)
    score = x[:, 0] - 0.5 * x[:, 1] + (kind == "a") + np.round(8 * rng.normal(0, 0.7, 600)) / 8
    y = score if task == "regression" else np.where(score > 0.2, "yes", "no")
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(3)}, "kind": kind.tolist(), "y": y.tolist()})


def moved(frame: pl.DataFrame, columns: list[str], a: float, b: float) -> pl.DataFrame:
    return frame.with_columns(pl.col(column) * a + b for column in columns)


def encoded(frame: pl.DataFrame, task: str) -> tuple[Features, Features, Features]:
    """Train, valid and source, by an encoder that was saved and read again."""
    classes = () if task == "regression" else ("no", "yes")
    train, valid, source = frame[:240], frame[240:360], frame[360:]
    known = pl.concat([train, source])
    encoder = fit_encoder(known, [c for c in frame.columns if c != "y"], task, "y", classes)
    encoder = Encoder.from_json(encoder.to_json())
    return encoder.encode(train), encoder.encode(valid), encoder.encode(source)


def answers(
    name: str, how: str, frame: pl.DataFrame, task: str, scale: TargetScale | None = None, inner: int | None = None
) -> Predictions:
    """Predictions of valid by a candidate as a run makes it."""
    train, valid, source = encoded(frame, task)
    runtime = Runtime(7, BUDGET)
    opened = {name: model_class(name).open_weights(None, task)} if model_class(name).has_weights else {}
    origins = Origins(Lessons(train, source, scale=scale, inner=inner), opened, runtime)
    kind = model_class(name).hows[how]
    apart = train if inner else valid
    return make(Wanted(name, how, kind), origins.of(name, kind), train, apart, runtime).adapted.model.predict(valid)


@cache
def plain(name: str, how: str, task: str) -> Predictions:
    return answers(name, how, table(task), task)


def some(name: str, maps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """All maps, or the first for the base that takes seconds to adapt."""
    return maps[:1] if name == "icl" else maps


def hold(found: Predictions, wanted: Predictions, spread: float) -> None:
    """Answers are the same to a thousandth of the target's spread: float32 inside a network rounds at its own places."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * spread)


@pytest.mark.parametrize(("name", "how"), REGRESSIONS)
def test_a_target_may_be_in_any_unit(name: str, how: str) -> None:
    frame, wanted = table("regression"), plain(name, how, "regression")
    spread = float(frame["y"].to_numpy().std())
    for a, b in some(name, TARGETS):
        found = answers(name, how, moved(frame, ["y"], a, b), "regression")
        hold((found - b) / a, wanted, spread)


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize(("name", "how"), CASES)
def test_columns_may_be_in_any_unit(name: str, how: str, task: str) -> None:
    if task not in model_class(name).tasks:
        pytest.skip("not its task")
    frame, wanted = table(task), plain(name, how, task)
    spread = float(frame["y"].to_numpy().std()) if task == "regression" else 1.0
    for a, b in some(name, EXACT if name == "tabnet" else COLUMNS):
        hold(answers(name, how, moved(frame, ["x0", "x1", "x2"], a, b), task), wanted, spread)


@pytest.mark.parametrize("name", ["linear", "lgbm", "svm"])
def test_inner_folds_and_logarithms_take_any_unit(name: str) -> None:
    frame = table("regression")
    bagged = answers(name, "scratch", frame, "regression", inner=INNER)
    far = answers(name, "scratch", moved(frame, ["y"], 1.0, 1e9), "regression", inner=INNER)
    hold(far - 1e9, bagged, 1.0)
    skewed, scale = frame.with_columns(pl.col("y").exp()), TargetScale(kind="log", predicts="mean")
    logs = answers(name, "scratch", skewed, "regression", scale)
    tiny = answers(name, "scratch", moved(skewed, ["y"], 1e-11, 0.0), "regression", scale)
    np.testing.assert_allclose(tiny * 1e11, logs, rtol=1e-3)


def test_what_was_saved_before_there_was_a_standard_is_read(tmp_path: Path) -> None:
    from tabkit.models.parts.bagged import read_model

    train, valid, _ = encoded(table("regression"), "regression")
    model = (
        OnScale(model_class("linear")(), None).adapt(train, valid, "scratch", np.random.default_rng(0), BUDGET).model
    )
    model.save(tmp_path)
    (tmp_path / "target_scale.json").write_text('{"kind": null, "predicts": "mean", "smearing": 1.0}')
    np.testing.assert_array_equal(read_model("linear", tmp_path).predict(valid), model.predict(valid))
    (tmp_path / "target_scale.json").unlink()
    np.testing.assert_array_equal(read_model("linear", tmp_path).predict(valid), model.predict(valid))


RECIPE = """
task = "regression"
target = "y"
[metrics]
primary = "rmse"
report = ["r2", "rpiq"]
[candidates]
without = ["catboost"]
[candidates.adapt]
icl = ["head"]
"""


@pytest.mark.parametrize(("a", "b"), [(1.0, 1e9), (1e-11, 0.0)])
def test_a_run_decides_the_same_in_any_unit(a: float, b: float, tmp_path: Path) -> None:
    outcomes = []
    for unit, (times, plus) in {"plain": (1.0, 0.0), "other": (a, b)}.items():
        frame = moved(table("regression"), ["y"], times, plus)
        recipe = write_recipe(tmp_path / unit, frame, RECIPE)
        done = tabkit.run(str(recipe), frame, out=tmp_path / unit / "out", budget="quick")
        assert done.report.is_file()
        tabkit.score(done.folder / "bundle", frame.drop("y"), tmp_path / unit / "s.parquet")
        scored = pl.read_parquet(tmp_path / unit / "s.parquet")
        low = (scored["prediction_low"].to_numpy() - plus) / times
        outcomes.append((done.result, low))
    (one, low), (other, far) = outcomes
    assert (one.verdict.decision, one.champion) == (other.verdict.decision, other.champion)
    for candidate in one.candidates:
        for metric, unit in (("r2", 1.0), ("rpiq", 1.0), ("rmse", a)):
            there = other.candidate(candidate.name).scores["holdout"][metric]
            assert there.value / unit == pytest.approx(candidate.scores["holdout"][metric].value, abs=1e-3), (
                candidate.name
            )
    np.testing.assert_allclose(far, low, atol=5e-3)
