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
    tables.money,
    tables.look,
    lists.lists,
    facts.checks,
    scores.candidates,
    scores.gaps,
    tables.importance,
    scores.slices,
    scores.others,
    scores.learning,
    facts.cost,
    facts.proof,
    facts.data,
    facts.glossary,
)
