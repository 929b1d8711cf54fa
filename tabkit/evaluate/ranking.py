"""Metrics of ranked lists: one number per user, so that a resample of users is a weighted mean.

Recall@K = hits / items taken, those not in the catalogue included; NDCG@K is binary, its ideal over
min(K, items taken) (Järvelin & Kekäläinen 2002); reciprocal rank within the list; average precision divided by
min(K, items taken). Users weigh equally; one for whom a metric is undefined gives NaN and is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.data.interactions import Truth
from tabkit.rankers.base import Lists

Floats = npt.NDArray[np.float64]
DEPTH = 20
"""Lists are evaluated down to here."""


@dataclass(frozen=True)
class Hits:
    """Lists compared with the truth.

    Attributes
    ----------
    hit
        Whether the item at each rank was taken (n_users, k) bool.
    new_hit
        The same for the lists without what the user had before, where these were made.
    n_true, n_new
        Items taken, and those among them that were new to the user (n_users,).
    """

    hit: npt.NDArray[np.bool_]
    n_true: npt.NDArray[np.int64]
    new_hit: npt.NDArray[np.bool_] | None
    n_new: npt.NDArray[np.int64]

    def recall(self, k: int) -> Floats:
        """Share of the items taken that stand among the first ``k``."""
        return _share(self.hit[:, :k].sum(axis=1), self.n_true)

    @cached_property
    def _discount(self) -> Floats:
        return 1.0 / np.log2(np.arange(2, self.hit.shape[1] + 2))

    def ndcg(self, k: int) -> Floats:
        """Normalised discounted cumulative gain within the first ``k``."""
        ideal = np.concatenate([[0.0], np.cumsum(self._discount[:k])])
        return _share(self.hit[:, :k] @ self._discount[:k], ideal[np.minimum(self.n_true, k)])

    def new_recall(self, k: int) -> Floats:
        """Recall of what the user had never taken, from lists without what he had."""
        if self.new_hit is None:
            return np.asarray(np.full(len(self.n_new), np.nan))
        return _share(self.new_hit[:, :k].sum(axis=1), self.n_new)

    def reciprocal_rank(self) -> Floats:
        """1 / rank of the first hit; 0 without one."""
        first = self.hit.argmax(axis=1)
        return np.asarray(np.where(self.hit.any(axis=1), 1.0 / (first + 1), 0.0))

    def average_precision(self, k: int) -> Floats:
        """Mean precision at the hits within the first ``k``, over min(k, items taken)."""
        hit = self.hit[:, :k]
        precision = np.cumsum(hit, axis=1) / np.arange(1, hit.shape[1] + 1)
        return _share((precision * hit).sum(axis=1), np.minimum(self.n_true, k))

    def any_hit(self, k: int) -> Floats:
        """1 where at least one of the first ``k`` was taken."""
        return np.asarray(self.hit[:, :k].any(axis=1), dtype=np.float64)


def _share(top: npt.NDArray[Any], bottom: npt.NDArray[Any]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(bottom > 0, top.astype(np.float64) / bottom, np.nan))


def compare_lists(lists: Lists, truth: Truth, new_lists: Lists | None = None, depth: int = DEPTH) -> Hits:
    """Compare each user's list with what the user took, rank by rank.

    Parameters
    ----------
    lists, new_lists
        In the order of ``truth.users``; the second without what the user had before.
    """
    new = truth.items - truth.items.multiply(truth.seen > 0)
    new.eliminate_zeros()
    return Hits(
        _found(lists.items[:, :depth], truth.items),
        np.diff(truth.items.indptr).astype(np.int64),
        None if new_lists is None else _found(new_lists.items[:, :depth], new),
        np.asarray((new > 0).sum(axis=1)).ravel().astype(np.int64),
    )


def _found(items: npt.NDArray[np.int32], truth: object) -> npt.NDArray[np.bool_]:
    n_items = truth.shape[1]  # type: ignore[attr-defined]
    taken = truth.tocoo()  # type: ignore[attr-defined]
    keys = np.sort(taken.row[taken.data != 0].astype(np.int64) * n_items + taken.col[taken.data != 0])
    asked = np.arange(len(items))[:, None] * np.int64(n_items) + items
    place = np.minimum(np.searchsorted(keys, asked), max(0, len(keys) - 1))
    return np.asarray((items >= 0) & (len(keys) > 0) & (keys[place] == asked if len(keys) else False))
