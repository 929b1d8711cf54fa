"""Make every ranker of a recipe: baselines, bases of the source period untouched, and each adaptation.

Nothing here sees the holdout window: choices are made by a judge that knows valid alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from tabkit.adapt import Wanted, Watch, measured
from tabkit.data.interactions import Codes, Events, Truth
from tabkit.errors import UsageError, nearest
from tabkit.learner import Adapted, Budget, Cost
from tabkit.rankers.base import Judge, ListCandidate, Ranker, baselines, ranker_class, ranker_names, refresh_baselines
from tabkit.recipe import Ranking, Recipe
from tabkit.seed import stream


@dataclass(frozen=True)
class Clock:
    """Who may see what, and when: the events as they were on a day.

    ``cold`` users (codes) had ``cold_days`` days of history on any day, and no part in the bases. Lists are for
    ``whom``: everyone where None.
    """

    events: Events
    cutoff: int
    days: int
    base_end: int
    cold: Codes
    cold_days: int
    whom: Codes | None = None

    def at(self, day: int) -> Events:
        """Return what was known when ``day`` began."""
        past = self.events.before(day)
        if not len(self.cold):
            return past
        is_cold = np.isin(past.user, self.cold)
        return past.take(~is_cold | (past.day >= day - self.cold_days))

    def source(self) -> Events:
        """Return what the bases are made from: the events of the source period, without cold users."""
        past = self.events.before(self.base_end)
        return past.take(~np.isin(past.user, self.cold)) if len(self.cold) else past


def clock_of(events: Events, ranking: Ranking, seed: int) -> Clock:
    """Return the clock of a recipe: the cutoff, the bases' end, who is cold, and whom the lists are for.

    Raises
    ------
    UsageError
        A store that no event has.
    """
    cutoff = events.end - ranking.days
    if ranking.cutoff is not None:
        cutoff = int(np.datetime64(ranking.cutoff, "D").astype(np.int64))
    cold = np.zeros(0, np.int32)
    if ranking.cold_users:
        drawn = stream(seed, "cold").permutation(events.n_users)[: round(ranking.cold_users * events.n_users)]
        cold = np.sort(drawn).astype(np.int32)
    base_end = cutoff - ranking.base_days
    whom = cold if ranking.cold_users else None
    if ranking.home_stores:
        whom = at_home(events.before(base_end), ranking.home_stores)
    return Clock(events, cutoff, ranking.days, base_end, cold, 7 * ranking.cold_weeks, whom)


def at_home(past: Events, stores: list[int | str]) -> Codes:
    """Return the users who went to some of the stores more often than to any other; the lower code where it is a draw.

    Raises
    ------
    UsageError
        A store that no event has.
    """
    codes = {str(name): code for code, name in enumerate(past.stores)}
    if strange := [store for store in stores if str(store) not in codes]:
        raise UsageError(
            f"[ranking] home_stores names {strange[0]!r}, which no event has.{nearest(str(strange[0]), codes)}"
        )
    known = past.store >= 0
    visits = np.unique(np.stack([past.user[known], past.store[known], past.basket[known]]), axis=1)
    often = np.zeros((past.n_users, len(past.stores)), np.int64)
    np.add.at(often, (visits[0], visits[1]), 1)
    home = often.argmax(axis=1)
    inside = np.isin(home, [codes[str(store)] for store in stores]) & often.any(axis=1)
    return np.flatnonzero(inside).astype(np.int32)


def wanted_rankers(recipe: Recipe, level: str, where: str) -> tuple[Wanted, ...]:
    """Return the rankers of a recipe: baselines first, then each base untouched and its adaptations.

    Raises
    ------
    UsageError
        An unknown base or strategy.
    """
    assert recipe.ranking is not None
    always = baselines(recipe.candidates.without, level, cold_items=recipe.ranking.cold_items, where=where)
    out = [Wanted(base, how, "baseline") for base, how in always]
    for base, hows in recipe.candidates.adapt.items():
        if base not in ranker_names():
            raise UsageError(
                f"{where}: table [candidates.adapt], unknown ranker '{base}'.{nearest(base, ranker_names())} See: tabkit list models."
            )
        known = ranker_class(base).hows
        strategies = [how for how, kind in known.items() if kind == "adapted"]
        for how in hows:
            if how not in strategies:
                raise UsageError(
                    f"{where}: table [candidates.adapt], base '{base}' has no strategy '{how}'.{nearest(how, strategies)}"
                )
        out += [Wanted(base, how, known[how]) for how in [*(h for h, k in known.items() if k == "base"), *hows]]
    return tuple(dict.fromkeys(out))


def wanted_on_top(base: str, cold_items: bool) -> tuple[Wanted, ...]:
    """Return the rankers of a refresh: plain counts, the parent, and its adaptations short of fitting it again."""
    known = ranker_class(base).hows
    out = [Wanted(each, how, "baseline") for each, how in refresh_baselines(cold_items=cold_items)]
    out += [Wanted(base, how, kind) for how, kind in known.items() if kind != "baseline" and how != "full"]
    return tuple(out)


def adapt_rankers(
    todo: tuple[Wanted, ...],
    clock: Clock,
    valid: Truth,
    judge: Judge,
    depth: int,
    new_only: bool,
    seed: int,
    budget: Budget,
    watch: Watch,
    made: Mapping[str, Ranker],
) -> tuple[ListCandidate, ...]:
    """Make every ranker on what was known before valid, and list for the users of valid.

    Parameters
    ----------
    made
        Bases that are there already; the others are pretrained on the source period.
    valid
        Whom, and which items, valid is about.
    judge
        What a ranker's lists are worth on valid.
    depth
        Items listed per user.
    """
    past = clock.at(clock.cutoff - clock.days)
    bases = dict(made)
    out = []
    for item in todo:
        own = replace(budget, progress=_part_of(watch, item.name))
        if item.kind != "baseline" and item.base not in bases:
            watch(f"{item.base} (pretraining)", 0.0, "")
            rng = stream(seed, "pretrain", item.base)
            base = ranker_class(item.base).pretrain(clock.source(), rng, own, new_only)
            assert base is not None, f"{item.base} makes no base"
            bases[item.base] = base.learning_from(clock.whom)
            watch(f"{item.base} (pretraining)", 1.0, "")
        origin = ranker_class(item.base)() if item.kind == "baseline" else bases[item.base]
        with measured() as cost:
            fitted = origin.adapt(past, judge, item.how, stream(seed, "adapt", item.name), own)
        lists = fitted.model.top(valid.users, depth, new_only, valid.among)
        out.append(ListCandidate(item.name, item.base, item.how, item.kind, origin, fitted, cost[0], lists))
        watch(item.name, 1.0, "")
    return tuple(out)


def again_on(contestant: ListCandidate, past: Events, seed: int, budget: Budget) -> tuple[Adapted[Ranker], Cost]:
    """Run a contestant's procedure again on a later past, with the settings found; nothing is chosen anew."""
    rng = stream(seed, "adapt", contestant.name)
    with measured() as cost:
        fitted = contestant.origin.adapt(past, None, contestant.how, rng, budget, contestant.adapted.settings)
    return fitted, cost[0]


def _part_of(watch: Watch, stage: str) -> Callable[[float, str], None]:
    return lambda fraction, note: watch(stage, fraction, note)
