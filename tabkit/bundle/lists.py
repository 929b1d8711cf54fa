"""Bundles of lists: items for users, or items like an item, within what a shop has and may show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from tabkit.bundle.bundles import CHUNK_ROWS, Bundle, Missing
from tabkit.data.conform import conform
from tabkit.data.event_table import events_of, names_of
from tabkit.data.interactions import WINDOW, Codes, Events, arrivals, blocks, codes_of, join_events
from tabkit.data.source import DataLike, open_input
from tabkit.data.validate import read_table
from tabkit.errors import DataError, UsageError, nearest
from tabkit.rankers.base import RECENT_DAYS, Allowed, Ranker, Rows, best_of, logged, popularity
from tabkit.ranking import Ranking
from tabkit.recipe import Plan


class Wishes(TypedDict, total=False):
    """What may be asked of lists beside the bundle.

    ``events``: newer events, which histories and counts then include. ``among``, ``without``: tables of the items that may
    be listed, and of those that may not; with a column of users, for each of them. ``k``: how many items. ``similar``:
    rows are items, and are answered with the items most like them.
    """

    events: DataLike | None
    among: DataLike | None
    without: DataLike | None
    k: int | None
    similar: bool


@dataclass(frozen=True)
class Limit:
    """Items named in a table: for everyone, or user by user.

    Attributes
    ----------
    items
        Codes of the items (n_lines,); -1 if no event has it.
    users
        Whom each line is about, as the vocabulary names users; everyone if None.
    """

    items: Codes
    users: pl.Series | None

    def everyone(self, n_items: int) -> npt.NDArray[np.bool_] | None:
        """Return which items are named for everyone (n_items,); None if it is a table of users."""
        if self.users is not None:
            return None
        named = np.zeros(n_items, bool)
        named[self.items[self.items >= 0]] = True
        return named

    def of(self, asked: pl.Series, n_items: int) -> sparse.csr_matrix | None:
        """Return the items named for each user: CSR (n_asked, n_items); None if it is a table for everyone."""
        if self.users is None:
            return None
        lines = pl.DataFrame({"user": self.users, "item": self.items}).filter(pl.col("item") >= 0).unique()
        rows = pl.DataFrame({"user": asked}).with_row_index("row").join(lines, on="user")
        shape, one = (len(asked), n_items), np.ones(rows.height)
        return sparse.coo_matrix((one, (rows["row"].to_numpy(), rows["item"].to_numpy())), shape=shape).tocsr()


@dataclass(frozen=True)
class ListBundle(Bundle):
    """A bundle that lists items for the users whose history it holds.

    Attributes
    ----------
    k
        Items listed; as many as the recipe says if None.
    within, barred
        What may be listed, and what may not, if limits were given.
    """

    ranker: Ranker
    k: int | None = None
    within: Limit | None = None
    barred: Limit | None = None

    @property
    def _ranking(self) -> Ranking:
        ranking = self.plan.recipe.ranking
        assert ranking is not None
        return ranking

    def _needed(self) -> list[str]:
        return [str(self.id_)]

    def asking(self, **wishes: Unpack[Wishes]) -> ListBundle:
        """Return the bundle as it answers with some wishes.

        Raises
        ------
        UsageError
            The champion cannot take newer events in, or ``k`` is below 1.
        DataError
            A table does not fit.
        """
        k, events = wishes.get("k"), wishes.get("events")
        if k is not None and k < 1:
            raise UsageError(f"--k {k}: expected at least 1 item.")
        made = self if events is None else replace(self, ranker=self._caught_up(events))
        within, barred = (
            None if given is None else _limit(self.plan, given, flag, made.ranker.past)
            for given, flag in ((wishes.get("among"), "--among"), (wishes.get("without"), "--without"))
        )
        made = replace(made, k=k, within=within, barred=barred)
        if not wishes.get("similar"):
            return made
        if any(limit is not None and limit.users is not None for limit in (within, barred)):
            raise UsageError(
                "--similar answers items, and --among or --without names users. Leave the users' column out."
            )
        return SimilarBundle(**{name: getattr(made, name) for name in made.__dataclass_fields__})

    def _caught_up(self, given: DataLike) -> Ranker:
        """Return the ranker with newer events in its histories and counts; what it learned is as it was."""
        recipe, past = self.plan.recipe, self.ranker.past
        frame = read_table(self.plan, open_input(given, self.plan.schema.dialect), recipe.where).frame
        if self._ranking.quantity is not None:
            frame = frame.filter((pl.col(self._ranking.quantity) > 0).fill_null(True))
        made = self.ranker.caught_up(join_events(past, events_of(frame, names_of(self.plan), past.calendar)))
        if made is None:
            raise UsageError(
                f"--events: the bundle holds {self.ranker.title}, which is fitted to users and items together and cannot take in newer "
                f"events. List without --events; or fit it again: tabkit run {recipe.name} on all events, or with --base and the newer ones "
                f"if these reach {past.calendar.length(2 * WINDOW)} beyond {past.calendar.date(past.end)}."
            )
        return made

    @cached_property
    def _everyone(self) -> npt.NDArray[np.bool_]:
        """Items that may be listed for anyone: those of the last window, if the recipe is about such; without barred ones."""
        past = self.ranker.past
        items = past.known
        if self._ranking.cold_items:
            items = arrivals(past, past.end - WINDOW, past.end)
        for limit, inside in ((self.within, True), (self.barred, False)):
            named = None if limit is None else limit.everyone(past.n_items)
            if named is not None:
                items = items & (named if inside else ~named)
        return items

    def _allowed(self, users: pl.Series) -> Allowed:
        only, barred = (
            None if limit is None else limit.of(users, self.ranker.past.n_items) for limit in (self.within, self.barred)
        )
        return Allowed(self._everyone, only, barred)

    def answer(self, frame: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
        """List for users, a row per user and rank; those without history get what is popular now, marked ``cold``."""
        recipe, past = self.plan.recipe, self.ranker.past
        asked, k = frame[str(recipe.id)], self._length
        names = in_words(asked)
        code = coded(names, past.users)
        warm = (code >= 0) & past.active[code]
        items = np.full((len(code), k), -1, np.int32)
        scores = np.zeros((len(code), k), np.float32)
        allowed = self._allowed(names)
        if warm.any():
            lists = self.ranker.top(code[warm], k, self._ranking.new_only, allowed.of(np.flatnonzero(warm)))
            items[warm], scores[warm] = lists.items, lists.scores
        if not warm.all():
            items[~warm], scores[~warm] = _popular(past, int((~warm).sum()), k, allowed.of(np.flatnonzero(~warm)))
        row, rank = np.nonzero(items >= 0)
        listed = past.items.gather(items[row, rank].astype(np.int64))
        return pl.DataFrame(
            [
                asked.gather(row).alias(str(recipe.id)),
                pl.Series("rank", rank + 1, dtype=pl.Int32),
                listed.alias(recipe.target),
                pl.Series("score", scores[row, rank], dtype=pl.Float32),
                pl.Series("cold", ~warm[row]),
            ]
        )

    @property
    def _length(self) -> int:
        return self._ranking.length if self.k is None else self.k

    def missing(self, frame: pl.DataFrame) -> Missing:
        """Count the users without history, and those that no event names."""
        past, names = self.ranker.past, in_words(frame[str(self.plan.recipe.id)])
        code = coded(names, past.users)
        cold = int((~((code >= 0) & past.active[code])).sum())
        return Missing(cold, int((code < 0).sum()), _near(names.filter(pl.Series(code < 0)), past.users))

    def empty(self, key: pl.Series | None = None) -> pl.DataFrame:
        """Return the columns of the answers, without a row."""
        users = self.ranker.past.users[:0].alias(str(self.id_))
        return self.answer(pl.DataFrame([users]), users)


@dataclass(frozen=True)
class SimilarBundle(ListBundle):
    """A bundle that answers items with those most like them, by who took both; whatever its champion is.

    Likeness is the cosine of log(1 + baskets) over users, as in ``itemknn`` (Sarwar et al., WWW 2001).
    """

    @property
    def id_(self) -> str | None:
        """The column of items."""
        return self.plan.recipe.target

    @cached_property
    def _values(self) -> sparse.csr_matrix:
        """Values by item, of length 1: CSR (n_items, n_users)."""
        by_item = logged(self.ranker.past.counts).T.tocsr()
        lengths = np.sqrt(np.asarray(by_item.power(2).sum(axis=1)).ravel())
        return sparse.diags_array(1 / np.maximum(lengths, 1e-12)).tocsr() @ by_item

    @cached_property
    def _by_user(self) -> sparse.csr_matrix:
        return self._values.T.tocsr()

    def answer(self, frame: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
        """List for items, a row per item and rank; one that nobody has taken has none."""
        past, target, k = self.ranker.past, self.plan.recipe.target, self._length
        asked = frame[target]
        code = coded(in_words(asked), past.items)
        there = np.flatnonzero(code >= 0)
        items = np.full((len(code), k), -1, np.int32)
        scores = np.zeros((len(code), k), np.float32)
        for block in blocks(len(there), past.n_items, 24):
            rows = there[block]
            likeness = (self._values[code[rows]] @ self._by_user).toarray().astype(np.float32)
            likeness[likeness == 0] = -np.inf
            likeness[:, ~self._everyone] = -np.inf
            likeness[np.arange(len(rows)), code[rows]] = -np.inf
            items[rows], scores[rows] = best_of(likeness, k)
        row, rank = np.nonzero(items >= 0)
        return pl.DataFrame(
            [
                asked.gather(row).alias(target),
                pl.Series("rank", rank + 1, dtype=pl.Int32),
                past.items.gather(items[row, rank].astype(np.int64)).alias(f"similar_{target}"),
                pl.Series("score", scores[row, rank], dtype=pl.Float32),
            ]
        )

    def missing(self, frame: pl.DataFrame) -> Missing:
        """Count the items that nobody has taken, and those that no event names."""
        past, names = self.ranker.past, in_words(frame[self.plan.recipe.target])
        code = coded(names, past.items)
        cold = int((~((code >= 0) & past.known[code])).sum())
        return Missing(cold, int((code < 0).sum()), _near(names.filter(pl.Series(code < 0)), past.items))

    def empty(self, key: pl.Series | None = None) -> pl.DataFrame:
        """Return the columns of the answers, without a row."""
        items = self.ranker.past.items[:0].alias(self.plan.recipe.target)
        return self.answer(pl.DataFrame([items]), items)


def in_words(values: pl.Series) -> pl.Series:
    """Return ids as vocabularies hold them: whole numbers, or text."""
    return values if values.dtype.is_integer() else values.cast(pl.String)


def coded(values: pl.Series, vocabulary: pl.Series) -> Codes:
    """Return the place of each id in a vocabulary (n,) int32; -1 if it is not there."""
    if values.dtype.is_integer() != vocabulary.dtype.is_integer():
        values = values.cast(vocabulary.dtype, strict=False)
    return codes_of(values, vocabulary).fill_null(-1).to_numpy().astype(np.int32)


def _popular(past: Events, n_users: int, k: int, allowed: Allowed) -> tuple[Codes, npt.NDArray[np.float32]]:
    """List what is popular now among what is allowed: items (n_users, k), baskets."""
    popular = popularity(past, RECENT_DAYS)
    allowed = replace(allowed, everyone=allowed.everyone & (popular > 0))
    rows = Rows(sparse.csr_matrix((n_users, past.n_items)), popular)
    if allowed.only is None:
        return rows.best(k, allowed)
    parts = []
    for block in blocks(n_users, past.n_items):
        scored = replace(rows, own=rows.own[block]).filled()
        allowed.of(block).mark(scored)
        parts.append(best_of(scored, k))
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _limit(plan: Plan, given: DataLike, flag: str, past: Events) -> Limit:
    """Read a table of items, and of users if it has their column.

    Raises
    ------
    DataError
        It has no column of items, or a line does not fit the schema.
    """
    recipe, source = plan.recipe, open_input(given, plan.schema.dialect)
    if recipe.target not in source.columns:
        raise DataError(
            f"{flag} {source.name}: expected a column '{recipe.target}' of items, and '{recipe.id}' if each user has his own."
            f"{nearest(recipe.target, source.columns)}"
        )
    columns = [c for c in (recipe.target, str(recipe.id)) if c in source.columns]
    frames = []
    for batch in source.batches(CHUNK_ROWS):
        fitted = conform(batch, plan.schema, columns)
        bad = pl.concat([batch.malformed, fitted.rejects])
        if bad.height or any(fitted.frame[c].null_count() for c in columns):
            first = bad.row(0, named=True) if bad.height else {"row": "?", "column": columns[0], "reason": "is missing"}
            raise DataError(
                f"{flag} {source.name}, row {first['row']}: column '{first['column']}' {first['reason']}. Every line has to name "
                f"{' and '.join(columns)}. Fix the file."
            )
        frames.append(fitted.frame)
    frame = pl.concat(frames)
    items = coded(in_words(frame[recipe.target]), past.items)
    if len(items) and (items < 0).all():
        example = in_words(frame[recipe.target])
        near = _near(example, past.items)
        hint = f" '{near[0]}' there is '{near[1]}' in the bundle." if near else f" Its first is {example[0]!r}."
        raise DataError(
            f"{flag} {source.name}: no item of it is known to the bundle, as if ids were spelled another way.{hint}"
        )
    return Limit(items, in_words(frame[str(recipe.id)]) if recipe.id in columns else None)


_SPELLINGS: tuple[Callable[[pl.Expr], pl.Expr], ...] = (
    lambda e: (
        e.str.to_lowercase().str.replace(r"\.0+$", "").str.replace_all(r"[^\p{L}\p{N}]", "").str.strip_chars_start("0")
    ),
    lambda e: e.str.replace(r"\.0+$", "").str.replace_all(r"[^0-9]", "").str.strip_chars_start("0"),
)
"""What may differ between two spellings of an id: case, signs and leading zeros; then letters too."""


def _near(unknown: pl.Series, vocabulary: pl.Series) -> tuple[str, str] | None:
    """Return an unknown id and a known one that differs in spelling only; None if there is no such pair."""
    if not len(unknown):
        return None
    asked, known = (pl.DataFrame({"id": s.cast(pl.String)}).unique(maintain_order=True) for s in (unknown, vocabulary))
    for spelled in _SPELLINGS:
        bare = spelled(pl.col("id")).alias("bare")
        pairs = asked.with_columns(bare).filter(pl.col("bare") != "").join(known.with_columns(bare), on="bare")
        if pairs.height:
            first = pairs.row(0, named=True)
            return first["id"], first["id_right"]
    return None
