"""The vocabulary of what a run finds: frozen, typed, and free of every learning library.

A number may be undefined (a metric of one class has no interval): it is NaN in memory and null in JSON.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.dataclasses import dataclass

Task = Literal["binary", "multiclass", "regression", "ranking"]
SplitKind = Literal["random", "stratified", "grouped", "temporal", "given"]
Kind = Literal["baseline", "base", "adapted", "student"]
Part = Literal["train", "valid", "holdout"]
PARTS: tuple[Part, ...] = ("train", "valid", "holdout")
Decision = Literal["adapt", "keep_base", "use_baseline", "not_enough_evidence"]
GainState = Literal["worthwhile", "not_worthwhile", "not_settled"]
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

DOCUMENTED = ConfigDict(use_attribute_docstrings=True, json_schema_extra={"additionalProperties": False})
"""The schema describes every key, and refuses others; who reads an older or newer file ignores them."""


def _none_if_undefined(value: float | None) -> float | None:
    return None if value is None else _none_if_nan(value)


MaybeNumber = Annotated[float | None, AfterValidator(_none_if_undefined)]
"""A number that may not be there; one that is undefined is not there either."""


@dataclass(frozen=True, config=DOCUMENTED)
class Interval:
    """A value with its 95% interval."""

    value: Number
    """The value."""
    low: Number
    """Lower end of the interval."""
    high: Number
    """Upper end of the interval."""


@dataclass(frozen=True, config=DOCUMENTED)
class Block:
    """A named part of a model: its parameters, how many of them training moved, and by how much."""

    name: str
    """Its name."""
    total: int
    """Its parameters."""
    trained: int
    """Parameters that an optimiser (or a tree learner) was given and that moved at any time."""
    change: Number
    """L2 norm of returned minus base weights; 0.0 says the block is bit-equal to the base."""


@dataclass(frozen=True, config=DOCUMENTED)
class Proof:
    """What adaptation touched, block by block, measured on the weights themselves."""

    blocks: tuple[Block, ...]
    """Every block of the model."""

    @property
    def trained_parameters(self) -> int:
        """Number of parameters that training moved."""
        return sum(block.trained for block in self.blocks)

    @property
    def total_parameters(self) -> int:
        """Number of parameters in the model returned."""
        return sum(block.total for block in self.blocks)


@dataclass(frozen=True, config=DOCUMENTED)
class Step:
    """One point of a learning curve: losses after ``step`` epochs or trees. Step 0 is the untouched base.

    The losses of a regression are those of the standardised target: a squared error of 1 is what its mean makes.
    """

    step: int
    """Epochs, trees or trials before it; 0 is the untouched base."""
    train_loss: MaybeNumber
    """Loss on train; null if it was not measured."""
    valid_loss: Number
    """Loss on valid."""
    stage: str = ""
    """The stage of adaptation, or what was tried."""


@dataclass(frozen=True, config=DOCUMENTED)
class Cost:
    """What making a candidate took on this machine."""

    seconds: float
    """Wall seconds."""
    cpu_seconds: float
    """CPU seconds."""
    peak_mb: float
    """Peak memory in MB."""


@dataclass(frozen=True, config=DOCUMENTED)
class Weights:
    """The pretrained weights that a base was opened from."""

    source: str
    """``shipped``, or the file or folder they were read from."""
    sha256: str
    """Of the file that holds them, hex."""
    licence: str
    """Under which they may be used; ``not stated`` if nothing says."""
    tables: tuple[str, ...] = ()
    """Fingerprints of the real tables that they were trained on, as far as they say so."""
