"""A bundle: the champion in a folder that scores new rows anywhere. No pickle; every file with its hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Encoder
from tabkit.data.interactions import arrivals, load_events, save_events, vocabulary_json
from tabkit.errors import BundleError, TabkitError
from tabkit.models.base import Model
from tabkit.models.parts.bagged import read_model
from tabkit.rankers.base import Ranker, ranker_class
from tabkit.recipe import Plan, Recipe
from tabkit.schema import Schema
from tabkit.strict import parse_toml

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle, verified file by file.

    ``threshold`` is the probability of the positive class from which the positive class is predicted (binary).
    ``half_width`` is the split-conformal half-width of the 90% interval (regression).
    """

    plan: Plan
    encoder: Encoder
    model: Model
    threshold: float | None
    half_width: float | None
    manifest: dict[str, Any]
    seal: str


@dataclass(frozen=True)
class ListBundle:
    """A loaded bundle of a ranker: it lists items for the users whose history it holds."""

    plan: Plan
    ranker: Ranker
    manifest: dict[str, Any]
    seal: str

    @property
    def length(self) -> int:
        """Items listed per user."""
        assert self.plan.recipe.ranking is not None
        return self.plan.recipe.ranking.length

    @property
    def among(self) -> npt.NDArray[np.bool_] | None:
        """Items that may be listed: those that arrived in the last window, where the recipe is about such; else all."""
        ranking, past = self.plan.recipe.ranking, self.ranker.past
        assert ranking is not None
        return arrivals(past, past.end - ranking.days, past.end) if ranking.cold_items else None

    @property
    def new_only(self) -> bool:
        """Whether lists leave out what the user has taken before."""
        assert self.plan.recipe.ranking is not None
        return self.plan.recipe.ranking.new_only


def save_bundle(
    folder: Path,
    plan: Plan,
    encoder: Encoder,
    model: Model,
    facts: dict[str, Any],
    scorecard: dict[str, Any],
    card: str,
) -> None:
    """Write a bundle, whole or not at all.

    Parameters
    ----------
    folder
        Must not exist yet.
    facts
        What the manifest says beside format and files: champion, base, threshold, versions.
    scorecard
        ``result.json``'s content.
    card
        The model card, Markdown.
    """
    _save(folder, plan, model.save, encoder.to_json(), facts, scorecard, card)


def save_lists(
    folder: Path, plan: Plan, ranker: Ranker, facts: dict[str, Any], scorecard: dict[str, Any], card: str
) -> None:
    """Write a ranker's bundle: what it learned, the events it looks at, and the vocabularies, whole or not at all."""

    def save(to: Path) -> None:
        ranker.save(to)
        save_events(ranker.past, to)

    _save(folder, plan, save, vocabulary_json(ranker.past), facts, scorecard, card)


def _save(
    folder: Path,
    plan: Plan,
    save: Callable[[Path], None],
    encoder: str,
    facts: dict[str, Any],
    scorecard: dict[str, Any],
    card: str,
) -> None:
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (temporary / "model").mkdir()
        save(temporary / "model")
        (temporary / "recipe.toml").write_bytes(plan.path.read_bytes())
        (temporary / "schema.toml").write_bytes(plan.schema_path.read_bytes())
        (temporary / "encoder.json").write_text(encoder, encoding="utf-8")
        (temporary / "scorecard.json").write_text(json.dumps(scorecard, indent=1, allow_nan=False), encoding="utf-8")
        (temporary / "CARD.md").write_text(card, encoding="utf-8")
        files = {
            path.relative_to(temporary).as_posix(): {"sha256": _sha256(path), "bytes": path.stat().st_size}
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        text = json.dumps({"format": FORMAT, **facts, "files": files}, indent=1, allow_nan=False)
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        (temporary / SEAL).write_text(_sha256(temporary / MANIFEST) + "\n", encoding="ascii")
        temporary.chmod(0o755)  # mkdtemp makes it private; a bundle is there to be handed on
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_ranking(folder: Path) -> bool:
    """Tell whether a bundle lists items; false as well where there is no readable manifest."""
    try:
        return bool(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["task"] == "ranking")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load_lists(folder: Path) -> ListBundle:
    """Load a ranker's bundle after checking size and hash of every file.

    Raises
    ------
    BundleError
        As :func:`load_bundle`.
    """
    manifest, seal = verify(folder)
    try:
        events = load_events(folder / "model", (folder / "encoder.json").read_text(encoding="utf-8"))
        return ListBundle(_plan(folder), ranker_class(manifest["model"]).load(folder / "model", events), manifest, seal)
    except TabkitError as problem:
        raise BundleError(
            f"Bundle {folder} needs another version of tabkit (made by {manifest.get('tabkit')}): {problem}"
        ) from None


def _plan(folder: Path) -> Plan:
    recipe = parse_toml((folder / "recipe.toml").read_text(encoding="utf-8"), Recipe, str(folder / "recipe.toml"))
    schema = parse_toml((folder / "schema.toml").read_text(encoding="utf-8"), Schema, str(folder / "schema.toml"))
    return Plan(recipe, schema, folder / "recipe.toml", folder / "schema.toml")


def load_bundle(folder: Path) -> Bundle:
    """Load a bundle after checking size and hash of every file.

    Raises
    ------
    BundleError
        A file is missing, changed or cut short, or the format is another version.
    """
    manifest, seal = verify(folder)
    try:
        plan = _plan(folder)
        encoder = Encoder.from_json((folder / "encoder.json").read_text(encoding="utf-8"))
        model = read_model(manifest["model"], folder / "model")
        return Bundle(plan, encoder, model, manifest["threshold"], manifest["half_width"], manifest, seal)
    except BundleError:
        raise
    except TabkitError as problem:
        raise BundleError(
            f"Bundle {folder} needs another version of tabkit (made by {manifest.get('tabkit')}): {problem}"
        ) from None
    except ModuleNotFoundError as problem:
        raise BundleError(
            f"Bundle {folder} needs the package '{problem.name}', which is not installed here; install it."
        ) from None


def verify(folder: Path) -> tuple[dict[str, Any], str]:
    """Check a bundle's format, sizes and hashes; return its manifest and the manifest's hash."""
    if not folder.is_dir():
        raise BundleError(f"Bundle {folder} does not exist or is no folder. Expected the bundle/ folder of a run.")
    if not (folder / MANIFEST).is_file() and (folder / "bundle" / MANIFEST).is_file():
        raise BundleError(f"{folder} is a run folder; its bundle is {folder / 'bundle'}: use that path.")
    missing = [name for name in (MANIFEST, SEAL) if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"{folder} has no {missing[0]}, so it is no whole bundle. Copy the bundle folder again.")
    try:
        seal = (folder / SEAL).read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        seal = ""
    if seal != _sha256(folder / MANIFEST) or (folder / SEAL).read_bytes() != f"{seal}\n".encode():
        raise BundleError(f"{folder / MANIFEST} does not match {SEAL}: one of them was changed. Copy the bundle again.")
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise BundleError(
            f"{folder} has bundle format {manifest.get('format')}; this tabkit reads format {FORMAT}. Update tabkit."
        )
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / MANIFEST} names '{name}', outside the bundle. Do not use this bundle.")
        if not path.is_file():
            raise BundleError(f"{path} is missing. Copy the bundle again.")
        if path.stat().st_size != facts["bytes"]:
            raise BundleError(
                f"{path} has {path.stat().st_size:,} bytes, expected {facts['bytes']:,}: it was cut or changed. Copy the bundle again."
            )
        if _sha256(path) != facts["sha256"]:
            raise BundleError(
                f"{path} was changed since the bundle was made (its hash differs). Copy the bundle again."
            )
    return manifest, seal


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
