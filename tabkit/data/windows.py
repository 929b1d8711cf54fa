"""As-of features: what was known about a user and an item when a day began, and nothing later.

:func:`features` cuts its events off before it looks at them, so no feature can reach past the day; :func:`canary`
proves it of any feature function by planting events after the day and comparing bit by bit. :class:`Kin` does the
same for items that nobody has taken yet, which can only be told by the items like them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from tabkit.data.interactions import Codes, Events

HALF_LIVES = (7, 21, 60, 180)
"""Days in which the weight of a basket halves."""
STORE_DAYS = 56

FeatureFunction = Callable[[Events, int, Codes, Codes], pl.DataFrame]
"""(events, day, users, items) -> one row of features per pair."""


def features(events: Events, day: int, users: Codes, items: Codes) -> pl.DataFrame:
    """Describe pairs of user and item as of the beginning of ``day``: see :meth:`AsOf.describe`.

    Parameters
    ----------
    events
        Any events; those of ``day`` and later are left out before anything is computed.
    """
    return AsOf(events, day).describe(users, items)


class AsOf:
    """What was known when a day began.

    What there is to say of items and stores takes all events, and is found once; what there is to say of users takes
    theirs alone, and is found for those who are asked about.
    """

    def __init__(self, events: Events, day: int) -> None:
        self.past, self.day = events.before(day), day
        self._tables: tuple[pl.DataFrame, pl.DataFrame] | None = None

    def describe(self, users: Codes, items: Codes) -> pl.DataFrame:
        """Describe pairs of user and item.

        Parameters
        ----------
        users, items
            Codes (n_pairs,) each.

        Returns
        -------
        DataFrame
            (n_pairs, n_features) Float32, in the order of the pairs; null if there is nothing to tell. Ages and gaps
            in days, prices in the currency of the events.
        """
        past = self.past.of(np.unique(users))
        frame = self._aged(past)
        pair = _of_pairs(frame)
        home = (
            frame.group_by("user", "store")
            .len()
            .sort("user", "len", "store", descending=[False, True, False])
            .group_by("user", maintain_order=True)
            .agg(pl.first("store"))
        )
        of_item, of_store = (table.lazy() for table in self.tables)
        out = pl.DataFrame({"user": users, "item": items}).lazy()
        for table, key in (
            (pair, ["user", "item"]),
            (of_item, ["item"]),
            (_of_users(frame, pair), ["user"]),
            (home, ["user"]),
            (of_store, ["store", "item"]),
        ):
            out = out.join(table, on=key, how="left", maintain_order="left")
        for column in past.attributes.columns:
            if column not in past.text:
                out = _with_attribute(out, frame, past, column)
        sums = [*(f"own_decay_{h}" for h in HALF_LIVES), "own_baskets", "store_recent"]
        out = out.with_columns(pl.col(sums).fill_null(0.0))
        out = out.with_columns(share=pl.col("own_baskets") / pl.col("user_baskets"))
        return out.drop("user", "item", "store").cast(pl.Float32).collect()

    @property
    def tables(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What is said of items, and of items in stores."""
        if self._tables is None:
            frame = self._aged(self.past)
            near = frame.filter(pl.col("age") <= STORE_DAYS)
            store = near.group_by("store", "item").agg(pl.len().cast(pl.Float32).alias("store_recent"))
            self._tables = _of_items(frame, _of_pairs(frame)).collect(), store.collect()
        return self._tables

    def _aged(self, past: Events) -> pl.LazyFrame:
        ages = past.frame().lazy().with_columns(age=(self.day - pl.col("day")).cast(pl.Float32))
        return ages.with_columns((-pl.col("age") / (h / np.log(2))).exp().alias(f"decay_{h}") for h in HALF_LIVES)

    def save(self, folder: Path) -> None:
        """Write what is said of items and stores."""
        for name, table in zip(_FILES, self.tables, strict=True):
            table.write_parquet(folder / name)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self | None:
        """Read what :meth:`save` wrote at the end of these events; None if nothing was."""
        if not (folder / _FILES[0]).is_file():
            return None
        made = cls(past, past.end)
        made._tables = pl.read_parquet(folder / _FILES[0]), pl.read_parquet(folder / _FILES[1])
        return made


_FILES = ("items_as_of.parquet", "stores_as_of.parquet")
_RECENT = pl.col("age") <= 28


def _of_pairs(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Describe what a user took of an item: how often, how lately, and whether it is due again."""
    pair = frame.group_by("user", "item").agg(
        *(pl.sum(f"decay_{h}").alias(f"own_decay_{h}") for h in HALF_LIVES),
        pl.len().cast(pl.Float32).alias("own_baskets"),
        pl.min("age").alias("own_last"),
        pl.max("age").alias("own_first"),
    )
    return pair.with_columns(
        own_gap=pl.when(pl.col("own_baskets") > 1).then(
            (pl.col("own_first") - pl.col("own_last")) / (pl.col("own_baskets") - 1)
        )
    ).with_columns(own_due=pl.col("own_last") / pl.max_horizontal(pl.col("own_gap"), 1.0))


def _of_items(frame: pl.LazyFrame, pair: pl.LazyFrame) -> pl.LazyFrame:
    """Describe the demand for an item, its trend, and whether those who took it come back."""
    item = frame.group_by("item").agg(
        pl.len().cast(pl.Float32).alias("item_baskets"),
        _RECENT.sum().cast(pl.Float32).alias("item_recent"),
        (pl.col("age") <= 7).sum().cast(pl.Float32).alias("item_week"),
        pl.n_unique("user").cast(pl.Float32).alias("item_users"),
        pl.max("age").alias("item_age"),
        pl.mean("price").alias("item_price"),
    )
    item = item.with_columns(
        item_trend=(pl.col("item_recent") + 1) / (pl.col("item_baskets") * 28 / pl.col("item_age").clip(28) + 1),
        item_per_user=pl.col("item_baskets") / pl.col("item_users"),
    )
    again = pair.group_by("item").agg((pl.col("own_baskets") > 1).mean().cast(pl.Float32).alias("item_again"))
    return item.join(again, on="item", how="left")


def _of_users(frame: pl.LazyFrame, pair: pl.LazyFrame) -> pl.LazyFrame:
    """Describe a user's baskets, and how varied they are."""
    baskets = frame.group_by("user", "basket").agg(pl.first("age"), pl.len().cast(pl.Float32).alias("size"))
    user = baskets.group_by("user").agg(
        pl.len().cast(pl.Float32).alias("user_baskets"),
        _RECENT.sum().cast(pl.Float32).alias("user_recent"),
        pl.mean("size").alias("user_size"),
        pl.min("age").alias("user_last"),
        ((pl.max("age") - pl.min("age")) / pl.len()).cast(pl.Float32).alias("user_gap"),
    )
    variety = pair.group_by("user").agg(
        pl.len().cast(pl.Float32).alias("user_items"),
        (pl.col("own_baskets") > 1).mean().cast(pl.Float32).alias("user_again"),
    )
    return user.join(variety, on="user", how="left")


def _with_attribute(out: pl.LazyFrame, frame: pl.LazyFrame, past: Events, column: str) -> pl.LazyFrame:
    """Add the user's affinity for the item's value of an attribute: decayed baskets, share, and age of the last."""
    codes = past.attributes[column].rank("dense").cast(pl.Int32)
    table = pl.DataFrame({"item": np.arange(past.n_items, dtype=np.int32), "value": codes}).lazy()
    by = (
        frame.join(table, on="item")
        .group_by("user", "value")
        .agg(pl.sum("decay_60").alias(f"{column}_decay"), pl.min("age").alias(f"{column}_last"))
    )
    out = out.join(table, on="item", how="left", maintain_order="left")
    out = out.join(by, on=["user", "value"], how="left", maintain_order="left")
    return out.with_columns(pl.col(f"{column}_decay").fill_null(0.0)).drop("value")


KIN_DECAY = 60
"""Days in which the weight of a basket halves, beside counting all alike."""
KIN_PRIOR = 50.0
"""Baskets added to those of a kind before a user's share of them is taken: one of two is not half the demand."""
_OF_KIND = ("baskets", "decayed", "share", "decayed_share", "per_basket", "per_item", "item_demand", "items")


@dataclass(frozen=True)
class _Kind:
    """Kinds by one attribute: the kind of each item; baskets by user and kind; baskets and known items by kind."""

    of_item: Codes
    counted: sparse.csr_matrix
    decayed: sparse.csr_matrix
    total: npt.NDArray[np.float64]
    recent: npt.NDArray[np.float64]
    known: npt.NDArray[np.int64]


class Kin:
    """What users took of the kinds that an item belongs to, as of the beginning of a day.

    A kind is a value of an attribute, or of the first attribute and another (soft drinks of that maker). What tells
    most of an item that nobody has taken yet is the user's *share* of the baskets of its kind, not their number:
    everyone buys milk.
    """

    def __init__(self, events: Events, day: int) -> None:
        past = events.before(day)
        weights = (np.ones(len(past)), np.exp2(-(day - past.day) / KIN_DECAY))
        self.names: list[str] = []
        self._kinds: list[_Kind] = []
        for name, of_item in _kinds(past).items():
            n_kinds = int(of_item.max()) + 1
            shape = (past.n_users, n_kinds)
            place = (past.user, of_item[past.item])
            counted, decayed = (sparse.coo_matrix((w, place), shape=shape).tocsr() for w in weights)
            totals = [np.asarray(own.sum(axis=0)).ravel() for own in (counted, decayed)]
            known = np.bincount(of_item[past.known], minlength=n_kinds)
            self._kinds.append(_Kind(of_item, counted, decayed, totals[0], totals[1], known))
            self.names += [f"{name} {feature}" for feature in _OF_KIND]
        # Distinct baskets, so that it is a user's activity and not the length of his receipts.
        self._baskets = past.baskets.astype(np.float64)
        self.names.append("user baskets")

    def describe(self, users: Codes, items: Codes) -> npt.NDArray[np.float32]:
        """Describe every pair of users and items: (n_users, n_items, n_features) float32."""
        out = np.empty((len(users), len(items), len(self.names)), np.float32)
        active = np.maximum(self._baskets[users], 1.0)[:, None]
        at = 0
        for each in self._kinds:
            kind = each.of_item[items]
            mine, late = (own[users][:, kind].toarray() for own in (each.counted, each.decayed))
            known, recent = each.known[kind], each.recent[kind]
            per_item = np.maximum(1, known)
            for feature in (
                mine,
                late,
                mine / (each.total[kind] + KIN_PRIOR),
                late / (recent + KIN_PRIOR),
                mine / active,
                late / per_item,
                recent / per_item,
                known,
            ):
                out[:, :, at] = feature
                at += 1
        out[:, :, at] = active
        return out

    def shares(self, users: Codes, items: Codes) -> npt.NDArray[np.float32]:
        """Return the user's share of the baskets of an item's kinds, summed over them (n_users, n_items)."""
        out = np.zeros((len(users), len(items)))
        for each in self._kinds:
            kind = each.of_item[items]
            out += each.counted[users][:, kind].toarray() / (each.total[kind] + KIN_PRIOR)
        return out.astype(np.float32)


def _kinds(past: Events) -> dict[str, Codes]:
    """Return the kind of every item (n_items,), by attribute and by the first attribute with each other one."""
    single = {
        c: past.attributes[c].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        for c in past.attributes.columns
        if c not in past.text
    }
    if not single:
        return {}
    (first, of_first), *others = single.items()
    pairs = {f"{first} + {c}": of_first * (int(k.max()) + 1) + k for c, k in others}
    return {name: np.unique(k, return_inverse=True)[1].astype(np.int32) for name, k in (single | pairs).items()}


def kin_features(events: Events, day: int, users: Codes, items: Codes) -> pl.DataFrame:
    """Describe pairs by :class:`Kin`, one by one, as the canary asks for them."""
    kin = Kin(events, day)
    rows = [kin.describe(users[i : i + 1], items[i : i + 1])[0, 0] for i in range(len(users))]
    return pl.DataFrame(np.stack(rows), schema=kin.names)


def canary(function: FeatureFunction, events: Events, day: int, users: Codes, items: Codes) -> list[str]:
    """Return the features of ``function`` that change when events of ``day`` itself are planted: leaks.

    Every pair asked for is bought once more on ``day``, in a basket of its own, at an absurd price.
    """
    n = len(users)
    basket = np.arange(n, dtype=np.int32) + (int(events.basket.max()) + 1 if len(events) else 0)
    planted = replace(
        events,
        user=users,
        item=items,
        basket=basket,
        day=np.full(n, day, np.int32),
        store=np.zeros(n, np.int32),
        price=np.full(n, 1e6, np.float32),
        end=day + 1,
    )
    clean = events.before(day)
    before, after = (function(e, day, users, items) for e in (clean, clean.extended(planted)))
    return [c for c in before.columns if not before[c].equals(after[c], null_equal=True)]
