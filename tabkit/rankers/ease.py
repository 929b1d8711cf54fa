"""EASE: the closed-form linear item-to-item model, solved on the side that is smaller.

Source: Steck, *Embarrassingly Shallow Autoencoders for Sparse Data*, WWW 2019. With fewer users than items,
P = (X'X + lam I)^-1 = (I - X' (XX' + lam I)^-1 X) / lam (Woodbury): the n_items x n_items matrix is never made.
For 65,153 items it would take 34 GB.
"""

from __future__ import annotations

import copy
import json
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import linalg, sparse

from tabkit.data.interactions import Codes, Events, Joined, blocks
from tabkit.errors import DataError
from tabkit.learner import Adapted, Block, Budget, Effort, Proof, Settings, Step
from tabkit.learner.need import Need, Size
from tabkit.rankers.base import Judge, Ranker, Scores, contest, logged

PENALTIES = {"quick": (50.0, 500.0), "standard": (20.0, 50.0, 200.0, 500.0), "thorough": (20.0, 50.0, 200.0, 500.0)}
MOST_SIDE = 20_000
"""The smaller side may not be longer: its square matrix would take more than 3 GB."""


class Ease(Ranker):
    """A linear model of each item from all others, without a weight on itself."""

    title = "EASE"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 80}
    optional = True
    mix: npt.NDArray[np.float32]
    by_items: bool
    """Whether it was solved on the items' side: then ``mix`` is the weights themselves."""
    diagonal: npt.NDArray[np.float64]
    solved_on: sparse.csr_matrix | None = None
    """The values that it was solved on, CSR (n_rows of ``mix``, n_items), if users have newer events since."""

    @cached_property
    def columns(self) -> sparse.csr_matrix:
        """The values by item: CSR (n_items, n_users) float32."""
        return logged(self.past.counts).T.tocsr().astype(np.float32)

    def __init__(self, penalty: float = 50.0) -> None:
        self.penalty = penalty

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Solve for the penalty given, or for the one that is best on valid."""
        history: tuple[Step, ...] = ()
        if settings is not None or judge is None:
            made = type(self)(**(settings or {})).fit(past)
        else:
            options = ((f"penalty {p:g}", type(self)(p).fit(past)) for p in PENALTIES[budget.effort])
            made, history = contest(judge, options)
        size = made.mix.size
        proof = Proof((Block("weights", size, size, float(np.linalg.norm(made.mix))),))
        return Adapted(made, how, proof, {"penalty": made.penalty}, history)

    def fit(self, past: Events) -> Self:
        """Solve on ``past``; values are log(1 + baskets).

        Raises
        ------
        DataError
            Both sides are too long for an exact solution.
        """
        made = copy.copy(self)
        made.past = past
        if min(past.n_users, past.n_items) > MOST_SIDE:
            raise DataError(
                f"EASE needs a square matrix of the smaller side: {past.n_users:,} users, {past.n_items:,} items. Expected at "
                f"most {MOST_SIDE:,} of one of them. Take a sample of users, or leave ease out."
            )
        made.by_items = False
        if past.n_users > past.n_items:
            return made._primal()
        x = logged(past.counts)
        gram = np.asarray((x @ x.T).toarray())
        gram[np.diag_indices_from(gram)] += self.penalty
        inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
        # Row u of XX' K is row u of I - lam K.
        mix = -self.penalty * inverse
        mix[np.diag_indices_from(mix)] += 1
        made.mix = mix.astype(np.float32)
        # diag(X' K X), from K x_i for the few users of each item.
        made.diagonal = (1 - _quadratic(x, inverse)) / self.penalty
        return made

    def _primal(self) -> Self:
        """Solve on the items' side: the weights B themselves, for more users than items."""
        self.by_items = True
        x = logged(self.past.counts)
        gram = np.asarray((x.T @ x).toarray())
        gram[np.diag_indices_from(gram)] += self.penalty
        p = linalg.inv(gram, overwrite_a=True, check_finite=False)
        self.diagonal = np.diag(p).copy()
        self.mix = np.empty(p.shape, np.float32)
        for block in blocks(len(p), len(p)):  # a second matrix of float64 is what would not fit
            self.mix[block] = -p[block] / self.diagonal
        np.fill_diagonal(self.mix, 0.0)
        return self

    def caught_up(self, joined: Joined) -> Ease:
        """Return the same weights for the users as they are now; a new item has none.

        Solved on the users' side, P is what it was solved on: any row of values can be multiplied with it.
        """
        made = copy.copy(self)
        made.past, n_items = joined.events, joined.events.n_items
        if not self.by_items:
            made.solved_on = logged(joined.past.counts)[joined.users]
            made.diagonal = np.full(n_items, 1 / self.penalty)  # of an item that nobody had taken
            made.diagonal[joined.items] = self.diagonal
            return made
        made.mix = np.zeros((n_items, n_items), np.float32)
        made.mix[np.ix_(joined.items, joined.items)] = self.mix
        return made

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate by the square matrix of the smaller side, which is inverted for each penalty, the cutoff and the bundle."""
        side = min(size.n_users, size.n_items)
        fits, listings = len(PENALTIES[effort]) + 2, len(PENALTIES[effort]) + 1
        dense = size.n_items if side == size.n_users else 0  # the users' side goes through all values for each user
        return Need(
            fits * 5e-11 * side**3 + listings * size.n_listed * 1e-9 * (dense and size.n_events),
            1e-9 * 20 * side**2,
        )

    def scores(self, users: Codes) -> Scores:
        """Return x B of each user."""
        x = logged(self.past.counts_of(users))
        if self.by_items:
            used = np.unique(x.indices)
            return np.asarray(x[:, used] @ self.mix[used].astype(np.float64), dtype=np.float32)
        # x B = x - x P / diag(P), with x P = (x - (x X' K) X) / lam.
        # Each sum runs over one user in a fixed order, so float32 does not depend on the block.
        if self.solved_on is None:
            rebuilt = np.ascontiguousarray((self.columns @ np.ascontiguousarray(self.mix[users].T)).T)
        else:
            alike = np.asarray((x @ self.solved_on.T).toarray())
            rebuilt = ((alike - alike @ self.mix) / self.penalty @ self.solved_on).astype(np.float32)
        scale = (1 / (self.penalty * self.diagonal)).astype(np.float32)
        rebuilt *= scale
        own = np.repeat(np.arange(len(users)), np.diff(x.indptr))
        rebuilt[own, x.indices] += x.data.astype(np.float32) * (1 - scale[x.indices])
        return rebuilt

    def save(self, folder: Path) -> None:
        """Write what was solved."""
        facts = {"penalty": self.penalty, "by_items": self.by_items}
        (folder / "ease.json").write_text(json.dumps(facts), encoding="utf-8")
        np.savez(folder / "ease.npz", mix=self.mix, diagonal=self.diagonal)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read what was solved; the users' values follow from the events."""
        facts = json.loads((folder / "ease.json").read_text(encoding="utf-8"))
        made = cls(facts["penalty"])
        made.by_items = facts.get("by_items", past.n_users > past.n_items)  # bundles of tabkit 0.1.0 do not say
        made.past = past
        with np.load(folder / "ease.npz") as kept:
            made.mix, made.diagonal = kept["mix"], kept["diagonal"]
        return made


def _quadratic(x: sparse.csr_matrix, inverse: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return x_i' K x_i for every column i of ``x`` (n_items,), in blocks of items."""
    columns = x.tocsc()
    out = np.zeros(x.shape[1])
    step = max(1, 2**23 // x.shape[0])
    for start in range(0, x.shape[1], step):
        part = columns[:, start : start + step]
        # (K part), dense (n_users, step); summed over users with the same part.
        out[start : start + step] = np.asarray(part.multiply((part.T @ inverse).T).sum(axis=0)).ravel()
    return out
