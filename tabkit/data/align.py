"""Source tables in the columns of the target: made as the recipe says, or missing if a source lacks them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.derive import evaluated, parse_sql
from tabkit.data.frames import values_of
from tabkit.data.source import Input, from_frame
from tabkit.data.target import with_label
from tabkit.data.validate import Table, needed_columns, read_table
from tabkit.data.weighing import Weighing, takes_part
from tabkit.errors import DataError, count, nearest
from tabkit.recipe import Plan, Source


@dataclass(frozen=True)
class SourceTable:
    """A source's labelled rows in the target's columns.

    Attributes
    ----------
    name
        What the recipe calls it.
    lacking
        Features of the target that it does not have: they are missing in all of its rows.
    weights
        For how many rows each stands, (n_rows,), 1 on average; None if each counts once.
    """

    name: str
    frame: pl.DataFrame
    lacking: tuple[str, ...]
    weights: npt.NDArray[np.float64] | None = None


def align(frame: pl.DataFrame, plan: Plan, rule: Source, name: str) -> pl.DataFrame:
    """Return a source table in the columns of the schema, as ``[source.columns]`` says; others stay as they are.

    A table that has a column of the schema already, and not what it would be made from, keeps it.

    Raises
    ------
    DataError
        Neither the column nor what it is made from is there.
    UsageError
        An expression does not parse or cannot be evaluated.
    """
    columns = []
    for column, sql in rule.columns.items():
        place = f"{plan.path}: [source.columns] key '{column}'"
        expression = parse_sql(sql, place)
        absent = [root for root in expression.meta.root_names() if root not in frame.columns]
        if not absent:
            columns.append(evaluated(frame, expression, column, place)[column])
        elif column not in frame.columns:
            raise DataError(
                f"{name}: column '{absent[0]}' is missing, from which the recipe makes '{column}' of the source.{nearest(absent[0], frame.columns)} "
                f"Give a table with '{absent[0]}' or with '{column}'."
            )
    return frame.with_columns(columns)


def read_source(plan: Plan, given: Input, rule: Source, target: Table, same_input: bool = False) -> SourceTable:
    """Read a source whole, since bases are pretrained on all of it, and put it into the target's columns.

    Parameters
    ----------
    rule
        What the recipe says of it.
    target
        The target's table, whose columns it is to have.
    same_input
        Whether both are cut from one input; they must then have no row in common.

    Raises
    ------
    DataError
        It has no target, none of the target's features, rows that do not fit the schema, or rows of the target.
    """
    recipe = plan.recipe
    if rule.columns:
        frame = pl.concat([batch.frame for batch in given.batches(1_000_000)])
        given = from_frame(align(frame, plan, rule, given.name), given.name)
    if recipe.target_from is None and recipe.target not in given.columns:
        raise DataError(
            f"{given.name}: the source has no column '{recipe.target}', the target; without labels it teaches nothing."
            f"{nearest(recipe.target, given.columns)} Say under [source.columns] what it is made from."
        )
    features = [c for c in target.frame.columns if plan.is_feature(c)]
    must = {recipe.target}
    if recipe.target_from is not None:
        key, sql = recipe.target_from
        must = set(parse_sql(sql, f"{plan.path}: {key}").meta.root_names())
    if rule.where is not None:
        must |= set(parse_sql(rule.where, f"{plan.path}: [source] key 'where'").meta.root_names())
    needed = [c for c in dict.fromkeys([*needed_columns(plan, for_target=True), *features]) if c not in recipe.derived]
    absent = [c for c in needed if c not in given.columns and c not in must]
    roots = {
        name: parse_sql(sql, f"{plan.path}: [derived] key '{name}'").meta.root_names()
        for name, sql in recipe.derived.items()
    }
    made_from = {name: {name, *roots.get(name, ())} for name in features}
    if not set().union(*made_from.values()) & set(given.columns):
        raise DataError(
            f"{given.name}: the source shares no feature with the target, which has {', '.join(features[:6])}; found "
            f"{', '.join(given.columns[:6])}. Say under [source.columns] what they are made from."
        )
    table = read_table(plan, given, rule.where, absent=frozenset(absent))
    if same_input and (both := np.intersect1d(table.rows, target.rows)).size:
        raise DataError(
            f"{given.name}: {count(both.size, 'row')} would be source and target at once, and what is held out would have been "
            "seen. Expected conditions that exclude each other in 'where' and in [source] where, or a sample of its own."
        )
    labelled = with_label(values_of(table.frame, recipe.target))
    frame = table.frame.filter(labelled)
    frame = frame.filter(takes_part(plan, frame, given.name))
    weighing = Weighing.of(plan, frame, table.frame.filter(~labelled))
    weights = None if weighing is None else weighing.weights()
    selected = pl.DataFrame(
        [values_of(frame, c).cast(target.frame.schema[c]).alias(c) for c in [*features, recipe.target]]
    )
    lacking = tuple(c for c in features if made_from[c] & set(absent))
    return SourceTable(rule.title, selected, lacking, None if weights is None else weights / weights.mean())
