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
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from tabkit.adapt import Watch
from tabkit.adapt.runtime import silent
from tabkit.data.split import Split
from tabkit.errors import UsageError
from tabkit.evaluate.ledger import LEDGER, ledger_path
from tabkit.evaluate.pooled import Fold
from tabkit.evaluate.tables import TableFound
from tabkit.files import whole_folder
from tabkit.result import TableFindings, to_json
from tabkit.workflow.procedure import Procedure

FINDINGS, PREDICTIONS = "findings.json", "predictions.safetensors"


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
    digest = hashlib.sha256(f"{procedure.question} {procedure.budget!r}".encode())
    digest.update(json.dumps(sorted(f"{d.name}={d.version}" for d in metadata.distributions())).encode())
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
    from joblib import cpu_count

    place.mkdir(parents=True, exist_ok=True)
    finished = {split.fold: kept(_home(place, split)) for split in splits}
    left = [split for split in splits if finished[split.fold] is None]
    for split in left:  # what could not be read is made again
        shutil.rmtree(_home(place, split), ignore_errors=True)
    done = len(splits) - len(left)
    if done:
        watch("folds", done / len(splits), f"{done} of {len(splits)} are kept from an interrupted run")
    one_device = procedure.budget.device == "cuda"
    n_jobs = max(1, min(jobs or (1 if one_device else cpu_count()), len(left)))
    for fold in _measured(procedure, left, place, n_jobs, watch):
        done += 1
        watch("folds", done / len(splits), f"fold {fold + 1} is done, {done} of {len(splits)}")
    return tuple(Fold(split, finished[split.fold] or _read(place, split)) for split in splits)


def _measured(procedure: Procedure, splits: Sequence[Split], place: Path, n_jobs: int, watch: Watch) -> Iterator[int]:
    """Measure folds and yield the number of each as it is done; what happens inside one is told only in this process."""
    from joblib import Parallel, cpu_count, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    if n_jobs == 1:
        yield from (_measure(procedure, split, place, watch, ledger_path()) for split in splits)
        return
    tasks = (delayed(_measure)(procedure, split, place, silent, ledger_path()) for split in splits)
    try:
        with parallel_config("loky", inner_max_num_threads=max(1, cpu_count() // n_jobs)):
            yield from Parallel(n_jobs, batch_size=1, pre_dispatch=n_jobs, return_as="generator_unordered")(tasks)
    except TerminatedWorkerError:
        raise UsageError(
            f"A process that measured a fold was ended from outside; most often memory runs out. Folds that were "
            f"finished are kept in {place}. Run the command again with fewer --jobs than {n_jobs}."
        ) from None


def _measure(procedure: Procedure, split: Split, place: Path, watch: Watch, ledger: Path) -> int:
    """Measure one fold and keep it, perhaps in another process, whose ledger is the parent's; return its number."""
    os.environ[LEDGER] = str(ledger)
    keep(procedure.find(split, watch), _home(place, split))
    return split.fold


def _read(place: Path, split: Split) -> TableFound:
    found = kept(_home(place, split))
    assert found is not None, f"{_home(place, split)} was measured and cannot be read"
    return found


def _home(place: Path, split: Split) -> Path:
    return place / f"fold-{split.fold + 1}"
