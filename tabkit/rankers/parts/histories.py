"""What a sequence network reads: the last baskets of each user as of a day, and what he took before of each item.

Everything is cut off at the day before it is looked at, as in :mod:`tabkit.data.windows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from tabkit.data.interactions import Codes, Events

LENGTH = 50
"""Baskets that are read per user, the last ones."""
AGES = 20
"""Buckets of ages: two per doubling, so that the last holds what is older than two years."""
HALF_LIVES = (7, 21, 60, 180)
"""Days in which the weight of a basket halves, as in :mod:`tabkit.data.windows`."""
RECENT_DAYS = 28
OWN = len(HALF_LIVES) + 6

Ints = npt.NDArray[np.int64]
Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Baskets:
    """Baskets in the order of users, then of time.

    Attributes
    ----------
    item, start
        Rows of the network's item table (n_events,), and where each basket begins (n_baskets + 1,).
    day
        Of each basket (n_baskets,).
    first
        Where each user's baskets begin (n_users + 1,).
    """

    item: Ints
    start: Ints
    day: Codes
    first: Ints

    @classmethod
    def of(cls, past: Events, row_of: Ints) -> Self:
        """Return the baskets of ``past``; ``row_of`` (n_items,) is each item's row, -1 for those that are not read."""
        inside = np.flatnonzero(row_of[past.item] >= 0)
        order = inside[np.lexsort((past.basket[inside], past.day[inside], past.user[inside]))]
        user, basket, day = past.user[order], past.basket[order], past.day[order]
        new = np.ones(len(order), bool)
        new[1:] = (basket[1:] != basket[:-1]) | (user[1:] != user[:-1]) | (day[1:] != day[:-1])
        start = np.flatnonzero(new)
        first = np.concatenate([[0], np.cumsum(np.bincount(user[start], minlength=past.n_users))])
        return cls(row_of[past.item[order]], np.append(start, len(order)), day[start], first)


@dataclass(frozen=True)
class Histories:
    """Users as of the beginning of a day; a row is a user on a day.

    Attributes
    ----------
    user, when
        Codes (n_rows,), and the place of each row's day among the days here.
    basket, age
        The last baskets, the latest first (n_rows, LENGTH): positions in :class:`Baskets`, -1 if there are no more; their
        buckets of age.
    start
        Where each row's own items begin (n_rows + 1,).
    item, own
        Item codes (n_pairs,) that the user took before, and what is told of them (n_pairs, OWN).
    popular
        Logarithm of each item's share of the recent baskets (n_days, n_items).
    """

    user: Codes
    when: Ints
    basket: Ints
    age: Ints
    start: Ints
    item: Codes
    own: Floats32
    popular: Floats32

    @classmethod
    def of(cls, past: Events, day: int, users: Codes, baskets: Baskets) -> Self:
        """Return what is known of users when ``day`` begins."""
        known = past.before(day)
        # A user's baskets before the day come first in his run.
        runs = np.concatenate([[0], np.cumsum(baskets.day < day)])
        first = baskets.first[users]
        last = first + runs[baskets.first[users + 1]] - runs[first]
        basket = last[:, None] - 1 - np.arange(LENGTH)
        basket[basket < first[:, None]] = -1
        ages = np.zeros_like(basket)
        ages[basket >= 0] = day - baskets.day[basket[basket >= 0]]
        recent = np.bincount(known.item[known.day >= day - RECENT_DAYS], minlength=past.n_items) + 0.1
        popular = np.log(recent / recent.sum()).astype(np.float32)
        bucket = np.minimum(AGES - 1, 2 * np.log2(ages + 1.0)).astype(np.int64)
        own = _own(known, day, users, popular)
        return cls(users, np.zeros(len(users), np.int64), basket, bucket, *own, popular[None])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Put the rows of several days one after another."""
        starts, pairs = [np.zeros(1, np.int64)], 0
        for part in parts:
            starts.append(part.start[1:] + pairs)
            pairs += len(part.item)
        names = ("user", "basket", "age", "item", "own", "popular")
        user, basket, age, item, own, popular = (np.concatenate([getattr(p, n) for p in parts]) for n in names)
        when = np.repeat(np.arange(len(parts)), [len(p.user) for p in parts])
        return cls(user, when, basket, age, np.concatenate(starts), item, own, popular)

    def pairs(self, rows: Ints) -> tuple[Ints, Ints]:
        """Return the row (its place among ``rows``) and the position of each pair of some rows."""
        return ranges(self.start[rows], self.start[rows + 1])


def ranges(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Return all positions of several ranges, and of which range each is.

    >>> ranges(np.array([5, 0]), np.array([7, 3]))
    (array([0, 0, 1, 1, 1]), array([5, 6, 0, 1, 2]))
    """
    size = stop - start
    which = np.repeat(np.arange(len(size)), size)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(size) - size, size) + start[which]


def _own(known: Events, day: int, users: Codes, popular: Floats32) -> tuple[Ints, Codes, Floats32]:
    """Tell of each pair of user and item how often and how lately it was taken, and whether it is due."""
    place = np.full(known.n_users, -1)
    place[users] = np.arange(len(users))
    row = place[known.user]
    mine = row >= 0
    age = (day - known.day[mine]).astype(np.float64)
    pair, which = np.unique(row[mine] * known.n_items + known.item[mine], return_inverse=True)
    n = len(pair)
    count = np.bincount(which, minlength=n)
    latest, oldest = np.full(n, np.inf), np.zeros(n)
    np.minimum.at(latest, which, age)
    np.maximum.at(oldest, which, age)
    gap = (oldest - latest) / np.maximum(count - 1, 1)
    due = np.where(count > 1, latest / np.maximum(gap, 1.0), 1.0)
    decayed = [np.bincount(which, np.exp2(-age / h), minlength=n) for h in HALF_LIVES]
    row, item = np.divmod(pair, known.n_items)
    active = np.bincount(row, decayed[2], minlength=len(users))[row]
    # Each is brought to about the size of one.
    told = [np.log(d + 1e-3) / 4 for d in decayed]
    told += [np.log1p(count), np.log1p(latest) / 4, np.log1p(gap) / 4, np.minimum(due, 4.0) / 4]
    told += [(popular[item] + 9) / 4, np.log1p(active) / 4]
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(users)))])
    return start, item.astype(np.int32), np.stack(told, axis=1).astype(np.float32)
