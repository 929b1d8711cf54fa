"""Frames in memory: each kind is read as the file of the same rows is, and results come back as what was given."""

from __future__ import annotations

import subprocess
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from test_validate import plan

from tabkit.data.frames import as_given, to_polars
from tabkit.data.source import DataLike, open_input
from tabkit.data.validate import read_table
from tabkit.errors import DataError, UsageError
from tabkit.schema import Dialect

ROWS: dict[str, list[Any]] = {
    "y": ["yes", "no", "yes"],
    "n": [1, None, 3],
    "x": [1.5, None, -2000.0],
    "flag": [True, None, False],
    "day": [date(2024, 1, 31), None, date(2024, 2, 1)],
    "code": ["A1", "A2", "A3"],
    "kind": ["a", None, "b"],
    "later": [0.0, 1.0, 2.0],
}
FRAME = pl.DataFrame(ROWS)


def pandas_frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS)


def pandas_of_its_own_types() -> pd.DataFrame:
    types = {"n": "Int64", "flag": "boolean", "kind": "category", "day": "datetime64[ns]"}
    return pandas_frame().astype(types)


def arrow_table() -> pa.Table:
    table = pa.table(ROWS)
    return table.set_column(6, "kind", table["kind"].dictionary_encode())


KINDS = {
    "polars": FRAME.with_columns(pl.col("kind").cast(pl.Categorical)),
    "pandas": pandas_frame(),
    "pandas types": pandas_of_its_own_types(),
    "filtered pandas": pd.concat([pandas_frame(), pandas_frame()]).iloc[3:].sample(frac=1, random_state=0),
    "pyarrow": arrow_table(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_read_as_its_file_is(kind: str, tmp_path: Path) -> None:
    case = plan(tmp_path)
    FRAME.with_columns(pl.col("day").dt.strftime("%d/%m/%Y")).write_csv(tmp_path / "t.csv")
    FRAME.write_parquet(tmp_path / "t.parquet")
    inputs: tuple[DataLike, ...] = (KINDS[kind], tmp_path / "t.csv", tmp_path / "t.parquet")
    tables = [read_table(case, open_input(data, Dialect()), None) for data in inputs]
    assert all(table.rejects.is_empty() for table in tables)
    assert len({table.fingerprint for table in tables}) == 1
    assert tables[0].n_input == 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_comes_back_as_what_was_given(kind: str) -> None:
    back = as_given(FRAME, KINDS[kind])
    assert type(back) is type(KINDS[kind])
    assert to_polars(back).select("y", "n", "x").equals(FRAME.select("y", "n", "x"))


def test_moments_are_read_from_pandas() -> None:
    moments = pd.DataFrame({"t": pd.to_datetime(["2024-01-01 10:30", None])})
    assert to_polars(moments)["t"].to_list() == [datetime(2024, 1, 1, 10, 30), None]


def test_a_result_for_a_path_is_polars() -> None:
    assert as_given(FRAME, "t.csv") is FRAME


def test_a_named_index_is_a_column_and_row_numbers_are_none() -> None:
    frame = pandas_frame()
    assert to_polars(frame.set_index("code"))["code"].to_list() == ROWS["code"]
    assert to_polars(frame.set_index(["code", "day"])).columns[:2] == ["code", "day"]
    assert to_polars(frame[frame["y"] == "yes"]).columns == list(ROWS)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ({"a": [1]}, UsageError, "type dict is not read. Expected a path"),
        (None, UsageError, "type NoneType"),
        (pl.LazyFrame({"a": [1]}), UsageError, r"LazyFrame.*collect\(\)"),
        (pl.Series([1]), UsageError, "type Series"),
        (pandas_frame().set_index("code").rename_axis(None), UsageError, "without a name.*reset_index"),
        (pandas_frame().set_index("code", drop=False), UsageError, "both named 'code'"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), DataError, "the frame given has the column 'a' more than once"),
        (pa.table([[1], [2]], names=["a", "a"]), DataError, "more than once"),
        (pd.DataFrame([[1, 2]]), DataError, "named 0, which is not text"),
        (pd.DataFrame({"a": [1, "b"], "c": [1, 2]}), DataError, "Column 'a' of the frame given cannot be read"),
    ],
)
def test_what_is_no_frame_says_what_was_expected(data: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        open_input(data, Dialect())


def test_messages_name_the_frame(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the frame given: column 'kind' is missing"):
        read_table(plan(tmp_path), open_input(pandas_frame().drop(columns="kind"), Dialect()), None)
    with pytest.raises(DataError, match="the frame given has no rows"):
        read_table(plan(tmp_path), open_input(pandas_frame().head(0), Dialect()), None)


def test_pandas_is_not_imported_for_other_frames() -> None:
    code = (
        "import sys, polars as pl; from tabkit.data.frames import as_given, to_polars\n"
        "frame = pl.DataFrame({'a': [1]}); as_given(to_polars(frame), frame)\n"
        "assert not {'pandas', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
