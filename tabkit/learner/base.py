"""What models and rankers share: how they declare themselves, what adapting one returns, and candidates."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.errors import UsageError, nearest
from tabkit.learner.strategies import STRATEGIES
from tabkit.result.facts import Cost, Kind, Proof, Step, Weights

Predictions = npt.NDArray[np.float64]
"""Classification: probabilities (n_rows, n_classes), rows sum to 1. Regression: (n_rows,), the target's unit."""

Settings = Mapping[str, Any]
"""What a search found, as JSON values: enough to run the same procedure again without choosing anything."""


class Learner(ABC):
    """What a model or a ranker says of itself. Adding one touches no other file: here it also takes its place."""

    title: ClassVar[str]
    hows: ClassVar[Mapping[str, Kind]]
    """Strategies, and the kind of candidate that each makes."""
    how_titles: ClassVar[Mapping[str, str]] = {}
    """What strategies are called if not by their title in :data:`tabkit.learner.STRATEGIES`."""
    baselines: ClassVar[Mapping[str, int]] = {}
    """Strategies that are always in the table, and their place in the order of candidates."""
    optional: ClassVar[bool] = False
    """Whether a recipe may leave its baselines (or a blend) out: ``without`` under ``[candidates]``."""

    def called(self, how: str) -> str:
        """Return what the learner is called in a sentence: ``LightGBM (tuned)``."""
        way = self.how_titles[how] if how in self.how_titles else STRATEGIES[how].title
        return f"{self.title} ({way})" if way else self.title


L_co = TypeVar("L_co", bound=Learner, covariant=True)


class Predicts(Protocol):
    """Whatever answers rows of a table."""

    def predict(self, features: Features) -> Predictions:
        """Predict row by row."""


@dataclass(frozen=True)
class Adapted(Generic[L_co]):
    """A model or ranker ready to answer, and how it came to be."""

    model: L_co
    how: str
    proof: Proof
    settings: Settings = field(default_factory=dict)
    history: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    on_valid: Predictions | None = field(default=None, repr=False, compare=False)
    """Predictions of valid to judge by, if ``model.predict(valid)`` would look too good: see ``blend``."""

    def predict_valid(self: Adapted[Predicts], valid: Features) -> Predictions:  # type: ignore[type-var]
        """Return the predictions of valid that the model is judged by."""
        return self.model.predict(valid) if self.on_valid is None else self.on_valid


@dataclass(frozen=True)
class Candidate(Generic[L_co]):
    """An adapted model or ranker in the harness: named, and with its cost.

    ``origin`` is what was adapted, untouched: the procedure can be run again from it.
    """

    name: str
    base: str
    how: str
    kind: Kind
    origin: L_co
    adapted: Adapted[L_co]
    cost: Cost

    @property
    def title(self) -> str:
        """What the candidate is called in a sentence: ``LightGBM (tuned)``."""
        return self.origin.called(self.how)

    @property
    def members(self) -> tuple[Candidate[L_co], ...]:
        """The candidates a blend gives weight to; empty for all others."""
        return ()

    @property
    def weights(self) -> dict[str, Weights]:
        """The pretrained weights behind it, by base; empty without any."""
        return {}

    @property
    def unweighted(self) -> str:
        """What of it was made without the rows' weights; empty if all that it learned is weighted, or rows are not."""
        return ""


def candidate_name(base: str, how: str) -> str:
    """Return the name of a candidate in tables and files.

    >>> candidate_name("lgbm", "scratch"), candidate_name("tabnet", "gradual")
    ('lgbm', 'tabnet_gradual')
    """
    assert re.fullmatch(r"[a-z0-9]+", base), base
    return base if how == "scratch" else f"{base}_{how}"


def candidate_parts(name: str) -> tuple[str, str]:
    """Return (base, how) of a candidate's name: what :func:`candidate_name` put together.

    >>> candidate_parts("lgbm"), candidate_parts("icl_as_is")
    (('lgbm', 'scratch'), ('icl', 'as_is'))
    """
    base, _, how = name.partition("_")
    return base, how or "scratch"


def in_order(declared: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Return (base, how) of what learners declare (base -> how -> place), by place.

    >>> in_order({"lgbm": {"scratch": 30, "tuned": 40}, "prior": {"scratch": 10}})
    [('prior', 'scratch'), ('lgbm', 'scratch'), ('lgbm', 'tuned')]
    """
    places = [(place, base, how) for base, own in declared.items() for how, place in own.items()]
    return [(base, how) for _, base, how in sorted(places)]


def check_without(without: Collection[str], kinds: Mapping[str, type[Learner]], where: str) -> None:
    """Refuse a name under ``without`` that no recipe may leave out.

    Raises
    ------
    UsageError
        There is one.
    """
    optional = [name for name, kind in kinds.items() if kind.optional]
    for name in without:
        if name not in optional:
            raise UsageError(
                f"{where}: table [candidates], without names '{name}', which is no candidate that can be left out."
                f"{nearest(name, optional)}"
            )
