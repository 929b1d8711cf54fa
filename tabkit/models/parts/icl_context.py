"""The context of the in-context base: which rows of train each member reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.models.base import cells_of
from tabkit.models.parts.icl_net import Draw, random_draw

MAX_COLUMNS = 60
"""Columns a member reads; more than the base was pretrained with, and as far as it was found to carry."""


@dataclass(frozen=True)
class Effort:
    """How much of the table is read and learned, by budget. ``episode_rows`` are context and query rows together."""

    members: int
    context_rows: int
    epochs: int
    episodes: int
    episode_rows: int


@dataclass(frozen=True)
class Table:
    """The rows that contexts are cut from: cells (N, C), targets (N,) as class codes or standardised numbers.

    ``shares`` (members, rows) are the positions that each member reads. ``ratios`` are the classes' shares of train
    over their shares of a context; empty where contexts are as train is. ``leaning`` are their shares of train by weight over
    those by number, empty if rows are not weighted; answers are corrected by it if the base ``leans``.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    categorical: npt.NDArray[np.bool_]
    shares: npt.NDArray[np.int64]
    classes: int
    regression: bool
    y_mean: float
    y_std: float
    effort: Effort
    seed: int
    train_rows: int
    ratios: Sequence[float] = ()
    temperature: float = 1.0
    leaning: Sequence[float] = ()
    leans: bool = False

    @classmethod
    def of(cls, train: Features, effort: Effort, seed: int) -> Table:
        """Take the rows of train that the members read."""
        assert train.y is not None
        regression = train.layout.task == "regression"
        mean, std = (float(train.y.mean()), float(train.y.std()) or 1.0) if regression else (0.0, 1.0)
        read = shares_of(train, effort, seed)
        kept, positions = np.unique(read, return_inverse=True)
        x, categorical = cells_of(train.take(kept))
        return cls(
            x,
            ((train.y[kept] - mean) / std).astype(np.float32),
            categorical,
            positions.reshape(read.shape),
            len(train.layout.classes),
            regression,
            mean,
            std,
            effort,
            seed,
            len(train),
            () if regression or read.shape[1] == len(train) else _ratios(train, read[0]),
            leaning=() if regression or train.w is None else _leaning(train),
        )

    @property
    def correction(self) -> npt.NDArray[np.float64]:
        """What the probability of each class is multiplied with, (n_classes,) or (1,)."""
        ratios = np.asarray(self.ratios or (1.0,), dtype=np.float64)
        return ratios * self.leaning if self.leans else ratios

    @property
    def chosen(self) -> dict[str, Any]:
        """What valid chose of the answers."""
        return {"temperature": self.temperature, **({"weighted_classes": self.leans} if self.leaning else {})}

    def as_dict(self) -> dict[str, Any]:
        """Return what is not an array, as JSON values."""
        names = ("classes", "regression", "y_mean", "y_std", "seed", "train_rows", "ratios", "temperature")
        weighted = {"leaning": self.leaning, "leans": self.leans} if self.leaning else {}
        return {**{n: getattr(self, n) for n in names}, **weighted, "effort": vars(self.effort)}

    def describe(self) -> str:
        """Say what is read, in words."""
        n, each = self.shares.shape
        return f"{n} contexts of {each:,} rows ({len(self.y):,} of {self.train_rows:,} train rows)"

    def columns(self, member: int) -> npt.NDArray[np.int64]:
        """Return the columns a member reads."""
        n = self.x.shape[1]
        if n <= MAX_COLUMNS:
            return np.arange(n)
        return np.sort(np.random.default_rng([self.seed, member, 1]).choice(n, MAX_COLUMNS, replace=False))

    def draw(self, member: int, n_columns: int, n_classes: int) -> Draw:
        """Return a member's column ids and class codes."""
        return random_draw(np.random.default_rng([self.seed, member]), 1, n_columns, max(1, n_classes))


def shares_of(train: Features, effort: Effort, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows (members, rows) of train that each member reads: all that fit, else its part, round and round."""
    n, most = len(train), effort.context_rows
    if n <= most:
        return np.tile(np.arange(n), (effort.members, 1))
    if train.layout.task == "regression":
        sources: list[tuple[npt.NDArray[np.int64], int]] = [(_stratified(train, seed), most)]
    else:
        labels = train.labels.astype(np.int64)
        quotas = _quotas(np.bincount(labels, minlength=len(train.layout.classes)), most)
        own = [np.random.default_rng([seed, k]).permutation(np.flatnonzero(labels == k)) for k in range(len(quotas))]
        sources = [(rows, int(quota)) for rows, quota in zip(own, quotas, strict=True) if quota]
    parts = [
        [rows[np.arange(member * quota, (member + 1) * quota) % len(rows)] for rows, quota in sources]
        for member in range(effort.members)
    ]
    return np.stack([np.sort(np.concatenate(part)) for part in parts])


def _quotas(counts: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Share ``most`` rows out among classes as their counts are, but none under half an even share while it has rows.

    >>> _quotas(np.array([950, 50]), 100).tolist(), _quotas(np.array([950, 10]), 100).tolist()
    ([75, 25], [90, 10])
    """
    least = np.minimum(counts, most // (2 * max(1, int((counts > 0).sum()))))
    rare = np.zeros(len(counts), np.bool_)
    while True:
        left = most - int(least[rare].sum())
        fair = left * counts / max(1, counts[~rare].sum())
        short = ~rare & (fair < least)
        if not short.any():
            break
        rare |= short
    quotas = np.where(rare, least, fair.astype(np.int64))
    order = np.argsort(np.where(rare, np.inf, np.floor(fair) - fair), kind="stable")
    quotas[order[: most - quotas.sum()]] += 1  # the largest remainders
    return np.asarray(quotas, np.int64)


def _ratios(train: Features, context: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Return each class's share of train over its share of a context; 1 for a class without rows."""
    k = len(train.layout.classes)
    labels = train.labels.astype(np.int64)
    whole, read = (np.bincount(part, minlength=k) / len(part) for part in (labels, labels[context]))
    return tuple(float(w / r) if r else 1.0 for w, r in zip(whole, read, strict=True))


def _leaning(train: Features) -> tuple[float, ...]:
    """Return each class's share of train by weight over that by number; 1 for a class without rows."""
    k, labels = len(train.layout.classes), train.labels.astype(np.int64)
    number, weight = np.bincount(labels, minlength=k), np.bincount(labels, train.weights, minlength=k)
    return tuple(float(w / n / train.weights.mean()) if n else 1.0 for n, w in zip(number, weight, strict=True))


def _stratified(train: Features, seed: int) -> npt.NDArray[np.int64]:
    """Order rows so that every stretch has the classes (or the target's range) in train's proportions."""
    assert train.y is not None
    order = np.random.default_rng(seed).permutation(len(train))
    ranked = order[np.argsort(train.y[order], kind="stable")]
    # Rows sorted by target, dealt out evenly: the k-th of a class with n rows comes at (k + 1/2) / n of the way.
    if train.layout.task == "regression":
        bins = np.arange(len(train)) * min(10, len(train)) // len(train)
        place = np.empty(len(train))
        for b in np.unique(bins):
            inside = np.flatnonzero(bins == b)
            place[np.random.default_rng([seed, int(b)]).permutation(inside)] = (np.arange(len(inside)) + 0.5) / len(
                inside
            )
    else:
        labels = train.y[ranked]
        _, start, count = np.unique(labels, return_index=True, return_counts=True)
        place = np.concatenate([(np.arange(n) + 0.5) / n for n in count[np.argsort(start)]])
    return np.asarray(ranked[np.argsort(place, kind="stable")], np.int64)


def part_of(rows: Features, most: int, seed: int) -> Features:
    """Return at most so many rows, with the classes (or the target's range) of all."""
    return rows if len(rows) <= most else rows.take(np.sort(_stratified(rows, seed)[:most]))
