"""Find the checks: the classes of this package's files, then the plugins of packages outside tabkit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeGuard

from tabkit.errors import UsageError
from tabkit.evaluate.checks.base import Check, Evidence
from tabkit.plugins import Plugin, clash, plugins
from tabkit.result import CheckOutcome

GROUP = "tabkit.checks"
"""Entry points of outside checks: ``name = "its_package.module:Class"``."""

AnyCheck = type[Check[Any]]


@cache
def all_checks() -> tuple[AnyCheck, ...]:
    """Return every check, in the order in which they are run.

    Files come in the order of their names and classes in the order of their file, but for those that say what they
    precede; outside checks come last.

    Raises
    ------
    UsageError
        An outside check has the code of another, or cannot be loaded.
    """
    origins: dict[str, str] = {}
    checks: dict[str, AnyCheck] = {}
    for check, origin in (*_shipped(), *_outside()):
        if check.code in checks:
            raise clash("checks", check.code, origins[check.code], origin)
        checks[check.code], origins[check.code] = check, origin
    order = [check for check in checks.values() if not check.before]
    for check in checks.values():
        if check.before:
            at = next((i for i, other in enumerate(order) if other.code == check.before), len(order))
            order.insert(at, check)
    return tuple(order)


def run_checks(evidence: Evidence) -> tuple[CheckOutcome, ...]:
    """Make every check that takes this kind of evidence, in order."""
    return tuple(check().outcome(evidence) for check in all_checks() if isinstance(evidence, check.arm))


def _shipped() -> Iterator[tuple[AnyCheck, str]]:
    package = __name__.rpartition(".")[0]
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        for value in vars(importlib.import_module(info.name)).values():
            if _is_check(value) and value.__module__ == info.name:
                yield value, f"{value.__module__}.{value.__qualname__}"


def _outside() -> Iterator[tuple[AnyCheck, str]]:
    for plugin in plugins(GROUP, {}).values():
        yield _loaded(plugin), str(plugin)


def _loaded(plugin: Plugin) -> AnyCheck:
    check = plugin.load(_is_check, "a subclass of Check that defines find")
    lacking = [name for name in ("code", "title", "severity", "question") if not getattr(check, name, "")]
    if lacking:
        raise UsageError(f"{plugin}, lacks {', '.join(lacking)}.")
    return check


def _is_check(value: Any) -> TypeGuard[AnyCheck]:
    return isinstance(value, type) and issubclass(value, Check) and not inspect.isabstract(value)
