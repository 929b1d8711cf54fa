"""What a ranker needs of a machine, estimated from the size of a log before anything is tried."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from tabkit.data.interactions import Events
from tabkit.learner.budget import Effort

MOST_SECONDS: dict[Effort, float] = {"quick": 240, "standard": 1_800, "thorough": 14_400}
"""CPU seconds that one ranker may take in a run, all its fits and lists together."""
MOST_GB = 3.0
"""Memory that one ranker may take beside the events, so that a run stays within 8 GB."""


@dataclass(frozen=True)
class Size:
    """The size of a log, as far as rankers' costs depend on it.

    Attributes
    ----------
    n_users, n_items, n_events
        Of the past up to the cutoff: those that have an event there.
    n_listed
        Users that lists are made for in a window.
    shared
        Pairs of a user and another one with the same item, each item counted: what comparing all users takes.
    """

    n_users: int
    n_items: int
    n_events: int
    n_listed: int
    shared: float

    @classmethod
    def of(cls, past: Events, n_listed: int) -> Self:
        """Measure a log."""
        of_item = np.bincount(past.item, minlength=past.n_items).astype(np.float64)
        return cls(int(past.active.sum()), int(past.known.sum()), len(past), n_listed, float((of_item**2).sum()))


@dataclass(frozen=True)
class Need:
    """A rough estimate of what a ranker needs: CPU seconds of a core of 2020, and gigabytes at its peak."""

    seconds: float = 0.0
    gb: float = 0.0

    def times(self, n: float) -> Need:
        """Return the need of so many fits one after another."""
        return Need(n * self.seconds, self.gb)

    def __add__(self, other: Need) -> Need:
        return Need(self.seconds + other.seconds, self.gb + other.gb)

    def too_much(self, effort: Effort) -> str:
        """Say what does not fit; empty if all does."""
        if self.gb > MOST_GB:
            return f"it would need about {self.gb:,.1f} GB of memory; a ranker may take {MOST_GB:g} GB"
        if self.seconds > MOST_SECONDS[effort]:
            return (
                f"it would take about {self.seconds / 60:,.0f} minutes of a core; at budget {effort} a ranker may take "
                f"{MOST_SECONDS[effort] / 60:,.0f}"
            )
        return ""
