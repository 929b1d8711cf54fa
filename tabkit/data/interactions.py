"""Who took what, when: events as integer codes, with the vocabularies that name them.

An event is one basket that holds an item: quantities do not count (fuel is sold in thousandths of a gallon).
Rows are sorted by day; :meth:`Events.before` is how a model gets to see the past and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from tabkit.errors import DataError, length_of

Codes = npt.NDArray[np.int32]
SECONDS_A_DAY = 86_400
BLOCK_BYTES = 64 * 2**20
"""No dense users x items block is larger than this."""


WINDOW = 28
"""Days of the models' clock in a window: what it means in seconds is :class:`Calendar`'s to say."""


@dataclass(frozen=True)
class Calendar:
    """What a day of the models' clock is.

    A recipe asks about a window of so many days. Rankers count in twenty-eighths of it, so that half-lives, label windows and
    what counts as recent follow the question: a log whose times are all stretched gives the same lists.

    Attributes
    ----------
    window
        Seconds in a window; 28 times 86,400 if a day of the clock is one of the calendar. A day of the clock is a
        twenty-eighth of it, whole seconds or not, so that windows begin where a calendar's days do.
    origin
        Seconds since 1970-01-01 at which day 0 begins.
    """

    window: int = WINDOW * SECONDS_A_DAY
    origin: int = 0

    @classmethod
    def of(cls, days: float, cutoff: int) -> Calendar:
        """Return the calendar in which a window of ``days`` has 28 days and one begins at ``cutoff`` (seconds)."""
        window = max(WINDOW, round(days * SECONDS_A_DAY))
        return cls(window, cutoff % window)

    @property
    def tick(self) -> float:
        """Seconds in a day of the clock."""
        return self.window / WINDOW

    def day_at(self, seconds: int) -> int:
        """Return the day that holds a moment."""
        return (seconds - self.origin) * WINDOW // self.window

    def date(self, day: int) -> str:
        """Return when a day begins: a date, or a moment if days of the clock are shorter than a calendar's.

        >>> Calendar().date(17504), Calendar.of(7, 0).date(70017)
        ('2017-12-04', '2017-12-04 06:00')
        """
        seconds = -(-day * self.window // WINDOW) + self.origin
        if self.tick >= SECONDS_A_DAY or seconds % SECONDS_A_DAY == 0:
            return str(np.datetime64(seconds // SECONDS_A_DAY, "D"))
        return str(np.datetime64(seconds, "s").astype("datetime64[m]")).replace("T", " ")

    def length(self, days: float) -> str:
        """Say how long so many days of the clock are.

        >>> Calendar().length(28), Calendar.of(7, 0).length(28), Calendar.of(0.25, 0).length(28)
        ('28 days', '7 days', '6 hours')
        """
        return length_of(days * self.tick, in_days=self.tick == SECONDS_A_DAY)

    def days(self, days: int) -> float:
        """Return days of the clock in days of the calendar."""
        return days * self.tick / SECONDS_A_DAY


@dataclass(frozen=True)
class Events:
    """Events of a period.

    Attributes
    ----------
    user, item, store
        Codes (n_events,) int32 into ``users``, ``items`` and ``stores``; one row per user, item and basket.
    basket
        Codes (n_events,) int32 of the baskets.
    day
        Days of the models' clock (n_events,) int32, ascending: see ``calendar``.
    price
        Paid for the item, in the currency of the table (n_events,); NaN if unknown.
    users, items, stores
        What the codes stand for, as text or integers, ascending.
    attributes
        One row per item, in the order of ``items``: its place in a hierarchy, its maker; text columns.
    text
        Names of those attributes that are text to be read rather than a place in a hierarchy.
    end
        Every event is before this day.
    calendar
        What a day is.

    The vocabularies are those of the whole table, so that codes mean the same in every part; what an item that
    has not been sold yet can be told by is its column of zeros, and :attr:`known` leaves it out of every list.
    """

    user: Codes
    item: Codes
    basket: Codes
    day: Codes
    store: Codes
    price: npt.NDArray[np.float32]
    users: pl.Series
    items: pl.Series
    stores: pl.Series
    attributes: pl.DataFrame
    text: tuple[str, ...]
    end: int
    calendar: Calendar = Calendar()

    def __len__(self) -> int:
        return len(self.user)

    @property
    def n_users(self) -> int:
        """Users in the vocabulary."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Items in the vocabulary."""
        return len(self.items)

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether each item of the vocabulary was taken in these events (n_items,): the catalogue."""
        return np.bincount(self.item, minlength=self.n_items) > 0

    @cached_property
    def active(self) -> npt.NDArray[np.bool_]:
        """Whether each user has an event here (n_users,)."""
        return np.bincount(self.user, minlength=self.n_users) > 0

    @cached_property
    def counts(self) -> sparse.csr_matrix:
        """Number of baskets per user and item: CSR (n_users, n_items) float64."""
        return self.matrix(np.ones(len(self)))

    @cached_property
    def baskets(self) -> npt.NDArray[np.int64]:
        """Number of baskets of each user (n_users,)."""
        distinct = np.unique(self.user.astype(np.int64) * (int(self.basket.max(initial=0)) + 1) + self.basket)
        return np.bincount(distinct // (int(self.basket.max(initial=0)) + 1), minlength=self.n_users)

    def counts_of(self, users: Codes) -> sparse.csr_matrix:
        """Return the counts of some users: CSR (B, n_items); those of all are not made for a few."""
        few = "counts" not in self.__dict__ and 8 * len(users) < self.n_users
        return (self.of(users) if few else self).counts[users]

    def matrix(self, weight: npt.NDArray[np.float64]) -> sparse.csr_matrix:
        """Sum a weight per event into CSR (n_users, n_items) float64, column indices ascending."""
        shape = (self.n_users, self.n_items)
        out = sparse.coo_matrix((weight, (self.user, self.item)), shape=shape).tocsr()
        out.sort_indices()
        return out

    def take(self, keep: npt.NDArray[np.bool_], end: int | None = None) -> Events:
        """Return the events where ``keep`` (n_events,) is true, in the same vocabularies."""
        return replace(
            self,
            user=self.user[keep],
            item=self.item[keep],
            basket=self.basket[keep],
            day=self.day[keep],
            store=self.store[keep],
            price=self.price[keep],
            end=self.end if end is None else end,
        )

    def before(self, day: int) -> Events:
        """Return what was known when ``day`` began."""
        return self.take(self.day < day, min(day, self.end))

    def between(self, start: int, end: int) -> Events:
        """Return the events of [start, end)."""
        return self.take((self.day >= start) & (self.day < end), min(end, self.end))

    def of(self, users: Codes) -> Events:
        """Return the events of some users."""
        inside = np.zeros(self.n_users, bool)
        inside[users] = True
        return self.take(inside[self.user])

    def extended(self, more: Events) -> Events:
        """Append later events of the same vocabularies.

        Raises
        ------
        DataError
            ``more`` reaches back before the end of these events: a user's history would be counted twice.
        """
        if len(more) and int(more.day.min()) < self.end:
            raise DataError(
                f"New events start on {self.calendar.date(int(more.day.min()))}, before the end of the known ones "
                f"({self.calendar.date(self.end)}): "
                "they would be counted twice. Expected only events from that day on; leave the earlier ones out."
            )
        return replace(
            self,
            user=np.concatenate([self.user, more.user]),
            item=np.concatenate([self.item, more.item]),
            basket=np.concatenate([self.basket, more.basket]),
            day=np.concatenate([self.day, more.day]),
            store=np.concatenate([self.store, more.store]),
            price=np.concatenate([self.price, more.price]),
            end=max(self.end, more.end),
        )

    def frame(self) -> pl.DataFrame:
        """Return the events as a table of codes, for Polars."""
        names = ("user", "item", "basket", "day", "store", "price")
        return pl.DataFrame({name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class Truth:
    """What users took in a window of days: the answer that lists are compared with.

    Attributes
    ----------
    users
        Codes (n_evaluated,) of users with history before the window and at least one event in it.
    items
        CSR (n_evaluated, n_items) bool: the distinct items each took.
    seen
        CSR (n_evaluated, n_items): baskets before the window.
    among
        Items that may be listed (n_items,); the catalogue if None.
    """

    users: Codes
    items: sparse.csr_matrix
    seen: sparse.csr_matrix
    start: int
    end: int
    calendar: Calendar = Calendar()
    among: npt.NDArray[np.bool_] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> Truth:
        """Return the truth of some of the users, by position."""
        return replace(self, users=self.users[rows], items=self.items[rows], seen=self.seen[rows])

    def sample(self, most: int) -> Truth:
        """Return the truth of ``most`` users at most, the same ones whenever they are drawn."""
        if len(self.users) <= most:
            return self
        rng = np.random.default_rng([self.start, len(self.users)])
        return self.take(np.sort(rng.choice(len(self.users), most, replace=False)))


@dataclass(frozen=True)
class Joined:
    """Known events and later ones in one vocabulary, still ascending, so that ties fall as in one table of both.

    Attributes
    ----------
    past, events
        The known events, and all.
    users, items
        Where the codes of the known events went (n_users,), (n_items,).
    """

    past: Events
    events: Events
    users: Codes
    items: Codes


def join_events(past: Events, more: Events) -> Joined:
    """Append events of another table of the same kind: new users, items and stores get codes, histories go on.

    Raises
    ------
    DataError
        The later events reach back before the end of the known ones (:meth:`Events.extended`).
    """
    users, items, stores = (
        pl.concat([getattr(past, name), getattr(more, name).alias(getattr(past, name).name)]).unique().sort()
        for name in ("users", "items", "stores")
    )
    known = past.attributes.with_columns(codes_of(past.items, items).alias("item code"))
    additions = more.attributes.with_columns(codes_of(more.items, items).alias("item code"))
    additions = additions.filter(~pl.col("item code").is_in(known["item code"].implode()))
    attributes = pl.concat([known, additions], how="vertical_relaxed").sort("item code").drop("item code")

    def recoded(events: Events, first_basket: int) -> Events:
        place = {
            name: codes_of(getattr(events, f"{name}s"), whole).to_numpy()
            for name, whole in (("user", users), ("item", items), ("store", stores))
        }
        store = np.where(events.store < 0, -1, place["store"][events.store]) if len(stores) else events.store
        return replace(
            events,
            user=place["user"][events.user],
            item=place["item"][events.item],
            basket=events.basket + np.int32(first_basket),
            store=store.astype(np.int32),
            users=users,
            items=items,
            stores=stores,
            attributes=attributes,
        )

    before = recoded(past, 0)
    after = recoded(more, int(past.basket.max()) + 1 if len(past) else 0)
    whole = before.extended(after)
    return Joined(before, whole, codes_of(past.users, users).to_numpy(), codes_of(past.items, items).to_numpy())


def truth_of(events: Events, start: int, end: int) -> Truth:
    """Return what was taken in [start, end) by users with an event before ``start``."""
    past, window = events.before(start), events.between(start, end)
    users = np.flatnonzero(past.active & window.active).astype(np.int32)
    taken = (window.counts[users] > 0).tocsr()
    return Truth(users, taken, past.counts[users], start, end, events.calendar)


def arrivals(events: Events, start: int, end: int) -> npt.NDArray[np.bool_]:
    """Tell which items (n_items,) were first taken in [start, end)."""
    return np.asarray(~events.before(start).known & events.between(start, end).known)


def columns_of(coded: pl.DataFrame) -> tuple[Codes, Codes, Codes, Codes, Codes, npt.NDArray[np.float32]]:
    """Return the columns of a table of codes in the order of the fields of :class:`Events`."""
    user, item, basket, day, store = (coded[c].to_numpy() for c in ("user", "item", "basket", "day", "store"))
    return user, item, basket, day, store, coded["price"].cast(pl.Float32).fill_null(float("nan")).to_numpy()


def codes_of(values: pl.Series, vocabulary: pl.Series) -> pl.Series:
    """Return the place of each value in a vocabulary, Int32; null if it is not there."""
    return values.replace_strict(
        vocabulary, pl.Series(range(len(vocabulary)), dtype=pl.Int32), default=None, return_dtype=pl.Int32
    )


def blocks(n_users: int, n_items: int, bytes_each: int = 8) -> list[slice]:
    """Cut users into blocks whose dense scores stay within :data:`BLOCK_BYTES`."""
    size = max(1, BLOCK_BYTES // max(1, n_items * bytes_each))
    return [slice(start, min(start + size, n_users)) for start in range(0, n_users, size)]
