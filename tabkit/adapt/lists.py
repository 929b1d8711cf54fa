"""Candidates of lists: baselines, bases of the source period untouched, and each adaptation of them.

What is handed in is the past: events of the holdout window are not in it. Choices are made by a judge that knows
only valid.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.adapt.runtime import Runtime, Wanted, measured
from tabkit.data.event_table import end_of
from tabkit.data.interactions import SECONDS_A_DAY, WINDOW, Calendar, Codes, Events, Truth
from tabkit.errors import UsageError, nearest
from tabkit.rankers.base import Judge, ListCandidate, Ranker, ranker_class
from tabkit.ranking import Ranking
from tabkit.seed import stream


@dataclass(frozen=True)
class Clock:
    """Who may see what, and when, up to the cutoff.

    Attributes
    ----------
    past
        The events before the cutoff; there are no others here.
    cutoff
        The day on which the holdout window begins.
    base_end
        The bases know what was before this day.
    cold, cold_days
        Users (codes) who had so many days of history on any day, and no part in the bases.
    whom
        Users that lists are for; everyone if None.
    """

    past: Events
    cutoff: int
    base_end: int
    cold: Codes
    cold_days: int
    whom: Codes | None = None

    def at(self, day: int) -> Events:
        """Return what was known when ``day`` began."""
        assert day <= self.cutoff, "nobody may look past the cutoff"
        past = self.past.before(day)
        if not len(self.cold):
            return past
        is_cold = np.isin(past.user, self.cold)
        return past.take(~is_cold | (past.day >= day - self.cold_days))

    @property
    def earlier(self) -> list[int]:
        """The days on which earlier windows may begin, the latest first.

        The window just before the cutoff is the one that choices were made on, and bases must not have seen any.
        """
        return list(range(self.cutoff - 2 * WINDOW, self.base_end - 1, -WINDOW))

    def source(self) -> Events:
        """Return what the bases are made from: the events of the source period, without cold users."""
        past = self.past.before(self.base_end)
        return past.take(~np.isin(past.user, self.cold)) if len(self.cold) else past


def calendar_of(frame: pl.DataFrame, time: str, ranking: Ranking, sample: bool = False) -> tuple[Calendar, int]:
    """Return what a day of the models' clock is for a recipe, and the cutoff in it, on its sample or on other events.

    Raises
    ------
    DataError
        There is no event, or its time is none.
    """
    if (cutoff := ranking.cutoff_of(sample)) is not None:
        seconds = int(np.datetime64(cutoff, "s").astype(np.int64))
    else:
        window = round(ranking.days * SECONDS_A_DAY)
        seconds = end_of(frame, time, window) - window
    calendar = Calendar.of(ranking.days, seconds)
    return calendar, calendar.day_at(seconds)


def ticks(ranking: Ranking, days: float) -> int:
    """Return how many days of the models' clock are so many days of the calendar."""
    return round(days * WINDOW / ranking.days)


def clock_of(events: Events, cutoff: int, ranking: Ranking, seed: int, where: str = "recipe") -> Clock:
    """Return the clock of a recipe: the cutoff, the bases' end, who is cold, and whom the lists are for.

    Raises
    ------
    UsageError
        A store that no event has.
    """

    cold = np.zeros(0, np.int32)
    if ranking.cold_users:
        drawn = stream(seed, "cold").permutation(events.n_users)[: round(ranking.cold_users * events.n_users)]
        cold = np.sort(drawn).astype(np.int32)
    base_end = cutoff - ticks(ranking, ranking.bases_end)
    whom = cold if ranking.cold_users else None
    if ranking.home_stores:
        whom = at_home(events.before(base_end), ranking.home_stores, where)
    return Clock(events.before(cutoff), cutoff, base_end, cold, ticks(ranking, 7 * ranking.cold_weeks), whom)


def at_home(past: Events, stores: list[int | str], where: str = "recipe") -> Codes:
    """Return the users who went to some of the stores more often than to any other; the lower code if it is a draw.

    Raises
    ------
    UsageError
        A store that no event has.
    """
    codes = {str(name): code for code, name in enumerate(past.stores)}
    if strange := [store for store in stores if str(store) not in codes]:
        raise UsageError(
            f"{where}: table [ranking], home_stores names {strange[0]!r}, which no event has.{nearest(str(strange[0]), codes)}"
        )
    known = past.store >= 0
    visits = np.unique(np.stack([past.user[known], past.store[known], past.basket[known]]), axis=1)
    often = np.zeros((past.n_users, len(past.stores)), np.int64)
    np.add.at(often, (visits[0], visits[1]), 1)
    home = often.argmax(axis=1)
    inside = np.isin(home, [codes[str(store)] for store in stores]) & often.any(axis=1)
    return np.flatnonzero(inside).astype(np.int32)


@dataclass(frozen=True)
class Exam:
    """What lists are judged by on valid.

    Attributes
    ----------
    valid
        Whom, and which items, valid is about.
    judge
        What a ranker's lists are worth there.
    depth
        Items listed per user.
    new_only
        Whether lists leave out what the user has taken before.
    """

    valid: Truth
    judge: Judge
    depth: int
    new_only: bool


def adapt_rankers(
    todo: Sequence[Wanted],
    clock: Clock,
    exam: Exam,
    parents: Mapping[str, Ranker],
    runtime: Runtime,
    without: Collection[str] = (),
) -> tuple[ListCandidate, ...]:
    """Make every ranker on what was known before valid, and list for the users of valid.

    Parameters
    ----------
    parents
        Bases that are there already; the others are pretrained on the source period.
    without
        Rankers that no other one may ask for anything.
    """
    past, valid = clock.at(clock.cutoff - WINDOW), exam.valid
    bases = dict(parents)
    out = []
    for item in todo:
        if item.kind != "baseline" and item.base not in bases:
            bases[item.base] = _pretrained(item.base, clock, exam, runtime, without)
        origin = ranker_class(item.base)() if item.kind == "baseline" else bases[item.base]
        rng = runtime.stream("adapt", item.name)
        with measured() as cost:
            judge = exam.judge if item.settings is None else None
            adapted = origin.adapt(past, judge, item.how, rng, runtime.budget_of(item.name), item.settings)
        lists = adapted.model.top(valid.users, exam.depth, exam.new_only, valid.among)
        out.append(ListCandidate(item.name, item.base, item.how, item.kind, origin, adapted, cost[0], lists))
        runtime.watch(item.name, 1.0, "")
    return tuple(out)


def _pretrained(name: str, clock: Clock, exam: Exam, runtime: Runtime, without: Collection[str]) -> Ranker:
    stage = f"{name} (pretraining)"
    runtime.watch(stage, 0.0, "")
    rng = runtime.stream("pretrain", name)
    base = ranker_class(name).pretrain(clock.source(), rng, runtime.budget_of(stage), exam.new_only, without)
    assert base is not None, f"{name} makes no base"
    runtime.watch(stage, 1.0, "")
    return base.learning_from(clock.whom)


def rerun(candidate: ListCandidate, past: Events, runtime: Runtime) -> Ranker:
    """Run a candidate's procedure again on a later past, with the settings found; nothing is chosen anew."""
    rng = runtime.stream("adapt", candidate.name)
    settings = candidate.adapted.settings
    return candidate.origin.adapt(past, None, candidate.how, rng, runtime.budget, settings).model
