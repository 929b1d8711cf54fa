"""What every model is: four methods, a proof of what it trained, and a folder of weights without pickle.

A model is one file of this folder; its file name is its name, and :func:`model_class` finds it there.
``adapt`` never changes the object it is called on: the base stays as it was, and can be adapted again.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import MISSING, Features
from tabkit.errors import UsageError, nearest

Kind = Literal["baseline", "base", "adapted", "student"]
Predictions = npt.NDArray[np.float64]
"""Classification: probabilities (n_rows, n_classes), rows sum to 1. Regression: (n_rows,), the target's unit."""

Settings = Mapping[str, Any]
"""What a search found, as JSON values: enough to run the same procedure again without choosing anything."""


@dataclass(frozen=True)
class Budget:
    """How much may be spent on one candidate. It bounds the search, never the honesty.

    ``trials``, ``epochs`` and ``trees`` decide in practice, so that a seed gives the same model everywhere.
    ``seconds`` is the ceiling that keeps a promise of time on a slow machine; a candidate that hits it says so.
    """

    level: str
    seconds: float
    trials: int
    epochs: int
    trees: int
    device: Literal["auto", "cpu", "cuda"] = "auto"
    progress: Callable[[float, str], None] = field(default=lambda fraction, note: None, repr=False, compare=False)

    def deadline(self) -> float:
        """Return the moment, on ``time.monotonic``'s clock, after which no new step is begun."""
        return time.monotonic() + self.seconds


BUDGETS: dict[str, Budget] = {
    "quick": Budget("quick", seconds=20, trials=15, epochs=24, trees=500),
    "standard": Budget("standard", seconds=120, trials=50, epochs=150, trees=2000),
    "thorough": Budget("thorough", seconds=600, trials=200, epochs=400, trees=5000),
}


@dataclass(frozen=True)
class Block:
    """A named part of a model: its parameters, how many of them training moved, and by how much.

    ``trained`` counts the parameters that an optimiser (or a tree learner) was given and that moved at any
    time. ``change`` is the L2 norm of returned minus base weights; 0.0 says the block is bit-equal to the base.
    """

    name: str
    total: int
    trained: int
    change: float


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
    train_loss: float | None
    valid_loss: float
    stage: str = ""


@dataclass(frozen=True)
class Adapted:
    """A model ready to predict, and how it came to be."""

    model: Model
    how: str
    proof: Proof
    settings: Settings = field(default_factory=dict)
    history: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    on_valid: Predictions | None = field(default=None, repr=False, compare=False)
    """Predictions of valid to judge by, where ``model.predict(valid)`` would look too good: see ``blend``."""

    def predict_valid(self, valid: Features) -> Predictions:
        """Return the predictions of valid that the model is judged by."""
        return self.model.predict(valid) if self.on_valid is None else self.on_valid


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


class Model(ABC):
    """A tabular model. Subclasses state ``hows`` (how -> kind of candidate) and ``tasks``."""

    title: ClassVar[str]
    hows: ClassVar[Mapping[str, Kind]]
    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "regression"})
    needs_package: ClassVar[str | None] = None
    """An optional package without which the model cannot be used."""
    needs_source: ClassVar[frozenset[str]] = frozenset()
    """The ``hows`` that need a base grown on a source table."""
    has_weights: ClassVar[bool] = False
    """Whether its base is opened from weights that exist before any run; :meth:`open_weights` then does it."""
    importance_rows: int | None = None
    """Rows on which column importance is measured at most; None for all, where predicting is cheap."""
    opened_from: Weights | None = None
    """What the base was opened from; None where a run pretrains it itself."""

    @classmethod
    def lacks(cls) -> str | None:
        """Say what is missing before the model can be used, in a few words; None where nothing is."""
        return None if installed(cls) else f"pip install {cls.needs_package}"

    @classmethod
    def open_weights(cls, place: Path | None, task: str) -> Self:
        """Open the base for a task from weights at ``place``; from those it ships with or finds by itself where None.

        Raises
        ------
        UsageError
            There are none, or they do not fit; the message says what was looked for and where.
        """
        raise UsageError(f"{cls.title} takes no weights: a run makes its base itself.")

    @classmethod
    def pretrain(cls, source: Features | None, rows: Features, rng: np.random.Generator, budget: Budget) -> Self | None:
        """Make the base that this recipe adapts; None where there is nothing to pretrain on.

        Parameters
        ----------
        source
            Labelled rows of a source table in the target's layout; None without one.
        rows
            The target's train rows, whose labels must not be read, and any unlabelled ones.
        """
        return None

    def knowing(self, source: Features) -> Self:
        """Return this base with a source table's rows at hand, for a strategy that reads them beside the target's.

        Bases that a run pretrains have met them in :meth:`pretrain`; those opened from weights have not.
        """
        return self

    @abstractmethod
    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted:
        """Adapt a copy of this model to ``train``; choose only on ``valid``.

        With ``settings`` (those of an earlier result), nothing is chosen and ``valid`` may be None: the same
        procedure runs again, on more rows.

        Raises
        ------
        ValueError
            ``how`` is not one of ``hows``.
        """

    @abstractmethod
    def predict(self, features: Features) -> Predictions:
        """Predict each row for itself: the result of a row does not depend on the rows beside it."""

    def predict_train(self, train: Features) -> Predictions:
        """Predict the rows the model was trained on, context-safe: a row's own label is never in its context."""
        return self.predict(train)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights into an existing empty folder: safetensors, JSON, LightGBM text."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a model around another is read by ``bagged_model.read_model`` instead."""
        raise NotImplementedError(f"{cls.__name__} cannot be read without the class of the model inside")

    def envelope(self, train: Features) -> str | None:
        """Return why ``train`` lies outside what this base was made for, or None."""
        return None


def stand_in(outer: Model, inner: Model) -> None:
    """Let a model around another answer what the harness asks of the one inside."""
    for name in ("title", "hows", "needs_source", "importance_rows", "has_weights", "opened_from"):
        outer.__dict__[name] = getattr(inner, name)


@dataclass(frozen=True)
class Cost:
    """What making a candidate took on this machine."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Candidate:
    """An adapted model in the harness: named, with its cost and its predictions of the parts it may see.

    ``origin`` is the model that was adapted, untouched: the procedure can be run again from it.
    """

    name: str
    base: str
    how: str
    kind: Kind
    origin: Model
    adapted: Adapted
    cost: Cost
    train: Predictions
    valid: Predictions
    members: tuple[Candidate, ...] = ()
    """The candidates a blend gives weight to; empty for all others."""

    @property
    def weights(self) -> dict[str, Weights]:
        """The pretrained weights behind this candidate, or behind its members, by base; empty without any."""
        behind = self.members or (self,)
        return {c.base: c.origin.opened_from for c in behind if c.origin.opened_from is not None}

    @property
    def title(self) -> str:
        """What the candidate is called in a sentence: ``LightGBM (tuned)``."""
        # A model that is adapted without a source too says so where it was not: "TabNet" alone would be any of them.
        origin = self.origin
        ways = [how for how, kind in origin.hows.items() if kind == "adapted" and how not in origin.needs_source]
        adaptable = self.how == "scratch" and bool(ways)
        how = "from scratch" if adaptable else HOW_TITLES[self.how]
        return f"{self.origin.title} ({how})" if how else self.origin.title


HOW_TITLES = {
    "scratch": "",
    "tuned": "tuned",
    "as_is": "untouched base",
    "head": "head only",
    "gradual": "unfrozen step by step",
    "lora": "low-rank adapters",
    "full": "all weights",
    "context": "source rows in its context",
    "pool": "source rows pooled in",
    "refit": "leaf values refitted",
    "continue": "trees continued",
    "student": "student of the champion",
    "baselines": "of baselines",
    "bases": "with untouched bases",
    "all": "with adapted members",
}
"""What each strategy is called in a sentence."""


def model_names() -> list[str]:
    """Return the names of all models: the files of this folder that define one; a part of a model has an underscore."""
    here = [info.name for info in pkgutil.iter_modules(importlib.import_module("tabkit.models").__path__)]
    return sorted(name for name in here if name != "base" and "_" not in name)


def model_class(name: str) -> type[Model]:
    """Return the model class of ``models/<name>.py``.

    Raises
    ------
    UsageError
        No such model, or the optional package it needs is not installed.
    """
    if name not in model_names():
        raise UsageError(f"Unknown model '{name}'.{nearest(name, model_names())} See: tabkit list models.")
    module = importlib.import_module(f"tabkit.models.{name}")
    found: list[type[Model]] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Model) and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"tabkit/models/{name}.py must define exactly one Model, found {found}"
    return found[0]


def n_threads() -> int:
    """Return how many threads a library may use: ``OMP_NUM_THREADS`` where it is set, else the cores, at most 8."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # "4,2" is for nested regions
    return min(8, int(stated) if stated.isdecimal() and int(stated) else os.cpu_count() or 1)


def installed(model: type[Model]) -> bool:
    """Tell whether the optional package of a model is there (always true where it needs none)."""
    if model.needs_package is None:
        return True
    try:
        return importlib.util.find_spec(model.needs_package) is not None
    except ModuleNotFoundError:  # of a package inside another, where the other is not there either
        return False


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


def loss(features: Features, predicted: Predictions) -> float:
    """Return the training objective every model shares: mean log loss, or mean squared error for regression."""
    assert features.y is not None
    if features.layout.task == "regression":
        return float(np.mean((features.y - predicted) ** 2))
    return float(-np.mean(np.log(np.clip(predicted[np.arange(len(features)), features.y], 1e-15, None))))


def folds_of(rows: Features, n_folds: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return a fold per row (n_rows,), at random; classes, or targets in order of size, are spread evenly.

    No class with two rows or more is in one fold only.
    """
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows.labels[order], kind="stable")]
    fold = np.empty(len(rows), dtype=np.int64)
    fold[order] = np.arange(len(rows)) % n_folds
    return fold


def one_hot(x_cat: npt.NDArray[np.int64], cat_sizes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """One-hot encode category codes.

    Parameters
    ----------
    x_cat
        Codes (n_rows, n_cat), each below its column's size.
    cat_sizes
        Number of codes per column, missing (0) and unknown (1) included.

    Returns
    -------
    ndarray
        (n_rows, sum(cat_sizes)).
    """
    n_rows = x_cat.shape[0]
    offsets = np.concatenate([[0], np.cumsum(cat_sizes)]).astype(np.int64)
    out = np.zeros((n_rows, int(offsets[-1])))
    for column in range(x_cat.shape[1]):
        out[np.arange(n_rows), offsets[column] + x_cat[:, column]] = 1.0
    return out


def cells_of(features: Features) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return what an in-context model reads.

    Returns
    -------
    (ndarray, ndarray)
        Cells (n_rows, n_num + n_cat): standardised numbers, then category codes, NaN where missing; and which
        columns hold codes (n_num + n_cat,).
    """
    codes = np.where(features.x_cat == MISSING, np.nan, features.x_cat).astype(np.float32)
    n_num = features.x_num.shape[1]
    categorical = np.arange(n_num + codes.shape[1]) >= n_num
    return np.hstack([features.x_std, codes]), categorical


def prior_of(train: Features) -> Predictions:
    """Return what is known before any feature: class shares (n_classes,), or the mean target (1,)."""
    assert train.y is not None
    if train.layout.task == "regression":
        return np.array([train.y.mean()])
    counts = np.bincount(train.y.astype(np.int64), minlength=len(train.layout.classes)).astype(float)
    # Half a row per class: a class absent from train must not get probability zero (Krichevsky-Trofimov).
    return np.asarray((counts + 0.5) / (counts + 0.5).sum())
