"""tabkit: adapt pretrained tabular models to a domain, and prove whether it paid.

Every command-line verb has a twin here: :func:`run`, :func:`score`, :func:`check`, :func:`new`,
:func:`compare`, :func:`write_report`. They are imported on first use, so ``import tabkit`` stays light.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

# Read when an OpenMP library loads: idle threads sleep instead of spinning. On a busy two-core machine,
# LightGBM trained 18 times slower without it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "run": "tabkit.run",
    "score": "tabkit.score",
    "check": "tabkit.data.validate",
    "new": "tabkit.draft",
    "compare": "tabkit.report",
    "write_report": "tabkit.report",
    "load_recipe": "tabkit.recipe",
    "load_bundle": "tabkit.bundle",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tabkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
