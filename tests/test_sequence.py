"""The sequence network: what it reads, what it learns where the answer is known, and which part each strategy trains."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from events import coded, habits

from tabkit.data.event_table import Names, events_of
from tabkit.data.interactions import Events, Truth, join_events, truth_of
from tabkit.errors import DataError
from tabkit.evaluate.intervals import Resampler, paired
from tabkit.evaluate.metrics import METRICS
from tabkit.evaluate.ranking import compare_lists
from tabkit.learner import BUDGETS
from tabkit.rankers.base import Ranker
from tabkit.rankers.counts import Counts
from tabkit.rankers.parts.histories import Baskets, Histories
from tabkit.rankers.sequence import Sequence

QUICK = BUDGETS["quick"]


def logged(rows: list[tuple[int, int, int]]) -> Events:
    """Return (user, item, day) as events."""
    frame = pl.DataFrame(rows, schema=["user", "item", "n"], orient="row")
    frame = frame.with_columns(day=pl.col("n").map_elements(lambda n: date(2020, 1, 1) + timedelta(n), pl.Date))
    return events_of(frame, Names("user", "item", "day", None))


def ndcg(ranker: Ranker, truth: Truth) -> np.ndarray:
    return compare_lists(ranker.top(truth.users, 10), truth).ndcg(10)


def trained(events: Events, windows: int = 1, seed: int = 0) -> Sequence:
    return Sequence.pretrain(events.before(events.end - 28 * windows), np.random.default_rng(seed), QUICK)


def last(events: Events) -> tuple[Events, Truth]:
    return events.before(events.end - 28), truth_of(events, events.end - 28, events.end)


@pytest.fixture(scope="module")
def events() -> Events:
    return coded(habits())


@pytest.fixture(scope="module")
def base(events: Events) -> Sequence:
    return trained(events, 3)


def test_strict_alternation_is_learned() -> None:
    # Each user takes one of two items of his own in each window, in turn: what comes is what he did not take last.
    log = logged([(u, (u % 5) * 2 + (k + u) % 2, 28 * k + 13) for u in range(60) for k in range(12)])
    log = replace(log, end=int(log.day.min()) - 13 + 28 * 12)
    past, truth = last(log)
    assert ndcg(trained(log).looking_at(past), truth).mean() >= 0.99
    assert ndcg(Counts(90)._count(past), truth).mean() < 0.75


def test_noise_is_never_told_better_than_popularity() -> None:
    rng = np.random.default_rng(0)
    log = logged([(int(u), int(i), int(n)) for u, i, n in rng.integers((60, 40, 252), size=(3000, 3), dtype=int)])
    past, truth = last(log)
    resampler, none = Resampler(len(truth.users), None, 1000, 0), np.zeros(len(truth.users))
    rankers = (trained(log).looking_at(past), Counts(None, False, None)._count(past))
    ours, theirs = (resampler.score(METRICS["ndcg@10"], none, ndcg(ranker, truth)) for ranker in rankers)
    assert paired(METRICS["ndcg@10"], ours, theirs)[0].low < 0


def test_a_history_holds_nothing_of_its_day(events: Events, base: Sequence) -> None:
    day = events.end - 60
    users = np.arange(events.n_users, dtype=np.int32)
    row_of = base.row_of(events.n_items)
    clean, whole = (Histories.of(e, day, users, Baskets.of(e, row_of)) for e in (events.before(day), events))
    for name in ("age", "start", "item", "own", "popular"):
        np.testing.assert_array_equal(getattr(clean, name), getattr(whole, name), err_msg=name)
    # Baskets stand at other positions, with the same days.
    before, after = (Baskets.of(e, row_of).day for e in (events.before(day), events))
    np.testing.assert_array_equal(before[clean.basket][clean.basket >= 0], after[whole.basket][whole.basket >= 0])
    assert (after[whole.basket][whole.basket >= 0] < day).all()


@pytest.mark.parametrize(
    ("how", "idle"), [("as_is", {"items", "body", "head"}), ("head", {"items", "body"}), ("full", set())]
)
def test_each_strategy_trains_what_it_says(events: Events, base: Sequence, how: str, idle: set[str]) -> None:
    past, _ = last(events)
    before = {name: tensor.clone() for name, tensor in base.net.state_dict().items()}
    settings = {"epochs": [1], "alpha": 1.0, "augment": False}
    adapted = base.adapt(past, None, how, np.random.default_rng(0), QUICK, settings)
    made = adapted.model
    assert isinstance(made, Sequence)
    after = made.net.state_dict()
    assert {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])} == {
        "items",
        "body",
        "head",
    } - idle
    assert {b.name for b in adapted.proof.blocks if not b.trained} == idle
    # The base is what it was.
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.net.state_dict().items())


def test_the_untouched_base_is_epoch_0_and_a_useless_valid_returns_it(events: Events, base: Sequence) -> None:
    past, truth = last(events)
    adapted = base.adapt(past, lambda ranker: 0.5, "head", np.random.default_rng(0), QUICK)
    assert adapted.history[0].stage == "untouched base" and adapted.settings["alpha"] == 0.0
    np.testing.assert_array_equal(adapted.model.scores(truth.users), base.looking_at(past).scores(truth.users))


def test_new_users_and_items_need_no_fit(events: Events, base: Sequence, tmp_path: Path) -> None:
    late = events.take(events.user < 50).before(events.end - 84)
    more = habits(seed=1).with_columns(
        user=pl.format("new {}", pl.col("user")), item=pl.col("item") + 40, day=pl.col("day") + pl.duration(days=400)
    )
    joined = join_events(late, coded(more))
    ranker = base.looking_at(late).recoded(joined).looking_at(joined.events.before(joined.events.end - 28))
    truth = truth_of(joined.events, joined.events.end - 28, joined.events.end)
    assert not np.isin(truth.users, joined.users).all()
    assert ndcg(ranker, truth).mean() > ndcg(Counts(None, False)._count(ranker.past), truth).mean() + 0.1


def test_a_source_too_short_is_refused(events: Events) -> None:
    with pytest.raises(DataError, match="Expected at least 56 days"):
        trained(events.before(int(events.day.min()) + 70))


def test_new_only_learns_from_what_is_new() -> None:
    past, truth = last(coded(habits(days=140)))
    ranker = Sequence.pretrain(past, np.random.default_rng(0), QUICK, new_only=True)
    lists = ranker.top(truth.users, 3, new_only=True).items
    group, kind = truth.users[:, None] % 4, past.items.to_numpy()[lists] // 20
    # A quarter of all items is of the user's group; less of those that are new to him.
    assert (kind == group).mean() > 0.6


def test_more_of_everything_is_estimated_to_take_more() -> None:
    small = Sequence.estimate(2_500, 65_000, 1_300_000, "quick")
    assert all(a < b for a, b in zip(small, Sequence.estimate(200_000, 65_000, 10_000_000, "quick"), strict=True))
