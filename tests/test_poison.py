"""No way from the holdout into a choice: whatever its rows hold, all that is made before it opens stays bit-equal.

The rows held out are poisoned, in their features or in their labels, and everything is made again: the encoder, every
candidate, the choice on valid, the learning curve, the ablations, the shuffled control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, signal_table, write_recipe

from tabkit.adapt.candidates import open_weights, wanted
from tabkit.adapt.runtime import silent
from tabkit.data.split import Split, split_rows
from tabkit.evaluate.choice import Choice
from tabkit.evaluate.tables import Controls
from tabkit.learner import BUDGETS
from tabkit.models import icl
from tabkit.models.base import TableCandidate
from tabkit.recipe import load_recipe
from tabkit.workflow.options import TableOptions, terms_of
from tabkit.workflow.procedure import Procedure, TableArm
from tabkit.workflow.reading import read_rows

N_ROWS = 240
BUDGET = replace(BUDGETS["quick"], trials=2, epochs=2, trees=20)
RECIPE = BINARY + (
    "[candidates]\nwithout = ['catboost']\n[candidates.adapt]\nlgbm = ['continue']\ntabnet = ['full']\nicl = ['head']\n"
    "[source]\n[[ablations]]\nname = 'without x0'\ndrop = ['x0']\n[split]\nkind = 'given'\n"
)
SPLITS = {"one": "column = 'part'\n", "folds": "column = 'fold'\nfolds = 'given'\n"}
PLACES = [("one", 0), ("folds", 0), ("folds", 2)]
"""A split, and the number of the fold that is looked at."""


def table() -> pl.DataFrame:
    part = ["train"] * 110 + ["valid"] * 60 + ["holdout"] * 70
    columns = {"part": part, "fold": (np.arange(N_ROWS) % 3 + 1).tolist(), "still": [1.0] * N_ROWS}
    frame = signal_table(N_ROWS).with_columns(**{name: pl.Series(values) for name, values in columns.items()})
    return frame.with_columns(x2=pl.when(pl.int_range(N_ROWS) % 7 > 0).then("x2"))


def other_features(frame: pl.DataFrame) -> pl.DataFrame:
    """Numbers far from all others, a category that nothing else has, values where none were and none where they were."""
    far = {f"x{i}": 1e6 * pl.col(f"x{i}") + 77.0 for i in (0, 3, 4)}
    nothing, something = pl.lit(None, dtype=pl.Float64), pl.col("x2").fill_null(-1e9)
    return frame.with_columns(**far, x1=nothing, x2=something, still=pl.lit(2.0), kind=pl.lit("poison"))


def flipped_labels(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(y=pl.when(pl.col("y") == "yes").then(pl.lit("no")).otherwise(pl.lit("yes")))


Poison = Callable[[pl.DataFrame], pl.DataFrame]
POISONS: dict[str, Poison] = {"features": other_features, "labels": flipped_labels}


@dataclass(frozen=True)
class Made:
    """All that is made on a split before its holdout is opened."""

    arm: TableArm
    split: Split
    candidates: tuple[TableCandidate, ...]
    choice: Choice
    controls: Controls


Make = Callable[..., Made]


@pytest.fixture(scope="module", autouse=True)
def small_effort() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(icl.EFFORTS, "quick", icl.Effort(1, 100, 1, 1, 64))
        yield


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make everything of a fold of a split: on clean rows, or with the very rows that it holds out poisoned."""
    folder = tmp_path_factory.mktemp("poison")

    @cache
    def on(name: str, fold: int, poison: str | None = None) -> Made:
        if poison is None:
            return made(folder, table(), name, fold)
        split = on(name, fold).split  # the split is fixed: it is the rows' contents that are other ones
        return made(folder, with_poison(table(), split.holdout, POISONS[poison]), name, fold, split)

    return on


def with_poison(frame: pl.DataFrame, rows: np.ndarray, poison: Poison) -> pl.DataFrame:
    held = pl.Series(np.isin(np.arange(N_ROWS), rows))
    bad = poison(frame)
    mixed = frame.select(pl.when(held).then(bad[c]).otherwise(pl.col(c)).alias(c) for c in frame.columns)
    assert not mixed.equals(frame) and mixed.filter(~held).equals(frame.filter(~held))
    return mixed


def made(folder: Path, frame: pl.DataFrame, name: str, fold: int, split: Split | None = None) -> Made:
    plan = load_recipe(str(write_recipe(folder, frame, RECIPE + SPLITS[name], name=name)))
    rows = read_rows(plan, frame, source=table()[:200].with_columns(signal_table(200, seed=1)))
    todo = wanted(plan.recipe, True)
    opened = open_weights(todo, {}, plan.recipe.task)
    terms = terms_of(plan, TableOptions(budget="quick"), BUDGET)
    split = split or split_rows(rows.labelled.frame, plan.recipe, 0)[fold]
    arm = Procedure(plan, rows, todo, opened, terms, BUDGET, blends=True).on(split, silent)
    candidates = arm.candidates()
    choice = arm.choose(candidates)
    return Made(arm, split, candidates, choice, arm.prepare(choice.accepted(candidates), choice))


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize(("name", "fold"), PLACES)
def test_nothing_that_is_made_or_chosen_knows_the_holdout(make: Make, name: str, fold: int, poison: str) -> None:
    clean, other = make(name, fold), make(name, fold, poison)
    assert clean.arm.encoder.to_json() == other.arm.encoder.to_json()

    assert len(clean.candidates) >= 12, "this guards too little"
    for one, two in zip(clean.candidates, other.candidates, strict=True):
        same_candidate(one, two)

    assert clean.choice.chosen.adapted is not None and not clean.choice.refused
    assert clean.choice == other.choice

    before, after = clean.controls, other.controls
    assert bool(before.curve) == (fold == 0)
    for (rows, one), (again, two) in zip(before.curve, after.curve, strict=True):
        assert rows == again and one.keys() == two.keys()
        for rival in one:
            np.testing.assert_array_equal(one[rival], two[rival], err_msg=rival)
    (ablated, without, dropped), (_, also_without, also_dropped) = *before.ablations, *after.ablations
    same_candidate(without, also_without)
    assert ablated == "without x0" and dropped == also_dropped == ("x0",)
    assert before.shuffled
    for a_try, again in zip(before.shuffled, after.shuffled, strict=True):
        np.testing.assert_array_equal(a_try, again)


def same_candidate(one: TableCandidate, two: TableCandidate) -> None:
    assert one.name == two.name
    np.testing.assert_array_equal(one.train, two.train, err_msg=one.name)
    np.testing.assert_array_equal(one.valid, two.valid, err_msg=one.name)
    for fact in ("proof", "settings", "history", "notes"):
        assert getattr(one.adapted, fact) == getattr(two.adapted, fact), (one.name, fact)


@pytest.mark.parametrize("poison", POISONS)
def test_the_poison_would_be_seen(make: Make, poison: str) -> None:
    """Once opened, the holdout is another one: what is equal before is not equal for want of poison."""
    scores = []
    for found in (make("one", 0), make("one", 0, poison)):
        opened = sealed(found).open(found.controls)
        linear = next(c for c in found.candidates if c.name == "linear")
        scores.append(opened.measure(linear).parts["holdout"]["roc_auc"].value)
    assert abs(scores[0] - scores[1]) > 0.1


def sealed(found: Made) -> TableArm:
    """Return the procedure on the same split with its seal whole; what was made is shared by tests."""
    return found.arm.procedure.on(found.split, silent)


def test_a_seal_breaks_once(make: Make) -> None:
    found = make("one", 0)
    arm = sealed(found)
    arm.open(found.controls)
    with pytest.raises(RuntimeError, match="opened twice"):
        arm.open(found.controls)
