"""The prior: synthetic tables on which the in-context base is pretrained, drawn in numpy, whole columns at a time.

Three families, after TabPFN's structural causal models (Hollmann et al., 2023) and TabICL's mixture of mechanisms
(Qu et al., 2025): a random directed graph of mixed mechanisms (``causal``), a deep noisy network whose inner
activations are the columns (``deep``), and columns with the marginals of business tables under a sparse additive
or tree score (``score``). What real tables do to their columns is then done to these: skew, rounding, censoring,
codes in arbitrary order, noise columns, near copies, missing values.

Axes: ``R`` rows, ``C`` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Mechanism = Callable[[Array, np.random.Generator], Array]
"""(parents (R, K), rng) -> (R,)."""

MAX_CLASSES = 10


@dataclass(frozen=True)
class Synthetic:
    """A table: cells (R, C) with NaN where missing, which columns hold codes (C,), targets (R,).

    ``n_classes`` is 0 for regression.
    """

    x: Array
    categorical: npt.NDArray[np.bool_]
    y: Array
    n_classes: int


def draw(rng: np.random.Generator, n_rows: int, n_context: int, n_columns: int, regression: bool) -> Synthetic:
    """Draw a table whose first ``n_context`` rows hold at least two classes (values).

    Raises
    ------
    RuntimeError
        A hundred tables in a row had a constant target: the prior is broken.
    """
    for _ in range(100):
        family = FAMILIES[rng.choice(len(FAMILIES), p=(0.4, 0.2, 0.4))]
        x, score = family(rng, n_rows, n_columns)
        # Rows that no family orders: a context must be an even sample of its table.
        order = rng.permutation(n_rows)
        x, score = x[order], score[order]
        y, n_classes = (_numbers(score, rng), 0) if regression else _classes(score, rng)
        context = y[:n_context]
        if np.isfinite(y).all() and len(np.unique(context)) >= 2:
            cells, categorical = _as_real_tables(x, rng)
            return Synthetic(cells, categorical, y, n_classes)
    raise RuntimeError("a hundred tables in a row had a constant target")


def draw_easy(rng: np.random.Generator, n_rows: int, n_context: int, n_columns: int, regression: bool) -> Synthetic:
    """Draw a table of normal columns with a linear target, or two even classes cut from it: the first lesson."""
    x = rng.standard_normal((n_rows, n_columns), np.float32)
    y = _standardise(_linear(x, rng))
    if not regression:
        y = (y > np.median(y[:n_context])).astype(np.float32)
    return Synthetic(x, np.zeros(n_columns, np.bool_), y, 0 if regression else 2)


def _causal(rng: np.random.Generator, n_rows: int, n_columns: int) -> tuple[Array, Array]:
    """Nodes of a random graph, each a mechanism of a few earlier ones; one node, not always a leaf, is the target."""
    n_nodes = n_columns + 1 + int(rng.integers(0, n_columns // 2 + 3))
    n_roots = int(rng.integers(1, max(2, n_nodes // 2)))
    values = np.empty((n_rows, n_nodes), np.float32)
    noise = float(np.exp(rng.uniform(np.log(0.01), np.log(0.6))))
    values[:, :n_roots] = _roots(rng, n_rows, n_roots)
    for node in range(n_roots, n_nodes):
        n_parents = min(node, 1 + int(rng.geometric(0.35)))
        parents = values[:, rng.choice(node, n_parents, replace=False)]
        made = _mechanism(rng)(parents, rng)
        values[:, node] = _standardise(made) + noise * rng.standard_normal(n_rows, np.float32)
    target = int(rng.integers(n_roots, n_nodes))
    others = np.delete(np.arange(n_nodes), target)
    chosen = rng.choice(others, n_columns, replace=False)
    return values[:, chosen], values[:, target][:, None]


def _deep(rng: np.random.Generator, n_rows: int, n_columns: int) -> tuple[Array, Array]:
    """A noisy network from a few causes; columns are any of its activations, the target is read from a late layer."""
    width = int(rng.integers(max(4, n_columns // 2), 2 * n_columns + 8))
    layer = _roots(rng, n_rows, int(rng.integers(2, n_columns + 2)))
    noise = float(np.exp(rng.uniform(np.log(0.003), np.log(0.3))))
    seen = [layer]
    for _ in range(int(rng.integers(1, 5))):
        weight = rng.standard_normal((layer.shape[1], width), np.float32)
        weight *= rng.random(weight.shape) < rng.uniform(0.2, 1.0)
        layer = _activation(rng)(_standardise(layer @ weight) + rng.standard_normal(width, np.float32))
        layer = layer + noise * rng.standard_normal(layer.shape, np.float32)
        seen.append(layer)
    activations = np.hstack(seen)
    replace = activations.shape[1] < n_columns
    x = activations[:, rng.choice(activations.shape[1], n_columns, replace=replace)]
    n_outputs = int(rng.integers(1, 6))
    score = seen[-1] @ rng.standard_normal((seen[-1].shape[1], n_outputs), np.float32)
    return x, score


def _score(rng: np.random.Generator, n_rows: int, n_columns: int) -> tuple[Array, Array]:
    """Columns like a business table's, and a score of shapes of single columns, pairs and trees over them."""
    x = _roots(rng, n_rows, n_columns)
    n_factors = int(rng.integers(0, 4))
    if n_factors:
        loadings = rng.standard_normal((n_factors, n_columns), np.float32) * rng.uniform(0, 1.5)
        x = x + rng.standard_normal((n_rows, n_factors), np.float32) @ loadings
    x = _standardise(x)
    n_used = int(np.ceil(n_columns * rng.beta(1.2, 1.2)))
    used = rng.choice(n_columns, max(1, n_used), replace=False)
    weights = rng.standard_normal(len(used)) * rng.exponential(1.0, len(used)) ** rng.uniform(0, 1.5)
    kind = rng.choice(4, p=(0.25, 0.25, 0.3, 0.2))
    score = np.zeros(n_rows, np.float32)
    if kind in (0, 1, 3):
        shape = _linear if kind == 0 else None
        for column, weight in zip(used, weights, strict=True):
            made = (shape or _mechanism(rng))(x[:, [column]], rng)
            score += np.float32(weight) * _standardise(made)
    if kind == 3:
        for _ in range(int(rng.integers(1, len(used) + 2))):
            pair = x[:, rng.choice(used, min(2, len(used)), replace=False)]
            score += np.float32(rng.standard_normal()) * _standardise(_mechanism(rng)(pair, rng))
    if kind == 2:
        for _ in range(int(np.exp(rng.uniform(0, np.log(30))))):
            score += _tree(x[:, used], rng)
    noise = float(rng.uniform(0, 1) ** 2)
    return x, (_standardise(score) + noise * rng.standard_normal(n_rows, np.float32))[:, None]


FAMILIES = (_causal, _deep, _score)


def _roots(rng: np.random.Generator, n_rows: int, n: int) -> Array:
    """Causes (R, n): normal, heavy-tailed, uniform, mixtures; each column of one kind."""
    x = rng.standard_normal((n_rows, n), np.float32)
    kinds = rng.choice(5, n, p=(0.5, 0.1, 0.2, 0.1, 0.1))
    for column in range(n):
        match kinds[column]:
            case 1:
                x[:, column] = rng.standard_t(3, n_rows).clip(-20, 20)
            case 2:
                x[:, column] = rng.uniform(-1.7, 1.7, n_rows)
            case 3:
                x[:, column] = rng.exponential(1.0, n_rows) - 1.0
            case 4:
                centres = rng.standard_normal(int(rng.integers(2, 6))) * 2
                x[:, column] = 0.4 * x[:, column] + centres[rng.integers(0, len(centres), n_rows)]
    return x


def _linear(parents: Array, rng: np.random.Generator) -> Array:
    return np.asarray(parents @ rng.standard_normal(parents.shape[1], np.float32), np.float32)


def _network(parents: Array, rng: np.random.Generator) -> Array:
    width = int(rng.integers(2, 17))
    inner = parents @ rng.standard_normal((parents.shape[1], width), np.float32) + rng.standard_normal(
        width, np.float32
    )
    return np.asarray(_activation(rng)(inner) @ rng.standard_normal(width, np.float32), np.float32)


def _tree(parents: Array, rng: np.random.Generator) -> Array:
    """An oblivious tree: the same cut at every node of a level, a random value in every leaf."""
    depth = int(rng.integers(1, 7))
    leaf = np.zeros(len(parents), np.int64)
    for _ in range(depth):
        column = parents[:, rng.integers(parents.shape[1])]
        leaf = 2 * leaf + (column > column[rng.integers(len(column))])
    return np.asarray(rng.standard_normal(2**depth, np.float32)[leaf], np.float32)


def _smooth(parents: Array, rng: np.random.Generator) -> Array:
    """A draw of a Gaussian process, by random Fourier features (Rahimi & Recht, NIPS 2007)."""
    n_waves, scale = 32, float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    frequency = rng.standard_normal((parents.shape[1], n_waves), np.float32) * np.float32(scale)
    phase = rng.uniform(0, 2 * np.pi, n_waves).astype(np.float32)
    return np.asarray(np.cos(parents @ frequency + phase) @ rng.standard_normal(n_waves, np.float32), np.float32)


def _nearest(parents: Array, rng: np.random.Generator) -> Array:
    centres = parents[rng.integers(0, len(parents), int(rng.integers(2, 12)))]
    distance = (centres**2).sum(axis=1) - 2 * parents @ centres.T
    return np.asarray(rng.standard_normal(len(centres), np.float32)[distance.argmin(axis=1)], np.float32)


def _quadratic(parents: Array, rng: np.random.Generator) -> Array:
    left, right = (parents @ rng.standard_normal(parents.shape[1], np.float32) for _ in range(2))
    return left * right


def _gate(parents: Array, rng: np.random.Generator) -> Array:
    """One of two linear rules, by a cut on one parent."""
    column = parents[:, rng.integers(parents.shape[1])]
    open_ = column > column[rng.integers(len(column))]
    return np.where(open_, _linear(parents, rng), _linear(parents, rng)).astype(np.float32)


def _forest(parents: Array, rng: np.random.Generator) -> Array:
    return np.asarray(sum(_tree(parents, rng) for _ in range(int(rng.integers(2, 9)))), np.float32)


MECHANISMS: tuple[tuple[Mechanism, float], ...] = (
    (_linear, 0.22), (_network, 0.2), (_tree, 0.14), (_forest, 0.12), (_smooth, 0.1), (_nearest, 0.08),
    (_quadratic, 0.07), (_gate, 0.07),
)  # fmt: skip


def _mechanism(rng: np.random.Generator) -> Mechanism:
    return MECHANISMS[rng.choice(len(MECHANISMS), p=[share for _, share in MECHANISMS])][0]


def _activation(rng: np.random.Generator) -> Callable[[Array], Array]:
    kinds: tuple[Callable[[Array], Array], ...] = (
        np.tanh,
        np.sin,
        lambda v: np.maximum(v, 0),
        np.abs,
        np.square,
        lambda v: np.exp(-(v**2)),
        lambda v: (v > 0).astype(np.float32),
        lambda v: v,
    )
    return kinds[rng.integers(len(kinds))]


def _standardise(x: Array) -> Array:
    x = np.nan_to_num(x, nan=0.0, posinf=1e6, neginf=-1e6).astype(np.float32)
    spread = x.std(axis=0)
    return np.asarray((x - x.mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0), np.float32)


def _classes(score: Array, rng: np.random.Generator) -> tuple[Array, int]:
    """Turn scores (R, K) into classes: cut at quantiles, the largest of random read-outs, or nearest centres."""
    n_classes = 2 if rng.random() < 0.65 else int(rng.integers(3, MAX_CLASSES + 1))
    noisy = _standardise(score)
    if rng.random() < 0.5:
        noisy = noisy + np.float32(rng.exponential(0.3)) * rng.logistic(size=noisy.shape).astype(np.float32)
    kind = rng.random()
    if n_classes == 2 or kind < 0.3:
        # Prevalence: even at times, rare at times; ordered classes of unequal share.
        shares = rng.dirichlet(np.full(n_classes, float(rng.choice([0.7, 2.0, 20.0]))))
        cuts = np.quantile(noisy[:, 0], np.cumsum(shares)[:-1].clip(0.01, 0.99))
        y = np.searchsorted(cuts, noisy[:, 0])
    elif kind < 0.65:
        read = noisy @ rng.standard_normal((noisy.shape[1], n_classes)) + rng.standard_normal(n_classes)
        y = (read + 0.3 * rng.gumbel(size=read.shape)).argmax(axis=1)
    else:
        centres = noisy[rng.integers(0, len(noisy), n_classes)]
        y = ((noisy[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    codes = rng.permutation(n_classes)
    return codes[y].astype(np.float32), n_classes


def _numbers(score: Array, rng: np.random.Generator) -> Array:
    y = _standardise(score[:, 0])
    y = y + np.float32(rng.choice([0.0, 0.1, 0.3, 0.8])) * rng.standard_normal(len(y), np.float32)
    return _standardise(_warp(y, rng)) if rng.random() < 0.5 else y


def _warp(column: Array, rng: np.random.Generator) -> Array:
    """Skew, stretch or squeeze a standardised column."""
    v = column.clip(-5, 5)
    match rng.integers(6):
        case 0:
            return np.asarray(np.exp(v * np.float32(rng.uniform(0.3, 1.2))))
        case 1:
            return np.asarray(np.sign(v) * np.abs(v) ** np.float32(rng.uniform(0.4, 3.0)))
        case 2:
            return np.asarray(np.tanh(v * np.float32(rng.uniform(0.5, 2.0))))
        case 3:
            return np.asarray(np.exp(v**2 / 6))
        case 4:
            return np.asarray(np.maximum(v, np.float32(rng.standard_normal())))
        case _:
            return v


def _as_real_tables(x: Array, rng: np.random.Generator) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Do to columns (R, C) what real ones have seen; return the cells and which columns hold codes."""
    n_rows, n_columns = x.shape
    x = _standardise(x)
    categorical = np.zeros(n_columns, np.bool_)
    share_codes = rng.beta(0.6, 1.2)
    share_noise = rng.choice([0.0, 0.1, 0.4], p=(0.5, 0.3, 0.2))
    for column in range(n_columns):
        v = x[:, column]
        if rng.random() < share_noise:
            v = v[rng.permutation(n_rows)]
        if column and rng.random() < 0.03:
            v = x[:, rng.integers(column)] + np.float32(0.05) * rng.standard_normal(n_rows, np.float32)
        if rng.random() < share_codes:
            v, categorical[column] = _codes(v, rng), rng.random() < 0.8
        else:
            if rng.random() < 0.4:
                v = _warp(v, rng)
            if rng.random() < 0.25:
                step = np.float32(np.exp(rng.uniform(np.log(0.05), np.log(1.0))))
                v = np.round(v / step) * step
            if rng.random() < 0.05:
                v = np.where(rng.random(n_rows) < rng.uniform(0.3, 0.9), np.float32(0), v)
        x[:, column] = v
    if rng.random() < 0.35:
        _remove(x, rng)
    return np.nan_to_num(x, nan=np.nan, posinf=1e6, neginf=-1e6), categorical


def _codes(v: Array, rng: np.random.Generator) -> Array:
    """Cut a column into a few values of unequal share, in order or not."""
    n = 2 if rng.random() < 0.4 else min(50, 2 + int(rng.geometric(0.2)))
    cuts = np.quantile(v, np.sort(rng.random(n - 1)))
    codes = np.searchsorted(cuts, v)
    if rng.random() < 0.7:
        codes = rng.permutation(n)[codes]
    return codes.astype(np.float32)


def _remove(x: Array, rng: np.random.Generator) -> None:
    """Blank cells in place: at random, or where another column is high."""
    n_rows, n_columns = x.shape
    for column in np.flatnonzero(rng.random(n_columns) < rng.uniform(0.05, 0.8)):
        share = rng.beta(0.8, 4.0)
        if rng.random() < 0.5:
            urge = rng.random(n_rows)
        else:
            other = np.nan_to_num(x[:, rng.integers(n_columns)])
            urge = other + 0.5 * other.std() * rng.standard_normal(n_rows)
        hit = np.asarray(urge > np.quantile(urge, 1 - share))
        # A column that is missing throughout says nothing; some of it stays.
        hit[rng.integers(n_rows)] = False
        x[hit, column] = np.nan
