"""Looks inside a scored model: is it calibrated, which columns does it lean on, which rows does it fail."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.single import single_features
from tabkit.data.weighing import effective_rows
from tabkit.evaluate.intervals import Resampled, Resampler, difference, interval
from tabkit.evaluate.metrics import Floats, Labels, Metric
from tabkit.models.base import Model
from tabkit.result import Calibration
from tabkit.result.findings import CalibrationBin
from tabkit.result.tables import ColumnImportance
from tabkit.seed import stream

MOST_COLUMNS = 60
"""Columns whose importance is measured; in wider tables the strongest by themselves on valid are taken."""

REPEATS = 4
N_BINS = 10

_CONFIDENCE = math.erf(1.96 / math.sqrt(2))
"""95%, as 1.96 standard errors say it."""


def calibration(y: Labels, p: Floats, weights: Floats | None = None) -> Calibration:
    """Return reliability bins (deciles of the probability), expected calibration error, and the logistic fit.

    Of weighted rows, a bin's interval is that of as many rows of equal weight as tell as much.

    Parameters
    ----------
    y
        0 or 1 (n_rows,).
    p
        Probability of 1 (n_rows,).
    weights
        For how many rows each stands, (n_rows,); None if each counts once.
    """

    edges = np.unique(np.quantile(p, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    bin_of = np.searchsorted(edges, p, side="left")
    bins, held = [], []
    for b in np.unique(bin_of):
        inside = bin_of == b
        bins.append(_bin(y[inside], p[inside], None if weights is None else weights[inside]))
        held.append(bins[-1].rows if weights is None else float(weights[inside].sum()))
    ece = float(sum(n * abs(b.predicted - b.observed) for n, b in zip(held, bins, strict=True)) / sum(held))
    slope, intercept = _cox(y, p, weights)
    return Calibration(bins=tuple(bins), ece=ece, slope=slope, intercept=intercept)


def _bin(y: Labels, p: Floats, w: Floats | None) -> CalibrationBin:
    from scipy.stats import binomtest

    if w is None:
        observed, predicted = float(y.mean()), float(p.mean())
        wilson = binomtest(int(y.sum()), len(y)).proportion_ci(_CONFIDENCE, method="wilson")
        low, high = float(wilson.low), float(wilson.high)
    else:
        observed, predicted = float(np.average(y, weights=w)), float(np.average(p, weights=w))
        low, high = _wilson(observed, effective_rows(w))
    return CalibrationBin(predicted=predicted, observed=observed, low=low, high=high, rows=len(y))


def _wilson(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share of ``n`` rows, which need not be a whole number."""
    z2 = 1.96**2 / n
    half = math.sqrt(z2 * share * (1 - share) + z2**2 / 4)
    return (share + z2 / 2 - half) / (1 + z2), (share + z2 / 2 + half) / (1 + z2)


def _cox(y: Labels, p: Floats, weights: Floats | None) -> tuple[float | None, float | None]:
    from sklearn.linear_model import LogisticRegression

    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))
    if np.ptp(logit) < 1e-9 or len(np.unique(y)) < 2:
        return None, None  # a constant prediction has no slope
    fit = LogisticRegression(C=1e9, max_iter=1000).fit(logit[:, None], y, sample_weight=weights)
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


def importance(
    model: Model, train: Features, valid: Features, holdout: Features, metric: Metric, resampler: Resampler
) -> list[ColumnImportance]:
    """Return how much the metric drops on holdout when a table column is permuted, strongest first.

    All that was encoded from a column is permuted together. The interval covers both the draw of rows and of
    permutations. Source: Breiman, *Random Forests*, 2001; Fisher, Rudin & Dominici 2019.
    """
    if model.importance_rows is not None and len(holdout) > model.importance_rows:
        rows = np.sort(stream(resampler.seed, "importance rows").permutation(len(holdout))[: model.importance_rows])
        holdout, resampler = holdout.take(rows), resampler.at(rows)
    columns = list(train.layout.columns)
    if len(columns) > MOST_COLUMNS:
        alone = single_features(train, valid)
        columns = sorted(columns, key=lambda c: -alone[c].score)[:MOST_COLUMNS]
    few = replace(resampler, resamples=max(50, resampler.resamples // (4 * REPEATS)))
    whole = model.predict(holdout)
    intact = few.score(metric, holdout.labels, whole)
    rng = stream(resampler.seed, "importance")
    out = []
    for column in columns:
        drops = []
        for _ in range(REPEATS):
            predicted = model.predict(_permuted(holdout, column, rng.permutation(len(holdout))))
            drops.append(difference(metric, intact, few.score(metric, holdout.labels, predicted)))
        mean = float(np.mean([drop.value for drop in drops]))
        drop = interval(Resampled(mean, np.concatenate([drop.draws for drop in drops])))
        out.append(ColumnImportance(name=column, drop=drop.value, low=drop.low, high=drop.high))
    return sorted(out, key=lambda entry: -entry.drop)


def _permuted(rows: Features, column: str, order: npt.NDArray[np.int64]) -> Features:
    x_num, x_cat = rows.x_num.copy(), rows.x_cat.copy()
    num = [i for i, source in enumerate(rows.layout.num_source) if source == column]
    cat = [i for i, source in enumerate(rows.layout.cat_source) if source == column]
    x_num[:, num], x_cat[:, cat] = x_num[order][:, num], x_cat[order][:, cat]
    return replace(rows, x_num=x_num, x_cat=x_cat)


def in_slice(frame: pl.DataFrame, where: str) -> npt.NDArray[np.bool_]:
    """Return which rows meet a Polars SQL condition; a condition that is null for a row leaves it out."""
    # Beside the columns, so that a condition which reads none of them still has a value for every row.
    return frame.with_columns(pl.sql_expr(where).fill_null(False).alias("in"))["in"].to_numpy().astype(np.bool_)
