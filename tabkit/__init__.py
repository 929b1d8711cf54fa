"""tabkit: adapt pretrained tabular models to a domain, and prove whether it paid.

Every command-line verb has a twin here: :func:`run`, :func:`score`, :func:`check`, :func:`new`,
:func:`compare`, :func:`write_report`. They are imported on first use, so ``import tabkit`` stays light.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

# Read when an OpenMP library loads: idle threads sleep instead of spinning. On a busy two-core machine,
# LightGBM trained 18 times slower without it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "run": "tabkit.run:run",
    "score": "tabkit.score:score",
    "check": "tabkit.run:check",
    "new": "tabkit.draft:new",
    "compare": "tabkit.report:compare_runs",
    "write_report": "tabkit.report:write_report",
    "load_recipe": "tabkit.recipe:load_recipe",
    "load_bundle": "tabkit.bundle:load_bundle",
}

__all__ = ["check", "compare", "load_bundle", "load_recipe", "new", "run", "score", "write_report"]


class _Package(ModuleType):
    """This package: importing the submodule ``tabkit.run`` must not put it in place of the verb ``tabkit.run``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tabkit' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
