"""Strict, frozen pydantic models read from TOML, with errors that say where and what instead."""

from __future__ import annotations

import re
import tomllib
import typing
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tabkit.errors import UsageError, nearest


class Strict(BaseModel):
    """A table of a TOML file: unknown keys are refused, values are never coerced, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, populate_by_name=True, allow_inf_nan=False, protected_namespaces=()
    )


Model = TypeVar("Model", bound=Strict)


def read_toml(path: Path, model: type[Model]) -> Model:
    """Read one TOML file into ``model``.

    Raises
    ------
    UsageError
        The file is missing, is no TOML, or does not fit: file, table, key, what was expected, the nearest key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"{path}: cannot be read ({problem}). Expected a TOML file in UTF-8.") from None
    return parse_toml(text, model, where=str(path))


def parse_toml(text: str, model: type[Model], where: str) -> Model:
    """Read TOML text into ``model``; ``where`` names the text in errors."""
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as problem:  # also numbers of thousands of digits, or as many brackets
        raise UsageError(
            f"{where}: not valid TOML: {problem}. Text values need quotes, tables need [brackets]."
        ) from None
    try:
        return model.model_validate(values)
    except ValidationError as problem:
        lines = [_explain(model, error) for error in _join_branches(problem.errors())]
        raise UsageError(f"{where}: " + "\n  ".join(dict.fromkeys(lines))) from None


_BRANCHES = {
    ("int", "int"): "a whole number",
    ("float", "float"): "a number",
    ("str", "string"): "text",
    ("bool", "bool"): "true or false",
    ("date", "date"): "a date",
    ("datetime", "datetime"): "a moment",
}
"""By the name of a union's branch and the kind of its errors: a key that is called ``date`` is no branch."""


def _join_branches(errors: Any) -> list[dict[str, Any]]:
    """Make one error of what a union reports, branch by branch, as if each were a key below the value's."""
    out: dict[tuple[Any, ...], dict[str, Any]] = {}
    for error in errors:
        above, last = error["loc"][:-1], error["loc"][-1:]
        expected = _BRANCHES.get((*last, error["type"].split("_")[0]))
        if expected is None:
            out[error["loc"]] = error
        elif above in out:
            out[above]["msg"] += f" or {expected}"
        else:
            out[above] = {**error, "loc": above, "msg": f"Expected {expected}"}
    return list(out.values())


def _explain(model: type[Strict], error: Any) -> str:
    loc = [str(part) for part in error["loc"]]
    place = ".".join(loc[:-1])
    table = f"table [{place}], " if place else ""
    key = f"key '{loc[-1]}'" if loc else "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"{table}{key} is not known.{nearest(loc[-1], _keys(model, loc[:-1]))}"
        case "missing":
            return f"{table}{key} is missing; add it."
        case "value_error" | "assertion_error":
            return f"{table}{key}: {error['ctx']['error']}"
        case "literal_error":
            options = re.findall(r"'([^']*)'", error["ctx"]["expected"])
            return f"{table}{key}: found {error['input']!r}. Expected {error['ctx']['expected']}.{nearest(str(error['input']), options)}"
        case _:
            return f"{table}{key}: found {error['input']!r}. {error['msg']}."


def _keys(model: type[Strict], path: list[str]) -> list[str]:
    """Return the keys allowed at ``path`` inside ``model``."""
    here: type[Strict] = model
    skip = 0
    for part in path:
        if skip:  # the key of a dict or the index of a list: stay with the value's model
            skip -= 1
            continue
        by_key = {(info.alias or name): info for name, info in here.model_fields.items()}
        if part not in by_key:
            return []
        annotation = by_key[part].annotation
        skip = 1 if typing.get_origin(annotation) in (dict, list, tuple) else 0
        nested = _nested(annotation)
        if nested is None:
            return []
        here = nested
    return [info.alias or name for name, info in here.model_fields.items()]


def _nested(annotation: Any) -> type[Strict] | None:
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return annotation
    for argument in typing.get_args(annotation):
        if (found := _nested(argument)) is not None:
            return found
    return None
