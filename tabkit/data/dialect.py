"""How a CSV file is written: packed or not, its delimiter, its column names. Found out from its first lines."""

from __future__ import annotations

import csv
import io
import itertools
import re
from pathlib import Path
from typing import BinaryIO

from tabkit.errors import DataError, count

PACKED = {".gz": "gzip", ".zst": "zstd"}
"""Codec by the ending of a packed file."""
_DELIMITERS = ",;\t|"
_HEAD_BYTES = 1 << 18
_MOST_HEADER_BYTES = 1 << 26
_FEWEST_LINES = 3
"""Lines under a first line of another width that say what a row is: fewer may be malformed themselves."""

_EXCEL_MARK = re.compile(r"sep=(.)\r?\n", re.I)
"""Excel's line above the header that states the delimiter."""


def opened(path: Path) -> BinaryIO:
    """Open a file of bytes, unpacked on the way if its name says that it is packed.

    Raises
    ------
    OSError
        It cannot be read; while reading, also that it was cut short.
    """
    if (codec := PACKED.get(path.suffix.lower())) is None:
        return path.open("rb")
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(str(path), compression=codec))


def ending(path: Path) -> str:
    """Return the ending that says what a file holds, in lower case: ``.csv`` of ``loans.CSV.gz``."""
    return Path(path.stem if path.suffix.lower() in PACKED else path.name).suffix.lower()


def first_lines(path: Path, encoding: str) -> str:
    """Return the first lines, as text without a byte-order mark or Excel's mark: at least the whole header."""
    n_bytes = _HEAD_BYTES
    while True:
        with opened(path) as file:
            content = file.read(n_bytes)
        text = content.decode(encoding, errors="ignore").lstrip("\ufeff")
        if len(content) < n_bytes:
            break
        lines = text.rsplit("\n", 1)[0]
        if lines != text and lines.split("\n", 1)[0].count('"') % 2 == 0:
            text = lines
            break
        if n_bytes >= _MOST_HEADER_BYTES:
            raise DataError(
                f"{path} has no line end in its first {n_bytes >> 20} MiB. Expected the column names there."
            )
        n_bytes *= 4
    return text if (mark := _EXCEL_MARK.match(text)) is None else text[mark.end() :]


def lines_above(path: Path, encoding: str) -> int:
    """Return the number of lines above the header: one if Excel's mark stands there, else none."""
    return int(_excel_mark(path, encoding) is not None)


def _excel_mark(path: Path, encoding: str) -> str | None:
    """Return the delimiter that Excel's mark states; None without one."""
    with opened(path) as file:
        mark = _EXCEL_MARK.match(file.read(64).decode(encoding, errors="ignore").lstrip("\ufeff"))
    return mark[1] if mark else None


def _rows(head: str, delimiter: str, most: int) -> list[list[str]]:
    """Cut the first lines into cells, however long these are."""
    before = csv.field_size_limit(len(head) + 1)
    try:
        reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        return [row for row in itertools.islice(reader, most) if row]
    finally:
        csv.field_size_limit(before)


def delimiter_of(head: str, path: Path, encoding: str) -> str:
    """Return the delimiter that cuts the first lines, that of the names too, into the most cells, equally many in every line."""
    if (stated := _excel_mark(path, encoding)) is not None:
        return stated
    best, most, named = ",", 1, False
    for delimiter in _DELIMITERS:
        # A line above the header (a title, say) is refused later, by what the others look like.
        widths = [len(row) for row in _rows(head, delimiter, 50)]
        common = max(set(widths), key=widths.count, default=0)
        # A decimal comma is in every line but the one of the names.
        names = common > 1 and widths[0] == common
        if (names, common) > (named, most) and widths.count(common) >= 0.8 * len(widths):
            best, most, named = delimiter, common, names
    return "\t" if most == 1 and ending(path) == ".tsv" else best


def header_of(path: Path, delimiter: str, encoding: str) -> list[str]:
    """Return the column names.

    Raises
    ------
    DataError
        The first line is empty, or shorter than those below.
    """
    rows = _rows(head := first_lines(path, encoding), delimiter, 20)
    if head.split("\n", 1)[0].strip(' \t\r,;|"') == "" or not rows:
        raise DataError(f"{path} has an empty first line. Expected the column names there.")
    _check_first_line(path, delimiter, rows)
    return rows[0]


def _check_first_line(path: Path, delimiter: str, rows: list[list[str]]) -> None:
    """Refuse a first line that is shorter than all others: it does not name their cells.

    Raises
    ------
    DataError
        Saying what the line seems to be, and what to do.
    """
    first, below = rows[0], rows[1:]
    widths = [len(row) for row in below]
    common = max(set(widths), key=widths.count, default=0)
    if len(below) < _FEWEST_LINES or common <= len(first) or widths.count(common) < 0.8 * len(below):
        return
    shown, n_more = delimiter.join(first)[:60], common - len(first)
    if first[0].lstrip().startswith("#"):
        why = "it is a comment: remove the lines above the column names"
    elif n_more == 1 and len(first) > 1 and all(not row[-1].strip() for row in below):
        why = f"every other line ends in {delimiter!r}: add one to the first line as well, or remove them"
    elif n_more == 1 and len(first) > 1:
        why = "write the row names' column with a name (in R, write.csv(row.names = FALSE))"
    else:
        why = "if it is a title or a comment, remove the lines above the column names"
    raise DataError(
        f"{path}: the first line ({shown!r}) has {count(len(first), 'cell')}, and those below have "
        f"{common}. Expected the column names there; {why}."
    )
