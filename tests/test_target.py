"""Targets that no column holds as they are learned: a scale undone, an outcome made by SQL, a source aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import make_features, write_recipe

import tabkit
from tabkit.data.align import align
from tabkit.data.derive import outcome
from tabkit.data.target import band, check_scale, from_scale, smearing_factor, to_scale
from tabkit.errors import DataError, UsageError
from tabkit.evaluate.tables import conformal_half_width
from tabkit.learner import BUDGETS
from tabkit.models.base import model_class
from tabkit.models.parts.target_scale import OnScale, wrapped
from tabkit.recipe import Plan, Recipe, load_recipe

QUICK = BUDGETS["quick"]


def skewed(n_rows: int, seed: int) -> pl.DataFrame:
    """Seconds that spread by a factor: log-normal around a known line, residual spread .8."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, 3))
    y = np.exp(3.0 + 0.7 * x[:, 0] - 0.4 * x[:, 1] + 0.8 * rng.normal(size=n_rows))
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(3)}, "y": y})


@pytest.mark.parametrize("kind", ["log", "log1p", None])
def test_a_scale_is_undone_exactly(kind: str | None) -> None:
    y = np.array([1e-3, 1.0, 50.0, 1e6])
    np.testing.assert_allclose(from_scale(kind, to_scale(kind, y)), y, rtol=1e-12)


@pytest.mark.parametrize(("predicts", "closest"), [("mean", "mean"), ("median", "median")])
def test_a_prediction_is_the_mean_or_the_median_as_asked(predicts: str, closest: str) -> None:
    rng = np.random.default_rng(0)
    rows = make_features("regression", 4000, with_cat=False)
    score = 0.5 * rows.x_num[:, 0] + 3.0
    y = np.exp(score + 0.8 * rng.normal(size=len(rows)))
    rows = rows.with_y(y)
    train, valid, rest = (rows.take(np.arange(a, b)) for a, b in ((0, 1500), (1500, 2500), (2500, 4000)))
    made = OnScale(model_class("linear")(), "log", predicts).adapt(train, valid, "scratch", rng, QUICK)
    ratio = rest.labels.mean() / made.model.predict(rest).mean()
    over = float(np.mean(rest.labels > made.model.predict(rest)))
    if closest == "mean":  # without smearing the mean is missed by exp(.8 ** 2 / 2) = 1.38
        assert ratio == pytest.approx(1.0, abs=0.06)
        assert made.settings["smearing"] == pytest.approx(np.exp(0.32), rel=0.08)
    else:
        assert over == pytest.approx(0.5, abs=0.03)
        assert ratio > 1.25


def test_smearing_is_measured_on_rows_the_model_was_not_trained_on() -> None:
    """A model that knows its train rows by heart has no residuals there, and would correct nothing."""
    rng = np.random.default_rng(1)
    rows = make_features("regression", 900, with_cat=False)
    rows = rows.with_y(np.exp(rng.normal(size=900)))
    train, valid = rows.take(np.arange(600)), rows.take(np.arange(600, 900))
    made = OnScale(model_class("lgbm")(), "log", "mean").adapt(train, valid, "scratch", rng, QUICK)
    out = smearing_factor(np.log(valid.labels), np.log(made.model.predict(valid) / made.settings["smearing"]))
    assert made.settings["smearing"] == pytest.approx(out)
    again = OnScale(model_class("lgbm")(), "log", "mean").adapt(rows, None, "scratch", rng, QUICK, made.settings)
    assert again.settings["smearing"] == made.settings["smearing"]


def test_a_saved_model_answers_in_the_targets_unit(tmp_path: Path) -> None:
    rows = make_features("regression", 300)
    rows = rows.with_y(np.exp(rows.labels))
    made = OnScale(model_class("linear")(), "log1p", "mean").adapt(
        rows, rows, "scratch", np.random.default_rng(0), QUICK
    )
    made.model.save(tmp_path)
    loaded = wrapped(model_class("linear").load(tmp_path), tmp_path)
    np.testing.assert_array_equal(loaded.predict(rows), made.model.predict(rows))


def test_a_band_grows_with_the_prediction_and_covers_what_it_says() -> None:
    rng = np.random.default_rng(2)
    middle = np.exp(rng.normal(2, 1, 20_000))
    y = middle * np.exp(0.5 * rng.normal(size=20_000))
    half = conformal_half_width(y[:2000], middle[:2000], "log")
    low, high = band("log", middle[2000:], half)
    assert np.mean((low <= y[2000:]) & (y[2000:] <= high)) == pytest.approx(0.9, abs=0.015)
    assert low.min() > 0 and np.corrcoef(high - low, middle[2000:])[0, 1] > 0.99


def test_a_prediction_below_the_scale_still_has_a_band() -> None:
    low, high = band("log1p", np.array([-5.0, 0.0]), 1.0)
    assert np.isfinite(low).all() and np.isfinite(high).all() and (low >= -1).all()


@pytest.mark.parametrize(("kind", "lowest", "words"), [("log", 0.0, "log1p"), ("log1p", -3.0, "remove")])
def test_a_target_outside_its_scale_says_so(kind: str, lowest: float, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_scale(kind, np.array([lowest, 2.0]), "y")


def test_a_run_on_a_scale_scores_in_seconds(tmp_path: Path) -> None:
    frame = skewed(1500, 0)
    recipe = (
        'task = "regression"\ntarget = "y"\n[target_scale]\nkind = "log"\n[metrics]\nprimary = "rmse"\nreport = ["r2"]\n'
        "[candidates]\nwithout = ['catboost']\n[candidates.adapt]\n"
    )
    path = write_recipe(tmp_path, frame, recipe)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    linear = done.result.candidate("linear")
    prior = done.result.candidate("prior")
    assert linear.scores["holdout"]["rmse"].value < prior.scores["holdout"]["rmse"].value
    assert prior.scores["holdout"]["r2"].value == pytest.approx(0.0, abs=0.05)  # the mean, not below it
    assert done.result.interval_coverage == pytest.approx(0.9, abs=0.05)
    tabkit.score(done.folder / "bundle", tmp_path / "d.parquet", tmp_path / "s.parquet")
    scored = pl.read_parquet(tmp_path / "s.parquet")
    assert scored["prediction"].mean() == pytest.approx(float(frame["y"].to_numpy().mean()), rel=0.1)
    inside = (scored["prediction_low"] <= frame["y"]) & (frame["y"] <= scored["prediction_high"])
    assert float(inside.to_numpy().mean()) > 0.85 and scored["prediction_low"].to_numpy().min() > 0


def test_an_outcome_leaves_censored_rows_without_a_label() -> None:
    plan = load_recipe("healthcare/recurrence")
    days, status = [100.0, 100.0, 2000.0, 1095.0, 1096.0], [1, 0, 0, 1, 1]
    made = outcome(pl.DataFrame({"rfstime": days, "status": status}), plan)
    assert made["recurred"].to_list() == ["yes", None, "no", "yes", "no"]


def plan_with(**changes: object) -> Plan:
    plan = load_recipe("healthcare/recurrence")
    recipe = Recipe.model_validate({**plan.recipe.model_dump(by_alias=True), **changes})
    return Plan(recipe, plan.schema, plan.path, plan.schema_path)


def test_an_outcome_that_reads_the_target_is_refused() -> None:
    with pytest.raises(UsageError, match="'recurred', the target it makes"):
        outcome(pl.DataFrame({"recurred": ["yes"]}), plan_with(outcome="recurred", censoring=None))


def test_a_source_is_aligned_or_says_what_it_lacks() -> None:
    plan = load_recipe("healthcare/recurrence")
    (rule,) = plan.recipe.sources
    source = pl.DataFrame(
        {"size": ["<=20", ">50"], "recur": [1, 0], "rtime": [10, 50], "dtime": [90, 70], "death": [0, 0]}
    )
    made = align(source, plan, rule, "there")
    assert made.select("size", "rfstime", "status").rows() == [(15.0, 10, 1), (60.0, 70, 0)]
    with pytest.raises(DataError, match=r"'recur' is missing.*'rfstime'") as problem:
        align(source.drop("recur"), plan, rule, "there")
    assert "there" in str(problem.value)
    kept = align(source.drop("recur").with_columns(rfstime=pl.lit(5), status=pl.lit(1)), plan, rule, "there")
    assert kept["rfstime"].to_list() == [5, 5]


def test_a_death_without_recurrence_counts_at_the_day_of_death() -> None:
    """In Rotterdam 43 died after follow-up for recurrence had ended: rtime alone would call them free of it."""
    plan = load_recipe("healthcare/recurrence")
    row = pl.DataFrame({"size": ["<=20"], "recur": [0], "rtime": [400], "dtime": [900], "death": [1]})
    assert outcome(align(row, plan, plan.recipe.sources[0], "r"), plan)["recurred"].to_list() == ["yes"]
