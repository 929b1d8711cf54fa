"""The holdout's predictions of a run folder, read back."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tabkit.errors import UsageError

PREDICTIONS = "holdout_predictions.parquet"
WEIGHT = "weight"
"""The column that says for how many rows a row stands, if rows are weighted."""


def read_predictions(run_folder: Path) -> pl.DataFrame | None:
    """Read a run folder's holdout predictions; None if someone took the file away.

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
