"""What a section of the report is made of: figures, tables, terms; the template knows how each of them looks.

All text is escaped, unless it is ``Markup``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """A cell that is more than its text: a second, smaller line; CSS; how many columns and rows it spans."""

    text: str
    small: str = ""
    css: str | None = None
    columns: int = 1
    rows: int = 1
    style: str | None = None

    @property
    def attributes(self) -> dict[str, object]:
        """Its attributes in HTML; None for those that it does not need."""
        spans = {"colspan": self.columns, "rowspan": self.rows}
        return {"class": self.css, "style": self.style} | {key: n for key, n in spans.items() if n > 1}


def stacked(text: str) -> Cell:
    """Return a value over its interval: half as wide as beside it."""
    value, bracket, limits = text.partition(" [")
    return Cell(value, f"[{limits}" if bracket else "", "num")


@dataclass(frozen=True)
class Row:
    """A row: its header (None if the header above spans this row too), then its cells."""

    header: Cell | str | None
    cells: tuple[Cell | str, ...]
    champion: bool = False


@dataclass(frozen=True)
class Group:
    """Rows that belong together, under a title if it has one."""

    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table that scrolls sideways on a narrow screen; ``label`` names it for those who cannot see it."""

    kind: ClassVar[str] = "table"
    label: str
    columns: tuple[Cell | str, ...]
    groups: tuple[Group, ...]
    caption: str = ""
    css: str = ""

    @classmethod
    def of(
        cls, label: str, columns: Iterable[Cell | str], rows: Iterable[Row], caption: str = "", css: str = ""
    ) -> Table:
        """Return a table of ungrouped rows."""
        return cls(label, tuple(columns), (Group(tuple(rows)),), caption, css)


@dataclass(frozen=True)
class Figure:
    """A picture and the table of what it shows.

    ``title`` and ``desc`` tell it to a reader who cannot see the picture; ``legend`` holds (class of the swatch, text);
    ``note`` is a sentence under the picture.
    """

    kind: ClassVar[str] = "figure"
    title: str
    desc: str
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    legend: tuple[tuple[str, str], ...] = ()
    note: str = ""

    @property
    def table(self) -> Table:
        """Its data table."""
        return Table.of(self.title, self.columns, (Row(row[0], row[1:]) for row in self.rows))


@dataclass(frozen=True)
class Grid:
    """Small figures beside each other."""

    kind: ClassVar[str] = "grid"
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Terms:
    """Terms and what is said of each; ``prose`` for sentences rather than numbers."""

    kind: ClassVar[str] = "terms"
    items: tuple[tuple[str, str], ...]
    css: str = "terms"
    prose: bool = False


@dataclass(frozen=True)
class Details:
    """Pieces that show only if someone asks for them."""

    kind: ClassVar[str] = "details"
    summary: str
    pieces: tuple[Piece, ...]


Piece = Figure | Grid | Table | Terms | Details | Markup
"""``Markup`` is for what a single section needs."""


@dataclass(frozen=True)
class Section:
    """A section of the page: its anchor, its name in the contents, a heading, one sentence, and what it shows in order."""

    id: str
    label: str
    title: str
    sentence: str
    pieces: tuple[Piece, ...] = ()
