"""Where rows come from: CSV, Parquet, Arrow, a folder or a glob of them, streamed in bounded memory.

A CSV's cells stay text here; :mod:`tabkit.data.conform` types them by the schema, so that nothing is guessed
twice. Row numbers are 0-based over the whole input and count malformed rows too.
"""

from __future__ import annotations

import glob
import os
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as pa_feather
import pyarrow.parquet as pq

from tabkit.data.dialect import PACKED, delimiter_of, ending, first_lines, header_of, lines_above, opened
from tabkit.data.encodings import encoding_of
from tabkit.data.excel import SHEET, read_sheet
from tabkit.data.frames import NAME as FRAME_NAME
from tabkit.data.frames import to_polars, values_of
from tabkit.errors import DataError, UsageError, nearest
from tabkit.schema import Dialect

if TYPE_CHECKING:
    from narwhals.typing import IntoDataFrame

DataLike: TypeAlias = "str | os.PathLike[str] | IntoDataFrame"
"""A file, a folder or a glob; or a polars or pandas DataFrame, or a pyarrow Table."""

REJECTS = {"file": pl.String, "row": pl.Int64, "column": pl.String, "value": pl.String, "reason": pl.String}
"""Schema of a rejects table: a line per failing cell; a malformed row has no column."""

Kind = Literal["csv", "parquet", "arrow", "excel"]
KINDS: dict[str, Kind] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".xlsx": "excel",
}

_BLOCK_BYTES = 1 << 22
_MOST_BLOCK_BYTES = 1 << 29


@dataclass(frozen=True)
class RawBatch:
    """Consecutive rows of one file, untyped if the file is CSV.

    ``rows`` numbers those of ``frame``; ``malformed`` holds the rows between them that could not be cut into cells.
    """

    frame: pl.DataFrame
    file: str
    rows: npt.NDArray[np.int64]
    malformed: pl.DataFrame


@dataclass(frozen=True)
class Input:
    """An opened input: its files, its columns, and how its CSV is written: ``encodings`` are those of its files."""

    name: str
    files: tuple[Path, ...]
    columns: tuple[str, ...]
    kind: Literal["csv", "parquet", "arrow", "frame"]
    delimiter: str = ","
    encodings: tuple[str, ...] = ()
    frame: pl.DataFrame | None = field(default=None, repr=False)

    def batches(self, chunk_rows: int) -> Iterator[RawBatch]:
        """Yield batches of at most ``chunk_rows`` rows in order; a batch never spans two files."""
        if self.frame is not None:
            yield from _cut(iter([(self.frame, [])]), self.name, 0, chunk_rows)
            return
        start = 0
        for i, path in enumerate(self.files):
            for batch in _cut(self._pieces(i, chunk_rows), str(path), start, chunk_rows):
                yield batch if self.kind != "csv" else _without_headers(batch)
                start += len(batch.rows) + batch.malformed.height
        if start == 0:
            raise DataError(f"{self.name} has a header and no rows. Expected at least one row of data.")

    def count_rows(self) -> int:
        """Count the rows, for progress: exactly, but for CSV, where a line break inside a cell counts as a row."""
        if self.frame is not None:
            return self.frame.height
        match self.kind:
            case "csv":
                return sum(map(_count_lines, self.files))
            case "parquet":
                return sum(int(pq.read_metadata(path).num_rows) for path in self.files)
            case _:
                return sum(int(_read_arrow(path, []).num_rows) for path in self.files)

    def _pieces(self, at: int, chunk_rows: int) -> Iterator[tuple[pl.DataFrame, list[tuple[int, str]]]]:
        """Yield (rows, malformed so far as (row number, text)) of one file, columns in the input's order."""
        path = self.files[at]
        if self.kind == "csv":
            yield from self._csv_pieces(path, self.encodings[at])
        elif self.kind == "parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=chunk_rows, columns=list(self.columns)):
                    yield _from_arrow(pa.Table.from_batches([batch]))[list(self.columns)], []
        else:
            for batch in _read_arrow(path, list(self.columns)).to_batches(max_chunksize=chunk_rows):
                yield _from_arrow(pa.Table.from_batches([batch]))[list(self.columns)], []

    def _csv_pieces(self, path: Path, encoding: str) -> Iterator[tuple[pl.DataFrame, list[tuple[int, str]]]]:
        """Read a file block by block; if a row is longer than a block, go on from there with longer ones."""
        n_rows, n_bad, block_bytes = 0, 0, _BLOCK_BYTES
        while True:
            try:
                rows_seen = bad_seen = 0
                for frame, malformed in self._csv_blocks(path, encoding, block_bytes):
                    news = frame[max(0, n_rows - rows_seen) :], malformed[max(0, n_bad - bad_seen) :]
                    rows_seen, bad_seen = rows_seen + frame.height, bad_seen + len(malformed)
                    n_rows, n_bad = max(n_rows, rows_seen), max(n_bad, bad_seen)
                    yield news
                return
            except _LongRow:
                block_bytes *= 8

    def _csv_blocks(
        self, path: Path, encoding: str, block_bytes: int
    ) -> Iterator[tuple[pl.DataFrame, list[tuple[int, str]]]]:
        malformed: list[tuple[int, str, str]] = []
        skipped = lines_above(path, encoding)

        def keep(row: Any) -> str:
            reason = f"expected {row.expected_columns} cells, found {row.actual_columns}"
            malformed.append((row.number, row.text, reason))
            return "skip"

        def take_malformed() -> list[tuple[int, str]]:
            lines = [(number - 2 - skipped, f"{reason}: {text}") for number, text, reason in malformed]
            malformed.clear()
            return lines

        names = header_of(path, self.delimiter, encoding)
        released = weakref.ref(keep)
        try:
            with pa_csv.open_csv(
                opened(path) if path.suffix.lower() in PACKED else path,
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=block_bytes, encoding=encoding, skip_rows=skipped
                ),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=keep
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
                ),
            ) as reader:
                for batch in reader:
                    yield _from_arrow(pa.Table.from_batches([batch]))[list(self.columns)], take_malformed()
        except (pa.ArrowInvalid, UnicodeDecodeError, OSError) as problem:
            if "straddl" in str(problem) and block_bytes < _MOST_BLOCK_BYTES:
                raise _LongRow from None
            raise DataError(
                f"{path} cannot be read as CSV ({problem}). Expected {len(names)} cells separated by {self.delimiter!r}."
            ) from None
        finally:
            reader = None
            del keep
            _wait_until(lambda: released() is None)
        if malformed:
            yield pl.DataFrame(schema=dict.fromkeys(self.columns, pl.String)), take_malformed()


class _LongRow(Exception):
    """A row does not fit into the block that is read at a time."""


def _without_headers(batch: RawBatch) -> RawBatch:
    """Set apart rows that repeat the header, as files put one after another have them."""
    again = np.ones(batch.frame.height, dtype=bool)
    for name in batch.frame.columns:
        if not again.any():
            return batch
        again &= (values_of(batch.frame, name).str.strip_chars() == name.strip()).fill_null(False).to_numpy()
    if not again.any():
        return batch
    rows = batch.rows[again]
    n, reason = len(rows), "repeats the header, as in files put one after another"
    headers = pl.DataFrame(
        {"file": [batch.file] * n, "row": rows, "column": [""] * n, "value": [""] * n, "reason": [reason] * n},
        schema=REJECTS,
    )
    malformed = pl.concat([batch.malformed, headers]).sort("row", maintain_order=True)
    return RawBatch(batch.frame.filter(~pl.Series(again)), batch.file, batch.rows[~again], malformed)


def _wait_until(done: Callable[[], bool], most_seconds: float = 2.0) -> None:
    """Wait for Arrow's read-ahead thread to let go of a Python callback.

    If it still holds one when the interpreter exits, the process aborts (apache/arrow#34314).
    """
    deadline = time.monotonic() + most_seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.001)


def open_input(data: DataLike, dialect: Dialect) -> Input:
    """Open a file, a folder, a glob, or a frame in memory.

    Parameters
    ----------
    dialect
        What the schema states about CSV files; if it does not, the delimiter is found from the first file, and the encoding from each.

    Raises
    ------
    UsageError
        An unknown ending, ``-``, or an object that is neither a path nor a frame.
    DataError
        Missing, empty, unreadable or damaged files, files of different columns, text in another encoding.
    """
    if not isinstance(data, (str, os.PathLike)):
        return from_frame(to_polars(data), FRAME_NAME)
    if SHEET in str(data).lower() or str(data).lower().endswith(".xlsx"):
        return replace(from_frame(read_sheet(str(data)), str(data)), files=_files(str(data).split("#", 1)[0]))
    files, name = _files(data), str(data)
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise DataError(f"{name} holds files of different kinds ({', '.join(sorted(kinds))}). Expected one kind.")
    (kind,) = kinds
    if kind == "excel":
        raise UsageError(f"{name} holds workbooks, which are read one by one. Give one of them, such as {files[0]}.")
    for file in files:
        _readable(file)
    encodings: tuple[str, ...] = ()
    delimiter = ","
    if kind == "csv":
        encodings = tuple(encoding_of(file, dialect.encoding) for file in files)
        head = first_lines(files[0], encodings[0])
        delimiter = dialect.delimiter or delimiter_of(head, files[0], encodings[0])
        headers = [header_of(file, delimiter, encoding) for file, encoding in zip(files, encodings, strict=True)]
    else:
        headers = [_binary_columns(file, kind) for file in files]
    for file, header in zip(files, headers, strict=True):
        repeated = sorted({c for c in header if header.count(c) > 1})
        if repeated:
            raise DataError(
                f"{file} has the column {repeated[0]!r} more than once. Expected every name once; rename one."
            )
        if set(header) != set(headers[0]):
            odd = sorted(set(header) ^ set(headers[0]))
            raise DataError(
                f"{file} and {files[0]} differ in the columns {odd[:6]}. Expected the same columns in every file."
            )
    return Input(name, files, tuple(headers[0]), kind, delimiter, encodings)


def from_frame(frame: pl.DataFrame, name: str) -> Input:
    """Treat a polars table as an input, for samples."""
    return Input(name, (), tuple(frame.columns), "frame", frame=frame)


def _files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    if str(path) == "-":
        raise UsageError("Standard input ('-') is not read, since rows are read twice. Give a file.")
    here = Path(path)
    if here.is_dir():
        files = sorted(f for f in here.iterdir() if f.is_file() and ending(f) in KINDS)
        if not files:
            raise DataError(f"Folder {here} holds no data file. Expected files ending in {', '.join(KINDS)}.")
    elif here.exists():
        files = [here]
    elif glob.has_magic(str(path)):
        files = sorted(Path(f) for f in glob.glob(str(path), recursive=True) if Path(f).is_file())
        if not files:
            raise DataError(f"No file matches {path}. Check the pattern.")
    else:
        beside = [f.name for f in here.parent.iterdir() if ending(f) in KINDS] if here.parent.is_dir() else []
        raise DataError(
            f"{here} does not exist.{nearest(here.name, beside) if beside else ''} Expected a data file, a folder or a glob."
        )
    return tuple(files)


def _count_lines(path: Path) -> int:
    with opened(path) as file:
        return max(1, sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK_BYTES), b"")) - 1)


def _read_arrow(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read an Arrow file or stream, mapped rather than copied."""
    with pa.memory_map(str(path)) as mapped:
        try:
            return pa_feather.read_table(mapped, columns=columns)
        except pa.ArrowInvalid:  # no file: the bytes may be a stream
            mapped.seek(0)
            table = pa.ipc.open_stream(mapped).read_all()
            return table if columns is None else table.select(columns)


def _kind(path: Path) -> Kind:
    kind = KINDS.get(ending(path))
    if kind is None:
        raise UsageError(
            f"{path}: files ending in '{path.suffix}' are not read. Expected {', '.join(KINDS)}; or CSV packed as .gz or .zst."
        )
    if kind != "csv" and path.suffix.lower() in PACKED:
        raise UsageError(
            f"{path}: only CSV is read from a packed file, and {kind} is packed in itself. Unpack it first."
        )
    return kind


def _readable(path: Path) -> None:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path} is empty (0 bytes). Expected a header and rows.")
        if path.suffix.lower() in PACKED:
            _unpacks(path)
    except OSError as problem:
        raise DataError(f"{path} cannot be read ({problem.strerror}). Check its permissions.") from None


def _unpacks(path: Path) -> None:
    """Unpack a file once: a copy that was cut short is better found before any of its rows is used."""
    try:
        with opened(path) as file:
            while file.read(_BLOCK_BYTES):
                pass
    except OSError as problem:
        raise DataError(
            f"{path} cannot be unpacked ({problem}): it is damaged, or was cut short. Copy or make it again."
        ) from None


def _binary_columns(path: Path, kind: str) -> list[str]:
    try:
        if kind == "parquet":
            return list(pq.read_schema(path).names)
        return list(_read_arrow(path).schema.names)
    except (pa.ArrowInvalid, OSError) as problem:
        raise DataError(
            f"{path} is damaged or is no {kind} file ({str(problem).splitlines()[0]}). Copy or write it again."
        ) from None


def _from_arrow(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.columns = table.column_names  # polars renames a column without a name, which pandas writes for an index
    return frame


def _cut(
    pieces: Iterator[tuple[pl.DataFrame, list[tuple[int, str]]]], file: str, start: int, chunk_rows: int
) -> Iterator[RawBatch]:
    """Cut pieces of any size into batches of ``chunk_rows`` rows, with malformed rows in their place."""
    pieces_left: list[pl.DataFrame] = []
    waiting = 0
    bad: dict[int, str] = {}
    position = 0  # row number in the file of the next row to be given out

    def take(n: int) -> RawBatch:
        nonlocal pieces_left, waiting, position
        frame = pl.concat(pieces_left) if len(pieces_left) != 1 else pieces_left[0]
        head, pieces_left = frame[:n], [frame[n:]] if frame.height > n else []
        waiting -= n
        rows: list[int] = []
        here: list[int] = []
        while len(rows) < n:
            (here if position in bad else rows).append(position)
            position += 1
        while position in bad:
            here.append(position)
            position += 1
        malformed = pl.DataFrame(
            {
                "file": [file] * len(here),
                "row": [start + r for r in here],
                "column": [""] * len(here),
                "value": [bad[r].split(": ", 1)[1] for r in here],
                "reason": [bad[r].split(": ", 1)[0] for r in here],
            },
            schema=REJECTS,
        )
        for r in here:
            del bad[r]
        return RawBatch(head, file, np.array(rows, dtype=np.int64) + start, malformed)

    for frame, malformed in pieces:
        bad.update(malformed)
        if frame.height:
            pieces_left.append(frame)
            waiting += frame.height
        while waiting > chunk_rows:
            yield take(chunk_rows)
    if waiting or bad:
        if not pieces_left:
            pieces_left = [frame[:0]]
        yield take(waiting)
