"""A fold's scorecard as files, JSON and safetensors, and back: nothing is ever unpickled.

Models are left out, and so are predictions of train and valid: folds are pooled from what was measured. In the place of
a model stands a :class:`Kept`, which says what the model was and cannot predict.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tabkit.evaluate.comparison import Against, Chosen, Exploratory, Planned, Verdict
from tabkit.evaluate.harness import Fidelity, Score, Scorecard
from tabkit.evaluate.intervals import Interval
from tabkit.evaluate.metrics import METRICS, Metric
from tabkit.models.base import (
    Adapted,
    Block,
    Candidate,
    Cost,
    Model,
    Proof,
    Step,
    Weights,
)
from tabkit.result import CheckOutcome

_KINDS = {
    kind.__name__: kind
    for kind in (
        *(Scorecard, Score, Fidelity, Interval, CheckOutcome),
        *(Chosen, Planned, Against, Exploratory, Verdict),
        *(Candidate, Adapted, Proof, Block, Step, Cost, Weights),
    )
}
"""What a file may ask to be made, and nothing else."""

SCORECARD, ARRAYS = "scorecard.json", "arrays.safetensors"

_TAG = "$"
_NOTHING = np.zeros(0)


class Kept(Model):
    """What is known of a model that was measured elsewhere."""

    title = "Kept"
    hows = {}

    def __init__(self, facts: dict[str, Any]) -> None:
        self.__dict__.update(facts)
        self.needs_source = frozenset(facts["needs_source"])  # type: ignore[misc]

    def adapt(self, *_: Any, **__: Any) -> Adapted:
        """Refuse: only what was measured is kept."""
        raise TypeError("of a fold that was measured, what it measured is kept, and no model")

    predict = save = adapt  # type: ignore[assignment]


def keep(scorecard: Scorecard, folder: Path) -> None:
    """Write ``scorecard.json`` and ``arrays.safetensors`` into a new folder, which is there whole or not at all."""
    arrays: dict[str, Any] = {}
    document = _plain(scorecard, arrays)
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(arrays, part / ARRAYS)
    (part / SCORECARD).write_text(json.dumps(document), encoding="utf-8")
    os.replace(part, folder)


def kept(folder: Path) -> Scorecard | None:
    """Return the scorecard that :func:`keep` wrote; None where there is none, or it cannot be read."""
    try:
        document = json.loads((folder / SCORECARD).read_text(encoding="utf-8"))
        made = _restored(document, load_file(folder / ARRAYS))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None
    return made if isinstance(made, Scorecard) else None


def _plain(value: Any, arrays: dict[str, Any]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[name := f"a{len(arrays)}"] = np.ascontiguousarray(value)
        return {_TAG: "array", "of": name}
    if isinstance(value, Metric):
        return {_TAG: "metric", "of": next(name for name, metric in METRICS.items() if metric == value)}
    if isinstance(value, Model):
        facts = {"title": value.title, "hows": dict(value.hows), "needs_source": tuple(sorted(value.needs_source))}
        return {_TAG: "model", "of": _plain({**facts, "opened_from": value.opened_from}, arrays)}
    if isinstance(value, (Candidate, Adapted)):
        gone = {"train": _NOTHING, "valid": _NOTHING} if isinstance(value, Candidate) else {"on_valid": None}
        value = replace(value, **gone)
    if isinstance(value, CheckOutcome):
        return {_TAG: "CheckOutcome", "of": value.model_dump()}
    if is_dataclass(value):
        own = {field.name: _plain(getattr(value, field.name), arrays) for field in fields(value)}
        return {_TAG: _KINDS[type(value).__name__].__name__, "of": own}
    if isinstance(value, (tuple, list)):
        return {_TAG: type(value).__name__, "of": [_plain(v, arrays) for v in value]}
    return {_TAG: "dict", "of": [[_plain(k, arrays), _plain(v, arrays)] for k, v in value.items()]}


def _restored(value: Any, arrays: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    kind, content = value[_TAG], value["of"]
    if kind == "array":
        return arrays[content]
    if kind == "metric":
        return METRICS[content]
    if kind == "model":
        return Kept(_restored(content, arrays))
    if kind in ("tuple", "list"):
        items = [_restored(v, arrays) for v in content]
        return tuple(items) if kind == "tuple" else items
    if kind == "dict":
        return {_restored(k, arrays): _restored(v, arrays) for k, v in content}
    return _KINDS[kind](**{name: _restored(v, arrays) for name, v in content.items()})
