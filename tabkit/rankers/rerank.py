"""Re-ranking: candidates from several sources, ordered by LightGBM over as-of features, learned on earlier windows.

Sources: the two-stage design of Covington, Adams & Sargin, RecSys 2016. A label window is four weeks; features are
those of the day it begins (:mod:`tabkit.data.windows`).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tabkit.data.interactions import WINDOW, Codes, Events, Joined, Truth, blocks, truth_of
from tabkit.data.windows import AsOf
from tabkit.errors import DataError
from tabkit.learner import Adapted, Block, Budget, Proof, Settings, Step
from tabkit.rankers.base import RECENT_DAYS, Among, Judge, Lists, Ranker, Scores, best_of, decayed, popularity
from tabkit.rankers.ease import Ease
from tabkit.rankers.tifu import Tifu

OWN, POPULAR, NEW = 300, 100, 100
"""Candidates per user: own items by decayed frequency, recent popular ones, and EASE's best of the others."""
OWN_HALF_LIFE = 90
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


SOURCES = ("ease", "tifu")
"""Rankers that are asked for candidates, or for what they say of one, beside counts."""
MOST_LEARNED = {"quick": 5_000, "standard": 10_000, "thorough": 12_000}
"""Users of a label window that are learned from: more, and their pairs alone would take gigabytes."""
KEPT_BYTES = 2**30
"""Described pairs that are kept, to be judged again."""


@dataclass(frozen=True)
class Pairs:
    """Candidate pairs as of a day, grouped by user.

    Attributes
    ----------
    row
        Position (n_pairs,) of each pair's user among those asked about, ascending.
    item
        Item codes (n_pairs,).
    x
        Features (n_pairs, n_features) float32.
    sums
        What trees add up to for each pair (n_pairs,), by their text: of bases, which are asked again and again, also for
        what was grown on them.
    """

    row: npt.NDArray[np.int64]
    item: Codes
    x: npt.NDArray[np.float32]
    names: tuple[str, ...]
    sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_own(self) -> npt.NDArray[np.bool_]:
        """Whether the user took the item before (n_pairs,)."""
        return np.asarray(self.x[:, self.names.index("is_own")] != 0)


class Sources:
    """Where candidates come from at the end of some events, made once for however many users."""

    def __init__(self, past: Events, names: Collection[str]) -> None:
        self.past, self.as_of = past, AsOf(past, past.end)
        self.ease = Ease(50.0).fit(past) if "ease" in names else None
        self.tifu = Tifu()._fit(past) if "tifu" in names else None
        self._find_popular()

    def _find_popular(self) -> None:
        self.popular = np.argsort(-popularity(self.past, RECENT_DAYS), kind="stable")[:POPULAR].astype(np.int32)

    def pairs(self, users: Codes) -> Pairs:
        """Return candidates and features of users."""
        mine = self.past.of(users)
        own = mine.matrix(decayed(mine, OWN_HALF_LIFE))[users]
        cut = blocks(len(users), self.past.n_items)
        parts = [self._candidates(users[block], own[block]) for block in cut]
        row = np.concatenate([b.start + part[0] for b, part in zip(cut, parts, strict=True)])
        item = np.concatenate([part[1] for part in parts])
        said = {}
        if self.ease is not None:
            said["ease"] = np.concatenate([part[2] for part in parts])
        if self.tifu is not None:
            for name, vectors in zip(("tifu_own", "tifu_near"), self.tifu.apart(users), strict=True):
                vectors.sort_indices()
                said[name] = np.asarray(vectors[row, item]).ravel().astype(np.float32)
        said["is_own"] = (np.asarray(own[row, item]).ravel() > 0).astype(np.float32)
        said["is_popular"] = np.isin(item, self.popular).astype(np.float32)
        table = self.as_of.describe(users[row], item)
        x = np.hstack([table.to_numpy().astype(np.float32), np.stack(list(said.values()), axis=1)])
        return Pairs(row, item, x, (*table.columns, *said))

    def _candidates(self, users: Codes, own: sparse.csr_matrix) -> tuple[npt.NDArray[np.int64], Codes, Scores]:
        """Return the position and item of each candidate of a block of users, ascending, and what EASE says of it."""
        n_items, first = self.past.n_items, np.arange(len(users))[:, None] * self.past.n_items
        row = np.repeat(np.arange(len(users)), np.diff(own.indptr))
        order = np.lexsort((own.indices, -own.data, row))
        heaviest = order[np.arange(len(order)) - own.indptr[row] < OWN]
        keys = [(row * n_items + own.indices)[heaviest], (first + self.popular).ravel()]
        scored = np.zeros((len(users), 0), np.float32)
        if self.ease is not None:
            scored = self.ease.scores(users)
            unseen = scored.copy()
            unseen[:, ~self.past.known] = -np.inf
            unseen[row, own.indices] = -np.inf
            new = best_of(unseen, NEW)[0]
            keys.append((first + new)[new >= 0])
        found = np.unique(np.concatenate(keys))
        said = scored.ravel()[found] if self.ease is not None else scored.ravel()
        return found // n_items, (found % n_items).astype(np.int32), said

    def save(self, folder: Path) -> None:
        """Write what would take all events to find again."""
        for part in (self.as_of, self.ease, self.tifu):
            if part is not None:
                part.save(folder)

    @classmethod
    def load(cls, folder: Path, past: Events, names: Collection[str]) -> Self | None:
        """Read what :meth:`save` wrote; None if nothing was."""
        as_of = AsOf.load(folder, past)
        if as_of is None:
            return None
        made = cls.__new__(cls)
        made.past, made.as_of = past, as_of
        made.ease = Ease.load(folder, past) if "ease" in names else None
        made.tifu = Tifu.load(folder, past) if "tifu" in names else None
        made._find_popular()
        return made


class Memory:
    """Sources by their past, and described pairs by the users asked about: a judge asks for the same again and again."""

    def __init__(self) -> None:
        self.sources: dict[tuple[int, int], Sources] = {}
        self.pairs: dict[tuple[int, int, bytes], Pairs] = {}

    def sources_of(self, past: Events, names: Collection[str]) -> Sources:
        """Return the sources at the end of a past; the last two are remembered."""
        when = (past.end, len(past))
        if when not in self.sources:
            while len(self.sources) > 1:
                del self.sources[next(iter(self.sources))]
            self.sources[when] = Sources(past, names)
        return self.sources[when]

    def pairs_of(self, past: Events, users: Codes, names: Collection[str]) -> Pairs:
        """Return the pairs of users at the end of a past."""
        key = (past.end, len(past), users.tobytes())
        if key not in self.pairs:
            made = self.sources_of(past, names).pairs(users)
            while self.pairs and sum(p.x.nbytes for p in self.pairs.values()) + made.x.nbytes > KEPT_BYTES:
                del self.pairs[next(iter(self.pairs))]
            self.pairs[key] = made
        return self.pairs[key]


class Rerank(Ranker):
    """Learns on past windows how what is known about user and item tells what comes next."""

    title = "Re-ranker"
    hows = {"as_is": "base", "continue": "adapted", "full": "adapted"}
    lasting = True

    only: Codes | None
    """Users whose windows are learned from; all where None."""
    stem: Rerank | None
    """What these trees were grown on, if it is still there; it need not be asked twice."""
    cuts: tuple[int, ...]
    """After how many trees more were grown on them. Trees are added up from cut to cut, with a stem or without: the sums are the same."""

    def __init__(self, *, new_only: bool = False) -> None:
        self.new_only = new_only
        self.text: str | None = None
        self.only: Codes | None = None
        self.trees = 0
        self.stem, self.cuts = None, ()
        self.sources: tuple[str, ...] = SOURCES
        self.memory = Memory()

    @classmethod
    def pretrain(
        cls,
        source: Events,
        rng: np.random.Generator,
        budget: Budget,
        new_only: bool = False,
        without: Collection[str] = (),
    ) -> Self | None:
        """Learn on the last windows of the source period."""
        made = cls(new_only=new_only)
        made.sources = tuple(name for name in SOURCES if name not in without)
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
            made.text, made.stem, made.cuts = None, None, ()
            made._learn(made._days(budget), rng, budget, n, None)
            return Adapted(made, how, Proof((Block("trees", n, n, float(n)),)), found)
        days = [d for d in made._days(budget) if d >= self.past.end] or made._days(budget)[:1]
        steps = (found["trees"],) if "trees" in found else MORE_TREES
        made.stem, made.cuts = self, (*self.cuts, self.trees)
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
        made.only = users
        return made

    def caught_up(self, joined: Joined) -> Rerank:
        """Return the trees, with the features and sources of all events."""
        made = self.looking_at(joined.events)
        made.memory = Memory()
        return made

    def recoded(self, joined: Joined) -> Rerank:
        """Return the trees; codes are in the events alone."""
        made = self.looking_at(joined.past)
        made.memory = Memory()
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

    def _truths(self, days: list[int], most: int) -> list[tuple[int, Truth]]:
        """Return the label windows, of the users learned from if any of them has history before one; else of everyone."""
        windows = [(day, truth_of(self.past, day, day + WINDOW)) for day in days]
        if self.only is not None:
            own = [(day, truth.take(np.flatnonzero(np.isin(truth.users, self.only)))) for day, truth in windows]
            windows = [(day, truth) for day, truth in own if len(truth.users)] or windows
        return [(day, truth.sample(most)) for day, truth in windows]

    def _learn(self, days: list[int], rng: np.random.Generator, budget: Budget, n_trees: int, base: str | None) -> None:
        import lightgbm as lgb

        xs, ys = [], []
        names: tuple[str, ...] = ()
        for day, truth in self._truths(days, MOST_LEARNED[budget.effort]):
            pairs = self.pairs(truth.users, day)
            names = pairs.names
            y = np.asarray(truth.items[pairs.row, pairs.item]).ravel() > 0
            keep = y | (rng.random(len(y)) < KEEP_NEGATIVES[budget.effort])
            if self.new_only:
                keep &= ~pairs.is_own
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

        if trees == self.trees:
            return
        assert self.text is not None
        self.text = lgb.Booster(model_str=self.text).model_to_string(num_iteration=trees)
        self.trees = trees

    def pairs(self, users: Codes, day: int) -> Pairs:
        """Return candidates and features of users as of a day, from the events before it."""
        past = self.past if day >= self.past.end else self.past.before(day)
        return self.memory.pairs_of(past, users, self.sources)

    def top(self, users: Codes, k: int, new_only: bool = False, among: Among = None) -> Lists:
        """List the best candidates of each user; never an item that no source proposes."""
        items = np.full((len(users), k), -1, np.int32)
        values = np.full((len(users), k), -np.inf, np.float32)
        allowed = self.allowed(users, False, among)
        for start in range(0, len(users), MOST_USERS):
            part = slice(start, min(start + MOST_USERS, len(users)))
            pairs = self.pairs(np.asarray(users[part], np.int32), self.past.end)
            inside = allowed.of(part).pairs(pairs.row, pairs.item)
            if new_only:
                inside &= ~pairs.is_own
            row, item, score = pairs.row[inside], pairs.item[inside], self._predict(pairs)[inside]
            order = np.lexsort((-score, row))
            row, item, score = row[order], item[order], score[order]
            rank = np.arange(len(row)) - np.searchsorted(row, row)
            listed = rank < k
            at = (start + row[listed], rank[listed])
            items[at], values[at] = item[listed], score[listed]
        return Lists(items, values)

    def _predict(self, pairs: Pairs) -> npt.NDArray[np.float32]:
        return np.asarray(1 / (1 + np.exp(-self._sums(pairs))), dtype=np.float32)

    def _sums(self, pairs: Pairs) -> npt.NDArray[np.float64]:
        import lightgbm as lgb

        assert self.text is not None
        if self.text in pairs.sums:
            return pairs.sums[self.text]
        booster = lgb.Booster(model_str=self.text)
        sums = np.zeros(len(pairs.item)) if self.stem is None else self.stem._sums(pairs)
        edges = [0, *self.cuts, self.trees] if self.stem is None else [self.stem.trees, self.trees]
        for first, end in pairwise(edges):
            grown = booster.predict(
                pairs.x, start_iteration=first, num_iteration=end - first, raw_score=True, num_threads=0
            )
            sums = sums + np.asarray(grown)
        if self.stem is None:
            pairs.sums[self.text] = sums
        return sums

    def scores(self, users: Codes) -> Scores:
        """Return the trees' scores of the candidates; all other items come after them, alike."""
        pairs = self.pairs(np.asarray(users, np.int32), self.past.end)
        score = self._predict(pairs)
        out = np.full((len(users), self.past.n_items), score.min() - 1 if len(score) else 0.0, np.float32)
        out[pairs.row, pairs.item] = score
        return out

    def save(self, folder: Path) -> None:
        """Write the trees, what they are asked for, and what the sources found."""
        self.memory.sources_of(self.past, self.sources).save(folder)
        self.save_base(folder)

    def save_base(self, folder: Path) -> None:
        """Write the trees, and what they are asked for."""
        assert self.text is not None
        facts = {"new_only": self.new_only, "sources": self.sources, "cuts": self.cuts}
        (folder / "rerank.txt").write_text(self.text, encoding="utf-8")
        (folder / "rerank.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read the trees and what the sources found; features of users follow from the events."""
        import lightgbm as lgb

        facts = json.loads((folder / "rerank.json").read_text(encoding="utf-8"))
        made = cls(new_only=facts["new_only"])
        made.sources = tuple(facts.get("sources", SOURCES))  # bundles of tabkit 0.1.0 had them all
        made.cuts = tuple(facts.get("cuts", ()))
        if (kept := Sources.load(folder, past, made.sources)) is not None:
            made.memory.sources[past.end, len(past)] = kept
        made.text = (folder / "rerank.txt").read_text(encoding="utf-8")
        made.trees = lgb.Booster(model_str=made.text).num_trees()
        made.past = past
        return made
