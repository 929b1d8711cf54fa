"""Find models and rankers: the files of a package, and the entry points of packages outside tabkit."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TypeVar

from tabkit.errors import UsageError, nearest
from tabkit.learner.base import Learner

L = TypeVar("L", bound=Learner)


@cache
def discover(package: str, kind: type[L], group: str) -> Mapping[str, Callable[[], type[L]]]:
    """Return, by name, what imports each learner. Nothing is imported before one is asked for.

    A learner of tabkit is a file of ``package`` (but ``base``), and its name is the file's. A learner of another
    package is an entry point of ``group``: ``name = "its_package.module:Class"``.

    Raises
    ------
    UsageError
        An outside learner has the name of another, or a name that candidates cannot have.
    """
    path = importlib.import_module(package).__path__
    files = sorted(info.name for info in pkgutil.iter_modules(path) if not info.ispkg and info.name != "base")
    found: dict[str, Callable[[], type[L]]] = {name: partial(_from_file, f"{package}.{name}", kind) for name in files}
    origin = {name: f"{package}.{name}" for name in files}
    for point in entry_points(group=group):
        if point.name in origin:
            raise UsageError(
                f"Two {group.rpartition('.')[2]} are named '{point.name}': {origin[point.name]} and {point.value}, an entry "
                f"point of {_package_of(point)}. Rename the entry point, or uninstall that package."
            )
        if not re.fullmatch(r"[a-z0-9]+", point.name):
            raise UsageError(
                f"The entry point '{point.name}' ({point.value}) of {_package_of(point)} cannot name a candidate. "
                "Expected lower-case letters and digits."
            )
        found[point.name], origin[point.name] = partial(_from_outside, point, kind), point.value
    return MappingProxyType(dict(sorted(found.items())))


def named(name: str, known: Mapping[str, Callable[[], type[L]]], what: str) -> type[L]:
    """Return the learner of a name.

    Raises
    ------
    UsageError
        There is none.
    """
    if name not in known:
        raise UsageError(f"Unknown {what} '{name}'.{nearest(name, known)} See: tabkit list models.")
    return known[name]()


def _package_of(point: EntryPoint) -> str:
    return f"the package '{point.dist.name}'" if point.dist is not None else "another package"


def _from_file(module_name: str, kind: type[L]) -> type[L]:
    module = importlib.import_module(module_name)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, kind) and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module_name} must define exactly one {kind.__name__}, found {own}"
    return own[0]


def _from_outside(point: EntryPoint, kind: type[L]) -> type[L]:
    try:
        value = point.load()
    except (ImportError, AttributeError) as problem:
        raise UsageError(
            f"{point.value}, an entry point of {_package_of(point)}, cannot be loaded: {problem}."
        ) from None
    if not (isinstance(value, type) and issubclass(value, kind)):
        raise UsageError(f"{point.value}, an entry point of {_package_of(point)}, is no subclass of {kind.__name__}.")
    return value
