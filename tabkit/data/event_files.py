"""Events on disk: codes and attributes as Parquet, the vocabularies that name them as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from tabkit.data.interactions import Calendar, Events, columns_of

HISTORY, ITEMS = "history.parquet", "items.parquet"


def vocabulary_json(events: Events) -> str:
    """Return the vocabularies and the end of the events as JSON."""
    return json.dumps(
        {
            "users": events.users.to_list(),
            "items": events.items.to_list(),
            "stores": events.stores.to_list(),
            "end": events.end,
            "window": events.calendar.window,
            "origin": events.calendar.origin,
            "text": list(events.text),
        }
    )


def save_events(events: Events, folder: Path) -> None:
    """Write the events' codes and the items' attributes as Parquet; the vocabularies go to :func:`vocabulary_json`."""
    events.frame().write_parquet(folder / HISTORY)
    items = events.attributes.with_columns(pl.Series("item code", range(events.n_items), dtype=pl.Int32))
    items.write_parquet(folder / ITEMS)


def load_events(folder: Path, vocabulary: str) -> Events:
    """Read what :func:`save_events` wrote."""
    names = json.loads(vocabulary)
    coded = pl.read_parquet(folder / HISTORY)
    return Events(
        *columns_of(coded),
        pl.Series(names["users"]),
        pl.Series(names["items"]),
        pl.Series(names["stores"]),
        pl.read_parquet(folder / ITEMS).drop("item code"),
        tuple(names["text"]),
        names["end"],
        Calendar(names["window"], names["origin"]),
    )
