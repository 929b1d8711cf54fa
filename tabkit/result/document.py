"""``result.json``: the findings of a run and where they come from, written whole and read back typed.

Tables and lists are told apart by their task. ``result.schema.json`` is made from these models:
``python -m tabkit.result`` writes it again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError

from tabkit.errors import UsageError
from tabkit.files import write_text
from tabkit.result.facts import Number, SplitKind
from tabkit.result.findings import Facts
from tabkit.result.lists import ListFindings
from tabkit.result.tables import TableFindings

FORMAT: Final = 1
RESULT = "result.json"
SCHEMA = Path(__file__).with_name("result.schema.json")


class RowCounts(Facts):
    """Rows at each stage; of an event table, the parts count events."""

    input: int
    """Rows read."""
    rejected: int
    """Rows that do not fit the schema."""
    out_of_scope: int
    """Rows that the recipe's ``where`` leaves out."""
    unlabelled: int
    """Rows without a target."""
    weightless: int = 0
    """Rows with a target and the weight 0, which take no part."""
    train: int
    """Rows trained on."""
    valid: int
    """Rows only chosen on; 0 if train rows are chosen on in inner folds."""
    holdout: int
    """Rows held out."""
    source: int
    """Rows of the source tables, or events of the source period."""

    @property
    def used(self) -> int:
        """Rows of all parts."""
        return self.train + self.valid + self.holdout


class SourceFacts(Facts):
    """One source table that bases were pretrained on."""

    name: str
    """What the recipe calls it."""
    rows: int
    """Its labelled rows."""
    lacking: tuple[str, ...]
    """Features of the target that it lacks: missing in all of its rows."""


class WeightFacts(Facts):
    """How rows are weighted: fitting, choices and every figure count them so."""

    column: str | None
    """The column of weights; null if follow-up makes them."""
    effective: Number
    """How many holdout rows of equal weight tell as much as these (Kish)."""
    text: str
    """The same in words."""


class SplitFacts(Facts):
    """How rows were split."""

    kind: SplitKind | Literal["clock"]
    """The rule; ``clock`` for events."""
    holdout: float
    """Share held out."""
    valid: float
    """Share of the rest to choose on."""
    column: str | None
    """The column it goes by, if any."""
    folds: int = 1
    """Outer folds, repeats counted; each row is held out once a repeat. 1 for a single holdout."""
    inner: int | None = None
    """Inner folds in which train rows are also chosen on; null if valid is a part of its own."""
    seed: int
    """Seed of the draw."""
    text: str
    """One sentence saying how and why."""


class FeatureFacts(Facts):
    """What the models see."""

    columns: tuple[str, ...]
    """Columns of the table used as features."""
    titles: dict[str, str] = {}
    """What the schema calls its columns, by column; those without a title are not there."""
    numeric: int
    """Encoded numeric features."""
    categorical: int
    """Encoded categorical features."""
    dropped: dict[str, str]
    """Columns dropped, each with the reason."""
    ignored: tuple[str, ...]
    """Columns of the data that the recipe does not use."""
    infinite: int
    """Infinite values, treated as missing."""


class BundleFacts(Facts):
    """What was bundled."""

    train_on: Literal["all", "train"]
    """Rows the bundled model was trained on: all, or only train (the model measured)."""
    rows: int
    """How many."""
    members: tuple[str, ...]
    """The candidates inside."""


class Machine(Facts):
    """The machine."""

    cpus: int
    """Its CPUs."""
    system: str
    """Operating system and processor."""


class Provenance(Facts):
    """Where findings come from: recipe, data, split, versions, command."""

    format: Literal[1] = FORMAT
    """Version of this format."""
    tabkit: str
    """Version of tabkit that wrote it."""
    created: str
    """When, ISO 8601 with offset."""
    recipe: str
    """Name of the recipe, vertical/name."""
    vertical: str
    """The vertical."""
    title: str
    """Title of the recipe."""
    question: str
    """The business question."""
    row: str
    """What one row is."""
    target: str
    """The column predicted, or the item listed."""
    classes: tuple[str, ...] = ()
    """Classes in the order of the probabilities; empty for regression and ranking."""
    positive: str | None = None
    """The class whose probability is predicted; binary tasks only."""
    worthwhile: float
    """The smallest gain in the primary metric that would matter."""
    rows: RowCounts
    """Rows at each stage."""
    sources: tuple[SourceFacts, ...] = ()
    """The source tables that bases were pretrained on."""
    split: SplitFacts
    """How rows were split."""
    weighted: WeightFacts | None = None
    """How rows are weighted; null if each counts once."""
    features: FeatureFacts
    """What the models see."""
    bundle: BundleFacts
    """What was bundled."""
    seed: int
    """Seed of the run."""
    budget: str
    """How long it might search: quick, standard or thorough."""
    seconds_total: float
    """Wall seconds of the whole run."""
    command: str
    """The command that made it."""
    data_fingerprint: str
    """Fingerprint of the rows read (SHA-256)."""
    versions: dict[str, str]
    """Versions of Python, tabkit and the libraries."""
    machine: Machine
    """The machine."""


class TableResult(Provenance, TableFindings):
    """What a run on a table measured and decided. Numbers are finite or null."""

    task: Literal["binary", "multiclass", "regression"]
    """The task."""


class ListResult(Provenance, ListFindings):
    """What a run on events measured and decided about lists. Numbers are finite or null."""

    task: Literal["ranking"] = "ranking"
    """The task."""
    value: None = None
    """Always null: what lists are worth is in ``ranking``."""


Result = TableResult | ListResult
"""What a run found, by its task."""

_ADAPTER: TypeAdapter[Result] = TypeAdapter(Annotated[Result, Field(discriminator="task")])


def to_json(document: Facts) -> str:
    """Return facts as JSON text without NaN."""
    return document.model_dump_json(indent=1)  # an undefined number, optional or not, is null


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json`` into a run folder, whole or not at all."""
    write_text(folder / RESULT, to_json(result))


def read_result(run_folder: str | Path) -> Result:
    """Read a run folder's ``result.json``.

    Raises
    ------
    UsageError
        The folder is missing or no run folder; the file is broken, of another format version, or does not fit.
    """
    run_folder = Path(run_folder)
    path = run_folder / RESULT
    if not run_folder.is_dir():
        what = "is a file" if run_folder.exists() else "does not exist"
        raise UsageError(f"{run_folder} {what}. Expected a run folder: give one that `tabkit run` made.")
    if not path.is_file():
        inside = sorted(p.name for p in run_folder.iterdir() if not p.name.startswith("."))[:6]
        raise UsageError(
            f"{run_folder}: no run folder, it has no {RESULT} (found: {', '.join(inside) or 'nothing'}). "
            "Give a folder that `tabkit run` made."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as problem:
        raise UsageError(f"{path}: cannot be read as JSON ({problem}). Run the recipe again.") from None
    if not isinstance(content, dict) or "format" not in content:
        raise UsageError(
            f"{path}: expected the result of `tabkit run`, an object with a 'format'. Run the recipe again."
        )
    if content["format"] != FORMAT:
        raise UsageError(
            f"{path}: format {content['format']!r}, written by tabkit {content.get('tabkit', '(unknown)')}; "
            f"this tabkit reads format {FORMAT}. Use the tabkit that wrote it, or run the recipe again."
        )
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as problem:
        raise UsageError(f"{path}: {_faults(problem)} Run the recipe again.") from None


def _faults(problem: ValidationError) -> str:
    """Name the first places that do not fit, and what was expected there."""
    faults = problem.errors(include_url=False)
    # The first part of a place is the branch of the union.
    missing = [".".join(map(str, f["loc"][1:])) for f in faults if f["type"] == "missing"]
    if missing:
        return f"incomplete, {', '.join(map(repr, missing[:6]))} missing."
    shown = "; ".join(f"{'.'.join(map(str, f['loc'][1:])) or 'task'}: {f['msg']}" for f in faults[:3])
    return f"does not fit the format ({shown})."


def result_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that documents ``result.json``, made from the models."""
    schema = _ADAPTER.json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "The result of a tabkit run", **schema}


def schema_text() -> str:
    """Return the text of ``result.schema.json``."""
    return json.dumps(result_schema(), indent=1) + "\n"
