"""From raw cells to typed ones: missing codes, types, constraints, and which rows do not fit, with the reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import time

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.cells import value_of
from tabkit.data.source import REJECTS, RawBatch
from tabkit.schema import Field, Schema

_TEXT = (pl.String, pl.Categorical, pl.Enum)

_DTYPES: dict[str, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "string": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
}


NO_AMOUNTS: Mapping[str, str] = {}

_A = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "date": "a date",
    "datetime": "a date and time",
}


@dataclass(frozen=True)
class Conformed:
    """The rows that fit, typed, with their numbers; and a line for each cell that did not."""

    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    rejects: pl.DataFrame


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong with a cell: which cells, over ``raw:``, ``typed:`` and ``present:NAME``; and what was expected."""

    column: str
    bad: pl.Expr
    message: str


def dtype_of(spec: Field) -> pl.DataType:
    """Return the type of a field's typed column."""
    return _DTYPES[spec.type]


def conform(
    batch: RawBatch,
    schema: Schema,
    columns: Iterable[str],
    target: str | None = None,
    amounts: Mapping[str, str] = NO_AMOUNTS,
) -> Conformed:
    """Type the needed columns of a batch and set apart the rows that do not fit.

    Parameters
    ----------
    columns
        Columns of the batch that are needed; each must be described by the schema.
    target
        The column whose texts may be classes: only codes that the schema states mean missing in it.
    amounts
        Columns (column -> its role) whose numbers must be finite and from 0 on; a weight must be there too.
    """
    names = list(columns)
    work, rules = type_cells(batch.frame, schema, names, target, amounts)
    frame = work.select([pl.col(f"typed:{n}").alias(n) for n in names])
    # A failing cell's raw text is looked up only where a rule fires.
    done = work.lazy().select(rule.bad.fill_null(False).alias(str(i)) for i, rule in enumerate(rules)).collect()
    failing = done.select(pl.any_horizontal(pl.all())).to_series().to_numpy() if rules else np.zeros(0, dtype=bool)
    if not failing.any():
        return Conformed(frame, batch.rows, pl.DataFrame(schema=REJECTS))
    lines = []
    for i, rule in enumerate(rules):
        at = np.flatnonzero(done[str(i)].to_numpy())
        if len(at):
            values = work[f"raw:{rule.column}"].cast(pl.String)[at].fill_null("")
            lines.append(
                pl.DataFrame(
                    {
                        "file": [batch.file] * len(at),
                        "row": batch.rows[at],
                        "column": [rule.column] * len(at),
                        "value": values,
                        "reason": [rule.message] * len(at),
                    },
                    schema=REJECTS,
                )
            )
    rejects = pl.concat(lines).sort("row", maintain_order=True)
    return Conformed(frame.filter(~pl.Series(failing)), batch.rows[~failing], rejects)


def type_cells(
    frame: pl.DataFrame,
    schema: Schema,
    names: list[str],
    target: str | None = None,
    amounts: Mapping[str, str] = NO_AMOUNTS,
) -> tuple[pl.DataFrame, list[Rule]]:
    """Type columns, and find the rules that their cells may break; parameters as for :func:`conform`.

    Returns
    -------
    cells, rules
        Of each column ``raw:NAME``, ``typed:NAME`` and ``present:NAME`` (to Polars, names such as * or ^x.*$ are patterns,
        and names are data); and rules over these. Of a table of thousands of columns, most need no rule at all.
    """
    raw, dtypes = frame[names], dict(frame.schema)
    raw.columns = [f"raw:{name}" for name in names]
    typed: list[pl.Expr] = []
    for name in names:
        spec = _described(schema, name)
        column = pl.col(f"raw:{name}")
        if dtypes[name] in _TEXT:
            codes = missing_codes(spec, schema, is_target=name == target)
            text = column.cast(pl.String).str.strip_chars()
            text = pl.when(text.is_in(codes)).then(None).otherwise(text)
            present, value = text.is_not_null(), value_of(text, spec, schema)
        else:
            present, value = _typed(column, dtypes[name], spec)
        typed += [value.alias(f"typed:{name}"), present.alias(f"present:{name}")]
    cells = raw.lazy().with_columns(typed).collect()
    rules: list[Rule] = []
    for name in names:
        spec = _described(schema, name)
        n_bad = cells[f"present:{name}"].sum() - (cells.height - cells[f"typed:{name}"].null_count())
        if n_bad and spec.type != "string":
            rules += _type_rules(name, dtypes[name], spec, schema)
        rules += _constraint_rules(name, spec)
        if name in amounts:
            rules.append(_amount_rule(name, amounts[name]))
    return cells, rules


def _amount_rule(name: str, role: str) -> Rule:
    present, number = pl.col(f"present:{name}"), pl.col(f"typed:{name}").cast(pl.Float64)
    wrong = number.is_not_null() & ~(number.is_finite() & (number >= 0))
    wrong = wrong | ~present if role == "weight" else wrong
    return Rule(name, wrong, f"expected a finite number from 0 on: it is the row's {role}")


def _described(schema: Schema, name: str) -> Field:
    spec = schema.field(name)
    assert spec is not None, f"'{name}' is not described by schema {schema.name}"
    return spec


def missing_codes(spec: Field, schema: Schema, *, is_target: bool = False) -> list[str]:
    """Return the texts that mean "no value" in a field.

    Of a target of text, which may have a class called None, only those that the schema states do.
    """
    common = schema.missing
    if is_target and spec.type == "string" and "missing" not in schema.model_fields_set:
        common = [""]
    return [*common, *(str(code) for code in spec.missing)]


def _type_rules(name: str, dtype: pl.DataType, spec: Field, schema: Schema) -> list[Rule]:
    """Return what is said of cells that are not of the field's type; of a number written otherwise, what to state."""
    bad = pl.col(f"present:{name}") & pl.col(f"typed:{name}").is_null()
    expected = f"expected {_A[spec.type]}" + (f" like {spec.format}" if spec.format else "")
    if spec.type not in ("number", "integer") or dtype not in _TEXT:
        return [Rule(name, bad, expected)]
    if spec.notation is not None:
        expected += {"percent": " with %", "currency": f", with or without {spec.unit or 'a currency'}"}[spec.notation]
    decimal, group = schema.marks(spec)
    text = pl.col(f"raw:{name}").str.strip_chars() if dtype == pl.String else pl.col(f"raw:{name}").cast(pl.String)
    other, mark = (",", "comma") if decimal == "." else (".", "point")
    if group == other:
        return [Rule(name, bad, expected)]
    marked = bad & text.str.contains(rf"^[^\p{{L}}]*\d{re.escape(other)}\d[^\p{{L}}]*$")
    advice = f"; if the {mark} is the decimal mark, state decimal = '{other}' for the field, or if it groups thousands, group = '{other}'"
    return [Rule(name, bad & ~marked, expected), Rule(name, marked, expected + advice)]


def _typed(column: pl.Expr, dtype: pl.DataType, spec: Field) -> tuple[pl.Expr, pl.Expr]:
    """Return (a value is present, the typed value) for one column that is not text."""
    if dtype == pl.Null:
        return pl.lit(False), pl.lit(None, dtype=_DTYPES[spec.type])
    value = column
    if spec.missing and dtype.is_numeric():
        value = (
            pl.when(column.cast(pl.Float64).is_in([float(c) for c in spec.missing if not isinstance(c, str)]))
            .then(None)
            .otherwise(column)
        )
    if dtype.is_float():
        value = pl.when(value.is_nan()).then(None).otherwise(value)
    present = value.is_not_null()
    match spec.type:
        case "integer" if dtype.is_float():
            whole = value.is_finite() & (value == value.round())
            return present, pl.when(whole).then(value).otherwise(None).cast(pl.Int64, strict=False)
        case "boolean" if dtype.is_numeric():
            return present, pl.when(value == 1).then(True).when(value == 0).then(False).otherwise(None)
        case "string" if dtype.is_float():
            whole = value.is_finite() & (value == value.round())
            return present, pl.when(whole).then(value.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(
                value.cast(pl.String)
            )
        case "number" if dtype == pl.Boolean:
            return present, value.cast(pl.Int64).cast(pl.Float64)
        case "date" | "datetime" if dtype.is_numeric():
            return present, pl.lit(None, dtype=_DTYPES[spec.type])
        case "date" if isinstance(dtype, pl.Datetime):
            # A day in its own zone; a time of day is no day, as in text.
            local = value.dt.replace_time_zone(None)
            return present, pl.when(local.dt.time() == time(0)).then(local.dt.date())
        case "datetime" if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
            utc = value.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
            return present, utc.cast(pl.Datetime("us"))
        case _:
            return present, value.cast(_DTYPES[spec.type], strict=False)


def _constraint_rules(name: str, spec: Field) -> list[Rule]:
    value, limits = pl.col(f"typed:{name}"), spec.constraints
    unit = f" {spec.unit}" if spec.unit else ""
    rules = []
    if limits.required:
        rules.append(Rule(name, ~pl.col(f"present:{name}"), "expected a value (required), found none"))
    if limits.minimum is not None:
        rules.append(Rule(name, value < limits.minimum, f"expected at least {limits.minimum}{unit}"))
    if limits.maximum is not None:
        rules.append(Rule(name, value > limits.maximum, f"expected at most {limits.maximum}{unit}"))
    if limits.pattern is not None:
        rules.append(Rule(name, ~value.str.contains(limits.pattern), f"expected text matching {limits.pattern}"))
    if limits.enum is not None:
        allowed = ", ".join(map(str, limits.enum[:12]))
        values = pl.Series(limits.enum, dtype=dtype_of(spec)).implode()
        rules.append(Rule(name, ~value.is_in(values), f"expected one of {allowed}"))
    return rules
