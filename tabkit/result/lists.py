"""What is found of lists: lift, their character, earlier cutoffs, the parent of a refresh, the margin."""

from __future__ import annotations

from tabkit.errors import length_of
from tabkit.result.facts import Interval, Number
from tabkit.result.findings import Facts, Findings


class Lift(Facts):
    """One candidate's relative gain over the chosen baseline."""

    train: Number
    """In the last window that it was fitted to."""
    holdout: Number
    """On the holdout."""


class ListCharacter(Facts):
    """What lists are like, whatever is taken from them."""

    coverage: Number
    """Share of the catalogue in at least one list."""
    novelty: Number
    """Mean self-information of the items listed, in bits, by the share of users who took them."""
    diversity: Number
    """Share of pairs within a list that differ in the first attribute."""


class CutoffGain(Facts):
    """The gain over one opponent at an earlier cutoff."""

    name: str
    """The opponent."""
    gain: Number
    """The gain."""
    low: Number
    """Lower end."""
    high: Number
    """Upper end."""


class Cutoff(Facts):
    """The planned comparison at an earlier cutoff, with what was learned before it."""

    cutoff: str
    """First day of its window."""
    users: int
    """Users evaluated."""
    gains: tuple[CutoffGain, ...]
    """Gain over each opponent."""


class Parent(Facts):
    """The bundle that was refreshed."""

    created: str
    """When the parent was made."""
    seal: str
    """SHA-256 of its manifest."""
    champion: str
    """The candidate it holds."""
    events_end: str
    """The day before which its events end."""
    events: int
    """Its events."""
    new_events: int
    """Events that followed."""
    new_users: int
    """Users that it did not know."""
    new_items: int
    """Items that it did not know."""
    gap_days: int
    """Days without events between the two."""


class ListMargin(Facts):
    """Margin on the items of the list that were taken, more per user than with the best baseline."""

    currency: str
    """Of the amount."""
    margin: float
    """Share of the price that is margin."""
    extra_items: Interval
    """More items taken from the list, per user and window."""
    extra_margin: Interval
    """Their margin, per user and window."""


class LeftOut(Facts):
    """A ranker that the recipe asks for and that was not tried."""

    name: str
    """The candidate."""
    title: str
    """What it is called in sentences."""
    reason: str
    """What it would have needed, or why a refresh had no use for it."""


class ListFacts(Facts):
    """What there is to say of lists."""

    cutoff: str
    """First day of the holdout window."""
    days: int | float
    """Days of the holdout window: those asked for, or fewer if the events end before."""
    users: int
    """Users evaluated on the holdout."""
    truth_mean: Number
    """Distinct items that a user took in the window, on average."""
    repeat_share: Number
    """Share of them that the user had taken before."""
    catalogue: int
    """Items known before the cutoff."""
    lifts: dict[str, Lift]
    """Relative gain over the chosen baseline, by candidate."""
    lists: dict[str, ListCharacter]
    """What the lists are like, by candidate."""
    cutoffs: tuple[Cutoff, ...]
    """The planned comparison at earlier cutoffs."""
    parent: Parent | None = None
    """The bundle that was refreshed (--base); null in a full run."""
    value: ListMargin | None
    """The margin gained; null without a margin or price."""
    left_out: tuple[LeftOut, ...] = ()
    """Candidates that were not tried: the log is too large for them, or a refresh had no use for them."""

    @property
    def length(self) -> str:
        """How long the holdout window is: 28 days, 6 hours."""
        return length_of(86_400 * self.days)


class ListFindings(Findings):
    """What is found of lists alone."""

    ranking: ListFacts
    """What there is to say of lists."""
