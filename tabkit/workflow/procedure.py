"""The whole procedure on one split of a table: encode, adapt, choose on valid, and only then open the holdout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

import polars as pl

from tabkit.adapt import Runtime, Wanted, Watch
from tabkit.adapt import tables as adapt
from tabkit.adapt.controls import learning_curve, shuffled, without_columns
from tabkit.adapt.student import teach
from tabkit.data.encode import Encoder, Features, fit_encoder
from tabkit.data.frames import values_of
from tabkit.data.spectra import fit_compression
from tabkit.data.split import Split
from tabkit.data.validate import fingerprint_of
from tabkit.evaluate.choice import Choice, Terms, choose_on_valid, refusals
from tabkit.evaluate.harness import Ground, Judged, facts_of
from tabkit.evaluate.ledger import Opening, Sealed, question_of
from tabkit.evaluate.tables import Controls, OpenTable, Parts, TableFound
from tabkit.learner import Budget, Predictions, Proof
from tabkit.models.base import Model, TableCandidate
from tabkit.models.blend import described
from tabkit.recipe import Plan
from tabkit.result import CandidateFacts
from tabkit.workflow.options import asked_by
from tabkit.workflow.reading import TableRows
from tabkit.workflow.spine import Arm, find

MOST_SHUFFLES = 8
"""Most tries of the shuffled control. With a few coarse columns, one shuffle in two agrees with the real labels by
chance, and plainly so; that all of them do has a chance of 1 in 256."""


def encoder_of(plan: Plan, rows: TableRows, split: Split) -> Encoder:
    """Fit the encoder on train rows, and on the source's, which share its columns; never on valid or holdout."""
    columns = [c for c in rows.labelled.frame.columns if plan.is_feature(c)]
    train = rows.labelled.frame[split.train][columns]
    known = train if rows.source is None else pl.concat([train, rows.source[columns]])
    spectra = []
    for spectrum in plan.recipe.spectra:
        bands = tuple(c for c in columns if fnmatchcase(c, spectrum.columns))
        if bands:
            spectra.append(fit_compression(known, spectrum.name, bands, spectrum.components, spectrum.normalise))
    return fit_encoder(known, columns, plan.recipe.task, plan.recipe.target, rows.classes, tuple(spectra))


@dataclass(frozen=True)
class Procedure:
    """All that a run does on a split, but for the split: over folds, it is the same in every one.

    ``budget`` is that of one split. ``blends`` is whether candidates are blended: in every fold or in none, or folds could
    not be compared.
    """

    plan: Plan
    rows: TableRows
    todo: tuple[Wanted, ...]
    opened: Mapping[str, Model]
    terms: Terms
    budget: Budget
    blends: bool

    @cached_property
    def question(self) -> str:
        """A hash of all that the answer depends on, but for the code."""
        facts = {
            **asked_by(self.plan),
            "data": self.rows.table.fingerprint,
            "sources": [fingerprint_of(source.frame) for source in self.rows.sources],
            "weights": {name: asdict(m.opened_from) for name, m in self.opened.items() if m.opened_from is not None},
            "candidates": [item.name for item in self.todo],
            "seed": self.terms.seed,
            "budget": self.budget.effort,
        }
        return question_of(facts)

    def on(self, split: Split, watch: Watch, *, distill: bool = False) -> TableArm:
        """Return the procedure on one split."""
        return TableArm(self, split, encoder_of(self.plan, self.rows, split), watch, distill=distill)

    def find(self, split: Split, watch: Watch) -> TableFound:
        """Carry out everything on one split."""
        return find(self.on(split, watch))


class TableArm(Arm[TableCandidate, Controls, OpenTable, TableFound]):
    """A procedure on one split."""

    def __init__(
        self, procedure: Procedure, split: Split, encoder: Encoder, watch: Watch, *, distill: bool = False
    ) -> None:
        self.procedure, self.split, self.encoder = procedure, split, encoder
        self.terms, self.watch, self._distill = procedure.terms, watch, distill
        rows, scale = procedure.rows, procedure.plan.recipe.target_scale
        frame = rows.labelled.frame
        train, valid, holdout = (
            encoder.encode(frame[part]).weighing(split.weights_of(part))
            for part in (split.train, split.valid, split.holdout)
        )
        source = None if rows.source is None else encoder.encode(rows.source).weighing(rows.source_weights)
        self._unlabelled = encoder.encode(rows.unlabelled) if rows.unlabelled.height else None
        # What adapts holds train and valid, and no way to the holdout.
        self.train, self.valid = train, valid
        self.runtime = Runtime(procedure.terms.seed, procedure.budget, watch)
        lessons = adapt.Lessons(train, source, self._unlabelled, scale, split.inner)
        self.origins = adapt.Origins(lessons, procedure.opened, self.runtime)
        self._parts = Parts(train, valid, Sealed(holdout, self._opening()), frame, split, source)

    def _opening(self) -> Opening:
        table, held = self.procedure.rows.labelled, self.split.holdout
        assert table.marks is not None
        labels = values_of(table.frame, self.procedure.plan.recipe.target)[held]
        return Opening(self.procedure.question, table.marks.sketch(table.rows[held], labels))

    def candidates(self) -> tuple[TableCandidate, ...]:
        """Adapt every candidate, and blend those whose proof holds."""
        candidates = adapt.make_all(self.procedure.todo, self.origins, self.train, self.valid)
        if self.procedure.blends:
            refused = refusals(candidates)
            sound = tuple(c for c in candidates if c.name not in refused)
            candidates += adapt.blend_all(sound, self.valid, self.terms.seed)
        return candidates

    def choose(self, candidates: tuple[TableCandidate, ...]) -> Choice:
        """Check every proof, and choose on valid."""
        return choose_on_valid(candidates, self.valid, self.terms.metric)

    def prepare(self, accepted: tuple[TableCandidate, ...], choice: Choice) -> Controls:
        """Run what the harness measures beside the candidates, on train and valid only."""
        by_name = {c.name: c for c in accepted}
        baseline = by_name[choice.chosen.baseline]
        self.watch("controls", 0.0, "shuffled labels")
        shuffles = self._shuffled(baseline, by_name["prior"])
        ablations = []
        columns = self.train.layout.columns
        for ablation in self.procedure.plan.recipe.ablations:
            dropped = tuple(c for c in ablation.drop if c in columns)
            if dropped and len(dropped) < len(columns):
                self.watch("controls", 0.5, ablation.name)
                fitted = without_columns(dropped, baseline, self.train, self.valid, self.runtime)
                ablations.append((ablation.name, fitted, dropped))
        self.watch("controls", 1.0, "")
        # Over folds, the first one's curve stands for all: its points cost as much as the candidates themselves.
        rivals = tuple(by_name[name] for name in choice.chosen.names)
        curve = learning_curve(rivals, self.train, self.valid, self.runtime) if self.split.fold == 0 else []
        return Controls(curve, tuple(ablations), shuffles)

    def _shuffled(self, baseline: TableCandidate, prior: TableCandidate) -> tuple[Predictions, ...]:
        """Train on labels shuffled anew until that once scores no better than the prior; a leak survives every shuffle."""
        out: list[Predictions] = []
        metric, y, w = self.terms.metric, self.valid.labels, self.valid.w
        for again in range(MOST_SHUFFLES):
            out.append(shuffled(baseline, self.train, self.valid, self.terms.seed + again, self.procedure.budget))
            if metric.sign * (metric.value(y, out[-1], w) - metric.value(y, prior.valid, w)) <= 0:
                break
        return tuple(out)

    def open(self, prepared: Controls) -> OpenTable:
        """Break the seal."""
        return OpenTable(self.procedure.plan, self._parts, self.terms)

    def ground(self, opened: OpenTable, prepared: Controls, choice: Choice) -> Ground:
        """Return rows, and how the gain goes with them."""
        return opened.ground(prepared, choice.chosen)

    def findings(
        self, opened: OpenTable, prepared: Controls, judged: Judged, accepted: tuple[TableCandidate, ...]
    ) -> TableFound:
        """Look at everything else; teach a student, if one was asked for."""
        taught = None
        if self._distill:  # after everything is decided: it can change nothing
            self.watch("harness", 1.0, f"student of {judged.champion}")
            champion = next(c for c in accepted if c.name == judged.champion)
            student = teach(champion, (self.train, self.valid, self._unlabelled), self.origins)
            taught = (student, 0 if self._unlabelled is None else len(self._unlabelled))
        return opened.findings(judged, prepared, accepted, taught)

    def settled(self, found: TableFound) -> TableFound:
        """Return what was found over folds, its champion with the settings that its procedure finds on these rows.

        Each fold found settings of its own. A blend keeps the mean of the weights that the folds gave.
        """
        champion = found.findings.candidate(found.findings.champion)
        names = champion.members or (champion.name,)
        made = adapt.make_all(
            tuple(item for item in self.procedure.todo if item.name in names), self.origins, self.train, self.valid
        )
        if refused := refusals(made):
            why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
            changed = champion.model_copy(update={"notes": (*champion.notes, f"settings of the first fold ({why})")})
        else:
            changed = _like(champion, {c.name: facts_of(c, None, None, self.terms) for c in made})
        candidates = tuple(changed if c.name == champion.name else c for c in found.findings.candidates)
        return replace(found, findings=found.findings.model_copy(update={"candidates": candidates}))

    def fitted(self, candidate: CandidateFacts, budget: Budget) -> Model:
        """Run a candidate's procedure on all labelled rows, with the settings found."""
        return adapt.rerun(candidate, self.origins, self.everything, budget)

    @property
    def everything(self) -> Features:
        """All labelled rows."""
        rows = self.procedure.rows
        return self.encoder.encode(rows.labelled.frame).weighing(rows.weights)


def _like(champion: CandidateFacts, made: Mapping[str, CandidateFacts]) -> CandidateFacts:
    """Return a champion that was measured over folds with the settings, proof and notes of what was made anew."""
    note = "settings found on all rows"
    if not champion.members:
        own = made[champion.name]
        proof, settings, notes = Proof(own.proof), own.settings, (*own.notes, note)
    else:
        members = [made[name] for name in champion.members]
        proof, settings, (_, *told) = described(members, champion.settings["weights"])
        notes = (f"{champion.notes[0]}; {note}", *told)
    return champion.model_copy(
        update={
            "proof": proof.blocks,
            "trained_parameters": proof.trained_parameters,
            "total_parameters": proof.total_parameters,
            "settings": settings,
            "notes": notes,
        }
    )
