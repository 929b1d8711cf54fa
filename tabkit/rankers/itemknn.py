"""Item-kNN by implicit: items bought by the same users, cosine of BM25-weighted or plain counts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Self

import numpy as np
from scipy import sparse

from tabkit.data.interactions import Codes, Events
from tabkit.learner import Adapted, Block, Budget, Proof, Settings, Step
from tabkit.rankers.base import Judge, Ranker, Scores, contest

NEIGHBOURS = {"quick": (100,), "standard": (20, 100, 300), "thorough": (20, 100, 300)}


class ItemKnn(Ranker):
    """Each item is scored by its similarity with what the user has taken.

    Source: implicit's ``CosineRecommender`` (Frederickson), Sarwar et al., WWW 2001.
    """

    title = "Item-kNN"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 60}
    optional = True
    x: sparse.csr_matrix
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
        self.x = past.counts.copy()
        self.x.data = np.log1p(self.x.data)
        found = CosineRecommender(K=self.neighbours, num_threads=1)
        with warnings.catch_warnings():
            # Its own weighting hands itself COO, and then warns of it.
            warnings.filterwarnings("ignore", message="Method expects CSR input")
            found.fit(self.x, show_progress=False)
        self.similarity = found.similarity.tocsr()
        return self

    def scores(self, users: Codes) -> Scores:
        """Return the sum over the user's items of value times similarity."""
        found: sparse.csr_matrix = (self.x[users] @ self.similarity).astype(np.float32)
        return np.asarray(found.toarray())

    def save(self, folder: Path) -> None:
        """Write the setting; similarities follow from the events."""
        (folder / "itemknn.json").write_text(json.dumps({"neighbours": self.neighbours}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read the setting and find the similarities again."""
        return cls(**json.loads((folder / "itemknn.json").read_text(encoding="utf-8"))).fit(past)
