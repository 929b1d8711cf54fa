"""How far apart two sets of rows are: by a classifier, by column, by label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.seed import stream

ALPHA = 0.01
"""Most false discoveries among the columns said to have moved, in a hundred."""
DEALT = 200
MANY = 1_000
"""Rows of the smaller side from which the chi-squared is near enough in its tail."""
FOLDS, LEAST_EXPECTED = 5, 5
"""Rows that the smaller side must have in a bin, by its share of all."""

Units = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


class Moved(NamedTuple):
    """A column's population stability index beyond what chance gives, and the chance of so much without a shift."""

    psi: float
    chance: float


def two_sample_auc(a: Features, b: Features, seed: int, most_rows: int = 2000, units: Units | None = None) -> float:
    """Return how well a classifier tells rows of ``a`` from rows of ``b``: out-of-fold ROC AUC, .5 for no shift.

    Source: Lopez-Paz & Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017. Rows of one unit stay in one fold: a
    group that the classifier has learned by heart is no shift.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    rng = stream(seed, "two-sample")
    drawn = [np.sort(rng.permutation(len(part))[:most_rows]) for part in (a, b)]
    parts = [part.take(rows) for part, rows in zip((a, b), drawn, strict=True)]
    if min(len(part) for part in parts) < 10:
        return 0.5
    x = np.vstack([np.hstack([part.x_num.astype(np.float64), part.x_cat]) for part in parts])
    which = np.repeat([0, 1], [len(part) for part in parts])
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8, random_state=seed, early_stopping=False)
    codes = None if units is None else np.r_[units[0][drawn[0]], units[1][drawn[1]]]
    if codes is not None and min(len(np.unique(codes[which == k])) for k in (0, 1)) < FOLDS:
        return 0.5
    cut = StratifiedKFold if codes is None else StratifiedGroupKFold
    folds = cut(FOLDS, shuffle=True, random_state=seed)
    predicted = cross_val_predict(model, x, which, groups=codes, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(which, predicted))


def column_psi(a: Features, b: Features) -> dict[str, float]:
    """Return the population stability index of each encoded column, from ``a`` to ``b``; .25 is a strong shift."""
    return {name: moved.psi for name, moved in column_shift(a, b).items()}


def column_shift(a: Features, b: Features, units: Units | None = None) -> dict[str, Moved]:
    """Return how far each encoded column moved from ``a`` to ``b``.

    Numbers are binned by quantiles of both (ten, or fewer if rows are few), missing apart; categories by code. Bins too
    rare for the smaller side are pooled. Without a shift the index is (1/n + 1/m) times a chi-squared of one less than there
    are bins (Yurdakul & Naranjo, *J. Risk Model Valid.* 2020): its mean is taken off, and its tail is the chance.

    Few rows have a heavier tail, and rows that hang together another one: then what seems to have moved is held against
    rows, or whole units, dealt anew (Westfall & Young, *Resampling-Based Multiple Testing* 1993: the best of all columns).

    Parameters
    ----------
    units
        Codes of rows that hang together, of ``a`` and of ``b``, none on both sides; None if rows are independent.
    """
    coded = list(_coded(a, b))
    found = {name: _psi(codes, len(a)) for name, codes in coded}
    if not discoveries(found, ALPHA) or (units is None and min(len(a), len(b)) >= MANY):
        return found
    codes = np.arange(len(a) + len(b)) if units is None else np.r_[units]
    names, at = np.unique(codes, return_inverse=True)
    n_held = len(np.unique(codes[len(a) :]))
    rng, least = stream(0, "dealt anew"), np.ones(DEALT)
    for draw in range(DEALT):
        held = np.isin(at, rng.permutation(len(names))[:n_held])
        order = np.argsort(held, kind="stable")
        least[draw] = min(_psi(column[order], int((~held).sum())).chance for _, column in coded)
    # Divided by the columns, since whoever looks for discoveries reckons with all of them.
    return {
        n: Moved(m.psi, float((1 + (least <= m.chance).sum()) / (DEALT + 1)) / len(found)) for n, m in found.items()
    }


def discoveries(found: Mapping[str, Moved], level: float) -> set[str]:
    """Return the columns whose shift is no chance, false discoveries at most ``level`` (Benjamini & Hochberg 1995).

    >>> sorted(discoveries({"a": Moved(1, 0.001), "b": Moved(1, 0.009), "c": Moved(1, 0.02)}, 0.01))
    ['a']
    """
    order = sorted(found, key=lambda name: found[name].chance)
    last = max((k for k, name in enumerate(order, 1) if found[name].chance <= level * k / len(order)), default=0)
    return set(order[:last])


def _coded(a: Features, b: Features) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """Yield the bin of each row, those of ``a`` first, by column."""
    n_bins = int(np.clip(min(len(a), len(b)) / 10, 2, 10))
    for i, name in enumerate(a.layout.num_names):
        x, y = a.x_num[:, i], b.x_num[:, i]
        seen = np.r_[x, y][~np.isnan(np.r_[x, y])]
        edges = np.unique(np.quantile(seen, np.linspace(0, 1, n_bins + 1)[1:-1])) if seen.size else np.zeros(0)
        yield name, _bins(np.r_[x, y], edges)
    for i, name in enumerate(a.layout.cat_names):
        yield name, np.r_[a.x_cat[:, i], b.x_cat[:, i]]


def _bins(x: npt.NDArray[np.float32], edges: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    binned = np.searchsorted(edges, x, side="left").astype(np.int64)
    binned[np.isnan(x)] = len(edges) + 1
    return binned


def _psi(codes: npt.NDArray[np.int64], n: int) -> Moved:
    """Return the index of codes, the first ``n`` of which are those of before."""
    from scipy.special import chdtrc

    size, m = int(codes.max(initial=0)) + 1, len(codes) - n
    counts = np.stack([np.bincount(codes[:n], minlength=size), np.bincount(codes[n:], minlength=size)])
    counts = _without_rare(counts[:, counts.sum(axis=0) > 0], LEAST_EXPECTED * (n + m) / min(n, m))
    if counts.shape[1] < 2:
        return Moved(0.0, 1.0)
    # Half a row in a bin that lacks any keeps the logarithm finite.
    p, q = (np.maximum(side, 0.5) / np.maximum(side, 0.5).sum() for side in counts)
    by_chance = 1 / n + 1 / m
    index, freedom = float(np.sum((q - p) * np.log(q / p))), counts.shape[1] - 1
    return Moved(max(0.0, index - freedom * by_chance), float(chdtrc(freedom, index / by_chance)))


def _without_rare(counts: npt.NDArray[np.int64], least: float) -> npt.NDArray[np.int64]:
    """Return counts (2, n_bins) with the rare bins pooled, and with the next rarest if they are still too few."""
    counts = counts[:, np.argsort(-counts.sum(axis=0), kind="stable")]
    total = counts.sum(axis=0)
    rare = int((total >= least).sum())
    while 0 < rare < len(total) and total[rare:].sum() < least:
        rare -= 1
    if rare == len(total):
        return counts
    return np.column_stack([counts[:, :rare], counts[:, rare:].sum(axis=1)])


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
