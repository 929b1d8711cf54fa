"""``tabkit new``: a schema and a recipe inferred from a table. Both run as they are, and say what was noticed.

Every guess stands in the written files as a comment beside the line it concerns, so that a person can check it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from tabkit.data.frames import values_of
from tabkit.data.source import DataLike, Input
from tabkit.draft.notice import advise, id_of, positive_of, suspect_leaks, task_of
from tabkit.draft.profile import Roles, open_table, profile_of
from tabkit.draft.write import DEFAULT_METRICS, Question, one_line, recipe_text, schema_text
from tabkit.errors import DataError, UsageError, nearest

__all__ = ["Draft", "new"]


@dataclass(frozen=True)
class Draft:
    """What was written, and what was noticed on the way."""

    recipe_path: Path
    schema_path: Path
    notes: tuple[str, ...]


def new(  # noqa: PLR0913 (the options of the verb)
    name: str,
    data: DataLike,
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
    data
        A file, a folder, a glob, or a polars, pandas or pyarrow frame.
    task
        binary, multiclass or regression; from the target's values if None.
    id, time, group
        Columns with a role. An id is found if every row has its own value in some column; time and group are yours to name.

    Raises
    ------
    UsageError
        A bad name or task, an unknown column, one column in two roles, or a file that exists already.
    DataError
        The table cannot be read, or its target cannot be learned.
    """
    if task is not None and task not in DEFAULT_METRICS:
        raise UsageError(f"--task '{task}' is unknown.{nearest(task, DEFAULT_METRICS)}")
    recipe_path, schema_path = _places(name, Path(folder))
    short = name.split("/")[1]
    source, dialect = open_table(data)
    roles = Roles(target, id, time, group)
    _check_roles(roles, source)
    profile = profile_of(source, dialect, short, roles)
    task, remarks = task_of(profile, target, task)
    positive = None
    if task == "binary":
        positive, why = positive_of(profile, target)
        remarks.append(why)
    if (
        time is not None
        and not values_of(profile.frame, time).dtype.is_temporal()
        and not values_of(profile.frame, time).dtype.is_numeric()
    ):
        raise DataError(
            f"--time '{time}' holds text that is no date. Expected dates (2024-01-31) or numbers that order the rows."
        )
    id, id_remarks = id_of(profile, id, roles.taken)
    roles = replace(roles, id=id)
    advise(profile, roles.taken)
    suspect_leaks(profile, task, roles)
    texts = {
        schema_path: schema_text(profile, short),
        recipe_path: recipe_text(profile, name, roles, Question(task, positive, remarks, id_remarks)),
    }
    _write(texts)
    notes = [*profile.remarks]
    notes += [f"{c.name or repr('')}: {comment}" for c in profile.columns.values() for comment in c.comments]
    return Draft(recipe_path, schema_path, tuple(one_line(note) for note in (*notes, *remarks, *id_remarks)))


def _places(name: str, folder: Path) -> tuple[Path, Path]:
    """Return where the recipe and the schema go, neither of which may exist."""
    if not re.fullmatch(r"[a-z0-9_]+/[a-z][a-z0-9_]*", name):
        raise UsageError(f"'{name}' is no recipe name. Expected VERTICAL/NAME in lower case, such as retail/returns.")
    recipe_path = folder / "domains" / f"{name}.toml"
    schema_path = folder / "data_schemas" / f"{name.split('/')[1]}.toml"
    for path in (recipe_path, schema_path):
        if path.exists():
            raise UsageError(f"{path} exists already and is not overwritten. Choose another name, or remove it.")
    return recipe_path, schema_path


def _write(texts: dict[Path, str]) -> None:
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as problem:
        raise UsageError(f"{problem.filename} cannot be written ({problem.strerror}). Choose another --dir.") from None


def _check_roles(roles: Roles, source: Input) -> None:
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
