"""For how many rows a row stands: by a column of weights, or by the chance of not being lost before the horizon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.censoring import censoring_weights
from tabkit.data.derive import matches
from tabkit.data.frames import values_of
from tabkit.errors import DataError
from tabkit.recipe import Plan

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Weighing:
    """The weights of labelled rows, by the rows that are trained on.

    Attributes
    ----------
    n_labelled
        Labelled rows, which come first; the others were lost before the horizon, and are cut with them.
    rows
        All of these rows, as a table.
    column
        The weights (n_labelled,) of a column; None if follow-up makes them.
    time, event
        Follow-up of all rows, and whether it ended with the event.
    horizon
        By when the event is asked for.
    """

    n_labelled: int
    rows: pl.DataFrame
    column: Floats | None = None
    time: Floats | None = None
    event: npt.NDArray[np.bool_] | None = None
    horizon: float = 0.0

    @classmethod
    def of(cls, plan: Plan, labelled: pl.DataFrame, unlabelled: pl.DataFrame) -> Weighing | None:
        """Return how rows weigh; None if each counts once."""
        recipe = plan.recipe
        if recipe.weight is not None:
            column = values_of(labelled, recipe.weight).cast(pl.Float64).fill_null(1.0).to_numpy()
            return cls(labelled.height, labelled, column)
        if recipe.censoring is None:
            return None
        rule = recipe.censoring
        known = pl.sql_expr(f"({rule.event}) IS NOT NULL")
        lost = unlabelled.filter(known & values_of(unlabelled, rule.time).is_not_null())
        # A class of its own, so that a split by class gives each part its share of them.
        rows = pl.concat([labelled, lost.with_columns(pl.lit("lost").alias(recipe.target))])
        time = values_of(rows, rule.time).cast(pl.Float64).to_numpy()
        event = matches(rows, rule.event, f"{plan.path}: [censoring] key 'event'").to_numpy()
        return cls(labelled.height, rows, None, time, event, rule.horizon)

    def weights(self, train: npt.NDArray[np.int64] | None = None) -> Floats:
        """Return the weights (n_labelled,), censoring estimated on the ``train`` positions among all rows; None for all.

        Raises
        ------
        DataError
            See :func:`censoring_weights`.
        """
        if self.column is not None:
            return self.column
        assert self.time is not None and self.event is not None
        among = np.ones(len(self.time), dtype=np.bool_)
        if train is not None:
            among = np.isin(np.arange(len(self.time)), train)
        return censoring_weights(self.time, self.event, self.horizon, among)[: self.n_labelled]


def takes_part(plan: Plan, frame: pl.DataFrame, name: str) -> npt.NDArray[np.bool_]:
    """Tell which rows (n_rows,) weigh more than nothing; one of weight 0 is as if it were not there.

    Raises
    ------
    DataError
        All rows weigh nothing.
    """
    column = plan.recipe.weight
    if column is None or not frame.height:
        return np.ones(frame.height, dtype=np.bool_)
    weighs = (values_of(frame, column).fill_null(1) > 0).to_numpy()
    if not weighs.any():
        raise DataError(
            f"{name}: weight '{column}' is 0 in every row. Expected a number above 0 in the rows that count."
        )
    return np.asarray(weighs)


def effective_rows(weights: Floats) -> float:
    """Return how many rows of equal weight tell as much as these: Kish, *Survey Sampling*, 1965."""
    return float(weights.sum() ** 2 / (weights**2).sum())
