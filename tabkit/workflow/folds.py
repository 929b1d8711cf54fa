"""The procedure on every outer fold: folds side by side in processes, each kept once it is measured.

A finished fold is kept beside the run's folder until the run is written, so that an interrupted run goes on after the
folds that it finished. What is kept is found again by a hash of all that it depends on, tabkit's own code included: a
run with other data, another recipe or another version of tabkit never takes it for its own.

A kept fold is two files, JSON and safetensors: what was found, and the predictions of its holdout. Models are not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tabkit.adapt import Watch
from tabkit.data.split import Split
from tabkit.errors import UsageError
from tabkit.evaluate.folds import Fold
from tabkit.evaluate.ledger import LEDGER, ledger_path
from tabkit.evaluate.tables import TableFound
from tabkit.files import whole_folder
from tabkit.result import TableFindings, to_json
from tabkit.workflow.procedure import Procedure

FINDINGS, PREDICTIONS = "findings.json", "predictions.safetensors"
LOOK_SECONDS = 0.5
"""How often progress is written by a process that measures a fold, and looked at by the one that waits."""


def keep(found: TableFound, folder: Path) -> None:
    """Write what was found on a fold into a new folder, which is there whole or not at all."""
    with whole_folder(folder) as place:
        arrays = {name: np.ascontiguousarray(predicted) for name, predicted in found.predictions.items()}
        save_file(arrays, place / PREDICTIONS)
        (place / FINDINGS).write_text(to_json(found.findings), encoding="utf-8")


def kept(folder: Path) -> TableFound | None:
    """Return what :func:`keep` wrote; None if there is nothing, or it cannot be read."""
    try:
        findings = TableFindings.model_validate_json((folder / FINDINGS).read_text(encoding="utf-8"))
        return TableFound(findings, load_file(folder / PREDICTIONS))
    except (OSError, ValueError, ValidationError, SafetensorError):
        return None


def folder_of(procedure: Procedure, parent: Path) -> Path:
    """Return where the folds of this very procedure are kept under ``parent``."""
    plan, rows, budget = procedure.plan, procedure.rows, procedure.budget
    digest = hashlib.sha256()
    facts = {
        "packages": sorted(f"{d.name}={d.version}" for d in metadata.distributions()),
        "recipe": plan.recipe.model_dump(mode="json"),
        "schema": plan.schema.model_dump(mode="json"),
        "data": rows.table.fingerprint,
        "weights": {name: asdict(m.opened_from) for name, m in procedure.opened.items() if m.opened_from is not None},
        "candidates": [item.name for item in procedure.todo],
        "seed": procedure.terms.seed,
        "budget": repr(budget),
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for source in rows.sources:
        digest.update(source.frame.hash_rows().to_numpy().tobytes())
    for module in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(module.read_bytes())
    return parent / f".folds-{digest.hexdigest()[:16]}"


def measure_folds(
    procedure: Procedure, splits: Sequence[Split], place: Path, jobs: int | None, watch: Watch
) -> tuple[Fold, ...]:
    """Measure every fold that is not kept yet; keep each as soon as it is done.

    Parameters
    ----------
    place
        Folder of the folds kept, from :func:`folder_of`.
    jobs
        Processes side by side; None for one per core, and one alone where networks are trained on a GPU.

    Raises
    ------
    UsageError
        A process was ended from outside, most often for want of memory; what was finished is kept.
    """
    from joblib import Parallel, cpu_count, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    place.mkdir(parents=True, exist_ok=True)
    finished = {split.fold: kept(_home(place, split)) for split in splits}
    left = [split for split in splits if finished[split.fold] is None]
    for split in left:  # what could not be read is made again
        shutil.rmtree(_home(place, split), ignore_errors=True)
    if len(left) < len(splits):
        n_kept = len(splits) - len(left)
        watch("folds", n_kept / len(splits), f"{n_kept} of {len(splits)} are kept from an interrupted run")
    one_device = procedure.budget.device == "cuda"
    n_jobs = max(1, min(jobs or (1 if one_device else cpu_count()), len(left)))
    if n_jobs == 1:
        for split in left:
            _measure(procedure, split, place, watch)
    else:
        threads = max(1, cpu_count() // n_jobs)
        tasks = (delayed(_measure)(procedure, split, place, None, ledger_path()) for split in left)
        try:
            with _passed_on(left, place, watch), parallel_config("loky", inner_max_num_threads=threads):
                Parallel(n_jobs, batch_size=1, pre_dispatch=n_jobs)(tasks)
        except TerminatedWorkerError:
            raise UsageError(
                f"A process that measured a fold was ended from outside; most often memory runs out. Folds that were "
                f"finished are kept in {place}. Run the command again with fewer --jobs than {n_jobs}."
            ) from None
    folds = []
    for split in splits:
        found = finished[split.fold] or kept(_home(place, split))
        assert found is not None, f"{_home(place, split)} was measured and cannot be read"
        folds.append(Fold(split, found))
    return tuple(folds)


def _measure(
    procedure: Procedure, split: Split, place: Path, watch: Watch | None = None, ledger: Path | None = None
) -> None:
    """Measure one fold and keep it; in another process, progress goes to a file and the ledger is the parent's."""
    if ledger is not None:
        os.environ[LEDGER] = str(ledger)
    progress = _Progress(procedure, split, place, watch)
    keep(procedure.find(split, progress), _home(place, split))
    progress("done", 1.0, "")
    _now(place, split).unlink(missing_ok=True)


class _Progress:
    """Progress of a fold as one stage, the share of its steps begun; to a watch, or to a file for who waits."""

    def __init__(self, procedure: Procedure, split: Split, place: Path, watch: Watch | None) -> None:
        self.split, self.place, self.watch = split, place, watch
        self.steps = len(procedure.todo) + 4  # pretraining, controls, learning curve, harness
        self.begun: dict[str, None] = {}
        self.next = 0.0

    def __call__(self, stage: str, fraction: float, note: str) -> None:
        self.begun[stage] = None
        share = 1.0 if stage == "done" else min(0.99, (len(self.begun) - 1 + fraction) / self.steps)
        if self.watch is not None:
            self.watch(_stage(self.split), share, stage)
        elif time.monotonic() >= self.next:
            self.next = time.monotonic() + LOOK_SECONDS
            with suppress(OSError):  # progress is not worth a run
                _now(self.place, self.split).write_text(json.dumps([share, stage]), encoding="utf-8")


@contextmanager
def _passed_on(splits: list[Split], place: Path, watch: Watch) -> Iterator[None]:
    """Tell ``watch`` what the processes write of their progress."""
    over = threading.Event()

    def look() -> None:
        left = {split.fold: split for split in splits}
        while left and not over.wait(LOOK_SECONDS):
            for split in list(left.values()):
                if _home(place, split).exists():
                    watch(_stage(split), 1.0, "done")
                    del left[split.fold]
                    continue
                with suppress(OSError, ValueError):  # not begun, or being written
                    share, stage = json.loads(_now(place, split).read_text(encoding="utf-8"))
                    watch(_stage(split), share, stage)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _stage(split: Split) -> str:
    return f"fold {split.fold + 1}/{split.n_folds}"


def _home(place: Path, split: Split) -> Path:
    return place / f"fold-{split.fold + 1}"


def _now(place: Path, split: Split) -> Path:
    return place / f"fold-{split.fold + 1}.now"
