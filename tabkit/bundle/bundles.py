"""A bundle: the champion in a folder that answers new rows anywhere. No pickle; every file with its hash.

Bundles of tables and of lists are one :class:`Bundle` to whoever scores: columns it needs, rows in, answers out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.bundle.manifest import MANIFEST, SEAL, Manifest, files_of, sha256_of
from tabkit.data.conform import conform
from tabkit.data.derive import derive, matches
from tabkit.data.encode import Encoder
from tabkit.data.event_files import save_events, vocabulary_json
from tabkit.data.frames import as_given, values_of
from tabkit.data.source import REJECTS, DataLike, Input, RawBatch, open_input
from tabkit.data.target import band
from tabkit.data.validate import needed_columns
from tabkit.errors import DataError, nearest
from tabkit.files import whole_folder
from tabkit.models.base import Model
from tabkit.rankers.base import Ranker
from tabkit.recipe import Plan
from tabkit.result import CandidateFacts, Result, to_json

CHUNK_ROWS = 50_000
BASES = "bases"
"""Folder of a bundle's bases."""

_PLAIN_INTEGER = r"^(?:0|-?[1-9]\d{0,17})$"


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle beside recipe, schema and result.

    Attributes
    ----------
    candidate
        The candidate inside.
    save
        Writes its model into an empty folder.
    encoder
        JSON text: the encoder of a table, or the vocabularies of events.
    threshold, half_width, events_end
        See :class:`Manifest`.
    bases
        By name, what writes a base into an empty folder: a refresh adapts it again, whatever the champion is.
    """

    candidate: CandidateFacts
    save: Callable[[Path], None]
    encoder: str
    threshold: float | None = None
    half_width: float | None = None
    events_end: str | None = None
    bases: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


def saving_ranker(ranker: Ranker) -> tuple[Callable[[Path], None], str]:
    """Return how a ranker is saved, with the events that it looks at, and its vocabularies."""

    def save(folder: Path) -> None:
        ranker.save(folder)
        save_events(ranker.past, folder)

    return save, vocabulary_json(ranker.past)


def save_bundle(folder: Path, plan: Plan, contents: Contents, result: Result, card: str) -> None:
    """Write a bundle, whole or not at all.

    Parameters
    ----------
    folder
        Must not exist yet.
    card
        The model card, Markdown.
    """
    candidate = contents.candidate
    with whole_folder(folder) as place:
        (place / "model").mkdir()
        contents.save(place / "model")
        for name, save in contents.bases.items():
            (place / BASES / name).mkdir(parents=True)
            save(place / BASES / name)
        (place / "recipe.toml").write_bytes(plan.path.read_bytes())
        (place / "schema.toml").write_bytes(plan.schema_path.read_bytes())
        for name, text in (("encoder.json", contents.encoder), ("scorecard.json", to_json(result)), ("CARD.md", card)):
            (place / name).write_text(text, encoding="utf-8", newline="\n")
        manifest = Manifest(
            tabkit=result.tabkit,
            created=result.created,
            recipe=result.recipe,
            task=result.task,
            classes=result.classes,
            champion=candidate.name,
            model=candidate.base,
            how=candidate.how,
            bases=candidate.weights,
            decision=result.verdict.decision,
            trained_on=result.bundle.train_on,
            threshold=contents.threshold,
            half_width=contents.half_width,
            events_end=contents.events_end,
            data_fingerprint=result.data_fingerprint,
            versions=result.versions,
            files=files_of(place),
        )
        (place / MANIFEST).write_text(to_json(manifest), encoding="utf-8", newline="\n")
        (place / SEAL).write_text(sha256_of(place / MANIFEST) + "\n", encoding="ascii", newline="\n")


@dataclass(frozen=True)
class Missing:
    """What lists were asked for and the bundle has no history of.

    Attributes
    ----------
    cold
        Rows without history.
    unknown
        Those of them whose id no event has.
    near
        An id that is unknown, and a known one that differs from it in spelling only.
    """

    cold: int = 0
    unknown: int = 0
    near: tuple[str, str] | None = None

    def __add__(self, more: Missing) -> Missing:
        return Missing(self.cold + more.cold, self.unknown + more.unknown, self.near or more.near)


@dataclass(frozen=True)
class Scores:
    """What a batch of rows became: answers, and a line for each cell (or row) that did not fit.

    ``n_scored`` and ``n_rejected`` count rows of the batch; lists have several answers for each.
    """

    answers: pl.DataFrame
    rejects: pl.DataFrame
    n_scored: int
    n_rejected: int
    missing: Missing | None = None


@dataclass(frozen=True)
class Bundle(ABC):
    """A loaded bundle, verified file by file."""

    plan: Plan
    manifest: Manifest
    seal: str

    @property
    def id_(self) -> str | None:
        """The column that names a row; None if the recipe has none."""
        return self.plan.recipe.id

    def missing(self, frame: pl.DataFrame) -> Missing | None:
        """Count what there is no history of; None if answers need none."""
        return None

    @abstractmethod
    def _needed(self) -> list[str]:
        """Return the columns that scoring needs."""

    @abstractmethod
    def answer(self, frame: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
        """Answer typed rows in scope, which ``key`` names."""

    @abstractmethod
    def empty(self, key: pl.Series | None = None) -> pl.DataFrame:
        """Return the columns of the answers, without a row; the key like ``key``, if given."""

    def columns_of(self, source: Input) -> list[str]:
        """Return the input's columns that scoring needs: those behind the features and the scope.

        A table's id is not needed: it names the answers if it is there.

        Raises
        ------
        DataError
            One is missing.
        """
        needed = self._needed()
        for column in needed:
            if column not in source.columns:
                raise DataError(
                    f"{source.name}: column '{column}' is missing, and the model needs it.{nearest(column, source.columns)} "
                    f"It needs: {', '.join(needed)}."
                )
        return needed

    def score(self, batch: RawBatch, columns: list[str]) -> Scores:
        """Score a batch: every row has its answer, or its reason."""
        fitted = conform(batch, self.plan.schema, columns)
        frame, rows, outside = self._in_scope(fitted.frame, fitted.rows)
        bad = [batch.malformed, fitted.rejects, _rejected(batch, outside, self.plan.recipe.where)]
        rejects = pl.concat(bad).sort("row", maintain_order=True)
        key = self._key(batch, rows)
        answers = self.answer(frame, key) if frame.height else self.empty(key)
        n_in, n_bad = len(batch.rows) + count_rows(batch.malformed), count_rows(rejects)
        if n_in != frame.height + n_bad:
            raise AssertionError(f"a chunk of {n_in} rows gave {frame.height} scores and {n_bad} rejects")
        return Scores(answers, rejects, frame.height, n_bad, self.missing(frame))

    def _key(self, batch: RawBatch, rows: npt.NDArray[np.int64]) -> pl.Series:
        """Return what names these rows: the id as it was given, whatever the schema takes it for; else their number.

        Text stays text here, since later rows may hold W-17 or 007; see :meth:`numbered`.
        """
        id_ = self.id_
        if id_ is None or id_ not in batch.frame.columns:
            return pl.Series("row", rows, dtype=pl.Int64)
        values, field = values_of(batch.frame, id_)[np.searchsorted(batch.rows, rows)], self.plan.schema.field(id_)
        if values.dtype.is_float() and field is not None and field.type == "integer":
            whole = values.is_finite() & (values == values.round())  # pandas' whole numbers beside missing ones
            values = values.set(~whole.fill_null(False), None).cast(pl.Int64)
        elif values.dtype in (pl.Categorical, pl.Enum):
            values = values.cast(pl.String)
        return values.alias(id_)

    def numbered(self, keys: Iterable[pl.Series]) -> bool:
        """Tell whether keys of text are the integers that the schema takes them for, and come back unchanged as such."""
        field = self.plan.schema.field(self.id_) if self.id_ is not None else None
        if field is None or field.type != "integer":
            return False
        texts = (key.alias("") for key in keys)
        return all(t.dtype == pl.String and bool(t.str.contains(_PLAIN_INTEGER).all()) for t in texts)

    def _in_scope(
        self, frame: pl.DataFrame, rows: npt.NDArray[np.int64]
    ) -> tuple[pl.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the rows that the recipe is about, with derived columns, their numbers, and those of the others."""
        return frame, rows, rows[:0]

    def predict(self, frame: DataLike) -> Any:
        """Answer every row of a table.

        Parameters
        ----------
        frame
            A polars or pandas frame, a pyarrow table, or a path.

        Returns
        -------
        frame
            Of the kind given (polars for a path), with the columns of ``tabkit score``.

        Raises
        ------
        DataError
            A column is missing, or a row does not fit; ``tabkit.score`` sets such rows apart instead.
        """
        source = open_input(frame, self.plan.schema.dialect)
        columns, answers = self.columns_of(source), []
        for batch in source.batches(CHUNK_ROWS):
            scores = self.score(batch, columns)
            if scores.n_rejected:
                first = scores.rejects.row(0, named=True)
                where = f"column '{first['column']}', {first['value']!r}: " if first["column"] else ""
                raise DataError(
                    f"{source.name}, row {first['row']}: {where}{first['reason']}. {scores.n_rejected:,} rows do not fit. "
                    "Fix them, or use tabkit.score, which writes them to a file with their reasons."
                )
            answers.append(scores.answers)
        like: Any = frame
        whole = pl.concat(answers or [self.empty()], how="vertical_relaxed")
        return as_given(with_integers(whole) if self.numbered([whole.to_series(0)]) else whole, like)


@dataclass(frozen=True)
class TableBundle(Bundle):
    """A bundle that predicts the rows of a table."""

    encoder: Encoder
    model: Model

    def _needed(self) -> list[str]:
        # The key is read as it stands: an id that the schema takes for a number may well be none tomorrow.
        plan = replace(self.plan, recipe=self.plan.recipe.model_copy(update={"id": None}))
        return needed_columns(plan, for_target=False, features=self.encoder.inputs)

    def _in_scope(
        self, frame: pl.DataFrame, rows: npt.NDArray[np.int64]
    ) -> tuple[pl.DataFrame, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        frame = derive(frame, self.plan.recipe)
        if self.plan.recipe.where is None:
            return frame, rows, rows[:0]
        inside = matches(frame, self.plan.recipe.where, "where")
        at = inside.to_numpy()
        return frame.filter(inside), rows[at], rows[~at]

    def answer(self, frame: pl.DataFrame, key: pl.Series) -> pl.DataFrame:
        """Predict rows: key, prediction, and its interval or the probability of each class."""
        recipe, classes = self.plan.recipe, self.encoder.classes
        predicted = self.model.predict(self.encoder.encode(frame[[c for c in frame.columns if c != recipe.target]]))
        if recipe.task == "regression":
            assert self.manifest.half_width is not None
            low, high = band(recipe.scale, predicted, self.manifest.half_width)
            columns = (("prediction", predicted), ("prediction_low", low), ("prediction_high", high))
            return pl.DataFrame([key, *(pl.Series(name, values) for name, values in columns)])
        if recipe.task == "binary":
            assert self.manifest.threshold is not None
            chosen = (predicted[:, 1] >= self.manifest.threshold).astype(np.int64)
        else:
            chosen = predicted.argmax(axis=1)
        names = pl.Series("prediction", np.array(classes, dtype=object)[chosen].tolist(), dtype=pl.String)
        probabilities = (pl.Series(f"probability_{c}", predicted[:, k]) for k, c in enumerate(classes))
        return pl.DataFrame([key, names, *probabilities])

    def empty(self, key: pl.Series | None = None) -> pl.DataFrame:
        """Return the columns of the answers, without a row; the key like ``key``, if given."""
        recipe = self.plan.recipe
        if key is not None:
            key = key[:0]
        elif recipe.id is None:
            key = pl.Series("row", [], dtype=pl.Int64)
        else:
            field = self.plan.schema.field(recipe.id)
            assert field is not None
            dtype = {"integer": pl.Int64, "number": pl.Float64}.get(field.type, pl.String)
            key = pl.Series(recipe.id, [], dtype=dtype)
        numbers = [f"probability_{c}" for c in self.encoder.classes]
        first = pl.Series("prediction", [], dtype=pl.String)
        if recipe.task == "regression":
            first, numbers = pl.Series("prediction", [], dtype=pl.Float64), ["prediction_low", "prediction_high"]
        return pl.DataFrame([key, first, *(pl.Series(name, [], dtype=pl.Float64) for name in numbers)])


def with_integers(answers: pl.DataFrame) -> pl.DataFrame:
    """Return answers with their key, the first column, as integers."""
    key = answers.to_series(0)
    return answers.with_columns(key.alias("").cast(pl.Int64).alias(key.name))


def count_rows(rejects: pl.DataFrame) -> int:
    """Return the number of rows that rejects speak of: a row may fail in several cells."""
    return int(rejects["row"].n_unique()) if rejects.height else 0


def _rejected(batch: RawBatch, rows: npt.NDArray[np.int64], where: str | None) -> pl.DataFrame:
    n, reason = len(rows), f"outside the recipe's rows ({where})"
    return pl.DataFrame(
        {"file": [batch.file] * n, "row": rows, "column": [""] * n, "value": [""] * n, "reason": [reason] * n},
        schema=REJECTS,
    )
