"""The harness of tables: open the holdout once, measure every candidate on it, look at slices, columns and value."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.split import Split
from tabkit.evaluate import explain, value
from tabkit.evaluate.checks import LEAST_DAYS, MIN_GROUP_ROWS, TableEvidence, run_checks, sensitive_groups
from tabkit.evaluate.choice import Terms
from tabkit.evaluate.comparison import explore
from tabkit.evaluate.conformal import intervals_around, parts_of
from tabkit.evaluate.fidelity import fidelity
from tabkit.evaluate.harness import Ground, Judged, Measured, facts_of, intervals_of, resamplers, with_excess
from tabkit.evaluate.intervals import Resampler, difference, interval, paired
from tabkit.evaluate.ledger import Sealed, question_number
from tabkit.evaluate.metrics import Metric
from tabkit.learner import Predictions, candidate_name
from tabkit.models.base import TableCandidate, folds_of
from tabkit.models.blend import Blend
from tabkit.recipe import Plan
from tabkit.result import Ablation, Chosen, Importance, Interval, Part, Slice, TableFindings, Value
from tabkit.result.tables import Curve, CurvePoint, PredictionInterval
from tabkit.seed import stream

LEAST_SLICE_ROWS = 20
SLICE_RESAMPLES = 500

Groups = dict[str, dict[str, tuple[float, int]]]
"""By sensitive column and group: the champion's score, and the group's rows."""


@dataclass(frozen=True)
class Parts:
    """The rows of a table by part; the holdout is sealed. ``source`` is what bases were pretrained on."""

    train: Features
    valid: Features
    holdout: Sealed[Features]
    frame: pl.DataFrame
    split: Split
    source: Features | None = None


@dataclass(frozen=True)
class Controls:
    """What adaptation ran for the harness without the holdout: learning curve, ablations, the control on shuffled labels."""

    curve: list[tuple[int, dict[str, Predictions]]]
    ablations: tuple[tuple[str, TableCandidate, tuple[str, ...]], ...]
    """Name, the baseline without the columns, the columns."""
    shuffled: tuple[Predictions, ...]


@dataclass(frozen=True)
class HeldOut:
    """Rows held out, as a table and encoded, with each candidate's predictions and the common resamples."""

    frame: pl.DataFrame
    rows: Features
    predictions: Mapping[str, Predictions]
    resampler: Resampler


@dataclass(frozen=True)
class TableFound:
    """What was found on a split (or over folds), and what only the run needs: predictions, and the candidates themselves.

    ``candidates`` is empty if the split was measured by another process, or before an interruption. ``fold_of`` is the
    fold of each row over folds, if each row was predicted once.
    """

    findings: TableFindings
    predictions: dict[str, Predictions] = field(repr=False)
    candidates: tuple[TableCandidate, ...] = ()
    fold_of: npt.NDArray[np.int64] | None = field(default=None, repr=False)


class OpenTable:
    """A table whose holdout is open: it measures candidates, and tells what else there is to find."""

    def __init__(self, plan: Plan, parts: Parts, terms: Terms) -> None:
        self.plan, self.parts, self.terms = plan, parts, terms
        self.holdout, self.looks = parts.holdout.open()
        split = parts.split
        rows: dict[Part, npt.NDArray[np.int64]] = {
            "train": split.train,
            "valid": split.valid,
            "holdout": split.holdout,
        }
        groups = {part: drawn_together(split, at) for part, at in rows.items()}
        features: dict[Part, Features] = {"train": parts.train, "valid": parts.valid, "holdout": self.holdout}
        weights = {part: of.w for part, of in features.items()}
        self.resamplers = resamplers({part: len(at) for part, at in rows.items()}, groups, terms, weights)
        rule = plan.recipe.value
        self._paid_on_valid = None if rule is None else value.Payoffs(parts.frame[split.valid], rule, parts.valid.w)
        self.predictions: dict[str, Predictions] = {}
        self._seconds: dict[str, float] = {}

    def measure(self, candidate: TableCandidate) -> Measured:
        """Predict the holdout, and score all parts on their common resamples."""
        start = time.process_time()
        model, spent = candidate.adapted.model, 0.0
        if candidate.members and isinstance(model, Blend):  # put together of its members' predictions and seconds
            predicted = model.combine(self.predictions)
            spent = sum(self._seconds.get(member.name, 0.0) for member in candidate.members)
        else:
            predicted = model.predict(self.holdout)
        seconds = spent + (time.process_time() - start) / max(1, len(self.holdout))
        self.predictions[candidate.name], self._seconds[candidate.name] = predicted, seconds
        by_part: dict[Part, tuple[Features, Predictions]] = {
            "train": (self.parts.train, candidate.train),
            "valid": (self.parts.valid, candidate.valid),
            "holdout": (self.holdout, predicted),
        }
        binary, paid = self.plan.recipe.task == "binary", self._paid_on_valid
        return Measured(
            {part: self.resamplers[part].scored(self.terms.metrics, r.labels, p) for part, (r, p) in by_part.items()},
            seconds,
            explain.calibration(self.holdout.labels, predicted[:, 1], self.holdout.w) if binary else None,
            None if paid is None else value.best_threshold(paid, candidate.valid),
        )

    def ground(self, controls: Controls, chosen: Chosen) -> Ground:
        """Return what the verdict stands on: rows, and whether the gain shrinks as rows grow."""
        adapted, sign, points = chosen.adapted, self.terms.metric.sign, self._curve(controls)
        opponents = [name for name in (chosen.base, chosen.baseline) if name and adapted]
        gains = {
            name: [(n, sign * (by[str(adapted)] - by[name])) for n, by in points if {adapted, name} <= by.keys()]
            for name in opponents
        }
        return Ground(self.parts.split.sizes(), gains, question=question_number(self.looks))

    def findings(
        self,
        judged: Judged,
        controls: Controls,
        candidates: tuple[TableCandidate, ...],
        taught: tuple[TableCandidate, int] | None = None,
    ) -> TableFound:
        """Return everything found on this split.

        Parameters
        ----------
        taught
            A student of the champion and the rows without a label that it learned on. It is measured beside the others,
            after everything is decided, and takes no part in any choice.
        """
        recipe, parts, terms = self.plan.recipe, self.parts, self.terms
        resampler = self.resamplers["holdout"]
        held = HeldOut(parts.frame[parts.split.holdout], self.holdout, self.predictions, resampler)
        champion = next(c for c in candidates if c.name == judged.champion)
        groups, slices = slices_of(self.plan, held, judged.rivals, terms.metric)
        importance = explain.importance(
            champion.adapted.model, parts.train, parts.valid, self.holdout, terms.metric, resampler
        )
        worth, over_nothing = self._value(judged)
        evidence = self._evidence(judged, controls, candidates, groups)
        checks = run_checks(replace(evidence, over_nothing=over_nothing, importance=tuple(importance)))
        around: tuple[PredictionInterval | None, float | None] = (None, None)
        if recipe.task == "regression":
            part = parts_of(parts.split, parts.split.holdout, terms.seed)
            around = intervals_around(self.holdout, self.predictions[champion.name], recipe.scale, part)
        units = {name: unit_of(metric, self.plan) for name, metric in terms.metrics.items()}
        intervals = intervals_of(resampler, unit_drawn(parts.split, resampler))
        common = judged.findings(checks, slices, intervals, self.looks, units)
        points = [CurvePoint(rows=n, scores=by) for n, by in self._curve(controls)]
        findings = TableFindings(
            **dict(common),
            curve=Curve(metric=terms.primary, points=tuple(points)) if points else None,
            value=worth,
            importance=Importance(candidate=judged.champion, metric=terms.primary, columns=tuple(importance)),
            ablations=tuple(self._ablation(*each, judged) for each in controls.ablations),
            prediction_interval=around[0],
            interval_coverage=around[1],
        )
        if taught is not None:
            findings = self._with_student(findings, judged, *taught)
        return TableFound(findings, self.predictions, candidates if taught is None else (*candidates, taught[0]))

    def _curve(self, controls: Controls) -> list[tuple[int, dict[str, float]]]:
        y, w = self.parts.valid.labels, self.parts.valid.w
        return [(n, {name: self.terms.metric.value(y, p, w) for name, p in by.items()}) for n, by in controls.curve]

    def _evidence(
        self, judged: Judged, controls: Controls, candidates: tuple[TableCandidate, ...], groups: Groups
    ) -> TableEvidence:
        parts, terms = self.parts, self.terms
        learned, tried, before = _apart(parts.train, parts.valid, parts.split, terms.seed)
        codes = parts.split.days if parts.split.groups is None else parts.split.groups
        if codes is not None and len(np.unique(codes)) == len(codes):
            codes = None  # every row is a moment of its own
        prior = next(c for c in candidates if c.name == "prior").valid
        y, on_valid = parts.valid.labels, self.resamplers["valid"]
        known = on_valid.score(terms.metric, y, prior)
        return TableEvidence(
            metric=terms.metric,
            champion=judged.champion,
            baseline=judged.choice.chosen.baseline,
            champion_gain=judged.champion_gain,
            looks=self.looks,
            seed=terms.seed,
            plan=self.plan,
            frame=parts.frame,
            split=parts.split,
            train=learned,
            valid=tried,
            holdout=self.holdout,
            scores=judged.scores(),
            kinds={c.name: c.kind for c in candidates},
            shuffled=tuple(
                paired(terms.metric, on_valid.score(terms.metric, y, p), known)[0] for p in controls.shuffled
            ),
            calibration=next(c.calibration for c in judged.candidates if c.name == judged.champion),
            envelopes={
                c.name: why for c in candidates if c.kind == "base" and (why := c.adapted.model.envelope(parts.train))
            },
            groups=groups,
            source=parts.source,
            predicted=self.predictions[judged.champion],
            champion_score=interval(judged.on_holdout[judged.champion], terms.metric.within),
            units=None if codes is None else (codes[before], codes[parts.split.holdout]),
            before_rows=before,
        )

    def _ablation(self, name: str, candidate: TableCandidate, dropped: tuple[str, ...], judged: Judged) -> Ablation:
        full, metric = candidate_name(candidate.base, candidate.how), self.terms.metric
        predicted = candidate.adapted.model.predict(self.holdout.without(list(dropped)))
        own = self.resamplers["holdout"].score(metric, self.holdout.labels, predicted)
        gain = interval(difference(metric, own, judged.on_holdout[full]))
        return Ablation(name=name, drop=dropped, candidate=full, score=interval(own), gain=gain)

    def _value(self, judged: Judged) -> tuple[Value | None, Interval | None]:
        """Return what decisions are worth, and what the champion's pay above those of the prior."""
        rule, chosen, resampler = self.plan.recipe.value, judged.choice.chosen, self.resamplers["holdout"]
        if rule is None:
            return None, None
        payoffs = value.Payoffs(self.parts.frame[self.parts.split.holdout], rule, self.holdout.w)
        facts = {c.name: c for c in judged.candidates}
        worths = {
            name: value.worth(name, payoffs, self.predictions[name], facts[name].threshold, resampler)
            for name in value.priced(chosen, judged.champion)
        }

        def gain(name: str, over: str) -> Interval:
            return value.mean_payoff(worths[name].per_row - worths[over].per_row, resampler, rule.per)

        ours = chosen.adapted or chosen.baseline
        gains = {name: gain(ours, name) for name in chosen.rivals}
        summary = value.summary(rule, chosen, worths, gains, facts, facts[ours].cpu_seconds)
        return summary, gain(judged.champion, "prior")

    def _with_student(
        self, findings: TableFindings, judged: Judged, student: TableCandidate, n_unlabelled: int
    ) -> TableFindings:
        measured = self.measure(student)
        (*_, facts) = with_excess(
            [*findings.candidates, facts_of(student, measured, None, self.terms)], findings.chosen.baseline
        )
        ours = measured.parts["holdout"][self.terms.primary]
        teacher = findings.candidate(judged.champion)
        told = fidelity(
            (facts, self.predictions[facts.name]),
            (teacher, self.predictions[teacher.name]),
            paired(self.terms.metric, ours, judged.on_holdout[teacher.name])[0],
            threshold_of(teacher.name, findings.value),
            n_unlabelled,
            findings.metrics,
        )
        exploratory = explore(findings.chosen, self.terms.metric, {**judged.on_holdout, student.name: ours})
        changed = {"candidates": (*findings.candidates, facts), "exploratory": exploratory, "student": told}
        return findings.model_copy(update=changed)


def drawn_together(split: Split, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Return codes of what is drawn together among some rows: whole groups, else whole days of a split in time.

    A shock common to a day makes its rows alike (Kuensch, *Ann. Statist.* 1989: blocks of what hangs together). Few days
    say nothing of how days differ: below :data:`LEAST_DAYS`, rows are drawn, and a check tells how much days matter.
    """
    if split.groups is not None:
        return split.groups[rows]
    days = None if split.days is None else split.days[rows]
    return days if days is not None and len(np.unique(days)) >= LEAST_DAYS else None


def unit_drawn(split: Split, resampler: Resampler) -> str:
    """Say what is drawn."""
    if resampler.groups is None:
        return "row"
    return "day" if split.groups is None else "group"


def unit_of(metric: Metric, plan: Plan) -> str:
    """Return a metric's unit for people: the target's own is what the schema says."""
    if metric.unit != "target":
        return metric.unit
    spec = plan.schema.field(plan.recipe.target)
    return spec.unit if spec else ""


def threshold_of(name: str, worth: Value | None) -> float:
    """Return the probability from which the positive class is predicted: the value's threshold, else one half."""
    threshold = None if worth is None else worth.threshold_of(name)
    return 0.5 if threshold is None else threshold


def _apart(
    train: Features, valid: Features, split: Split, seed: int
) -> tuple[Features, Features, npt.NDArray[np.int64]]:
    """Return train and valid without a row in both, for checks that learn from the one and try on the other.

    The third is the position in the table of each of these rows, those of train first.
    """
    if split.inner is None:
        return train, valid, np.r_[split.train, split.valid]
    fold = folds_of(train, split.inner, stream(seed, "inner folds"))
    learned, tried = np.flatnonzero(fold != 0), np.flatnonzero(fold == 0)
    return train.take(learned), train.take(tried), split.train[np.r_[learned, tried]]


def slices_of(plan: Plan, held: HeldOut, shown: Sequence[str], metric: Metric) -> tuple[Groups, tuple[Slice, ...]]:
    """Score the recipe's slices and the groups of sensitive fields; the latter also as the fairness check wants them.

    Parameters
    ----------
    shown
        The candidates scored, the champion first.
    """
    groups: Groups = {}
    out = []
    for name, inside, sensitive in _named_slices(plan, held.frame):
        part = _slice(name, np.flatnonzero(inside), held, shown, metric)
        if sensitive is not None and not part.too_few:
            groups.setdefault(sensitive, {})[name.split(": ", 1)[1]] = (part.scores[shown[0]].value, part.rows)
        out.append(part)
    return {column: values for column, values in groups.items() if len(values) > 1}, tuple(out)


def _named_slices(plan: Plan, frame: pl.DataFrame) -> list[tuple[str, npt.NDArray[np.bool_], str | None]]:
    """Return each slice's name, its rows, and the sensitive column whose group it is."""
    named: list[tuple[str, npt.NDArray[np.bool_], str | None]] = [
        (s.name, explain.in_slice(frame, s.where), None) for s in plan.recipe.slices
    ]
    for column, spec in plan.schema.fields.items():
        if spec.sensitive and column in frame.columns and column != plan.recipe.target:
            values = sensitive_groups(frame, column)
            for group in values.drop_nulls().unique().sort():
                inside = (values == group).fill_null(False).to_numpy()
                if inside.sum() >= MIN_GROUP_ROWS:
                    named.append((f"{column}: {group}", inside, column))
    return named


def _slice(name: str, rows: npt.NDArray[np.int64], held: HeldOut, shown: Sequence[str], metric: Metric) -> Slice:
    y, resampler = held.rows.labels[rows], held.resampler
    enough = len(rows) >= LEAST_SLICE_ROWS and (held.rows.layout.task == "regression" or len(np.unique(y)) > 1)
    scores: dict[str, Interval] = {}
    if enough:
        few = replace(resampler.at(rows), resamples=min(SLICE_RESAMPLES, resampler.resamples))
        scores = {c: interval(few.score(metric, y, held.predictions[c][rows]), metric.within) for c in shown}
    return Slice(name=name, rows=len(rows), too_few=not enough, scores=scores)
