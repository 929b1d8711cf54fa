"""The rows that ``tabkit new`` looks at, typed as it infers them, and the columns with a role."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from tabkit.data.conform import conform
from tabkit.data.encodings import EncodingError, chosen
from tabkit.data.frames import values_of
from tabkit.data.source import DataLike, Input, open_input
from tabkit.draft.columns import ColumnProfile, infer
from tabkit.errors import DataError, UsageError, count
from tabkit.schema import Dialect, Schema

MOST_ROWS = 200_000
"""Rows looked at: enough to see a table's ways, whatever its size."""


@dataclass
class Profile:
    """The rows looked at, typed, and how they were found."""

    source: Input
    columns: dict[str, ColumnProfile]
    frame: pl.DataFrame
    n_rows: int
    whole: bool
    dialect: Dialect
    remarks: list[str]


@dataclass(frozen=True)
class Roles:
    """The columns with a role."""

    target: str
    id: str | None
    time: str | None
    group: str | None
    weight: str | None = None

    @property
    def taken(self) -> set[str]:
        """Columns that are no plain features."""
        return {c for c in (self.target, self.id, self.time, self.group, self.weight) if c is not None}


@dataclass(frozen=True)
class Opened:
    """The table to look at, what the schema must state of it, and what to say: in which encodings else it could be."""

    source: Input
    dialect: Dialect
    remarks: tuple[str, ...] = ()


def open_table(data: DataLike, encoding: str | None = None) -> Opened:
    """Open the table, and find the encoding of text that is not UTF-8.

    Raises
    ------
    EncodingError
        The file is not UTF-8, and could be in encodings of several scripts, or in none.
    """
    try:
        stated = Dialect(encoding=encoding)
    except ValueError:
        raise UsageError(f"--encoding '{encoding}' is none that Python knows. Common are utf-8 and cp1252.") from None
    try:
        return Opened(open_input(data, stated), stated)
    except EncodingError as problem:
        if (reading := chosen(problem.readings)) is None:
            raise
        remark = f"the file is not UTF-8: read as {reading.shown}, and so stated in the schema"
        if others := [r.shown for r in problem.readings if r is not reading]:
            remark += f"; it could also be {', '.join(others)}"
        stated = Dialect(encoding=reading.encoding)
        remark += "; if its letters look wrong, state another by --encoding"
        return Opened(open_input(data, stated), stated, (remark,))


def profile_of(opened: Opened, name: str, target: str | None, taken: set[str], most: int = MOST_ROWS) -> Profile:
    """Read up to ``most`` rows, infer every column, and type the rows as the schema written will.

    Parameters
    ----------
    target
        The column to predict; None for events, which have none.
    taken
        Columns with a role.
    """
    source, dialect, remarks = opened.source, opened.dialect, list(opened.remarks)
    batches, n_rows, n_malformed, whole = [], 0, 0, True
    for batch in source.batches(50_000):
        if n_rows >= most:
            whole = False
            break
        batches.append(batch)
        n_rows += batch.frame.height
        n_malformed += batch.malformed.height
    raw = pl.concat([batch.frame for batch in batches], how="vertical_relaxed")[:most]
    if raw.height == 0:
        raise DataError(f"{source.name} has no rows to learn from. Expected a header and rows.")
    for column, dtype in raw.schema.items():
        if _readable(dtype):
            continue
        if column in taken:
            raise DataError(f"Column '{column}' holds {dtype}, and has a role. Expected text, numbers, truth or dates.")
        remarks.append(f"{column}: holds {dtype}, which is not read: left out of the schema")
    raw = raw[[c for c, dtype in raw.schema.items() if _readable(dtype)]]
    columns = {c: infer(raw[c], source.delimiter, is_target=c == target) for c in raw.columns}
    batch = replace(batches[0], frame=raw, rows=np.arange(raw.height))
    typed = conform(batch, _schema(name, columns), raw.columns, target)
    assert typed.rejects.is_empty(), f"the types inferred refuse their own cells: {typed.rejects.row(0)}"
    if n_malformed:
        remarks.append(
            f"{count(n_malformed, 'row')} could not be cut into cells or repeated the header: a run rejects them, and says why"
        )
    if source.delimiter not in (",", "\t"):
        dialect = dialect.model_copy(update={"delimiter": source.delimiter})
        remarks.append(f"cells are separated by {source.delimiter!r}")
    if not whole or n_rows > most:
        whole = False
        remarks.append(f"only the first {raw.height:,} rows were looked at; later ones may hold what these do not")
    n_values = 2 if target is None else values_of(typed.frame, target).drop_nulls().n_unique()
    if n_values < 2:
        what = "has no value in any row" if n_values == 0 else "is the same in every row"
        raise DataError(
            f"Target '{target}' {what} of {source.name}: nothing can be learned. Expected two or more values."
        )
    return Profile(source, columns, typed.frame, raw.height, whole, dialect, remarks)


def _readable(dtype: pl.DataType) -> bool:
    simple = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime, pl.Null)
    return simple or dtype.is_numeric()


def _schema(name: str, columns: dict[str, ColumnProfile]) -> Schema:
    fields = {c: column.spec.model_copy(update={"missing": list(column.missing)}) for c, column in columns.items()}
    return Schema(name=name, fields=fields)
