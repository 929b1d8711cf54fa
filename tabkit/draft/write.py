"""The texts of a schema and a recipe, in TOML, with what was noticed as comments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import polars as pl
import tomlkit
from tomlkit.items import AbstractTable

from tabkit.data.frames import values_of
from tabkit.draft.profile import Profile, Roles
from tabkit.errors import count

DEFAULT_METRICS = {
    "binary": ("roc_auc", ["pr_auc", "log_loss", "brier", "ks", "gini", "fpr_at_80_recall"]),
    "multiclass": ("log_loss", ["accuracy", "balanced_accuracy", "macro_roc_auc"]),
    "regression": ("rmse", ["mae", "r2"]),
    "ranking": ("ndcg@10", ["recall@10", "recall@20", "mrr@20", "map@10", "hit_rate@10"]),
}


SMALL_ROWS = 2_000
"""Below this, a quarter of the rows is too few to tell models apart: the whole procedure is cross-validated."""

FEW_ROWS = 500
"""Under so many, folds are repeated."""
FOLDS = 5

LEAST_PER_CLASS = 3 * FOLDS
"""With fewer rows of a class, a fold or its valid part may go without it."""


@dataclass(frozen=True)
class Question:
    """What is asked of the target, and what to say about it, about the id and about a weight."""

    task: str
    positive: str | None
    remarks: list[str]
    id_remarks: list[str]
    weight_remarks: list[str] = field(default_factory=list)


def one_line(text: str) -> str:
    """Return text fit for a TOML comment and a terminal: a column's name may hold any character."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def toml_text(text: str) -> str:
    """Return text as TOML writes it.

    >>> print(toml_text('5" disk'))
    "5\\" disk"
    """
    return tomlkit.item(text).as_string()


def comment(lines: tomlkit.TOMLDocument | AbstractTable, *texts: str) -> None:
    """Add comments, one a line."""
    for text in texts:
        lines.add(tomlkit.comment(one_line(text)))


def section(path: tuple[str, ...], values: Mapping[str, object], comments: Iterable[str] = ()) -> str:
    """Return a TOML table, its comments right above it: tomlkit itself puts an empty line between."""
    above = tomlkit.document()
    comment(above, *comments)
    table: AbstractTable = tomlkit.table()
    for key, value in values.items():
        table.add(key, value)
    for key in reversed(path[1:]):
        parent = tomlkit.table(is_super_table=True)
        parent.append(key, table)
        table = parent
    return above.as_string() + tomlkit.document().append(path[0], table).as_string()


def schema_text(profile: Profile, name: str, row: str = "one record") -> str:
    """Return the schema."""
    head = tomlkit.document()
    comment(
        head,
        f"What a row of {profile.source.name} is, as inferred from {count(profile.n_rows, 'row')}. Yours to edit.",
    )
    head.update({"name": name, "title": name.replace("_", " ").capitalize(), "row": row})
    comment(head, *profile.remarks)
    parts = [head.as_string()]
    if stated := profile.dialect.model_dump(exclude_none=True):
        parts.append(section(("dialect",), stated))
    for column in profile.columns.values():
        field: dict[str, object] = {"type": column.spec.type}
        for key in ("unit", "format", "decimal", "group", "notation"):
            if value := getattr(column.spec, key):
                field[key] = value
        if column.spec.sensitive:
            field["sensitive"] = True
        if column.missing:
            field["missing"] = list(column.missing)
        parts.append(section(("fields", column.name), field, column.comments))
    return "\n".join(parts)


def recipe_text(profile: Profile, name: str, roles: Roles, question: Question) -> str:
    """Return the recipe."""
    short = name.split("/")[1]
    head = tomlkit.document()
    comment(head, f"What to do with {short}: written by `tabkit new`, yours to edit. `tabkit show` explains it.")
    head.update({"name": name, "title": short.replace("_", " ").capitalize()})
    head.update({"question": f"What will {roles.target} be?", "schema": short})
    comment(head, *question.remarks)
    head.update({"task": question.task, "target": roles.target})
    if question.positive is not None:
        head["positive"] = question.positive
    if roles.id is not None:
        comment(head, *question.id_remarks)
        head["id"] = roles.id
    comment(head, *question.weight_remarks)
    if roles.weight is not None:
        head["weight"] = roles.weight
    if roles.time is not None:
        comment(head, "The split is by time: the newest rows are held out.")
        head["time"] = roles.time
    if roles.group is not None:
        comment(head, "Rows of one group stay in one part of the split.")
        head["group"] = roles.group
    if excluded := [c for c in profile.columns.values() if c.excluded]:
        comment(head, "Columns that are no features, and why; take one out of the list to use it:")
        comment(head, *(f"  {c.name}: {c.excluded}" for c in excluded))
        head["exclude"] = [c.name for c in excluded]
    parts = [head.as_string()]
    if _wants_folds(profile, question.task, roles):
        parts.append(_folds(profile.n_rows))
    primary, report = DEFAULT_METRICS[question.task]
    metrics = tomlkit.table()
    metrics.update({"primary": primary, "report": report})
    comment(metrics, "The gain that would change what you do; fine-tuning must prove at least this much.")
    metrics["worthwhile"] = _worthwhile(profile, question.task, roles.target)
    parts.append(tomlkit.document().append("metrics", metrics).as_string())
    parts.append(section(("candidates", "adapt"), {"icl": ["full"], "tabnet": ["head", "gradual", "full"]}))
    return "\n".join(parts)


def _folds(n_rows: int) -> str:
    split: dict[str, object] = {"folds": FOLDS}
    if n_rows < FEW_ROWS:
        split["repeats"] = tomlkit.item(2).comment(
            "with so few rows, what is held out together matters: once more with other folds"
        )
    comments = (
        f"{n_rows:,} rows: a single holdout would tell little, so every row is held out once, in {FOLDS} folds. It takes",
        "about twice as long. For one holdout (and for --distill, which needs one), remove this table.",
    )
    return section(("split",), split, comments)


def _wants_folds(profile: Profile, task: str, roles: Roles) -> bool:
    """Tell whether to cross-validate: few rows, and enough groups and rows of each class for every fold to have some."""
    if profile.n_rows >= SMALL_ROWS or roles.time is not None:
        return False
    if roles.group is not None and values_of(profile.frame, roles.group).n_unique() < 2 * FOLDS:
        return False
    if task != "regression":
        sizes = (
            values_of(profile.frame, roles.target).drop_nulls().value_counts(name="number of rows")["number of rows"]
        )
        if int(sizes.min() or 0) < LEAST_PER_CLASS:  # type: ignore[arg-type]
            return False
    return True


def _worthwhile(profile: Profile, task: str, target: str) -> float:
    if task == "regression":
        values = values_of(profile.frame, target).cast(pl.Float64)
        spread = float(values.filter(values.is_finite()).std() or 0.0)  # type: ignore[arg-type]
        return float(f"{0.01 * spread:.2g}")
    return {"binary": 0.005, "multiclass": 0.01}[task]
