"""Where the shipped ``domains/`` and ``data_schemas/`` are: in the wheel, or beside the package in a clone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent


def _folder(name: str) -> Path:
    # The wheel carries both folders inside the package; an editable install finds them at the clone's top.
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"{name}/ is missing from this installation of tabkit ({_PACKAGE}); reinstall it.")


def domains() -> Path:
    """Return the folder of the shipped recipes, one sub-folder per vertical."""
    return _folder("domains")


def data_schemas() -> Path:
    """Return the folder of the shipped schemas."""
    return _folder("data_schemas")


def measured() -> dict[str, dict[str, Any]]:
    """Return, per shipped recipe, what a run of it last found: rows, verdict, score, versions and date.

    ``benchmarks/verticals.py`` writes them, beside the recipes; a recipe that was never measured is not there.
    """
    files = sorted(domains().glob("*/measured.json"))
    return {name: facts for file in files for name, facts in json.loads(file.read_text(encoding="utf-8")).items()}


def recipe_names() -> list[str]:
    """Return every shipped recipe as ``vertical/name``, sorted."""
    root = domains()
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.glob("*/*.toml"))
