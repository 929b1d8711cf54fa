"""The run folder: checked before any work, written whole at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from tabkit.bundle import Contents, save_bundle
from tabkit.errors import UsageError
from tabkit.files import whole_folder
from tabkit.recipe import Plan
from tabkit.report import card, scorecard_table, write_report
from tabkit.result import Result, write_result

MIN_FREE_BYTES = 50 * 2**20
"""Room a run wants before it begins, so that an hour of work does not end at a full disk."""


def new_folder(out: str | Path | None, plan: Plan) -> Path:
    """Return the folder to make, after making sure that it can be made.

    Raises
    ------
    UsageError
        It holds something already, cannot be written, or the disk is nearly full.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = Path(out) if out is not None else Path("runs") / f"{plan.recipe.name.replace('/', '-')}-{stamp}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--out {folder} exists already and is not empty. Choose another folder, or remove it.")
    # What is not there yet is made once there is something to put into it.
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as problem:
        raise UsageError(
            f"--out {folder} cannot be written ({problem.strerror}). Choose a folder you may write to."
        ) from None
    free = shutil.disk_usage(there).free
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"--out {folder}: {free // 2**20} MB are free there. Expected at least {MIN_FREE_BYTES // 2**20} MB for a run's files."
        )
    return folder


def write_run(
    folder: Path,
    plan: Plan,
    result: Result,
    tables: Mapping[str, pl.DataFrame],
    rejects: pl.DataFrame,
    bundles: Mapping[str, Contents],
) -> None:
    """Write the run folder whole: an interrupted run leaves none.

    A report that cannot be made does not cost the work: the folder is whole without it, and the error says how to write it.

    Parameters
    ----------
    tables
        By name of the file: ``holdout_predictions``; of lists, ``holdout_lists`` of every candidate.
    rejects
        Rows that did not fit; written if there are any.
    bundles
        By name of the folder: ``bundle``, and ``student`` if one was taught.
    """
    fault: Exception | None = None
    with whole_folder(folder) as place:
        write_result(place, result)
        scorecard_table(result).write_parquet(place / "scorecard.parquet")
        for name, table in tables.items():
            table.write_parquet(place / f"{name}.parquet")
        if rejects.height:
            rejects.write_csv(place / "rejects.csv")
        for name, contents in bundles.items():
            save_bundle(place / name, plan, contents, result, card(result, plan, contents.candidate.name))
        try:
            write_report(place)
        except Exception as problem:
            fault = problem
    if fault is not None:
        fault.add_note(f"Everything but the report is in {folder}; 'tabkit report {folder}' writes it.")
        raise fault
