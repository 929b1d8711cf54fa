"""Rows whose outcome nobody knew at a cut in time: left out of what is learned from and chosen on.

Source: López de Prado, *Advances in Financial Machine Learning* (2018), chapter 7.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.errors import DataError, UsageError, count
from tabkit.recipe import Recipe

Rows = npt.NDArray[np.int64]
HOURS = {"h": 1, "d": 24, "w": 168}


def known(times: pl.Series, recipe: Recipe, rest: Rows, part: Rows) -> Rows:
    """Return the rows of ``rest`` whose outcome was known when ``part`` began; all of them without an embargo.

    Raises
    ------
    UsageError
        The embargo is no number where times are numbers, or is one where they are dates.
    DataError
        It leaves no row.
    """
    if recipe.split.embargo is None:
        return rest
    moments, wait = _waits(times, recipe.split.embargo, str(recipe.time))
    kept: Rows = rest[moments[rest] + wait <= moments[part].min()]
    if len(kept) == 0:
        raise DataError(
            f"split.embargo = {recipe.split.embargo!r} leaves none of {count(len(rest), 'row')} before the cut. Expected older "
            "rows: set a shorter embargo or a smaller holdout, or give rows of a longer time."
        )
    return kept


def left_out(recipe: Recipe, n_rows: int | None = None) -> str:
    """Say how many rows an embargo left out, if there is one."""
    if recipe.split.embargo is None:
        return ""
    rows = "Rows" if n_rows is None else count(n_rows, "row")
    were = "was" if n_rows == 1 else "were"
    return f" {rows} less than {recipe.split.embargo} before a cut {were} left out: the outcome was not known yet."


def _waits(times: pl.Series, embargo: str | float, column: str) -> tuple[npt.NDArray[np.float64], float]:
    """Return the moment of each row (n_rows,) and the embargo, in one unit."""
    if times.dtype.is_temporal() != isinstance(embargo, str):
        holds, wanted = ("dates", "'30d', '12h' or '4w'") if times.dtype.is_temporal() else ("numbers", "a number")
        raise UsageError(f"split.embargo = {embargo!r}, and time column '{column}' holds {holds}. Expected {wanted}.")
    if isinstance(embargo, str):
        return times.dt.epoch("us").cast(pl.Float64).to_numpy(), float(embargo[:-1]) * HOURS[embargo[-1]] * 3600e6
    return times.cast(pl.Float64).to_numpy(), embargo
