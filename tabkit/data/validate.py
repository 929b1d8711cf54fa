"""From an opened input to typed rows in scope, with an account of all others; and ``tabkit check``.

A row with any failing cell in a needed column is left out, with one line per cell in the rejects:
rows in = rows kept + rows rejected, always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PolarsError

from tabkit.data.cells import reads_what_it_writes
from tabkit.data.conform import conform, dtype_of, type_cells
from tabkit.data.derive import check_by_row, check_derived, derive, matches, outcome, parse_sql
from tabkit.data.frames import values_of
from tabkit.data.marks import Marks, hashed, marking
from tabkit.data.source import REJECTS, Input, RawBatch
from tabkit.errors import DataError, UsageError, count, nearest
from tabkit.recipe import Plan
from tabkit.schema import Field

CHUNK_ROWS = 200_000

_FIRST_ROWS = 5

_UNDATED = "has no time, and the split is by time: left out of the run"

_EVENT = "[censoring] key 'event'"

_PAYOFF = "[value] key 'payoff'"
"""Only here, ``prediction`` is what the model says; everywhere else it is a column like any other."""


class RejectedRows(DataError):
    """More rows do not fit the schema than the recipe allows; ``rejects`` has a line for each failing cell."""

    def __init__(self, message: str, rejects: pl.DataFrame) -> None:
        super().__init__(message)
        self.rejects = rejects


@dataclass(frozen=True)
class Table:
    """Typed rows in scope, derived columns included, and an account of all others.

    ``rows`` are row numbers in the input. ``fingerprint`` (SHA-256, hex) depends only on the needed cells, not on
    the order of rows, the file format, or the reading. By its ``marks``, if asked for, a row is recognised elsewhere.
    """

    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    rejects: pl.DataFrame
    n_input: int
    n_out_of_scope: int
    ignored: tuple[str, ...]
    fingerprint: str
    marks: Marks | None = None


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
    """What ``tabkit check`` found; ``ok`` if nothing fails."""

    n_rows: int
    failures: tuple[Failure, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether the table fits."""
        return not self.failures


def needed_columns(plan: Plan, for_target: bool, features: Iterable[str] | None = None) -> list[str]:
    """Return the schema's columns that must be read, in the schema's order if it states one.

    Parameters
    ----------
    for_target
        Whether the target, the value's and the slices' columns and the splitting roles are needed too: not for scoring.
    features
        The features in use; all that the recipe allows if None (field patterns are then not expanded).
    """
    recipe = plan.recipe
    texts = {place: sql for place, sql in _expressions(plan).items() if for_target or place == "where"}
    wanted = set(features) if features is not None else {c for c in plan.schema.fields if plan.is_feature(c)}
    if recipe.ranking is not None:  # of events, only columns with a role are looked at
        wanted = set()
    if recipe.id is not None:
        wanted.add(recipe.id)
    if for_target:
        wanted |= set(plan.roles)
        if recipe.target_from is not None:
            wanted -= {recipe.target}
    for name in reversed(list(recipe.derived)):
        if name in wanted or any(name in _roots(sql, plan, place) for place, sql in texts.items()):
            texts[f"[derived] key '{name}'"] = recipe.derived[name]
    for place, sql in texts.items():
        roots = _roots(sql, plan, place)
        wanted |= roots - {"prediction"} if place == _PAYOFF else roots
    wanted -= set(recipe.derived)
    order = {name: i for i, name in enumerate(plan.schema.fields)}
    return sorted(wanted, key=lambda c: (order.get(c, len(order)), c))


def _expressions(plan: Plan) -> dict[str, str]:
    """Return every SQL text of the recipe by the place where it stands; payoffs and slices may read any column."""
    recipe = plan.recipe
    texts: dict[str, str | None] = {"where": recipe.where, "outcome": recipe.outcome}
    if recipe.censoring is not None:
        texts[_EVENT] = recipe.censoring.event
    for i, source in enumerate(recipe.sources, start=1):
        texts["[source] key 'where'" if len(recipe.sources) == 1 else f"[[source]] number {i}, key 'where'"] = (
            source.where
        )
    texts |= {f"[derived] key '{name}'": sql for name, sql in recipe.derived.items()}
    if recipe.value is not None:
        texts |= {f"[value] key '{key}'": getattr(recipe.value, key) for key in ("acted", "not_acted", "payoff")}
    texts |= {f"[[slices]] '{s.name}' key 'where'": s.where for s in recipe.slices}
    return {place: sql for place, sql in texts.items() if sql is not None}


def _roots(sql: str, plan: Plan, place: str) -> set[str]:
    return set(parse_sql(sql, f"{plan.path}: {place}").meta.root_names())


def _check_expressions(plan: Plan) -> None:
    """Check that every SQL text parses and names described or derived columns only, and what fields say of texts."""
    for table, described in (("fields", plan.schema.fields), ("patterns", plan.schema.patterns)):
        for name, spec in described.items():
            _check_field(spec, f"{plan.schema_path}: table [{table}.{name}]")
    known = [*plan.schema.fields, *plan.recipe.derived]
    for place, sql in _expressions(plan).items():
        here = [*known, "prediction"] if place == _PAYOFF else known
        for column in sorted(_roots(sql, plan, place)):
            if column not in here and plan.schema.field(column) is None:
                raise UsageError(
                    f"{plan.path}: {place} uses '{column}', which {plan.schema_path} does not describe.{nearest(column, here)}"
                )
            if place == _EVENT and plan.is_feature(column):
                raise UsageError(
                    f"{plan.path}: {place} uses '{column}', which is a feature, and is only known when follow-up ends. Set "
                    f'known = "at_outcome" for it in {plan.schema_path}, or put it under exclude.'
                )


def _check_field(spec: Field, place: str) -> None:
    """Check what only Polars can tell: that it can match by a field's pattern, and read what its format writes."""
    pattern = spec.constraints.pattern
    try:
        pl.Series([""]).str.contains(pattern or "")
    except PolarsError:
        raise UsageError(
            f"{place}, key 'constraints.pattern': {pattern!r} cannot be used to match. Expected a regular expression "
            "without look-around and references to groups."
        ) from None
    if spec.format is not None and not reads_what_it_writes(spec):
        raise UsageError(
            f"{place}, key 'format': {spec.format!r} reads no {spec.type}. Expected strptime's, with the year: such as "
            + {"date": "'%d/%m/%Y'."}.get(spec.type, "'%d/%m/%Y %H:%M'.")
        )


def read_table(
    plan: Plan,
    source: Input,
    where: str | None,
    *,
    absent: frozenset[str] = frozenset(),
    also: frozenset[str] = frozenset(),
    marked: bool = False,
) -> Table:
    """Read, type, check and derive all rows.

    Parameters
    ----------
    where
        The rows in scope, as a Polars SQL condition; all if None.
    absent
        Columns that may be absent, as in a source of other columns; they are then missing in every row.
    also
        Columns that are read too if the schema describes them.
    marked
        Whether the rows are to be recognised in other tables.

    Raises
    ------
    DataError
        A needed column is missing, or, as :class:`RejectedRows`, more rows are rejected than the recipe allows.
    """
    _check_expressions(plan)
    patterned = [c for c in source.columns if c not in plan.schema.fields and plan.is_feature(c)]
    patterned += [c for c in source.columns if c in also and plan.schema.field(c) is not None]
    needed = [c for c in needed_columns(plan, for_target=True) if c not in absent]
    for column in needed:
        if column not in source.columns:
            raise DataError(
                f"{source.name}: column '{column}' is missing, and recipe {plan.recipe.name} needs it.{nearest(column, source.columns)}"
            )
    columns = list(dict.fromkeys([*needed, *patterned]))
    frames, rows, rejects, n_input = [], [], [], 0
    by: list[str] = []
    cells = []
    for batch in source.batches(CHUNK_ROWS):
        fitted = conform(batch, plan.schema, columns, _classed(plan), _amounts(plan))
        frames.append(fitted.frame)
        rows.append(fitted.rows)
        rejects += [batch.malformed, fitted.rejects]
        n_input += len(batch.rows) + batch.malformed.height
        if marked:
            by = by or marking(batch.frame)
            cells.append((batch.rows, np.column_stack([hashed(values_of(batch.frame, c)) for c in by])))
    if not frames:
        raise DataError(f"{source.name} has no rows. Expected at least one row of data.")
    frame, numbers, bad = pl.concat(frames), np.concatenate(rows), pl.concat(rejects).sort("row", maintain_order=True)
    n_bad = bad["row"].n_unique() if bad.height else 0
    if n_bad > plan.recipe.max_rejected * n_input:
        raise _too_many(plan, source, bad, n_bad, n_input)
    fingerprint = fingerprint_of(frame)
    frame = frame.with_columns(pl.lit(None, dtype=dtype_of(_spec(plan, c))).alias(c) for c in sorted(absent))
    check_derived(plan, frame)
    frame = outcome(derive(frame, plan.recipe), plan)
    before = frame.height
    if where is not None:
        inside = matches(frame, where, f"{plan.path}: where")
        check_by_row(frame, parse_sql(where, f"{plan.path}: where"), f"{plan.path}: where")
        frame, numbers = frame.filter(inside), numbers[inside.to_numpy()]
        if frame.height == 0:
            raise DataError(
                f"{source.name}: none of {before:,} rows meets the recipe's condition {where}. Check its values."
            )
    ignored = tuple(c for c in source.columns if c not in columns)
    marks = Marks.of(by, cells) if marked else None
    return Table(frame, numbers, bad, n_input, before - frame.height, ignored, fingerprint, marks)


def without_undated(table: Table, plan: Plan, name: str) -> Table:
    """Set apart the rows without a time if the split is by time: they are neither before nor after any other.

    They count as rejected, with the reason, but not towards what a recipe allows: nothing is wrong with them.
    """
    time = plan.recipe.time
    if time is None or not cuts_by_time(plan) or not values_of(table.frame, time).null_count():
        return table
    undated = values_of(table.frame, time).is_null()
    rows = table.rows[undated.to_numpy()]
    n = len(rows)
    lines = pl.DataFrame(
        {"file": [name] * n, "row": rows, "column": [time] * n, "value": [""] * n, "reason": [_UNDATED] * n},
        schema=REJECTS,
    )
    rejects = pl.concat([table.rejects, lines]).sort("row", maintain_order=True)
    return replace(table, frame=table.frame.filter(~undated), rows=table.rows[~undated.to_numpy()], rejects=rejects)


def cuts_by_time(plan: Plan) -> bool:
    """Tell whether a run cuts the table by time, which every row must then have."""
    recipe = plan.recipe
    return recipe.task != "ranking" and recipe.time is not None and recipe.split.kind in (None, "temporal")


def _too_many(plan: Plan, source: Input, bad: pl.DataFrame, n_bad: int, n_input: int) -> RejectedRows:
    kinds = (
        bad.group_by("column", "reason")
        .agg(pl.len(), pl.col("row").first(), pl.col("value").first())
        .sort("len", descending=True)
    )
    shown = "; ".join(
        f"column '{k['column']}': {k['reason']} ({count(k['len'], 'row')}, first row {k['row']}: {k['value'][:40]!r})"
        for k in kinds.head(3).to_dicts()
    )
    return RejectedRows(
        f"{source.name}: {n_bad:,} of {n_input:,} rows do not fit schema {plan.schema.name}, more than max_rejected = "
        f"{plan.recipe.max_rejected:g} allows. {shown}. Fix the data or the schema ({plan.schema_path}).",
        bad,
    )


def fingerprint_of(frame: pl.DataFrame) -> str:
    """Hash the cells, rows sorted by their own text, so that order and format do not matter."""
    text = frame[sorted(frame.columns)].select(pl.all().cast(pl.String).fill_null("\x00"))
    lines = text.select(pl.concat_str(pl.all(), separator="\x1f").alias("line"))["line"].sort()
    digest = hashlib.sha256("\x1e".join(sorted(frame.columns)).encode())
    for start in range(0, len(lines), 50_000):
        digest.update("\x1e".join(lines[start : start + 50_000].to_list()).encode())
        digest.update(b"\x1e")
    return digest.hexdigest()


def check(plan: Plan, source: Input) -> CheckReport:
    """Check a table against a recipe's schema: every kind of failure with its count and first rows.

    The rules of a batch are evaluated in one lazy Polars pass.
    """
    _check_expressions(plan)
    described = [c for c in source.columns if plan.schema.field(c) is not None]
    tally = _Tally(plan, described)
    for batch in source.batches(CHUNK_ROWS):
        tally.add(batch)
    failures = [
        Failure(c, f"column is missing, and the recipe needs it.{nearest(c, source.columns)}", 0, (), "")
        for c in needed_columns(plan, for_target=True)
        if c not in source.columns
    ]
    failures += [*tally.failures(), *tally.repeats()]
    notes = []
    unknown = [c for c in source.columns if c not in described]
    if unknown:
        notes.append(
            f"{count(len(unknown), 'column')} not described by the schema, ignored: {', '.join(unknown[:10])}."
        )
    target = plan.recipe.target
    n_cut = tally.n_rows - tally.n_malformed
    for c in described:
        if c == plan.recipe.time and cuts_by_time(plan) and 0 < tally.present[c] < n_cut:
            notes.append(f"{count(n_cut - tally.present[c], 'row')} without a value in '{c}': {_UNDATED}.")
        if tally.n_rows and tally.present[c] == 0:
            if c == target:
                failures.append(Failure(c, "no value in any row", tally.n_rows, (), ""))
            else:
                notes.append(f"column '{c}' has no value in any row.")
    if len(tally.target_values) == 1:
        message = "the target has one value only: nothing can be learned"
        failures.append(Failure(target, message, tally.n_rows, (), next(iter(tally.target_values))))
    return CheckReport(tally.n_rows, tuple(failures), tuple(notes))


class _Tally:
    """The sums of one pass over the batches of a table.

    Attributes
    ----------
    present
        Number of values by column.
    target_values
        Different values of the target; the count stops soon after 1,000.
    """

    def __init__(self, plan: Plan, columns: list[str]) -> None:
        self._plan, self._columns = plan, columns
        self.n_rows = self.n_malformed = 0
        self.present = dict.fromkeys(columns, 0)
        self.target_values: set[str] = set()
        self._failures: dict[tuple[str, str], Failure] = {}
        self._unique: dict[str, list[pl.Series]] = {c: [] for c in columns if _spec(plan, c).constraints.unique}
        self._rows: list[npt.NDArray[np.int64]] = []

    def add(self, batch: RawBatch) -> None:
        """Count what one batch holds."""
        self.n_rows += len(batch.rows) + batch.malformed.height
        self.n_malformed += batch.malformed.height
        for line in batch.malformed.to_dicts():
            self._note(Failure("", line["reason"], 1, (line["row"],), line["value"]))
        target, schema = self._plan.recipe.target, self._plan.schema
        cells, rules = type_cells(batch.frame, schema, self._columns, _classed(self._plan), _amounts(self._plan))
        bad = [rule.bad.fill_null(False) for rule in rules]
        counts = cells.lazy().select(
            *(flags.arg_true().head(_FIRST_ROWS).implode().alias(f"at:{i}") for i, flags in enumerate(bad)),
            *(flags.sum().alias(f"n:{i}") for i, flags in enumerate(bad)),
        )
        found = counts.collect()
        for name in self._columns:
            self.present[name] += cells.height - cells[f"typed:{name}"].null_count()
        for i, rule in enumerate(rules):
            if n_bad := int(found[f"n:{i}"][0]):
                at = found[f"at:{i}"][0].to_list()
                rows = tuple(int(batch.rows[k]) for k in at)
                example = str(batch.frame[rule.column][at[0]])
                self._note(Failure(rule.column, rule.message, n_bad, rows, example))
        asked = [c for c in self._columns if c == target and len(self.target_values) < 1000]
        for c in asked:
            self.target_values |= set(values_of(cells, f"typed:{c}").drop_nulls().cast(pl.String).unique())
        for c in self._unique:
            self._unique[c].append(values_of(cells, f"typed:{c}"))
        if self._unique:
            self._rows.append(batch.rows)

    def failures(self) -> list[Failure]:
        """Return the cells and rows that do not fit, by column and message."""
        return list(self._failures.values())

    def repeats(self) -> list[Failure]:
        """Return the columns that must not repeat a value, and do."""
        out = []
        for c, parts in self._unique.items():
            whole = pl.concat(parts)
            at = (whole.is_duplicated() & whole.is_not_null()).arg_true()
            if len(at):
                rows = tuple(np.concatenate(self._rows)[at.head(_FIRST_ROWS).to_numpy()].tolist())
                out.append(Failure(c, "expected every value once (unique)", len(at), rows, str(whole[int(at[0])])))
        return out

    def _note(self, failure: Failure) -> None:
        key = (failure.column, failure.message)
        if (so_far := self._failures.get(key)) is not None:
            rows = (*so_far.first_rows, *failure.first_rows)[:_FIRST_ROWS]
            failure = replace(so_far, count=so_far.count + failure.count, first_rows=rows)
        self._failures[key] = failure


def _classed(plan: Plan) -> str | None:
    """Return the column whose texts are classes: the target of a table; that of lists is an item."""
    return plan.recipe.target if plan.recipe.task != "ranking" else None


def _amounts(plan: Plan) -> dict[str, str]:
    """Return the columns whose numbers must be finite and from 0 on, with their role."""
    return {column: role for column, role in plan.roles.items() if role in ("weight", "follow-up")}


def _spec(plan: Plan, column: str) -> Field:
    spec = plan.schema.field(column)
    assert spec is not None
    return spec
