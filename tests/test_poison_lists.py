"""Leaks are impossible by structure: until the holdout window opens, what users take in it can change nothing.

A run on events and a run on a copy whose holdout window is poisoned (who took what is shuffled there) must agree to the
bit in everything that is made before the seal breaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events import arriving, coded, habits, shop_recipe

from tabkit.adapt import Runtime
from tabkit.adapt.lists import clock_of
from tabkit.data.interactions import WINDOW, Codes, Truth
from tabkit.evaluate.choice import Choice
from tabkit.evaluate.lists import ListScores, Prepared
from tabkit.learner import BUDGETS
from tabkit.rankers.base import ListCandidate, Lists, Ranker
from tabkit.ranking import Ranking
from tabkit.recipe import load_recipe
from tabkit.workflow.lists import ListArm, ListRun, Windows
from tabkit.workflow.options import ListOptions

DAYS = Ranking().days
"""Days of a window; the last ones of the table are the holdout."""
ITEM = ("item", "price", "kind", "maker")
"""What belongs to an item, and moves with it."""
EVERYTHING = 'rerank = ["continue", "full"]\nsequence = ["full"]'


def in_window(frame: pl.DataFrame) -> pl.Expr:
    return pl.col("day") > frame["day"].max() - pl.duration(days=DAYS)


def poisoned(frame: pl.DataFrame) -> pl.DataFrame:
    """Shuffle who took what in the holdout window; users, baskets, days and items stay those that they were."""
    rows = np.arange(frame.height)
    inside = np.flatnonzero(frame.select(in_window(frame)).to_series().to_numpy())
    rows[inside] = np.random.default_rng(5).permutation(inside)
    return frame.with_columns(frame.select(ITEM)[rows])


@dataclass(frozen=True)
class Before:
    """Everything that is there before the window opens."""

    windows: Windows
    candidates: tuple[ListCandidate, ...]
    choice: Choice
    prepared: Prepared


def read(recipe: Path, frame: pl.DataFrame) -> ListRun:
    run = ListRun(load_recipe(str(recipe)), ListOptions(budget="quick", cutoffs=2))
    run.read(frame, recipe.parent)
    return run


def made_before(run: ListRun, windows: Windows) -> Before:
    """Carry out the procedure up to the seal."""
    # A deadline would be a difference of its own.
    arm = ListArm(run, windows, Runtime(0, replace(BUDGETS["quick"], seconds=3600)))
    candidates = arm.candidates()
    choice = arm.choose(candidates)
    return Before(windows, candidates, choice, arm.prepare(choice.accepted(candidates), choice))


def equal_lists(one: Lists, other: Lists) -> bool:
    return np.array_equal(one.items, other.items) and np.array_equal(one.scores, other.scores)


def equal_scores(one: ListScores, other: ListScores) -> bool:
    """Compare lists and what they are worth; not the seconds."""
    values = (np.array_equal(v, other.per_user[m], equal_nan=True) for m, v in one.per_user.items())
    return equal_lists(one.lists, other.lists) and one.per_user.keys() == other.per_user.keys() and all(values)


def equal_truths(one: Truth, other: Truth) -> bool:
    among = (one.among is None) == (other.among is None) and (
        one.among is None or np.array_equal(one.among, other.among)
    )
    same = one.items.shape == other.items.shape and (one.items != other.items).nnz == 0
    return (
        among and same and np.array_equal(one.users, other.users) and (one.start, one.end) == (other.start, other.end)
    )


def lists_at_the_cutoff(ranker: Ranker, users: Codes) -> tuple[Lists, Lists]:
    """List what the catalogue holds, and what is new to each user."""
    return ranker.top(users, 20), ranker.top(users, 20, new_only=True)


def compare(clean: Before, other: Before) -> None:
    """Assert that nothing differs, piece by piece in the order in which it is made."""
    assert equal_truths(clean.windows.valid, other.windows.valid), "valid"
    assert [c.name for c in clean.candidates] == [c.name for c in other.candidates]
    for a, b in zip(clean.candidates, other.candidates, strict=True):
        assert equal_lists(a.valid, b.valid), f"{a.name}: lists of valid"
        assert a.adapted.settings == b.adapted.settings, f"{a.name}: settings"
        assert a.adapted.proof == b.adapted.proof, f"{a.name}: proof"
        assert repr(a.adapted.history) == repr(b.adapted.history), f"{a.name}: history"  # NaN is NaN
        assert a.adapted.notes == b.adapted.notes, f"{a.name}: notes"
    assert clean.choice == other.choice, "what valid chose"
    one, two = clean.prepared, other.prepared
    assert one.finals.keys() == two.finals.keys()
    users = np.flatnonzero(one.past.active).astype(np.int32)
    for name, final in one.finals.items():
        pairs = zip(lists_at_the_cutoff(final, users), lists_at_the_cutoff(two.finals[name], users), strict=True)
        assert all(equal_lists(*pair) for pair in pairs), f"{name}: lists at the cutoff"
        assert equal_scores(one.on_train[name], two.on_train[name]), f"{name}: lists where it was fitted"
        assert equal_scores(one.on_valid[name], two.on_valid[name]), f"{name}: lists of valid, scored"
    assert one.past.frame().equals(two.past.frame()) and one.past.end == two.past.end, "the past"
    assert one.earlier == two.earlier, "earlier cutoffs"


@pytest.mark.parametrize(
    ("more", "adapt"),
    [
        ("", EVERYTHING),
        ("new_only = true", EVERYTHING),
        ("cold_users = 0.4", ""),
        ("home_stores = [2]", 'rerank = ["continue"]'),
        ("cold_items = true", 'content = ["full"]'),
    ],
)
def test_what_is_taken_in_the_window_changes_nothing_before_it_opens(tmp_path: Path, more: str, adapt: str) -> None:
    frame, recipe = habits(), shop_recipe(tmp_path, more, adapt)
    if "cold_items" in more:
        frame = arriving(frame)
        recipe.write_text(recipe.read_text().replace('counts = ["refresh"]\nals = ["fold_in", "warm"]\n', ""))
    runs = [read(recipe, each) for each in (frame, poisoned(frame))]
    clean, other = (made_before(run, run.windows) for run in runs)
    compare(clean, other)
    assert len(clean.prepared.earlier) == 1
    # The poison is there: the sealed answers differ.
    truths = [run.windows.holdout.open()[0] for run in runs]
    assert not equal_truths(*truths)


def test_a_clock_that_knows_the_window_is_seen(tmp_path: Path) -> None:
    frame, recipe = habits(), shop_recipe(tmp_path)
    late = []
    for each in (frame, poisoned(frame)):
        run = read(recipe, each)
        clock = replace(run.clock, past=run.events, cutoff=run.clock.cutoff + DAYS)
        late.append(made_before(run, replace(run.windows, clock=clock)))
    with pytest.raises(AssertionError, match=r"lists of valid|lists at the cutoff"):
        compare(*late)


@pytest.mark.parametrize("ranking", [Ranking(), Ranking(cold_users=0.25), Ranking(store="store", home_stores=[2])])
def test_the_clock_holds_the_past_and_refuses_to_look_ahead(ranking: Ranking) -> None:
    events = coded(habits())
    clock = clock_of(events, events.end - WINDOW, ranking, seed=0)
    assert (events.day >= clock.cutoff).any()
    assert clock.past.day.max() < clock.cutoff and clock.past.end == clock.cutoff
    assert len(clock.past) == (events.day < clock.cutoff).sum()
    assert clock.at(clock.cutoff).day.max() < clock.cutoff
    assert clock.source().day.max() < clock.base_end
    for day in (clock.cutoff + 1, events.end):
        with pytest.raises(AssertionError, match="past the cutoff"):
            clock.at(day)
