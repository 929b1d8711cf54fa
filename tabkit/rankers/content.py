"""Content: an item that nobody has taken yet, told by the items of its kind, and by its text where there is one.

LightGBM over :class:`tabkit.data.windows.Kin`, learned on what became of the items that were new in earlier windows.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from tabkit.data.interactions import WINDOW, Codes, Events, Joined, arrivals, blocks, truth_of
from tabkit.data.windows import Kin
from tabkit.errors import DataError
from tabkit.learner import Adapted, Block, Budget, Proof, Settings
from tabkit.rankers.base import Among, Judge, Lists, Ranker, Scores, best_of
from tabkit.rankers.parts.item_text import Texts, embedded

MIN_HISTORY_DAYS = 56
WINDOWS = {"quick": 2, "standard": 4, "thorough": 6}
TREES = {"quick": 100, "standard": 200, "thorough": 200}
KEEP_NEGATIVES = 0.05
PARAMETERS = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.5,
    "lambda_l2": 5.0,
    "num_threads": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


class Content(Ranker):
    """What a user took of an item's kinds; ``affinity`` is counting alone, the others let trees weigh it."""

    title = "Content"
    hows = {"affinity": "baseline", "as_is": "base", "full": "adapted"}
    lasting = True
    cold_baselines = {"affinity": 20}

    def __init__(self) -> None:
        self.trees: str | None = None
        self.n_trees = 0
        self.texts: Texts | None = None
        self._kin: Kin | None = None

    @classmethod
    def pretrain(
        cls,
        source: Events,
        rng: np.random.Generator,
        budget: Budget,
        new_only: bool = False,
        without: Collection[str] = (),
    ) -> Self:
        """Learn on the last windows of the source period."""
        made = cls()
        made.texts = embedded(source)
        made.past = source
        made._learn(rng, budget)
        return made

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """``as_is`` keeps the trees, ``full`` learns anew on the last windows; kinds are counted in ``past`` for all.

        Raises
        ------
        DataError
            Items have no attributes, or the events are too few weeks.
        """
        if not [c for c in past.attributes.columns if c not in past.text]:
            raise DataError("Items have no attributes to be told by. Name some: [ranking] attributes = [...].")
        made = self.looking_at(past)
        if how == "as_is":
            return Adapted(made, how, Proof((Block("trees", self.n_trees, 0, 0.0),)))
        if how == "affinity":
            made.trees, size = None, past.counts.nnz
            return Adapted(made, how, Proof((Block("counts", size, size, float(size)),)))
        made._learn(rng, budget)
        n = made.n_trees
        return Adapted(made, how, Proof((Block("trees", n, n, float(n)),)))

    def looking_at(self, past: Events) -> Content:
        """Return what was learned with the counts of another day."""
        made = copy.copy(self)
        made.past, made._kin = past, None
        return made

    def caught_up(self, joined: Joined) -> Content:
        """Return the trees, with the counts of all events; texts of new items are read."""
        made = self.looking_at(joined.events)
        made.texts = embedded(joined.events)
        return made

    def recoded(self, joined: Joined) -> Content:
        """Return the trees; texts of new items are read."""
        made = self.looking_at(joined.past)
        made.texts = embedded(joined.events)
        return made

    def _learn(self, rng: np.random.Generator, budget: Budget) -> None:
        import lightgbm as lgb

        first = int(self.past.day.min()) + MIN_HISTORY_DAYS
        days = [self.past.end - WINDOW * k for k in range(1, WINDOWS[budget.effort] + 1)]
        xs, ys = [], []
        for day in (d for d in days if d >= first):
            items = np.flatnonzero(arrivals(self.past, day, day + WINDOW)).astype(np.int32)
            truth = truth_of(self.past, day, day + WINDOW)
            taken = truth.items[:, items]
            rows = np.flatnonzero(np.diff(taken.indptr))
            there = self.looking_at(self.past.before(day))
            for block in blocks(len(rows), len(items) * there._width, 4):
                y = taken[rows[block]].toarray() > 0
                keep = y | (rng.random(y.shape) < KEEP_NEGATIVES)
                xs.append(there._describe(truth.users[rows[block]], items)[keep])
                ys.append(y[keep])
        if not ys or not np.concatenate(ys).any():
            length = self.past.calendar.length
            raise DataError(
                f"No item was first taken in the last windows of the {length(self.past.end - int(self.past.day.min()))} of events, after "
                f"{length(MIN_HISTORY_DAYS)} of history. Expected some to learn from. Give a longer period, or leave content out."
            )
        x, y = np.concatenate(xs), np.concatenate(ys).astype(np.float32)
        booster = lgb.train(PARAMETERS | {"seed": int(rng.integers(2**31))}, lgb.Dataset(x, y), TREES[budget.effort])
        self.trees, self.n_trees = booster.model_to_string(), booster.num_trees()

    @property
    def _as_of(self) -> Kin:
        if self._kin is None:
            self._kin = Kin(self.past, self.past.end)
        return self._kin

    @property
    def _width(self) -> int:
        return len(self._as_of.names) + (self.texts is not None)

    def _describe(self, users: Codes, items: Codes) -> npt.NDArray[np.float32]:
        kin = self._as_of.describe(users, items)
        if self.texts is None:
            return kin
        return np.concatenate([kin, self.texts.likeness(self.past, users, items)[:, :, None]], axis=2)

    def _among(self, users: Codes, items: Codes) -> Scores:
        """Score some items for a block of users (B, n_items)."""
        import lightgbm as lgb

        if self.trees is None:
            return self._as_of.shares(users, items)
        booster = lgb.Booster(model_str=self.trees)
        out = np.empty((len(users), len(items)), np.float32)
        for block in blocks(len(users), len(items) * self._width, 4):
            x = self._describe(users[block], items)
            out[block] = booster.predict(x.reshape(-1, x.shape[2]), num_threads=0).reshape(x.shape[:2])
        return out

    def scores(self, users: Codes) -> Scores:
        """Return the score of every item."""
        return self._among(users, np.arange(self.past.n_items, dtype=np.int32))

    def top(self, users: Codes, k: int, new_only: bool = False, among: Among = None) -> Lists:
        """List the best items of those allowed; only these are scored."""
        allowed = self.allowed(users, new_only, among)
        items = np.flatnonzero(allowed.everyone).astype(np.int32)
        listed = np.full((len(users), k), -1, np.int32)
        values = np.full((len(users), k), -np.inf, np.float32)
        for block in blocks(len(users), len(items)):
            scored = self._among(users[block], items)
            allowed.of(block).among(items).mark(scored)
            place, values[block] = best_of(scored, k)
            listed[block] = np.where(place >= 0, items[place], -1)
        return Lists(listed, values)

    def save(self, folder: Path) -> None:
        """Write the trees and the items' texts as vectors; counts follow from the events."""
        facts = {"n_trees": self.n_trees}
        (folder / "content.json").write_text(json.dumps(facts), encoding="utf-8")
        if self.trees is not None:
            (folder / "content.txt").write_text(self.trees, encoding="utf-8")
        if self.texts is not None:
            self.texts.save(folder)

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read trees and vectors."""
        made = cls()
        made.n_trees = json.loads((folder / "content.json").read_text(encoding="utf-8"))["n_trees"]
        if (folder / "content.txt").is_file():
            made.trees = (folder / "content.txt").read_text(encoding="utf-8")
        made.texts = Texts.load(folder)
        made.past = past
        return made
