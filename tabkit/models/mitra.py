"""Mitra (Zhang et al., NeurIPS 2025): a public in-context transformer, its network from AutoGluon. Optional extra.

The weights are yours: a folder with ``config.json`` and ``model.safetensors``, as published, that ``--weights
mitra=FOLDER`` or the variable ``TABKIT_MITRA_WEIGHTS`` names, or what the Hugging Face cache holds. Nothing is downloaded.

The network is AutoGluon's ``Tab2D``; what is done to cells before it is done here as there (means for missing cells,
signs of columns drawn at random, targets brought to [0, 1]), but from one seed and in single precision: the library
draws anew at every call, and a row would not always get the same answer.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tabkit.errors import UsageError, count
from tabkit.learner import Predictions, Weights
from tabkit.models.base import installed
from tabkit.models.parts.public_base import CONTEXT_SEED, NetBase, Table

VARIABLE = "TABKIT_MITRA_WEIGHTS"
REPOSITORIES = {"CLASSIFICATION": "autogluon/mitra-classifier", "REGRESSION": "autogluon/mitra-regressor"}
"""Where the weights are published, by the task that their config states."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"
LICENCE = "Apache-2.0, as huggingface.co/autogluon/mitra-classifier states"


class Mitra(NetBase):
    """Mitra with its context, ready to answer. See the module."""

    title = "Mitra"
    extra = "mitra"
    needs_package = "autogluon.tabular"

    @classmethod
    def lacks(cls) -> str | None:
        """Say what is missing: the package, or weights."""
        if not installed(cls):
            return "pip install 'tabkit-ml[mitra]'; your weights"
        found = [task for task in REPOSITORIES if _find(None, task) is not None]
        return None if found else f"weights: --weights mitra=FOLDER, or {VARIABLE}, or the Hugging Face cache"

    @classmethod
    def open_weights(cls, place: Path | None, task: str) -> Self:
        """Open a folder of weights: ``place``, else that of the variable, else the one in the cache."""
        wanted = "REGRESSION" if task == "regression" else "CLASSIFICATION"
        folder = _find(place, wanted)
        if folder is None:
            raise UsageError(
                f"mitra has no weights for {wanted.lower()}: {VARIABLE} is not set and the cache holds no "
                f"{REPOSITORIES[wanted]}. Give a folder with --weights mitra=FOLDER; tabkit downloads none."
            )
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"mitra weights {folder}: {' and '.join(missing)} not there. Expected the folder as it is published, with "
                f"{CONFIG} and {WEIGHTS}."
            )
        try:
            config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            net = cls._read(config, folder / WEIGHTS)
        except Exception as problem:  # whatever the library's constructor or safetensors raise
            reason = " ".join(str(problem).split())[:300]
            raise UsageError(
                f"mitra weights {folder} cannot be read: {reason or type(problem).__name__}. Expected {CONFIG} and {WEIGHTS} "
                "of Mitra, and AutoGluon with its extra: pip install 'tabkit-ml[mitra]'."
            ) from None
        if config["task"] != wanted:
            raise UsageError(
                f"mitra weights {folder} answer {config['task'].lower()}, and the recipe's task is {task}. "
                f"Give those of {REPOSITORIES[wanted]}."
            )
        base = cls(net, config)
        digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        base.opened_from = Weights(str(folder), digest, LICENCE)
        return base

    def _with(self, table: Table) -> Self:
        if table.classes > self.config["dim_output"]:
            raise UsageError(
                f"mitra answers {count(self.config['dim_output'], 'class', 'classes')} at most, and the target has "
                f"{table.classes}. Take it out of [candidates.adapt]."
            )
        return super()._with(table)

    def _fit(self, table: Table) -> _Answering:
        return _Answering.of(_ask(self.net_), table)

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Any:
        library = importlib.import_module("autogluon.tabular.models.mitra._internal.models.tab2d")
        sizes = {name: config[name] for name in ("dim", "dim_output", "n_layers", "n_heads", "task")}
        return library.Tab2D(**sizes, use_pretrained_weights=False, path_to_weights="", device="cpu")


Ask = Callable[[npt.NDArray[np.float32], npt.NDArray[Any], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Context cells (N, C), its targets (N,) and query cells (Q, C) -> logits (Q, K), or numbers (Q,)."""


@dataclass(frozen=True)
class _Answering:
    """The context as the network wants it, and its answers: the mean over the draws of the columns' signs."""

    ask: Ask
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float64]
    means: npt.NDArray[np.float32]
    signs: npt.NDArray[np.float32]
    classes_: npt.NDArray[np.float64]

    @classmethod
    def of(cls, ask: Ask, table: Table) -> _Answering:
        """Fill missing cells by the columns' means; draw signs (members, C), the first of them as they are."""
        x = table.x[:, table.kept]
        known = np.isfinite(x).sum(axis=0)
        means = (np.where(np.isfinite(x), x, 0.0).sum(axis=0) / np.maximum(known, 1)).astype(np.float32)
        signs = np.random.default_rng(CONTEXT_SEED).choice([-1.0, 1.0], (table.members, x.shape[1]))
        signs[0] = 1.0
        filled = np.where(np.isfinite(x), x, means)
        classes = np.zeros(0) if table.regression else np.unique(table.y)
        return cls(ask, filled, table.y, means, signs.astype(np.float32), classes)

    def predict(self, x: npt.NDArray[np.float32]) -> Predictions:
        """Return numbers (n_rows,)."""
        low, high = float(self.y.min()), float(self.y.max())
        targets = ((self.y - low) / (high - low or 1.0)).astype(np.float32)
        return np.asarray(low + (high - low) * self._mean(x, targets).astype(np.float64))

    def predict_proba(self, x: npt.NDArray[np.float32]) -> Predictions:
        """Return probabilities (n_rows, len(classes_)) of the classes that the context has."""
        return self._mean(x, self.y.astype(np.int64)).astype(np.float64)

    def _mean(self, x: npt.NDArray[np.float32], targets: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        asked = np.where(np.isfinite(x), x, self.means)
        answers = []
        for sign in self.signs:
            found = self.ask(self.x * sign, targets, asked * sign)
            if len(self.classes_):
                found = found[:, self.classes_.astype(np.int64)]
                found = np.exp(found - found.max(axis=1, keepdims=True))
                found /= found.sum(axis=1, keepdims=True)
            answers.append(found)
        return np.asarray(np.mean(answers, axis=0))


def _ask(net: Any) -> Ask:
    import torch

    def ask(
        context: npt.NDArray[np.float32], targets: npt.NDArray[Any], asked: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        given = [torch.from_numpy(np.ascontiguousarray(part))[None] for part in (context, targets, asked)]
        padded = [torch.zeros(1, n, dtype=torch.bool) for n in (context.shape[1], len(context), len(asked))]
        with torch.inference_mode():
            answer: npt.NDArray[np.float32] = net(*given, *padded)[0].float().numpy()
        return answer

    return ask


def _find(place: Path | None, task: str) -> Path | None:
    """Return the folder asked for, that of the variable, or that of the Hugging Face cache; None without any."""
    if place is not None:
        return place
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    hub = importlib.import_module("huggingface_hub")
    found = hub.try_to_load_from_cache(REPOSITORIES[task], WEIGHTS)
    return Path(found).parent if isinstance(found, str) else None
