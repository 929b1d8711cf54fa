"""Find the checks: the classes of this package's files, then the entry points of packages outside tabkit."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tabkit.errors import UsageError
from tabkit.evaluate.checks.base import Check, Evidence
from tabkit.result import CheckOutcome

GROUP = "tabkit.checks"
"""Entry points of outside checks: ``name = "its_package.module:Class"``."""

AnyCheck = type[Check[Any]]


def all_checks() -> tuple[AnyCheck, ...]:
    """Return every check, in the order in which they are run.

    Files come in the order of their names and classes in the order of their file, but for those that say what they
    precede; outside checks come last.

    Raises
    ------
    UsageError
        An outside check has the code of another, or cannot be loaded.
    """
    by_code: dict[str, AnyCheck] = {}
    for check, origin in (*_shipped(), *_outside()):
        other = by_code.setdefault(check.code, check)
        if other is not check:
            raise UsageError(
                f"Two checks have the code '{check.code}': {_path(other)} and {_path(check)}{origin}. "
                "Rename one, or uninstall its package."
            )
    order = [check for check in by_code.values() if not check.before]
    for check in by_code.values():
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
                yield value, ""


def _outside() -> Iterator[tuple[AnyCheck, str]]:
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        origin = f", an entry point of {_package_of(point)}"
        try:
            check = point.load()
        except (ImportError, AttributeError) as problem:
            raise UsageError(f"{point.value}{origin}, cannot be loaded: {problem}.") from None
        if not _is_check(check):
            raise UsageError(f"{point.value}{origin}, is no subclass of Check that defines find.")
        lacking = [name for name in ("code", "title", "severity", "question") if not getattr(check, name, "")]
        if lacking:
            raise UsageError(f"{point.value}{origin}, lacks {', '.join(lacking)}.")
        yield check, origin


def _is_check(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Check) and not inspect.isabstract(value)


def _path(check: AnyCheck) -> str:
    return f"{check.__module__}.{check.__qualname__}"


def _package_of(point: EntryPoint) -> str:
    return f"the package '{point.dist.name}'" if point.dist is not None else "another package"
