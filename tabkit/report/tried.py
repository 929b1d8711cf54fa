"""How often runs on tables like this one were wrong, where the truth is known: counts shipped beside this file.

``python -m benchmarks.laboratory tally DRAWS --write`` writes them.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from tabkit.errors import count

FILE = Path(__file__).with_name("tried.json")


class Tried(BaseModel):
    """Counts over simulated tables of one kind and size.

    Attributes
    ----------
    numbers
        Whether the target is a number.
    least_rows, most_rows
        Labelled rows of the smallest and the largest table.
    adapt, wrong_adapt
        Runs that said to adapt, and those of them where the true gain is not worthwhile.
    not_paid, wrong_not_paid
        Runs that said that adapting did not pay, and those of them where the true gain is worthwhile.
    intervals, held
        Intervals of champions' scores, and those of them that hold the true score.
    """

    model_config = ConfigDict(frozen=True)

    numbers: bool
    least_rows: int
    most_rows: int
    tables: int
    adapt: int
    wrong_adapt: int
    not_paid: int
    wrong_not_paid: int
    intervals: int
    held: int

    @property
    def sentence(self) -> str:
        """The counts in words.

        >>> Tried(numbers=True, least_rows=100, most_rows=900, tables=50, adapt=4, wrong_adapt=0, not_paid=20,
        ...     wrong_not_paid=1, intervals=50, held=47).sentence
        'How often is this wrong? Of 50 simulated tables (a number, 100 to 900 rows) whose truth is known, 4 were told to adapt, 0 of them wrongly; 20 that adapting did not pay, 1 of them wrongly. 47 of 50 intervals of the champion held its true score.'
        """
        kind = "a number" if self.numbers else "classes"
        return (
            f"How often is this wrong? Of {count(self.tables, 'simulated table')} ({kind}, {self.least_rows:,} to "
            f"{self.most_rows:,} rows) whose truth is known, {self.adapt} were told to adapt, {self.wrong_adapt} of them wrongly; "
            f"{self.not_paid} that adapting did not pay, {self.wrong_not_paid} of them wrongly. {self.held} of "
            f"{self.intervals} intervals of the champion held its true score."
        )


@cache
def all_tried() -> tuple[Tried, ...]:
    """Return all counts that are shipped."""
    return tuple(Tried.model_validate(each) for each in json.loads(FILE.read_text(encoding="utf-8")))


def like(*, numbers: bool, rows: int) -> Tried | None:
    """Return the counts of the tables nearest in size; None if all of this kind are over four times as small or large."""
    near = [t for t in all_tried() if t.numbers == numbers and t.least_rows <= 4 * rows and rows <= 4 * t.most_rows]
    return min(near, key=lambda t: max(t.least_rows - rows, rows - t.most_rows, 0), default=None)
