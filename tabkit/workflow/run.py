"""From a table or events to a verdict, a report and a bundle. :func:`run` reads top to bottom as the picture of the flow."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from tabkit.bundle import ListBundle, TableBundle, load_bundle
from tabkit.data.source import DataLike, open_input
from tabkit.data.validate import CheckReport
from tabkit.data.validate import check as check_table
from tabkit.errors import UsageError
from tabkit.evaluate.ledger import ledger_path
from tabkit.files import only_writer
from tabkit.recipe import Plan, load_recipe
from tabkit.report import summary_html
from tabkit.report.page import REPORT
from tabkit.result import Result
from tabkit.workflow.assemble import assemble
from tabkit.workflow.lists import ListRun
from tabkit.workflow.options import ListOptions, Settings, TableOptions, options_for
from tabkit.workflow.output import new_folder, write_run
from tabkit.workflow.tables import TableRun


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and what it found. A notebook shows verdict, gains and candidates."""

    folder: Path
    result: Result

    @property
    def decision(self) -> str:
        """The verdict's decision."""
        return self.result.verdict.decision

    @property
    def report(self) -> Path:
        """The report, a page for people."""
        return self.folder / REPORT

    @cached_property
    def bundle(self) -> TableBundle | ListBundle:
        """The champion, ready to answer new rows."""
        return load_bundle(self.folder / "bundle")

    def _repr_html_(self) -> str:
        return summary_html(self.result)


def run(recipe: str | Path, data: DataLike | None = None, **settings: Unpack[Settings]) -> Run:
    """Run a recipe: adapt, compare, decide, report, bundle.

    Parameters
    ----------
    recipe
        A shipped name (``finance/loan_default``) or a path to a recipe file.
    data
        A polars or pandas frame, a pyarrow table; CSV, Parquet, Arrow, a folder or a glob; the recipe's sample if None.
    settings
        See :class:`~tabkit.workflow.options.TableOptions` and :class:`~tabkit.workflow.options.ListOptions`: ``out``,
        ``seed``, ``budget``, ``device``, ``watch``, ``command``; for tables ``source``, ``distill``, ``weights``,
        ``jobs``; for events ``cutoffs``, ``base``.

    Raises
    ------
    UsageError, DataError
        The recipe, an option or the data cannot be used; the message says where, what was expected, and how to fix it.
    """
    started = time.perf_counter()
    plan = load_recipe(str(recipe))
    options = options_for(plan.recipe, settings)
    ledger_path()  # one that keeps nothing is refused now, not when the holdout is open
    work: Any = _work(plan, options)
    folder = new_folder(options.out, work.plan)
    with ExitStack() as until_written:
        if not until_written.enter_context(only_writer(folder)):
            raise UsageError(f"--out {folder} is being made by another run. Wait for it, or choose another folder.")
        work.read(data, folder)
        outcome = work.find(until_written)
        seconds = time.perf_counter() - started
        result = assemble(work.plan, options, outcome.findings, work.about(outcome), seconds, str(recipe))
        tables = {"holdout_predictions": work.predictions(outcome)}
        if isinstance(work, ListRun):
            tables["holdout_lists"] = work.lists(outcome)
        write_run(folder, work.plan, result, tables, work.rejects, work.bundles(outcome))
        work.finish()
    options.watch("bundle", 1.0, "")
    return Run(folder, result)


def check(recipe: str | Path, data: DataLike, source: DataLike | None = None) -> CheckReport:
    """Check a table against a recipe and its schema: every kind of failure, its count and first rows.

    If nothing fails, what a run does before it learns is done too, so that whatever a run would refuse is refused here.

    Parameters
    ----------
    source
        As for a run: a source table in the place of the recipe's.

    Raises
    ------
    UsageError, DataError
        The recipe or the file as a whole cannot be used; or the rows fit and cannot answer the recipe's question.
    """
    plan = load_recipe(str(recipe))
    work = _work(plan, options_for(plan.recipe, {"source": source}))
    report = check_table(plan, open_input(data, plan.schema.dialect))
    if report.ok:
        return replace(report, notes=(*report.notes, *work.rehearse(data)))
    return report


def _work(plan: Plan, options: TableOptions | ListOptions) -> ListRun | TableRun:
    return ListRun(plan, options) if isinstance(options, ListOptions) else TableRun(plan, options)
