"""TabPFN (Hollmann et al., Nature 2025, and later versions), through its own library. Optional extra.

The weights are yours: a checkpoint file that ``--weights tabpfn=FILE`` or the variable ``TABKIT_TABPFN_WEIGHTS``
names. Nothing is downloaded, and the library's cache is not searched: its versions stand under licences of their own,
most of them for non-commercial use alone, so which one is used is for you to say. A bundle holds the checkpoint as
safetensors, the library's own form without pickle, and the context rows.

The library is ``tabpfn`` 9.x; read for this file: ``model_loading.py``, ``checkpoint.py``, ``TabPFNClassifier``.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

import numpy as np

from tabkit.errors import UsageError
from tabkit.learner import Weights
from tabkit.models.base import installed
from tabkit.models.parts.public_base import PublicBase, Table, quiet

VARIABLE = "TABKIT_TABPFN_WEIGHTS"

V2_LICENCE = "Prior Labs License (Apache-2.0 with an attribution requirement), TabPFN v2"
LATER_LICENCE = (
    "non-commercial licence of Prior Labs for the weights of this version: commercial use needs their consent"
)


class TabPfn(PublicBase):
    """TabPFN with its context, ready to answer; ``path`` is the checkpoint it reads. See the module."""

    title = "TabPFN"
    extra = needs_package = "tabpfn"

    def __init__(self, path: Path, n_parameters: int, table: Table | None = None) -> None:
        self.path = path
        self.n_parameters = n_parameters
        self.table_ = table

    @classmethod
    def lacks(cls) -> str | None:
        """Say what is missing: the package, or weights."""
        if not installed(cls):
            return "pip install 'tabkit-ml[tabpfn]'; your weights"
        return None if os.environ.get(VARIABLE) else f"weights: --weights tabpfn=FILE, or {VARIABLE}"

    @classmethod
    def open_weights(cls, place: Path | None, task: str) -> Self:
        """Open a checkpoint of the library: ``place``, else that of the variable."""
        path = place or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
        if path is None:
            raise UsageError(
                f"tabpfn has no weights: {VARIABLE} is not set. Give a checkpoint with --weights tabpfn=FILE; "
                "tabkit downloads none."
            )
        if not path.is_file():
            raise UsageError(f"tabpfn weights {path} do not exist. Expected a checkpoint file of TabPFN.")
        loading = importlib.import_module("tabpfn.model_loading")
        kind = "regressor" if task == "regression" else "classifier"
        try:
            with quiet():
                checkpoint = _checkpoint(path)
                net, *_ = loading.load_model(path=path.resolve(), estimator_type=kind)
        except Exception as problem:  # the library raises whatever torch, pydantic or itself does
            reason = " ".join(str(problem).split())[:300]
            raise UsageError(
                f"tabpfn weights {path} cannot be read by the tabpfn library for {task}: "
                f"{reason or type(problem).__name__}. Expected a {kind} checkpoint of a version it knows."
            ) from None
        answers = "classifier" if int(checkpoint["config"].get("max_num_classes", 0)) > 0 else "regressor"
        if answers != kind:
            raise UsageError(f"tabpfn weights {path} are those of a {answers}, and the recipe's task is {task}.")
        base = cls(path.resolve(), sum(int(p.numel()) for p in net.parameters()))
        version = checkpoint.get("architecture_name", "tabpfn_v2")
        licence = V2_LICENCE if version == "tabpfn_v2" else LATER_LICENCE
        base.opened_from = Weights(str(path), hashlib.sha256(path.read_bytes()).hexdigest(), licence)
        return base

    def _with(self, table: Table) -> Self:
        return type(self)(self.path, self.n_parameters, table)

    def _n_parameters(self) -> int:
        return self.n_parameters

    def _fit(self, table: Table) -> Any:
        tabpfn = importlib.import_module("tabpfn")
        made = tabpfn.TabPFNRegressor if table.regression else tabpfn.TabPFNClassifier
        torch = importlib.import_module("torch")
        estimator = made(
            n_estimators=table.members,
            model_path=str(self.path),
            device="cpu",
            ignore_pretraining_limits=True,  # the harness, not the library, judges what the base is good for
            inference_precision=torch.float32,
            random_state=0,
        )
        return estimator.fit(table.x[:, table.kept], table.y if table.regression else table.y.astype(np.int64))

    def save(self, folder: Path) -> None:
        """Write the checkpoint as safetensors, the context and the config."""
        # The library tells versions apart by the file's name.
        kept = folder / f"{self.path.stem}.safetensors"
        if self.path.suffix == ".safetensors":
            shutil.copyfile(self.path, kept)
        else:
            importlib.import_module("tabpfn.checkpoint").save_as_safetensors(_checkpoint(self.path), kept)
        self.table.save(folder)
        config = {"weights": kept.name, "n_parameters": self.n_parameters, "table": self.table.facts()}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        importlib.import_module("tabpfn")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        path = (folder / config["weights"]).resolve()
        return cls(path, config["n_parameters"], Table.load(folder, config["table"]))


def _checkpoint(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = importlib.import_module("tabpfn.checkpoint").Checkpoint(path).load()
    return loaded
