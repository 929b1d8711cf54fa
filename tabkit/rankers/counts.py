"""Counting: popularity and personal frequency, decayed with age. In grocery, this is the bar."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Self

import numpy as np
from scipy import sparse

from tabkit.data.interactions import Codes, Events, Joined
from tabkit.learner import Adapted, Block, Budget, Proof, Settings, Step
from tabkit.rankers.base import RECENT_DAYS, Judge, Ranker, Rows, Scores, decayed, popularity

_MANY = (15, 30, 45, 60, 90, 120, 180, 365)
HALF_LIVES = {"quick": (30, 60, 90, 180), "standard": _MANY, "thorough": _MANY}
"""Half-lives in days that are tried, by budget."""
PULLS = {"quick": (0.5,), "standard": (0.25, 0.5), "thorough": (0.25, 0.5)}
"""Shares of the parent's counts that a refresh tries to keep, beside none."""
FALLBACK = 1e-3
"""What the most popular item adds to a user's own count: it decides between items that the count does not tell
apart. Small enough to leave a basket of two years ago in front at a half-life of 90 days, large enough for float32."""


class Counts(Ranker):
    """How often the user took an item, older baskets counting less; popular items after the user's own."""

    title = "Counts"
    hows = {
        "popular": "baseline",
        "recent": "baseline",
        "frequency": "baseline",
        "decay": "baseline",
        "as_is": "base",
        "refresh": "adapted",
    }
    baselines = {"popular": 10, "recent": 20, "frequency": 30, "decay": 40}
    cold_baselines = {"popular": 10}
    timeless = False  # a half-life is what new habits change first, and trying one costs next to nothing
    own: sparse.csr_matrix
    common: np.ndarray
    pull: float = 0.0
    """Share of the parent's counts that were kept."""

    def __init__(self, half_life: float | None = 90, personal: bool = True, recent: float | None = RECENT_DAYS) -> None:
        self.half_life, self.personal, self.recent = half_life, personal, recent

    @classmethod
    def pretrain(
        cls,
        source: Events,
        rng: np.random.Generator,
        budget: Budget,
        new_only: bool = False,
        without: Collection[str] = (),
    ) -> Self:
        """Count the source period."""
        return cls()._count(source)

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Count ``past``; ``decay`` and ``refresh`` choose the half-life, ``as_is`` keeps the counts it has.

        What ``refresh`` keeps of the parent's counts is chosen on valid too; none wherever that is no worse.
        """
        if how == "as_is":
            stale = copy.copy(self)
            # What it knows is old; what it may list, and whom it has seen since, is not.
            stale.past = past
            return Adapted(stale, how, Proof((Block("counts", self.own.nnz, 0, 0.0),)))
        history: list[Step] = []
        pull = 0.0
        if how in ("popular", "recent", "frequency"):
            made = Counts(None, how == "frequency", RECENT_DAYS if how == "recent" else None)._count(past)
        elif settings is not None:
            pull = settings.get("pull", 0.0)
            made = self._fresh(past, settings["half_life"], pull)
        else:
            assert judge is not None
            made, pull = self._chosen(past, judge, how, budget, history)
        moved = made.own.nnz + int((made.common > 0).sum())
        found = made._settings()
        if how == "refresh":
            change = float(np.sqrt((made.own - self.own).power(2).sum() + ((made.common - self.common) ** 2).sum()))
            found["pull"] = pull
        else:
            change = float(np.sqrt(made.own.power(2).sum() + (made.common**2).sum()))
        return Adapted(made, how, Proof((Block("counts", moved, moved, change),)), found, tuple(history))

    def _chosen(
        self, past: Events, judge: Judge, how: str, budget: Budget, history: list[Step]
    ) -> tuple[Counts, float]:
        tried: list[tuple[float, Counts, float]] = []

        def attempt(half_life: float | None, pull: float) -> None:
            ranker = self._fresh(past, half_life, pull)
            tried.append((judge(ranker), ranker, pull))
            note = f"half-life {past.calendar.length(half_life) if half_life else 'none'}" + (
                f", {pull:g} of the parent kept" if pull else ""
            )
            history.append(Step(len(tried), None, 1 - tried[-1][0], note))

        for days in HALF_LIVES[budget.effort]:
            attempt(days, 0.0)
        if how == "refresh":
            if self.half_life not in HALF_LIVES["standard"]:
                attempt(self.half_life, 0.0)
            best = max(tried, key=lambda t: t[0])[1].half_life
            for pull in PULLS[budget.effort]:
                attempt(best, pull)
        _, made, pull = max(tried, key=lambda t: t[0])
        return made, pull

    def _fresh(self, past: Events, half_life: float | None, pull: float) -> Counts:
        made = Counts(half_life, self.personal, self.recent)._count(past)
        made.pull = pull
        if pull:
            made.own = ((1 - pull) * made.own + pull * self.own).tocsr()
            made.common = (1 - pull) * made.common + pull * self.common
        return made

    def caught_up(self, joined: Joined) -> Counts:
        """Count all events; what was kept of the parent's counts stays."""
        fresh = Counts(self.half_life, self.personal, self.recent)._count(joined.events)
        if self.pull:
            known, old = self.recoded(joined), Counts(self.half_life, self.personal, self.recent)._count(joined.past)
            fresh.own = (known.own + (1 - self.pull) * (fresh.own - old.own)).tocsr()
            fresh.common = known.common + (1 - self.pull) * (fresh.common - old.common)
        return fresh

    def recoded(self, joined: Joined) -> Counts:
        """Return the counts it has, in the larger vocabulary."""
        made, own = copy.copy(self), self.own.tocoo()
        made.past = joined.past
        shape = (made.past.n_users, made.past.n_items)
        made.own = sparse.coo_matrix((own.data, (joined.users[own.row], joined.items[own.col])), shape=shape).tocsr()
        made.own.sort_indices()
        made.common = np.zeros(made.past.n_items)
        made.common[joined.items] = self.common
        return made

    def _count(self, past: Events) -> Self:
        made = copy.copy(self)
        made.past = past
        made.own = (
            past.matrix(decayed(past, self.half_life))
            if self.personal
            else sparse.csr_matrix((past.n_users, past.n_items))
        )
        total = popularity(past, self.recent)
        made.common = total / max(1.0, total.max())
        return made

    def _settings(self) -> dict[str, object]:
        return {"half_life": self.half_life, "personal": self.personal, "recent": self.recent}

    def sparse_scores(self, users: Codes) -> Rows:
        """Return decayed counts, and a thousandth of the item's popularity."""
        return Rows(self.own[users], self.common if not self.personal else FALLBACK * self.common)

    def scores(self, users: Codes) -> Scores:
        """Return the scores of every item."""
        return self.sparse_scores(users).filled()

    def save(self, folder: Path) -> None:
        """Write the settings and the counts."""
        facts = {**self._settings(), "pull": self.pull}
        (folder / "counts.json").write_text(json.dumps(facts), encoding="utf-8")
        own = self.own  # not compressed: of ten million counts, reading them back took longer than listing
        np.savez(folder / "counts.npz", data=own.data, indices=own.indices, indptr=own.indptr, common=self.common)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read settings and counts."""
        facts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        pull = facts.pop("pull", 0.0)  # bundles of tabkit 0.1.0 do not say
        made = cls(**facts)
        made.pull = pull
        with np.load(folder / "counts.npz") as kept:
            made.own = sparse.csr_matrix((kept["data"], kept["indices"], kept["indptr"]), (past.n_users, past.n_items))
            made.common = kept["common"]
        made.past = past
        return made
