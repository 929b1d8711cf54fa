"""Looks inside a scored model: is it calibrated, which columns does it lean on, which rows does it fail."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.single import single_feature_scores
from tabkit.evaluate.intervals import Interval, Resampler, interval
from tabkit.evaluate.metrics import Floats, Labels, Metric
from tabkit.models.base import Model
from tabkit.seed import stream

MOST_COLUMNS = 60
"""Columns whose importance is measured; in wider tables the strongest by themselves on valid are taken."""

REPEATS = 4
N_BINS = 10

_CONFIDENCE = math.erf(1.96 / math.sqrt(2))
"""95%, as 1.96 standard errors say it."""


def calibration(y: Labels, p: Floats) -> dict[str, object]:
    """Return reliability bins (deciles of the probability), expected calibration error, and the logistic fit.

    Parameters
    ----------
    y
        0 or 1 (n_rows,).
    p
        Probability of 1 (n_rows,).

    Returns
    -------
    dict
        ``bins`` with Wilson 95% intervals, ``ece``, and Cox's ``slope`` and ``intercept`` (1 and 0 are ideal).
    """
    from scipy.stats import binomtest

    edges = np.unique(np.quantile(p, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    bin_of = np.searchsorted(edges, p, side="left")
    bins = []
    for b in np.unique(bin_of):
        inside = bin_of == b
        n = int(inside.sum())
        wilson = binomtest(int(y[inside].sum()), n).proportion_ci(_CONFIDENCE, method="wilson")
        observed = {"observed": float(y[inside].mean()), "low": float(wilson.low), "high": float(wilson.high)}
        bins.append({"predicted": float(p[inside].mean()), **observed, "rows": n})
    ece = float(sum(b["rows"] * abs(b["predicted"] - b["observed"]) for b in bins) / len(y))
    slope, intercept = _cox(y, p)
    return {"bins": bins, "ece": ece, "slope": slope, "intercept": intercept}


def _cox(y: Labels, p: Floats) -> tuple[float | None, float | None]:
    from sklearn.linear_model import LogisticRegression

    clipped = np.clip(p, 1e-6, 1 - 1e-6)
    logit = np.log(clipped / (1 - clipped))
    if np.ptp(logit) < 1e-9 or len(np.unique(y)) < 2:
        return None, None  # a constant prediction has no slope
    fit = LogisticRegression(C=1e9, max_iter=1000).fit(logit[:, None], y)
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


def importance(
    model: Model, train: Features, valid: Features, holdout: Features, metric: Metric, resampler: Resampler
) -> list[tuple[str, Interval]]:
    """Return how much the metric drops on holdout when a table column is permuted, strongest first.

    All that was encoded from a column is permuted together. The interval covers both the draw of rows and of
    permutations. Source: Breiman, *Random Forests*, 2001; Fisher, Rudin & Dominici 2019.
    """
    if model.importance_rows is not None and len(holdout) > model.importance_rows:
        rows = np.sort(stream(resampler.seed, "importance rows").permutation(len(holdout))[: model.importance_rows])
        groups = None if resampler.groups is None else resampler.groups[rows]
        holdout, resampler = holdout.take(rows), replace(resampler, n_rows=len(rows), groups=groups)
    assert holdout.y is not None
    columns = list(train.layout.columns)
    if len(columns) > MOST_COLUMNS:
        scores = single_feature_scores(train, valid)
        columns = sorted(columns, key=lambda c: -scores[c])[:MOST_COLUMNS]
    few = replace(resampler, resamples=max(50, resampler.resamples // (4 * REPEATS)))
    whole = model.predict(holdout)
    base_value, base_spread = metric.value(holdout.y, whole), few.distribution(metric, holdout.y, whole)
    rng = stream(resampler.seed, "importance")
    out = []
    for column in columns:
        values, spreads = [], []
        for _ in range(REPEATS):
            predicted = model.predict(_permuted(holdout, column, rng.permutation(len(holdout))))
            values.append(metric.sign * (base_value - metric.value(holdout.y, predicted)))
            spreads.append(metric.sign * (base_spread - few.distribution(metric, holdout.y, predicted)))
        out.append((column, interval(float(np.mean(values)), np.concatenate(spreads))))
    return sorted(out, key=lambda entry: -entry[1].value)


def _permuted(rows: Features, column: str, order: npt.NDArray[np.int64]) -> Features:
    x_num, x_cat = rows.x_num.copy(), rows.x_cat.copy()
    num = [i for i, source in enumerate(rows.layout.num_source) if source == column]
    cat = [i for i, source in enumerate(rows.layout.cat_source) if source == column]
    x_num[:, num], x_cat[:, cat] = x_num[order][:, num], x_cat[order][:, cat]
    return replace(rows, x_num=x_num, x_cat=x_cat)


def in_slice(frame: pl.DataFrame, where: str) -> npt.NDArray[np.bool_]:
    """Return which rows meet a Polars SQL condition; a condition that is null for a row leaves it out."""
    return frame.select(pl.sql_expr(where).fill_null(False).alias("in"))["in"].to_numpy().astype(np.bool_)
