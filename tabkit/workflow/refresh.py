"""Take a bundle of lists on by new events: what its run found is carried out again, and nothing dear is searched or learned anew.

A refresh is a full run at the new cutoff whose choices are narrowed by the parent: its bases are adapted again by the
strategies and with the settings that its run found, beside the same baselines. Valid chooses as ever, and the holdout is
asked only about those chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tabkit.adapt.lists import Clock, at_home, ticks
from tabkit.bundle import BASES, ListBundle, load_bundle
from tabkit.data.interactions import WINDOW, Events, join_events
from tabkit.errors import BundleError, DataError, UsageError
from tabkit.rankers.base import Ranker, ranker_class
from tabkit.recipe import Plan
from tabkit.result import CandidateFacts
from tabkit.result.findings import Facts
from tabkit.result.lists import Parent


class Scorecard(Facts):
    """What a refresh takes over from the result of the parent's run; empty if the bundle does not say."""

    primary: str = ""
    """The metric that decided."""
    candidates: tuple[CandidateFacts, ...] = ()
    """Its candidates."""

    @property
    def known(self) -> dict[str, CandidateFacts]:
        """The candidates by name."""
        return {c.name: c for c in self.candidates}


@dataclass(frozen=True)
class Opened:
    """A bundle to be refreshed, the bases that it holds by name, and what its run found."""

    bundle: ListBundle
    bases: Mapping[str, Ranker]
    scorecard: Scorecard


@dataclass(frozen=True)
class Taken:
    """A parent and its new events, in one vocabulary.

    Attributes
    ----------
    bases
        The parent's bases by name; others are pretrained as in a full run. They are those of its run, as they were before
        its valid window: what was bundled has seen all its events, and nothing at an earlier cutoff could be compared with it.
    events
        All events, the parent's and the new ones.
    clock
        The last two windows of the new events are valid and holdout.
    facts
        What ``result.json`` says of the parent.
    """

    bases: dict[str, Ranker]
    events: Events
    clock: Clock
    facts: Parent


def open_parent(folder: str | Path, plan: Plan) -> Opened:
    """Load the bundle to be refreshed; its own recipe and schema go on, with their filters.

    Raises
    ------
    UsageError
        It is a bundle of a table, or of another recipe.
    BundleError
        It is broken.
    """
    folder = Path(folder)
    parent = load_bundle(folder)
    if not isinstance(parent, ListBundle):
        raise UsageError(f"--base {folder} is the bundle of a table. Expected one of {plan.recipe.name}.")
    if parent.plan.recipe.name != plan.recipe.name:
        raise UsageError(
            f"--base {folder} was made by {parent.plan.recipe.name}. Expected a bundle of {plan.recipe.name}."
        )
    kept = sorted((folder / BASES).iterdir()) if (folder / BASES).is_dir() else []
    bases = {place.name: ranker_class(place.name).load(place, parent.ranker.past) for place in kept}
    try:
        scorecard = Scorecard.model_validate_json((folder / "scorecard.json").read_text(encoding="utf-8"))
    except ValidationError as problem:
        raise BundleError(
            f"{folder / 'scorecard.json'} was written by tabkit {parent.manifest.tabkit} and cannot be taken over "
            f"({problem.errors()[0]['msg']}). Run {plan.recipe.name} on all events, without --base."
        ) from None
    return Opened(parent, bases, scorecard)


def take_on(parent: Opened, new: Events) -> Taken:
    """Join the parent's events and the new ones.

    Raises
    ------
    DataError
        The new events begin before the parent's end, or are too few weeks to choose and to compare on.
    """
    bundle = parent.bundle
    ranking, past = bundle.plan.recipe.ranking, bundle.ranker.past
    assert ranking is not None
    joined = join_events(past, new)
    events, calendar = joined.events, past.calendar
    end, cutoff = events.end, events.end - WINDOW
    if end - past.end < 2 * WINDOW:
        raise DataError(
            f"New events run from {calendar.date(int(new.day.min()))} to {calendar.date(end - 1)}, {calendar.length(end - past.end)} after the "
            f"parent's end. Expected at least {calendar.length(2 * WINDOW)}: half to choose on, half to compare on. "
            "Wait for more, or run the recipe on all events."
        )
    whom = at_home(joined.past, ranking.home_stores, str(bundle.plan.path)) if ranking.home_stores else None
    clock = Clock(events.before(cutoff), cutoff, cutoff - ticks(ranking, ranking.bases_end), joined.users[:0], 0, whom)
    recoded = {name: base.recoded(joined) for name, base in parent.bases.items()}
    bases = {name: base.learning_from(whom) for name, base in recoded.items() if base is not None}
    facts = Parent(
        created=bundle.manifest.created,
        seal=bundle.seal,
        champion=bundle.manifest.champion,
        events_end=calendar.date(past.end),
        events=len(past),
        new_events=len(new),
        new_users=len(events.users) - past.n_users,
        new_items=len(events.items) - past.n_items,
        gap_days=round(calendar.days(int(new.day.min()) - past.end)),
    )
    return Taken(bases, events, clock, facts)


def told(parent: Parent) -> str:
    """Say in a sentence what is refreshed."""
    return (
        f"A refresh: candidates, settings and bases are those of a bundle made on {parent.created[:10]}, which holds "
        f"{parent.champion} and whose {parent.events:,} events end on {parent.events_end}; {parent.new_events:,} new ones "
        f"follow, with {parent.new_users:,} new users and {parent.new_items:,} new items."
    )
