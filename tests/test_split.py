"""Splits are disjoint and complete, and no group or moment crosses them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabkit.data.split import Split, split_rows
from tabkit.errors import DataError, UsageError
from tabkit.recipe import Recipe


def recipe(**changes: object) -> Recipe:
    base = {
        "name": "a/b",
        "title": "t",
        "schema": "s",
        "task": "binary",
        "target": "y",
        "metrics": {"primary": "roc_auc"},
    }
    return Recipe.model_validate({**base, **changes})


def table(n: int, seed: int, n_groups: int = 12) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    start = date(2024, 1, 1)
    y = rng.random(n) < 0.3
    y[:6] = [True, False, True, False, True, False]
    return pl.DataFrame(
        {
            "y": y,
            "g": rng.integers(0, n_groups, n),
            "t": [start + timedelta(days=int(d)) for d in rng.integers(0, 40, n)],
        }
    )


KINDS = {
    "random": {"split": {"kind": "random"}},
    "stratified": {},
    "grouped": {"group": "g"},
    "temporal": {"time": "t"},
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(n=st.integers(60, 400), seed=st.integers(0, 10_000))
def test_parts_are_disjoint_complete_and_honest(kind: str, n: int, seed: int) -> None:
    frame, rule = table(n, seed), recipe(**KINDS[kind])
    try:
        (split,) = split_rows(frame, rule, seed)
    except DataError as refused:
        assert "training row" in str(refused)  # a class may be absent from an unlucky group or period
        return
    assert split.kind == kind
    together = np.concatenate([split.train, split.valid, split.holdout])
    assert sorted(together) == list(range(n))
    if kind == "grouped":
        sides = [set(frame["g"][rows]) for rows in (split.train, split.valid, split.holdout)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    elif kind == "temporal":
        assert frame["t"][split.train].max() < frame["t"][split.valid].min()
        assert frame["t"][split.valid].max() < frame["t"][split.holdout].min()
    else:
        assert abs(len(split.holdout) - 0.25 * n) <= 2
    if kind == "stratified":
        shares = [frame["y"][rows].mean() for rows in (split.train, split.holdout)]
        assert abs(shares[0] - shares[1]) < 0.06  # type: ignore[operator]
    (again,) = split_rows(frame, rule, seed)
    assert np.array_equal(again.holdout, split.holdout)


def test_another_seed_is_another_split() -> None:
    frame = table(200, 0)
    (a,), (b,) = split_rows(frame, recipe(), 0), split_rows(frame, recipe(), 1)
    assert not np.array_equal(a.holdout, b.holdout)


def test_given_split_and_its_errors() -> None:
    frame = table(60, 1).with_columns(part=pl.Series(["train"] * 40 + ["holdout"] * 20))
    rule = recipe(split={"kind": "given", "column": "part"})
    (split,) = split_rows(frame, rule, 0)
    assert split.holdout.tolist() == list(range(40, 60))
    assert len(split.valid) == 8
    with pytest.raises(DataError, match=r"'test'.*Expected only 'train'"):
        split_rows(frame.with_columns(part=pl.lit("test")), rule, 0)


def test_missing_group_is_a_group_of_its_own() -> None:
    frame = table(60, 2).with_columns(g=pl.when(pl.col("g") < 6).then(None).otherwise(pl.col("g")))
    (split,) = split_rows(frame, recipe(group="g"), 0)
    assert split.groups is not None
    missing = frame["g"].is_null().to_numpy()
    assert len(np.unique(split.groups[missing])) == missing.sum()


def test_single_moment_and_single_group_are_refused() -> None:
    frame = table(60, 3)
    with pytest.raises(DataError, match="1 moment in 60 rows"):
        split_rows(frame.with_columns(t=pl.lit(date(2024, 1, 1))), recipe(time="t"), 0)
    with pytest.raises(DataError, match="leaves no"):
        split_rows(frame.with_columns(g=pl.lit(1)), recipe(group="g"), 0)


def test_grouped_folds_put_cases_of_a_rare_class_in_each_fold() -> None:
    """All cases come from 8 of 200 groups: dealt without an eye on classes, some fold nearly always goes without."""
    rng = np.random.default_rng(0)
    group = rng.permutation(np.repeat(np.arange(200), 5))
    frame = pl.DataFrame({"g": group, "y": (group < 8) & (rng.random(1000) < 0.9)})
    rule = recipe(group="g", split={"folds": 4})
    for seed in range(10):
        splits = split_rows(frame, rule, seed)
        assert sorted(np.concatenate([s.holdout for s in splits])) == list(range(1000))
        for split in splits:
            assert 0.15 < frame["y"][split.holdout].sum() / frame["y"].sum() < 0.35  # type: ignore[operator]
            assert not set(frame["g"][split.holdout]) & set(frame["g"][split.before])
            assert abs(len(split.holdout) - 250) < 60
    first, again, other = (split_rows(frame, rule, seed)[0].holdout for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_repeated_grouped_folds_are_drawn_anew() -> None:
    splits = split_rows(table(300, 0, n_groups=40), recipe(group="g", split={"folds": 3, "repeats": 2}), 0)
    assert len(splits) == 6 and not np.array_equal(splits[0].holdout, splits[3].holdout)


@pytest.mark.parametrize("n_groups", [3, 40])
def test_grouped_folds_of_few_groups_or_few_rows_a_class(n_groups: int) -> None:
    frame = pl.DataFrame(
        {"g": np.arange(80) % n_groups, "y": [f"c{i % 20}" for i in np.random.default_rng(0).permutation(80)]}
    )
    try:
        splits = split_rows(frame, recipe(task="multiclass", group="g", split={"folds": 5}), 0)
    except DataError as refused:
        assert "training row" in str(refused)
        return
    assert len(splits) == min(5, n_groups)


def test_an_unknown_kind_of_split_is_an_error_and_no_random_split() -> None:
    rule = recipe()
    for split in ({"kind": "spiral"}, {"kind": "spiral", "folds": 3}):
        broken = rule.model_copy(update={"split": rule.split.model_copy(update=split)})
        with pytest.raises(AssertionError, match="spiral"):
            split_rows(table(90, 0), broken, 0)


def outcomes_that_take_time(**more: object) -> tuple[np.ndarray, tuple[Split, ...]]:
    days = np.arange(400)
    frame = pl.DataFrame(
        {"y": ["a", "b"] * 200, "x": days, "t": [date(2024, 1, 1) + timedelta(days=int(d)) for d in days]}
    )
    return days, split_rows(frame, recipe(time="t", group=None, split={"embargo": "30d", **more}), 0)


@pytest.mark.parametrize("folds", [None, 3])
def test_rows_whose_outcome_was_not_known_at_a_cut_are_left_out(folds: int | None) -> None:
    days, splits = outcomes_that_take_time(folds=folds)
    for split in splits:
        assert days[split.holdout].min() - days[split.valid].max() == 30
        assert days[split.valid].min() - days[split.train].max() == 30
        assert "less than 30d before a cut were left out" in split.text
    if folds is None:
        assert "58 rows less than" in splits[0].text


def test_an_embargo_fits_the_time_column() -> None:
    with pytest.raises(DataError, match=r"leaves none of 300 rows before the cut"):
        outcomes_that_take_time(embargo="60w")
    with pytest.raises(UsageError, match=r"embargo = 30\.0, and time column 't' holds dates. Expected '30d'"):
        outcomes_that_take_time(embargo=30)
    for wrong, words in (("soon", "expected hours, days or weeks"), (-1, "a number above 0")):
        with pytest.raises(ValueError, match=words):
            outcomes_that_take_time(embargo=wrong)
    with pytest.raises(ValueError, match="tables with a time column"):
        recipe(time=None, split={"embargo": "30d"})
    with pytest.raises(ValueError, match="embargo is for a split in time"):
        outcomes_that_take_time(kind="random")
