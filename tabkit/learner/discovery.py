"""Find models and rankers: the files of a package, and the plugins of packages outside tabkit."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, TypeGuard, TypeVar

from tabkit.errors import UsageError, nearest
from tabkit.learner.base import Learner
from tabkit.plugins import Plugin, plugins

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
    files = [info.name for info in pkgutil.iter_modules(path) if not info.ispkg and info.name != "base"]
    origins = {name: f"{package}.{name}" for name in files}
    imports: dict[str, Callable[[], type[L]]] = {n: partial(_from_file, o, kind) for n, o in origins.items()}
    for name, plugin in plugins(group, origins).items():
        if not re.fullmatch(r"[a-z0-9]+", name):
            raise UsageError(
                f"{plugin}, is named '{name}'. Expected lower-case letters and digits: it names a candidate."
            )
        imports[name] = partial(_from_outside, plugin, kind)
    return MappingProxyType(dict(sorted(imports.items())))


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


def _from_file(module_name: str, kind: type[L]) -> type[L]:
    module = importlib.import_module(module_name)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, kind) and value.__module__ == module.__name__
    ]
    assert len(own) == 1, f"{module_name} must define exactly one {kind.__name__}, found {own}"
    return own[0]


def _from_outside(plugin: Plugin, kind: type[L]) -> type[L]:
    def fits(value: Any) -> TypeGuard[type[L]]:
        return isinstance(value, type) and issubclass(value, kind)

    return plugin.load(fits, f"a subclass of {kind.__name__}")
