"""Frames in memory: polars, pandas and pyarrow come in as polars, and results go out as the kind that came in.

Nothing here imports pandas or pyarrow: narwhals recognises their frames without them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import narwhals as nw
import polars as pl
from narwhals.dependencies import is_pandas_dataframe, is_pyarrow_table

from tabkit.errors import DataError, UsageError

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrameT

NAME = "the frame given"
"""What messages call a frame."""


def to_polars(data: Any) -> pl.DataFrame:
    """Return a frame of polars, pandas or pyarrow as a polars one.

    A pandas index that has a name becomes a column, since it may be the id or the time. One without a name is dropped
    if it holds whole numbers: they number rows, also after filtering or shuffling.

    Raises
    ------
    UsageError
        Not an eager frame of these libraries, or a pandas index of other values without a name.
    DataError
        Two columns of one name, a name that is not text, or a column of mixed types.
    """
    if isinstance(data, pl.DataFrame):
        return data
    if is_pandas_dataframe(data):
        data = _with_index(data)
        names = list(data.columns)
    elif is_pyarrow_table(data):
        names = list(data.column_names)
    else:
        hint = " Call .collect() on it first." if isinstance(data, pl.LazyFrame) else ""
        raise UsageError(
            f"Data of type {type(data).__name__} is not read. Expected a path, or a frame in memory: a polars or pandas "
            f"DataFrame, or a pyarrow Table.{hint}"
        )
    for name, times in Counter(names).items():
        if not isinstance(name, str):
            raise DataError(
                f"{NAME} has a column named {name!r}, which is not text. Expected names of text; rename it."
            )
        if times > 1:
            raise DataError(f"{NAME} has the column {name!r} more than once. Expected every name once; rename one.")
    frame = nw.from_native(data, eager_only=True)
    return pl.DataFrame([_column(frame[name]) for name in names])


def _with_index(data: Any) -> Any:
    """Return a pandas frame with the named levels of its index as columns."""
    index = data.index
    if index.nlevels == 1 and index.name is None and index.dtype.kind in "iu":
        return data
    if None in index.names:
        raise UsageError(
            f"{NAME} has an index of {index.dtype} without a name, which would be lost. Give it one (.rename_axis('id')) "
            "to make it a column, or drop it (.reset_index(drop=True))."
        )
    clashes = [name for name in index.names if name in data.columns]
    if clashes:
        raise UsageError(
            f"{NAME} has an index and a column that are both named {clashes[0]!r}. Rename one, or drop the index "
            "(.reset_index(drop=True))."
        )
    return data.reset_index()


def _column(values: nw.Series[Any]) -> pl.Series:
    try:
        return values.to_polars()
    except (ValueError, TypeError, NotImplementedError) as problem:  # what pyarrow's errors are
        raise DataError(
            f"Column '{values.name}' of {NAME} cannot be read ({str(problem).splitlines()[0]}). Expected values of one "
            "type; convert them, for instance to text."
        ) from None


def values_of(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column without its name, which is data: to Polars, even in a series' methods, * and ^x.*$ are patterns."""
    return frame[name].alias("")


@overload
def as_given(frame: pl.DataFrame, like: str | Path) -> pl.DataFrame: ...
@overload
def as_given(frame: pl.DataFrame, like: IntoDataFrameT) -> IntoDataFrameT: ...
def as_given(frame: pl.DataFrame, like: object) -> object:
    """Return ``frame`` as the kind of frame that ``like`` is: pandas, pyarrow, or polars for anything else."""
    if is_pandas_dataframe(like):
        return frame.to_pandas()
    return frame.to_arrow() if is_pyarrow_table(like) else frame
