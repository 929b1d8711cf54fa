from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from events import coded, habits

from tabkit.data.interactions import Codes, Events
from tabkit.data.windows import canary, features


def test_the_canary_finds_nothing_in_our_features() -> None:
    events = coded(habits())
    users, items = (np.arange(40, dtype=np.int32) for _ in range(2))
    assert canary(features, events, events.end - 28, users, items) == []


def test_the_canary_catches_features_one_day_past_the_cutoff() -> None:
    def leaky(events: Events, day: int, users: Codes, items: Codes) -> pl.DataFrame:
        return features(events, day + 1, users, items)

    events = coded(habits())
    users, items = (np.arange(40, dtype=np.int32) for _ in range(2))
    found = canary(leaky, events, events.end - 28, users, items)
    assert {"own_baskets", "own_last", "item_baskets", "user_baskets", "item_price"} <= set(found)


def test_features_by_hand() -> None:
    events = coded(habits())
    day = events.end - 28
    past = events.before(day)
    user, item = int(past.user[0]), int(past.item[0])
    mine = (past.user == user) & (past.item == item)
    ages = day - past.day[mine]
    row = features(events, day, np.array([user], np.int32), np.array([item], np.int32))
    assert row["own_baskets"][0] == len(ages)
    assert row["own_last"][0] == ages.min()
    assert row["own_decay_21"][0] == pytest.approx(np.exp2(-ages / 21).sum(), rel=1e-5)
    assert row["own_gap"][0] == pytest.approx((ages.max() - ages.min()) / (len(ages) - 1), rel=1e-5)
    assert row["item_users"][0] == len(np.unique(past.user[past.item == item]))
    assert row["user_baskets"][0] == len(np.unique(past.basket[past.user == user]))
    assert row["item_recent"][0] == ((past.item == item) & (day - past.day <= 28)).sum()
    kind = item // 20
    assert row["kind_last"][0] == (day - past.day[(past.user == user) & (past.item // 20 == kind)]).min()


def test_rows_come_in_the_order_asked_for() -> None:
    events = coded(habits())
    rng = np.random.default_rng(0)
    users, items = rng.integers(60, size=200).astype(np.int32), rng.integers(80, size=200).astype(np.int32)
    order = rng.permutation(200)
    a = features(events, events.end, users, items)
    b = features(events, events.end, users[order], items[order])
    assert a[order.tolist()].equals(b, null_equal=True)
