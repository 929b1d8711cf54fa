"""scikit-learn's interface: its own checks, known answers, frames in, verdicts out."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import tabkit
from tabkit.bundle import TableBundle
from tabkit.estimators import NotJudgedWarning, TabkitClassifier, TabkitRegressor
from tabkit.result import TableResult, Verdict

CHEAP: dict[str, Any] = {"candidates": {}, "without": ["catboost", "blend"]}

SLOW = {  # these fit on 30 rows or more: each fit is a run
    "check_classifier_data_not_an_array", "check_classifiers_classes", "check_classifiers_train", "check_dtype_object",
    "check_estimators_pickle", "check_fit_idempotent", "check_fit_score_takes_y", "check_pipeline_consistency",
    "check_positive_only_tag_during_fit", "check_regressor_data_not_an_array", "check_regressors_int",
    "check_regressors_train", "check_supervised_y_2d", "check_fit_check_is_fitted",
}  # fmt: skip


ROWS_AS_WEIGHTS = {"check_sample_weight_equivalence_on_dense_data"}
"""A row of weight 2 is fitted like two rows only up to the scale on which a penalty acts."""


def table(
    n_rows: int = 80, seed: int = 0, signal: float = 4.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    return X, (signal * X[:, 0] + rng.normal(size=n_rows) > 0).astype(np.int64)


def frame(n_rows: int = 80) -> tuple[pl.DataFrame, pl.Series]:
    """Numbers, text, truth and dates, each with gaps; the label follows the text."""
    rng = np.random.default_rng(1)
    plan = rng.choice(["basic", "plus", "gold"], n_rows)
    X = pl.DataFrame(
        {
            "wait": np.where(rng.random(n_rows) < 0.2, np.nan, rng.normal(size=n_rows)),
            "plan": pl.Series([None if i % 10 == 0 else p for i, p in enumerate(plan)]),
            "new": pl.Series([None if i % 7 == 0 else bool(i % 2) for i in range(n_rows)]),
            "since": [date(2024, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 300, n_rows)],
        }
    )
    return X, pl.Series("plan", np.where(plan == "basic", "-", "+"))  # also a feature's name, and a missing code


def _checks() -> Iterator[Any]:
    for estimator in (TabkitClassifier(**CHEAP), TabkitRegressor(**CHEAP)):
        for each, check in estimator_checks_generator(estimator):
            name = str(getattr(check, "func", check).__name__)
            marks = [pytest.mark.slow] if name in SLOW else []
            if name in ROWS_AS_WEIGHTS:
                marks.append(pytest.mark.xfail(reason="columns are standardised by rows, whatever they weigh"))
            yield pytest.param(each, check, id=f"{type(each).__name__}-{name}", marks=marks)


@pytest.mark.filterwarnings("ignore::tabkit.estimators.NotJudgedWarning")
@pytest.mark.parametrize(("estimator", "check"), list(_checks()))
def test_scikit_learns_own_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


def test_a_signal_is_found_and_judged(tmp_path: Path) -> None:
    X, y = table(200)
    new, truth = table(500, seed=1)
    model = TabkitClassifier(**CHEAP).fit(X, y)
    assert model.score(new, truth) > 0.85 > max(truth.mean(), 1 - truth.mean())
    assert isinstance(model.verdict_, Verdict) and model.verdict_.decision == "use_baseline"
    assert isinstance(model.result_, TableResult) and model.result_.verdict == model.verdict_
    assert model.result_.primary == "roc_auc" and model.result_.seed == 0
    assert isinstance(model.bundle_, TableBundle)
    assert model.classes_.tolist() == [0, 1] and model.n_features_in_ == 3
    answers = model.bundle_.predict(pl.DataFrame(new, schema=["x0", "x1", "x2"]))
    np.testing.assert_array_equal(model.predict_proba(new)[:, 1], answers["probability_1"].to_numpy())
    np.testing.assert_array_equal(model.predict(new).astype(str), answers["prediction"].to_numpy())
    model.write_bundle(tmp_path / "bundle")
    assert tabkit.load_bundle(tmp_path / "bundle").seal == model.bundle_.seal
    with pytest.raises(ValueError, match="exists already"):
        model.write_bundle(tmp_path / "bundle")


def test_noise_is_not_learned() -> None:
    X, _ = table(120)
    y = np.random.default_rng(5).normal(size=120)
    model = TabkitRegressor(**CHEAP).fit(X, y)
    new, _ = table(300, seed=3)
    assert model.score(new, np.random.default_rng(6).normal(size=300)) < 0.1
    assert model.verdict_ is not None and model.verdict_.decision == "use_baseline"


def test_candidates_are_adapted_if_asked() -> None:
    X, y = table(60)
    model = TabkitClassifier(candidates={"icl": []}, without=["catboost", "blend"], metric="log_loss").fit(X, y)
    assert model.result_ is not None
    assert "icl_as_is" in {candidate.name for candidate in model.result_.candidates}
    assert model.result_.primary == "log_loss" and model.result_.worthwhile == 0.0


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_frames_of_all_types_with_gaps(kind: str) -> None:
    X, y = frame()
    given, label = (X, y) if kind == "polars" else (X.to_pandas().set_axis([f"r{i}" for i in range(80)]), y.to_pandas())
    model = TabkitClassifier(**CHEAP).fit(given, label)
    assert model.classes_.tolist() == ["+", "-"] and model.feature_names_in_.tolist() == X.columns
    assert model.score(given, label) > 0.9
    np.testing.assert_array_equal(model.predict_proba(given), model.predict_proba(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename({"wait": "weight"}))
    with pytest.raises(ValueError, match="Row 0 of X, column 'wait': 'long', expected a number"):
        model.predict(X.with_columns(wait=pl.lit("long")))
    with pytest.raises(ValueError, match="infinity, in column 'wait'"):
        model.predict(X.with_columns(wait=pl.lit(np.inf)))


def test_whole_numbers_may_meet_others() -> None:
    X = pd.DataFrame({"rooms": np.arange(40) % 7, "size": np.arange(40) % 11})
    model = TabkitRegressor(**CHEAP).fit(X, 2.0 * X["rooms"])
    assert np.isfinite(model.predict(pd.DataFrame({"rooms": [2.5], "size": [3]}))).all()


def test_a_small_table_gets_a_linear_model_openly(tmp_path: Path) -> None:
    X, y = table(29)
    with pytest.warns(NotJudgedWarning, match="29 rows cannot be cut") as caught:
        model = TabkitClassifier(**CHEAP).fit(X, y)
    assert caught[0].filename == __file__
    assert model.verdict_ is model.result_ is model.bundle_ is None
    assert model.score(X, y) > 0.8
    with pytest.raises(ValueError, match="no bundle"):
        model.write_bundle(tmp_path / "bundle")
    with pytest.raises(ValueError, match="Unknown budget"), pytest.warns(NotJudgedWarning):
        TabkitClassifier(budget="huge").fit(X, y)
    with pytest.raises(ValueError, match="rocauc"), pytest.warns(NotJudgedWarning):
        TabkitClassifier(metric="rocauc").fit(X, y)


def test_a_rare_class_is_named() -> None:
    X, y = table(60)
    y[:2] = 7
    with pytest.warns(NotJudgedWarning, match="Class 7 has 2 rows"):
        model = TabkitClassifier(**CHEAP).fit(X, y)
    assert model.verdict_ is None and model.predict_proba(X).shape == (60, 3)
    X[:3], y[:3] = 9.0, 7
    assert TabkitClassifier(**CHEAP).fit(X, y).verdict_ is not None


def test_what_cannot_be_fitted_is_refused() -> None:
    X, y = table(40)
    with pytest.raises(NotFittedError):
        TabkitClassifier().predict(X)
    with pytest.raises(ValueError, match="one class only"):
        TabkitClassifier().fit(X, np.zeros(40))
    with pytest.raises(ValueError, match="holds List"):
        TabkitClassifier().fit(pl.DataFrame({"a": [[1]] * 40}), y)
    with pytest.raises(ValueError, match="nothing is there"):
        TabkitClassifier().fit(pl.DataFrame({"a": []}), [])
    with pytest.raises(ValueError, match="unknown base 'nope'"):
        TabkitClassifier(candidates={"nope": []}).fit(X, y)


def test_the_seed_decides_and_pickling_keeps_the_model() -> None:
    X, y = frame(60)
    model = TabkitClassifier(**CHEAP, random_state=3).fit(X, y)
    again = clone(model).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.predict_proba(X), copy.predict_proba(X))
    assert copy.verdict_ == model.verdict_ and copy.bundle_.seal == model.bundle_.seal
    assert pickle.loads(pickle.dumps(clone(model))).get_params() == model.get_params()


def test_folds_hold_every_row_out() -> None:
    X, y = table(60)
    model = TabkitClassifier(**CHEAP, folds=2).fit(X, y)
    assert model.result_ is not None and model.result_.split.folds == 2


def test_inside_a_pipeline_a_cross_validation_and_a_search() -> None:
    X, y = table(60)
    pipeline = make_pipeline(StandardScaler(), TabkitClassifier(**CHEAP))
    assert cross_val_score(pipeline, X, y, cv=2).mean() > 0.7
    search = GridSearchCV(TabkitClassifier(**CHEAP), {"metric": ["roc_auc", "log_loss"]}, cv=2, refit=False)
    assert len(search.fit(X, y).cv_results_["params"]) == 2
