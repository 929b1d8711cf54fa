"""From raw cells to typed rows: missing codes, types, constraints, derived columns, and what does not fit.

A row with any failing cell in a needed column is left out, with one line per cell in the rejects:
rows in = rows kept + rows rejected, always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PolarsError

from tabkit.data.source import REJECTS, Input, RawBatch
from tabkit.errors import DataError, UsageError, count, nearest
from tabkit.recipe import Plan, Recipe
from tabkit.schema import Field, Schema

CHUNK_ROWS = 200_000
_FIRST_ROWS = 5
_ROWWISE_SAMPLE = 64

_DTYPES: dict[str, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "string": pl.String(),
    "boolean": pl.Boolean(),
    "date": pl.Date(),
    "datetime": pl.Datetime("us"),
}
_TRUE, _FALSE = ["true", "t", "yes", "y", "1"], ["false", "f", "no", "n", "0"]
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
class Table:
    """Typed rows in scope, derived columns included, and an account of all others.

    ``rows`` are row numbers in the input. ``fingerprint`` (SHA-256, hex) depends on the needed cells alone, not on
    the order of rows, the file format, or the reading.
    """

    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    rejects: pl.DataFrame
    n_input: int
    n_out_of_scope: int
    ignored: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Failure:
    """One kind of failure: where, what, how often, the first rows, and a value for instance."""

    column: str
    message: str
    count: int
    first_rows: tuple[int, ...]
    example: str


@dataclass(frozen=True)
class CheckReport:
    """What ``tabkit check`` found; ``ok`` where nothing fails."""

    n_rows: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the table fits."""
        return not self.failures


@dataclass(frozen=True)
class _Rule:
    """One thing that may be wrong with a cell: which cells, and what was expected."""

    column: str
    bad: pl.Expr
    message: str


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
    typed, rules = _plan(batch.frame.schema, schema, names, decimal)
    raw = batch.frame.lazy().select(names)
    # Typed columns keep their name; a failing cell's raw text is looked up only where a rule fires.
    flags = [rule.bad.fill_null(False).alias(f"bad:{i}") for i, rule in enumerate(rules)]
    work = raw.with_columns([e.alias(f"typed:{n}") for n, e in typed.items()]).with_columns(flags).collect()
    flag_names = [f"bad:{i}" for i in range(len(rules))]
    bad_row = work.select(pl.any_horizontal(flag_names) if flag_names else pl.lit(False).repeat_by(0))
    failing = bad_row.to_series().to_numpy() if flag_names else np.zeros(work.height, dtype=bool)
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


def _plan(dtypes: pl.Schema, schema: Schema, names: list[str], decimal: str) -> tuple[dict[str, pl.Expr], list[_Rule]]:
    """Return the typing expression of each column, and the rules over ``typed:NAME`` and the raw columns."""
    typed: dict[str, pl.Expr] = {}
    rules: list[_Rule] = []
    for name in names:
        spec = schema.field(name)
        assert spec is not None, f"'{name}' is not described by schema {schema.name}"
        present, value = _typed(name, dtypes[name], spec, schema, decimal)
        typed[name] = value
        if spec.type != "string":
            expected = f"expected {_A[spec.type]}" + (f" like {spec.format}" if spec.format else "")
            rules.append(_Rule(name, present & value.is_null(), expected))
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
            pl.when(column.is_in([float(c) for c in spec.missing if not isinstance(c, str)]))
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
            return pl.when(lower.is_in(_TRUE)).then(True).when(lower.is_in(_FALSE)).then(False).otherwise(None)
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


def _constraint_rules(name: str, spec: Field, present: pl.Expr) -> list[_Rule]:
    value, limits = pl.col(f"typed:{name}"), spec.constraints
    unit = f" {spec.unit}" if spec.unit else ""
    rules = []
    if limits.required:
        rules.append(_Rule(name, ~present, "expected a value (required), found none"))
    if limits.minimum is not None:
        rules.append(_Rule(name, value < limits.minimum, f"expected at least {limits.minimum}{unit}"))
    if limits.maximum is not None:
        rules.append(_Rule(name, value > limits.maximum, f"expected at most {limits.maximum}{unit}"))
    if limits.pattern is not None:
        rules.append(_Rule(name, ~value.str.contains(limits.pattern), f"expected text matching {limits.pattern}"))
    if limits.enum is not None:
        allowed = ", ".join(map(str, limits.enum[:12]))
        rules.append(_Rule(name, ~value.is_in(limits.enum), f"expected one of {allowed}"))
    return rules


def derive(frame: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Add the recipe's derived columns, in order; a later one may use an earlier one."""
    for name, sql in recipe.derived.items():
        value = pl.sql_expr(sql)
        frame = frame.with_columns(value.alias(name))
        if frame[name].dtype.is_numeric() and not frame[name].dtype.is_float():
            frame = frame.with_columns(pl.col(name).cast(pl.Float64))
    return frame


def check_derived(plan: Plan, frame: pl.DataFrame) -> None:
    """Check that each derived column reads known columns, never the target, and one row at a time.

    Raises
    ------
    UsageError
        Naming the recipe's key, what is wrong, and the nearest column.
    """
    seen = [c for c in frame.columns if c not in plan.recipe.derived]
    sample = frame.select(seen).head(_ROWWISE_SAMPLE)
    for name, sql in plan.recipe.derived.items():
        place = f"{plan.path}: [derived] key '{name}'"
        expression = _sql(sql, place)
        for column in expression.meta.root_names():
            spec = plan.schema.field(column)
            if column == plan.recipe.target or (spec is not None and spec.known == "at_outcome"):
                raise UsageError(
                    f"{place} uses '{column}', which is only known at the outcome. Derive from what is known before."
                )
            if column not in sample.columns:
                raise UsageError(f"{place} uses '{column}', which is no column here.{nearest(column, sample.columns)}")
        whole = _select(sample, expression, name, place)
        alone = [_select(sample[i : i + 1], expression, name, place) for i in range(sample.height)]
        if whole.height != sample.height or (alone and not pl.concat(alone, how="vertical_relaxed").equals(whole)):
            raise UsageError(
                f"{place} ({sql}) depends on other rows. Expected an expression over one row: scoring sees rows one by one."
            )
        sample = sample.with_columns(whole[name])


def matches(frame: pl.DataFrame, condition: str, place: str) -> pl.Series:
    """Return which rows meet a Polars SQL condition; null is no match.

    Raises
    ------
    UsageError
        The condition does not parse, or names a column that is not there.
    """
    expression = _sql(condition, place)
    for column in expression.meta.root_names():
        if column not in frame.columns:
            raise UsageError(
                f"{place}: '{condition}' uses '{column}', which is no column here.{nearest(column, frame.columns)}"
            )
    found = _select(frame, expression, "match", place)["match"]
    if found.dtype != pl.Boolean:
        raise UsageError(
            f"{place}: '{condition}' gives {found.dtype}. Expected a condition, such as term = 'a' or x > 3."
        )
    return found.fill_null(False)


def _sql(text: str, place: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except PolarsError as problem:
        raise UsageError(
            f"{place}: '{text}' is not an SQL expression Polars knows ({str(problem).splitlines()[0]})."
        ) from None


def _select(frame: pl.DataFrame, expression: pl.Expr, name: str, place: str) -> pl.DataFrame:
    try:
        return frame.select(expression.alias(name))
    except PolarsError as problem:
        raise UsageError(
            f"{place} cannot be evaluated ({str(problem).splitlines()[0]}). Check the types of its columns."
        ) from None


def needed_columns(plan: Plan, for_target: bool, features: Iterable[str] | None = None) -> list[str]:
    """Return the schema's columns that must be read, in the schema's order where it states one.

    Parameters
    ----------
    for_target
        Whether the target, the value's and the slices' columns and the splitting roles are needed too: not for scoring.
    features
        The features in use; all that the recipe allows where None (field patterns are then not expanded).
    """
    recipe = plan.recipe
    wanted = set(features) if features is not None else {c for c in plan.schema.fields if plan.is_feature(c)}
    conditions = [recipe.where]
    if recipe.id is not None:
        wanted.add(recipe.id)
    if for_target:
        wanted |= set(plan.roles)
        # Payoffs and slices may read columns that are no features.
        if recipe.value is not None:
            conditions += [recipe.value.acted, recipe.value.not_acted, recipe.value.payoff]
        conditions += [s.where for s in recipe.slices]
        conditions.append(recipe.source.where if recipe.source else None)
    texts = [sql for sql in conditions if sql is not None]
    for name in reversed(list(recipe.derived)):
        if name in wanted or any(name in _roots(t, plan) for t in texts) or for_target:
            texts.append(recipe.derived[name])
    for text in texts:
        wanted |= _roots(text, plan)
    wanted -= {*recipe.derived, "prediction"}
    order = {name: i for i, name in enumerate(plan.schema.fields)}
    return sorted(wanted, key=lambda c: (order.get(c, len(order)), c))


def _roots(sql: str, plan: Plan) -> set[str]:
    return set(_sql(sql, str(plan.path)).meta.root_names())


def read_table(plan: Plan, source: Input, where: str | None, need_target: bool = True) -> Table:
    """Read, type, check and derive all rows.

    Parameters
    ----------
    where
        The rows in scope, as a Polars SQL condition; all where None.

    Raises
    ------
    DataError
        A needed column is missing, or more rows are rejected than the recipe allows; the exception then carries
        the rejects table as ``rejects``.
    """
    patterned = [c for c in source.columns if c not in plan.schema.fields and plan.is_feature(c)]
    needed = [c for c in needed_columns(plan, need_target) if plan.schema.field(c) is not None]
    for text in needed_columns(plan, need_target):
        if plan.schema.field(text) is None:
            raise UsageError(
                f"{plan.path} uses the column '{text}', which {plan.schema_path} does not describe.{nearest(text, plan.schema.fields)}"
            )
    for column in needed:
        if column not in source.columns:
            raise DataError(
                f"{source.name}: column '{column}' is missing, and recipe {plan.recipe.name} needs it.{nearest(column, source.columns)}"
            )
    columns = list(dict.fromkeys([*needed, *patterned]))
    frames, rows, rejects, n_input = [], [], [], 0
    for batch in source.batches(CHUNK_ROWS):
        fitted = conform(batch, plan.schema, columns, source.decimal)
        frames.append(fitted.frame)
        rows.append(fitted.rows)
        rejects += [batch.malformed, fitted.rejects]
        n_input += len(batch.rows) + batch.malformed.height
    if not frames:
        raise DataError(f"{source.name} has no rows. Expected at least one row of data.")
    frame, numbers, bad = pl.concat(frames), np.concatenate(rows), pl.concat(rejects).sort("row", maintain_order=True)
    n_bad = bad["row"].n_unique() if bad.height else 0
    if n_bad > plan.recipe.max_rejected * n_input:
        raise _too_many(plan, source, bad, n_bad, n_input)
    check_derived(plan, frame)
    frame = derive(frame, plan.recipe)
    fingerprint = _fingerprint(frame.select(columns))
    before = frame.height
    if where is not None:
        inside = matches(frame, where, f"{plan.path}: where")
        frame, numbers = frame.filter(inside), numbers[inside.to_numpy()]
        if frame.height == 0:
            raise DataError(
                f"{source.name}: none of {before:,} rows meets the recipe's condition {where}. Check its values."
            )
    ignored = tuple(c for c in source.columns if c not in columns)
    return Table(frame, numbers, bad, n_input, before - frame.height, ignored, fingerprint)


def _too_many(plan: Plan, source: Input, bad: pl.DataFrame, n_bad: int, n_input: int) -> DataError:
    kinds = (
        bad.group_by("column", "reason")
        .agg(pl.len(), pl.col("row").first(), pl.col("value").first())
        .sort("len", descending=True)
    )
    shown = "; ".join(
        f"column '{k['column']}': {k['reason']} ({count(k['len'], 'row')}, first row {k['row']}: {k['value'][:40]!r})"
        for k in kinds.head(3).to_dicts()
    )
    problem = DataError(
        f"{source.name}: {n_bad:,} of {n_input:,} rows do not fit schema {plan.schema.name}, more than max_rejected = "
        f"{plan.recipe.max_rejected:g} allows. {shown}. Mend the data or the schema ({plan.schema_path})."
    )
    problem.rejects = bad  # type: ignore[attr-defined]
    return problem


def _fingerprint(frame: pl.DataFrame) -> str:
    """Hash the cells, rows sorted by their own text, so that order and format do not matter."""
    text = frame.select(sorted(frame.columns)).select(pl.all().cast(pl.String).fill_null("\x00"))
    lines = text.select(pl.concat_str(pl.all(), separator="\x1f").alias("line"))["line"].sort()
    digest = hashlib.sha256("\x1e".join(sorted(frame.columns)).encode())
    for start in range(0, len(lines), 50_000):
        digest.update("\x1e".join(lines[start : start + 50_000].to_list()).encode())
        digest.update(b"\x1e")
    return digest.hexdigest()


def check(plan: Plan, source: Input) -> CheckReport:
    """Check a table against a recipe's schema: every kind of failure with its count and first rows.

    All rules of a batch are evaluated in one lazy Polars pass.
    """
    described = [c for c in source.columns if plan.schema.field(c) is not None]
    needed = [c for c in needed_columns(plan, for_target=True) if c not in source.columns]
    failures = [
        Failure(c, f"column is missing, and the recipe needs it.{nearest(c, source.columns)}", 0, (), "")
        for c in needed
    ]
    notes = []
    unknown = [c for c in source.columns if c not in described]
    if unknown:
        notes.append(
            f"{count(len(unknown), 'column')} not described by the schema, ignored: {', '.join(unknown[:10])}."
        )
    found: dict[tuple[str, str], tuple[int, list[int], str]] = {}
    seen: dict[str, list[pl.Series]] = {c: [] for c in described if _spec(plan, c).constraints.unique}
    present = dict.fromkeys(described, 0)
    target: set[str] = set()
    n_rows = 0
    for batch in source.batches(CHUNK_ROWS):
        n_rows += len(batch.rows) + batch.malformed.height
        for line in batch.malformed.to_dicts():
            _note(found, "", line["reason"], [line["row"]], line["value"])
        typed, rules = _plan(batch.frame.schema, plan.schema, described, source.decimal)
        lazy = batch.frame.lazy().select(described).with_columns([e.alias(f"typed:{n}") for n, e in typed.items()])
        summary = [pl.col(f"typed:{n}").is_not_null().sum().alias(f"present:{n}") for n in described]
        summary += [
            rule.bad.fill_null(False).arg_true().head(_FIRST_ROWS).implode().alias(f"at:{i}")
            for i, rule in enumerate(rules)
        ]
        summary += [rule.bad.fill_null(False).sum().alias(f"n:{i}") for i, rule in enumerate(rules)]
        counted = lazy.select(summary).collect()
        for n in described:
            present[n] += int(counted[f"present:{n}"][0])
        for i, rule in enumerate(rules):
            if counted[f"n:{i}"][0]:
                at = counted[f"at:{i}"][0].to_list()
                _note(
                    found,
                    rule.column,
                    rule.message,
                    [int(batch.rows[k]) for k in at],
                    str(batch.frame[rule.column][at[0]]),
                    int(counted[f"n:{i}"][0]),
                )
        wanted = [*seen, *([plan.recipe.target] if plan.recipe.target in described else [])]
        values = lazy.select([pl.col(f"typed:{n}").alias(n) for n in dict.fromkeys(wanted)]).collect()
        for c in seen:
            seen[c].append(values[c])
        if plan.recipe.target in described and len(target) < 1000:
            target |= set(values[plan.recipe.target].drop_nulls().cast(pl.String).unique())
    failures += [Failure(c, m, n, tuple(rows), example) for (c, m), (n, rows, example) in found.items()]
    for c, parts in seen.items():
        whole = pl.concat(parts)
        repeated = whole.is_duplicated() & whole.is_not_null()
        if repeated.any():
            at = repeated.arg_true()
            failures.append(
                Failure(
                    c,
                    "expected every value once (unique)",
                    int(repeated.sum()),
                    tuple(at.head(_FIRST_ROWS)),
                    str(whole[int(at[0])]),
                )
            )
    for c in described:
        if n_rows and present[c] == 0:
            if c == plan.recipe.target:
                failures.append(Failure(c, "no value in any row", n_rows, (), ""))
            else:
                notes.append(f"column '{c}' has no value in any row.")
    if plan.recipe.target in described and len(target) == 1:
        failures.append(
            Failure(
                plan.recipe.target,
                "the target has one value only: nothing can be learned",
                n_rows,
                (),
                next(iter(target)),
            )
        )
    return CheckReport(n_rows, tuple(failures), tuple(notes))


def _spec(plan: Plan, column: str) -> Field:
    spec = plan.schema.field(column)
    assert spec is not None
    return spec


def _note(
    found: dict[tuple[str, str], tuple[int, list[int], str]],
    column: str,
    message: str,
    rows: list[int],
    example: str,
    n: int = 1,
) -> None:
    count_, first, kept = found.get((column, message), (0, [], example))
    found[(column, message)] = (count_ + n, (first + rows)[:_FIRST_ROWS], kept)
