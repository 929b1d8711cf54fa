"""``tabkit new``: a schema and a recipe inferred from a table. Both run as they are, and say what was noticed.

Every guess stands in the written files as a comment beside the line it concerns, so that a person can check it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tabkit.data.frames import values_of
from tabkit.data.source import DataLike, Input
from tabkit.draft.events import EventRoles, by_name
from tabkit.draft.log import MOST_EVENTS, list_recipe_text, log_of
from tabkit.draft.notice import advise, id_of, positive_of, suspect_leaks, task_of, weight_of
from tabkit.draft.profile import Profile, Roles, open_table, profile_of
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
    target: str | None = None,
    *,
    task: str | None = None,
    id: str | None = None,
    time: str | None = None,
    group: str | None = None,
    user: str | None = None,
    item: str | None = None,
    basket: str | None = None,
    store: str | None = None,
    encoding: str | None = None,
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
        binary, multiclass or regression; from the target's values if None. ranking for a log of events, which has no
        target.
    id, time, group
        Columns with a role. An id is found if every row has its own value in some column; time and group are yours to name.
    user, item, basket, store
        Columns of a log of events, beside ``time``: found by name if None, and refused if they cannot be told.

    encoding
        Of a CSV file that is not UTF-8, if its words do not tell it.

    Raises
    ------
    UsageError
        A bad name or task, an unknown column, one column in two roles, a file that exists already, or no target.
    DataError
        The table cannot be read, or its target cannot be learned.
    """
    if task is not None and task not in DEFAULT_METRICS:
        raise UsageError(f"--task '{task}' is unknown.{nearest(task, DEFAULT_METRICS)}")
    recipe_path, schema_path = _places(name, Path(folder))
    short = name.split("/")[1]
    opened = open_table(data, encoding)
    source = opened.source
    named = {"target": target, "id": id, "time": time, "group": group}
    of_events = {"user": user, "item": item, "time": time, "basket": basket, "store": store}
    if task == "ranking":
        if target or id or group:
            raise UsageError("--task ranking takes --user, --item and --time, and no --target, --id or --group.")
        _check_roles(of_events, source)
        events = EventRoles(**of_events)
        profile = profile_of(opened, short, None, events.taken, MOST_EVENTS)
        log = log_of(profile, events)
        return _written(
            {schema_path: schema_text(profile, short, "one event"), recipe_path: list_recipe_text(log, name)},
            (*_notes(profile), *log.notes),
        )
    if strange := [role for role in ("user", "item", "basket", "store") if of_events[role] is not None]:
        raise UsageError(f"--{strange[0]} is for logs of events. Add --task ranking, or leave it out.")
    if target is None:
        raise UsageError(_without_target(profile_of(opened, short, None, set())))
    _check_roles(named, source)
    roles = Roles(target, id, time, group)
    profile = profile_of(opened, short, target, roles.taken)
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
    weight, weight_remarks = weight_of(profile, roles.taken | {id or target})
    roles = replace(roles, id=id, weight=weight)
    advise(profile, roles.taken)
    suspect_leaks(profile, task, roles)
    question = Question(task, positive, remarks, id_remarks, weight_remarks)
    texts = {schema_path: schema_text(profile, short), recipe_path: recipe_text(profile, name, roles, question)}
    return _written(texts, (*_notes(profile), *remarks, *id_remarks, *weight_remarks))


def _notes(profile: Profile) -> list[str]:
    columns = profile.columns.values()
    return [*profile.remarks, *(f"{c.name or repr('')}: {comment}" for c in columns for comment in c.comments)]


def _written(texts: dict[Path, str], notes: tuple[str, ...]) -> Draft:
    schema_path, recipe_path = texts
    _write(texts)
    return Draft(recipe_path, schema_path, tuple(one_line(note) for note in notes))


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


def _without_target(profile: Profile) -> str:
    """Say what is missing, and propose lists if the table is plainly a log of events."""
    roles, _ = by_name(profile, EventRoles())
    text = "--target is missing: name the column to predict."
    if roles.user is None or roles.item is None or roles.time is None:
        return text
    return (
        f"{text} {profile.source.name} looks like a log of events: to list items for users, add --task ranking --user "
        f"'{roles.user}' --item '{roles.item}' --time '{roles.time}'."
    )


def _check_roles(roles: Mapping[str, str | None], source: Input) -> None:
    seen: dict[str, str] = {}
    for role, column in roles.items():
        if column is None:
            continue
        if column not in source.columns:
            raise UsageError(f"--{role} '{column}' is no column of {source.name}.{nearest(column, source.columns)}")
        if column in seen:
            raise UsageError(
                f"--{seen[column]} and --{role} both name '{column}'. Expected one role a column; give another, or leave --{role} out."
            )
        seen[column] = role
