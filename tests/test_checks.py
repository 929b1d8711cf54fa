"""The checks: what is planted is found by name, what is not is not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from conftest import make_features

from tabkit.data.encode import Features
from tabkit.data.single import single_feature_scores
from tabkit.evaluate.checks import CHECKS, column_psi, sensitive_groups, two_sample_auc


def shifted(rows: Features, column: int, by: float) -> Features:
    x_num = rows.x_num.copy()
    x_num[:, column] += by
    return replace(rows, x_num=x_num)


def test_two_samples_of_one_table_cannot_be_told_apart() -> None:
    a, b = make_features("binary", 800, seed=1), make_features("binary", 400, seed=2)
    assert abs(two_sample_auc(a, b, 0) - 0.5) < 0.06
    assert two_sample_auc(a, shifted(b, 2, 1.5), 0) > 0.7


def test_psi_names_the_column_that_moved() -> None:
    a, b = make_features("binary", 2000, seed=1), make_features("binary", 1000, seed=2)
    assert max(column_psi(a, b).values()) < 0.05
    psi = column_psi(a, shifted(b, 2, 1.0))
    assert max(psi, key=lambda n: psi[n]) == "x2" and psi["x2"] > 0.25
    gone = replace(b, x_num=np.where(np.arange(4) == 1, np.nan, b.x_num).astype(np.float32))
    assert column_psi(a, gone)["x1"] > 0.25


def test_psi_of_categories_counts_a_new_one() -> None:
    a, b = make_features("binary", 1000, seed=1), make_features("binary", 500, seed=2)
    x_cat = b.x_cat.copy()
    x_cat[:250] = 1  # unknown: never seen in training
    assert column_psi(a, replace(b, x_cat=x_cat))["kind"] > 0.25


def test_psi_matches_its_definition_on_large_samples() -> None:
    rng = np.random.default_rng(0)
    a, b = make_features("binary", 40_000, seed=1), make_features("binary", 40_000, seed=2)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    a = replace(a, x_cat=rng.choice([2, 3, 4], (40_000, 1), p=p))
    b = replace(b, x_cat=rng.choice([2, 3, 4], (40_000, 1), p=q))
    assert column_psi(a, b)["kind"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), abs=0.01)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_single_column_that_gives_the_target_away_scores_near_one(task: str) -> None:
    a, b = make_features(task, 600, seed=1), make_features(task, 600, seed=2)
    honest = single_feature_scores(a, b)
    assert max(honest.values()) < 0.9

    def leak(rows: Features) -> Features:
        assert rows.y is not None
        x_num = rows.x_num.copy()
        x_num[:, 3] = -3.0 * rows.y
        return replace(rows, x_num=x_num)

    scores = single_feature_scores(leak(a), leak(b))
    assert scores["x3"] > 0.98 and {k: v for k, v in scores.items() if k != "x3"} == {
        k: v for k, v in honest.items() if k != "x3"
    }


def test_sensitive_groups_are_values_or_quarters() -> None:
    frame = pl.DataFrame({"sex": ["f", "m", None, "f"] * 25, "age": list(range(100))})
    assert set(sensitive_groups(frame, "sex").drop_nulls()) >= {"f", "m"}
    ages = sensitive_groups(frame, "age").value_counts(name="n").sort("n", "age")
    assert ages["n"].to_list() == [25, 25, 25, 25] and "0 to 24.75" in ages["age"]


def test_every_check_has_a_title_a_severity_and_a_question() -> None:
    for code, check in CHECKS.items():
        assert code == code.lower() and check.title and check.severity in ("error", "warning", "info"), code


def test_a_source_of_another_population_is_said_to_be_one() -> None:
    rows = make_features("regression", 400)
    near, far = rows.take(np.arange(200)), rows.take(np.arange(200, 400))
    here = SimpleNamespace(source=near, train=far, seed=0)
    outcome, text = CHECKS["source_distance"].function(here)  # type: ignore[arg-type]
    assert outcome == "pass" and "0 of" in text
    moved = replace(far, x_num=far.x_num + 5, y=far.labels + 10)
    outcome, text = CHECKS["source_distance"].function(SimpleNamespace(source=near, train=moved, seed=0))  # type: ignore[arg-type]
    assert outcome == "fail" and "PSI above" in text and "standard deviations apart" in text
    nothing = SimpleNamespace(source=None)
    assert CHECKS["source_distance"].function(nothing)[0] == "not_applicable"  # type: ignore[arg-type]
