"""How much may be spent on one candidate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tabkit.errors import UsageError, nearest

Device = Literal["auto", "cpu", "cuda"]
Effort = Literal["quick", "standard", "thorough"]
"""How hard a learner tries in its own terms: by this, models and rankers look up what they try."""


@dataclass(frozen=True)
class Budget:
    """How much may be spent on one candidate. It bounds the search, never the honesty.

    ``trials``, ``epochs`` and ``trees`` decide in practice, so that a seed gives the same model everywhere.
    ``seconds`` is the ceiling that keeps a promise of time on a slow machine; a candidate that hits it says so.
    ``effort`` is for what only one learner counts (factors, neighbours, windows): each has a table of its own by it.
    ``resamples`` stand behind every interval; of a window of events, ``listed`` users at most are listed for; the learning curve is measured at ``curve_shares`` of the train rows.
    """

    level: str
    effort: Effort
    seconds: float
    trials: int
    epochs: int
    trees: int
    resamples: int
    curve_shares: tuple[float, ...]
    listed: int = 20_000
    device: Device = "auto"
    progress: Callable[[float, str], None] = field(default=lambda fraction, note: None, repr=False, compare=False)

    def deadline(self) -> float:
        """Return the moment, on ``time.monotonic``'s clock, after which no new step is begun."""
        return time.monotonic() + self.seconds


BUDGETS: dict[str, Budget] = {
    "quick": Budget("quick", "quick", seconds=20, trials=15, epochs=24, trees=500, resamples=1000, curve_shares=(0.5,)),
    "standard": Budget(
        "standard",
        "standard",
        seconds=120,
        trials=50,
        epochs=150,
        trees=2000,
        resamples=2000,
        curve_shares=(0.125, 0.25, 0.5),
        listed=50_000,
    ),
    "thorough": Budget(
        "thorough",
        "thorough",
        seconds=600,
        trials=200,
        epochs=400,
        trees=5000,
        resamples=5000,
        curve_shares=(0.0625, 0.125, 0.25, 0.5),
        listed=100_000,
    ),
}
"""The levels, least first: all that a level decides is here."""


def budget_of(level: str, device: Device = "auto") -> Budget:
    """Return the budget of a level, to be spent on a device.

    Raises
    ------
    UsageError
        There is no such level.
    """
    if level not in BUDGETS:
        raise UsageError(f"Unknown budget '{level}'.{nearest(level, BUDGETS)}")
    return replace(BUDGETS[level], device=device)


def n_threads() -> int:
    """Return how many threads a library may use: ``OMP_NUM_THREADS`` if it is set, else the cores, at most 8."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2" is for nested regions
    return min(8, int(stated) if stated.isdecimal() and int(stated) else os.cpu_count() or 1)
