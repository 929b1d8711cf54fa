"""A table of a domain, read, cut and encoded as a run of its recipe does it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tabkit.data.encode import Features
from tabkit.data.split import Split, split_rows
from tabkit.errors import DataError, UsageError, inside
from tabkit.evaluate.metrics import Metric, resolve
from tabkit.models.parts.icl_prior import MAX_CLASSES
from tabkit.recipe import load_recipe
from tabkit.workflow.procedure import encoder_of
from tabkit.workflow.reading import read_rows


@dataclass(frozen=True)
class DomainTable:
    """A table of the domain, cut by its recipe's rule: ``train`` teaches, ``valid`` chooses, ``holdout`` measures.

    ``note`` says if it was cut otherwise than a run cuts it.
    """

    name: str
    fingerprint: str
    train: Features
    valid: Features
    holdout: Features
    groups: np.ndarray[Any, np.dtype[np.int64]] | None
    metric_name: str
    metric: Metric
    note: str = ""


def read_table_of(source: str, seed: int, out: Path) -> DomainTable:
    """Read one table of the domain, ``RECIPE`` or ``RECIPE=DATA``; rejected rows go to ``out`` if there are too many.

    A recipe with outer folds is cut as in its first fold. With inner folds a run also chooses on train rows; here a
    valid part is cut from them by the recipe's rule, since one network is continued, not one per inner fold.
    """
    name, _, data = source.partition("=")
    plan = load_recipe(name)
    recipe = plan.recipe
    if recipe.task == "ranking":
        raise UsageError(
            f"--continue-on {source}: {recipe.name} is a ranking recipe, and the in-context base learns from tables. "
            "Leave it out."
        )
    if not data and recipe.sample is None:
        raise UsageError(f"Recipe {recipe.name} has no sample of its own: give its table as {name}=DATA.")
    rows = read_rows(plan, data or None, rejects_to=out)
    if len(rows.classes) > MAX_CLASSES:
        raise DataError(
            f"{source}: target '{recipe.target}' has {len(rows.classes)} classes. Expected 2 to {MAX_CLASSES}."
        )
    without_inner = recipe.model_copy(update={"split": recipe.split.model_copy(update={"inner": None})})
    frame = rows.labelled.frame
    split = split_rows(frame, without_inner, seed, rows.weighing)[0]
    encoder = encoder_of(plan, rows, split)
    train, valid, holdout = (encoder.encode(frame[part]) for part in (split.train, split.valid, split.holdout))
    metric = resolve([recipe.metrics.primary], recipe.task, str(plan.path))[recipe.metrics.primary]
    return DomainTable(
        recipe.name,
        rows.table.fingerprint,
        train,
        valid,
        holdout,
        groups=None if split.groups is None else split.groups[split.holdout],
        metric_name=inside(metric.title),
        metric=metric,
        note=_note(recipe.name, split, recipe.split.inner),
    )


def _note(name: str, split: Split, inner: int | None) -> str:
    notes = []
    if split.n_folds > 1:
        notes.append(
            f"A run holds out every row once, over {split.n_folds} folds; here, the first fold is the holdout."
        )
    if inner is not None:
        notes.append(f"A run chooses in {inner} inner folds; here, a valid part was cut from train.")
    if split.weights is not None:
        notes.append("A run weighs rows; here, each counts once.")
    return f"{name}: {' '.join(notes)}" if notes else ""
