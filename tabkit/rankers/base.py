"""What every ranker is: it reads the past, adapts to it, and lists items for users."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from tabkit.data.interactions import Codes, Events, Joined, blocks
from tabkit.learner import (
    Adapted,
    Budget,
    Candidate,
    Effort,
    Learner,
    Settings,
    Step,
    check_without,
    discover,
    in_order,
    named,
)
from tabkit.learner.need import Need, Size

RECENT_DAYS = 28
"""What is popular now, is so in these last days."""

Scores = npt.NDArray[np.float32]
Judge = Callable[["Ranker"], float]
"""The primary metric of a ranker's lists on valid; greater is better. It is all that a model may know of valid."""


@dataclass(frozen=True)
class Lists:
    """Ranked lists: the best first.

    Attributes
    ----------
    items
        Item codes (n_users, k) int32; -1 where there is no further item.
    scores
        (n_users, k) float32; comparable within a user's list.
    """

    items: Codes
    scores: Scores


@dataclass(frozen=True)
class Allowed:
    """Which items may be listed.

    Attributes
    ----------
    everyone
        For whomever (n_items,) bool.
    only
        For each user, the only ones: CSR (n_users, n_items); no such limit if None.
    barred
        For each user, those that may not: CSR (n_users, n_items).
    """

    everyone: npt.NDArray[np.bool_]
    only: sparse.csr_matrix | None = None
    barred: sparse.csr_matrix | None = None

    def of(self, rows: slice | npt.NDArray[np.int64]) -> Allowed:
        """Return what some of the users may be listed."""
        return Allowed(self.everyone, *(None if m is None else m[rows] for m in (self.only, self.barred)))

    def without(self, barred: sparse.csr_matrix) -> Allowed:
        """Bar more items for each user."""
        return replace(self, barred=barred if self.barred is None else (self.barred + barred).tocsr())

    def among(self, items: Codes) -> Allowed:
        """Return the same of some items."""
        return Allowed(self.everyone[items], *(None if m is None else m[:, items] for m in (self.only, self.barred)))

    def mark(self, scored: Scores) -> None:
        """Give minus infinity to what may not be listed, in the scores of a block of users (B, n_items)."""
        scored[:, ~self.everyone] = -np.inf
        if self.only is not None:
            scored[self.only.toarray() == 0] = -np.inf
        if self.barred is not None:
            scored[np.repeat(np.arange(len(scored)), np.diff(self.barred.indptr)), self.barred.indices] = -np.inf

    def pairs(self, row: npt.NDArray[np.int64], item: Codes) -> npt.NDArray[np.bool_]:
        """Tell whether items may be listed for users, pair by pair (n_pairs,)."""
        inside = self.everyone[item]
        if self.only is not None:
            inside &= np.asarray(self.only[row, item]).ravel() != 0
        if self.barred is not None:
            inside &= np.asarray(self.barred[row, item]).ravel() == 0
        return inside


Among = npt.NDArray[np.bool_] | Allowed | None
"""Items that may be listed: (n_items,) bool for everyone, or user by user; the catalogue if None."""


@dataclass(frozen=True)
class Rows:
    """Scores of a block of users, most of which are what an item scores with everyone.

    Attributes
    ----------
    own
        CSR (B, n_items): what is added for the user himself.
    common
        What every item scores (n_items,).
    """

    own: sparse.csr_matrix
    common: npt.NDArray[np.float64]

    def filled(self) -> Scores:
        """Return all scores as a float32 block (B, n_items).

        Sums are made in float64 where there is anything to add, and nowhere else: dense float64 blocks took ten times as long.
        """
        out = np.empty(self.own.shape, np.float32)
        out[:] = self.common.astype(np.float32)
        out[np.repeat(np.arange(len(out)), np.diff(self.own.indptr)), self.own.indices] = self._values()
        return out

    def best(self, k: int, allowed: Allowed) -> tuple[Codes, Scores]:
        """Return what :func:`best_of` finds in the whole block, by looking at the user's own items and the best of all.

        Of the items without a score of their own, only the ``k`` best can be listed: 50,000 items are not looked at.
        """
        n_users, n_items = self.own.shape
        items, values = np.full((n_users, k), -1, np.int32), np.full((n_users, k), -np.inf, np.float32)
        shared, sums = self.common.astype(np.float32), self._values()
        best_first = np.argsort(-shared, kind="stable").astype(np.int32)
        best_first = best_first[allowed.everyone[best_first]]
        out, barred = ~allowed.everyone, self.own[:, :0].tocsr() if allowed.barred is None else allowed.barred
        gone = np.zeros(n_items, bool)
        for row in range(n_users):
            line = slice(self.own.indptr[row], self.own.indptr[row + 1])
            own, value = self.own.indices[line], sums[line]
            bar = barred.indices[barred.indptr[row] : barred.indptr[row + 1]]
            gone[bar] = True
            mine = ~(gone[own] | out[own])
            gone[own] = True
            others = best_first[: k + len(own) + len(bar)]
            others = others[~gone[others]][:k]
            gone[own], gone[bar] = False, False
            found, score = np.concatenate([own[mine], others]), np.concatenate([value[mine], shared[others]])
            if len(found) > 4 * k:  # sorting thousands took most of the time
                near = score >= np.partition(score, -k)[-k]
                found, score = found[near], score[near]
            order = np.lexsort((found, -score))[:k]
            items[row, : len(order)], values[row, : len(order)] = found[order], score[order]
        return items, values

    def _values(self) -> Scores:
        return np.asarray(self.own.data + self.common[self.own.indices], dtype=np.float32)


class Ranker(Learner):
    """A ranker. Subclasses state ``title`` and ``hows`` (how -> kind of candidate)."""

    how_titles: ClassVar[Mapping[str, str]] = {"full": "from scratch on all"}
    slow: ClassVar[bool] = False
    """Whether its baselines are left out of the smallest budget."""
    cold_baselines: ClassVar[Mapping[str, int]] = {}
    """The baselines of items that nobody has taken: there, what was taken says nothing."""
    lasting: ClassVar[bool] = False
    """Whether what a base learns is dear to learn and small to keep: then a bundle keeps it for refreshes."""
    timeless: ClassVar[bool] = True
    """Whether the settings found on one period are taken over by the next; if not, a refresh looks for them again."""
    past: Events
    """The events it may look at; set by :meth:`adapt`."""

    @classmethod
    def pretrain(
        cls,
        source: Events,
        rng: np.random.Generator,
        budget: Budget,
        new_only: bool = False,
        without: Collection[str] = (),
    ) -> Self | None:
        """Make the base from the events of a source period; None where nothing is pretrained.

        Parameters
        ----------
        new_only
            What it learns is to list what a user has never taken.
        without
            Other rankers that it may not ask for anything: the recipe leaves them out, or they do not fit.
        """
        return None

    @abstractmethod
    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Adapt a copy of this ranker to ``past``; choose only by ``judge``.

        ``past`` is each user's *whole* history, never the new rows alone: what a user did before would be forgotten.
        With ``settings`` nothing is chosen and ``judge`` may be None.
        """

    @abstractmethod
    def scores(self, users: Codes) -> Scores:
        """Score every item for a block of users: float32 (B, n_items), finite; a row depends on its user alone."""

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate what a candidate of this ranker takes in a run: what is too much is left out before it is tried.

        Nothing is estimated of a ranker that does not say.
        """
        return Need()

    def sparse_scores(self, users: Codes) -> Rows | None:
        """Return the same scores as what is the user's own and what all have in common; None if there is no such part.

        With it, lists of many items are made in a fraction of the time.
        """
        return None

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learned beside the events: npz without objects, JSON, LightGBM text."""

    def save_base(self, folder: Path) -> None:
        """Write what a refresh adapts again: no more than :meth:`load` needs."""
        self.save(folder)

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read what :meth:`save` or :meth:`save_base` wrote."""

    def looking_at(self, past: Events) -> Ranker | None:
        """Return what was learned from label windows with the eyes of another day; None where nothing was."""
        return None

    def learning_from(self, users: Codes | None) -> Ranker:
        """Return a ranker whose adaptations learn from some users alone; what counts each user for himself does anyway."""
        return self

    def caught_up(self, joined: Joined) -> Ranker | None:
        """Return what was learned, with all events in histories and counts; None if newer ones need another fit."""
        return None

    def recoded(self, joined: Joined) -> Ranker | None:
        """Return what was learned in the codes of a larger vocabulary, unchanged; None where it has to be learned anew."""
        return None

    def top(self, users: Codes, k: int, new_only: bool = False, among: Among = None) -> Lists:
        """List the best ``k`` items for each user, block by block.

        Parameters
        ----------
        new_only
            Leave out what the user has taken before.
        among
            Items allowed; the catalogue if None.
        """
        items = np.full((len(users), k), -1, np.int32)
        values = np.full((len(users), k), -np.inf, np.float32)
        allowed = self.allowed(users, new_only, among)
        sparsely = allowed.only is None and self.sparse_scores(users[:0]) is not None
        for block in blocks(len(users), 2**15 if sparsely else self.past.n_items):
            here, within = users[block], allowed.of(block)
            rows = self.sparse_scores(here) if sparsely else None
            if rows is not None:
                items[block], values[block] = rows.best(k, within)
                continue
            scored = self.scores(here)
            within.mark(scored)
            items[block], values[block] = best_of(scored, k)
        return Lists(items, values)

    def allowed(self, users: Codes, new_only: bool, among: Among) -> Allowed:
        """Return which items each of the users may be listed; see :meth:`top`."""
        allowed = among if isinstance(among, Allowed) else Allowed(self.past.known if among is None else among)
        return allowed.without(self.past.counts_of(users)) if new_only else allowed


@dataclass(frozen=True)
class ListCandidate(Candidate[Ranker]):
    """A candidate with its lists of valid, made by a ranker that had not seen it."""

    valid: Lists


R = TypeVar("R", bound=Ranker)


def contest(judge: Judge, entries: Iterable[tuple[str, R]]) -> tuple[R, tuple[Step, ...]]:
    """Return the best ranker (the first of equals), and a step for each; entries are (what it tries, ranker)."""
    judged = [(judge(ranker), note, ranker) for note, ranker in entries]
    steps = tuple(Step(i, None, 1 - value, note) for i, (value, note, _) in enumerate(judged, 1))
    return max(judged, key=lambda entry: entry[0])[2], steps


def best_of(scored: Scores, k: int) -> tuple[Codes, Scores]:
    """Return the ``k`` best columns of each row, best first; ties go to the lower code, whatever the block.

    Columns of minus infinity are never listed: -1 stands in their place.
    """
    n_users, n_items = scored.shape
    items = np.full((n_users, k), -1, np.int32)
    values = np.full((n_users, k), -np.inf, np.float32)
    k = min(k, n_items)
    # The k-th best of the maxima of groups of columns is never above the k-th best of all: what reaches it holds
    # the k best and all that tie with them, and is little. (Partitioning whole rows took ten times as long.)
    width = max(1, min(64, n_items // k))
    whole = n_items // width * width
    maxima = scored[:, :whole].reshape(n_users, -1, width).max(axis=2)
    limit = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, -k] if maxima.shape[1] > k else maxima.min(axis=1)
    for row, line in enumerate(scored):
        found = np.flatnonzero(line >= limit[row]) if np.isfinite(limit[row]) else np.flatnonzero(np.isfinite(line))
        order = found[np.argsort(-line[found], kind="stable")[:k]]
        items[row, : len(order)], values[row, : len(order)] = order, line[order]
    return items, values


def logged(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return log(1 + baskets)."""
    values = counts.copy()
    values.data = np.log1p(values.data)
    return values


def decayed(past: Events, half_life: float | None) -> npt.NDArray[np.float64]:
    """Weigh each event by its age at the end of ``past``: halved every ``half_life`` days; 1 where None."""
    if half_life is None:
        return np.ones(len(past))
    return np.asarray(np.exp2(-(past.end - past.day) / half_life))


def popularity(past: Events, days: float | None) -> npt.NDArray[np.float64]:
    """Return each item's number of baskets in the last ``days`` days (n_items,); ever where None."""
    item = past.item if days is None else past.item[past.day >= past.end - days]
    return np.bincount(item, minlength=past.n_items).astype(np.float64)


def _known() -> Mapping[str, Callable[[], type[Ranker]]]:
    return discover("tabkit.rankers", Ranker, "tabkit.rankers")


def ranker_names() -> list[str]:
    """Return the names of all rankers: the files of this folder, and entry points of other packages."""
    return list(_known())


def ranker_class(name: str) -> type[Ranker]:
    """Return the ranker of a name, ``rankers/<name>.py`` for those of tabkit.

    Raises
    ------
    UsageError
        There is none.
    """
    return named(name, _known(), "ranker")


def baselines(without: Collection[str], effort: Effort, *, cold_items: bool, where: str) -> list[tuple[str, str]]:
    """Return (base, how) of the baselines of every recipe, in order, but for those left out.

    Parameters
    ----------
    effort
        Of the budget: slow baselines are left out of ``quick``.
    cold_items
        Whether lists are of items that nobody has taken.

    Raises
    ------
    UsageError
        ``without`` names what cannot be left out.
    """
    kinds = {name: ranker_class(name) for name in ranker_names()}
    check_without(without, kinds, where)
    there = {n: k for n, k in kinds.items() if n not in without and not (k.slow and effort == "quick")}
    return in_order({name: kind.cold_baselines if cold_items else kind.baselines for name, kind in there.items()})
