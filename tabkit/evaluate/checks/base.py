"""What a check is, and what it looks at.

"Not applicable" is not "passed": a check that cannot be made says why.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from operator import attrgetter
from typing import ClassVar, Generic, TypeVar

import polars as pl

from tabkit.data.cuts import Rows
from tabkit.data.encode import Features
from tabkit.data.interactions import Events, Truth
from tabkit.data.split import Split
from tabkit.evaluate.ledger import Looks
from tabkit.evaluate.metrics import Floats, Metric
from tabkit.recipe import Plan
from tabkit.result import Calibration, CheckOutcome, Interval, Kind, Part
from tabkit.result.facts import CheckState, Severity
from tabkit.result.lists import Lift
from tabkit.result.tables import ColumnImportance

Finding = tuple[CheckState, str]
"""What a check found, and the sentence with its number."""
NO_SOURCE = {"source": "The recipe has no source table."}


@dataclass(frozen=True)
class Wording:
    """How a check that serves both arms speaks of the holdout."""

    reopened: str
    first: str
    numbers: str
    advice: str
    digits: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What every check may look at, gathered once the holdout is open.

    Attributes
    ----------
    champion_gain
        In the primary metric on the holdout, over the best baseline; None if the champion is that baseline.
    looks
        How often this holdout was looked at on this machine, this time included; None if no ledger could be kept.
    """

    wording: ClassVar[Wording]

    metric: Metric
    champion: str
    baseline: str
    champion_gain: Interval | None
    looks: Looks | None
    seed: int


@dataclass(frozen=True, kw_only=True)
class TableEvidence(Evidence):
    """What checks of tables look at.

    Attributes
    ----------
    train, valid
        No row is in both.
    scores
        The primary metric by candidate and part; the prior's is the score of knowing nothing.
    shuffled
        The gain over the prior of the best baseline trained on shuffled labels, by shuffle.
    calibration
        The champion's on the holdout; None unless the task is binary.
    envelopes
        Why the table lies outside what a base was made for, by base; empty if it lies inside for all.
    groups
        The champion's score and the rows of each group, by sensitive column.
    source
        What bases were pretrained on.
    over_nothing
        What the champion's decisions pay above those of the prior, per ``per`` decisions; None if they have no price.
    importance
        What shuffling each column costs the champion on the holdout.
    predicted
        By the champion, on the holdout: probabilities (n_rows, n_classes) or numbers (n_rows,).
    champion_score
        The primary metric of the champion on the holdout.
    units
        Codes of rows that hang together (groups, else days of a split in time), of train then valid and of the holdout;
        None if rows are independent.
    before_rows
        Where rows of train, then of valid, stand in the table; ascending if None.
    """

    wording = Wording(
        reopened="These holdout rows, or a part of them, have been asked",
        first="These holdout rows were opened",
        numbers="every number on them",
        advice="rows that nobody has looked at",
        digits="+.4g",
    )

    plan: Plan
    frame: pl.DataFrame
    split: Split
    train: Features
    valid: Features
    holdout: Features
    scores: Mapping[str, Mapping[Part, float]]
    kinds: Mapping[str, Kind]
    shuffled: tuple[Interval, ...]
    calibration: Calibration | None
    envelopes: Mapping[str, str]
    groups: Mapping[str, Mapping[str, tuple[float, int]]]
    source: Features | None = None
    over_nothing: Interval | None = None
    importance: tuple[ColumnImportance, ...] = ()
    predicted: Floats | None = None
    champion_score: Interval | None = None
    units: tuple[Rows, Rows] | None = None
    before_rows: Rows | None = None


@dataclass(frozen=True, kw_only=True)
class ListEvidence(Evidence):
    """What checks of lists look at.

    Attributes
    ----------
    truth, past
        What users took in the holdout window, and the events that the models saw.
    lifts
        Relative gain over the best baseline, by candidate.
    gap
        Of a refresh: the day on which the parent's events end, and the days without events after it.
    """

    wording = Wording(
        reopened="This window, or a part of it, has been asked",
        first="This window was opened",
        numbers="its numbers",
        advice="a later cutoff",
        digits="+.4f",
    )

    truth: Truth
    past: Events
    lifts: Mapping[str, Lift]
    gap: tuple[str, int] | None = None


E = TypeVar("E", bound=Evidence)


class Check(ABC, Generic[E]):
    """One check. Subclass :class:`TableCheck` or :class:`ListCheck`; ``Check[Evidence]`` serves both arms."""

    code: ClassVar[str]
    """Its stable name."""
    title: ClassVar[str]
    severity: ClassVar[Severity]
    """How bad a failure is."""
    question: ClassVar[str]
    """What it asks, in a listing."""
    needs: ClassVar[Mapping[str, str]] = {}
    """Attributes of the evidence that it cannot do without ("split.groups"), and what it says if one is None or empty."""
    arm: ClassVar[type[Evidence]] = Evidence
    """The evidence it takes."""
    before: ClassVar[str] = ""
    """Code of the check that it precedes; without one it stands where its file defines it."""

    def outcome(self, evidence: E) -> CheckOutcome:
        """Make the check, if there is what it needs."""
        lacking = (says for path, says in self.needs.items() if _is_missing(attrgetter(path)(evidence)))
        state: CheckState = "not_applicable"
        if (message := next(lacking, None)) is None:
            state, message = self.find(evidence)
        return CheckOutcome(code=self.code, title=self.title, severity=self.severity, outcome=state, message=message)

    @abstractmethod
    def find(self, evidence: E) -> Finding:
        """Return what it found, and the sentence with its number; all that it needs is there."""


class TableCheck(Check[TableEvidence]):
    """A check of a table's predictions."""

    arm = TableEvidence


class ListCheck(Check[ListEvidence]):
    """A check of lists."""

    arm = ListEvidence


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, Sized) and len(value) == 0)
