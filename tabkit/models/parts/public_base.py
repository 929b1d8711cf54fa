"""What public in-context bases share: a context of train rows, answered through their own library's estimator.

Nothing is trained and nothing chosen: ``as_is`` alone. Their libraries can fine-tune; without an untouched base as
epoch 0 and a proof per block that would not be what the other candidates are held to, so it is not offered.
"""

from __future__ import annotations

import json
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings
from tabkit.models.base import Model, cells_of

PREDICT_ROWS = 256
"""Rows per pass, padded to that number: a row's result cannot depend on how many stand beside it."""

FOLDS = 4
"""Folds by which train rows are scored: a row is answered from the other folds alone."""

CONTEXT_SEED = 1826701616
CONTEXT_ROWS = {"quick": 1000, "standard": 4000, "thorough": 10_000}
MEMBERS = {"quick": 2, "standard": 4, "thorough": 8}


@dataclass(frozen=True)
class Table:
    """The context: cells (n_rows, n_features), targets (n_rows,), and what the answers are.

    ``kept`` (n_kept,) are the columns that vary in it: one that does not says nothing, and a library that looks for
    such columns among query rows too would let those hang together.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float64]
    classes: int
    regression: bool
    members: int
    most_rows: int

    @classmethod
    def of(cls, train: Features, members: int, most_rows: int) -> Table:
        """Take as many rows as the budget reads, drawn at random, in train's order."""
        order = np.random.default_rng(CONTEXT_SEED).permutation(len(train))
        rows = train.take(np.sort(order[:most_rows]))
        regression = train.layout.task == "regression"
        return cls(
            cells_of(rows)[0], rows.labels.astype(np.float64), len(train.layout.classes), regression, members, most_rows
        )

    @cached_property
    def kept(self) -> npt.NDArray[np.int64]:
        """The columns that take two values or more in the context; the first where none does."""
        varied = [len(np.unique(column[~np.isnan(column)])) > 1 for column in self.x.T]
        return np.flatnonzero(varied) if any(varied) else np.array([0])

    def facts(self) -> dict[str, Any]:
        """Return what is not an array, as JSON values."""
        return {name: getattr(self, name) for name in ("classes", "regression", "members", "most_rows")}

    def save(self, folder: Path) -> None:
        """Write the arrays as safetensors."""
        from safetensors.numpy import save_file

        save_file({"x": np.ascontiguousarray(self.x), "y": self.y}, folder / "context.safetensors")

    @classmethod
    def load(cls, folder: Path, facts: dict[str, Any]) -> Table:
        """Read what :meth:`save` wrote."""
        from safetensors.numpy import load_file

        arrays = load_file(folder / "context.safetensors")
        return cls(arrays["x"], arrays["y"], **facts)


class PublicBase(Model):
    """A public base with its context, ready to answer. Subclasses open, fit, save and load; see the module."""

    hows = {"as_is": "base"}
    has_weights = True
    unweighted = "the rows of its context count once each"
    importance_rows = 300
    extra: ClassVar[str]
    """The extra of tabkit that installs the library; also the base's name."""
    table_: Table | None = None

    @abstractmethod
    def _with(self, table: Table) -> Self:
        """Return this base with a context."""

    @abstractmethod
    def _fit(self, table: Table) -> Any:
        """Return the library's estimator, given the kept columns of the context."""

    @abstractmethod
    def _n_parameters(self) -> int:
        """Return the number of parameters of the network."""

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Take train rows as the context; nothing is trained and nothing chosen. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"{self.extra} knows {sorted(self.hows)}, not {how!r}")
        table = Table.of(train, MEMBERS[budget.effort], CONTEXT_ROWS[budget.effort])
        note = (
            f"answers from {len(table.y):,} of {len(train):,} train rows, {table.members} members; "
            "a bundle of it holds those rows and the weights, whose licence goes with them"
        )
        proof = Proof((Block("net", self._n_parameters(), 0, 0.0),))
        return Adapted(self._with(table), how, proof, {}, (), (note,))

    @property
    def table(self) -> Table:
        """The context and what it was made with."""
        assert self.table_ is not None, "this base has no context yet; call adapt first"
        return self.table_

    @cached_property
    def _fitted(self) -> Any:
        with quiet():
            return self._fit(self.table)

    def predict(self, features: Features) -> Predictions:
        """Predict in padded batches of a fixed size."""
        return self._answer(self._fitted, self.table, features)

    def predict_train(self, train: Features) -> Predictions:
        """Predict train rows context-safe: a row is answered from a context without its fold."""
        fold = np.random.default_rng(CONTEXT_SEED).permutation(len(train)) % FOLDS
        out = np.zeros((len(train),) if self.table.regression else (len(train), self.table.classes))
        for k in range(FOLDS):
            own, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
            table = Table.of(train.take(rest), self.table.members, self.table.most_rows)
            with quiet():
                fitted = self._fit(table)
            out[own] = self._answer(fitted, table, train.take(own))
        return out

    def _answer(self, estimator: Any, table: Table, features: Features) -> Predictions:
        cells = cells_of(features)[0][:, table.kept]
        out = np.zeros((len(cells),) if table.regression else (len(cells), table.classes))
        with quiet():
            for start in range(0, len(cells), PREDICT_ROWS):
                part = cells[start : start + PREDICT_ROWS]
                padded = np.vstack([part, np.repeat(part[:1], PREDICT_ROWS - len(part), axis=0)])
                # A column missing in all rows would be left out by a library, and rows would hang together: rows of
                # the context stand below.
                padded = np.vstack([padded, table.x[:PREDICT_ROWS, table.kept]])
                here = slice(start, start + len(part))
                if table.regression:
                    out[here] = estimator.predict(padded)[: len(part)]
                else:
                    # A class that the context lacks still has its column.
                    present = estimator.classes_.astype(np.int64)
                    out[here, present] = estimator.predict_proba(padded)[: len(part)].astype(np.float64)
        return out if table.regression else np.asarray(out / out.sum(axis=1, keepdims=True))


class NetBase(PublicBase):
    """A public base whose network is at hand. Subclasses open and fit, and say how the network is built."""

    def __init__(self, net: Any, config: dict[str, Any], table: Table | None = None) -> None:
        self.net_ = net.eval()
        self.config = config
        self.table_ = table

    @classmethod
    @abstractmethod
    def _build(cls, config: dict[str, Any]) -> Any:
        """Return the library's network of these sizes; its weights are loaded into it."""

    def _with(self, table: Table) -> Self:
        return type(self)(self.net_, self.config, table)

    def _n_parameters(self) -> int:
        return sum(int(p.numel()) for p in self.net_.parameters())

    def save(self, folder: Path) -> None:
        """Write the network, the context and the config: safetensors and JSON."""
        from safetensors.torch import save_file

        state = {name: t.detach().clone().contiguous() for name, t in self.net_.state_dict().items()}
        save_file(state, folder / "weights.safetensors")
        self.table.save(folder)
        config = {"net": self.config, "table": self.table.facts()}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a tensor too few or too many is an error."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        net = cls._read(config["net"], folder / "weights.safetensors")
        return cls(net, config["net"], Table.load(folder, config["table"]))

    @classmethod
    def _read(cls, config: dict[str, Any], weights: Path) -> Any:
        """Return the network with these weights, a safetensors file."""
        from safetensors.torch import load_file

        net = cls._build(config)
        net.load_state_dict(load_file(weights), strict=True)
        return net


@contextmanager
def quiet() -> Iterator[None]:
    """Silence a library's warnings: they are about its inputs, which the run reports itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
