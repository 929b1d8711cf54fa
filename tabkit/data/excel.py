"""A sheet of an Excel workbook, read by fastexcel (the extra ``excel``)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tabkit.errors import DataError, UsageError, count, nearest

SHEET = ".xlsx#"
"""What stands between a workbook and the name of one of its sheets."""
_UNNAMED = "__UNNAMED__"


def read_sheet(name: str) -> pl.DataFrame:
    """Read ``FILE.xlsx``, or ``FILE.xlsx#SHEET`` of a workbook with several sheets.

    Numbers, dates and booleans come as Excel has them; a column of both numbers and text comes as text.

    Raises
    ------
    UsageError
        fastexcel is not installed, or it is not said which sheet.
    DataError
        There is no such file or sheet, it cannot be read, or its first row names no columns.
    """
    try:
        import fastexcel
    except ImportError:
        raise UsageError(
            f"{name}: reading Excel needs a library. Install it by pip install 'tabkit-ml[excel]', or save the sheet as CSV."
        ) from None
    file, _, wanted = name.partition("#")
    path = Path(file)
    if not path.is_file():
        beside = [f.name for f in path.parent.glob("*.xlsx")]
        raise DataError(f"{path} does not exist.{nearest(path.name, beside) if beside else ''} Expected a workbook.")
    try:
        book = fastexcel.read_excel(path)
        sheet = _sheet(path, wanted, book.sheet_names)
        frame = book.load_sheet(sheet, schema_sample_rows=None, dtype_coercion="coerce").to_polars()
    except fastexcel.FastExcelError as problem:
        raise DataError(
            f"{path} cannot be read as a workbook ({str(problem).splitlines()[0]}). Save it again."
        ) from None
    unnamed = [c for c in frame.columns if c.startswith(_UNNAMED)]
    if not frame.width or 2 * len(unnamed) > frame.width:
        raise DataError(
            f"{path}, sheet '{sheet}': the first row names {count(frame.width - len(unnamed), 'column')} of {frame.width}. Expected "
            "the column names there; remove titles and notes above them."
        )
    return frame.drop(c for c in unnamed if frame[c].null_count() == frame.height)


def _sheet(path: Path, wanted: str, names: list[str]) -> str:
    if wanted:
        if wanted not in names:
            raise DataError(f"{path} has no sheet '{wanted}'.{nearest(wanted, names)}")
        return wanted
    if len(names) > 1:
        raise UsageError(
            f"{path} has {len(names)} sheets ({', '.join(map(repr, names[:8]))}). Say which one to read: '{path}#{names[0]}'."
        )
    return names[0]
