"""A bundle's manifest: what it holds, where it comes from, and the size and hash of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tabkit.errors import BundleError
from tabkit.result import Decision, Task, Weights
from tabkit.result.findings import Facts

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"


class FileFacts(Facts):
    """What a file must be."""

    sha256: str
    bytes: int


class Manifest(Facts):
    """What a bundle holds, and where it comes from.

    ``threshold`` is the probability from which the positive class is predicted (binary). ``half_width`` is the
    split-conformal half-width of the 90% interval (regression). ``events_end`` is the day before which a ranker's events end.
    """

    format: int = FORMAT
    tabkit: str
    created: str
    recipe: str
    task: Task
    classes: tuple[str, ...] = ()
    champion: str
    model: str
    how: str
    bases: dict[str, Weights] = {}
    decision: Decision
    trained_on: Literal["all", "train"]
    threshold: float | None = None
    half_width: float | None = None
    events_end: str | None = None
    data_fingerprint: str
    versions: dict[str, str]
    files: dict[str, FileFacts]


def verify(folder: Path) -> tuple[Manifest, str]:
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
    if seal != sha256_of(folder / MANIFEST) or (folder / SEAL).read_bytes() != f"{seal}\n".encode():
        raise BundleError(f"{folder / MANIFEST} does not match {SEAL}: one of them was changed. Copy the bundle again.")
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{folder} has bundle format {content.get('format')}; this tabkit reads format {FORMAT}. Update tabkit."
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as problem:
        place = ".".join(map(str, problem.errors()[0]["loc"]))
        raise BundleError(
            f"{folder / MANIFEST} does not fit the format ({place}: {problem.errors()[0]['msg']}). Make the bundle again."
        ) from None
    for name, facts in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BundleError(f"{folder / MANIFEST} names '{name}', outside the bundle. Do not use this bundle.")
        if not path.is_file():
            raise BundleError(f"{path} is missing. Copy the bundle again.")
        if path.stat().st_size != facts.bytes:
            raise BundleError(
                f"{path} has {path.stat().st_size:,} bytes, expected {facts.bytes:,}: it was cut or changed. Copy the bundle again."
            )
        if sha256_of(path) != facts.sha256:
            raise BundleError(
                f"{path} was changed since the bundle was made (its hash differs). Copy the bundle again."
            )
    return manifest, seal


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(folder: Path) -> dict[str, FileFacts]:
    """Return size and hash of every file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): FileFacts(sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
