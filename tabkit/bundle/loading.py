"""Load a bundle: every file is checked before any is read."""

from __future__ import annotations

from pathlib import Path

from tabkit.bundle.bundles import TableBundle
from tabkit.bundle.lists import ListBundle
from tabkit.bundle.manifest import verify
from tabkit.data.encode import Encoder
from tabkit.data.event_files import load_events
from tabkit.errors import BundleError, TabkitError
from tabkit.models.parts.bagged import read_model
from tabkit.rankers.base import ranker_class
from tabkit.recipe import Plan, Recipe
from tabkit.schema import Schema
from tabkit.strict import parse_toml


def load_bundle(folder: str | Path) -> TableBundle | ListBundle:
    """Load a bundle after checking size and hash of every file.

    Raises
    ------
    BundleError
        A file is missing, changed or cut short, or the format is another version.
    """
    folder = Path(folder)
    manifest, seal = verify(folder)
    try:
        plan, text = _plan(folder), (folder / "encoder.json").read_text(encoding="utf-8")
        if manifest.task == "ranking":
            events = load_events(folder / "model", text)
            return ListBundle(plan, manifest, seal, ranker_class(manifest.model).load(folder / "model", events))
        return TableBundle(plan, manifest, seal, Encoder.from_json(text), read_model(manifest.model, folder / "model"))
    except BundleError:
        raise
    except TabkitError as problem:
        raise BundleError(
            f"Bundle {folder} needs another version of tabkit (made by {manifest.tabkit}): {problem}"
        ) from None
    except ModuleNotFoundError as problem:
        raise BundleError(
            f"Bundle {folder} needs the package '{problem.name}', which is not installed here; install it."
        ) from None


def _plan(folder: Path) -> Plan:
    recipe = parse_toml((folder / "recipe.toml").read_text(encoding="utf-8"), Recipe, str(folder / "recipe.toml"))
    schema = parse_toml((folder / "schema.toml").read_text(encoding="utf-8"), Schema, str(folder / "schema.toml"))
    return Plan(recipe, schema, folder / "recipe.toml", folder / "schema.toml")
