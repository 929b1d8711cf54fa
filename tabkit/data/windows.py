"""As-of features: what was known about a user and an item when a day began, and nothing later.

:func:`features` cuts its events off before it looks at them, so no feature can reach past the day; :func:`canary`
proves it of any feature function by planting events after the day and comparing bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl

from tabkit.data.interactions import Codes, Events

HALF_LIVES = (7, 21, 60, 180)
"""Days in which the weight of a basket halves."""
STORE_DAYS = 56

FeatureFunction = Callable[[Events, int, Codes, Codes], pl.DataFrame]
"""(events, day, users, items) -> one row of features per pair."""


def features(events: Events, day: int, users: Codes, items: Codes) -> pl.DataFrame:
    """Describe pairs of user and item as of the beginning of ``day``.

    Parameters
    ----------
    events
        Any events; those of ``day`` and later are left out before anything is computed.
    users, items
        Codes (n_pairs,) each.

    Returns
    -------
    DataFrame
        (n_pairs, n_features) Float32, in the order of the pairs; null where there is nothing to tell. Ages and gaps
        in days, prices in the currency of the events.
    """
    past = events.before(day)
    frame = past.frame().with_columns(age=(day - pl.col("day")).cast(pl.Float32)).lazy()
    decay = [(-pl.col("age") / h).exp().alias(f"decay_{h}") for h in (h / np.log(2) for h in HALF_LIVES)]
    decay = [e.alias(f"decay_{h}") for e, h in zip(decay, HALF_LIVES, strict=True)]
    names = [f"decay_{h}" for h in HALF_LIVES]
    frame = frame.with_columns(decay)
    pair = frame.group_by("user", "item").agg(
        *(pl.sum(n).alias(f"own_{n}") for n in names),
        pl.len().cast(pl.Float32).alias("own_baskets"),
        pl.min("age").alias("own_last"),
        pl.max("age").alias("own_first"),
    )
    pair = pair.with_columns(
        own_gap=pl.when(pl.col("own_baskets") > 1).then(
            (pl.col("own_first") - pl.col("own_last")) / (pl.col("own_baskets") - 1)
        )
    ).with_columns(own_due=pl.col("own_last") / pl.max_horizontal(pl.col("own_gap"), 1.0))
    recent = pl.col("age") <= 28
    item = (
        frame.group_by("item")
        .agg(
            pl.len().cast(pl.Float32).alias("item_baskets"),
            recent.sum().cast(pl.Float32).alias("item_recent"),
            (pl.col("age") <= 7).sum().cast(pl.Float32).alias("item_week"),
            pl.n_unique("user").cast(pl.Float32).alias("item_users"),
            pl.max("age").alias("item_age"),
            pl.mean("price").alias("item_price"),
        )
        .with_columns(
            item_trend=(pl.col("item_recent") + 1) / (pl.col("item_baskets") * 28 / pl.col("item_age").clip(28) + 1),
            item_per_user=pl.col("item_baskets") / pl.col("item_users"),
        )
    )
    again = pair.group_by("item").agg((pl.col("own_baskets") > 1).mean().cast(pl.Float32).alias("item_again"))
    baskets = frame.group_by("user", "basket").agg(pl.first("age"), pl.len().cast(pl.Float32).alias("size"))
    user = baskets.group_by("user").agg(
        pl.len().cast(pl.Float32).alias("user_baskets"),
        recent.sum().cast(pl.Float32).alias("user_recent"),
        pl.mean("size").alias("user_size"),
        pl.min("age").alias("user_last"),
        ((pl.max("age") - pl.min("age")) / pl.len()).cast(pl.Float32).alias("user_gap"),
    )
    variety = pair.group_by("user").agg(
        pl.len().cast(pl.Float32).alias("user_items"),
        (pl.col("own_baskets") > 1).mean().cast(pl.Float32).alias("user_again"),
    )
    near = frame.filter(pl.col("age") <= STORE_DAYS)
    home = (
        frame.group_by("user", "store")
        .len()
        .sort("user", "len", "store", descending=[False, True, False])
        .group_by("user", maintain_order=True)
        .agg(pl.first("store"))
    )
    store = near.group_by("store", "item").agg(pl.len().cast(pl.Float32).alias("store_recent"))
    out = pl.DataFrame({"user": users, "item": items}).lazy()
    out = out.join(pair, on=["user", "item"], how="left", maintain_order="left")
    for table, key in ((item, "item"), (again, "item"), (user, "user"), (variety, "user"), (home, "user")):
        out = out.join(table, on=key, how="left", maintain_order="left")
    out = out.join(store, on=["store", "item"], how="left", maintain_order="left")
    for column in past.attributes.columns:
        if column not in past.text:
            out = _with_attribute(out, frame, past, column)
    counted = [*(f"own_{n}" for n in names), "own_baskets", "store_recent"]
    out = out.with_columns(pl.col(counted).fill_null(0.0))
    out = out.with_columns(share=pl.col("own_baskets") / pl.col("user_baskets"))
    return out.drop("user", "item", "store").cast(pl.Float32).collect()


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
