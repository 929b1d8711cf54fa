"""TabICL (Qu et al., ICML 2025; v2 2026): a public in-context transformer, through its own library. Optional extra.

The weights are yours: a checkpoint file that ``--weights tabicl=FILE`` or the variable ``TABKIT_TABICL_WEIGHTS``
names, or the one that the library's own cache holds. Nothing is downloaded. The library reads the checkpoint
(``torch.load`` with ``weights_only``); a bundle holds the network as safetensors and JSON, and the context rows.

The library is ``tabicl`` 2.x; read for this file: ``TabICLClassifier``, ``TabICLRegressor`` and their ``_load_model``.
It can also be fine-tuned by its library; that has no epoch 0 and no proof per block, so it is not offered here.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.errors import UsageError
from tabkit.models.base import (
    Adapted,
    Block,
    Budget,
    Model,
    Predictions,
    Proof,
    Settings,
    Weights,
    cells_of,
    installed,
)

VARIABLE = "TABKIT_TABICL_WEIGHTS"
REPOSITORY = "jingang/TabICL"
CACHED = {
    "classification": "tabicl-classifier-v2-20260212.ckpt",
    "regression": "tabicl-regressor-v2-20260212.ckpt",
}
"""The library's default checkpoints, by what they answer, as its cache names them."""

LICENCE = "BSD-3-Clause as the tabicl library states its own; see huggingface.co/jingang/TabICL for the weights'"

PREDICT_ROWS = 256
"""Rows per pass, padded to that number: a row's result cannot depend on how many stand beside it."""

FOLDS = 4
"""Folds by which train rows are scored: a row is answered from the other folds alone."""

CONTEXT_SEED = 1826701616
CONTEXT_ROWS = {"quick": 1000, "standard": 4000, "thorough": 10_000}
MEMBERS = {"quick": 2, "standard": 4, "thorough": 8}


@dataclass(frozen=True)
class _Table:
    """The context: cells (n_rows, n_features), targets (n_rows,), and what the answers are."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float64]
    classes: int
    regression: bool
    members: int
    most_rows: int

    @classmethod
    def of(cls, train: Features, members: int, most_rows: int) -> _Table:
        """Take as many rows as the budget reads, drawn at random, in train's order."""
        order = np.random.default_rng(CONTEXT_SEED).permutation(len(train))
        rows = train.take(np.sort(order[:most_rows]))
        regression = train.layout.task == "regression"
        return cls(
            cells_of(rows)[0], rows.labels.astype(np.float64), len(train.layout.classes), regression, members, most_rows
        )


class TabIcl(Model):
    """TabICL with its context, ready to answer. See the module."""

    title = "TabICL"
    hows = {"as_is": "base"}
    needs_package = "tabicl"
    has_weights = True
    importance_rows = 300

    def __init__(self, net: Any, config: dict[str, Any], table: _Table | None = None) -> None:
        self.net_ = net.eval()
        self.config = config
        self.table_ = table

    @classmethod
    def lacks(cls) -> str | None:
        """Say what is missing: the package, or weights."""
        if not installed(cls):
            return "pip install 'tabkit-ml[tabicl]'; your weights"
        found = [kind for kind in CACHED if _find(None, kind) is not None]
        return None if found else f"weights: --weights tabicl=FILE, or {VARIABLE}, or the library's cache"

    @classmethod
    def open_weights(cls, place: Path | None, task: str) -> Self:
        """Open a checkpoint of the library: ``place``, else that of the variable, else the one in the cache."""
        kind = "regression" if task == "regression" else "classification"
        path = _find(place, kind)
        if path is None:
            raise UsageError(
                f"tabicl has no weights for {kind}: {VARIABLE} is not set and the library's cache holds no "
                f"{CACHED[kind]}. Give a checkpoint with --weights tabicl=FILE; tabkit downloads none."
            )
        if not path.is_file():
            raise UsageError(f"tabicl weights {path} do not exist. Expected a checkpoint file of TabICL (.ckpt).")
        estimator = _estimator(kind == "regression", 1, model_path=str(path))
        try:
            estimator._load_model()  # allow_auto_download is off: it reads this file, or fails
        except Exception as problem:  # the library raises whatever torch or its constructor does
            reason = " ".join(str(problem).split())[:300]
            raise UsageError(
                f"tabicl weights {path} cannot be read by the tabicl library: {reason or type(problem).__name__}. "
                "Expected a checkpoint with 'config' and 'state_dict', made for this version of it."
            ) from None
        answers = "regression" if estimator.model_.max_classes == 0 else "classification"
        if answers != kind:
            raise UsageError(f"tabicl weights {path} answer {answers}, and the recipe's task is {task}.")
        base = cls(estimator.model_, _plain(estimator.model_config_, path))
        base.opened_from = Weights(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), LICENCE)
        return base

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted:
        """Take train rows as the context; nothing is trained and nothing chosen. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"tabicl knows {sorted(self.hows)}, not {how!r}")
        table = _Table.of(train, MEMBERS[budget.level], CONTEXT_ROWS[budget.level])
        model = TabIcl(self.net_, self.config, table)
        note = (
            f"answers from {len(table.y):,} of {len(train):,} train rows, {table.members} members; "
            "a bundle of it holds those rows"
        )
        n = sum(p.numel() for p in self.net_.parameters())
        return Adapted(model, how, Proof((Block("net", n, 0, 0.0),)), {}, (), (note,))

    @property
    def table(self) -> _Table:
        """The context and what it was made with."""
        assert self.table_ is not None, "this base has no context yet; call adapt first"
        return self.table_

    @cached_property
    def _fitted(self) -> Any:
        return self._fit(self.table)

    def _fit(self, table: _Table) -> Any:
        estimator = _estimator(table.regression, table.members)

        def given() -> None:  # what the library would read from a file again at every fit
            estimator.model_, estimator.model_config_, estimator.model_path_ = self.net_, self.config, None

        estimator._load_model = given
        with _quiet():
            estimator.fit(table.x, table.y if table.regression else table.y.astype(np.int64))
        return estimator

    def predict(self, features: Features) -> Predictions:
        """Predict in padded batches of a fixed size."""
        return self._answer(self._fitted, features)

    def predict_train(self, train: Features) -> Predictions:
        """Predict train rows context-safe: a row is answered from a context without its fold."""
        fold = np.random.default_rng(CONTEXT_SEED).permutation(len(train)) % FOLDS
        shape = (len(train),) if self.table.regression else (len(train), self.table.classes)
        out = np.zeros(shape)
        for k in range(FOLDS):
            own, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
            table = _Table.of(train.take(rest), self.table.members, self.table.most_rows)
            out[own] = self._answer(self._fit(table), train.take(own))
        return out

    def _answer(self, estimator: Any, features: Features) -> Predictions:
        cells, _ = cells_of(features)
        regression = self.table.regression
        out = np.zeros((len(cells),) if regression else (len(cells), self.table.classes))
        with _quiet():
            for start in range(0, len(cells), PREDICT_ROWS):
                part = cells[start : start + PREDICT_ROWS]
                padded = np.vstack([part, np.repeat(part[:1], PREDICT_ROWS - len(part), axis=0)])
                # A column missing in all rows would be left out by the library, and rows would hang together:
                # rows of the context stand below.
                padded = np.vstack([padded, self.table.x[:PREDICT_ROWS]])
                if regression:
                    out[start : start + len(part)] = estimator.predict(padded)[: len(part)]
                else:
                    chances = estimator.predict_proba(padded)[: len(part)].astype(np.float64)
                    # A class that the context lacks still has its column.
                    out[start : start + len(part), estimator.classes_.astype(np.int64)] = chances
        return out if regression else np.asarray(out / out.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> None:
        """Write the network, the context and the config: safetensors and JSON."""
        import torch
        from safetensors.torch import save_file

        state = {name: t.detach().clone().contiguous() for name, t in self.net_.state_dict().items()}
        save_file(state, folder / "weights.safetensors")
        context = {"x": torch.from_numpy(self.table.x.copy()), "y": torch.from_numpy(self.table.y.copy())}
        save_file(context, folder / "context.safetensors")
        facts = {n: getattr(self.table, n) for n in ("classes", "regression", "members", "most_rows")}
        (folder / "config.json").write_text(json.dumps({"net": self.config, "table": facts}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a tensor too few or too many is an error."""
        from safetensors.torch import load_file

        network = importlib.import_module("tabicl._model.tabicl")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        net = network.TabICL(**config["net"])
        net.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
        context = load_file(folder / "context.safetensors")
        return cls(net, config["net"], _Table(context["x"].numpy(), context["y"].numpy(), **config["table"]))


def _estimator(regression: bool, members: int, model_path: str | None = None) -> Any:
    tabicl = importlib.import_module("tabicl")
    made = tabicl.TabICLRegressor if regression else tabicl.TabICLClassifier
    return made(
        n_estimators=members,
        model_path=model_path,
        allow_auto_download=False,
        device="cpu",
        use_amp=False,
        use_fa3=False,
        offload_mode=False,
        n_jobs=1,
        random_state=0,
    )


def _find(place: Path | None, kind: str) -> Path | None:
    """Return the checkpoint asked for, that of the variable, or that of the library's cache; None without any."""
    if place is not None:
        return place
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    hub = importlib.import_module("huggingface_hub")
    found = hub.try_to_load_from_cache(REPOSITORY, CACHED[kind])
    return Path(found) if isinstance(found, str) else None


def _plain(config: Any, path: Path) -> dict[str, Any]:
    """Return a network's config, which a bundle keeps as JSON."""
    try:
        out: dict[str, Any] = json.loads(json.dumps(dict(config)))
    except TypeError:
        raise UsageError(
            f"tabicl weights {path}: their config holds more than JSON values, so no bundle could."
        ) from None
    return out


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's warnings are about its inputs, which the run reports itself
        yield
