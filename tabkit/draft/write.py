"""The texts of a schema and a recipe, in TOML, with what was noticed as comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import polars as pl

from tabkit.draft.table import Roles, Table
from tabkit.errors import count

DEFAULT_METRICS = {
    "binary": ("roc_auc", ["pr_auc", "log_loss", "brier", "ks", "gini", "fpr_at_80_recall"]),
    "multiclass": ("log_loss", ["accuracy", "balanced_accuracy", "macro_roc_auc"]),
    "regression": ("rmse", ["mae", "r2"]),
}


def one_line(text: str) -> str:
    """Return text fit for a TOML comment and a terminal: a column's name may hold any character."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _remarks(texts: Iterable[str]) -> list[str]:
    return [f"# {one_line(text)}" for text in texts]


def schema_text(table: Table, name: str, data: str) -> str:
    """Return the schema."""
    rows = count(table.n_rows, "row")
    lines = _remarks([f"What a row of {data} is, as inferred from {rows}. Yours to edit."])
    lines += [
        f"name = {toml_value(name)}",
        f"title = {toml_value(name.replace('_', ' ').capitalize())}",
        'row = "one record"',
    ]
    lines += _remarks(table.remarks)
    stated = table.dialect.model_dump(exclude_none=True)
    if stated:
        lines += ["", "[dialect]", *(f"{k} = {toml_value(v)}" for k, v in stated.items())]
    for column in table.columns.values():
        lines += ["", *_remarks(column.comments), f"[fields.{toml_key(column.name)}]"]
        lines.append(f"type = {toml_value(column.spec.type)}")
        if column.spec.format:
            lines.append(f"format = {toml_value(column.spec.format)}")
        if column.spec.sensitive:
            lines.append("sensitive = true")
        if column.missing:
            lines.append(f"missing = {toml_value(list(column.missing))}")
    return "\n".join(lines) + "\n"


SMALL_ROWS = 2_000
"""Below this, a quarter of the rows is too few to tell models apart: the whole procedure is cross-validated."""

FEW_ROWS = 500
"""Under so many, folds are repeated."""
FOLDS = 5

LEAST_PER_CLASS = 3 * FOLDS
"""With fewer rows of a class, a fold or its valid part may go without it."""


def recipe_text(
    table: Table,
    name: str,
    task: str,
    roles: Roles,
    positive: str | None,
    remarks: list[str],
    id_notes: list[str],
) -> str:
    """Return the recipe."""
    primary, report = DEFAULT_METRICS[task]
    short = name.split("/")[1]
    lines = [
        f"# What to do with {short}: written by `tabkit new`, yours to edit. `tabkit show` explains it.",
        f"name = {toml_value(name)}",
        f"title = {toml_value(short.replace('_', ' ').capitalize())}",
        f"question = {toml_value(f'What will {roles.target} be?')}",
        f"schema = {toml_value(short)}",
        *_remarks(remarks),
        f"task = {toml_value(task)}",
        f"target = {toml_value(roles.target)}",
    ]
    if positive is not None:
        lines.append(f"positive = {toml_value(positive)}")
    if roles.id is not None:
        lines += [*_remarks(id_notes), f"id = {toml_value(roles.id)}"]
    if roles.time is not None:
        lines += ["# The split is by time: the newest rows are held out.", f"time = {toml_value(roles.time)}"]
    if roles.group is not None:
        lines += ["# Rows of one group stay in one part of the split.", f"group = {toml_value(roles.group)}"]
    excluded = [c for c in table.columns.values() if c.excluded]
    if excluded:
        lines.append("# Columns that are no features, and why; take one out of the list to use it:")
        lines += _remarks(f"  {c.name}: {c.excluded}" for c in excluded)
        lines.append(f"exclude = {toml_value([c.name for c in excluded])}")
    if _wants_folds(table, task, roles):
        lines += [
            "",
            f"# {table.n_rows:,} rows: a single holdout would tell little, so every row is held out once, in {FOLDS} folds. It takes",
            "# about twice as long. For one holdout (and for --distill, which needs one), remove this table.",
            "[split]",
            f"folds = {FOLDS}",
        ]
        if table.n_rows < FEW_ROWS:
            lines.append(
                "repeats = 2  # with so few rows, what is held out together matters: once more with other folds"
            )
    lines += ["", "[metrics]", f"primary = {toml_value(primary)}", f"report = {toml_value(report)}"]
    lines += [
        "# The gain that would change what you do; fine-tuning must prove at least this much.",
        f"worthwhile = {_worthwhile(table, task, roles.target)}",
    ]
    lines += ["", "[candidates.adapt]", 'icl = ["full"]', 'tabnet = ["head", "gradual", "full"]']
    return "\n".join(lines) + "\n"


def _wants_folds(table: Table, task: str, roles: Roles) -> bool:
    """Tell whether to cross-validate: few rows, and enough groups and rows of each class for every fold to have some."""
    if table.n_rows >= SMALL_ROWS or roles.time is not None:
        return False
    if roles.group is not None and table.frame[roles.group].n_unique() < 2 * FOLDS:
        return False
    if task != "regression":
        counts = table.frame[roles.target].drop_nulls().value_counts()["count"]
        if int(counts.min() or 0) < LEAST_PER_CLASS:  # type: ignore[arg-type]
            return False
    return True


def _worthwhile(table: Table, task: str, target: str) -> str:
    if task == "regression":
        values = table.frame[target].cast(pl.Float64)
        spread = float(values.filter(values.is_finite()).std() or 0.0)  # type: ignore[arg-type]
        return repr(float(f"{0.01 * spread:.2g}"))
    return {"binary": "0.005", "multiclass": "0.01"}[task]


def toml_key(name: str) -> str:
    """Return a TOML key for any column name.

    >>> toml_key("age"), toml_key("int. rate")
    ('age', '"int. rate"')
    """
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def toml_value(value: Any) -> str:
    """Return a TOML value: text, truth, number, or a list of them. JSON's text is TOML's basic string."""
    if isinstance(value, list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
