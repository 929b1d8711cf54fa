"""Derived columns and conditions: Polars SQL over one row, never over the target or other rows."""

from __future__ import annotations

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from tabkit.data.frames import values_of
from tabkit.errors import UsageError, count, nearest
from tabkit.recipe import Plan, Recipe

_ROWWISE_SAMPLE = 64


def derive(frame: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Add the recipe's derived columns, in order; a later one may use an earlier one."""
    for name, sql in recipe.derived.items():
        value = pl.sql_expr(sql)
        frame = frame.with_columns(value.alias(name))
        if frame[name].dtype.is_numeric() and not frame[name].dtype.is_float():
            frame = frame.with_columns(values_of(frame, name).cast(pl.Float64).alias(name))
    return frame


def outcome(frame: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    """Add the target that the recipe's ``outcome`` or ``censoring`` makes; without either, a frame comes back as it is.

    Raises
    ------
    UsageError
        The expression does not parse or cannot be evaluated, or looks at the target itself.
    """
    recipe = plan.recipe
    if recipe.target_from is None:
        return frame
    if recipe.censoring is not None:  # what is no condition is told by its own key
        matches(frame, recipe.censoring.event, f"{plan.path}: [censoring] key 'event'")
    key, sql = recipe.target_from
    place = f"{plan.path}: {key}"
    expression = parse_sql(sql, place)
    if recipe.target in expression.meta.root_names():
        raise UsageError(f"{place} uses '{recipe.target}', the target it makes. Use the columns it comes from.")
    check_by_row(frame, expression, place)
    return frame.with_columns(evaluated(frame, expression, recipe.target, place)[recipe.target])


def check_derived(plan: Plan, frame: pl.DataFrame) -> None:
    """Check that each derived column reads known columns, never the target, and one row at a time.

    Raises
    ------
    UsageError
        Naming the recipe's key, what is wrong, and the nearest column.
    """
    visible = [c for c in frame.columns if c not in plan.recipe.derived]
    sample = frame[visible].head(_ROWWISE_SAMPLE)
    for name, sql in plan.recipe.derived.items():
        place = f"{plan.path}: [derived] key '{name}'"
        expression = parse_sql(sql, place)
        for column in expression.meta.root_names():
            spec = plan.schema.field(column)
            if column == plan.recipe.target or (spec is not None and spec.known == "at_outcome"):
                raise UsageError(
                    f"{place} uses '{column}', which is only known at the outcome. Derive from what is known before."
                )
            if column not in sample.columns:
                raise UsageError(f"{place} uses '{column}', which is no column here.{nearest(column, sample.columns)}")
        check_by_row(sample, expression, place)
        sample = sample.with_columns(evaluated(sample, expression, name, place)[name])


def check_by_row(frame: pl.DataFrame, expression: pl.Expr, place: str) -> None:
    """Check on some rows that an expression gives each its value whatever rows stand beside it.

    Raises
    ------
    UsageError
        It looks at other rows, or cannot be evaluated.
    """
    roots = list(dict.fromkeys(expression.meta.root_names())) or frame.columns[:1]
    sample = frame[roots].head(_ROWWISE_SAMPLE)
    # Beside rows whose columns are turned against each other, so that every group it could look at differs.
    turned = sample.select(s.gather((np.arange(len(s)) + i) % len(s)) for i, s in enumerate(sample, start=1))
    beside = evaluated(pl.concat([sample, turned]), expression, "value", place)
    one_by_one = [evaluated(sample[i : i + 1], expression, "value", place) for i in range(sample.height)]
    by_row = not one_by_one or pl.concat(one_by_one, how="vertical_relaxed").equals(beside[: sample.height])
    if beside.height != 2 * sample.height or not by_row:
        raise UsageError(
            f"{place} depends on other rows. Expected an expression over one row: scoring sees rows one by one."
        )


def check_uses(plan: Plan, frame: pl.DataFrame) -> None:
    """Check what a run evaluates once all its work is done: which rows are in slices, and what decisions pay.

    Parameters
    ----------
    frame
        Labelled rows, the target among their columns.

    Raises
    ------
    UsageError
        Naming the recipe's key and what is wrong.
    """
    recipe = plan.recipe
    for rule in recipe.slices:
        place = f"{plan.path}: [[slices]] '{rule.name}' key 'where'"
        matches(frame, rule.where, place)
        check_by_row(frame, parse_sql(rule.where, place), place)
    if recipe.value is None:
        return
    if recipe.value.payoff is not None:  # there, prediction is what the model says: here, the truth
        frame = frame.with_columns(values_of(frame, recipe.target).cast(pl.Float64).alias("prediction"))
    for key in ("acted", "not_acted", "payoff"):
        if (sql := getattr(recipe.value, key)) is None:
            continue
        place = f"{plan.path}: [value] key '{key}'"
        expression = parse_sql(sql, place)
        check_by_row(frame, expression, place)
        paid = evaluated(frame, expression, "paid", place)["paid"]
        if not (paid.dtype.is_numeric() or paid.dtype == pl.Boolean):
            raise UsageError(f"{place}: '{sql}' gives {paid.dtype}. Expected a number: what a row pays.")
        if lost := int((~paid.cast(pl.Float64).is_finite().fill_null(False)).sum()):
            raise UsageError(
                f"{place}: '{sql}' has no finite value in {count(lost, 'row')}. Expected a number for every row: say what "
                "they pay, by CASE WHEN ... ELSE 0 END or COALESCE(..., 0)."
            )


def matches(frame: pl.DataFrame, condition: str, place: str) -> pl.Series:
    """Return which rows meet a Polars SQL condition; null is no match.

    Raises
    ------
    UsageError
        The condition does not parse, or names a column that is not there.
    """
    expression = parse_sql(condition, place)
    for column in expression.meta.root_names():
        if column not in frame.columns:
            raise UsageError(
                f"{place}: '{condition}' uses '{column}', which is no column here.{nearest(column, frame.columns)}"
            )
    values = evaluated(frame, expression, "match", place)["match"]
    if values.dtype != pl.Boolean:
        raise UsageError(
            f"{place}: '{condition}' gives {values.dtype}. Expected a condition, such as term = 'a' or x > 3."
        )
    return values.fill_null(False)


def parse_sql(text: str, place: str) -> pl.Expr:
    """Return the expression; a UsageError names ``place`` if it does not parse."""
    try:
        return pl.sql_expr(text)
    except PolarsError as problem:
        raise UsageError(
            f"{place}: '{text}' is not an SQL expression Polars knows ({str(problem).splitlines()[0]})."
        ) from None


def evaluated(frame: pl.DataFrame, expression: pl.Expr, name: str, place: str) -> pl.DataFrame:
    """Return the expression's values as the one column ``name``; a UsageError names ``place`` if they cannot be made.

    Every row has one, also of an expression that reads no column, such as ``1 = 1``.
    """
    try:
        return frame.with_columns(expression.alias(name)).select(name)
    except PolarsError as problem:
        raise UsageError(
            f"{place} cannot be evaluated ({str(problem).splitlines()[0]}). Check the types of its columns."
        ) from None
