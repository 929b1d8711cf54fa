"""A table of events, read: which moment its times are, what counts as one event, and the codes that rows become."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.data.interactions import SECONDS_A_DAY, WINDOW, Calendar, Events, codes_of, columns_of
from tabkit.data.marks import Sketch
from tabkit.errors import DataError
from tabkit.recipe import Plan


@dataclass(frozen=True)
class Names:
    """The roles of the columns of an event table."""

    user: str
    item: str
    time: str
    basket: str | None = None
    store: str | None = None
    price: str | None = None
    attributes: tuple[str, ...] = ()
    text: tuple[str, ...] = ()


def names_of(plan: Plan) -> Names:
    """Return the roles of the columns of a recipe's events."""
    recipe, ranking = plan.recipe, plan.recipe.ranking
    assert recipe.id is not None and recipe.time is not None and ranking is not None
    return Names(
        recipe.id,
        recipe.target,
        recipe.time,
        ranking.basket,
        ranking.store,
        ranking.price,
        tuple(ranking.attributes),
        tuple(ranking.text),
    )


def moments(times: pl.Series) -> tuple[pl.Series, str]:
    """Return seconds since 1970-01-01, and what whole numbers were taken for; nothing is said of dates and times.

    Raises
    ------
    DataError
        Numbers that can be no time of events.
    """
    if times.dtype.is_temporal():
        return times.cast(pl.Datetime("us")).dt.epoch("s"), ""
    latest = times.cast(pl.Float64).max()
    assert isinstance(latest, float)
    for unit, (least, per_second) in _UNITS.items():
        if latest >= least and (unit != "days" or latest <= _MOST_DAYS):
            note = "" if unit == "seconds" else f"Times are taken for {unit} since 1970-01-01."
            seconds = (
                times.cast(pl.Float64) / per_second if times.dtype.is_float() or per_second < 1 else times // per_second
            )
            return seconds.cast(pl.Float64).floor().cast(pl.Int64), note
    raise DataError(
        f"Column '{times.name}' holds numbers up to {latest:,.0f}, which are neither seconds nor days since 1970-01-01. Expected "
        "a date, a time, or such a number; give the column its type in the schema."
    )


_UNITS: dict[str, tuple[float, float]] = {
    "nanoseconds": (1e17, 1e9),
    "microseconds": (1e14, 1e6),
    "milliseconds": (1e11, 1e3),
    "seconds": (1e8, 1.0),
    "days": (-1e5, 1 / SECONDS_A_DAY),
}
"""By unit: the least number that is taken for it, and how many there are in a second."""
_MOST_DAYS = 1e5


def end_of(frame: pl.DataFrame, time: str, window: int) -> int:
    """Return the midnight after the last event, in seconds since 1970-01-01; the full hour, or minute, if a window is shorter.

    Parameters
    ----------
    window
        Seconds in a window.

    Raises
    ------
    DataError
        There is no event, or its time is none.
    """
    times = frame[time].drop_nulls()
    if not len(times):
        raise DataError(f"No row has a {time}. Expected events.")
    last = moments(times)[0].max()
    assert isinstance(last, int)
    step = next((s for s in (SECONDS_A_DAY, 3600, 60) if s <= window), 1)
    return (last // step + 1) * step


def stray(frame: pl.DataFrame, time: str) -> str:
    """Say which few events lie far after all others: one line of 2099 would move every window. Empty if none do.

    Few are up to one in a thousand; far is further than all other events span.
    """
    seconds = np.sort(moments(frame[time].drop_nulls())[0].to_numpy())
    few = max(1, len(seconds) // 1000)
    if len(seconds) < 10 * few:
        return ""
    gaps = np.diff(seconds[-few - 1 :])
    at = len(seconds) - few + int(np.argmax(gaps))
    if gaps.max() <= seconds[at - 1] - seconds[0]:
        return ""
    last, lone = (str(np.datetime64(int(s), "s").astype("datetime64[D]")) for s in (seconds[at - 1], seconds[at]))
    n = len(seconds) - at
    return f"{n:,} of {len(seconds):,} events lie{'s' if n == 1 else ''} far after all others: on {lone}, and the others end on {last}"


def like_quantity(column: str) -> bool:
    """Tell whether a column is called like a quantity."""
    return _QUANTITY.search(column) is not None


def returned(frame: pl.DataFrame) -> list[str]:
    """Return the columns that look like quantities and have values below 0: returns."""
    numeric = [c for c in frame.columns if frame[c].dtype.is_numeric() and like_quantity(c)]
    return [c for c in numeric if bool((frame[c] < 0).any())]


_QUANTITY = re.compile(r"(^|[^a-z])(qty|quantity|quantities|units?|amount|count)([^a-z]|$)", re.I)


def sketch_of(frame: pl.DataFrame, names: Names, users: pl.Series, first: float, end: float) -> Sketch:
    """Return what the events of some users from ``first`` to before ``end`` (seconds) are recognised by."""
    lines = frame.select(names.user, names.item, moments(frame[names.time])[0].alias("second"))
    own = pl.col(names.user).cast(pl.String).is_in(users.cast(pl.String).implode())
    held = lines.filter(pl.col("second").is_between(first, end, closed="left") & own)
    return Sketch.of_cells(held.get_columns())


def events_of(frame: pl.DataFrame, names: Names, calendar: Calendar | None = None) -> Events:
    """Turn an event table into codes.

    Parameters
    ----------
    frame
        One row per purchase, rating or view; the columns of ``names``. A time that is a number is read by
        :func:`moments`. Rows without user, item or time are dropped.
    calendar
        What a day is; a calendar's own if None.

    Raises
    ------
    DataError
        No row has all three.
    """
    frame = frame.drop_nulls([names.user, names.item, names.time])
    if not frame.height:
        raise DataError(f"No row has a {names.user}, a {names.item} and a {names.time}. Expected events.")
    calendar = calendar or Calendar()
    if names.basket is None:  # the same user, item and moment twice is one event, exported twice
        frame = frame.unique([names.user, names.item, names.time], keep="first", maintain_order=True)
    # Vocabularies are text or whole numbers, which JSON keeps as they are.
    named = [c for c in (names.user, names.item, names.store) if c and not frame[c].dtype.is_integer()]
    frame = frame.with_columns(frame[c].cast(pl.String) for c in named)
    day = ((moments(frame[names.time])[0] - calendar.origin) * WINDOW // calendar.window).cast(pl.Int32)
    end = calendar.day_at(end_of(frame, names.time, calendar.window) - 1) + 1
    basket = _baskets(frame, names)
    store = frame[names.store] if names.store else pl.Series("store", [""]).new_from_index(0, frame.height)
    price = (
        frame[names.price].cast(pl.Float32)
        if names.price
        else pl.Series([None], dtype=pl.Float32).new_from_index(0, frame.height)
    )
    users, items, stores = (s.unique().drop_nulls().sort() for s in (frame[names.user], frame[names.item], store))
    coded = pl.DataFrame(
        {
            "user": codes_of(frame[names.user], users),
            "item": codes_of(frame[names.item], items),
            "basket": basket,
            "day": day,
            "store": codes_of(store, stores).fill_null(-1),
            "price": price,
        }
    )
    # A basket that spans midnight counts once, on its first day.
    coded = coded.group_by("user", "item", "basket").agg(pl.min("day"), pl.first("store"), pl.mean("price"))
    coded = coded.sort("day", "user", "basket", "item")
    attributes, texts = _attributes(frame, names)
    return Events(*columns_of(coded), users, items, stores, attributes, texts, end, calendar)


def _baskets(frame: pl.DataFrame, names: Names) -> pl.Series:
    """Code baskets (n_rows,), each of one user; a line without one is a basket of its own."""
    own = pl.int_range(frame.height, dtype=pl.Int32, eager=True)
    if names.basket is None:
        return own
    # Order numbers may restart per user: the same number of another user is another basket.
    user, basket = (frame[column].rank("dense").cast(pl.Int64) for column in (names.user, names.basket))
    known = (user * frame.height + basket).rank("dense").cast(pl.Int32) - 1
    return known.fill_null(own + known.n_unique())


def _attributes(frame: pl.DataFrame, names: Names) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return what is said of each item, one row per item ascending, and which of its columns are text to be read."""
    # A column may be both a kind and a text to be read: as text it has a name of its own.
    texts = {f"{t} as text": pl.col(t).cast(pl.String) for t in names.text}
    attributes = frame.select(names.item, *names.attributes, **texts).unique(names.item, keep="first")
    return attributes.sort(names.item).drop(names.item), tuple(texts)
