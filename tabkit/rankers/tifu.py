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

from tabkit.data.interactions import Codes, Events
from tabkit.learner import Adapted, Block, Budget, Proof, Settings, Step
from tabkit.rankers.base import Judge, Ranker, Scores, contest, filled, popularity

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
    near: sparse.csr_matrix
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
        size = made.vectors.nnz + made.near.nnz
        change = float(np.sqrt(made.vectors.power(2).sum()))
        return Adapted(made, how, Proof((Block("vectors", size, size, change),)), made._settings(), history)

    def _mixed(self, alpha: float) -> Self:
        other = copy.copy(self)
        other.alpha = alpha
        return other

    def _fit(self, past: Events) -> Self:
        self.past = past
        self.vectors = past.matrix(_basket_weights(past, self.within, self.between))
        self.common = popularity(past, 28)
        self.common /= max(1.0, self.common.max())
        # Nearest by Euclidean distance, over users with history; a user is not his own neighbour.
        squared = np.asarray(self.vectors.power(2).sum(axis=1)).ravel()
        products = np.asarray((self.vectors @ self.vectors.T).toarray())
        distance = squared[:, None] + squared[None, :] - 2 * products
        np.fill_diagonal(distance, np.inf)
        distance[:, ~past.active] = np.inf
        k = min(self.neighbours, max(1, int(past.active.sum()) - 1))
        chosen = np.sort(np.argsort(distance, axis=1, kind="stable")[:, :k], axis=1)
        rows = np.repeat(np.arange(past.n_users), k)
        self.near = sparse.csr_matrix((np.full(len(rows), 1.0 / k), (rows, chosen.ravel())), distance.shape)
        return self

    def _settings(self) -> dict[str, float]:
        names = ("within", "between", "neighbours", "alpha")
        return {name: getattr(self, name) for name in names}

    def scores(self, users: Codes) -> Scores:
        """Return alpha times the user's own vector plus (1 - alpha) times the neighbours' mean."""
        both = self.alpha * self.vectors[users] + (1 - self.alpha) * (self.near[users] @ self.vectors)
        return filled(both, FALLBACK * self.common)

    def save(self, folder: Path) -> None:
        """Write the settings; vectors and neighbours follow from the events."""
        (folder / "tifu.json").write_text(json.dumps(self._settings()), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read the settings and find the neighbours again."""
        return cls(**json.loads((folder / "tifu.json").read_text(encoding="utf-8")))._fit(past)


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
