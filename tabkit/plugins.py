"""What packages outside tabkit add: the entry points of a group, none of which is loaded before it is asked for.

A package adds a model, a ranker, a check or a metric with a line of its ``pyproject.toml``, for instance
``trees = "their_package.trees:Trees"`` under ``[project.entry-points."tabkit.models"]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeGuard, TypeVar

from tabkit.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """One entry point; as text, what it loads and whose it is."""

    point: EntryPoint

    @property
    def name(self) -> str:
        """The name that it registers."""
        return self.point.name

    def __str__(self) -> str:
        package = f"the package '{self.point.dist.name}'" if self.point.dist is not None else "another package"
        return f"{self.point.value}, an entry point of {package}"

    def load(self, fits: Callable[[Any], TypeGuard[T]], expected: str) -> T:
        """Import it.

        Raises
        ------
        UsageError
            It cannot be imported, or does not fit.
        """
        try:
            value = self.point.load()
        except (ImportError, AttributeError) as problem:
            raise UsageError(f"{self}, cannot be loaded: {problem}. Fix or uninstall the package.") from None
        if not fits(value):
            raise UsageError(f"{self}, does not fit: expected {expected}, found {value!r}.")
        return value


def plugins(group: str, shipped: Mapping[str, str]) -> dict[str, Plugin]:
    """Return the plugins of a group by name, in the order of their names.

    Parameters
    ----------
    shipped
        The names that tabkit itself has taken -> where each is defined.

    Raises
    ------
    UsageError
        Two have one name.
    """
    taken: dict[str, object] = dict(shipped)
    found: dict[str, Plugin] = {}
    for plugin in map(Plugin, sorted(entry_points(group=group), key=lambda point: (point.name, point.value))):
        if plugin.name in taken:
            raise clash(group.rpartition(".")[2], plugin.name, taken[plugin.name], plugin)
        found[plugin.name] = taken[plugin.name] = plugin
    return found


def clash(things: str, name: str, one: object, other: object) -> UsageError:
    """Return the error for two things of one name."""
    return UsageError(f"Two {things} are named '{name}': {one}, and {other}; rename one, or uninstall its package.")
