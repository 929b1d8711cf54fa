"""A model without a bundle: how its rows are read and encoded; and the one for tables that no run can judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.bundle import CHUNK_ROWS, TableBundle
from tabkit.data.conform import conform
from tabkit.data.encode import Encoder, fit_encoder
from tabkit.data.source import from_frame
from tabkit.errors import DataError
from tabkit.learner import Budget, Predictions
from tabkit.models.base import Model, model_class
from tabkit.recipe import Plan
from tabkit.schema import Schema
from tabkit.seed import stream

PENALTY = 1.0
"""Of a linear model without rows to choose its penalty on; scikit-learn's own default."""


@dataclass(frozen=True)
class TypedModel:
    """A model, and how new rows are read and encoded for it."""

    schema: Schema
    encoder: Encoder
    model: Model

    @classmethod
    def of(cls, bundle: TableBundle) -> TypedModel:
        """Return the model of a bundle."""
        return cls(bundle.plan.schema, bundle.encoder, bundle.model)

    def predict(self, frame: pl.DataFrame) -> Predictions:
        """Predict rows, in bounded memory.

        Raises
        ------
        DataError
            A cell does not fit its column.
        """
        chunks = (frame[i : i + CHUNK_ROWS] for i in range(0, frame.height, CHUNK_ROWS))
        rows = (_typed(chunk, self.schema, self.encoder.inputs) for chunk in chunks)
        return np.concatenate([self.model.predict(self.encoder.encode(each)) for each in rows])


def fit_linear(plan: Plan, frame: pl.DataFrame, classes: tuple[str, ...], seed: int, budget: Budget) -> TypedModel:
    """Fit the linear baseline on all rows, with nothing chosen.

    Raises
    ------
    DataError
        No column varies.
    """
    recipe = plan.recipe
    rows = _typed(frame, plan.schema, frame.columns)
    columns = [c for c in frame.columns if c not in plan.roles]
    weights = None if recipe.weight is None else rows[recipe.weight].cast(pl.Float64).to_numpy()
    encoder = fit_encoder(rows, columns, recipe.task, recipe.target, classes)
    rng, settings = stream(seed, "adapt", "linear"), {"strength": PENALTY}
    weighed = encoder.encode(rows).weighing(None if weights is None else weights / weights.mean())
    adapted = model_class("linear")().adapt(weighed, None, "scratch", rng, budget, settings)
    return TypedModel(plan.schema, encoder, adapted.model)


def _typed(frame: pl.DataFrame, schema: Schema, columns: Sequence[str]) -> pl.DataFrame:
    source = from_frame(frame, "X")
    (batch,) = source.batches(frame.height)
    rows = conform(batch, schema, columns)
    if rows.rejects.height:
        first = rows.rejects.row(0, named=True)
        raise DataError(f"Row {first['row']} of X, column '{first['column']}': {first['value']!r}, {first['reason']}.")
    return rows.frame
