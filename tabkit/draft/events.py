"""What a person would notice in a log of events: who took what and when, in which basket, and what is odd about it."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import numpy as np
import polars as pl

from tabkit.data.event_table import moments
from tabkit.draft.notice import ID_NAME, ROW_NAMES
from tabkit.draft.profile import Profile
from tabkit.errors import DataError, UsageError, count
from tabkit.recipe import LIST_COLUMNS

_NAMES = {
    "time": r"time|date|when|stamp|^ts$|^day$|_at$",
    "user": r"user|customer|client|member|household|person|patient|visitor|account|subscriber|shopper|buyer|guest|reader|player|tail_?num",
    "item": r"item|product|sku|article|movie|film|song|track|artist|book|isbn|asin|^dest|page|stock_?code|game|dish|video",
    "basket": r"basket|order|invoice|transaction|receipt|ticket|cart|session",
    "store": r"store|shop|branch|outlet",
}
QUANTITY = re.compile(r"(^|[^a-z])(qty|quantity|quantities|units?|amount|count)([^a-z]|$)", re.I)
MOST_ATTRIBUTES = 5
ALIKE = 0.98
"""Share of the items with one value of a column, from which the column says what the item is."""
ONE_VISIT_DAYS, IN_ONE_VISIT = 2, 0.95
"""So many of the baskets must be over within so many days, or the column names no basket."""
RATED_ONCE = 0.02
"""Share of lines that repeat user and item, below which an item is taken once and never again."""


@dataclass(frozen=True)
class EventRoles:
    """The columns with a role; None if it is not known, or there is none."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    basket: str | None = None
    store: str | None = None

    @property
    def taken(self) -> set[str]:
        """Columns with a role."""
        return {c for f in fields(self) if (c := getattr(self, f.name)) is not None}

    @property
    def key(self) -> list[str]:
        """User, item and time, once they are known."""
        return [str(self.user), str(self.item), str(self.time)]


@dataclass(frozen=True)
class Key:
    """A key of ``[ranking]``, and the comments above it."""

    name: str
    value: object
    comments: tuple[str, ...] = ()


def by_name(profile: Profile, given: EventRoles) -> tuple[EventRoles, dict[str, list[str]]]:
    """Return the roles that names tell beside those given, and by role the columns between which they do not tell."""
    roles: dict[str, str | None] = {f.name: getattr(given, f.name) for f in fields(given)}
    unclear: dict[str, list[str]] = {}
    for role, column in roles.items():
        if column is not None:
            continue
        taken = {c for c in roles.values() if c is not None}
        likely = [
            c for c in profile.columns if c not in taken and _may_be(profile, c, role) and _named(c, _NAMES[role])
        ]
        if role == "time":
            temporal = [c for c in profile.columns if profile.frame[c].dtype.is_temporal() and c not in taken]
            likely = temporal if len(temporal) == 1 else [c for c in temporal if c in likely] or temporal or likely
        elif len(likely) > 1:
            likely = _finest(profile.frame, likely)
        if role == "basket":
            likely = [c for c in likely if _names_visits(profile.frame, roles, c)]
        if len(likely) == 1:
            roles[role] = likely[0]
        elif likely and role in ("user", "item", "time"):
            unclear[role] = likely
    return EventRoles(**roles), unclear


def _named(column: str, pattern: str) -> bool:
    return re.search(pattern, column, re.I) is not None


def _may_be(profile: Profile, column: str, role: str) -> bool:
    """Tell whether a column's values could have a role."""
    values = profile.frame[column].drop_nulls()
    if ROW_NAMES.match(column) or values.n_unique() < 2:
        return False
    if role != "time":
        kinds = ("string", "integer", "date") if role == "item" else ("string", "integer")
        return profile.columns[column].spec.type in kinds and values.n_unique() < len(values)
    if values.dtype.is_temporal():
        return True
    if not values.dtype.is_numeric():
        return False
    try:
        moments(values)
    except DataError:
        return False
    return True


def _finest(frame: pl.DataFrame, columns: list[str]) -> list[str]:
    """Return the one column that all others follow from, an id before a name; else the only id; all if neither is."""
    fine = [c for c in columns if all(_follows(frame, c, o) for o in columns if o != c)]
    ids = [c for c in columns if ID_NAME.search(c)]
    return sorted(fine, key=lambda c: c not in ids)[:1] or (ids if len(ids) == 1 else columns)


def _follows(frame: pl.DataFrame, key: str, column: str) -> bool:
    """Tell whether nearly every value of ``key`` has one value of ``column``."""
    each = frame.select(key, column).drop_nulls().group_by(key).agg(pl.n_unique(column).alias("n of it"))["n of it"]
    return len(each) > 0 and float((each == 1).mean() or 0) >= ALIKE  # type: ignore[arg-type]


def _names_visits(frame: pl.DataFrame, roles: dict[str, str | None], column: str) -> bool:
    """Tell whether a user's lines of one basket lie close in time."""
    user, time = roles["user"], roles["time"]
    if user is None or time is None:
        return False
    lines = frame.select(user, column, time).drop_nulls()
    at = moments(lines[time])[0] / 86_400
    spans = lines.with_columns(at.alias("at ")).group_by(user, column).agg(s=pl.max("at ") - pl.min("at "))["s"]
    return len(spans) > 0 and float((spans <= ONE_VISIT_DAYS).mean() or 0) >= IN_ONE_VISIT  # type: ignore[arg-type]


def roles_of(profile: Profile, given: EventRoles) -> EventRoles:
    """Return user, item and time, and basket and store if they are told.

    Raises
    ------
    UsageError
        It cannot be told which column is which; the message names the candidates and the options.
    """
    roles, unclear = by_name(profile, given)
    missing = [role for role in ("user", "item", "time") if getattr(roles, role) is None]
    if missing:
        parts = []
        for role in missing:
            open_ = unclear.get(role) or [
                c for c in profile.columns if c not in roles.taken and _may_be(profile, c, role)
            ]
            shown = ", ".join(map(repr, open_[:8])) or "none looks like it"
            parts.append(f"--{role} COLUMN (candidates: {shown})")
        known = ", ".join(f"--{f.name} '{c}'" for f in fields(roles) if (c := getattr(roles, f.name)) is not None)
        raise UsageError(
            f"{profile.source.name}: it cannot be told which column is the {' and which the '.join(missing)}. Add {' and '.join(parts)}."
            + (f" Found by themselves: {known}." if known else "")
        )
    for role in ("user", "item"):
        if (column := getattr(roles, role)) in LIST_COLUMNS:
            raise UsageError(
                f"--{role} '{column}' is a column that scoring writes itself; rename the column in the file."
            )
    return roles


def stray_ends(seconds: np.ndarray) -> tuple[int, int]:
    """Return how many events lie far before all others, and how many far after.

    Few are up to one in a thousand; far is further than all others span.
    """
    times = np.sort(seconds)
    few = max(1, len(times) // 1000)
    if len(times) < 10 * few:
        return 0, 0
    gaps = np.diff(times)
    span = times[-few - 1] - times[few]
    before = int(np.argmax(gaps[:few])) + 1 if gaps[:few].max() > span else 0
    after = few - int(np.argmax(gaps[-few:])) if gaps[-few:].max() > span else 0
    return before, after


def attributes_of(frame: pl.DataFrame, profile: Profile, roles: EventRoles) -> list[str]:
    """Return the columns that say what an item is, the finest first: nearly every item has one value of it."""
    item = str(roles.item)
    often = frame.filter(pl.len().over(item) > 1)
    n_items = often[item].n_unique()
    found = {}
    for name, column in profile.columns.items():
        if name in roles.taken or column.spec.type not in ("string", "integer") or ROW_NAMES.match(name):
            continue
        n_values = often[name].drop_nulls().n_unique()
        if 2 <= n_values <= n_items / 2 and _follows(often, item, name):
            found[name] = n_values
    return sorted(found, key=lambda c: -found[c])


def keys_of(lines: pl.DataFrame, profile: Profile, roles: EventRoles) -> list[Key]:
    """Return the keys of ``[ranking]`` that say what the columns are, with what was noticed about each."""
    out = []
    if roles.basket is not None:
        shared = _restarting(lines, roles)
        again = f"numbers come back for other users ({shared:.0%} of them): a basket is a user's, so nothing is mixed"
        out.append(Key("basket", roles.basket, (again,) if shared else ()))
    if roles.store is not None:
        out.append(Key("store", roles.store))
    numeric = [c for c in profile.columns if lines[c].dtype.is_numeric() and c not in roles.taken]
    if prices := [c for c in numeric if re.search("price", c, re.I)]:
        out.append(Key("price", prices[0]))
    for column in [c for c in numeric if QUANTITY.search(c)][:1]:
        if n := int((lines[column] <= 0).sum()):
            why = (
                f"{count(n, 'line')} of {lines.height:,} with {column} not above 0, as returns have: they are left out"
            )
            out.append(Key("quantity", column, (why,)))
    found = attributes_of(lines, profile, roles)
    if found:
        more = (
            [f"also, but left out for speed: {', '.join(found[MOST_ATTRIBUTES:])}"] if found[MOST_ATTRIBUTES:] else []
        )
        why = "what an item is: nearly every item has one value of each; the finest comes first"
        out.append(Key("attributes", found[:MOST_ATTRIBUTES], (why, *more)))
    repeats = 1 - lines.select(roles.key[:2]).n_unique() / lines.select(roles.key).n_unique()
    if repeats < RATED_ONCE:
        why = f"{repeats:.1%} of the events take what the user has taken before: lists leave that out"
        out.append(Key("new_only", True, (why,)))
    return out


def _restarting(lines: pl.DataFrame, roles: EventRoles) -> float:
    """Return the share of basket numbers that several users have."""
    assert roles.basket is not None
    users = lines.drop_nulls([roles.basket]).group_by(roles.basket).agg(pl.n_unique(str(roles.user)).alias("n users"))
    return float((users["n users"] > 1).mean() or 0)  # type: ignore[arg-type]


def oddities(frame: pl.DataFrame, roles: EventRoles) -> list[str]:
    """Return what is odd about the lines as they are, before any is left out."""
    notes = []
    for column in roles.key:
        if n := frame[column].null_count():
            notes.append(f"{count(n, 'line')} of {frame.height:,} without '{column}' cannot be used and are left out")
    if copies := frame.height - frame.n_unique():
        notes.append(
            f"{count(copies, 'copy', 'copies')} of other lines, as in a repeated export: each line counts once"
        )
    elif roles.basket is None and (n := frame.height - frame.select(roles.key).n_unique()):
        notes.append(f"{count(n, 'copy', 'copies')} of the user, item and time of another line: each counts once")
    return notes
