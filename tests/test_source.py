"""Sources: what is found out about a file, how it is streamed, and what a damaged one says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabkit.data.source import Input, open_input
from tabkit.errors import DataError, UsageError
from tabkit.schema import Dialect

FRAME = pl.DataFrame({"city": ["Köln", "Łódź", "a;b", 'q"q'], "size": [1.5, -2.25, 0.0, 1e9], "n": [1, 2, 3, 4]})


def whole(source: Input, chunk_rows: int = 3) -> tuple[pl.DataFrame, np.ndarray, pl.DataFrame]:
    batches = list(source.batches(chunk_rows))
    assert max(batch.frame.height for batch in batches) <= chunk_rows
    return (
        pl.concat([b.frame for b in batches]),
        np.concatenate([b.rows for b in batches]),
        pl.concat([b.malformed for b in batches]),
    )


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow", ".feather"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"table{ending}"
    {".csv": FRAME.write_csv, ".parquet": FRAME.write_parquet}.get(ending, FRAME.write_ipc)(path)
    frame, rows, malformed = whole(open_input(path, Dialect()))
    typed = frame.cast({"size": pl.Float64, "n": pl.Int64})
    assert typed.equals(FRAME) and rows.tolist() == [0, 1, 2, 3] and malformed.is_empty()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found(tmp_path: Path, delimiter: str) -> None:
    FRAME.write_csv(tmp_path / "t.csv", separator=delimiter)
    source = open_input(tmp_path / "t.csv", Dialect())
    assert source.delimiter == delimiter and source.columns == ("city", "size", "n")


def test_text_that_is_not_utf8_is_refused_unless_stated(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("city,n\nKöln,1\n".encode("cp1252"))
    with pytest.raises(DataError, match="UTF-8") as problem:
        open_input(tmp_path / "t.csv", Dialect())
    assert "encoding" in str(problem.value)
    frame, _, _ = whole(open_input(tmp_path / "t.csv", Dialect(encoding="cp1252")))
    assert frame["city"].to_list() == ["Köln"]


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 5, 1 << 22])
@settings(max_examples=150, deadline=None)
@given(
    before=st.text("aß€🙂\n", max_size=12),
    broken=st.sampled_from([b"\xe9", b"\x80", b"\xc3", b"\xf0\x9f\x99", b"\xe2\x82", b"\xc0\xaf", b"\xed\xa0\x80"]),
    after=st.text("aß\n", max_size=6),
)
def test_a_broken_byte_is_found_wherever_blocks_and_characters_end(
    block_bytes: int, before: str, broken: bytes, after: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.csv"
    data = f"n\n{before}".encode() + broken + after.encode()
    path.write_bytes(data)
    at = len(f"n\n{before}".encode())
    line = data[:at].count(b"\n") + 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tabkit.data.encodings._BLOCK_BYTES", block_bytes)
        with pytest.raises(DataError) as problem:
            open_input(path, Dialect())
        assert f"line {line}: byte 0x{data[at]:02x} at offset {at:,} is not UTF-8" in str(problem.value)
        path.write_bytes(f"n\n{before}{after}1".encode())
        assert open_input(path, Dialect()).encodings == ("utf-8",)


def test_the_text_around_a_broken_byte_is_of_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("city,n\nKöln,1\nBonn,2\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"line 2.*would read 'Köln,1'"):
        open_input(tmp_path / "t.csv", Dialect())


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("city,n\nKöln,1\n".encode(encoding))
    source = open_input(tmp_path / "t.csv", Dialect())
    assert source.columns == ("city", "n") and whole(source)[0]["city"].to_list() == ["Köln"]


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
def test_a_column_may_have_no_name(tmp_path: Path, ending: str) -> None:
    frame, path = FRAME.rename({"n": ""}), tmp_path / f"t{ending}"
    {".csv": frame.write_csv, ".parquet": frame.write_parquet}.get(ending, frame.write_ipc)(path)
    assert whole(open_input(path, Dialect()))[0][""].cast(pl.Int64).to_list() == [1, 2, 3, 4]


def test_ragged_rows_are_set_apart_and_rows_stay_numbered(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3\n4,5\n6,7,8\n9,10\n")
    frame, rows, malformed = whole(open_input(tmp_path / "t.csv", Dialect()))
    assert frame["a"].to_list() == ["1", "4", "9"] and rows.tolist() == [0, 2, 4]
    assert malformed["row"].to_list() == [1, 3]
    assert (
        "expected 2 cells, found 1" in malformed["reason"][0]
        and "3" in malformed["value"].to_list()[0] + malformed["reason"][0]
    )


def test_a_folder_and_a_glob_are_one_table(tmp_path: Path) -> None:
    for i in range(3):
        FRAME.with_columns(n=pl.col("n") + 10 * i).write_parquet(tmp_path / f"part{i}.parquet")
    for path in (tmp_path, tmp_path / "part*.parquet"):
        frame, rows, _ = whole(open_input(path, Dialect()))
        assert frame["n"].to_list() == [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24] and rows.tolist() == list(range(12))


def test_columns_of_later_files_are_matched_by_name(tmp_path: Path) -> None:
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.select("n", "size", "city").write_csv(tmp_path / "b.csv")
    frame, _, _ = whole(open_input(tmp_path / "*.csv", Dialect()))
    assert frame["n"].to_list() == ["1", "2", "3", "4"] * 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no data file"),
        ({"a.csv": b"a,b\n1,2\n", "b.parquet": None}, "different kinds"),
        ({"a.csv": b"a,b\n1,2\n", "b.csv": b"a,c\n1,2\n"}, "differ in the columns"),
        ({"a.csv": b"a,a\n1,2\n"}, "more than once"),
        ({"a.csv": b"\n\n"}, "empty first line"),
        ({"a.parquet": b"PAR1 not really"}, "a.parquet"),
        ({"a.arrow": b"nothing of the kind"}, "a.arrow"),
        ({"a.csv": b""}, "0 bytes"),
    ],
)
def test_damaged_inputs_say_what_is_wrong(tmp_path: Path, files: dict[str, bytes | None], words: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, content in files.items():
        if content is None:
            FRAME.write_parquet(folder / name)
        else:
            (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_input(folder, Dialect())


def test_paths_that_are_no_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Standard input"):
        open_input("-", Dialect())
    (tmp_path / "t.xls").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"'\.xls' are not read"):
        open_input(tmp_path / "t.xls", Dialect())
    (tmp_path / "loans.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"Did you mean .*loans\.csv"):
        open_input(tmp_path / "loan.csv", Dialect())
    with pytest.raises(DataError, match="No file matches"):
        open_input(tmp_path / "*.parquet", Dialect())


def test_quoted_line_ends_stay_in_their_cell(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n"two\nlines",1\nx,2\n')
    frame, rows, _ = whole(open_input(tmp_path / "t.csv", Dialect()))
    assert frame["a"].to_list() == ["two\nlines", "x"] and rows.tolist() == [0, 1]


@pytest.mark.slow
def test_reading_a_small_csv_never_aborts_the_process_at_exit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    code = (
        "from tabkit.data.source import open_input; from tabkit.schema import Dialect\n"
        f"try: list(open_input({str(tmp_path / 't.csv')!r}, Dialect()).batches(9))\n"
        "except Exception as problem: print(problem)"
    )
    for _ in range(30):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0 and "no rows" in done.stdout, done.stderr
