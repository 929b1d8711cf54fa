"""From a table to a verdict. :func:`run` reads top to bottom as the picture of the flow."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from tabkit import adapt, bundle, report, result
from tabkit.data.align import SourceTable, read_source
from tabkit.data.encode import Encoder, as_text, fit_compression, fit_encoder
from tabkit.data.interactions import as_date
from tabkit.data.source import Input, from_frame, open_input
from tabkit.data.split import Split, split_rows
from tabkit.data.target import check_scale, with_label
from tabkit.data.validate import CheckReport, Table, read_table
from tabkit.data.validate import check as check_table
from tabkit.errors import DataError, UsageError, count, nearest
from tabkit.evaluate.folds import Fold, pool
from tabkit.evaluate.harness import (
    Choice,
    Extras,
    Parts,
    Scorecard,
    choose_on_valid,
    conformal_half_width,
    evaluate,
    refusals,
    threshold_of,
)
from tabkit.evaluate.ledger import Sealed
from tabkit.evaluate.metrics import Metric, resolve
from tabkit.models.base import BUDGETS, Budget, Candidate, Model, Predictions
from tabkit.recipe import Plan, Source, load_recipe
from tabkit.recommend import recommend
from tabkit.refresh import open_parent
from tabkit.samples import load_sample

Watch = Callable[[str, float, str], None]
"""Progress: (stage, fraction done, note)."""

_Measured = tuple[Split, Encoder, Scorecard]

MIN_ROWS = 30
"""Fewer labelled rows cannot be cut into three parts that say anything."""

MOST_SHUFFLES = 8
"""Most tries of the shuffled control. With a few coarse columns, one shuffle in two agrees with the real labels by
chance, and plainly so; that all of them do has a chance of 1 in 256."""

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


@dataclass(frozen=True)
class _Data:
    """The rows of a run: labelled and not, and those of the source."""

    table: Table
    labelled: Table
    unlabelled: pl.DataFrame
    sources: tuple[SourceTable, ...]
    classes: tuple[str, ...]

    @property
    def source(self) -> pl.DataFrame | None:
        """The rows of all sources under each other; None without any."""
        return pl.concat([source.frame for source in self.sources]) if self.sources else None


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
    if distill and (len(splits) > 1 or splits[0].inner is not None):
        raise UsageError(
            "--distill needs one holdout and a valid part, and this recipe is measured over folds. Leave out --distill."
        )
    watch("data", 1.0, "")

    each = _for_each(allowance, len(splits))
    measured = [
        _measure(plan, rows, split, todo, opened, metrics, seed, each, _of_fold(watch, split), distill)
        for split in splits
    ]
    split, encoder, scorecard = measured[0] if len(measured) == 1 else _pool(plan, rows, measured, budget, seed)
    watch("bundle", 0.0, scorecard.verdict.champion)
    model = _champion(plan, scorecard, rows, encoder, seed, allowance)
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


def _read(plan: Plan, data: str | Path | None, source: str | Path | None, folder: Path) -> _Data:
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
    return _Data(table, kept, table.frame.filter(~labelled), sources, classes)


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


def _encoder(plan: Plan, rows: _Data, split: Split) -> Encoder:
    """Fit the encoder on train rows, and on the source's, which share its columns; never on valid or holdout."""
    columns = [c for c in rows.labelled.frame.columns if plan.is_feature(c)]
    train = rows.labelled.frame[split.train].select(columns)
    known = train if rows.source is None else pl.concat([train, rows.source.select(columns)])
    spectra = []
    for spectrum in plan.recipe.spectra:
        bands = tuple(c for c in columns if fnmatchcase(c, spectrum.columns))
        if bands:
            spectra.append(fit_compression(known, spectrum.name, bands, spectrum.components, spectrum.normalise))
    return fit_encoder(known, columns, plan.recipe.task, plan.recipe.target, rows.classes, tuple(spectra))


def _measure(
    plan: Plan,
    rows: _Data,
    split: Split,
    todo: tuple[adapt.Wanted, ...],
    opened: Mapping[str, Model],
    metrics: dict[str, Metric],
    seed: int,
    budget: Budget,
    watch: Watch,
    distill: bool,
) -> _Measured:
    """Encode, adapt, choose on valid, and only then open the holdout: the whole procedure, on one split."""
    encoder = _encoder(plan, rows, split)
    parts = _parts(plan, rows, split, encoder, seed)
    unlabelled = encoder.encode(rows.unlabelled) if rows.unlabelled.height else None
    scale = plan.recipe.target_scale
    candidates = adapt.adapt_all(
        todo, parts.train, parts.valid, parts.source, unlabelled, seed, budget, watch, opened, scale, split.inner
    )
    if "blend" not in plan.recipe.candidates.without:
        refused = refusals(candidates)
        blends = adapt.blend_all(tuple(c for c in candidates if c.name not in refused), parts.valid, seed)
        # Whether a base or an adapted model has weight differs from fold to fold; baselines are blended in every one.
        candidates += tuple(c for c in blends if split.n_folds == 1 or c.kind == "baseline")
    primary = next(iter(metrics.values()))
    choice = choose_on_valid(candidates, parts.valid, primary)
    extras = _extras(plan, choice, primary, parts, seed, budget, watch)

    def student(champion: Candidate) -> Candidate:
        return adapt.student(champion, parts.train, parts.valid, unlabelled, seed, budget, watch, scale)

    scorecard = evaluate(
        plan,
        candidates,
        choice,
        parts,
        extras,
        metrics,
        budget.level,
        seed,
        lambda f, note: watch("harness", f, note),
        student if distill else None,
    )
    return split, encoder, scorecard


def _pool(plan: Plan, rows: _Data, measured: list[_Measured], level: str, seed: int) -> _Measured:
    """Make one scorecard of those of all folds; the encoder is the first fold's, as are the settings found."""
    encoder = measured[0][1]
    frame = rows.labelled.frame
    folds = tuple(Fold(split, scorecard) for split, _, scorecard in measured)
    scorecard, split = pool(plan, frame, encoder.encode(frame), folds, level, seed)
    return split, encoder, scorecard


def _for_each(budget: Budget, n_folds: int) -> Budget:
    """Return what one fold may spend: over all folds, twice the seconds and trials of a single holdout."""
    if n_folds == 1:
        return budget
    share = 2 / n_folds
    return replace(budget, seconds=max(2.0, share * budget.seconds), trials=max(3, round(share * budget.trials)))


def _of_fold(watch: Watch, split: Split) -> Watch:
    if split.n_folds == 1:
        return watch
    return lambda stage, fraction, note: watch(f"fold {split.fold + 1}/{split.n_folds}: {stage}", fraction, note)


def _parts(plan: Plan, rows: _Data, split: Split, encoder: Encoder, seed: int) -> Parts:
    frame = rows.labelled.frame
    key = hashlib.sha256(
        json.dumps([rows.table.fingerprint, plan.recipe.target, plan.recipe.where]).encode() + split.holdout.tobytes()
    ).hexdigest()
    train, valid, holdout = (encoder.encode(frame[part]) for part in (split.train, split.valid, split.holdout))
    source = None if rows.source is None else encoder.encode(rows.source)
    return Parts(train, valid, Sealed(holdout, key), frame, split, source)


def _extras(
    plan: Plan, choice: Choice, primary: Metric, parts: Parts, seed: int, budget: Budget, watch: Watch
) -> Extras:
    """Run what the harness measures beside the candidates, on train and valid alone."""
    by_name = {c.name: c for c in choice.accepted}
    chosen = choice.chosen
    rivals = tuple(by_name[name] for name in (chosen.adapted, chosen.base, chosen.baseline) if name)
    watch("controls", 0.0, "shuffled labels")
    shuffled = _shuffled(by_name[chosen.baseline], by_name["prior"], primary, parts, seed, budget)
    ablations: list[tuple[Candidate, list[str]]] = []
    for ablation in plan.recipe.ablations:
        dropped = [c for c in ablation.drop if c in parts.train.layout.columns]
        if dropped and len(dropped) < len(parts.train.layout.columns):
            watch("controls", 0.5, ablation.name)
            baseline = by_name[chosen.baseline]
            made = adapt.without_columns(ablation.name, dropped, baseline, parts.train, parts.valid, seed, budget)
            ablations.append((made, dropped))
    watch("controls", 1.0, "")
    # Over folds, the first one's curve stands for all: its points cost as much as the candidates themselves.
    first = parts.split.fold == 0
    curve = adapt.learning_curve(rivals, parts.train, parts.valid, seed, budget, watch) if first else []
    return Extras(curve, tuple(ablations), shuffled)


def _shuffled(
    baseline: Candidate, prior: Candidate, primary: Metric, parts: Parts, seed: int, budget: Budget
) -> tuple[Predictions, ...]:
    """Train on labels shuffled anew until that once scores no better than the prior; a leak survives every shuffle."""
    out: list[Predictions] = []
    assert parts.valid.y is not None
    for again in range(MOST_SHUFFLES):
        out.append(adapt.shuffled(baseline, parts.train, parts.valid, seed + again, budget))
        if primary.sign * (primary.value(parts.valid.y, out[-1]) - primary.value(parts.valid.y, prior.valid)) <= 0:
            break
    return tuple(out)


def _champion(plan: Plan, scorecard: Scorecard, rows: _Data, encoder: Encoder, seed: int, budget: Budget) -> Model:
    """Return the model to bundle: the champion's procedure on all rows, or the very model that was measured."""
    champion = scorecard.score(scorecard.verdict.champion).candidate
    if plan.recipe.bundle.train_on == "train":
        return champion.adapted.model
    return adapt.again(champion, encoder.encode(rows.labelled.frame), seed, budget)


def _student(
    plan: Plan, scorecard: Scorecard, teacher: Model, rows: _Data, encoder: Encoder, seed: int, budget: Budget
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
    rows: _Data,
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


def _half_width(plan: Plan, rows: _Data, split: Split, scorecard: Scorecard, name: str) -> float | None:
    if plan.recipe.task != "regression":
        return None
    y = rows.labelled.frame[plan.recipe.target][split.holdout].cast(pl.Float64).to_numpy().astype(np.float64)
    return conformal_half_width(y, scorecard.holdout_predictions[name], plan.recipe.scale)
