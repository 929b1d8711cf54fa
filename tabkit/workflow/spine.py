"""The spine of a run: adapt, choose on valid, open the holdout once, compare as planned, decide.

Tables and lists are two arms of it. Everything that could leak is in the order of :func:`find`: whatever is adapted or
chosen is made before :meth:`Arm.open`, by objects that do not hold the holdout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

from tabkit.adapt import Watch
from tabkit.evaluate.choice import Choice, Terms
from tabkit.evaluate.harness import Ground, Judged, Measured, judge
from tabkit.learner import Candidate

C = TypeVar("C", bound=Candidate[Any])
C_contra = TypeVar("C_contra", bound=Candidate[Any], contravariant=True)
Prepared = TypeVar("Prepared")
Found = TypeVar("Found")


class Opened(Protocol[C_contra]):
    """A holdout that is open."""

    def measure(self, candidate: C_contra) -> Measured:
        """Score a candidate in every part, on the common resamples."""


O = TypeVar("O", bound=Opened[Any])  # noqa: E741 (the opened holdout of an arm)


class Arm(ABC, Generic[C, Prepared, O, Found]):
    """What differs between tables and lists: how candidates are made, measured, and looked at."""

    terms: Terms
    watch: Watch

    @abstractmethod
    def candidates(self) -> tuple[C, ...]:
        """Adapt every candidate, on train and valid."""

    @abstractmethod
    def choose(self, candidates: tuple[C, ...]) -> Choice:
        """Check every proof, and choose on valid."""

    @abstractmethod
    def prepare(self, accepted: tuple[C, ...], choice: Choice) -> Prepared:
        """Make whatever else the harness wants to see, still without the holdout."""

    @abstractmethod
    def open(self, prepared: Prepared) -> O:
        """Break the seal; a second time is an error."""

    @abstractmethod
    def ground(self, opened: O, prepared: Prepared, choice: Choice) -> Ground:
        """Return what the verdict stands on, beside the gains."""

    @abstractmethod
    def findings(self, opened: O, prepared: Prepared, judged: Judged, accepted: tuple[C, ...]) -> Found:
        """Look at everything else; nothing here can change the verdict."""


def find(arm: Arm[C, Prepared, O, Found]) -> Found:
    """Carry out the whole procedure on one split, or at one cutoff."""
    candidates = arm.candidates()
    choice = arm.choose(candidates)
    accepted = choice.accepted(candidates)
    prepared = arm.prepare(accepted, choice)
    opened = arm.open(prepared)
    measured = {}
    for done, candidate in enumerate(accepted):
        arm.watch("harness", done / len(accepted), f"measuring {candidate.name}")
        measured[candidate.name] = opened.measure(candidate)
    arm.watch("harness", 1.0, "comparing")
    judged = judge(candidates, measured, choice, arm.terms, arm.ground(opened, prepared, choice))
    return arm.findings(opened, prepared, judged, accepted)
