"""The sections of the page, each made by one function, in the order in which a reader needs them.

To add one: write its function in a file of this folder, and put it into ``SECTIONS``. A function returns None if its
result has nothing to show for it.
"""

from __future__ import annotations

from collections.abc import Callable

from tabkit.report.pieces import Section
from tabkit.report.reading import Reading
from tabkit.report.sections import facts, gain, lists, scores, tables

SECTIONS: tuple[Callable[[Reading], Section | None], ...] = (
    gain.gain,
    scores.candidates,
    scores.gaps,
    scores.learning,
    lists.lists,
    tables.look,
    tables.importance,
    scores.others,
    scores.slices,
    tables.money,
    facts.checks,
    facts.cost,
    facts.proof,
    facts.data,
    facts.glossary,
)
