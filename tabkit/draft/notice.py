"""What a person would notice in a table: the task, ids, constants, dates, groups, leaks. Said in comments."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl

from tabkit.data.encode import as_text, fit_encoder
from tabkit.data.frames import values_of
from tabkit.data.single import single_features, suspects
from tabkit.data.target import with_label
from tabkit.draft.columns import ColumnProfile
from tabkit.draft.profile import Profile, Roles
from tabkit.draft.write import toml_text
from tabkit.errors import DataError, UsageError, count

LEAK_ROWS = 20_000
"""Rows, drawn from those looked at, on which single columns are tried for a leak."""

MOST_CLASSES = 20

FEW_ROWS_PER_CLASS = 8
"""Below this, a class may miss a part of the split altogether."""

POSITIVE_NAMES = {
    "true", "yes", "y", "t", "bad", "churn", "churned", "default", "defaulted", "fraud", "positive", "pos", "dead",
    "died", "failed", "failure", "event", "case", "malignant", "sick", "disease", "returned", "spam", "won", "buy", "bought",
}  # fmt: skip

_INDEX_NAMES = re.compile(r"^(|unnamed: ?\d+(_level_\d+)?|__index_level_\d+__)$", re.I)
"""What pandas calls an index without a name, in CSV and in Parquet."""

ROW_NAMES = re.compile(r"^(unnamed: ?\d+|rownames?|row_?(id|num|number|index)|index|)$", re.I)

# Upper-case PAID or VALID is no id: without a separator, only userId and userID are read as one.
ID_NAME = re.compile(r"(^|[_\W])(?i:id|key|code|number|no|nr|uuid|guid)$|[a-z]I[dD]$")

_WEIGHT = r"(w|wt|wgt|weight)s?$"
_WEIGHT_NAME = re.compile(rf"(^|[_\W]){_WEIGHT}", re.I)
_SURVEY_WEIGHT_NAME = re.compile(
    rf"(^|[_\W])(sample|sampling|survey|person|household|case|design|final|base|prob|p)[_\W]?{_WEIGHT}", re.I
)
"""A plain weight may be that of a body or a car, and a feature."""

_GROUP_NAME = re.compile(r"(^|_)(id|customer|client|patient|user|household|store|site|field|plot|group)(_|$)", re.I)


def task_of(profile: Profile, target: str, task: str | None) -> tuple[str, list[str]]:
    """Return the task, and what to say about it."""
    if (column := profile.columns[target]).mixed and task != "multiclass":
        raise DataError(f"Target '{target}': {column.comments[-1]}. Expected numbers only; then run this again.")
    values = values_of(profile.frame, target).drop_nulls()
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
        fits = "binary" if n_values == 2 else "multiclass"
        raise UsageError(f"--task regression needs numbers, and '{target}' holds {values[0]!r}. Use --task {fits}.")
    if task == "binary" and n_values != 2:
        raise UsageError(
            f"--task binary needs two values, and '{target}' has {n_values}. Use --task multiclass or regression."
        )
    if task == "multiclass" and n_values > 100:
        fix = "use --task regression" if numeric else "group rare ones into one, or choose another --target"
        raise DataError(f"'{target}' has {n_values:,} classes. Expected at most 100; {fix}.")
    n_missing = profile.frame.height - values_of(profile.frame, target).drop_nulls().len()
    if n_missing:
        remarks.append(f"{count(n_missing, 'row')} without '{target}' cannot be learned from and are left out")
    if task != "regression":
        sizes = as_text(values).alias("value").value_counts(name="n").sort(["n", "value"]).rows()
        rare = [f"{name!r} ({n:,})" for name, n in sizes if n < FEW_ROWS_PER_CLASS]
        if rare:
            remarks.append(
                f"fewer than {FEW_ROWS_PER_CLASS} rows have the class {', '.join(rare[:6])}: too few to train, choose and hold out on; join such classes"
            )
    return task, remarks


def positive_of(profile: Profile, target: str) -> tuple[str, str]:
    """Return the class that the question is about, and why."""
    names = as_text(values_of(profile.frame, target).drop_nulls())
    counts = {n: int((names == n).sum()) for n in sorted(names.unique())}
    known = [n for n in counts if n.strip().lower() in POSITIVE_NAMES]
    if set(counts) in ({"0", "1"}, {"-1", "1"}):
        known = ["1"]  # if classes are 1 and 2, the number says nothing
    if len(known) == 1:
        chosen, why = known[0], "by its name"
    else:
        chosen, why = min(counts, key=lambda n: counts[n]), "the rarer class"
    return (
        chosen,
        f"the positive class of '{target}' is taken to be {chosen!r}, {why} ({counts[chosen]:,} of {names.len():,} rows)",
    )


def id_of(profile: Profile, id: str | None, taken: set[str]) -> tuple[str | None, list[str]]:
    """Return the column that names the rows, and what to say about it."""
    if id is not None:
        n_copies = profile.frame.height - values_of(profile.frame, id).n_unique()
        n_missing = values_of(profile.frame, id).null_count()
        notes = [f"'{id}' repeats in {count(n_copies, 'row')}, so it does not name a row"] if n_copies else []
        return id, notes + ([f"'{id}' is missing in {count(n_missing, 'row')}"] if n_missing else [])
    kinds = {
        name: _names_rows(profile, column)
        for name, column in profile.columns.items()
        if name not in taken and not _is_index(column)
    }
    for kind in ("id", "text", "row number"):
        for name, found in kinds.items():
            if found == kind:
                return name, [f"'{name}' has a value of its own in every row, so it is taken as id, not as a feature"]
    return None, []


def weight_of(profile: Profile, taken: set[str]) -> tuple[str | None, list[str]]:
    """Return the column that says for how many rows a row stands, and what to say about it, or about one that may."""
    for surely, pattern in ((True, _SURVEY_WEIGHT_NAME), (False, _WEIGHT_NAME)):
        for name, column in profile.columns.items():
            if name in taken or not pattern.search(name) or column.spec.type not in ("number", "integer"):
                continue
            values = values_of(profile.frame, name).cast(pl.Float64)
            if values.null_count() or not (values.is_finite() & (values > 0)).all() or values.n_unique() < 2:
                continue
            if surely:
                return name, [
                    f"'{name}' is taken for how many rows a row stands for; if it is a feature, remove the line"
                ]
            why = f"if '{name}' says for how many rows a row stands, and is no feature, take the # off the line below:"
            return None, [why, f"weight = {toml_text(name)}"]
    return None, []


def _is_index(column: ColumnProfile) -> bool:
    return bool(_INDEX_NAMES.match(column.name)) and column.spec.type == "integer"


def _names_rows(profile: Profile, column: ColumnProfile) -> str | None:
    """Return how a column names the rows: as an id, a text of its own, a row number; None if it does not."""
    values = values_of(profile.frame, column.name)
    if not column.unique or column.mixed or column.spec.type not in ("integer", "string"):
        return None
    if column.spec.type == "string":
        # Long text that never repeats is prose, not a key.
        short = float(values.str.len_chars().median() or 0) <= 40  # type: ignore[arg-type]
        return ("id" if ID_NAME.search(column.name) else "text") if short else None
    if ROW_NAMES.match(column.name):
        return "row number"
    if ID_NAME.search(column.name):
        return "id"
    start = values[0]
    counted = start in (0, 1) and bool((values == pl.Series(range(start, start + values.len()))).all())
    return "row number" if counted else None


def _comment(profile: Profile, name: str, text: str, excluded: bool = False) -> None:
    column = profile.columns[name]
    profile.columns[name] = replace(
        column, comments=(*column.comments, text), excluded=text if excluded else column.excluded
    )


def advise(profile: Profile, taken: set[str]) -> None:
    """Comment on every column that is no plain feature, and exclude those that name the rows."""
    frame = profile.frame
    for name, column in [(n, c) for n, c in profile.columns.items() if n not in taken]:
        if _is_index(column):
            _comment(profile, name, "numbers the rows, as pandas writes its index: it is excluded", True)
            continue
        values, kind = values_of(frame, name).drop_nulls(), column.spec.type
        n_values = values.n_unique()
        if n_values <= 1:
            if values.is_empty():
                shown = "has no value at all: it carries nothing"
            elif values.len() == frame.height:
                shown = f"is {values[0]!r} in every row: it carries nothing"
            else:
                shown = (
                    f"is {values[0]!r} in every row that has a value: it carries nothing, unless its missing values do"
                )
            _comment(profile, name, shown)
            continue
        if _names_rows(profile, column):
            _comment(
                profile,
                name,
                f"has a value of its own in all {frame.height:,} rows: it names them, so it is excluded",
                True,
            )
            continue
        if kind == "string" and not column.mixed and n_values > max(20, 0.9 * values.len()):
            _comment(
                profile,
                name,
                f"{n_values:,} different texts in {values.len():,} values: too many to learn from, so it is excluded",
                True,
            )
            continue
        if kind == "string" and n_values > 200:
            _comment(
                profile, name, f"{n_values:,} different texts: the 200 most frequent are kept, the rest share one code"
            )
        elif kind in ("date", "datetime"):
            _comment(
                profile,
                name,
                f"dates: if new rows come later than old ones, add time = {toml_text(name)} to the recipe; the split is then by time, the newest rows held out",
            )
        elif kind == "integer" and 2 < n_values <= 12 and frame.height > 200:
            _comment(
                profile,
                name,
                f"{n_values} different whole numbers: if they are codes without an order, set type to string",
            )
        repeats = 20 < n_values < 0.95 * values.len()
        if kind in ("string", "integer") and repeats and _GROUP_NAME.search(name):
            _comment(
                profile,
                name,
                f"{n_values:,} values that repeat: if rows of one {name} belong together, add group = {toml_text(name)} to the recipe",
            )


def suspect_leaks(profile: Profile, task: str, roles: Roles) -> None:
    """Exclude columns that give the target away by themselves, and say why and how to take them back."""
    frame = profile.frame
    usable = [
        name
        for name, column in profile.columns.items()
        if name not in roles.taken and not column.excluded and values_of(frame, name).n_unique() > 1
    ]
    if not usable:
        raise DataError(
            f"{profile.source.name}: no column is left to learn '{roles.target}' from; all others have a role, name the rows "
            "or never vary. Expected at least one feature."
        )
    unit = "R squared" if task == "regression" else "ROC AUC"
    leaks = _leaks(profile, usable, task, roles.target)
    for name, score in leaks.items():
        why = f"predicts '{roles.target}' almost perfectly by itself ({unit} {score:.3f}), as a column recorded after the outcome would"
        if len(leaks) == len(usable):
            _comment(profile, name, f"{why}; kept, since no other feature is left: ask how it comes about")
        else:
            _comment(
                profile, name, f"{why}: excluded; if it is known before, take it out of the recipe's exclude list", True
            )


def _leaks(profile: Profile, columns: list[str], task: str, target: str) -> dict[str, float]:
    frame = profile.frame.filter(with_label(values_of(profile.frame, target)))
    if frame.height < 40:
        return {}
    shuffled = frame.sample(n=min(LEAK_ROWS, frame.height), shuffle=True, seed=0)
    half = shuffled.height // 2
    classes = () if task == "regression" else tuple(sorted(as_text(values_of(shuffled, target)).unique()))
    try:
        encoder = fit_encoder(shuffled[:half], columns, task, target, classes)
    except DataError:
        return {}
    alone = single_features(encoder.encode(shuffled[:half]), encoder.encode(shuffled[half:]))
    found = suspects(alone)
    return {name: found[name] for name in alone if name in found}
