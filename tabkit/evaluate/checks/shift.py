"""How far apart two sets of rows are: by a classifier, by column, by label."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.seed import stream


def two_sample_auc(a: Features, b: Features, seed: int, most_rows: int = 2000) -> float:
    """Return how well a classifier tells rows of ``a`` from rows of ``b``: out-of-fold ROC AUC, .5 for no shift.

    Source: Lopez-Paz & Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = stream(seed, "two-sample")
    parts = [part.take(np.sort(rng.permutation(len(part))[:most_rows])) for part in (a, b)]
    if min(len(part) for part in parts) < 10:
        return 0.5
    x = np.vstack([np.hstack([part.x_num.astype(np.float64), part.x_cat]) for part in parts])
    which = np.repeat([0, 1], [len(part) for part in parts])
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8, random_state=seed, early_stopping=False)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    predicted = cross_val_predict(model, x, which, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(which, predicted))


def column_psi(a: Features, b: Features) -> dict[str, float]:
    """Return the population stability index of each encoded column, from ``a`` to ``b``; .25 is a strong shift.

    Numbers are binned by the deciles of ``a``, missing apart; categories by code. A category held by under 1%
    of the rows is pooled, since rare ones make the index of small samples large by chance.
    """
    out: dict[str, float] = {}
    for i, name in enumerate(a.layout.num_names):
        x, y = a.x_num[:, i], b.x_num[:, i]
        seen = x[~np.isnan(x)]
        edges = np.unique(np.quantile(seen, np.linspace(0.1, 0.9, 9))) if seen.size else np.zeros(0)
        out[name] = _psi(_bins(x, edges), _bins(y, edges), len(edges) + 2)
    for i, name in enumerate(a.layout.cat_names):
        codes_a, codes_b, size = a.x_cat[:, i], b.x_cat[:, i], a.layout.cat_sizes[i]
        rare = np.bincount(codes_a, minlength=size) < 0.01 * len(a)
        remap = np.where(rare, 0, np.arange(size))
        out[name] = _psi(remap[codes_a], remap[codes_b], size)
    return out


def _bins(x: npt.NDArray[np.float32], edges: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    binned = np.searchsorted(edges, x, side="left").astype(np.int64)
    binned[np.isnan(x)] = len(edges) + 1
    return binned


def _psi(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], size: int) -> float:
    # Half a row per bin keeps the logarithm finite.
    p = np.bincount(a, minlength=size) + 0.5
    q = np.bincount(b, minlength=size) + 0.5
    held = (p > 0.5) | (q > 0.5)
    p, q = p[held] / p[held].sum(), q[held] / q[held].sum()
    # What sampling alone adds (a chi-squared over the rows of both sides) is taken off: few rows are no shift.
    by_chance = (held.sum() - 1) * (1 / len(a) + 1 / len(b))
    return float(max(0.0, np.sum((q - p) * np.log(q / p)) - by_chance))


def elsewhere(source: Features, train: Features) -> list[str]:
    """Return the numbers whose middle nine tenths in the source lie outside the range of the target's rows."""
    numbers = [(name, source.x_num[:, i], train.x_num[:, i]) for i, name in enumerate(train.layout.num_names)]
    if train.layout.task == "regression":
        numbers.append(("the target", source.labels, train.labels))
    out = []
    for name, there, here in numbers:
        there, here = there[np.isfinite(there)], here[np.isfinite(here)]
        if len(there) and len(here):
            low, high = np.quantile(there, [0.05, 0.95])
            if low > here.max() or high < here.min():
                out.append(f"{name!r} is {low:.4g} to {high:.4g} there and {here.min():.4g} to {here.max():.4g} here")
    return out


def label_shift(source: Features, train: Features) -> str:
    """Say how far apart the targets of both are."""
    a, b = source.labels, train.labels
    if train.layout.task == "regression":
        pooled = math.sqrt((float(a.var()) + float(b.var())) / 2)
        by = f", {abs(b.mean() - a.mean()) / pooled:.2f} standard deviations apart" if pooled else ""
        return f"the target is {a.mean():.4g} there and {b.mean():.4g} here on average{by}"
    name = train.layout.classes[-1]
    k = len(train.layout.classes) - 1
    return f"the share of '{name}' is {np.mean(a == k):.1%} there and {np.mean(b == k):.1%} here"
