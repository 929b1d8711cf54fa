"""tabkit: adapt pretrained tabular models to a domain, and prove whether it paid.

Every command-line verb has a twin here, which returns what the verb prints; ``tabkit list`` is :func:`listing`, and
``tabkit report`` is :func:`write_report`. :class:`TabkitClassifier` and :class:`TabkitRegressor` are scikit-learn's
interface. They are imported on first use, so ``import tabkit`` stays light.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Read when an OpenMP library loads: idle threads sleep instead of spinning. On a busy two-core machine,
# LightGBM trained 18 times slower without it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "run": "tabkit.workflow:run",
    "score": "tabkit.scoring:score",
    "check": "tabkit.workflow:check",
    "new": "tabkit.draft:new",
    "compare": "tabkit.report:compare_runs",
    "show": "tabkit.catalogue:show",
    "listing": "tabkit.catalogue:listing",
    "pretrain": "tabkit.pretraining:pretrain",
    "write_report": "tabkit.report:write_report",
    "read_result": "tabkit.result:read_result",
    "load_recipe": "tabkit.recipe:load_recipe",
    "load_bundle": "tabkit.bundle:load_bundle",
    "TabkitClassifier": "tabkit.estimators:TabkitClassifier",
    "TabkitRegressor": "tabkit.estimators:TabkitRegressor",
}
"""Where each name is at home. No submodule has one of these names, or importing it would take the name's place."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tabkit' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
