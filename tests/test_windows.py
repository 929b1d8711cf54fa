from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from events import NAMES, coded, habits

from tabkit.data.event_table import events_of
from tabkit.data.interactions import Codes, Events
from tabkit.data.windows import KIN_DECAY, KIN_PRIOR, FeatureFunction, Kin, canary, features, kin_features


@pytest.mark.parametrize("function", [features, kin_features])
def test_the_canary_finds_nothing_in_our_features(function: FeatureFunction) -> None:
    events = coded(habits())
    users, items = (np.arange(40, dtype=np.int32) for _ in range(2))
    assert canary(function, events, events.end - 28, users, items) == []


@pytest.mark.parametrize(
    ("function", "leaks"),
    [
        (features, {"own_baskets", "own_last", "item_baskets", "user_baskets", "item_price"}),
        (kin_features, {"kind baskets", "kind + maker share", "maker item_demand", "user baskets"}),
    ],
)
def test_the_canary_catches_features_one_day_past_the_cutoff(function: FeatureFunction, leaks: set[str]) -> None:
    def leaky(events: Events, day: int, users: Codes, items: Codes) -> pl.DataFrame:
        return function(events, day + 1, users, items)

    events = coded(habits())
    users, items = (np.arange(40, dtype=np.int32) for _ in range(2))
    assert leaks <= set(canary(leaky, events, events.end - 28, users, items))


def test_kin_by_hand() -> None:
    events = coded(habits())
    day = events.end - 28
    past = events.before(day)
    kin = Kin(events, day)
    x = dict(zip(kin.names, kin.describe(np.array([7], np.int32), np.array([33], np.int32))[0, 0], strict=True))
    of_kind, of_maker = past.item // 20 == 1, past.item % 7 == 33 % 7
    mine = past.user == 7
    assert x["kind baskets"] == (mine & of_kind).sum()
    assert x["kind + maker baskets"] == (mine & of_kind & of_maker).sum()
    assert x["maker share"] == pytest.approx((mine & of_maker).sum() / (of_maker.sum() + KIN_PRIOR), rel=1e-6)
    assert x["kind items"] == len(np.unique(past.item[of_kind]))
    assert x["user baskets"] == len(np.unique(past.basket[mine]))
    assert x["kind decayed"] == pytest.approx(np.exp2(-(day - past.day[mine & of_kind]) / KIN_DECAY).sum(), rel=1e-5)


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


def test_a_column_can_be_a_kind_and_a_text() -> None:
    events = events_of(habits(), replace(NAMES, text=("kind",)))
    assert events.attributes.columns == ["kind", "maker", "kind as text"] and events.text == ("kind as text",)
    plain = coded(habits())
    assert Kin(events, events.end).names == Kin(plain, plain.end).names


def test_rows_come_in_the_order_asked_for() -> None:
    events = coded(habits())
    rng = np.random.default_rng(0)
    users, items = rng.integers(60, size=200).astype(np.int32), rng.integers(80, size=200).astype(np.int32)
    order = rng.permutation(200)
    a = features(events, events.end, users, items)
    b = features(events, events.end, users[order], items[order])
    assert a[order.tolist()].equals(b, null_equal=True)
