"""``tabkit new``: a schema and a recipe inferred from a table. Both run as they are, and say what was noticed.

Every guess stands in the written files as a comment beside the line it concerns, so that a person can check it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tabkit.data.encode import as_text, fit_encoder
from tabkit.data.single import LEAK_SCORE, single_feature_scores
from tabkit.data.source import Input, open_input
from tabkit.data.validate import conform
from tabkit.errors import DataError, UsageError, count, nearest
from tabkit.schema import Dialect, Field, Schema

MOST_ROWS = 200_000
"""Rows looked at: enough to see a table's ways, whatever its size."""

LEAK_ROWS = 20_000
"""Rows, drawn from those looked at, on which single columns are tried for a leak."""

MOST_CLASSES = 20
FEW_ROWS_PER_CLASS = 8
"""Below this, a class may miss a part of the split altogether."""

MISSING_CODES = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-", "--", ".", "n/a", "#N/A")
SENTINELS = (-9999.0, -999.0, -99.0, 999.0, 9999.0, 99999.0)
DATE_FORMATS = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y")
MOMENT_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M")
POSITIVE_NAMES = {
    "true", "yes", "y", "t", "bad", "churn", "churned", "default", "defaulted", "fraud", "positive", "pos", "dead",
    "died", "failed", "failure", "event", "case", "malignant", "sick", "disease", "returned", "spam", "won", "buy", "bought",
}  # fmt: skip
_SENSITIVE = re.compile(r"(^|_)(age|sex|gender|race|ethnic\w*|religion|nationality|marital\w*|disab\w*)(_|$)", re.I)
_ROW_NAMES = re.compile(r"^(unnamed: ?\d+|rownames?|row_?(id|num|number|index)|index|)$", re.I)
# Upper-case PAID or VALID is no id: without a separator, only userId and userID are read as one.
_ID_NAME = re.compile(r"(^|[_\W])(?i:id|key|code|number|no|nr|uuid|guid)$|[a-z]I[dD]$")
_GROUP_NAME = re.compile(r"(^|_)(id|customer|client|patient|user|household|store|site|field|plot|group)(_|$)", re.I)
_DEFAULT_METRICS = {
    "binary": ("roc_auc", ["pr_auc", "log_loss", "brier", "ks", "gini", "fpr_at_80_recall"]),
    "multiclass": ("log_loss", ["accuracy", "balanced_accuracy", "macro_roc_auc"]),
    "regression": ("rmse", ["mae", "r2"]),
}


@dataclass(frozen=True)
class Draft:
    """What was written, and what was noticed on the way."""

    recipe_path: Path
    schema_path: Path
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Column:
    """A column as it will be written: its field, and the comments that stand above it.

    ``excluded`` is the reason why it is no feature; empty where it is one.
    """

    name: str
    spec: Field
    missing: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    excluded: str = ""
    unique: bool = False
    mixed: bool = False


@dataclass
class _Table:
    """The rows looked at, typed, and how they were found."""

    source: Input
    columns: dict[str, _Column]
    frame: pl.DataFrame
    n_rows: int
    whole: bool
    dialect: Dialect
    remarks: list[str]


@dataclass(frozen=True)
class _Roles:
    """The columns with a role."""

    target: str
    id: str | None
    time: str | None
    group: str | None

    @property
    def taken(self) -> set[str]:
        return {c for c in (self.target, self.id, self.time, self.group) if c is not None}


def new(
    name: str,
    data: str | Path,
    target: str,
    *,
    task: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    folder: str | Path = ".",
) -> Draft:
    """Write ``folder/domains/VERTICAL/NAME.toml`` and ``folder/data_schemas/NAME.toml`` from a table.

    Parameters
    ----------
    name
        ``vertical/name``, in lower case.
    task
        binary, multiclass or regression; from the target's values where None.
    id, time, group
        Columns with a role. An id is found where every row has its own value; time and group are yours to name.

    Raises
    ------
    UsageError
        A bad name or task, an unknown column, one column in two roles, or a file that exists already.
    DataError
        The table cannot be read, or its target cannot be learned.
    """
    if not re.fullmatch(r"[a-z0-9_]+/[a-z][a-z0-9_]*", name):
        raise UsageError(f"'{name}' is no recipe name. Expected VERTICAL/NAME in lower case, such as retail/returns.")
    if task is not None and task not in _DEFAULT_METRICS:
        raise UsageError(f"--task '{task}' is unknown.{nearest(task, _DEFAULT_METRICS)}")
    short = name.split("/")[1]
    recipe_path = Path(folder) / "domains" / f"{name}.toml"
    schema_path = Path(folder) / "data_schemas" / f"{short}.toml"
    for path in (recipe_path, schema_path):
        if path.exists():
            raise UsageError(f"{path} exists already and is not overwritten. Choose another name, or remove it.")
    source, dialect = _open(data)
    roles = _Roles(target, id, time, group)
    _check_roles(roles, source)
    table = _look(source, dialect, short, roles)
    task, remarks = _task(table, target, task)
    positive = None
    if task == "binary":
        positive, why = _positive(table, target)
        remarks.append(why)
    if time is not None and not table.frame[time].dtype.is_temporal() and not table.frame[time].dtype.is_numeric():
        raise DataError(
            f"--time '{time}' holds text that is no date. Expected dates (2024-01-31) or numbers that order the rows."
        )
    found, id_notes = _id(table, id, roles.taken)
    roles = replace(roles, id=found)
    _advise(table, roles.taken)
    _suspect_leaks(table, task, roles)
    texts = {
        schema_path: _schema_text(table, short, str(data)),
        recipe_path: _recipe_text(table, name, task, roles, positive, remarks, id_notes),
    }
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as problem:
        raise UsageError(f"{problem.filename} cannot be written ({problem.strerror}). Choose another --dir.") from None
    notes = [*table.remarks]
    notes += [f"{c.name}: {comment}" for c in table.columns.values() for comment in c.comments]
    return Draft(recipe_path, schema_path, tuple(_one_line(note) for note in (*notes, *remarks, *id_notes)))


def _check_roles(roles: _Roles, source: Input) -> None:
    seen: dict[str, str] = {}
    for role, column in (("target", roles.target), ("id", roles.id), ("time", roles.time), ("group", roles.group)):
        if column is None:
            continue
        if column not in source.columns:
            raise UsageError(f"--{role} '{column}' is no column of {source.name}.{nearest(column, source.columns)}")
        if column in seen:
            raise UsageError(
                f"--{seen[column]} and --{role} both name '{column}'. Expected one role a column; give another, or leave --{role} out."
            )
        seen[column] = role


def _open(data: str | Path) -> tuple[Input, Dialect]:
    """Open the table; text in cp1252 is found here, and stated in the schema."""
    try:
        return open_input(data, Dialect()), Dialect()
    except DataError as problem:
        if "is not UTF-8" not in str(problem):
            raise
        stated = Dialect(encoding="cp1252")
        return open_input(data, stated), stated


def _look(source: Input, dialect: Dialect, name: str, roles: _Roles) -> _Table:
    batches, n_rows, whole = [], 0, True
    for batch in source.batches(50_000):
        if n_rows >= MOST_ROWS:
            whole = False
            break
        batches.append(batch)
        n_rows += batch.frame.height
    raw = pl.concat([batch.frame for batch in batches], how="vertical_relaxed")[:MOST_ROWS]
    if raw.height == 0:
        raise DataError(f"{source.name} has no rows to learn from. Expected a header and rows.")
    remarks = []
    for column, dtype in raw.schema.items():
        if _readable(dtype):
            continue
        if column in roles.taken:
            raise DataError(f"Column '{column}' holds {dtype}, and has a role. Expected text, numbers, truth or dates.")
        remarks.append(f"{column}: holds {dtype}, which is not read: left out of the schema")
    raw = raw.select([c for c, dtype in raw.schema.items() if _readable(dtype)])
    columns = {c: _infer(raw[c], source.decimal) for c in raw.columns}
    batch = replace(batches[0], frame=raw, rows=np.arange(raw.height))
    typed = conform(batch, _schema(name, columns), raw.columns, source.decimal)
    assert typed.rejects.is_empty(), f"the types inferred refuse their own cells: {typed.rejects.row(0)}"
    if dialect.encoding:
        remarks.append(f"the file is not UTF-8: read as {dialect.encoding}, and so stated in the schema")
    if source.decimal == "," or source.delimiter not in (",", "\t"):
        dialect = dialect.model_copy(update={"decimal": source.decimal, "delimiter": source.delimiter})
        remarks.append(f"cells are separated by {source.delimiter!r}, and the decimal mark is {source.decimal!r}")
    if not whole or n_rows > MOST_ROWS:
        whole = False
        remarks.append(f"only the first {raw.height:,} rows were looked at; later ones may hold what these do not")
    n_values = typed.frame[roles.target].drop_nulls().n_unique()
    if n_values < 2:
        what = "has no value in any row" if n_values == 0 else "is the same in every row"
        raise DataError(
            f"Target '{roles.target}' {what} of {source.name}: nothing can be learned. Expected two or more values."
        )
    return _Table(source, columns, typed.frame, raw.height, whole, dialect, remarks)


def _readable(dtype: pl.DataType) -> bool:
    simple = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Date, pl.Datetime, pl.Null)
    return simple or dtype.is_numeric()


def _schema(name: str, columns: dict[str, _Column]) -> Schema:
    fields = {c: column.spec.model_copy(update={"missing": list(column.missing)}) for c, column in columns.items()}
    return Schema(name=name, fields=fields)


def _infer(values: pl.Series, decimal: str) -> _Column:
    """Infer one column's type from its values."""
    name, comments, mixed = values.name, [], False
    sensitive = bool(_SENSITIVE.search(name))
    if sensitive:
        comments.append("looks like a personal attribute: marked sensitive, so that the report compares its groups")
    numbers = pl.Series(dtype=pl.Float64)
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String).str.strip_chars()
        guess = _infer_text(text, decimal)
        kind, form, codes, mixed = guess.kind, guess.format, guess.codes, guess.mixed
        is_missing = text.is_in([*MISSING_CODES, *codes]) | text.is_null()
        counts = text.filter(is_missing).fill_null("").value_counts(sort=True, name="n").rows()
        written = " and ".join(f"{code!r} ({n:,})" for code, n in sorted(counts, key=lambda r: (-r[1], r[0])))
        comments += [*_missing_note(int(is_missing.sum()), values.len(), f", written as {written}"), *guess.comments]
        if kind in ("number", "integer"):
            numbers = _to_numbers(text.filter(~is_missing), decimal)
    else:
        kind, form, codes = _infer_typed(values), None, ()
        present = values.drop_nans() if values.dtype.is_float() else values
        comments += _missing_note(values.len() - present.drop_nulls().len(), values.len(), "")
        if kind in ("number", "integer"):
            numbers = values.cast(pl.Float64)
    comments += _sentinel_notes(numbers)
    spec = Field(type=kind, format=form, sensitive=sensitive)  # type: ignore[arg-type]
    unique = values.null_count() == 0 and values.len() > 1 and values.n_unique() == values.len()
    return _Column(name, spec, codes, tuple(comments), unique=unique, mixed=mixed)


def _missing_note(n_missing: int, n_rows: int, written: str) -> list[str]:
    return [f"missing in {n_missing:,} of {n_rows:,} rows ({n_missing / n_rows:.1%}){written}"] if n_missing else []


def _infer_typed(values: pl.Series) -> str:
    dtype = values.dtype
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        # Beyond 64 signed bits a number is a key.
        return "integer" if values.cast(pl.Int64, strict=False).null_count() == values.null_count() else "string"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Date:
        return "date"
    return "datetime" if dtype == pl.Datetime else "string"


_SWAPPED = "no day is above 12, so days and months could be swapped: if the month comes first, set format to %m/%d/%Y"


@dataclass(frozen=True)
class _Guess:
    """What a text column holds; ``codes`` are missing codes beyond the schema's own."""

    kind: str
    format: str | None = None
    codes: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    mixed: bool = False


def _infer_text(text: pl.Series, decimal: str) -> _Guess:
    defaults = set(Schema.model_fields["missing"].default)
    rest = text.filter(~text.is_in(list(MISSING_CODES))).drop_nulls()
    codes = tuple(sorted(set(text.filter(text.is_in(list(MISSING_CODES))).unique()) - defaults))
    if rest.is_empty():
        return _Guess("string", codes=codes)
    if set(rest.str.to_lowercase().unique()) <= {"true", "false"}:
        return _Guess("boolean", codes=codes)
    # 007, phone numbers and keys of more than 18 digits are names, not quantities.
    if rest.str.contains(r"^[+-]?\d+$").all() and rest.str.contains(r"^0\d|^[+-]?\d{19,}$").any():
        return _Guess("string", None, codes, ("digits with leading zeros or too many for a number: kept as text",))
    eight = rest.str.contains(r"^(19|20)\d{6}$").all()
    if eight and rest.n_unique() > 1 and rest.str.strptime(pl.Date, "%Y%m%d", strict=False).null_count() == 0:
        return _Guess("date", "%Y%m%d", codes)
    numbers = _to_numbers(rest, decimal)
    if numbers.null_count() == 0:
        whole = rest.str.contains(r"^[+-]?\d{1,18}$").all()
        return _Guess("integer" if whole else "number", codes=codes)
    for kind, formats in (("date", DATE_FORMATS), ("datetime", MOMENT_FORMATS)):
        dtype = pl.Date if kind == "date" else pl.Datetime("us")
        fits = [f for f in formats if rest.str.strptime(dtype, f, strict=False).null_count() == 0]
        if fits:
            default = fits[0] in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
            both = [f for f in fits if f in ("%d/%m/%Y", "%m/%d/%Y")]
            comments = (_SWAPPED,) if len(both) == 2 else ()
            return _Guess(kind, None if default else fits[0], codes, comments)
    return _mostly_numbers(rest, numbers, codes)


def _mostly_numbers(rest: pl.Series, numbers: pl.Series, codes: tuple[str, ...]) -> _Guess:
    """Judge text among numbers: a single word that comes back means missing; anything else is for a person."""
    words = rest.filter(numbers.is_null())
    kept = numbers.drop_nulls()
    if kept.len() < 0.8 * rest.len() or kept.n_unique() <= 10:
        return _Guess("string", codes=codes)
    share = f"{kept.len() / rest.len():.1%} of its values are numbers"
    if words.n_unique() == 1 and not re.search(r"\d", words[0]):
        whole = rest.filter(numbers.is_not_null()).str.contains(r"^[+-]?\d{1,18}$").all()
        comment = f"{share}, and {words[0]!r} is the only other: taken as missing"
        return _Guess("integer" if whole else "number", None, tuple(sorted((*codes, words[0]))), (comment,))
    shown = ", ".join(repr(word) for word in words.unique(maintain_order=True)[:3])
    advice = f"{share}, but not {shown}: mend them, or list them under missing, and set type to number"
    return _Guess("string", None, codes, (advice,), mixed=True)


def _to_numbers(text: pl.Series, decimal: str) -> pl.Series:
    """Read numbers as :func:`conform` does: with a decimal comma, a point must group thousands."""
    if decimal == ",":
        fits = text.str.contains(r"^[+-]?(\d{1,3}(\.\d{3})+(,\d+)?|\d+(,\d+)?([eE][+-]?\d+)?)$")
        cleaned = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        text = pl.select(pl.when(fits).then(cleaned)).to_series()
    return text.cast(pl.Float64, strict=False)


def _sentinel_notes(numbers: pl.Series) -> list[str]:
    present = numbers.drop_nulls()
    present = present.filter(present.is_finite())
    if present.len() < 20:
        return []
    out = []
    for code in SENTINELS:
        share = (present == code).sum() / present.len()
        others = present.filter(~present.is_in(list(SENTINELS)))
        if share <= 0.005 or others.is_empty():
            continue
        low, high = others.min(), others.max()
        assert isinstance(low, float) and isinstance(high, float)
        if max(low - code, code - high) > 0.2 * (high - low):
            out.append(
                f"{code:g} stands apart from all other values in {share:.1%} of the rows; if it means missing, add: missing = [{code:g}]"
            )
    return out


def _task(table: _Table, target: str, task: str | None) -> tuple[str, list[str]]:
    """Return the task, and what to say about it."""
    values = table.frame[target].drop_nulls()
    n_values, numeric, remarks = values.n_unique(), values.dtype.is_numeric(), []
    if numeric and values.dtype.is_float():
        values = values.filter(values.is_finite())
    whole = numeric and bool((values == values.round()).all())
    if task is None:
        if n_values == 2:
            task = "binary"
        elif not numeric or (whole and n_values <= MOST_CLASSES and n_values < 0.05 * values.len()):
            task = "multiclass"
        else:
            task = "regression"
        remarks.append(f"task is {task}, since '{target}' has {n_values:,} different values")
        if task == "multiclass" and numeric:
            remarks[-1] += ", all whole numbers; if they are amounts, use --task regression"
    if task == "regression" and not numeric:
        raise UsageError(f"--task regression needs numbers, and '{target}' holds {values[0]!r}. Use --task multiclass.")
    if task == "binary" and n_values != 2:
        raise UsageError(
            f"--task binary needs two values, and '{target}' has {n_values}. Use --task multiclass or regression."
        )
    if task == "multiclass" and n_values > 100:
        fix = "use --task regression" if numeric else "group rare ones into one, or choose another --target"
        raise DataError(f"'{target}' has {n_values:,} classes. Expected at most 100; {fix}.")
    n_missing = table.frame.height - table.frame[target].drop_nulls().len()
    if n_missing:
        remarks.append(f"{count(n_missing, 'row')} without '{target}' cannot be learned from and are left out")
    if task != "regression":
        sizes = as_text(values).value_counts(name="n").sort(["n", target]).rows()
        rare = [f"{name!r} ({n:,})" for name, n in sizes if n < FEW_ROWS_PER_CLASS]
        if rare:
            remarks.append(
                f"fewer than {FEW_ROWS_PER_CLASS} rows have the class {', '.join(rare[:6])}: too few to train, choose and hold out on; join such classes"
            )
    return task, remarks


def _positive(table: _Table, target: str) -> tuple[str, str]:
    names = as_text(table.frame[target].drop_nulls())
    counts = {n: int((names == n).sum()) for n in sorted(names.unique())}
    known = [n for n in counts if n.strip().lower() in POSITIVE_NAMES]
    if set(counts) in ({"0", "1"}, {"-1", "1"}):
        known = ["1"]  # where classes are 1 and 2, the number says nothing
    if len(known) == 1:
        chosen, why = known[0], "by its name"
    else:
        chosen, why = min(counts, key=lambda n: counts[n]), "the rarer class"
    return (
        chosen,
        f"the positive class of '{target}' is taken to be {chosen!r}, {why} ({counts[chosen]:,} of {names.len():,} rows)",
    )


def _id(table: _Table, id: str | None, taken: set[str]) -> tuple[str | None, list[str]]:
    if id is not None:
        n_copies = table.frame.height - table.frame[id].n_unique()
        n_missing = table.frame[id].null_count()
        notes = [f"'{id}' repeats in {count(n_copies, 'row')}, so it does not name a row"] if n_copies else []
        return id, notes + ([f"'{id}' is missing in {count(n_missing, 'row')}"] if n_missing else [])
    kinds = {name: _names_rows(table, column) for name, column in table.columns.items() if name not in taken}
    for kind in ("id", "text", "row number"):
        for name, found in kinds.items():
            if found == kind:
                return name, [f"'{name}' has a value of its own in every row, so it is taken as id, not as a feature"]
    return None, []


def _names_rows(table: _Table, column: _Column) -> str | None:
    """Return how a column names the rows: as an id, a text of its own, a row number; None where it does not."""
    values = table.frame[column.name]
    if not column.unique or column.mixed or column.spec.type not in ("integer", "string"):
        return None
    if column.spec.type == "string":
        # Long text that never repeats is prose, not a key.
        short = float(values.str.len_chars().median() or 0) <= 40  # type: ignore[arg-type]
        return ("id" if _ID_NAME.search(column.name) else "text") if short else None
    if _ROW_NAMES.match(column.name):
        return "row number"
    if _ID_NAME.search(column.name):
        return "id"
    start = values[0]
    counted = start in (0, 1) and bool((values == pl.Series(range(start, start + values.len()))).all())
    return "row number" if counted else None


def _comment(table: _Table, name: str, text: str, excluded: bool = False) -> None:
    column = table.columns[name]
    table.columns[name] = replace(
        column, comments=(*column.comments, text), excluded=text if excluded else column.excluded
    )


def _advise(table: _Table, taken: set[str]) -> None:
    """Comment on every column that is no plain feature, and exclude those that name the rows."""
    frame = table.frame
    for name, column in table.columns.items():
        if name in taken:
            continue
        values = frame[name].drop_nulls()
        n_values, kind = values.n_unique(), column.spec.type
        if n_values <= 1:
            shown = "has no value at all" if values.is_empty() else f"is {values[0]!r} wherever it has a value"
            _comment(table, name, f"{shown}: it carries nothing, unless its missing values do")
            continue
        if _names_rows(table, column):
            _comment(
                table,
                name,
                f"has a value of its own in all {frame.height:,} rows: it names them, so it is excluded",
                True,
            )
            continue
        if kind == "string" and not column.mixed and n_values > max(20, 0.9 * values.len()):
            _comment(
                table,
                name,
                f"{n_values:,} different texts in {values.len():,} values: too many to learn from, so it is excluded",
                True,
            )
            continue
        if kind == "string" and n_values > 200:
            _comment(
                table, name, f"{n_values:,} different texts: the 200 most frequent are kept, the rest share one code"
            )
        elif kind in ("date", "datetime"):
            _comment(
                table,
                name,
                f"dates: if new rows come later than old ones, add time = {toml_value(name)} to the recipe; the split is then by time, the newest rows held out",
            )
        elif kind == "integer" and 2 < n_values <= 12 and frame.height > 200:
            _comment(
                table,
                name,
                f"{n_values} different whole numbers: if they are codes without an order, set type to string",
            )
        repeats = 20 < n_values < 0.5 * frame.height and values.len() / n_values >= 2
        if kind in ("string", "integer") and repeats and _GROUP_NAME.search(name):
            _comment(
                table,
                name,
                f"{n_values:,} values that repeat: if rows of one {name} belong together, add group = {toml_value(name)} to the recipe",
            )


def _suspect_leaks(table: _Table, task: str, roles: _Roles) -> None:
    """Exclude columns that give the target away alone, and say why and how to take them back."""
    frame = table.frame
    usable = [
        name
        for name, column in table.columns.items()
        if name not in roles.taken and not column.excluded and frame[name].n_unique() > 1
    ]
    if not usable:
        raise DataError(
            f"{table.source.name}: no column is left to learn '{roles.target}' from; all others have a role, name the rows "
            "or never vary. Expected at least one feature."
        )
    unit = "R squared" if task == "regression" else "ROC AUC"
    leaks = _leaks(table, usable, task, roles.target)
    for name, score in leaks.items():
        why = f"predicts '{roles.target}' almost perfectly by itself ({unit} {score:.3f}), as a column recorded after the outcome would"
        if len(leaks) == len(usable):
            _comment(table, name, f"{why}; kept, since no other feature is left: ask how it comes about")
        else:
            _comment(
                table, name, f"{why}: excluded; if it is known before, take it out of the recipe's exclude list", True
            )


def _leaks(table: _Table, columns: list[str], task: str, target: str) -> dict[str, float]:
    labelled = pl.col(target).is_not_null()
    if table.frame[target].dtype.is_float():
        labelled &= pl.col(target).is_finite()
    frame = table.frame.filter(labelled)
    if frame.height < 40:
        return {}
    shuffled = frame.sample(n=min(LEAK_ROWS, frame.height), shuffle=True, seed=0)
    half = shuffled.height // 2
    classes = () if task == "regression" else tuple(sorted(as_text(shuffled[target]).unique()))
    try:
        encoder = fit_encoder(shuffled[:half], columns, task, target, classes)
    except DataError:
        return {}
    scores = single_feature_scores(encoder.encode(shuffled[:half]), encoder.encode(shuffled[half:]))
    return {name: score for name, score in scores.items() if score >= LEAK_SCORE}


def _one_line(text: str) -> str:
    """Return text fit for a TOML comment and a terminal: a column's name may hold any character."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _remarks(texts: Iterable[str]) -> list[str]:
    return [f"# {_one_line(text)}" for text in texts]


def _schema_text(table: _Table, name: str, data: str) -> str:
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


def _recipe_text(
    table: _Table,
    name: str,
    task: str,
    roles: _Roles,
    positive: str | None,
    remarks: list[str],
    id_notes: list[str],
) -> str:
    primary, report = _DEFAULT_METRICS[task]
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
    lines += ["", "[metrics]", f"primary = {toml_value(primary)}", f"report = {toml_value(report)}"]
    lines += [
        "# The gain that would change what you do; fine-tuning must prove at least this much.",
        f"worthwhile = {_worthwhile(table, task, roles.target)}",
    ]
    lines += ["", "[candidates.adapt]", 'tabnet = ["head", "gradual", "full"]']
    return "\n".join(lines) + "\n"


def _worthwhile(table: _Table, task: str, target: str) -> str:
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
