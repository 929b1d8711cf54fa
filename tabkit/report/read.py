"""A run folder, read back: every fault is told with what was expected there."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from tabkit.errors import UsageError

FORMAT = 1
RESULT, PREDICTIONS, REPORT = "result.json", "holdout_predictions.parquet", "report.html"


@cache
def result_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that documents ``result.json``."""
    path = Path(__file__).parent.parent / "result" / "result.schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def read_result(run_folder: Path) -> dict[str, Any]:
    """Read a run folder's ``result.json``.

    Raises
    ------
    UsageError
        The folder is missing or no run folder; the file is broken, of another format version, or incomplete.
    """
    path = run_folder / RESULT
    if not run_folder.is_dir():
        what = "is a file" if run_folder.exists() else "does not exist"
        raise UsageError(f"{run_folder} {what}. Expected a run folder: give one that `tabkit run` made.")
    if not path.is_file():
        inside = sorted(p.name for p in run_folder.iterdir() if not p.name.startswith("."))[:6]
        raise UsageError(
            f"{run_folder}: no run folder, it has no {RESULT} (found: {', '.join(inside) or 'nothing'}). "
            "Give a folder that `tabkit run` made."
        )
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise UsageError(f"{path}: cannot be read as JSON ({problem}). Run the recipe again.") from None
    if not isinstance(result, dict) or "format" not in result:
        raise UsageError(
            f"{path}: expected the result of `tabkit run`, an object with a 'format'. Run the recipe again."
        )
    if result["format"] != FORMAT:
        raise UsageError(
            f"{path}: format {result['format']!r}, written by tabkit {result.get('tabkit', '(unknown)')}; "
            f"this tabkit reads format {FORMAT}. Use the tabkit that wrote it, or run the recipe again."
        )
    missing = [key for key in result_schema()["required"] if key not in result]
    if missing:
        raise UsageError(f"{path}: incomplete, {', '.join(map(repr, missing))} missing. Run the recipe again.")
    return result


def read_predictions(run_folder: Path) -> pl.DataFrame | None:
    """Read a run folder's holdout predictions; None where someone took the file away.

    Raises
    ------
    UsageError
        The file is broken.
    """
    path = run_folder / PREDICTIONS
    if not path.is_file():
        return None
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as problem:
        raise UsageError(
            f"{path}: cannot be read as Parquet ({problem}). Run the recipe again, or delete this file."
        ) from None
