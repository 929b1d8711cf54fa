"""Event tables whose right answer is known."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from tabkit.data.event_table import Names, events_of
from tabkit.data.interactions import Events

NAMES = Names("user", "item", "day", "basket", "store", "price", ("kind", "maker"))


def habits(n_users: int = 60, n_items: int = 80, days: int = 300, seed: int = 0) -> pl.DataFrame:
    """Each user buys a few items of his own again and again, and now and then one of his group's."""
    rng = np.random.default_rng(seed)
    rows = []
    basket = 0
    for user in range(n_users):
        group = user % 4
        own = rng.choice(np.arange(group * 20, group * 20 + 20) % n_items, 5, replace=False)
        for day in range(int(rng.integers(5)), days, int(rng.integers(5, 9))):
            basket += 1
            for item in {*rng.choice(own, 3), int(rng.integers(group * 20, group * 20 + 20)) % n_items}:
                rows.append(
                    (f"u{user:03d}", int(item), date(2020, 1, 1) + timedelta(day), basket, group, 1.0 + item / 10)
                )
    frame = pl.DataFrame(rows, schema=["user", "item", "day", "basket", "store", "price"], orient="row")
    return frame.with_columns(kind=pl.format("kind {}", pl.col("item") // 20), maker=pl.col("item") % 7)


def arriving(frame: pl.DataFrame) -> pl.DataFrame:
    """One item in four is replaced by a successor of the same kind and maker every 28 days."""
    age = (pl.col("day") - pl.col("day").min()).dt.total_days() // 28
    return frame.with_columns(item=pl.when(pl.col("item") % 4 == 1).then(pl.col("item") + 100 * age).otherwise("item"))


def coded(frame: pl.DataFrame) -> Events:
    """Return a table of :func:`habits` as events."""
    return events_of(frame, NAMES)


def checkerboard(n: int = 40) -> Events:
    """User u took every item of his parity but the one that is u itself: that one must come first."""
    rows = [(u, i) for u in range(n) for i in range(n) if u % 2 == i % 2 and u != i]
    frame = pl.DataFrame(rows, schema=["user", "item"], orient="row")
    frame = frame.with_columns(day=pl.lit(date(2020, 1, 1)), basket=pl.int_range(pl.len()))
    return events_of(frame, Names("user", "item", "day", "basket"))


RECIPE = """
name = "shop/next"
title = "Next items"
schema = "event"
task = "ranking"
target = "item"
id = "user"
time = "day"

[ranking]
basket = "basket"
store = "store"
price = "price"
attributes = ["kind", "maker"]
length = 7
margin = 0.2
currency = "EUR"
{more}

[metrics]
primary = "ndcg@10"
report = ["recall@20", "new_recall@20"]

[candidates]
without = ["bpr"]
[candidates.adapt]
counts = ["refresh"]
als = ["fold_in", "warm"]
{adapt}
"""
SCHEMA = "name = 'event'\n" + "".join(
    f"[fields.{name}]\ntype = '{kind}'\nconstraints = {{ required = true }}\n"
    for name, kind in (
        ("user", "string"),
        ("item", "integer"),
        ("day", "date"),
        ("basket", "integer"),
        ("store", "integer"),
        ("price", "number"),
        ("kind", "string"),
        ("maker", "integer"),
    )
)


def shop_recipe(folder: Path, more: str = "", adapt: str = "") -> Path:
    """Write schema and recipe of the events of :func:`habits`, with more lines under [ranking] and [candidates.adapt]."""
    recipe = folder / "domains" / "shop" / "next.toml"
    for path, text in (
        (recipe, RECIPE.format(more=more, adapt=adapt)),
        (folder / "data_schemas" / "event.toml", SCHEMA),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return recipe
