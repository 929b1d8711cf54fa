"""Score new rows with a bundle: streamed, in bounded memory, each row accounted for.

Rows in = rows scored + rows rejected, always. Every chunk is written as a part beside the output; the parts
become the output in one rename at the end, so a kill leaves nothing half-written and ``resume`` goes on.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from tabkit.bundle import Bundle, ListBundle, is_ranking, load_bundle, load_lists
from tabkit.data.conform import conform
from tabkit.data.derive import derive, matches
from tabkit.data.source import REJECTS, Input, RawBatch, open_input
from tabkit.data.target import band
from tabkit.data.validate import needed_columns
from tabkit.errors import DataError, UsageError, nearest
from tabkit.rankers.base import RECENT_DAYS, popularity

CHUNK_ROWS = 50_000
_ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class Scored:
    """What scoring did; ``ignored`` are the input's columns that the model does not need."""

    out: Path
    rejects: Path | None
    rows_in: int
    rows_scored: int
    rows_rejected: int
    ignored: tuple[str, ...]


def score(
    bundle: str | Path,
    data: str | Path,
    out: str | Path,
    rejects: str | Path | None = None,
    resume: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    watch: Callable[[int], None] = lambda rows: None,
) -> Scored:
    """Score every row of ``data`` and write ``out`` (CSV or Parquet, by its ending).

    Parameters
    ----------
    rejects
        Where rows that do not fit go, with their reason; ``OUT.rejects.csv`` where None. Written only if any.
    resume
        Go on after an interruption, from the parts it left.
    chunk_rows
        Rows held in memory at a time; the result does not depend on it.
    watch
        Called with the number of rows done.

    Raises
    ------
    BundleError
        The bundle is broken.
    DataError
        The file as a whole does not fit: a needed column is missing.
    UsageError
        The output cannot be written, or there is nothing to resume.
    """
    loaded = load_lists(Path(bundle)) if is_ranking(Path(bundle)) else load_bundle(Path(bundle))
    target = Path(out)
    if target.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--out {target}: the ending decides the format. Expected .csv or .parquet.")
    rejects_path = Path(rejects) if rejects is not None else target.with_name(f"{target.name}.rejects.csv")
    if rejects_path.suffix.lower() not in _ENDINGS:
        raise UsageError(f"--rejects {rejects_path}: the ending decides the format. Expected .csv or .parquet.")
    source = open_input(data, loaded.plan.schema.dialect)
    _check_places(target, rejects_path, source, Path(bundle))
    columns = _columns(loaded, source)
    parts = _Parts.open(target, rejects_path, loaded, source, chunk_rows, resume)

    totals = parts.totals()
    done = 0
    try:
        for number, batch in enumerate(source.batches(chunk_rows)):
            done += len(batch.rows) + _n_rows(batch.malformed)
            if number >= parts.finished:
                good, n_good, bad, n_bad = _score_batch(loaded, source, batch, columns)
                totals = {"scored": totals["scored"] + n_good, "rejected": totals["rejected"] + n_bad}
                parts.add(number, good, bad, totals)
            watch(done)
    except DataError:
        parts.discard()  # a file that has to be mended is another job: its parts could never be resumed
        raise
    if totals["scored"] + totals["rejected"] != done:
        raise AssertionError(f"rows in {done} != scored {totals['scored']} + rejected {totals['rejected']}")
    parts.finish(totals, _empty(loaded))
    ignored = tuple(c for c in source.columns if c not in columns)
    wrote = rejects_path if totals["rejected"] else None
    return Scored(target, wrote, done, totals["scored"], totals["rejected"], ignored)


def _check_places(out: Path, rejects: Path, source: Input, bundle: Path) -> None:
    """Check, before any work, that the outputs can be written and that nothing else is lost by it."""
    taken = {file.resolve(): f"the input {file}" for file in source.files}
    for flag, path in (("--out", out), ("--rejects", rejects)):
        place = path.resolve()
        if place in taken:
            raise UsageError(f"{flag} {path} is {taken[place]} as well, which would be lost. Choose another name.")
        taken[place] = f"{flag} {path}"
        if place.is_relative_to(bundle.resolve()):
            raise UsageError(f"{flag} {path} lies inside the bundle, which must not change. Choose another folder.")
        if path.is_dir():
            raise UsageError(f"{flag} {path} is a folder. Expected the name of a file to write.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=path.parent).close()
        except OSError as problem:
            raise UsageError(
                f"{flag} {path} cannot be written ({problem.strerror}). Choose a folder you may write to."
            ) from None


def _columns(bundle: Bundle | ListBundle, source: Input) -> list[str]:
    """Return the input columns scoring needs: those behind the features, the scope and the id."""
    if isinstance(bundle, ListBundle):
        assert bundle.plan.recipe.id is not None
        needed = [bundle.plan.recipe.id]
    else:
        needed = needed_columns(bundle.plan, for_target=False, features=bundle.encoder.inputs)
    for column in needed:
        if column not in source.columns:
            raise DataError(
                f"{source.name}: column '{column}' is missing, and the model needs it.{nearest(column, source.columns)} "
                f"It needs: {', '.join(needed)}."
            )
    return needed


def _score_batch(
    bundle: Bundle | ListBundle, source: Input, batch: RawBatch, columns: list[str]
) -> tuple[pl.DataFrame, int, pl.DataFrame, int]:
    """Return (output, number of rows scored, reject lines, number of rejected rows) of one batch."""
    plan = bundle.plan
    fitted = conform(batch, plan.schema, columns, source.decimal)
    if isinstance(bundle, ListBundle):
        rejected = pl.concat([batch.malformed, fitted.rejects]).sort("row", maintain_order=True)
        return _list(bundle, fitted.frame), fitted.frame.height, rejected, _n_rows(rejected)
    frame, rows, bad = derive(fitted.frame, plan.recipe), fitted.rows, [batch.malformed, fitted.rejects]
    if plan.recipe.where is not None:
        inside = matches(frame, plan.recipe.where, "where")
        outside = rows[~inside.to_numpy()]
        bad.append(_rejected(batch, outside, f"outside the recipe's rows ({plan.recipe.where})"))
        frame, rows = frame.filter(inside), rows[inside.to_numpy()]
    good = _predict(bundle, frame, rows) if frame.height else _empty(bundle)
    n_in = len(batch.rows) + _n_rows(batch.malformed)
    rejected = pl.concat(bad).sort("row", maintain_order=True)
    n_bad = _n_rows(rejected)
    if n_in != good.height + n_bad:
        raise AssertionError(f"a chunk of {n_in} rows gave {good.height} scores and {n_bad} rejects")
    return good, good.height, rejected, n_bad


def _n_rows(rejects: pl.DataFrame) -> int:
    return int(rejects["row"].n_unique()) if rejects.height else 0


def _rejected(batch: RawBatch, rows: np.ndarray, reason: str) -> pl.DataFrame:
    n = len(rows)
    return pl.DataFrame(
        {"file": [batch.file] * n, "row": rows, "column": [""] * n, "value": [""] * n, "reason": [reason] * n},
        schema=REJECTS,
    )


def _predict(bundle: Bundle, frame: pl.DataFrame, rows: np.ndarray) -> pl.DataFrame:
    recipe, classes = bundle.plan.recipe, bundle.encoder.classes
    predicted = bundle.model.predict(bundle.encoder.encode(frame.drop(recipe.target, strict=False)))
    key = frame[recipe.id].alias(recipe.id) if recipe.id is not None else pl.Series("row", rows, dtype=pl.Int64)
    if recipe.task == "regression":
        assert bundle.half_width is not None
        low, high = band(recipe.scale, predicted, bundle.half_width)
        return pl.DataFrame(
            [
                key,
                pl.Series("prediction", predicted),
                pl.Series("prediction_low", low),
                pl.Series("prediction_high", high),
            ]
        )
    if recipe.task == "binary":
        assert bundle.threshold is not None
        chosen = (predicted[:, 1] >= bundle.threshold).astype(np.int64)
    else:
        chosen = predicted.argmax(axis=1)
    names = pl.Series("prediction", np.array(classes, dtype=object)[chosen].tolist(), dtype=pl.String)
    return pl.DataFrame([key, names, *(pl.Series(f"probability_{c}", predicted[:, k]) for k, c in enumerate(classes))])


def _list(bundle: ListBundle, users: pl.DataFrame) -> pl.DataFrame:
    """Return a row per user and rank; users without history get what is popular now, and are marked ``cold``."""
    recipe, past = bundle.plan.recipe, bundle.ranker.past
    assert recipe.id is not None
    asked = users[recipe.id]
    places = pl.Series(range(past.n_users), dtype=pl.Int32)
    code = asked.replace_strict(past.users, places, default=None, return_dtype=pl.Int32).fill_null(-1).to_numpy()
    warm = (code >= 0) & past.active[code]
    k = bundle.length
    items = np.full((len(code), k), -1, np.int32)
    scores = np.zeros((len(code), k), np.float32)
    if warm.any():
        lists = bundle.ranker.top(code[warm].astype(np.int32), k, bundle.new_only, bundle.among)
        items[warm], scores[warm] = lists.items, lists.scores
    popular = popularity(past, RECENT_DAYS)
    if bundle.among is not None:
        popular = np.where(bundle.among, popular, 0.0)
    best = np.argsort(-popular, kind="stable")[:k]
    best = best[popular[best] > 0]
    items[np.ix_(~warm, range(len(best)))] = best
    scores[np.ix_(~warm, range(len(best)))] = popular[best]
    row, rank = np.nonzero(items >= 0)
    listed = past.items.gather(items[row, rank].astype(np.int64))
    return pl.DataFrame(
        [
            asked.gather(row).alias(recipe.id),
            pl.Series("rank", rank + 1, dtype=pl.Int32),
            listed.alias(recipe.target),
            pl.Series("score", scores[row, rank], dtype=pl.Float32),
            pl.Series("cold", ~warm[row]),
        ]
    )


def _empty(bundle: Bundle | ListBundle) -> pl.DataFrame:
    """Return the output's columns without a row."""
    recipe = bundle.plan.recipe
    if isinstance(bundle, ListBundle):
        return _list(bundle, pl.DataFrame([bundle.ranker.past.users[:0].alias(str(recipe.id))]))
    if recipe.id is None:
        key = pl.Series("row", [], dtype=pl.Int64)
    else:
        field = bundle.plan.schema.field(recipe.id)
        assert field is not None
        key = pl.Series(recipe.id, [], dtype={"integer": pl.Int64, "number": pl.Float64}.get(field.type, pl.String))
    if recipe.task == "regression":
        values = [pl.Series(n, [], dtype=pl.Float64) for n in ("prediction", "prediction_low", "prediction_high")]
    else:
        names = [f"probability_{c}" for c in bundle.encoder.classes]
        values = [pl.Series("prediction", [], dtype=pl.String), *(pl.Series(n, [], dtype=pl.Float64) for n in names)]
    return pl.DataFrame([key, *values])


@dataclass
class _Parts:
    """Finished chunks on disk, beside the output; ``state.json`` says what they are parts of."""

    folder: Path
    out: Path
    rejects: Path
    state: dict[str, Any]
    finished: int

    @classmethod
    def open(
        cls, out: Path, rejects: Path, bundle: Bundle | ListBundle, source: Input, chunk_rows: int, resume: bool
    ) -> _Parts:
        folder = out.with_name(f".{out.name}.parts")
        files = [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in source.files]
        job = {"bundle": bundle.seal, "files": files, "chunk_rows": chunk_rows}
        state_file = folder / "state.json"
        try:
            if resume:
                if not state_file.is_file():
                    raise UsageError(f"There is nothing to resume: {folder} holds no parts. Run without --resume.")
                state = json.loads(state_file.read_text(encoding="utf-8"))
                if state["job"] != job:
                    raise UsageError(
                        f"{folder} holds parts of another job (bundle, input or chunk size changed). Run without --resume."
                    )
                return cls(folder, out, rejects, state, state["finished"])
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            parts = cls(folder, out, rejects, {"job": job, "finished": 0, "scored": 0, "rejected": 0}, 0)
            parts._save_state()
            return parts
        except OSError as problem:
            raise UsageError(
                f"--out {out} cannot be written ({problem.strerror}: {problem.filename}). Choose another place."
            ) from None

    def totals(self) -> dict[str, int]:
        return {"scored": self.state["scored"], "rejected": self.state["rejected"]}

    def add(self, number: int, good: pl.DataFrame, bad: pl.DataFrame, totals: dict[str, int]) -> None:
        """Write one chunk; it counts once ``state.json`` says so."""
        good.write_parquet(self.folder / f"{number:06d}.scored.parquet")
        bad.write_parquet(self.folder / f"{number:06d}.rejects.parquet")
        self.state = {**self.state, "finished": number + 1, **totals}
        self._save_state()

    def _save_state(self) -> None:
        temporary = self.folder / "state.json.tmp"
        temporary.write_text(json.dumps(self.state), encoding="utf-8")
        os.replace(temporary, self.folder / "state.json")

    def finish(self, totals: dict[str, int], empty: pl.DataFrame) -> None:
        """Turn the parts into the output and the rejects, each in one rename, and remove them."""
        n = self.state["finished"]
        try:
            _join(self.out, (pl.read_parquet(self.folder / f"{i:06d}.scored.parquet") for i in range(n)), empty)
            if totals["rejected"]:
                bad = (pl.read_parquet(self.folder / f"{i:06d}.rejects.parquet") for i in range(n))
                _join(self.rejects, bad, pl.DataFrame(schema=REJECTS))
            else:
                self.rejects.unlink(missing_ok=True)  # those of an earlier scoring would be taken for this one's
        except OSError as problem:
            raise UsageError(
                f"{self.out} cannot be written ({problem}). The parts are kept: go on with --resume."
            ) from None
        self.discard()

    def discard(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _join(path: Path, frames: Iterator[pl.DataFrame], empty: pl.DataFrame) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if path.suffix.lower() == ".csv":
            with temporary.open("wb") as file:
                empty.write_csv(file)
                for frame in frames:
                    frame.write_csv(file, include_header=False)
        else:
            _write_parquet(temporary, frames, empty)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only where something stopped it


def _write_parquet(path: Path, frames: Iterator[pl.DataFrame], empty: pl.DataFrame) -> None:
    writer: pq.ParquetWriter | None = None
    try:
        for frame in frames:
            arrow = frame.to_arrow()
            writer = writer or pq.ParquetWriter(path, arrow.schema)
            writer.write_table(arrow)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        empty.write_parquet(path)


def as_json(scored: Scored) -> str:
    """Return the summary as JSON text."""
    return json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in asdict(scored).items()})
