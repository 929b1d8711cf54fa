"""Intervals around a regression's predictions: how wide they are, and how often they hold the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.data.split import Split
from tabkit.data.target import band, on_scale, to_scale
from tabkit.learner import Predictions
from tabkit.result.tables import PredictionInterval
from tabkit.seed import stream

INTERVAL_LEVEL = 0.9
PARTS = 5
"""Parts of the holdout, each covered by the width of the others."""

Codes = npt.NDArray[np.int64]


def conformal_half_width(
    y: npt.NDArray[np.float64],
    predicted: Predictions,
    scale: str | None = None,
    level: float = INTERVAL_LEVEL,
    weights: npt.NDArray[np.float64] | None = None,
) -> float:
    """Return the split-conformal half-width, on the target's scale: the residual that covers ``level`` of new rows.

    Sources: Lei et al., *Distribution-Free Predictive Inference for Regression*, JASA 2018; of weighted rows, Tibshirani et
    al., *Conformal Prediction Under Covariate Shift*, NeurIPS 2019. There, a new row's own weight is needed, and scoring has
    none: it is given that of the average row among those that the weights stand for.
    """
    residuals = np.abs(to_scale(scale, y) - on_scale(scale, predicted))
    if weights is None:
        rank = int(np.ceil(level * (len(residuals) + 1))) - 1
        return float(np.sort(residuals)[min(rank, len(residuals) - 1)])
    order = np.argsort(residuals, kind="stable")
    covered = np.cumsum(weights[order])
    new_row = float((weights**2).sum() / weights.sum())
    # A hair of slack for the rounding of the sum.
    rank = int(np.searchsorted(covered, level * (covered[-1] + new_row) * (1 - 1e-12)))
    return float(residuals[order[min(rank, len(order) - 1)]])


def intervals_around(
    held: Features, predicted: Predictions, scale: str | None, part: Codes
) -> tuple[PredictionInterval, float | None]:
    """Return the intervals that are shipped, and the share of rows that such intervals hold; None of a single part.

    The width is that of all rows held out. Whether such a width holds what comes next, these rows cannot tell of their own:
    each part of them is covered by the width that the others gave.

    Parameters
    ----------
    held
        The rows held out.
    part
        The part (n_rows,) of each row, from :func:`parts_of` or the outer fold.
    """
    width = conformal_half_width(held.labels, predicted, scale, weights=held.w)
    facts = PredictionInterval(level=INTERVAL_LEVEL, half_width=width, scale=scale)
    if len(names := np.unique(part)) < 2:
        return facts, None
    inside = np.zeros(len(held), dtype=np.bool_)
    for name in names:
        here, others = np.flatnonzero(part == name), np.flatnonzero(part != name)
        known = held.take(others)
        low, high = band(
            scale, predicted[here], conformal_half_width(known.labels, predicted[others], scale, weights=known.w)
        )
        inside[here] = (low <= held.labels[here]) & (held.labels[here] <= high)
    return facts, held.mean(inside)


def parts_of(split: Split, rows: Codes, seed: int) -> Codes:
    """Cut the rows held out into :data:`PARTS`: one stretch of time after the other, whole groups, or rows at random."""
    if split.days is not None:
        days = split.days[rows]
        return np.asarray(np.searchsorted(np.sort(days), days) * PARTS // len(rows))  # those of one day stay together
    unit = np.arange(len(rows)) if split.groups is None else np.unique(split.groups[rows], return_inverse=True)[1]
    return np.asarray((stream(seed, "coverage").permutation(unit.max() + 1) % PARTS)[unit])
