"""``tabkit new``: a schema and a recipe inferred from a table. Both run as they are, and say what was noticed.

Every guess stands in the written files as a comment beside the line it concerns, so that a person can check it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
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

MOST_CLASSES = 20
MISSING_CODES = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-", "--", ".", "n/a", "#N/A")
SENTINELS = (-9999.0, -999.0, -99.0, 999.0, 9999.0, 99999.0)
DATE_FORMATS = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%Y%m%d")
MOMENT_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M")
POSITIVE_NAMES = {
    "1", "true", "yes", "y", "t", "bad", "churn", "churned", "default", "defaulted", "fraud", "positive", "pos", "dead",
    "died", "failed", "failure", "event", "case", "malignant", "sick", "disease", "returned", "spam", "won", "buy", "bought",
}  # fmt: skip
_SENSITIVE = re.compile(r"(^|_)(age|sex|gender|race|ethnic\w*|religion|nationality|marital\w*|disab\w*)(_|$)", re.I)
_ROW_NAMES = re.compile(r"^(unnamed: ?\d+|rownames?|row_?(id|num|number|index)|index|)$", re.I)
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
    """A column as it will be written: its field, and the comments that stand above it."""

    name: str
    spec: Field
    missing: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    excluded: bool = False
    unique: bool = False


@dataclass
class _Table:
    """The rows looked at, typed, and how they were found."""

    source: Input
    columns: dict[str, _Column]
    frame: pl.DataFrame
    n_rows: int
    whole: bool
    dialect: Dialect = field(default_factory=Dialect)


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
        A bad name or task, an unknown column, or a file that exists already.
    DataError
        The table cannot be read, or its target cannot be learned.
    """
    if not re.fullmatch(r"[a-z0-9_]+/[a-z][a-z0-9_]*", name):
        raise UsageError(f"'{name}' is no recipe name. Expected VERTICAL/NAME in lower case, such as retail/returns.")
    short = name.split("/")[1]
    recipe_path = Path(folder) / "domains" / f"{name}.toml"
    schema_path = Path(folder) / "data_schemas" / f"{short}.toml"
    for path in (recipe_path, schema_path):
        if path.exists():
            raise UsageError(f"{path} exists already and is not overwritten. Choose another name, or remove it.")
    source, dialect = _open(data)
    for role, column in (("target", target), ("id", id), ("time", time), ("group", group)):
        if column is not None and column not in source.columns:
            raise UsageError(f"--{role} '{column}' is no column of {data}.{nearest(column, source.columns)}")
    table = _look(source, dialect, short, target)
    roles = {"target": target, "time": time, "group": group}
    task = _task(table, target, task)
    positive, remarks = _positive(table, target) if task == "binary" else (None, [])
    id, id_notes = _id(table, id, {c for c in roles.values() if c})
    if time is not None and not table.frame[time].dtype.is_temporal() and not table.frame[time].dtype.is_numeric():
        raise DataError(
            f"--time '{time}' holds text that is no date. Expected dates (2024-01-31) or numbers that order the rows."
        )
    taken = {c for c in (target, id, time, group) if c}
    _suspect_leaks(table, task, target, taken)
    _advise(table, taken)
    texts = {
        schema_path: _schema_text(table, short, str(data)),
        recipe_path: _recipe_text(table, name, task, target, positive, remarks, id, id_notes, time, group),
    }
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"{problem.filename} cannot be written ({problem.strerror}). Choose another --dir.") from None
    notes = [f"{c.name}: {comment}" for c in table.columns.values() for comment in c.comments] + remarks + id_notes
    if not table.whole:
        notes.append(f"Only the first {table.n_rows:,} rows were looked at.")
    return Draft(recipe_path, schema_path, tuple(notes))


def _open(data: str | Path) -> tuple[Input, Dialect]:
    """Open the table; text in cp1252 is found here, and stated in the schema."""
    try:
        return open_input(data, Dialect()), Dialect()
    except DataError as problem:
        if "is not UTF-8" not in str(problem):
            raise
        stated = Dialect(encoding="cp1252")
        return open_input(data, stated), stated


def _look(source: Input, dialect: Dialect, name: str, target: str) -> _Table:
    batches, n_rows, whole = [], 0, True
    for batch in source.batches(50_000):
        if n_rows >= MOST_ROWS:
            whole = False
            break
        batches.append(batch)
        n_rows += batch.frame.height
    raw = pl.concat([batch.frame for batch in batches])
    if raw.height == 0:
        raise DataError(f"{source.name} has no rows to learn from. Expected a header and rows.")
    columns = {c: _infer(raw[c], source.decimal) for c in raw.columns}
    schema = Schema(name=name, fields={c: _with_codes(column) for c, column in columns.items()})
    typed = conform(replace(batches[0], frame=raw, rows=np.arange(raw.height)), schema, raw.columns, source.decimal)
    if source.decimal == "," or source.delimiter not in (",", "\t"):
        dialect = dialect.model_copy(update={"decimal": source.decimal, "delimiter": source.delimiter})
    if typed.frame[target].drop_nulls().n_unique() < 2:
        raise DataError(
            f"Target '{target}' has {typed.frame[target].drop_nulls().n_unique()} value(s): nothing can be learned. Expected two or more."
        )
    return _Table(source, columns, typed.frame, raw.height, whole, dialect)


def _with_codes(column: _Column) -> Field:
    return column.spec.model_copy(update={"missing": list(column.missing)})


def _infer(values: pl.Series, decimal: str) -> _Column:
    """Infer one column's type from its values."""
    name = values.name
    sensitive = bool(_SENSITIVE.search(name))
    comments = (
        ["looks like a personal attribute: marked sensitive, so that the report compares its groups"]
        if sensitive
        else []
    )
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        kind, form, codes = _infer_text(values.cast(pl.String), decimal)
    else:
        kind, form, codes = _infer_typed(values.dtype), None, ()
    if kind in ("number", "integer"):
        numbers = _numbers(values, codes, decimal)
        comments += _sentinel_notes(numbers)
    if codes:
        comments.append(f"missing is written as {', '.join(map(repr, codes))}")
    spec = Field(type=kind, format=form, sensitive=sensitive)  # type: ignore[arg-type]
    present = values.drop_nulls()
    unique = len(present) == len(values) > 1 and present.n_unique() == len(values)
    return _Column(name, spec, codes, tuple(comments), unique=unique)


def _infer_typed(dtype: pl.DataType) -> str:
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Date:
        return "date"
    return "datetime" if dtype == pl.Datetime else "string"


def _infer_text(values: pl.Series, decimal: str) -> tuple[str, str | None, tuple[str, ...]]:
    """Return (type, date format, missing codes beyond the schema's own) of a text column."""
    text = values.str.strip_chars()
    defaults = set(Schema.model_fields["missing"].default)
    rest = text.filter(~text.is_in(list(MISSING_CODES))).drop_nulls()
    codes = tuple(sorted(set(text.filter(text.is_in(list(MISSING_CODES))).unique()) - defaults))
    if rest.is_empty():
        return "string", None, codes
    if set(rest.str.to_lowercase().unique()) <= {"true", "false"}:
        return "boolean", None, codes
    cleaned = (
        rest.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True) if decimal == "," else rest
    )
    numbers = cleaned.cast(pl.Float64, strict=False)
    # 007 and phone numbers are names, not quantities
    padded = rest.str.contains(r"^0\d").any()
    if numbers.null_count() == 0 and not padded:
        whole = rest.str.contains(r"^[+-]?\d{1,18}$").all()
        return ("integer" if whole else "number"), None, codes
    for kind, formats in (("date", DATE_FORMATS), ("datetime", MOMENT_FORMATS)):
        dtype = pl.Date if kind == "date" else pl.Datetime("us")
        for form in formats:
            if rest.len() and rest.str.strptime(dtype, form, strict=False).null_count() == 0:
                default = form in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
                return kind, None if default else form, codes
    return "string", None, codes


def _numbers(values: pl.Series, codes: tuple[str, ...], decimal: str) -> pl.Series:
    if values.dtype != pl.String:
        return values.cast(pl.Float64)
    text = values.str.strip_chars()
    if decimal == ",":
        text = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    return text.cast(pl.Float64, strict=False)


def _sentinel_notes(numbers: pl.Series) -> list[str]:
    present = numbers.drop_nulls()
    present = present.filter(present.is_finite())
    if present.len() < 20:
        return []
    out = []
    for code in SENTINELS:
        share = (present == code).sum() / present.len()
        others = present.filter(present != code)
        if share > 0.005 and others.len() and not (others.min() <= code <= others.max()):  # type: ignore[operator]
            out.append(
                f"{code:g} stands apart from all other values in {share:.1%} of the rows; if it means missing, add: missing = [{code:g}]"
            )
    return out


def _task(table: _Table, target: str, task: str | None) -> str:
    if task is not None and task not in _DEFAULT_METRICS:
        raise UsageError(f"--task '{task}' is unknown.{nearest(task, _DEFAULT_METRICS)}")
    values = table.frame[target].drop_nulls()
    n_values = values.n_unique()
    numeric = values.dtype.is_numeric()
    if task is None:
        if n_values == 2:
            task = "binary"
        elif not numeric or (values.dtype.is_integer() and n_values <= MOST_CLASSES and n_values < 0.05 * values.len()):
            task = "multiclass"
        else:
            task = "regression"
    if task == "regression" and not numeric:
        raise UsageError(f"--task regression needs numbers, and '{target}' holds {values[0]!r}. Use --task multiclass.")
    if task == "binary" and n_values != 2:
        raise UsageError(
            f"--task binary needs two values, and '{target}' has {n_values}. Use --task multiclass or regression."
        )
    if task == "multiclass" and n_values > 100:
        raise DataError(
            f"'{target}' has {n_values:,} classes. Expected at most 100; group rare ones, or use --task regression for numbers."
        )
    return task


def _positive(table: _Table, target: str) -> tuple[str, list[str]]:
    names = as_text(table.frame[target].drop_nulls())
    counts = {n: int((names == n).sum()) for n in sorted(names.unique())}
    known = [n for n in counts if n.strip().lower() in POSITIVE_NAMES]
    if len(known) == 1:
        chosen, why = known[0], "by its name"
    else:
        chosen, why = min(counts, key=lambda n: counts[n]), "the rarer class"
    return chosen, [
        f"the positive class of '{target}' is taken to be {chosen!r}, {why} ({counts[chosen]:,} of {names.len():,} rows)"
    ]


def _id(table: _Table, id: str | None, taken: set[str]) -> tuple[str | None, list[str]]:
    if id is not None:
        n_copies = table.frame.height - table.frame[id].n_unique()
        return id, [f"'{id}' repeats in {count(n_copies, 'row')}, so it does not name a row"] if n_copies else []
    for column in table.columns.values():
        whole = column.spec.type in ("integer", "string")
        if (
            column.unique
            and whole
            and column.name not in taken
            and (_ROW_NAMES.match(column.name) or _is_id(table, column))
        ):
            return column.name, [
                f"'{column.name}' has a value of its own in every row, so it is taken as id, not as a feature"
            ]
    return None, []


def _is_id(table: _Table, column: _Column) -> bool:
    if re.search(r"(^|[_\W])(id|key|code|number|no|nr|uuid|guid)$|Id$|ID$", column.name):
        return True
    values = table.frame[column.name]
    if column.spec.type == "string":
        return True  # text that never repeats names the row
    start = values.min()
    return bool((values == pl.Series(range(int(start), int(start) + values.len()))).all())  # type: ignore[arg-type]


def _suspect_leaks(table: _Table, task: str, target: str, roles: set[str]) -> None:
    """Exclude columns that give the target away alone, and say why; comment on those that carry nothing."""
    for name in table.columns:
        present = table.frame[name].drop_nulls()
        if name not in roles and present.n_unique() <= 1:
            shown = "has no value at all" if present.is_empty() else f"is {present[0]!r} wherever it has a value"
            _comment(table, name, f"{shown}: it carries nothing, unless its missing values do")
    unit = "R squared" if task == "regression" else "ROC AUC"
    for name, score in _leaks(table, task, target, roles).items():
        why = f"predicts '{target}' almost perfectly by itself ({unit} {score:.3f}), as a column recorded after the outcome would: excluded"
        _comment(table, name, why, excluded=True)


def _comment(table: _Table, name: str, text: str, excluded: bool = False) -> None:
    column = table.columns[name]
    table.columns[name] = replace(column, comments=(*column.comments, text), excluded=column.excluded or excluded)


def _advise(table: _Table, roles: set[str]) -> None:
    frame = table.frame
    for name, column in table.columns.items():
        if name in roles or column.excluded:
            continue
        values = frame[name].drop_nulls()
        n_values = values.n_unique()
        if _ROW_NAMES.match(name) or (
            column.unique and column.spec.type in ("integer", "string") and _is_id(table, column)
        ):
            _comment(table, name, "names or numbers the rows, so it is excluded", excluded=True)
        elif column.spec.type == "string" and n_values > 200:
            _comment(
                table, name, f"{n_values:,} different texts: the 200 most frequent are kept, the rest share one code"
            )
        elif column.spec.type in ("date", "datetime"):
            _comment(
                table,
                name,
                f'dates: if new rows come later than old ones, add time = "{name}" to the recipe, and the split is by time',
            )
        elif column.spec.type == "integer" and 2 < n_values <= 12 and frame.height > 200:
            _comment(
                table,
                name,
                f"{n_values} different whole numbers: if they are codes without an order, set type to string",
            )
        if (
            column.spec.type in ("string", "integer")
            and 20 < n_values < 0.5 * frame.height
            and values.len() / max(1, n_values) >= 2
            and re.search(
                r"(^|_)(id|customer|client|patient|user|household|store|site|field|plot|group)(_|$)", name, re.I
            )
        ):
            _comment(
                table,
                name,
                f'{n_values:,} values that repeat: if rows of one {name} belong together, add group = "{name}" to the recipe',
            )


def _leaks(table: _Table, task: str, target: str, roles: set[str]) -> dict[str, float]:
    columns = [c for c in table.columns if c not in roles and not table.columns[c].excluded]
    frame = table.frame.filter(pl.col(target).is_not_null()).head(20_000)
    if frame.height < 40 or not columns:
        return {}
    shuffled = frame.sample(fraction=1.0, shuffle=True, seed=0)
    half = shuffled.height // 2
    classes = () if task == "regression" else tuple(sorted(as_text(frame[target]).unique()))
    try:
        encoder = fit_encoder(shuffled[:half], columns, task, target, classes)
    except DataError:
        return {}
    scores = single_feature_scores(encoder.encode(shuffled[:half]), encoder.encode(shuffled[half:]))
    return {name: score for name, score in scores.items() if score >= LEAK_SCORE}


def _schema_text(table: _Table, name: str, data: str) -> str:
    lines = [
        f"# What a row of {data} is, as inferred from {count(table.n_rows, 'row')}{'' if table.whole else ' (its first ones)'}. Yours to edit.",
        f"name = {toml_value(name)}",
        f"title = {toml_value(name.replace('_', ' ').capitalize())}",
        'row = "one record"',
    ]
    stated = table.dialect.model_dump(exclude_none=True)
    if stated:
        lines += ["", "[dialect]", *(f"{k} = {toml_value(v)}" for k, v in stated.items())]
    for column in table.columns.values():
        lines += ["", *(f"# {comment}" for comment in column.comments), f"[fields.{toml_key(column.name)}]"]
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
    target: str,
    positive: str | None,
    remarks: list[str],
    id: str | None,
    id_notes: list[str],
    time: str | None,
    group: str | None,
) -> str:
    primary, report = _DEFAULT_METRICS[task]
    short = name.split("/")[1]
    lines = [
        f"# What to do with {short}: written by `tabkit new`, yours to edit. `tabkit show` explains it.",
        f"name = {toml_value(name)}",
        f"title = {toml_value(short.replace('_', ' ').capitalize())}",
        f"question = {toml_value(f'What will {target} be?')}",
        f"schema = {toml_value(short)}",
        f"task = {toml_value(task)}",
        f"target = {toml_value(target)}",
    ]
    lines += [f"# {remark}" for remark in remarks]
    if positive is not None:
        lines.append(f"positive = {toml_value(positive)}")
    lines += [f"# {note}" for note in id_notes]
    lines += [
        f"{role} = {toml_value(column)}" for role, column in (("id", id), ("time", time), ("group", group)) if column
    ]
    excluded = [c for c in table.columns.values() if c.excluded and c.name not in (target, id, time, group)]
    if excluded:
        lines.append("# Columns that are no features, and why; take one out of the list to use it:")
        lines += [f"#   {c.name}: {c.comments[-1]}" for c in excluded]
        lines.append(f"exclude = {toml_value([c.name for c in excluded])}")
    lines += ["", "[metrics]", f"primary = {toml_value(primary)}", f"report = {toml_value(report)}"]
    lines += [
        "# The gain that would change what you do; fine-tuning must prove at least this much.",
        f"worthwhile = {_worthwhile(table, task, target)}",
    ]
    lines += ["", "[candidates.adapt]", 'tabnet = ["head", "gradual", "full"]']
    return "\n".join(lines) + "\n"


def _worthwhile(table: _Table, task: str, target: str) -> str:
    if task == "regression":
        spread = float(table.frame[target].cast(pl.Float64).std() or 0.0)  # type: ignore[arg-type]
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
