"""The users nearest to a user, found block by block when they are asked for, and remembered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tabkit.data.interactions import Codes, blocks
from tabkit.rankers.base import best_of


class Neighbours:
    """The ``k`` nearest rows of a matrix by Euclidean distance: exact, in memory bounded by the block.

    Only rows with history are neighbours, none is its own, and ties go to the lower code, so that it makes no difference
    which rows are asked for together. All distances at once would take the square of the users: 4.7 GB for 25,000.
    """

    def __init__(self, vectors: sparse.csr_matrix, active: npt.NDArray[np.bool_], k: int) -> None:
        self.vectors, self.active = vectors, active
        self.k = min(k, max(1, int(active.sum()) - 1))
        self.squared = np.asarray(vectors.power(2).sum(axis=1)).ravel()
        self.found: Codes = np.full((vectors.shape[0], self.k), -1, np.int32)
        self.is_found = np.zeros(vectors.shape[0], bool)
        self._by_column: sparse.csr_matrix | None = None

    def means_of(self, users: Codes) -> sparse.csr_matrix:
        """Return how each user's neighbours weigh: CSR (B, n_rows), a k-th each."""
        self.find(users)
        near = self.found[users]
        row, _ = np.nonzero(near >= 0)
        weights = np.full(len(row), 1.0 / self.k)
        return sparse.csr_matrix((weights, (row, near[near >= 0])), (len(users), self.vectors.shape[0]))

    def find(self, users: Codes) -> None:
        """Find the neighbours of users for whom this was not done before."""
        todo = np.unique(users[~self.is_found[users]])
        if not len(todo):
            return
        if self._by_column is None:
            self._by_column = self.vectors.T.tocsr()
        barred = np.flatnonzero(~self.active)
        for block in blocks(len(todo), self.vectors.shape[0], 24):
            here = todo[block]
            distance = self.squared[here][:, None] + self.squared[None, :]
            distance -= 2 * (self.vectors[here] @ self._by_column).toarray()
            distance[np.arange(len(here)), here] = np.inf
            distance[:, barred] = np.inf
            np.negative(distance, out=distance)
            self.found[here] = np.sort(best_of(distance, self.k)[0], axis=1)
        self.is_found[todo] = True
