"""Re-ranking: candidates from several sources, ordered by LightGBM over as-of features, learned on earlier windows.

Sources: the two-stage design of Covington, Adams & Sargin, RecSys 2016. A label window is four weeks; features are
those of the day it begins (:mod:`tabkit.data.windows`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tabkit.data.interactions import WINDOW, Codes, Events, Joined, Truth, blocks, truth_of
from tabkit.data.windows import features
from tabkit.errors import DataError
from tabkit.learner import Adapted, Block, Budget, Proof, Settings, Step
from tabkit.rankers.base import Judge, Lists, Ranker, Scores, best_of
from tabkit.rankers.counts import Counts
from tabkit.rankers.ease import Ease
from tabkit.rankers.tifu import Tifu

OWN, POPULAR, NEW = 300, 100, 100
"""Candidates per user: own items by decayed frequency, recent popular ones, and EASE's best of the others."""
WINDOWS = {"quick": 2, "standard": 3, "thorough": 4}
TREES = {"quick": 120, "standard": 150, "thorough": 200}
KEEP_NEGATIVES = {"quick": 0.4, "standard": 1.0, "thorough": 1.0}
MIN_HISTORY_DAYS = 56
MOST_USERS = 2_500
"""Users whose candidates are described at a time: about a million pairs, 160 MB."""
MORE_TREES = (10, 30, 60)
PARAMETERS = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.08,
    "min_data_in_leaf": 100,
    "feature_fraction": 0.7,
    "lambda_l2": 5.0,
    "max_bin": 127,
    "num_threads": 0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
EXTRA = ("ease", "tifu_own", "tifu_near", "is_own", "is_popular")


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs as of a day, grouped by user.

    Attributes
    ----------
    users
        Codes (n_users,) whose candidates these are.
    start
        Where each user's pairs begin (n_users + 1,).
    item
        Item codes (n_pairs,).
    x
        Features (n_pairs, n_features) float32.
    """

    users: Codes
    start: npt.NDArray[np.int64]
    item: Codes
    x: npt.NDArray[np.float32]
    names: tuple[str, ...]
    n_events: int


class Rerank(Ranker):
    """Learns on past windows how what is known about user and item tells what comes next."""

    title = "Re-ranker"
    hows = {"as_is": "base", "continue": "adapted", "full": "adapted"}

    only: Codes | None
    """Users whose windows are learned from; all where None."""

    def __init__(self, *, new_only: bool = False) -> None:
        self.new_only = new_only
        self.text: str | None = None
        self.only: Codes | None = None
        self.trees = 0
        self.known_pairs: dict[int, Pairs] = {}
        self.predicted: tuple[Pairs, str, npt.NDArray[np.float32]] | None = None

    @classmethod
    def pretrain(cls, source: Events, rng: np.random.Generator, budget: Budget, new_only: bool = False) -> Self | None:
        """Learn on the last windows of the source period."""
        made = cls(new_only=new_only)
        made.past = source
        made._learn(made._days(budget), rng, budget, TREES[budget.effort], None)
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
        """``as_is`` keeps the trees and looks at the features of today; ``continue`` grows more on windows since the base.

        ``full`` learns anew on the last windows. For all, the sources and features are those of ``past``.
        """
        found: dict[str, Any] = dict(settings or {})
        made = copy.copy(self)
        made.past = past
        if how == "as_is":
            return Adapted(made, how, Proof((Block("trees", self.trees, 0, 0.0),)))
        history: list[Step] = []
        if how == "full":
            n = TREES[budget.effort]
            made.text = None
            made._learn(made._days(budget), rng, budget, n, None)
            return Adapted(made, how, Proof((Block("trees", n, n, float(n)),)), found)
        days = [d for d in made._days(budget) if d >= self.past.end] or made._days(budget)[:1]
        steps = (found["trees"],) if "trees" in found else MORE_TREES
        made._learn(days, rng, budget, max(steps), self.text)
        tried = []
        for n in steps:
            ranker = copy.copy(made)
            ranker._keep(self.trees + n)
            value = judge(ranker) if judge is not None else 0.0
            tried.append((value, n, ranker))
            history.append(Step(len(tried), None, 1 - value, f"{n} more trees"))
        _, n, made = max(tried, key=lambda t: t[0])
        blocks_ = (Block("base_trees", self.trees, 0, 0.0), Block("new_trees", n, n, float(n)))
        return Adapted(made, how, Proof(blocks_), {"trees": n}, tuple(history) if judge is not None else ())

    def looking_at(self, past: Events) -> Rerank:
        """Return what was learned with the features of another day."""
        made = copy.copy(self)
        made.past = past
        return made

    def learning_from(self, users: Codes | None) -> Rerank:
        """Return the re-ranker with label windows of these users alone; sources and features remain those of everyone."""
        if users is None:
            return self
        made = copy.copy(self)
        made.only, made.known_pairs = users, {}
        return made

    def recoded(self, joined: Joined) -> Rerank:
        """Return the trees; codes are in the events alone."""
        made = self.looking_at(joined.past)
        made.known_pairs, made.predicted = {}, None
        return made

    def _days(self, budget: Budget) -> list[int]:
        """Return the days on which label windows begin, the latest first."""
        first = int(self.past.day.min()) + MIN_HISTORY_DAYS
        days = [self.past.end - WINDOW * k for k in range(1, WINDOWS[budget.effort] + 1)]
        kept = [d for d in days if d >= first]
        if not kept:
            length = self.past.calendar.length
            raise DataError(
                f"The events span {length(self.past.end - int(self.past.day.min()))}. Expected at least "
                f"{length(MIN_HISTORY_DAYS + WINDOW)}: {length(MIN_HISTORY_DAYS)} of history and a label window of {length(WINDOW)}. "
                "Give a longer period, or leave rerank out."
            )
        return kept

    def _truths(self, days: list[int]) -> list[tuple[int, Truth]]:
        """Return the label windows, of the users learned from if any of them has history before one; else of everyone."""
        windows = [(day, truth_of(self.past, day, day + WINDOW)) for day in days]
        if self.only is None:
            return windows
        own = [(day, truth.take(np.flatnonzero(np.isin(truth.users, self.only)))) for day, truth in windows]
        return [(day, truth) for day, truth in own if len(truth.users)] or windows

    def _learn(self, days: list[int], rng: np.random.Generator, budget: Budget, n_trees: int, base: str | None) -> None:
        import lightgbm as lgb

        xs, ys = [], []
        names: tuple[str, ...] = ()
        for day, truth in self._truths(days):
            pairs = self.pairs(truth.users, day)
            names = pairs.names
            per_user = np.diff(pairs.start)
            rows = np.repeat(np.arange(len(truth.users)), per_user)
            y = np.asarray(truth.items[rows, pairs.item]).ravel() > 0
            keep = y | (rng.random(len(y)) < KEEP_NEGATIVES[budget.effort])
            if self.new_only:
                keep &= pairs.x[:, pairs.names.index("is_own")] == 0
            xs.append(pairs.x[keep])
            ys.append(y[keep])
        x, y = np.concatenate(xs), np.concatenate(ys).astype(np.float32)
        more: dict[str, Any] = {"seed": int(rng.integers(2**31))}
        if base is not None:
            more |= {"learning_rate": 0.02}  # at .05, continuing on one store's rows lost .011 NDCG@10
        data = lgb.Dataset(x, y, feature_name=[f"f{i}" for i in range(len(names))])
        start = None if base is None else lgb.Booster(model_str=base)
        booster = lgb.train(PARAMETERS | more, data, n_trees, init_model=start)
        self.text = booster.model_to_string()
        self.trees = booster.num_trees()

    def _keep(self, trees: int) -> None:
        import lightgbm as lgb

        assert self.text is not None
        self.text = lgb.Booster(model_str=self.text).model_to_string(num_iteration=trees)
        self.trees = trees

    def pairs(self, users: Codes, day: int) -> Pairs:
        """Return candidates and features of users as of a day, from the events before it."""
        past = self.past.before(day)
        known = self.known_pairs.get(day)
        if known is not None and known.n_events == len(past) and np.array_equal(known.users, users):
            return known
        own, ease, tifu = Counts(90)._count(past), Ease(50.0).fit(past), Tifu()._fit(past)
        popular = np.argsort(-own.common, kind="stable")[:POPULAR].astype(np.int32)
        user_of, items, extra = [], [], []
        for block in blocks(len(users), past.n_items):
            here = users[block]
            scored = ease.scores(here)
            near = np.asarray((tifu.near[here] @ tifu.vectors).toarray())
            mine = np.asarray(tifu.vectors[here].toarray())
            for row, user in enumerate(here):
                line = slice(own.own.indptr[user], own.own.indptr[user + 1])
                had, weight = own.own.indices[line], own.own.data[line]
                best = had[np.argsort(-weight, kind="stable")[:OWN]]
                unseen = scored[row].copy()
                unseen[had] = -np.inf
                unseen[~past.known] = -np.inf
                new, _ = best_of(unseen[None], NEW)
                candidates = np.unique(np.concatenate([best, popular, new[0][new[0] >= 0]]))
                user_of.append(np.full(len(candidates), user, np.int32))
                items.append(candidates.astype(np.int32))
                extra.append(
                    np.stack(
                        [
                            scored[row, candidates],
                            mine[row, candidates],
                            near[row, candidates],
                            np.isin(candidates, had),
                            np.isin(candidates, popular),
                        ],
                        axis=1,
                    ).astype(np.float32)
                )
        start = np.concatenate([[0], np.cumsum([len(c) for c in items])]).astype(np.int64)
        item = np.concatenate(items)
        table = features(past, day, np.concatenate(user_of), item)
        x = np.hstack([table.to_numpy().astype(np.float32), np.concatenate(extra)])
        made = Pairs(users, start, item, x, (*table.columns, *EXTRA), len(past))
        self.known_pairs[day] = made
        return made

    def top(self, users: Codes, k: int, new_only: bool = False, among: npt.NDArray[np.bool_] | None = None) -> Lists:
        """List the best candidates of each user; never an item that no source proposes."""
        if len(users) > MOST_USERS:
            parts = [self.top(users[i : i + MOST_USERS], k, new_only, among) for i in range(0, len(users), MOST_USERS)]
            return Lists(np.concatenate([p.items for p in parts]), np.concatenate([p.scores for p in parts]))
        pairs = self.pairs(np.asarray(users, np.int32), self.past.end)
        score = self._predict(pairs)
        allowed = self.past.known if among is None else among
        inside = allowed[pairs.item]
        if new_only:
            inside &= pairs.x[:, pairs.names.index("is_own")] == 0
        items = np.full((len(users), k), -1, np.int32)
        values = np.full((len(users), k), -np.inf, np.float32)
        for row in range(len(users)):
            line = slice(pairs.start[row], pairs.start[row + 1])
            own, value = pairs.item[line][inside[line]], score[line][inside[line]]
            order = np.argsort(-value, kind="stable")[:k]
            items[row, : len(order)], values[row, : len(order)] = own[order], value[order]
        return Lists(items, values)

    def _predict(self, pairs: Pairs) -> npt.NDArray[np.float32]:
        import lightgbm as lgb

        assert self.text is not None
        known = self.predicted
        if known is None or known[0] is not pairs or known[1] is not self.text:
            score = lgb.Booster(model_str=self.text).predict(pairs.x, num_threads=0)
            self.predicted = known = (pairs, self.text, np.asarray(score, dtype=np.float32))
        return known[2]

    def scores(self, users: Codes) -> Scores:
        """Return the trees' scores of the candidates; all other items come after them, alike."""
        pairs = self.pairs(np.asarray(users, np.int32), self.past.end)
        score = self._predict(pairs)
        out = np.full((len(users), self.past.n_items), score.min() - 1 if len(score) else 0.0, np.float32)
        out[np.repeat(np.arange(len(users)), np.diff(pairs.start)), pairs.item] = score
        return out

    def save(self, folder: Path) -> None:
        """Write the trees and what they are asked for."""
        assert self.text is not None
        (folder / "rerank.txt").write_text(self.text, encoding="utf-8")
        (folder / "rerank.json").write_text(json.dumps({"new_only": self.new_only}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read the trees; sources and features follow from the events."""
        import lightgbm as lgb

        facts = json.loads((folder / "rerank.json").read_text(encoding="utf-8"))  # older ones also state the objective
        made = cls(new_only=facts["new_only"])
        made.text = (folder / "rerank.txt").read_text(encoding="utf-8")
        made.trees = lgb.Booster(model_str=made.text).num_trees()
        made.past = past
        return made
