"""A run on a table: read and cut it, carry out the procedure once or over folds, say what goes into the folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from tabkit.adapt import Wanted
from tabkit.adapt.candidates import open_weights, wanted
from tabkit.adapt.student import teach_again
from tabkit.bundle import Contents
from tabkit.data.encode import as_text
from tabkit.data.frames import values_of
from tabkit.data.source import DataLike
from tabkit.data.split import Split, split_for_bundle, split_rows
from tabkit.data.weighing import effective_rows
from tabkit.errors import UsageError, count
from tabkit.evaluate.folds import pool
from tabkit.evaluate.pooled import Fold
from tabkit.evaluate.tables import TableFound, conformal_half_width, threshold_of
from tabkit.files import only_writer
from tabkit.learner import Budget, budget_of
from tabkit.models.base import Model
from tabkit.models.blend import LEAST_ROWS
from tabkit.recipe import Plan
from tabkit.report.read import WEIGHT
from tabkit.result import CandidateFacts, TableFindings
from tabkit.result.document import FeatureFacts, SourceFacts, SplitFacts, WeightFacts
from tabkit.workflow.assemble import About
from tabkit.workflow.folds import folder_of, measure_folds
from tabkit.workflow.options import TableOptions, terms_of
from tabkit.workflow.procedure import Procedure, TableArm, encoder_of
from tabkit.workflow.reading import TableRows, read_rows
from tabkit.workflow.spine import find


@dataclass(frozen=True)
class TableOutcome:
    """What a run on a table found, with the split that its figures are of and the models to bundle."""

    found: TableFound
    split: Split
    models: Mapping[str, tuple[CandidateFacts, Model]]

    @property
    def findings(self) -> TableFindings:
        """What was found."""
        return self.found.findings


class TableRun:
    """One run on a table. Everything that can be refused without reading is refused when it is made."""

    def __init__(self, plan: Plan, options: TableOptions) -> None:
        self.plan, self.options = plan, options
        self.budget = budget_of(options.budget, options.device)
        self.terms = terms_of(plan, options, self.budget)
        has_source = bool(plan.recipe.sources) or options.source is not None
        self.todo: tuple[Wanted, ...] = wanted(plan.recipe, has_source, str(plan.path))

    def read(self, data: DataLike | None, folder: Path) -> None:
        """Open the weights, read the table, cut it.

        Raises
        ------
        UsageError, DataError
            The options, the weights or the rows cannot be used.
        """
        plan, options = self.plan, self.options
        self.place = folder.parent
        opened = open_weights(self.todo, options.weights or {}, plan.recipe.task, options.watch)
        options.watch("data", 0.0, "reading")
        self._cut(data, folder)
        _never_seen(opened, self.rows)
        options.watch("data", 1.0, "")
        blends = "blend" not in plan.recipe.candidates.without and all(len(s.valid) >= LEAST_ROWS for s in self.splits)
        each = for_each(self.budget, len(self.splits))
        self.procedure = Procedure(plan, self.rows, self.todo, opened, self.terms, each, blends)

    def rehearse(self, data: DataLike) -> tuple[str, ...]:
        """Read and cut the table, and encode each part, as a run would; nothing more is noted of a table.

        Raises
        ------
        UsageError, DataError
            The recipe or the rows cannot be used.
        """
        self._cut(data, None)
        for split in {id(split): split for split in (*self.splits, self.own)}.values():
            encoder_of(self.plan, self.rows, split)
        return ()

    def _cut(self, data: DataLike | None, rejects_to: Path | None) -> None:
        plan, options = self.plan, self.options
        self.rows: TableRows = read_rows(plan, data, options.source, rejects_to)
        cut = (self.rows.labelled.frame, plan.recipe, options.seed, self.rows.weighing)
        self.splits = split_rows(*cut)
        self.own = self.splits[0] if len(self.splits) == 1 else split_for_bundle(*cut)
        self._refuse()

    def _refuse(self) -> None:
        options, splits, one = self.options, self.splits, len(self.splits) == 1
        if options.jobs is not None and one:
            raise UsageError(
                f"--jobs {options.jobs}: folds are measured side by side, and this recipe has one holdout. Leave --jobs out."
            )
        if not one and self.plan.recipe.bundle.train_on == "train":
            raise UsageError(
                f'{self.plan.path}: [bundle] train_on = "train" ships the model that was measured, and over folds that is one '
                'model per fold. Set train_on = "all", or leave split.folds out.'
            )
        if options.distill and (not one or splits[0].inner is not None):
            raise UsageError(
                "--distill needs one holdout and a valid part, and this recipe is measured over folds. Leave out --distill."
            )

    def find(self, until_written: ExitStack) -> TableOutcome:
        """Carry out the procedure, once or over folds; fit what is bundled.

        Parameters
        ----------
        until_written
            What is held until the run folder is written: the place where folds are kept.
        """
        options, split = self.options, self.own
        self.arm = arm = self.procedure.on(split, options.watch, distill=options.distill)
        if len(self.splits) == 1:
            found = find(arm)
            options.watch("bundle", 0.0, found.findings.champion)
        else:
            folds = self._folds(until_written)
            found, split = pool(self.plan, self.rows.labelled.frame, arm.everything, folds, self.terms)
            options.watch("bundle", 0.0, found.findings.champion)
            found = arm.settled(found)
        return TableOutcome(found, split, self._models(found, arm))

    def _folds(self, until_written: ExitStack) -> tuple[Fold, ...]:
        """Measure every fold; if another run of the very same procedure is under way, keep them in a place of its own."""
        self.kept = folder_of(self.procedure, self.place)
        if not until_written.enter_context(only_writer(self.kept)):
            self.kept = self.kept.with_name(f"{self.kept.name}-{os.getpid()}")
            until_written.callback(shutil.rmtree, self.kept, ignore_errors=True)
        return measure_folds(self.procedure, self.splits, self.kept, self.options.jobs, self.options.watch)

    def _models(self, found: TableFound, arm: TableArm) -> dict[str, tuple[CandidateFacts, Model]]:
        """Return what is bundled: procedures run again on all rows, or the very models that were measured."""
        findings = found.findings
        champion = findings.candidate(findings.champion)
        student = None if findings.student is None else findings.candidate(findings.student.candidate)
        measured = {c.name: c for c in found.candidates}
        if self.plan.recipe.bundle.train_on == "train":
            those = {"bundle": champion} | ({} if student is None else {"student": student})
            return {place: (facts, measured[facts.name].adapted.model) for place, facts in those.items()}
        models = {"bundle": (champion, arm.fitted(champion, self.budget))}
        if student is not None:
            unlabelled = self.rows.unlabelled
            rows = (arm.everything, arm.encoder.encode(unlabelled) if unlabelled.height else None)
            model = teach_again(measured[student.name], models["bundle"][1], rows, self.options.seed, self.budget)
            models["student"] = (student, model)
        return models

    def about(self, outcome: TableOutcome) -> About:
        """Return what the result says of the rows."""
        recipe, rows, split, encoder = self.plan.recipe, self.rows, outcome.split, self.arm.encoder
        layout, champion = encoder.layout, outcome.findings.candidate(outcome.findings.champion)
        return About(
            table=rows.table,
            sizes={
                **split.sizes(),
                "unlabelled": rows.unlabelled.height,
                "weightless": rows.weightless,
                "source": sum(source.frame.height for source in rows.sources),
            },
            sources=tuple(SourceFacts(name=s.name, rows=s.frame.height, lacking=s.lacking) for s in rows.sources),
            split=SplitFacts(
                kind=split.kind,
                holdout=recipe.split.holdout,
                valid=recipe.split.valid,
                column=recipe.split.column,
                folds=split.n_folds,
                inner=split.inner,
                seed=self.options.seed,
                text=split.text,
            ),
            features=FeatureFacts(
                columns=tuple(layout.columns),
                titles={name: field.title for name, field in self.plan.schema.fields.items() if field.title},
                numeric=len(layout.num_names),
                categorical=len(layout.cat_names),
                dropped=encoder.dropped,
                ignored=rows.table.ignored,
                infinite=encoder.infinite,
            ),
            classes=encoder.classes,
            bundled=rows.labelled.frame.height if recipe.bundle.train_on == "all" else len(split.train),
            members=champion.members or (champion.name,),
            weighted=self._weighted(split),
        )

    def _weighted(self, split: Split) -> WeightFacts | None:
        recipe, weighing = self.plan.recipe, self.rows.weighing
        if weighing is None or split.weights is None:
            return None
        effective = effective_rows(split.weights[split.holdout])
        if recipe.censoring is None:
            how = f"Rows are weighted by '{recipe.weight}'"
        else:
            lost = count(weighing.rows.height - weighing.n_labelled, "row")
            how = (
                f"Follow-up of {lost} ended before {recipe.censoring.horizon:g} without the event; the others stand for them "
                "(inverse probability of censoring, estimated on the train rows)"
            )
        held = count(len(split.holdout), "holdout row")
        text = f"{how}, and every figure is weighted so. The {held} tell as much as {effective:,.0f} of equal weight."
        return WeightFacts(column=recipe.weight, effective=effective, text=text)

    def predictions(self, outcome: TableOutcome) -> pl.DataFrame:
        """Return the holdout's predictions: input row, id, fold, target, weight, and a column per candidate (class if multiclass)."""
        recipe, table, rows = self.plan.recipe, self.rows.labelled, outcome.split.holdout
        frame = table.frame[rows]
        target = values_of(frame, recipe.target)
        target = target.cast(pl.Float64) if recipe.task == "regression" else as_text(target)
        columns = [pl.Series("row", table.rows[rows], dtype=pl.Int64), target.alias("target")]
        if outcome.split.weights is not None:
            columns.append(pl.Series(WEIGHT, outcome.split.weights[rows]))
        if outcome.found.fold_of is not None:
            columns.insert(1, pl.Series("fold", outcome.found.fold_of + 1))
        for name, predicted in outcome.found.predictions.items():
            if recipe.task == "binary":
                columns.append(pl.Series(name, predicted[:, 1]))
            elif recipe.task == "multiclass":
                classes = enumerate(self.rows.classes)
                columns += [pl.Series(f"{name}:{c}", predicted[:, k]) for k, c in classes]
            else:
                columns.append(pl.Series(name, predicted))
        if recipe.id is not None:
            taken = {column.name for column in columns}  # a key may well be called row
            columns.insert(1, frame[recipe.id].alias(f"{recipe.id} (id)" if recipe.id in taken else recipe.id))
        return pl.DataFrame(columns)

    def bundles(self, outcome: TableOutcome) -> dict[str, Contents]:
        """Return what goes into each bundle."""
        recipe, findings = self.plan.recipe, outcome.findings
        binary, regression = recipe.task == "binary", recipe.task == "regression"
        # A student decides as its teacher does.
        threshold = threshold_of(findings.champion, findings.value) if binary else None
        encoder = self.arm.encoder.to_json()
        return {
            place: Contents(
                candidate=facts,
                save=model.save,
                encoder=encoder,
                threshold=threshold,
                half_width=self._half_width(outcome, facts.name) if regression else None,
            )
            for place, (facts, model) in outcome.models.items()
        }

    def _half_width(self, outcome: TableOutcome, name: str) -> float:
        recipe = self.plan.recipe
        held = outcome.split.holdout
        target = values_of(self.rows.labelled.frame, recipe.target)[held]
        y = target.cast(pl.Float64).to_numpy().astype(np.float64)
        weights = None if outcome.split.weights is None else outcome.split.weights[held]
        return conformal_half_width(y, outcome.found.predictions[name], recipe.scale, weights=weights)

    @property
    def rejects(self) -> pl.DataFrame:
        """The rows that did not fit."""
        return self.rows.table.rejects

    def finish(self) -> None:
        """Remove the folds that were kept for an interrupted run: the run folder is written."""
        if len(self.splits) > 1:
            shutil.rmtree(self.kept, ignore_errors=True)


def for_each(budget: Budget, n_folds: int) -> Budget:
    """Return what one fold may spend: over all folds, twice the seconds and trials of a single holdout."""
    if n_folds == 1:
        return budget
    share = 2 / n_folds
    return replace(budget, seconds=max(2.0, share * budget.seconds), trials=max(3, round(share * budget.trials)))


def _never_seen(opened: Mapping[str, Model], rows: TableRows) -> None:
    """Refuse weights that were trained on the table at hand: no row of it is left that they have not seen."""
    fingerprint = rows.table.fingerprint
    for base, model in opened.items():
        if model.opened_from is not None and fingerprint in model.opened_from.tables:
            raise UsageError(
                f"The weights {model.opened_from.source} of '{base}' were continued on this very table (fingerprint "
                f"{fingerprint[:16]}): its holdout would not be untouched. Continue on other tables, or leave "
                "--weights out."
            )
