"""Score new rows with a bundle: streamed, in bounded memory, each row accounted for.

Rows in = rows scored + rows rejected, always. Every chunk is written as a part beside the output; the parts
become the output in one rename at the end, so a kill leaves nothing half-written and ``resume`` goes on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, Unpack

import polars as pl
import pyarrow.parquet as pq

from tabkit.bundle import (
    CHUNK_ROWS,
    Bundle,
    ListBundle,
    Missing,
    Scores,
    Wishes,
    count_rows,
    load_bundle,
    with_integers,
)
from tabkit.data.source import REJECTS, DataLike, Input, open_input
from tabkit.errors import DataError, UsageError
from tabkit.files import only_writer, whole_file, write_text

_ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class Scored:
    """What scoring did.

    Attributes
    ----------
    ignored
        The input's columns that the model does not need.
    without_id
        The recipe's id, if the input lacks it: rows are then named by their number, in the column ``row``.
    missing
        Of lists: how many rows were without history.
    """

    out: Path
    rejects: Path | None
    rows_in: int
    rows_scored: int
    rows_rejected: int
    ignored: tuple[str, ...]
    without_id: str | None = None
    missing: Missing | None = None


def score(  # noqa: PLR0913 (the options of the verb)
    bundle: str | Path,
    data: DataLike,
    out: str | Path,
    *,
    rejects: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    watch: Callable[[int, int], None] = lambda rows, total: None,
    **wishes: Unpack[Wishes],
) -> Scored:
    """Score every row of ``data`` and write ``out`` (CSV or Parquet, by its ending).

    Parameters
    ----------
    rejects
        Where rows that do not fit go, with their reason; ``OUT.rejects.csv`` if None. Written only if there are any.
    resume
        Go on after an interruption, from the parts it left.
    force
        Write over an output that exists already.
    chunk_rows
        Rows held in memory at a time; the result does not depend on it.
    watch
        Called with the number of rows done, and of all rows (of CSV files, of all lines).
    wishes
        Of lists: ``events``, ``among``, ``without``, ``k``, ``similar``; see :class:`~tabkit.bundle.Wishes`.

    Raises
    ------
    BundleError
        The bundle is broken.
    DataError
        The file as a whole does not fit: a needed column is missing.
    UsageError
        The output exists, cannot be written or is being written by another scoring, there is nothing to resume, or a
        table is asked for lists.
    """
    loaded = load_bundle(bundle)
    asked = {name: value for name, value in wishes.items() if value is not None and value is not False}
    if asked and not isinstance(loaded, ListBundle):
        raise UsageError(
            f"--{next(iter(asked))} is for bundles of lists, and {bundle} answers the rows of a table. Leave it out."
        )
    target = Path(out)
    rejects_path = Path(rejects) if rejects is not None else target.with_name(f"{target.name}.rejects.csv")
    source = open_input(data, loaded.plan.schema.dialect)
    _check_places(target, rejects_path, source, Path(bundle))
    if target.exists() and not (force or resume):
        raise UsageError(f"--out {target} exists already. Choose another name, or give --force to write over it.")
    with only_writer(target) as alone:
        if not alone:
            raise UsageError(
                f"--out {target} is being written by another scoring. Wait for it, or choose another name."
            )
        job = _job(loaded, source, chunk_rows, asked)
        parts = _Parts.open(target, rejects_path, job, resume)
        if isinstance(loaded, ListBundle) and asked:
            loaded = loaded.asking(**wishes)
        return _score(loaded, source, parts, chunk_rows, watch)


def _score(bundle: Bundle, source: Input, parts: _Parts, chunk_rows: int, watch: Callable[[int, int], None]) -> Scored:
    totals, total, done = parts.totals(), source.count_rows(), 0
    try:
        columns = bundle.columns_of(source)
        for number, batch in enumerate(source.batches(chunk_rows)):
            done += len(batch.rows) + count_rows(batch.malformed)
            if number >= parts.finished:
                scores = bundle.score(batch, columns)
                totals = totals.plus(scores)
                parts.add(number, scores, totals)
            watch(done, total)
    except DataError:
        parts.discard()  # a file that has to be fixed is another job: its parts could never be resumed
        raise
    if totals.scored + totals.rejected != done:
        raise AssertionError(f"rows in {done} != scored {totals.scored} + rejected {totals.rejected}")
    parts.finish(totals, bundle)
    id_ = bundle.id_
    ignored = tuple(c for c in source.columns if c not in columns and c != id_)
    wrote = parts.rejects if totals.rejected else None
    without_id = None if id_ in source.columns else id_
    return Scored(parts.out, wrote, done, totals.scored, totals.rejected, ignored, without_id, totals.missing)


def _check_places(out: Path, rejects: Path, source: Input, bundle: Path) -> None:
    """Check, before any work, that the outputs can be written and that nothing else is lost by it."""
    taken = {file.resolve(): f"the input {file}" for file in source.files}
    for flag, path in (("--out", out), ("--rejects", rejects)):
        if path.suffix.lower() not in _ENDINGS:
            raise UsageError(f"{flag} {path}: the ending decides the format. Expected .csv or .parquet.")
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


@dataclass(frozen=True)
class _Totals:
    """Rows of the finished chunks."""

    scored: int = 0
    rejected: int = 0
    missing: Missing | None = None

    def plus(self, scores: Scores) -> _Totals:
        more, missing = scores.missing, self.missing
        together = missing if more is None else more if missing is None else missing + more
        return _Totals(self.scored + scores.n_scored, self.rejected + scores.n_rejected, together)


class _Job(TypedDict):
    """What parts belong to: those of another job must not be gone on with."""

    bundle: str
    files: list[list[str | int]]
    chunk_rows: int
    wishes: dict[str, str]


class _State(TypedDict):
    """What ``state.json`` holds; ``missing`` is cold, unknown, and the pair of spellings."""

    job: _Job
    finished: int
    scored: int
    rejected: int
    missing: tuple[int, int, list[str]] | None


def _job(bundle: Bundle, source: Input, chunk_rows: int, wishes: Mapping[str, Any]) -> _Job:
    """Say what is scored by what, in a form that another process can compare."""
    dialect = bundle.plan.schema.dialect
    tables = {n: str(_files(open_input(v, dialect))) for n, v in wishes.items() if n in ("events", "among", "without")}
    asked = {name: tables.get(name, str(value)) for name, value in wishes.items()}
    return {"bundle": bundle.seal, "files": _files(source), "chunk_rows": chunk_rows, "wishes": asked}


def _files(source: Input) -> list[list[str | int]]:
    if source.frame is not None:
        return [["frame", source.frame.height, int(source.frame.hash_rows().sum() % 2**63)]]
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in source.files]


@dataclass
class _Parts:
    """Finished chunks on disk, beside the output; ``state.json`` says what they are parts of."""

    folder: Path
    out: Path
    rejects: Path
    state: _State

    @property
    def finished(self) -> int:
        return self.state["finished"]

    @classmethod
    def open(cls, out: Path, rejects: Path, job: _Job, resume: bool) -> _Parts:
        folder = out.with_name(f".{out.name}.parts")
        state_file = folder / "state.json"
        try:
            if resume:
                if not state_file.is_file():
                    raise UsageError(f"There is nothing to resume: {folder} holds no parts. Run without --resume.")
                state = json.loads(state_file.read_text(encoding="utf-8"))
                if state["job"] != job:
                    raise UsageError(
                        f"{folder} holds parts of another job (bundle, input, options or chunk size changed). Run without --resume."
                    )
                return cls(folder, out, rejects, state)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            parts = cls(folder, out, rejects, {"job": job, "finished": 0, "scored": 0, "rejected": 0, "missing": None})
            parts._save_state()
            return parts
        except OSError as problem:
            raise UsageError(
                f"--out {out} cannot be written ({problem.strerror}: {problem.filename}). Choose another place."
            ) from None

    def totals(self) -> _Totals:
        kept = self.state["missing"]
        missing = None if kept is None else Missing(kept[0], kept[1], (kept[2][0], kept[2][1]) if kept[2] else None)
        return _Totals(self.state["scored"], self.state["rejected"], missing)

    def add(self, number: int, scores: Scores, totals: _Totals) -> None:
        """Write one chunk; it counts once ``state.json`` says so."""
        scores.answers.write_parquet(self.folder / f"{number:06d}.scored.parquet")
        scores.rejects.write_parquet(self.folder / f"{number:06d}.rejects.parquet")
        self.state["finished"] = number + 1
        self.state["scored"], self.state["rejected"] = totals.scored, totals.rejected
        if (m := totals.missing) is not None:
            self.state["missing"] = (m.cold, m.unknown, list(m.near or ()))
        self._save_state()

    def _save_state(self) -> None:
        write_text(self.folder / "state.json", json.dumps(self.state))

    def finish(self, totals: _Totals, bundle: Bundle) -> None:
        """Turn the parts into the output and the rejects, each in one rename, and remove them."""
        n = self.finished
        empty = pl.read_parquet(self.folder / "000000.scored.parquet")[:0] if n else bundle.empty()
        parts = [self.folder / f"{i:06d}.scored.parquet" for i in range(n)]
        # In CSV, a number and its text are the same.
        typed = self.out.suffix.lower() != ".csv"
        numbered = typed and bundle.numbered(
            pl.scan_parquet(part).select(pl.nth(0)).collect().to_series() for part in parts
        )
        finish = with_integers if numbered else _as_it_is
        try:
            _join(self.out, (finish(pl.read_parquet(part)) for part in parts), finish(empty))
            if totals.rejected:
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


def _as_it_is(answers: pl.DataFrame) -> pl.DataFrame:
    return answers


def _join(path: Path, frames: Iterator[pl.DataFrame], empty: pl.DataFrame) -> None:
    with whole_file(path) as temporary:
        if path.suffix.lower() != ".csv":
            _write_parquet(temporary, frames, empty)
            return
        with temporary.open("wb") as file:
            empty.write_csv(file)
            for frame in frames:
                frame.write_csv(file, include_header=False)


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
