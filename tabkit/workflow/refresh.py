"""Take a bundle of lists on by new events: the parent is the base, and what it learned is adapted, not fitted again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tabkit.adapt.lists import Clock, at_home
from tabkit.bundle import ListBundle, load_bundle
from tabkit.data.interactions import WINDOW, Events, join_events
from tabkit.errors import DataError, UsageError
from tabkit.rankers.base import Ranker
from tabkit.recipe import Plan
from tabkit.result.lists import Parent


@dataclass(frozen=True)
class Taken:
    """A parent and its new events, in one vocabulary.

    Attributes
    ----------
    events
        All events, the parent's and the new ones.
    clock
        The last two windows of the new events are valid and holdout; bases end where the parent's events do.
    facts
        What ``result.json`` says of the parent.
    """

    base: str
    ranker: Ranker
    events: Events
    clock: Clock
    facts: Parent


def open_parent(folder: str | Path, plan: Plan) -> ListBundle:
    """Load the bundle to be refreshed; its own recipe and schema go on, with their filters.

    Raises
    ------
    UsageError
        It is a bundle of a table, or of another recipe.
    BundleError
        It is broken.
    """
    parent = load_bundle(Path(folder))
    if not isinstance(parent, ListBundle):
        raise UsageError(f"--base {folder} is the bundle of a table. Expected one of {plan.recipe.name}.")
    if parent.plan.recipe.name != plan.recipe.name:
        raise UsageError(
            f"--base {folder} was made by {parent.plan.recipe.name}. Expected a bundle of {plan.recipe.name}."
        )
    return parent


def take_on(parent: ListBundle, new: Events) -> Taken:
    """Join the parent's events and the new ones.

    Raises
    ------
    DataError
        The new events begin before the parent's end, or are too few weeks to choose and to compare on.
    UsageError
        The parent's ranker learned nothing that can be taken on.
    """
    ranking, past = parent.plan.recipe.ranking, parent.ranker.past
    assert ranking is not None
    joined = join_events(past, new)
    ranker = parent.ranker.recoded(joined)
    if ranker is None:
        raise UsageError(
            f"--base: the bundle holds {parent.ranker.title}, which is fitted anew or not at all. Run "
            f"{parent.plan.recipe.name} on all events, without --base."
        )
    end, calendar = joined.events.end, past.calendar
    if end - past.end < 2 * WINDOW:
        raise DataError(
            f"New events run from {calendar.date(int(new.day.min()))} to {calendar.date(end - 1)}, {calendar.length(end - past.end)} after the "
            f"parent's end. Expected at least {calendar.length(2 * WINDOW)}: half to choose on, half to compare on. "
            "Wait for more, or run the recipe on all events."
        )
    whom = at_home(joined.past, ranking.home_stores, str(parent.plan.path)) if ranking.home_stores else None
    events, cutoff = joined.events, end - WINDOW
    clock = Clock(events.before(cutoff), cutoff, past.end, joined.users[:0], 0, whom)
    facts = Parent(
        created=parent.manifest.created,
        seal=parent.seal,
        champion=parent.manifest.champion,
        events_end=calendar.date(past.end),
        events=len(past),
        new_events=len(new),
        new_users=len(events.users) - past.n_users,
        new_items=len(events.items) - past.n_items,
        gap_days=round(calendar.days(int(new.day.min()) - past.end)),
    )
    return Taken(parent.manifest.model, ranker.learning_from(whom), events, clock, facts)
