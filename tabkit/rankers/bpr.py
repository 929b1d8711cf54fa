"""Bayesian personalised ranking by implicit.

Source: Rendle et al., *BPR: Bayesian Personalized Ranking from Implicit Feedback*, UAI 2009; implicit 0.7.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from tabkit.data.interactions import Codes, Events
from tabkit.learner import Adapted, Block, Budget, Effort, Proof, Settings
from tabkit.learner.need import Need, Size
from tabkit.rankers.base import Judge, Ranker, Scores

ITERATIONS = {"quick": 30, "standard": 100, "thorough": 200}


class Bpr(Ranker):
    """Factors that rank what was taken above what was not."""

    title = "BPR"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 90}
    optional = True
    slow = True
    user_factors: npt.NDArray[np.float32]
    item_factors: npt.NDArray[np.float32]

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Fit 64 factors at learning rate .01; one thread, since more would race and give other numbers."""
        from implicit.cpu.bpr import BayesianPersonalizedRanking

        found = dict(settings or {"iterations": ITERATIONS[budget.effort], "seed": int(rng.integers(2**31))})
        made = type(self)()
        with threadpool_limits(1, "blas"):
            bpr = BayesianPersonalizedRanking(
                factors=64,
                learning_rate=0.01,
                iterations=found["iterations"],
                random_state=found["seed"],
                num_threads=1,
            )
            bpr.fit(past.counts.astype(np.float32), show_progress=False)
        made.past, made.user_factors, made.item_factors = past, bpr.user_factors, bpr.item_factors
        blocks = (
            Block(name, factors.size, factors.size, float(np.linalg.norm(factors)))
            for name, factors in (("user_factors", made.user_factors), ("item_factors", made.item_factors))
        )
        return Adapted(made, how, Proof(tuple(blocks)), found)

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate by the events that an iteration goes through, and the items that each user is held against."""
        product = 8e-9 * size.n_items * size.n_listed
        return Need(
            3 * ITERATIONS[effort] * 3e-7 * size.n_events + 4 * product, 1e-9 * 64 * 4 * (size.n_users + size.n_items)
        )

    def scores(self, users: Codes) -> Scores:
        """Return the dot products, bias included; see ``als``."""
        with threadpool_limits(1, "blas"):
            product = self.user_factors[users].astype(np.float64) @ self.item_factors.T.astype(np.float64)
        return product.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write the factors."""
        (folder / "bpr.json").write_text(json.dumps({}), encoding="utf-8")
        np.savez(folder / "bpr.npz", users=self.user_factors, items=self.item_factors)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read the factors."""
        made = cls()
        made.past = past
        with np.load(folder / "bpr.npz") as kept:
            made.user_factors, made.item_factors = kept["users"], kept["items"]
        return made
