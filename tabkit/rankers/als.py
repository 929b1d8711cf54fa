"""Factors of users and items by implicit's alternating least squares, pretrained on a source period and adapted.

Source: Hu, Koren & Volinsky, *Collaborative Filtering for Implicit Feedback Datasets*, ICDM 2008; implicit 0.7.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from tabkit.data.interactions import Codes, Events, Joined
from tabkit.learner import Adapted, Block, Budget, Effort, Proof, Settings, Step
from tabkit.learner.need import Need, Size
from tabkit.rankers.base import Judge, Ranker, Scores, contest, logged

ITERATIONS = 15
WARM = {"quick": (1, 2), "standard": (1, 2, 3), "thorough": (1, 2, 3)}
"""Iterations of a warm start that are tried. One reaches what fifteen reach from random factors."""
PULLS = {"quick": (0.0, 0.5), "standard": (0.0, 0.25, 0.5), "thorough": (0.0, 0.25, 0.5)}
"""Shares of the parent's factors kept after a warm start; the best on valid is returned."""
ALPHAS = {"quick": (1.0, 10.0), "standard": (1.0, 3.0, 10.0, 40.0), "thorough": (1.0, 3.0, 10.0, 40.0)}


class Als(Ranker):
    """Matrix factorisation of implicit feedback."""

    title = "ALS"
    hows = {"scratch": "baseline", "as_is": "base", "fold_in": "adapted", "warm": "adapted", "full": "adapted"}
    baselines = {"scratch": 70}
    optional = True
    user_factors: npt.NDArray[np.float32]
    item_factors: npt.NDArray[np.float32]

    @cached_property
    def _items64(self) -> npt.NDArray[np.float64]:
        return np.ascontiguousarray(self.item_factors.T.astype(np.float64))

    def __init__(self, factors: int = 64, regularization: float = 0.05, alpha: float = 1.0, seed: int = 0) -> None:
        self.factors, self.regularization, self.alpha, self.seed = factors, regularization, alpha, seed

    @classmethod
    def pretrain(
        cls,
        source: Events,
        rng: np.random.Generator,
        budget: Budget,
        new_only: bool = False,
        without: Collection[str] = (),
    ) -> Self:
        """Factorise the source period."""
        return cls(seed=int(rng.integers(2**31))).fit(source, ITERATIONS)

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Adapt the factors; ``fold_in`` solves the users on ``past`` and leaves the items as they are.

        ``warm`` goes on from the parent's factors for one to three iterations, ``full`` for fifteen; shrinkage to
        the parent is chosen on valid. Every user is solved on the whole history in ``past``.
        """
        if how == "scratch":
            return self._scratch(past, judge, rng, budget, settings)
        found: dict[str, Any] = dict(settings or {})
        history: list[Step] = []
        if how == "as_is":
            made = self._with(past, self.user_factors, self.item_factors)
        elif how == "fold_in":
            made = self._with(past, self.user_factors, self.item_factors).fit(past, 0)
        else:
            warm = {
                n: self._with(past, self.user_factors, self.item_factors).fit(past, n)
                for n in _steps(how, found, budget)
            }
            pulls = [found["pull"]] if "pull" in found else PULLS[budget.effort]
            tried = []
            for n, tuned in warm.items():
                for pull in pulls:
                    ranker = self._pulled(tuned, pull)
                    value = judge(ranker) if judge is not None else 0.0
                    tried.append((value, {"iterations": n, "pull": pull}, ranker))
                    history.append(Step(len(tried), None, 1 - value, f"{n} iterations, {pull:g} of the parent kept"))
            _, found, made = max(tried, key=lambda t: t[0])
        return Adapted(made, how, made._proof(self), found, tuple(history) if judge is not None else ())

    def _pulled(self, tuned: Als, pull: float) -> Als:
        if not pull:
            return tuned
        items = (1 - pull) * tuned.item_factors + pull * self.item_factors
        unknown = ~self.item_factors.any(axis=1)
        items[unknown] = tuned.item_factors[unknown]  # the parent has nothing to say of them
        # The users are solved again for the items that come out: factors of two worlds do not fit each other.
        return self._with(tuned.past, tuned.user_factors, items.astype(np.float32)).fit(tuned.past, 0)

    def _scratch(
        self, past: Events, judge: Judge | None, rng: np.random.Generator, budget: Budget, settings: Settings | None
    ) -> Adapted[Ranker]:
        history: tuple[Step, ...] = ()
        seed = int(rng.integers(2**31))
        if settings is not None or judge is None:
            made = Als(**{"seed": seed, **(settings or {})}).fit(past, ITERATIONS)
        else:
            options = ((f"alpha {a:g}", Als(alpha=a, seed=seed).fit(past, ITERATIONS)) for a in ALPHAS[budget.effort])
            made, history = contest(judge, options)
        return Adapted(made, "scratch", made._proof(None), made._settings(), history)

    def caught_up(self, joined: Joined) -> Als:
        """Solve the users on all events; items keep their factors, and new ones have none."""
        return self.recoded(joined).fit(joined.events, 0)

    def recoded(self, joined: Joined) -> Als:
        """Return the factors in the larger vocabulary; new users and items have none until they are solved."""
        users = np.zeros((joined.past.n_users, self.user_factors.shape[1]), np.float32)
        items = np.zeros((joined.past.n_items, self.item_factors.shape[1]), np.float32)
        users[joined.users], items[joined.items] = self.user_factors, self.item_factors
        return self._with(joined.past, users, items)

    def _with(self, past: Events, users: npt.NDArray[np.float32], items: npt.NDArray[np.float32]) -> Als:
        made = Als(**self._settings())
        made.past, made.user_factors, made.item_factors = past, users.copy(), items.copy()
        return made

    def _settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("factors", "regularization", "alpha", "seed")}

    def fit(self, past: Events, iterations: int) -> Self:
        """Iterate on ``past``, from the factors there are; 0 iterations solve the users alone."""
        from implicit.cpu.als import AlternatingLeastSquares

        x = logged(past.counts.astype(np.float32))
        with threadpool_limits(1, "blas"):
            als = AlternatingLeastSquares(
                factors=self.factors,
                regularization=self.regularization,
                alpha=self.alpha,
                iterations=iterations,
                random_state=self.seed,
                num_threads=1,
            )
            if hasattr(self, "item_factors"):
                als.user_factors, als.item_factors = self.user_factors.copy(), self.item_factors.copy()
            if iterations:
                als.fit(x, show_progress=False)
            else:
                users = np.flatnonzero(past.active)
                als.user_factors[users] = als.recalculate_user(users, x[users])
        self.past, self.user_factors, self.item_factors = past, als.user_factors, als.item_factors
        return self

    def _proof(self, parent: Als | None) -> Proof:
        blocks = []
        for name in ("user_factors", "item_factors"):
            after = getattr(self, name)
            change = after if parent is None else after - getattr(parent, name)
            moved = int((change != 0).any(axis=1).sum()) * after.shape[1]
            blocks.append(Block(name, after.size, moved, float(np.linalg.norm(change))))
        return Proof(tuple(blocks))

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate by the events that an iteration goes through, and the items that each user is held against."""
        search = {"scratch": len(ALPHAS[effort]) * ITERATIONS, "warm": sum(WARM[effort]), "full": ITERATIONS}.get(
            how, 0
        )
        again = {"as_is": 0, "fold_in": 1, "warm": max(WARM[effort])}.get(how, ITERATIONS)
        iterations = search + 2 * again + (0 if how == "scratch" else ITERATIONS)  # the cutoff, the bundle; pretraining
        lists = {"scratch": len(ALPHAS[effort]), "warm": len(WARM[effort]) * len(PULLS[effort])}.get(how, 1) + 3
        product = 8e-9 * size.n_items * size.n_listed
        return Need(
            iterations * 2.7e-7 * size.n_events + lists * product, 2e-9 * 64 * 8 * (size.n_users + size.n_items)
        )

    def scores(self, users: Codes) -> Scores:
        """Return the dot products; in float64, so that rounding hides the order in which BLAS adds."""
        with threadpool_limits(1, "blas"):
            product = self.user_factors[users].astype(np.float64) @ self._items64
        return product.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write settings and factors."""
        (folder / "als.json").write_text(json.dumps(self._settings()), encoding="utf-8")
        np.savez(folder / "als.npz", users=self.user_factors, items=self.item_factors)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read settings and factors."""
        made = cls(**json.loads((folder / "als.json").read_text(encoding="utf-8")))
        with np.load(folder / "als.npz") as kept:
            made.user_factors, made.item_factors = kept["users"], kept["items"]
        made.past = past
        return made


def _steps(how: str, found: Settings, budget: Budget) -> tuple[int, ...]:
    if "iterations" in found:
        return (int(found["iterations"]),)
    return WARM[budget.effort] if how == "warm" else (ITERATIONS,)
