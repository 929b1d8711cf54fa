"""How long a window a log of events bears: by its length, how often its users come, and how many could be evaluated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.data.event_table import end_of
from tabkit.data.interactions import SECONDS_A_DAY
from tabkit.errors import DataError

LENGTHS = (1 / 24, 0.125, 0.25, 0.5, 1, 2, 3, 7, 14, 28, 91, 182, 364)
"""Days that a window may have, if users do not come in a steady round: weeks as soon as it has days enough."""
USUAL = 28
LEAST_WINDOWS = 6
"""Windows in the shortest log: two of history, one to learn from, one to bridge, one to choose on, one held out."""
LEAST_USERS, ENOUGH_USERS = 10, 30
"""Users with history who must, and should, come in the window to choose on and in the one held out."""
STEADY = 0.1
"""Spread of the middle half of all gaps, as a share of their median, up to which users come in a steady round."""


@dataclass(frozen=True)
class Window:
    """The window chosen.

    Attributes
    ----------
    days
        Its length.
    base_days
        Where the bases end; None for what the recipe takes by itself.
    why
        Why this long, as comments.
    """

    days: float
    base_days: float | None
    why: tuple[str, ...]


def window_of(lines: pl.DataFrame) -> Window:
    """Choose the window of a log.

    Parameters
    ----------
    lines
        The columns user and seconds (since 1970-01-01) of every event.

    Raises
    ------
    DataError
        The log is too short, or hardly anyone comes back.
    """
    first, last = (int(v) for v in lines.select(low=pl.min("seconds"), high=pl.max("seconds")).row(0))
    span = (last - first) / SECONDS_A_DAY
    dated = bool((lines["seconds"] % SECONDS_A_DAY == 0).all())
    round_, steady = _round(lines, span)
    likely = round_ if steady else max(min(USUAL, span / 10), round_)
    allowed = [d for d in LENGTHS if d * LEAST_WINDOWS <= span and (d >= 1 or not dated)]
    if steady and round_ * LEAST_WINDOWS <= span:
        allowed = [round_, *(d for d in allowed if d > round_)]
    start = max((i for i, d in enumerate(allowed) if d <= likely), default=0)
    counts = {d: _evaluable(lines, d) for d in allowed[start:]}
    best = next((d for d, n in counts.items() if min(n) >= ENOUGH_USERS), None)
    if best is None and counts:
        best = max(counts, key=lambda d: min(counts[d]))
    if best is None or min(counts[best]) < LEAST_USERS:
        found = "" if best is None else f"; with {best:g} days, {min(counts[best])} come"
        raise DataError(
            f"The events span {span:,.1f} days, too few for lists{found}. Expected at least {LEAST_WINDOWS} windows of an hour or longer, "
            f"{LEAST_USERS} users with history in each of the last two. Give a longer log."
        )
    valid, holdout = counts[best]
    why = f"{valid:,} users with history come in the window to choose on, {holdout:,} in the one held out"
    round_text = f"users come every {round_:,.3g} days" + ("" if steady else ", by the median")
    short = span < (LEAST_WINDOWS + 1.5) * best
    return Window(best, 2 * best if short else None, (f"the log spans {span:,.1f} days; {round_text}", why))


def _round(lines: pl.DataFrame, span: float) -> tuple[float, bool]:
    """Return the median days between a user's visits, and whether nearly all gaps are alike."""
    step = SECONDS_A_DAY if span >= 28 else 3600
    visits = lines.select("user", at=pl.col("seconds") // step).unique().sort("user", "at")
    gaps = visits.select((pl.col("at") - pl.col("at").shift()).over("user").alias("gap")).drop_nulls()["gap"].to_numpy()
    if not len(gaps):
        return 0.0, False
    low, middle, high = np.quantile(gaps, [0.25, 0.5, 0.75], method="nearest") * step / SECONDS_A_DAY
    return float(middle), len(gaps) >= 20 and middle >= 1 and high - low <= STEADY * middle


def _evaluable(lines: pl.DataFrame, days: float) -> tuple[int, int]:
    """Return how many users with history come in the window to choose on, and in the one held out."""
    window = round(days * SECONDS_A_DAY)
    end = end_of(lines, "seconds", window)
    start = pl.col("seconds").min().over("user")
    out = []
    for begin in (end - 2 * window, end - window):
        there = pl.col("seconds").is_between(begin, begin + window, closed="left") & (start < begin)
        out.append(lines.filter(there)["user"].n_unique())
    return out[0], out[1]
