"""From a log of events to its recipe: roles, window, and what was noticed, as comments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl
import tomlkit

from tabkit.data.event_table import moments
from tabkit.draft.events import EventRoles, Key, keys_of, oddities, roles_of, stray_ends
from tabkit.draft.profile import Profile
from tabkit.draft.rhythm import Window, window_of
from tabkit.draft.write import DEFAULT_METRICS, comment, section
from tabkit.errors import count

MOST_EVENTS = 20_000_000
"""Lines looked at: the length of a log is not seen in a part of it."""
WORTHWHILE = 0.002


@dataclass(frozen=True)
class Log:
    """What is known of a log of events.

    Attributes
    ----------
    where
        The lines in scope, as SQL; None for all.
    """

    roles: EventRoles
    keys: tuple[Key, ...]
    window: Window
    where: str | None
    remarks: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was noticed, for the terminal."""
        found = {"user": self.roles.user, "item": self.roles.item, "time": self.roles.time}
        shown = "; ".join(f"the {role} is '{column}'" for role, column in found.items())
        keys = [f"{key.name} = {key.value!r}" + "".join(f": {text}" for text in key.comments) for key in self.keys]
        return (shown, *self.remarks, *keys, f"windows of {self.window.days:g} days: {'; '.join(self.window.why)}")


def log_of(profile: Profile, given: EventRoles) -> Log:
    """Find the roles, what is odd, and the window of a log.

    Raises
    ------
    UsageError, DataError
        The columns cannot be told, or the log is too short.
    """
    roles = roles_of(profile, given)
    user, _, time = roles.key
    remarks = oddities(profile.frame, roles)
    lines = profile.frame.drop_nulls(roles.key)
    seconds, unit = moments(lines[time])
    if unit:
        remarks.append(unit.rstrip(".").replace("Times are", f"'{time}' is"))
    where, stray = _where(lines[time], seconds.to_numpy(), time)
    remarks += stray
    inside = pl.Series(np.ones(lines.height, bool)) if where is None else _kept(seconds.to_numpy())
    lines, seconds = lines.filter(inside), seconds.filter(inside)
    keys = keys_of(lines, profile, roles)
    for key in keys:
        if key.name == "quantity":  # as the run will leave them out
            taken = (lines[str(key.value)] > 0).fill_null(True)
            lines, seconds = lines.filter(taken), seconds.filter(taken)
    window = window_of(pl.DataFrame({"user": lines[user], "seconds": seconds}))
    return Log(roles, tuple(keys), window, where, tuple(remarks))


def _kept(seconds: np.ndarray) -> pl.Series:
    before, after = stray_ends(seconds)
    times = np.sort(seconds)
    return pl.Series((seconds >= times[before]) & (seconds <= times[len(times) - 1 - after]))


def _where(times: pl.Series, seconds: np.ndarray, time: str) -> tuple[str | None, list[str]]:
    """Return the condition that leaves out the few lines far before or after all others, and what to say of them."""
    before, after = stray_ends(seconds)
    if not before and not after:
        return None, []
    kept, column = times.filter(_kept(seconds)), '"' + time.replace('"', '""') + '"'
    low, high = kept.min(), kept.max()
    if isinstance(low, date) and isinstance(high, date):
        below, above = f">= DATE '{low:%Y-%m-%d}'", f"< DATE '{high + timedelta(days=1):%Y-%m-%d}'"
    else:
        below, above = f">= {low!s}", f"<= {high!s}"
    limits = [f"{column} {limit}" for limit, n in ((below, before), (above, after)) if n]
    lone = times.filter(~_kept(seconds)).sort()
    n = before + after
    text = f"{count(n, 'line')} {'lies' if n == 1 else 'lie'} far from all others ({lone[0]}{f' to {lone[-1]}' if n > 1 else ''}): left out by where"
    return " AND ".join(limits), [text]


def list_recipe_text(log: Log, name: str) -> str:
    """Return the recipe."""
    short, roles = name.split("/")[1], log.roles
    head = tomlkit.document()
    comment(head, f"What to do with {short}: written by `tabkit new`, yours to edit. `tabkit show` explains it.")
    head.update({"name": name, "title": short.replace("_", " ").capitalize()})
    head.update({"question": f"Which {roles.item} will each {roles.user} take next?", "schema": short})
    head.update({"task": "ranking", "target": roles.item, "id": roles.user, "time": roles.time})
    comment(head, *log.remarks)
    if log.where is not None:
        head["where"] = log.where
    parts = [head.as_string()]
    ranking = tomlkit.table()
    for key in (*log.keys, *_window_keys(log.window)):
        comment(ranking, *key.comments)
        ranking[key.name] = key.value
    parts.append(tomlkit.document().append("ranking", ranking).as_string())
    new_only = any(key.name == "new_only" for key in log.keys)
    primary, report = DEFAULT_METRICS["ranking"]
    metrics = {
        "primary": primary,
        "report": report if new_only else [*report, "new_recall@20"],
        "worthwhile": WORTHWHILE,
    }
    why = "The gain that would change what you do; an adapted ranker must prove at least this much."
    parts.append(section(("metrics",), metrics, (why,)))
    adapt = {"counts": ["refresh"], "als": ["fold_in", "warm"], "rerank": ["continue", "full"]}
    if new_only:
        del adapt["counts"]
    parts.append(section(("candidates", "adapt"), adapt))
    return "\n".join(parts)


def _window_keys(window: Window) -> list[Key]:
    days = int(window.days) if window.days == int(window.days) else window.days
    out = [Key("days", days, window.why)]
    if window.base_days is not None:
        out.append(Key("base_days", window.base_days, ("as short as can be, for the log is",)))
    return out
