"""The vocabulary of what a run finds: frozen, typed, and free of every learning library.

A number may be undefined (a metric of one class has no interval): it is NaN in memory and null in JSON.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic.dataclasses import dataclass

Task = Literal["binary", "multiclass", "regression", "ranking"]
Kind = Literal["baseline", "base", "adapted", "student"]
Part = Literal["train", "valid", "holdout"]
PARTS: tuple[Part, ...] = ("train", "valid", "holdout")
Decision = Literal["adapt", "keep_base", "use_baseline", "not_enough_evidence"]
Severity = Literal["error", "warning", "info"]
CheckState = Literal["pass", "fail", "not_applicable"]


def _nan_if_none(value: Any) -> Any:
    return math.nan if value is None else value


def _none_if_nan(value: float) -> float | None:
    return value if math.isfinite(value) else None


Number = Annotated[
    float,
    BeforeValidator(_nan_if_none),
    PlainSerializer(_none_if_nan, return_type=float | None, when_used="json"),
    WithJsonSchema({"type": ["number", "null"]}),
]
"""A number that may be undefined: NaN in memory, null in JSON."""


def _none_if_undefined(value: float | None) -> float | None:
    return None if value is None else _none_if_nan(value)


MaybeNumber = Annotated[float | None, AfterValidator(_none_if_undefined)]
"""A number that may not be there; one that is undefined is not there either."""


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval."""

    value: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Block:
    """A named part of a model: its parameters, how many of them training moved, and by how much.

    ``trained`` counts the parameters that an optimiser (or a tree learner) was given and that moved at any
    time. ``change`` is the L2 norm of returned minus base weights; 0.0 says the block is bit-equal to the base.
    """

    name: str
    total: int
    trained: int
    change: Number


@dataclass(frozen=True)
class Proof:
    """What adaptation touched, block by block, measured on the weights themselves."""

    blocks: tuple[Block, ...]

    @property
    def trained_parameters(self) -> int:
        """Number of parameters that training moved."""
        return sum(block.trained for block in self.blocks)

    @property
    def total_parameters(self) -> int:
        """Number of parameters in the model returned."""
        return sum(block.total for block in self.blocks)


@dataclass(frozen=True)
class Step:
    """One point of a learning curve: losses after ``step`` epochs or trees. Step 0 is the untouched base."""

    step: int
    train_loss: MaybeNumber
    valid_loss: Number
    stage: str = ""


@dataclass(frozen=True)
class Cost:
    """What making a candidate took on this machine."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Weights:
    """The pretrained weights that a base was opened from.

    Attributes
    ----------
    source
        ``shipped``, or the file or folder they were read from.
    sha256
        Of the file that holds them, hex.
    licence
        Under which they may be used; ``not stated`` where nothing says.
    tables
        Fingerprints of the real tables that they were trained on, as far as they say so.
    """

    source: str
    sha256: str
    licence: str
    tables: tuple[str, ...] = ()
