"""``result.json`` put together: the findings, and where they come from."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from tabkit.data.validate import Table
from tabkit.recipe import Plan
from tabkit.result import Findings, ListResult, Result, TableResult
from tabkit.result.document import BundleFacts, FeatureFacts, Machine, RowCounts, SourceFacts, SplitFacts, WeightFacts
from tabkit.result.lists import ListFindings
from tabkit.result.tables import TableFindings
from tabkit.workflow.options import Options

DISTRIBUTION = "tabkit-ml"
PACKAGES = (
    "torch",
    "lightgbm",
    "implicit",
    "pytorch-tabnet",
    "scikit-learn",
    "catboost",
    "tabicl",
    "tabpfn",
    "autogluon.tabular",
    "polars",
    "numpy",
)


@dataclass(frozen=True)
class About:
    """What an arm knows of its rows.

    Attributes
    ----------
    sizes
        Rows (events) of train, valid, holdout, without a label, of weight 0, and of the sources.
    bundled
        Rows that the bundled model was trained on.
    members
        The candidates inside the bundle.
    weighted
        How rows are weighted; None if each counts once.
    """

    table: Table
    sizes: dict[str, int]
    sources: tuple[SourceFacts, ...]
    split: SplitFacts
    features: FeatureFacts
    classes: tuple[str, ...]
    bundled: int
    members: tuple[str, ...]
    weighted: WeightFacts | None = None


def assemble(plan: Plan, options: Options, findings: Findings, about: About, seconds: float, name: str) -> Result:
    """Return the result of a run.

    Parameters
    ----------
    name
        The recipe as it was asked for, for the command that repeats the run.
    """
    recipe, table = plan.recipe, about.table
    provenance: dict[str, Any] = {
        "tabkit": version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.name,
        "vertical": recipe.name.split("/")[0],
        "title": recipe.title,
        "question": recipe.question,
        "row": plan.schema.row,
        "task": recipe.task,
        "target": recipe.target,
        "classes": about.classes,
        "positive": about.classes[-1] if recipe.task == "binary" else None,
        "worthwhile": recipe.metrics.worthwhile,
        "rows": RowCounts(
            input=table.n_input,
            rejected=table.n_input - table.n_out_of_scope - table.frame.height,
            out_of_scope=table.n_out_of_scope,
            **about.sizes,
        ),
        "sources": about.sources,
        "split": about.split,
        "weighted": about.weighted,
        "features": about.features,
        "bundle": BundleFacts(train_on=recipe.bundle.train_on, rows=about.bundled, members=about.members),
        "seed": options.seed,
        "budget": options.budget,
        "seconds_total": seconds,
        "command": options.command_of(name),
        "data_fingerprint": table.fingerprint,
        "versions": {"python": platform.python_version(), "tabkit": version(), **_versions()},
        "machine": Machine(cpus=os.cpu_count() or 1, system=f"{platform.system()} {platform.machine()}"),
    }
    if isinstance(findings, ListFindings):
        return ListResult(**provenance, **dict(findings))
    assert isinstance(findings, TableFindings)
    return TableResult(**provenance, **dict(findings))


def version() -> str:
    """Return tabkit's version."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0.0.0"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
