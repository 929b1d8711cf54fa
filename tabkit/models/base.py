"""What every model is: four methods, a proof of what it trained, and a folder of weights without pickle.

A model is one file of this folder; its file name is its name, and :func:`model_class` finds it there.
``adapt`` never changes the object it is called on: the base stays as it was, and can be adapted again.
"""

from __future__ import annotations

import importlib.util
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import MISSING, Features
from tabkit.errors import UsageError
from tabkit.learner import (
    Adapted,
    Budget,
    Candidate,
    Learner,
    Predictions,
    Settings,
    Weights,
    check_without,
    discover,
    in_order,
    named,
)


class Model(Learner):
    """A tabular model. Subclasses state ``hows`` (how -> kind of candidate) and ``tasks``."""

    tasks: ClassVar[frozenset[str]] = frozenset({"binary", "multiclass", "regression"})
    needs_package: ClassVar[str | None] = None
    """An optional package without which the model cannot be used."""
    needs_source: ClassVar[frozenset[str]] = frozenset()
    """The ``hows`` that need a base grown on a source table."""
    has_weights: ClassVar[bool] = False
    """Whether its base is opened from weights that exist before any run; :meth:`open_weights` then does it."""
    unweighted: str = "fitted without the rows' weights"
    """What of it is made without the weights of rows (``Features.w``), in a few words; empty if nothing is."""
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
    ) -> Adapted[Model]:
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
        """Read what :meth:`save` wrote; a model around another is read by ``parts.bagged.read_model`` instead."""
        raise NotImplementedError(f"{cls.__name__} cannot be read without the class of the model inside")

    def envelope(self, train: Features) -> str | None:
        """Return why ``train`` lies outside what this base was made for, or None."""
        return None

    def called(self, how: str) -> str:
        """Return what the model is called in a sentence. See :meth:`Learner.called`."""
        # A model that is adapted without a source too says so if it was not: "TabNet" alone would be any of them.
        ways = [way for way, kind in self.hows.items() if kind == "adapted" and way not in self.needs_source]
        return f"{self.title} (from scratch)" if how == "scratch" and ways else super().called(how)


def stand_in(outer: Model, inner: Model) -> None:
    """Let a model around another answer what the harness asks of the one inside."""
    named = (
        "title",
        "hows",
        "how_titles",
        "needs_source",
        "importance_rows",
        "has_weights",
        "opened_from",
        "unweighted",
    )
    for name in named:
        outer.__dict__[name] = getattr(inner, name)


@dataclass(frozen=True)
class TableCandidate(Candidate[Model]):
    """A candidate with its predictions of the parts it may see."""

    train: Predictions
    valid: Predictions
    members: tuple[TableCandidate, ...] = ()
    """The candidates a blend gives weight to; empty for all others."""
    unweighted: str = ""

    @property
    def weights(self) -> dict[str, Weights]:
        """The pretrained weights behind this candidate, or behind its members, by base; empty without any."""
        behind = self.members or (self,)
        return {c.base: c.origin.opened_from for c in behind if c.origin.opened_from is not None}


def _known() -> Mapping[str, Callable[[], type[Model]]]:
    return discover("tabkit.models", Model, "tabkit.models")


def model_names() -> list[str]:
    """Return the names of all models: the files of this folder, and entry points of other packages."""
    return list(_known())


def model_class(name: str) -> type[Model]:
    """Return the model of a name, ``models/<name>.py`` for those of tabkit.

    Raises
    ------
    UsageError
        There is none.
    """
    return named(name, _known(), "model")


def baselines(without: Collection[str], where: str) -> list[tuple[str, str]]:
    """Return (base, how) of the baselines of every table, in order, but for those the recipe leaves out.

    A baseline whose optional package is not installed is left out too.

    Raises
    ------
    UsageError
        ``without`` names what cannot be left out.
    """
    kinds = {name: model_class(name) for name in model_names()}
    check_without(without, kinds, where)
    return in_order({n: kind.baselines for n, kind in kinds.items() if n not in without and installed(kind)})


def installed(model: type[Model]) -> bool:
    """Tell whether the optional package of a model is there (always true where it needs none)."""
    if model.needs_package is None:
        return True
    try:
        return importlib.util.find_spec(model.needs_package) is not None
    except ModuleNotFoundError:  # of a package inside another, where the other is not there either
        return False


def loss(features: Features, predicted: Predictions) -> float:
    """Return the training objective every model shares: (weighted) mean log loss, or squared error for regression."""
    assert features.y is not None
    if features.layout.task == "regression":
        return features.mean((features.y - predicted) ** 2)
    return -features.mean(np.log(np.clip(predicted[np.arange(len(features)), features.y], 1e-15, None)))


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
    """Return what is known before any feature: class shares (n_classes,), or the mean target (1,), by weight."""
    assert train.y is not None
    if train.layout.task == "regression":
        return np.array([train.mean(train.y)])
    counts = np.bincount(train.y.astype(np.int64), train.w, minlength=len(train.layout.classes)).astype(float)
    # Half a row per class: a class absent from train must not get probability zero (Krichevsky-Trofimov).
    return np.asarray((counts + 0.5) / (counts + 0.5).sum())
