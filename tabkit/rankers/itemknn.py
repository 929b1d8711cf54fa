"""Item-kNN by implicit: items bought by the same users, cosine of BM25-weighted or plain counts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Self

import numpy as np
from scipy import sparse

from tabkit.data.interactions import Codes, Events, Joined
from tabkit.learner import Adapted, Block, Budget, Effort, Proof, Settings, Step
from tabkit.learner.need import Need, Size
from tabkit.rankers.base import Judge, Ranker, Rows, Scores, contest, logged

NEIGHBOURS = {"quick": (100,), "standard": (20, 100, 300), "thorough": (20, 100, 300)}


class ItemKnn(Ranker):
    """Each item is scored by its similarity with what the user has taken.

    Source: implicit's ``CosineRecommender`` (Frederickson), Sarwar et al., WWW 2001.
    """

    title = "Item-kNN"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 60}
    optional = True
    similarity: sparse.csr_matrix

    def __init__(self, neighbours: int = 100) -> None:
        self.neighbours = neighbours

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Find each item's nearest items; how many is chosen on valid."""
        history: tuple[Step, ...] = ()
        if settings is not None or judge is None:
            made = type(self)(**(settings or {})).fit(past)
        else:
            options = ((f"{k} neighbours", type(self)(k).fit(past)) for k in NEIGHBOURS[budget.effort])
            made, history = contest(judge, options)
        size = made.similarity.nnz
        proof = Proof((Block("similarities", size, size, float(np.sqrt(made.similarity.power(2).sum()))),))
        return Adapted(made, how, proof, {"neighbours": made.neighbours}, history)

    def fit(self, past: Events) -> Self:
        """Find the nearest items on ``past``; values are log(1 + baskets)."""
        from implicit.nearest_neighbours import CosineRecommender

        self.past = past
        found = CosineRecommender(K=self.neighbours, num_threads=1)
        with warnings.catch_warnings():
            # Its own weighting hands itself COO, and then warns of it.
            warnings.filterwarnings("ignore", message="Method expects CSR input")
            found.fit(logged(past.counts), show_progress=False)
        self.similarity = found.similarity.tocsr()
        return self

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate by the pairs of items that a user took, for each number of neighbours, the cutoff and the bundle."""
        pairs = 3 * size.n_events**2 / max(1, size.n_users)  # users are unequal: three times the square of the mean
        return Need((len(NEIGHBOURS[effort]) + 2) * 4e-9 * pairs, 1e-9 * size.n_items * max(NEIGHBOURS[effort]) * 16)

    def caught_up(self, joined: Joined) -> ItemKnn:
        """Return the similarities for the users as they are now; a new item is like none."""
        made, known = ItemKnn(self.neighbours), self.similarity.tocoo()
        made.past, shape = joined.events, (joined.events.n_items, joined.events.n_items)
        place = (joined.items[known.row], joined.items[known.col])
        made.similarity = sparse.coo_matrix((known.data, place), shape=shape).tocsr()
        return made

    def sparse_scores(self, users: Codes) -> Rows:
        """Return the sum over the user's items of value times similarity."""
        found: sparse.csr_matrix = (logged(self.past.counts_of(users)) @ self.similarity).astype(np.float32)
        return Rows(found, np.zeros(self.past.n_items))

    def scores(self, users: Codes) -> Scores:
        """Return the scores of every item."""
        return self.sparse_scores(users).filled()

    def save(self, folder: Path) -> None:
        """Write the setting and the similarities."""
        (folder / "itemknn.json").write_text(json.dumps({"neighbours": self.neighbours}), encoding="utf-8")
        sparse.save_npz(folder / "itemknn.npz", self.similarity, compressed=False)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read setting and similarities."""
        made = cls(**json.loads((folder / "itemknn.json").read_text(encoding="utf-8")))
        if not (folder / "itemknn.npz").is_file():  # bundles of tabkit 0.1.0 hold the setting alone
            return made.fit(past)
        made.past, made.similarity = past, sparse.load_npz(folder / "itemknn.npz")
        return made
