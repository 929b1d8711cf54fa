"""Reading what a run needs: the table, its source tables, its classes. A run and ``pretrain icl --continue-on`` share it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.align import SourceTable, read_source
from tabkit.data.derive import check_uses
from tabkit.data.encode import as_text
from tabkit.data.frames import values_of
from tabkit.data.source import DataLike, Input, from_frame, open_input
from tabkit.data.target import check_scale, with_label
from tabkit.data.validate import RejectedRows, Table, read_table, without_undated
from tabkit.data.weighing import Weighing, takes_part
from tabkit.errors import DataError, UsageError, count, nearest
from tabkit.recipe import Plan, Source
from tabkit.samples import load_sample

MIN_ROWS = 30
"""Fewer labelled rows cannot be cut into three parts that say anything."""


@dataclass(frozen=True)
class TableRows:
    """The rows of a run: labelled and not, and those of the sources; ``weighing`` is how labelled rows weigh.

    ``weightless`` rows have a label and the weight 0: they take no part.
    """

    table: Table
    labelled: Table
    unlabelled: pl.DataFrame
    sources: tuple[SourceTable, ...]
    classes: tuple[str, ...]
    weighing: Weighing | None = None
    weightless: int = 0

    @property
    def source(self) -> pl.DataFrame | None:
        """The rows of all sources under each other; None without any."""
        return pl.concat([source.frame for source in self.sources]) if self.sources else None

    @property
    def source_weights(self) -> npt.NDArray[np.float64] | None:
        """The weights of the rows of all sources; None if each counts once."""
        if all(source.weights is None for source in self.sources):
            return None
        each = (np.ones(s.frame.height) if s.weights is None else s.weights for s in self.sources)
        return np.concatenate(list(each))

    @property
    def weights(self) -> npt.NDArray[np.float64] | None:
        """The weights of all labelled rows, for what is fitted on all of them, 1 on average; None if each counts once."""
        if self.weighing is None:
            return None
        weights = self.weighing.weights()
        return np.asarray(weights / weights.mean())


def input_of(plan: Plan, data: DataLike | None, sample: str | None, flag: str) -> Input:
    """Open what is given, or the sample if nothing is.

    Raises
    ------
    UsageError
        Nothing is given, and there is no sample.
    """
    if data is not None:
        return open_input(data, plan.schema.dialect)
    if sample is None:
        raise UsageError(f"Recipe {plan.recipe.name} has no sample of its own: give {flag}.")
    try:
        return from_frame(load_sample(sample), sample)
    except UsageError as problem:
        raise UsageError(f"{plan.path}: {problem}") from None


def read_rows(
    plan: Plan, data: DataLike | None, source: DataLike | None = None, rejects_to: Path | None = None
) -> TableRows:
    """Read and check the table and its sources.

    Parameters
    ----------
    data, source
        What is given in the place of the recipe's sample, and of its one source.
    rejects_to
        A folder for ``rejects.csv`` if too many rows do not fit.

    Raises
    ------
    DataError
        The rows do not fit, or cannot answer the recipe's question.
    """
    recipe = plan.recipe
    here = input_of(plan, data, recipe.sample, "--data FILE")
    try:
        table = read_table(plan, here, recipe.where, marked=True)
        sources = tuple(
            read_source(plan, given, rule, table, given is here) for rule, given in _source_inputs(plan, here, source)
        )
    except RejectedRows as problem:
        if rejects_to is None:
            raise
        rejects_to.mkdir(parents=True, exist_ok=True)
        problem.rejects.write_csv(rejects_to / "rejects.csv")
        raise DataError(f"{problem} All rejected rows and their reasons are in {rejects_to / 'rejects.csv'}.") from None
    table = without_undated(table, plan, here.name)
    labelled = with_label(values_of(table.frame, recipe.target))
    known = replace(table, frame=table.frame.filter(labelled), rows=table.rows[labelled.to_numpy()])
    weighs = takes_part(plan, known.frame, here.name)
    known = replace(known, frame=known.frame.filter(weighs), rows=known.rows[weighs])
    classes = _classes(plan, known.frame)
    check_uses(plan, known.frame)
    for each in sources:
        _check_source(plan, each, classes)
    unlabelled = table.frame.filter(~labelled)
    weighing = Weighing.of(plan, known.frame, unlabelled)
    return TableRows(table, known, unlabelled, sources, classes, weighing, int((~weighs).sum()))


def _source_inputs(plan: Plan, here: Input, given: DataLike | None) -> list[tuple[Source, Input]]:
    """Return each source with its rows: ``--source FILE`` in the place of the recipe's one, else the recipe's samples."""
    rules = plan.recipe.sources
    if given is not None:
        if len(rules) > 1:
            raise UsageError(
                f"--source: {plan.recipe.name} names {len(rules)} source tables, and it is not said which one to replace. "
                "Copy the recipe and keep one [source]."
            )
        opened = input_of(plan, given, None, "--source FILE")
        rule = rules[0] if rules else Source()
        return [(rule.model_copy(update={"name": opened.name}), opened)]
    return [(rule, input_of(plan, None, rule.sample, "--source FILE") if rule.sample else here) for rule in rules]


def _check_source(plan: Plan, source: SourceTable, classes: tuple[str, ...]) -> None:
    """Check that a source's labels can teach something about the target's."""
    recipe, label = plan.recipe, values_of(source.frame, plan.recipe.target)
    if len(label) < MIN_ROWS:
        raise DataError(
            f"Source '{source.name}' has {count(len(label), 'labelled row')}. Expected at least {MIN_ROWS} to pretrain on."
        )
    if label.n_unique() < 2:
        raise DataError(
            f"Source '{source.name}': target '{recipe.target}' is {label[0]!r} in every row, so it teaches nothing. "
            "Expected two values or more."
        )
    if recipe.task != "regression":
        other = sorted(set(as_text(label).unique()) - set(classes))
        if other:
            raise DataError(
                f"Source '{source.name}': target '{recipe.target}' has {', '.join(map(repr, other[:5]))}, which the target "
                f"table never has. Expected {', '.join(map(repr, classes))}: map them under [source.columns]."
            )
    if recipe.scale is not None:
        check_scale(recipe.scale, label.cast(pl.Float64).to_numpy(), recipe.target)


def _classes(plan: Plan, frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the classes in order, the positive one last; check that the target can be learned at all."""
    recipe, target = plan.recipe, values_of(frame, plan.recipe.target)
    if frame.height < MIN_ROWS:
        raise DataError(
            f"The table has {count(frame.height, 'labelled row')} in scope. Expected at least {MIN_ROWS} to train, choose and hold out."
        )
    if recipe.task == "regression":
        if not target.dtype.is_numeric():
            raise DataError(
                f"Target '{recipe.target}' is {target.dtype}, and the task is regression. Expected a number; or set task."
            )
        if target.n_unique() < 2:
            raise DataError(
                f"Target '{recipe.target}' is {target[0]} in every row: nothing can be learned. Expected values that vary."
            )
        if recipe.scale is not None:
            check_scale(recipe.scale, target.cast(pl.Float64).to_numpy(), recipe.target)
        return ()
    names = sorted(as_text(target).unique())
    if len(names) < 2:
        raise DataError(
            f"Target '{recipe.target}' has one class only ({names[0]!r}): nothing can be learned. Expected two or more."
        )
    if recipe.task == "multiclass":
        return tuple(names)
    if len(names) > 2:
        shown = ", ".join(map(repr, names[:6]))
        raise DataError(
            f"Target '{recipe.target}' has {len(names)} classes ({shown}), and the task is binary. Set task = \"multiclass\", or, "
            f"if one of them means missing, list it under missing in [fields] of {plan.schema_path}."
        )
    positive = names[-1] if recipe.positive is None else as_text(pl.Series([recipe.positive]))[0]
    if positive not in names:
        raise DataError(
            f"Target '{recipe.target}' never is {positive!r}, the recipe's positive class.{nearest(positive, names)}"
        )
    return (next(n for n in names if n != positive), positive)
