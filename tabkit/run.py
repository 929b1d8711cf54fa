"""From a table to a verdict. :func:`run` reads top to bottom as the picture of the flow."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from tabkit import adapt, bundle, report
from tabkit import assembled as result
from tabkit.cross_validate import kept_folder, measure_folds
from tabkit.data.align import SourceTable, read_source
from tabkit.data.encode import Encoder, as_text
from tabkit.data.interactions import as_date
from tabkit.data.source import Input, from_frame, open_input
from tabkit.data.split import Split, split_rows
from tabkit.data.target import check_scale, with_label
from tabkit.data.validate import CheckReport, Table, read_table
from tabkit.data.validate import check as check_table
from tabkit.errors import DataError, UsageError, count, nearest
from tabkit.evaluate.folds import pool
from tabkit.evaluate.harness import Scorecard, conformal_half_width, threshold_of
from tabkit.evaluate.metrics import resolve
from tabkit.learner import BUDGETS, Budget
from tabkit.measure import Data, Procedure, Watch
from tabkit.models.base import Model
from tabkit.models.blend import LEAST_ROWS
from tabkit.recipe import Plan, Source, load_recipe
from tabkit.recommend import recommend
from tabkit.refresh import open_parent
from tabkit.samples import load_sample

MIN_ROWS = 30
"""Fewer labelled rows cannot be cut into three parts that say anything."""

_NO_FOLDS = "folds are measured side by side, and this recipe has one holdout. Leave --jobs out."

MIN_FREE_BYTES = 50 * 2**20
"""Room a run wants before it begins, so that an hour of work does not end at a full disk."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and the content of ``result.json``."""

    folder: Path
    result: dict[str, Any]

    @property
    def decision(self) -> str:
        """The verdict's decision."""
        return str(self.result["verdict"]["decision"])


def run(
    recipe: str,
    data: str | Path | None = None,
    source: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    budget: str = "standard",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    watch: Watch = lambda stage, fraction, note: None,
    command: str | None = None,
    distill: bool = False,
    weights: Mapping[str, str | Path] | None = None,
    cutoffs: int = 1,
    base: str | Path | None = None,
    jobs: int | None = None,
) -> Run:
    """Run a recipe: adapt, compare, decide, report, bundle.

    Parameters
    ----------
    recipe
        A shipped name (``finance/loan_default``) or a path to a recipe file.
    data
        CSV, Parquet, Arrow, a folder or a glob; the recipe's sample where None.
    source
        Rows of a source table, to pretrain on; the recipe's where None.
    out
        Folder to make; ``runs/NAME-TIMESTAMP`` where None.
    budget
        ``quick``, ``standard`` or ``thorough``.
    watch
        Called with (stage, fraction, note) as the run goes on.
    distill
        Also teach LightGBM the champion's answers, measure how far it stands in for it, and bundle it in ``student/``.
    weights
        Your own weights of a base: base -> the folder or file that holds them.
    cutoffs
        Ranking only: at how many cutoffs, a window apart, the planned comparison is carried out.
    base
        Ranking only: a bundle of this recipe, to be refreshed with the events of ``data``, which begin where its own end.
    jobs
        Recipes with folds only: processes that measure folds side by side; None for one per core.

    Raises
    ------
    UsageError, DataError
        The recipe or the data cannot be used; the message says where, what was expected, and how to fix it.
    """
    started = time.perf_counter()
    plan = load_recipe(recipe)
    allowance = _allowance(budget, device)
    parent = None if base is None else open_parent(base, plan)
    plan = plan if parent is None else parent.plan
    metrics = resolve(_metric_names(plan), plan.recipe.task, str(plan.path))
    if cutoffs > 1 and plan.recipe.task != "ranking":
        raise UsageError(
            f"--cutoffs is for ranking recipes, and {plan.recipe.name} is a {plan.recipe.task} task. Leave it out."
        )
    if plan.recipe.task == "ranking":
        if jobs is not None:
            raise UsageError(f"--jobs {jobs}: {_NO_FOLDS}")
        for flag, given in (("--source", source), ("--distill", distill), ("--weights", weights)):
            if given:
                raise UsageError(
                    f"{flag} is for tables; a ranking recipe makes its bases from its own past. Leave it out."
                )
        if parent is not None and data is None:
            raise UsageError(
                f"--base {base} needs the events since {as_date(parent.ranker.past.end)}: give --data FILE."
            )
        folder = _new_folder(out, plan)
        watch("data", 0.0, "reading")
        table = read_table(plan, _input(data, plan.recipe.sample, "--data FILE", plan), plan.recipe.where)
        told = command or f"tabkit run {recipe} --budget {budget} --seed {seed}"
        told += f" --base {base} --data {data}" if parent is not None and command is None else ""
        return Run(
            folder, recommend(plan, table, folder, metrics, seed, allowance, cutoffs, watch, started, told, parent)
        )
    todo = adapt.wanted(plan.recipe, bool(plan.recipe.sources) or source is not None, str(plan.path))
    folder = _new_folder(out, plan)
    opened = adapt.open_weights(todo, weights or {}, plan.recipe.task, watch)

    watch("data", 0.0, "reading")
    rows = _read(plan, data, source, folder)
    _never_seen(opened, rows.table)
    splits = split_rows(rows.labelled.frame, plan.recipe, seed)
    if jobs is not None and len(splits) == 1:
        raise UsageError(f"--jobs {jobs}: {_NO_FOLDS}")
    if len(splits) > 1 and plan.recipe.bundle.train_on == "train":
        raise UsageError(
            f'{plan.path}: [bundle] train_on = "train" ships the model that was measured, and over folds that is one model '
            'per fold. Set train_on = "all", or leave split.folds out.'
        )
    if distill and (len(splits) > 1 or splits[0].inner is not None):
        raise UsageError(
            "--distill needs one holdout and a valid part, and this recipe is measured over folds. Leave out --distill."
        )
    watch("data", 1.0, "")

    each = _for_each(allowance, len(splits))
    blends = "blend" not in plan.recipe.candidates.without and all(len(s.valid) >= LEAST_ROWS for s in splits)
    procedure = Procedure(plan, rows, todo, opened, metrics, seed, each, blends)
    encoder = procedure.encoder(splits[0])
    if len(splits) == 1:
        split, kept = splits[0], None
        scorecard = procedure.measure(split, encoder, watch, distill)
    else:
        kept = kept_folder(procedure, folder.parent)
        folds = measure_folds(procedure, splits, kept, jobs, watch)
        everything = encoder.encode(rows.labelled.frame)
        scorecard, split = pool(plan, rows.labelled.frame, everything, folds, budget, seed)
    watch("bundle", 0.0, scorecard.verdict.champion)
    model = _champion(procedure, scorecard, splits[0], encoder, allowance, watch)
    student = _student(plan, scorecard, model, rows, encoder, seed, allowance) if distill else None

    document = result.assemble(
        plan,
        rows.table,
        rows.unlabelled.height,
        rows.sources,
        split,
        encoder,
        scorecard,
        budget,
        seed,
        time.perf_counter() - started,
        command or f"tabkit run {recipe} --budget {budget} --seed {seed}{' --distill' if distill else ''}",
    )
    _write(folder, plan, rows, split, encoder, scorecard, model, student, document)
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
    watch("bundle", 1.0, "")
    return Run(folder, document)


def check(recipe: str, data: str | Path) -> CheckReport:
    """Check a table against a recipe's schema: every kind of failure, its count and first rows.

    Raises
    ------
    UsageError, DataError
        The recipe or the file as a whole cannot be read.
    """
    plan = load_recipe(recipe)
    return check_table(plan, open_input(data, plan.schema.dialect))


def _allowance(budget: str, device: Literal["auto", "cpu", "cuda"]) -> Budget:
    if budget not in BUDGETS:
        raise UsageError(f"Unknown budget '{budget}'.{nearest(budget, BUDGETS)}")
    return replace(BUDGETS[budget], device=device)


def _never_seen(opened: Mapping[str, Model], table: Table) -> None:
    """Refuse weights that were trained on the table at hand: no row of it is left that they have not seen."""
    for base, model in opened.items():
        if model.opened_from is not None and table.fingerprint in model.opened_from.tables:
            raise UsageError(
                f"The weights {model.opened_from.source} of '{base}' were continued on this very table (fingerprint "
                f"{table.fingerprint[:16]}): its holdout would not be untouched. Continue on other tables, or leave "
                "--weights out."
            )


def _metric_names(plan: Plan) -> list[str]:
    asked = plan.recipe.metrics
    return list(dict.fromkeys([asked.primary, *asked.report]))


def _new_folder(out: str | Path | None, plan: Plan) -> Path:
    """Return the folder to make, after making sure that it can be made."""
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


def _read(plan: Plan, data: str | Path | None, source: str | Path | None, folder: Path) -> Data:
    recipe = plan.recipe
    here = _input(data, recipe.sample, "--data FILE", plan)
    try:
        table = read_table(plan, here, recipe.where)
        sources = tuple(
            read_source(plan, given, rule, table, given is here) for rule, given in _source_inputs(plan, here, source)
        )
    except DataError as problem:
        rejects = getattr(problem, "rejects", None)
        if rejects is None:
            raise
        folder.mkdir(parents=True, exist_ok=True)
        rejects.write_csv(folder / "rejects.csv")
        raise DataError(f"{problem} All rejected rows and their reasons are in {folder / 'rejects.csv'}.") from None
    labelled = with_label(table.frame[recipe.target])
    kept = replace(table, frame=table.frame.filter(labelled), rows=table.rows[labelled.to_numpy()])
    classes = _classes(plan, kept.frame)
    if sources:
        _check_sources(plan, sources, classes)
    return Data(table, kept, table.frame.filter(~labelled), sources, classes)


def _source_inputs(plan: Plan, here: Input, given: str | Path | None) -> list[tuple[Source, Input]]:
    """Return each source with its rows: ``--source FILE`` in the place of the recipe's one, else the recipe's samples."""
    rules = plan.recipe.sources
    if given is not None:
        if len(rules) > 1:
            raise UsageError(
                f"--source {given}: {plan.recipe.name} names {len(rules)} source tables, and it is not said which one to "
                "replace. Copy the recipe and keep one [source]."
            )
        rule = rules[0] if rules else Source()
        return [(rule.model_copy(update={"name": str(given)}), _input(given, None, "--source FILE", plan))]
    return [(rule, _input(None, rule.sample, "--source FILE", plan) if rule.sample else here) for rule in rules]


def _check_sources(plan: Plan, sources: tuple[SourceTable, ...], classes: tuple[str, ...]) -> None:
    """Check that the sources' labels can teach something about the target's."""
    recipe = plan.recipe
    for source in sources:
        label = source.frame[recipe.target]
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


def _input(path: str | Path | None, sample: str | None, flag: str, plan: Plan) -> Input:
    if path is not None:
        return open_input(path, plan.schema.dialect)
    if sample is None:
        raise UsageError(f"Recipe {plan.recipe.name} has no sample of its own: give {flag}.")
    return from_frame(load_sample(sample), sample)


def _classes(plan: Plan, frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the classes in order, the positive one last; check that the target can be learned at all."""
    recipe, target = plan.recipe, frame[plan.recipe.target]
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
            f"Target '{recipe.target}' has {len(names)} classes ({shown}), and the task is binary. Set task = \"multiclass\"."
        )
    positive = names[-1] if recipe.positive is None else as_text(pl.Series([recipe.positive]))[0]
    if positive not in names:
        raise DataError(
            f"Target '{recipe.target}' never is {positive!r}, the recipe's positive class.{nearest(positive, names)}"
        )
    return (next(n for n in names if n != positive), positive)


def _for_each(budget: Budget, n_folds: int) -> Budget:
    """Return what one fold may spend: over all folds, twice the seconds and trials of a single holdout."""
    if n_folds == 1:
        return budget
    share = 2 / n_folds
    return replace(budget, seconds=max(2.0, share * budget.seconds), trials=max(3, round(share * budget.trials)))


def _champion(
    procedure: Procedure, scorecard: Scorecard, split: Split, encoder: Encoder, budget: Budget, watch: Watch
) -> Model:
    """Return the model to bundle: the champion's procedure on all rows, or the very model that was measured."""
    champion = scorecard.score(scorecard.verdict.champion).candidate
    if procedure.plan.recipe.bundle.train_on == "train":
        return champion.adapted.model
    if split.n_folds > 1:  # measured in other processes, or before an interruption
        champion = procedure.with_origin(champion, split, encoder, watch)
    return adapt.again(champion, encoder.encode(procedure.rows.labelled.frame), procedure.seed, budget)


def _student(
    plan: Plan, scorecard: Scorecard, teacher: Model, rows: Data, encoder: Encoder, seed: int, budget: Budget
) -> Model:
    """Return the student to bundle: of the bundled champion on all rows, or the very student that was measured."""
    assert scorecard.fidelity is not None
    measured = scorecard.score(scorecard.fidelity.student).candidate
    if plan.recipe.bundle.train_on == "train":
        return measured.adapted.model
    unlabelled = encoder.encode(rows.unlabelled) if rows.unlabelled.height else None
    return adapt.student_again(measured, teacher, encoder.encode(rows.labelled.frame), unlabelled, seed, budget)


def _write(
    folder: Path,
    plan: Plan,
    rows: Data,
    split: Split,
    encoder: Encoder,
    scorecard: Scorecard,
    model: Model,
    student: Model | None,
    document: dict[str, Any],
) -> None:
    """Write the run folder whole: an interrupted run leaves none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        result.write_json(temporary / "result.json", document)
        result.scorecard_table(document).write_parquet(temporary / "scorecard.parquet")
        predicted = result.prediction_table(plan, rows.labelled, split, encoder, scorecard.holdout_predictions)
        predicted.write_parquet(temporary / "holdout_predictions.parquet")
        if rows.table.rejects.height:
            rows.table.rejects.write_csv(temporary / "rejects.csv")
        models = {"bundle": (scorecard.verdict.champion, model)}
        if student is not None and scorecard.fidelity is not None:
            models["student"] = (scorecard.fidelity.student, student)
        for place, (name, kept) in models.items():
            candidate = scorecard.score(name).candidate
            facts = {
                "tabkit": document["tabkit"],
                "created": document["created"],
                "recipe": plan.recipe.name,
                "task": plan.recipe.task,
                "classes": list(encoder.classes),
                "champion": name,
                "model": candidate.base,
                "how": candidate.how,
                "bases": {base: asdict(weights) for base, weights in candidate.weights.items()},
                "decision": scorecard.verdict.decision,
                "trained_on": document["bundle"]["train_on"],
                "threshold": _threshold(plan, document),  # a student decides as its teacher does
                "half_width": _half_width(plan, rows, split, scorecard, name),
                "data_fingerprint": rows.table.fingerprint,
                "versions": document["versions"],
            }
            card = result.card(document, plan, name)
            bundle.save_bundle(temporary / place, plan, encoder, kept, facts, document, card)
        report.write_report(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _threshold(plan: Plan, document: dict[str, Any]) -> float | None:
    """Return the probability from which the positive class is predicted (binary)."""
    return threshold_of(document["champion"], document["value"]) if plan.recipe.task == "binary" else None


def _half_width(plan: Plan, rows: Data, split: Split, scorecard: Scorecard, name: str) -> float | None:
    if plan.recipe.task != "regression":
        return None
    y = rows.labelled.frame[plan.recipe.target][split.holdout].cast(pl.Float64).to_numpy().astype(np.float64)
    return conformal_half_width(y, scorecard.holdout_predictions[name], plan.recipe.scale)
