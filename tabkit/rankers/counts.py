"""Counting: popularity and personal frequency, decayed with age. In grocery, this is the bar."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from scipy import sparse

from tabkit.data.interactions import Codes, Events
from tabkit.models.base import Block, Budget, Kind, Proof, Settings, Step
from tabkit.rankers.base import RECENT_DAYS, Fitted, Judge, Ranker, Scores, decayed, popularity

HALF_LIVES = {"quick": (30, 60, 90, 180), "standard": (15, 30, 45, 60, 90, 120, 180, 365)}
"""Half-lives in days that are tried, by budget; ``thorough`` tries those of ``standard``."""
FALLBACK = 1e-3
"""What the most popular item adds to a user's own count: it decides between items that the count does not tell
apart. Small enough to leave a basket of two years ago in front at a half-life of 90 days, large enough for float32."""


class Counts(Ranker):
    """How often the user took an item, older baskets counting less; popular items after the user's own."""

    title = "Counts"
    hows: ClassVar[Mapping[str, Kind]] = {
        "popular": "baseline",
        "recent": "baseline",
        "frequency": "baseline",
        "decay": "baseline",
        "as_is": "base",
        "refresh": "adapted",
    }
    own: sparse.csr_matrix
    common: np.ndarray

    def __init__(self, half_life: float | None = 90, personal: bool = True, recent: float | None = RECENT_DAYS) -> None:
        self.half_life, self.personal, self.recent = half_life, personal, recent

    @classmethod
    def pretrain(cls, source: Events, rng: np.random.Generator, budget: Budget, new_only: bool = False) -> Self:
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
    ) -> Fitted:
        """Count ``past``; ``decay`` and ``refresh`` choose the half-life, ``as_is`` keeps the counts it has."""
        if how == "as_is":
            stale = copy.copy(self)
            # What it knows is old; what it may list, and whom it has seen since, is not.
            stale.past = past
            return Fitted(stale, how, Proof((Block("counts", self.own.nnz, 0, 0.0),)))
        history: list[Step] = []
        if how in ("popular", "recent", "frequency"):
            made = Counts(None, how == "frequency", RECENT_DAYS if how == "recent" else None)._count(past)
        elif settings is not None:
            made = Counts(settings["half_life"])._count(past)
        else:
            assert judge is not None
            tried: list[tuple[float, Counts]] = []
            for days in HALF_LIVES.get(budget.level, HALF_LIVES["standard"]):
                ranker = Counts(days)._count(past)
                tried.append((judge(ranker), ranker))
                history.append(Step(len(tried), None, 1 - tried[-1][0], f"half-life {days} days"))
            made = max(tried, key=lambda t: t[0])[1]
        moved = made.own.nnz + int((made.common > 0).sum())
        if how == "refresh":
            change = float(np.sqrt((made.own - self.own).power(2).sum() + ((made.common - self.common) ** 2).sum()))
        else:
            change = float(np.sqrt(made.own.power(2).sum() + (made.common**2).sum()))
        return Fitted(made, how, Proof((Block("counts", moved, moved, change),)), made._settings(), tuple(history))

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

    def scores(self, users: Codes) -> Scores:
        """Return decayed counts, and a thousandth of the item's popularity."""
        common = self.common if not self.personal else FALLBACK * self.common
        return np.asarray(self.own[users].toarray() + common, dtype=np.float32)

    def save(self, folder: Path) -> None:
        """Write the settings and the counts."""
        (folder / "counts.json").write_text(json.dumps(self._settings()), encoding="utf-8")
        own = self.own
        np.savez_compressed(
            folder / "counts.npz", data=own.data, indices=own.indices, indptr=own.indptr, common=self.common
        )

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read settings and counts."""
        made = cls(**json.loads((folder / "counts.json").read_text(encoding="utf-8")))
        with np.load(folder / "counts.npz") as kept:
            made.own = sparse.csr_matrix((kept["data"], kept["indices"], kept["indptr"]), (past.n_users, past.n_items))
            made.common = kept["common"]
        made.past = past
        return made
