"""From a table in memory to a recipe and its schema, much as ``tabkit new`` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import tomlkit

from tabkit.draft.columns import ColumnProfile
from tabkit.draft.profile import Profile, Roles, open_table, profile_of
from tabkit.draft.write import DEFAULT_METRICS, Question, recipe_text, schema_text
from tabkit.errors import DataError, count
from tabkit.recipe import Plan, load_recipe
from tabkit.result import Task
from tabkit.schema import Field, Schema
from tabkit.workflow.reading import MIN_ROWS

ADAPT: Mapping[str, Sequence[str]] = {"icl": ["head"]}
"""What is adapted if nothing is asked for: the shipped base, by its cheapest training."""

LEAST_PER_CLASS = 3
"""Rows of a class that put one into train, valid and holdout each."""


@dataclass(frozen=True)
class Wishes:
    """What an estimator's parameters ask of a recipe; see :class:`tabkit.TabkitClassifier`."""

    metric: str | None
    candidates: Mapping[str, Sequence[str]] | None
    without: Sequence[str] | None
    worthwhile: float | None
    folds: int | None


@dataclass(frozen=True)
class Labelled:
    """A table with its target; ``classes`` in order, the positive one last, are empty for regression.

    ``weight`` is the column that says for how many rows a row stands; None if each counts once.
    """

    frame: pl.DataFrame
    target: str
    classes: tuple[str, ...]
    weight: str | None = None

    @classmethod
    def of(
        cls, features: pl.DataFrame, label: pl.Series, classes: tuple[str, ...], weights: pl.Series | None = None
    ) -> Labelled:
        """Put a label, and weights, beside the features, under names that none of them has."""
        name = _free(label.name or "target", features)
        frame = features.with_columns(label.alias(name))
        if weights is None:
            return cls(frame, name, classes)
        weight = _free("sample_weight", frame)
        return cls(frame.with_columns(weights.alias(weight)), name, classes, weight)

    @property
    def task(self) -> Task:
        """The task, by the number of classes."""
        return "regression" if not self.classes else "binary" if len(self.classes) == 2 else "multiclass"

    def obstacle(self) -> str | None:
        """Say why no run can judge candidates on these rows; None if one can."""
        if self.frame.height < MIN_ROWS:
            return f"{count(self.frame.height, 'row')} cannot be cut into train, valid and holdout; {MIN_ROWS} can."
        if not self.classes:
            return None
        name, least = self.frame[self.target].value_counts(name="n").sort("n", self.target).row(0)
        if least >= LEAST_PER_CLASS:
            return None
        return (
            f"Class {name} has {count(least, 'row')}; with {LEAST_PER_CLASS}, train, valid and holdout would have one each. "
            "Merge rare classes."
        )


def _free(name: str, frame: pl.DataFrame) -> str:
    """Return the name, or one like it that no column has."""
    while name in frame.columns:
        name += "_"
    return name


def class_names(classes: Sequence[object]) -> tuple[str, ...]:
    """Return classes as a table holds them: quoted if one of them would be read as missing or as another.

    >>> class_names([0, 1]), class_names(["", "NA"])
    (('0', '1'), ("''", "'NA'"))
    """
    names = tuple(str(c) for c in classes)
    codes = Schema.model_fields["missing"].default
    plain = len(set(names)) == len(names) and not any(name in codes or name != name.strip() for name in names)
    return names if plain else tuple(map(repr, classes))


def write_plan(place: Path, table: Labelled, wishes: Wishes) -> Plan:
    """Write recipe and schema into an empty folder, and load them.

    All columns are features, also those that ``tabkit new`` would take for ids or leaks: who passes them means them.

    Raises
    ------
    DataError
        A column of a type that is not read, or a target that is the same in every row.
    UsageError
        A wish that fits no recipe.
    """
    profile = _profile(table)
    positive = table.classes[-1] if table.task == "binary" else None
    roles, question = Roles(table.target, None, None, None, table.weight), Question(table.task, positive, [], [])
    recipe = tomlkit.parse(recipe_text(profile, "estimator/table", roles, question)).unwrap()
    _grant(recipe, wishes, table.task)
    recipe_path = place / "domains" / "estimator" / "table.toml"
    schema_path = place / "data_schemas" / "table.toml"
    for path, text in ((recipe_path, tomlkit.dumps(recipe)), (schema_path, schema_text(profile, "table"))):
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return load_recipe(str(recipe_path))


def _profile(table: Labelled) -> Profile:
    """Infer the columns' types; a frame's numbers stay numbers, and classes are names."""
    frame = table.frame
    if table.classes:  # by number: nothing is to be read into names such as "-" or "1.0"
        numbers = pl.col(table.target).replace_strict(table.classes, range(len(table.classes)), return_dtype=pl.Int64)
        frame = frame.with_columns(numbers)
    profile = profile_of(open_table(frame), "table", table.target, {table.target})
    for name, dtype in table.frame.schema.items():
        if name not in profile.columns:
            raise DataError(
                f"Column '{name}' holds {dtype}, which is not read. Expected numbers, text, truth or dates."
            )
        if dtype.is_numeric():  # those of new rows need not be whole
            profile.columns[name] = replace(profile.columns[name], spec=Field(type="number"))
    if table.classes:
        profile.columns[table.target] = ColumnProfile(table.target, Field(type="string"))
    return profile


def _grant(recipe: dict[str, Any], wishes: Wishes, task: Task) -> None:
    recipe.pop("split", None)
    if wishes.folds is not None:
        recipe["split"] = {"folds": wishes.folds}
    recipe["max_rejected"] = 0.0
    adapt = ADAPT if wishes.candidates is None else wishes.candidates
    recipe["candidates"] = {
        "adapt": {base: list(hows) for base, hows in adapt.items()},
        "without": list(wishes.without or ()),
    }
    if wishes.metric is not None:
        primary, report = DEFAULT_METRICS[task]
        others = [name for name in (primary, *report) if name != wishes.metric]
        # The draft's worthwhile is in the unit of its own metric.
        recipe["metrics"] = {"primary": wishes.metric, "report": others, "worthwhile": 0.0}
    if wishes.worthwhile is not None:
        recipe["metrics"]["worthwhile"] = float(wishes.worthwhile)
