"""Curves and tables from the holdout's predictions, with numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import as_text
from tabkit.evaluate.metrics import ranked_within
from tabkit.report.read import WEIGHT

Floats = npt.NDArray[np.float64]
MOST_POINTS = 150


@dataclass(frozen=True)
class Curve:
    """Points of a curve, thinned for drawing."""

    x: Floats
    y: Floats


@dataclass(frozen=True)
class Confusion:
    """Counts (n_classes, n_classes): rows are what was observed, columns what was predicted.

    ``auc`` is, per class, the ROC AUC of its probability against all other classes; None if one side is missing.
    """

    classes: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    auc: tuple[float | None, ...]

    def recall(self) -> list[float | None]:
        """Return, per class, the share of its rows that were found."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=1))

    def precision(self) -> list[float | None]:
        """Return, per class, the share of its predictions that were right."""
        return _shares(np.diag(self.counts), self.counts.sum(axis=0))


@dataclass(frozen=True)
class Group:
    """Rows with similar predictions: their number, mean prediction, mean observation, and the share inside their intervals."""

    rows: int
    predicted: float
    observed: float
    inside: float | None


def ranked(y: npt.NDArray[np.bool_], score: Floats, w: Floats | None = None) -> tuple[Floats, Floats]:
    """Return true and false positives (n_thresholds + 1,) as the threshold falls, ties taken together, from zero.

    With weights ``w`` (n_rows,), rows count as often as they say.

    >>> ranked(np.array([True, False, True]), np.array([0.9, 0.5, 0.5]))
    (array([0., 1., 2.]), array([0., 0., 1.]))
    """
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)
    counts = np.ones(len(y)) if w is None else w[order]
    hits, flagged = np.cumsum(counts * y[order])[last], np.cumsum(counts)[last]
    return np.r_[0.0, hits], np.r_[0.0, flagged - hits]


def roc(y: npt.NDArray[np.bool_], score: Floats, w: Floats | None = None) -> Curve | None:
    """Return the ROC curve (false positive rate, true positive rate); None if a class is missing."""
    tp, fp = ranked(y, score, w)
    if not tp[-1] or not fp[-1]:
        return None
    return _thinned(fp / fp[-1], tp / tp[-1])


def area(y: npt.NDArray[np.bool_], score: Floats, w: Floats | None = None) -> float | None:
    """Return the area under the ROC curve; None if a class is missing.

    >>> area(np.array([True, False, True, False]), np.array([0.9, 0.5, 0.5, 0.1]))
    0.875
    """
    tp, fp = ranked(y, score, w)
    return float(np.trapezoid(tp, fp) / (tp[-1] * fp[-1])) if tp[-1] and fp[-1] else None


def precision_recall(y: npt.NDArray[np.bool_], score: Floats, w: Floats | None = None) -> Curve | None:
    """Return the precision-recall curve (recall, precision), from the first threshold that finds a positive."""
    tp, fp = ranked(y, score, w)
    if not tp[-1]:
        return None
    some = tp > 0
    return _thinned(tp[some] / tp[-1], tp[some] / (tp[some] + fp[some]))


def _thinned(x: Floats, y: Floats) -> Curve:
    """Keep at most ``MOST_POINTS`` points, evenly along the drawn length, first and last among them."""
    if len(x) > MOST_POINTS:
        along = np.r_[0.0, np.cumsum(np.hypot(np.diff(x), np.diff(y)))]
        wanted = np.linspace(0, along[-1], MOST_POINTS)
        keep = np.unique(np.r_[0, np.searchsorted(along, wanted).clip(0, len(x) - 1), len(x) - 1])
        keep = keep if len(keep) <= MOST_POINTS else np.r_[keep[: MOST_POINTS - 1], len(x) - 1]
        x, y = x[keep], y[keep]
    return Curve(x, y)


def in_order(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return predictions over folds as ranks within their fold, as metrics of their order take them; others as they are."""
    if "fold" not in frame.columns:
        return frame
    if (weights := weights_of(frame)) is not None:
        within = ranked_within(frame.select(names).to_numpy(), frame["fold"].to_numpy(), weights)
        return frame.with_columns(pl.Series(name, within[:, k]) for k, name in enumerate(names))
    return frame.with_columns(((pl.col(name).rank() - 0.5) / pl.len()).over("fold") for name in names)


def weights_of(frame: pl.DataFrame) -> Floats | None:
    """Return for how many rows each stands (n_rows,); None if each counts once."""
    return frame[WEIGHT].to_numpy() if WEIGHT in frame.columns else None


def at_grid(curve: Curve, grid: Floats) -> Floats:
    """Return a curve's y at x values, between its points."""
    return np.asarray(np.interp(grid, curve.x, curve.y))


def confusion(frame: pl.DataFrame, name: str, classes: Sequence[str]) -> Confusion | None:
    """Return the confusion matrix of a candidate's most likely classes; None without its columns."""
    columns = [f"{name}:{c}" for c in classes]
    if not set(columns) <= set(frame.columns):
        return None
    probabilities = frame.select(columns).to_numpy()
    predicted = probabilities.argmax(axis=1)
    code = {c: k for k, c in enumerate(classes)}
    observed = np.array([code.get(name, -1) for name in as_text(frame["target"])])
    known = observed >= 0
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (observed[known], predicted[known]), 1)
    ordered = in_order(frame, columns).select(columns).to_numpy()
    weights = weights_of(frame)
    own = None if weights is None else weights[known]
    auc = tuple(area(observed[known] == k, ordered[known, k], own) for k in range(len(classes)))
    return Confusion(tuple(classes), counts, auc)


def grouped(y: Floats, predicted: Floats, parts: int = 10, inside: npt.NDArray[np.bool_] | None = None) -> list[Group]:
    """Return groups of equally many rows by prediction, lowest first (fewer groups if there are fewer rows)."""
    rows = [p for p in np.array_split(np.argsort(predicted, kind="stable"), parts) if len(p)]
    return [
        Group(
            len(p), float(predicted[p].mean()), float(y[p].mean()), None if inside is None else float(inside[p].mean())
        )
        for p in rows
    ]


def sample(y: Floats, predicted: Floats, most: int = 500) -> tuple[Floats, Floats]:
    """Return at most ``most`` (observed, predicted) pairs, evenly over the ranks of what was observed."""
    order = np.argsort(y, kind="stable")
    if len(order) > most:
        order = order[np.linspace(0, len(order) - 1, most).round().astype(int)]
    return y[order], predicted[order]


def histogram(values: Floats, bins: int = 25) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return counts and edges over the middle 98% of the values; the end bins count what lies beyond."""
    low, high = np.quantile(values, [0.01, 0.99])
    if high <= low:
        low, high = values.min() - 0.5, values.max() + 0.5
    counts, edges = np.histogram(values.clip(low, high), bins=bins, range=(float(low), float(high)))
    return counts.astype(np.int64), edges


def _shares(top: npt.NDArray[np.int64], bottom: npt.NDArray[np.int64]) -> list[float | None]:
    return [float(t / b) if b else None for t, b in zip(top, bottom, strict=True)]
