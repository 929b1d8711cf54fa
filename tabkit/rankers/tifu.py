"""TIFU-KNN: temporally decayed baskets of the user, mixed with those of similar users.

Source: Hu, He, Gao & Zhang, *Modeling Personalized Item Frequency Information for Next-basket Recommendation*,
SIGIR 2020 (arXiv 2006.00556).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Self

import numpy as np
from scipy import sparse

from tabkit.data.interactions import Codes, Events, Joined
from tabkit.learner import Adapted, Block, Budget, Effort, Proof, Settings, Step
from tabkit.learner.need import Need, Size
from tabkit.rankers.base import Judge, Ranker, Rows, Scores, contest, popularity
from tabkit.rankers.parts.neighbours import Neighbours

GROUP_SIZE = 4
"""Baskets per group; within a group ``within`` decays, between groups ``between``."""
ALPHAS = {"quick": (0.5, 0.7, 0.9), "standard": (0.5, 0.6, 0.7, 0.8, 0.9), "thorough": (0.5, 0.6, 0.7, 0.8, 0.9)}
FALLBACK = 1e-5


class Tifu(Ranker):
    """The user's own decayed baskets, and the mean of those of the users nearest to him."""

    title = "TIFU-KNN"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 50}
    optional = True
    vectors: sparse.csr_matrix
    near: Neighbours
    common: np.ndarray

    def __init__(self, within: float = 0.95, between: float = 0.85, neighbours: int = 100, alpha: float = 0.7) -> None:
        self.within, self.between, self.neighbours, self.alpha = within, between, neighbours, alpha

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Decay every user's baskets, find the nearest users; the mixture is chosen on valid."""
        made = type(self)(**(settings or {}))._fit(past)
        history: tuple[Step, ...] = ()
        if settings is None and judge is not None:
            options = ((f"own share {alpha}", made._mixed(alpha)) for alpha in ALPHAS[budget.effort])
            made, history = contest(judge, options)
        size = made.vectors.nnz + made.near.found.size
        change = float(np.sqrt(made.vectors.power(2).sum()))
        return Adapted(made, how, Proof((Block("vectors", size, size, change),)), made._settings(), history)

    def _mixed(self, alpha: float) -> Self:
        other = copy.copy(self)
        other.alpha = alpha
        return other

    def _fit(self, past: Events) -> Self:
        return self._of(past, past.matrix(_basket_weights(past, self.within, self.between)))

    def _of(self, past: Events, vectors: sparse.csr_matrix, near: Codes | None = None) -> Self:
        self.past, self.vectors = past, vectors
        self.common = popularity(past, 28)
        self.common /= max(1.0, self.common.max())
        self.near = Neighbours(vectors, past.active, self.neighbours)
        if near is not None:
            self.near.found, self.near.is_found = near, past.active.copy()
        return self

    def _settings(self) -> dict[str, float]:
        names = ("within", "between", "neighbours", "alpha")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate by the users that each user asked about is compared with: those of two windows, and all for a bundle."""
        a_user = 1.3e-8 * size.n_users + 2.5e-10 * size.shared / max(1, size.n_users)
        return Need((2 * size.n_listed + size.n_users) * a_user, 1e-9 * size.n_users * cls().neighbours * 8)

    def caught_up(self, joined: Joined) -> Tifu:
        """Decay all baskets; neighbours are found for those who are asked about."""
        return copy.copy(self)._fit(joined.events)

    def sparse_scores(self, users: Codes) -> Rows:
        """Return alpha times the user's own vector plus (1 - alpha) times the neighbours' mean."""
        own, near = self.apart(users)
        return Rows(self.alpha * own + (1 - self.alpha) * near, FALLBACK * self.common)

    def apart(self, users: Codes) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
        """Return the users' own vectors, and the means of their neighbours': CSR (B, n_items) each."""
        return self.vectors[users], self.near.means_of(users) @ self.vectors

    def scores(self, users: Codes) -> Scores:
        """Return the scores of every item."""
        return self.sparse_scores(users).filled()

    def save(self, folder: Path) -> None:
        """Write the settings, vectors, and everyone's neighbours: to find them again takes the square of the users."""
        (folder / "tifu.json").write_text(json.dumps(self._settings()), encoding="utf-8")
        self.near.find(np.flatnonzero(self.past.active).astype(np.int32))
        v = self.vectors
        np.savez(folder / "tifu.npz", data=v.data, indices=v.indices, indptr=v.indptr, near=self.near.found)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read settings, vectors and neighbours."""
        made = cls(**json.loads((folder / "tifu.json").read_text(encoding="utf-8")))
        if not (folder / "tifu.npz").is_file():  # bundles of tabkit 0.1.0 hold the settings alone
            return made._fit(past)
        with np.load(folder / "tifu.npz") as kept:
            vectors = sparse.csr_matrix((kept["data"], kept["indices"], kept["indptr"]), (past.n_users, past.n_items))
            return made._of(past, vectors, kept["near"])


def _basket_weights(past: Events, within: float, between: float) -> np.ndarray:
    """Return a weight per event (n_events,): the mean over groups of the decayed mean within each group."""
    # Baskets in order of time, numbered from the latest (0) backwards within each user.
    baskets, which = np.unique(past.basket, return_inverse=True)
    user = np.zeros(len(baskets), np.int64)
    day = np.zeros(len(baskets), np.int64)
    user[which], day[which] = past.user, past.day
    order = np.lexsort((baskets, day, user))
    n_of = np.bincount(user, minlength=past.n_users)
    first = np.concatenate([[0], np.cumsum(n_of)[:-1]])
    age = np.empty(len(baskets), np.int64)
    age[order] = (first + n_of - 1)[user[order]] - np.arange(len(baskets))
    # The latest groups are full; the oldest holds what is left.
    group, place = age // GROUP_SIZE, age % GROUP_SIZE
    groups = -(-n_of // GROUP_SIZE)
    size = np.where(group == groups[user] - 1, n_of[user] - group * GROUP_SIZE, GROUP_SIZE)
    weight = within**place / size * between**group / groups[user]
    return np.asarray(weight[which])
