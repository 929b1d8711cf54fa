"""From raw cells to typed ones: missing codes, types, constraints, and which rows do not fit, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.source import REJECTS, RawBatch
from tabkit.schema import FALSE, TRUE, Field, Schema

_DTYPES: dict[str, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "string": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
}


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
    """One thing that may be wrong with a cell: which cells, and what was expected."""

    column: str
    bad: pl.Expr
    message: str


def dtype_of(spec: Field) -> pl.DataType:
    """Return the type of a field's typed column."""
    return _DTYPES[spec.type]


def conform(batch: RawBatch, schema: Schema, columns: Iterable[str], decimal: str) -> Conformed:
    """Type the needed columns of a batch and set apart the rows that do not fit.

    Parameters
    ----------
    columns
        Columns of the batch that are needed; each must be described by the schema.
    decimal
        The decimal mark of numbers given as text.
    """
    names = list(columns)
    typed, rules = plan_rules(batch.frame.schema, schema, names, decimal)
    raw = batch.frame.lazy().select(names)
    # Typed columns keep their name; a failing cell's raw text is looked up only where a rule fires.
    flags = [rule.bad.fill_null(False).alias(f"bad:{i}") for i, rule in enumerate(rules)]
    work = raw.with_columns([e.alias(f"typed:{n}") for n, e in typed.items()]).with_columns(flags).collect()
    flag_names = [f"bad:{i}" for i in range(len(rules))]
    failing = np.zeros(work.height, dtype=bool)
    if flag_names:
        failing = work.select(pl.any_horizontal(flag_names)).to_series().to_numpy()
    frame = work.select([pl.col(f"typed:{n}").alias(n) for n in names])
    if not failing.any():
        return Conformed(frame, batch.rows, pl.DataFrame(schema=REJECTS))
    lines = []
    for i, rule in enumerate(rules):
        at = np.flatnonzero(work[f"bad:{i}"].to_numpy())
        if len(at):
            values = work[rule.column].cast(pl.String)[at].fill_null("")
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


def plan_rules(
    dtypes: pl.Schema, schema: Schema, names: list[str], decimal: str
) -> tuple[dict[str, pl.Expr], list[Rule]]:
    """Return the typing expression of each column, and the rules over ``typed:NAME`` and the raw columns."""
    typed: dict[str, pl.Expr] = {}
    rules: list[Rule] = []
    for name in names:
        spec = schema.field(name)
        assert spec is not None, f"'{name}' is not described by schema {schema.name}"
        present, value = _typed(name, dtypes[name], spec, schema, decimal)
        typed[name] = value
        if spec.type != "string":
            expected = f"expected {_A[spec.type]}" + (f" like {spec.format}" if spec.format else "")
            rules.append(Rule(name, present & value.is_null(), expected))
        rules += _constraint_rules(name, spec, present)
    return typed, rules


def _typed(name: str, dtype: pl.DataType, spec: Field, schema: Schema, decimal: str) -> tuple[pl.Expr, pl.Expr]:
    """Return (a value is present, the typed value) for one column."""
    column = pl.col(name)
    codes = [*schema.missing, *(str(code) for code in spec.missing)]
    if dtype == pl.String or dtype == pl.Categorical or dtype == pl.Enum:
        text = column.cast(pl.String).str.strip_chars()
        text = pl.when(text.is_in(codes)).then(None).otherwise(text)
        return text.is_not_null(), _from_text(text, spec, decimal)
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
        case _:
            return present, value.cast(_DTYPES[spec.type], strict=False)


def _from_text(text: pl.Expr, spec: Field, decimal: str) -> pl.Expr:
    match spec.type:
        case "string":
            return text
        case "number" | "integer":
            if decimal == ",":
                # 1.234,5 -> 1234.5; a point that does not group thousands is no number here
                grouped = text.str.contains(r"^[+-]?\d{1,3}(\.\d{3})+(,\d+)?$")
                plain = text.str.contains(r"^[+-]?\d+(,\d+)?([eE][+-]?\d+)?$")
                cleaned = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
                text = pl.when(grouped | plain).then(cleaned).otherwise(None)
            number = text.cast(pl.Float64, strict=False)
            if spec.type == "number":
                return number
            # Long integers pass through text, since a float would round them.
            exact = text.cast(pl.Int64, strict=False)
            whole = number.is_finite() & (number == number.round())
            return pl.coalesce(exact, pl.when(whole).then(number).otherwise(None).cast(pl.Int64, strict=False))
        case "boolean":
            lower = text.str.to_lowercase()
            return (
                pl.when(lower.is_in(list(TRUE))).then(True).when(lower.is_in(list(FALSE))).then(False).otherwise(None)
            )
        case "date":
            return _first_parse(text, pl.Date(), [spec.format] if spec.format else ["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"])
        case "datetime":
            formats = [
                "%Y-%m-%d %H:%M:%S%.f",
                "%Y-%m-%dT%H:%M:%S%.f",
                "%Y-%m-%d %H:%M",
                "%Y-%m-%dT%H:%M",
                "%Y-%m-%dT%H:%M:%S%.fZ",
            ]
            day = text.str.strptime(pl.Date, "%Y-%m-%d", strict=False).cast(pl.Datetime("us"))
            return pl.coalesce(_first_parse(text, pl.Datetime("us"), [spec.format] if spec.format else formats), day)


def _first_parse(text: pl.Expr, dtype: pl.Date | pl.Datetime, formats: list[str]) -> pl.Expr:
    return pl.coalesce([text.str.strptime(dtype, f, strict=False) for f in formats])


def _constraint_rules(name: str, spec: Field, present: pl.Expr) -> list[Rule]:
    value, limits = pl.col(f"typed:{name}"), spec.constraints
    unit = f" {spec.unit}" if spec.unit else ""
    rules = []
    if limits.required:
        rules.append(Rule(name, ~present, "expected a value (required), found none"))
    if limits.minimum is not None:
        rules.append(Rule(name, value < limits.minimum, f"expected at least {limits.minimum}{unit}"))
    if limits.maximum is not None:
        rules.append(Rule(name, value > limits.maximum, f"expected at most {limits.maximum}{unit}"))
    if limits.pattern is not None:
        rules.append(Rule(name, ~value.str.contains(limits.pattern), f"expected text matching {limits.pattern}"))
    if limits.enum is not None:
        allowed = ", ".join(map(str, limits.enum[:12]))
        rules.append(Rule(name, ~value.is_in(limits.enum), f"expected one of {allowed}"))
    return rules
