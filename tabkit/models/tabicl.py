"""TabICL (Qu et al., ICML 2025; v2 2026): a public in-context transformer, through its own library. Optional extra.

The weights are yours: a checkpoint file that ``--weights tabicl=FILE`` or the variable ``TABKIT_TABICL_WEIGHTS``
names, or the one that the library's own cache holds. Nothing is downloaded. The library reads the checkpoint
(``torch.load`` with ``weights_only``); a bundle holds the network as safetensors and JSON, and the context rows.

The library is ``tabicl`` 2.x; read for this file: ``TabICLClassifier``, ``TabICLRegressor`` and their ``_load_model``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np

from tabkit.errors import UsageError
from tabkit.learner import Weights
from tabkit.models.base import installed
from tabkit.models.parts.public_base import NetBase, Table

VARIABLE = "TABKIT_TABICL_WEIGHTS"
REPOSITORY = "jingang/TabICL"
CACHED = {
    "classification": "tabicl-classifier-v2-20260212.ckpt",
    "regression": "tabicl-regressor-v2-20260212.ckpt",
}
"""The library's default checkpoints, by what they answer, as its cache names them."""

LICENCE = "BSD-3-Clause as the tabicl library states its own; see huggingface.co/jingang/TabICL for the weights'"


class TabIcl(NetBase):
    """TabICL with its context, ready to answer. See the module."""

    title = "TabICL"
    extra = needs_package = "tabicl"

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

    def _fit(self, table: Table) -> Any:
        estimator = _estimator(table.regression, table.members)

        def given() -> None:  # what the library would read from a file again at every fit
            estimator.model_, estimator.model_config_, estimator.model_path_ = self.net_, self.config, None

        estimator._load_model = given
        return estimator.fit(table.x[:, table.kept], table.y if table.regression else table.y.astype(np.int64))

    @classmethod
    def _build(cls, config: dict[str, Any]) -> Any:
        return importlib.import_module("tabicl._model.tabicl").TabICL(**config)


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
