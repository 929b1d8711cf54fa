"""The whole procedure on one split: encode, adapt, choose on valid, and only then open the holdout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import polars as pl

from tabkit import adapt
from tabkit.data.align import SourceTable
from tabkit.data.encode import Encoder, Features, fit_compression, fit_encoder
from tabkit.data.split import Split
from tabkit.data.validate import Table
from tabkit.evaluate.harness import Choice, Extras, Parts, Scorecard, choose_on_valid, evaluate, refusals
from tabkit.evaluate.ledger import Sealed
from tabkit.evaluate.metrics import Metric
from tabkit.learner import Budget, Predictions
from tabkit.models.base import Model, TableCandidate
from tabkit.recipe import Plan

Watch = Callable[[str, float, str], None]
"""Progress: (stage, fraction done, note)."""

MOST_SHUFFLES = 8
"""Most tries of the shuffled control. With a few coarse columns, one shuffle in two agrees with the real labels by
chance, and plainly so; that all of them do has a chance of 1 in 256."""


@dataclass(frozen=True)
class Data:
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


@dataclass(frozen=True)
class Procedure:
    """All that a run does on a split, but for the split: over folds, it is the same in every one.

    ``budget`` is that of one split; ``metrics`` has the primary one first. ``blends`` is whether candidates are blended:
    in every fold or in none, or folds could not be compared.
    """

    plan: Plan
    rows: Data
    todo: tuple[adapt.Wanted, ...]
    opened: Mapping[str, Model]
    metrics: dict[str, Metric]
    seed: int
    budget: Budget
    blends: bool

    def encoder(self, split: Split) -> Encoder:
        """Fit the encoder on train rows, and on the source's, which share its columns; never on valid or holdout."""
        plan, rows = self.plan, self.rows
        columns = [c for c in rows.labelled.frame.columns if plan.is_feature(c)]
        train = rows.labelled.frame[split.train].select(columns)
        known = train if rows.source is None else pl.concat([train, rows.source.select(columns)])
        spectra = []
        for spectrum in plan.recipe.spectra:
            bands = tuple(c for c in columns if fnmatchcase(c, spectrum.columns))
            if bands:
                spectra.append(fit_compression(known, spectrum.name, bands, spectrum.components, spectrum.normalise))
        return fit_encoder(known, columns, plan.recipe.task, plan.recipe.target, rows.classes, tuple(spectra))

    def measure(self, split: Split, encoder: Encoder, watch: Watch, distill: bool = False) -> Scorecard:
        """Carry out everything on one split; ``encoder`` is that of the split."""
        recipe, seed, budget = self.plan.recipe, self.seed, self.budget
        parts, unlabelled = self._parts(split, encoder), self._unlabelled(encoder)
        origins = self._origins(split, parts, unlabelled, watch)
        candidates = adapt.make_all(self.todo, origins, parts.train, parts.valid)
        if self.blends:
            refused = refusals(candidates)
            candidates += adapt.blend_all(tuple(c for c in candidates if c.name not in refused), parts.valid, seed)
        primary = next(iter(self.metrics.values()))
        choice = choose_on_valid(candidates, parts.valid, primary)
        extras = self._extras(choice, primary, parts, watch)

        def student(champion: TableCandidate) -> TableCandidate:
            return adapt.student(
                champion, parts.train, parts.valid, unlabelled, seed, budget, watch, recipe.target_scale
            )

        return evaluate(
            self.plan,
            candidates,
            choice,
            parts,
            extras,
            self.metrics,
            budget.level,
            seed,
            lambda f, note: watch("harness", f, note),
            student if distill else None,
        )

    def with_origin(self, candidate: TableCandidate, split: Split, encoder: Encoder, watch: Watch) -> TableCandidate:
        """Return a candidate that another process made with the model that it was adapted from, made again."""
        parts = self._parts(split, encoder)
        return adapt.with_origin(candidate, self._origins(split, parts, self._unlabelled(encoder), watch))

    def _origins(self, split: Split, parts: Parts, unlabelled: Features | None, watch: Watch) -> adapt.Origins:
        return adapt.Origins(
            parts.train,
            parts.source,
            unlabelled,
            self.seed,
            self.budget,
            watch,
            self.opened,
            self.plan.recipe.target_scale,
            split.inner,
        )

    def _unlabelled(self, encoder: Encoder) -> Features | None:
        return encoder.encode(self.rows.unlabelled) if self.rows.unlabelled.height else None

    def _parts(self, split: Split, encoder: Encoder) -> Parts:
        frame, recipe = self.rows.labelled.frame, self.plan.recipe
        table = json.dumps([self.rows.table.fingerprint, recipe.target, recipe.where]).encode()
        key = hashlib.sha256(table + split.holdout.tobytes()).hexdigest()
        train, valid, holdout = (encoder.encode(frame[part]) for part in (split.train, split.valid, split.holdout))
        source = None if self.rows.source is None else encoder.encode(self.rows.source)
        return Parts(train, valid, Sealed(holdout, key), frame, split, source)

    def _extras(self, choice: Choice, primary: Metric, parts: Parts, watch: Watch) -> Extras:
        """Run what the harness measures beside the candidates, on train and valid alone."""
        seed, budget = self.seed, self.budget
        by_name = {c.name: c for c in choice.accepted}
        chosen = choice.chosen
        baseline = by_name[chosen.baseline]
        rivals = tuple(by_name[name] for name in (chosen.adapted, chosen.base, chosen.baseline) if name)
        watch("controls", 0.0, "shuffled labels")
        shuffled = self._shuffled(baseline, by_name["prior"], primary, parts)
        ablations: list[tuple[TableCandidate, list[str]]] = []
        for ablation in self.plan.recipe.ablations:
            dropped = [c for c in ablation.drop if c in parts.train.layout.columns]
            if dropped and len(dropped) < len(parts.train.layout.columns):
                watch("controls", 0.5, ablation.name)
                made = adapt.without_columns(ablation.name, dropped, baseline, parts.train, parts.valid, seed, budget)
                ablations.append((made, dropped))
        watch("controls", 1.0, "")
        # Over folds, the first one's curve stands for all: its points cost as much as the candidates themselves.
        first = parts.split.fold == 0
        curve = adapt.learning_curve(rivals, parts.train, parts.valid, seed, budget, watch) if first else []
        return Extras(curve, tuple(ablations), shuffled)

    def _shuffled(
        self, baseline: TableCandidate, prior: TableCandidate, primary: Metric, parts: Parts
    ) -> tuple[Predictions, ...]:
        """Train on labels shuffled anew until that once scores no better than the prior; a leak survives every shuffle."""
        out: list[Predictions] = []
        y = parts.valid.labels
        for again in range(MOST_SHUFFLES):
            out.append(adapt.shuffled(baseline, parts.train, parts.valid, self.seed + again, self.budget))
            if primary.sign * (primary.value(y, out[-1]) - primary.value(y, prior.valid)) <= 0:
                break
        return tuple(out)
