"""Checks of a table's predictions: shift, skill, calibration, fairness."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl

from tabkit.data.encode import Features, as_text
from tabkit.data.frames import values_of
from tabkit.evaluate.checks.base import NO_SOURCE, Finding, TableCheck, TableEvidence
from tabkit.evaluate.checks.shift import column_psi, elsewhere, label_shift, two_sample_auc

SHIFT_AUC = 0.60
SHIFT_PSI = 0.25
SOURCE_AUC = 0.9
"""From here on a classifier hardly errs: source and target are other populations, and what one teaches may not hold."""
SKILL_LOST = 0.5
MIN_HOLDOUT_CASES = 50
FAIRNESS_GAP = 0.2
MIN_GROUP_ROWS = 100


class HoldoutShift(TableCheck):
    """Compare the holdout with the rows before it, by a classifier and column by column."""

    code = "holdout_shift"
    title = "Train-holdout shift"
    severity = "warning"
    question = "Does the holdout look like the training rows?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if the classifier tells them apart, or a column's PSI exceeds :data:`SHIFT_PSI`."""
        before, holdout = evidence.train.stack(evidence.valid), evidence.holdout
        auc = two_sample_auc(before, holdout, evidence.seed)
        psi = column_psi(before, holdout)
        worst = max(psi, key=lambda name: psi[name])
        numbers = f"a classifier tells holdout rows from training rows with ROC AUC {auc:.3f} (.5 is none); largest PSI {psi[worst]:.3f} ('{worst}')"
        # Three standard errors of the AUC under no shift (Mann-Whitney): few rows must not alarm by chance.
        alarm = max(SHIFT_AUC, 0.5 + 3 * math.sqrt((1 / len(before) + 1 / len(holdout)) / 12))
        if auc > alarm or psi[worst] > SHIFT_PSI:
            moved = ", ".join(f"'{name}' {psi[name]:.2f}" for name in _moved(psi))
            return (
                "fail",
                f"The holdout differs from what was trained on: {numbers}{'; PSI by column: ' + moved if moved else ''}.",
            )
        return "pass", f"{numbers[0].upper()}{numbers[1:]}."


class SourceDistance(TableCheck):
    """Compare the source's rows with the training rows."""

    code = "source_distance"
    title = "Distance of the source"
    severity = "info"
    question = "Do the source's rows look like the target's?"
    needs = NO_SOURCE

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if they are another population, or seem to be in another unit."""
        source, train = evidence.source, evidence.train
        assert source is not None
        auc = two_sample_auc(source, train, evidence.seed)
        psi = column_psi(source, train)
        moved = sum(value > SHIFT_PSI for value in psi.values())
        named = f": {', '.join(f'{name!r} {psi[name]:.2f}' for name in _moved(psi))}" if moved else ""
        text = (
            f"A classifier tells source rows from training rows with ROC AUC {auc:.3f} (.5 is none, alarm at {SOURCE_AUC}); "
            f"{moved} of {len(psi)} columns have a PSI above {SHIFT_PSI}{named}; {label_shift(source, train)}."
        )
        if strays := elsewhere(source, train):
            return (
                "fail",
                f"{text} Nowhere near those of the target: {'; '.join(strays[:4])}. Are they in another unit?",
            )
        return ("fail" if auc > SOURCE_AUC else "pass"), text


class TooFewHoldoutCases(TableCheck):
    """Count the holdout's rows, or those of its rarest class."""

    code = "too_few_holdout_cases"
    title = "Too few holdout cases"
    severity = "warning"
    question = "Can the holdout tell candidates apart?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail under :data:`MIN_HOLDOUT_CASES`."""
        return few_cases(evidence.holdout, evidence.plan.recipe.task)


class NoSkill(TableCheck):
    """Compare the champion with the prior."""

    code = "no_skill"
    title = "Skill over the prior"
    severity = "error"
    question = "Do the columns predict the target at all?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail unless the champion is better."""
        champion, scores = evidence.champion, evidence.scores
        gain = evidence.metric.sign * (scores[champion]["holdout"] - scores["prior"]["holdout"])
        if not math.isfinite(gain):
            return (
                "not_applicable",
                f"On the holdout, {evidence.metric.called} is undefined: it lacks cases of a class.",
            )
        text = f"The champion, {champion}, is {gain:+.4g} {evidence.metric.called} from the prior, which looks at no column"
        if champion == "prior" or gain <= 0:
            return "fail", f"{text}: the columns do not predict the target."
        return "pass", f"{text}."


class Overfit(TableCheck):
    """Compare each candidate's skill on train with that on the holdout."""

    code = "overfit"
    title = "Overfitting"
    severity = "warning"
    question = "How much of the skill on train is lost on the holdout?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if one loses more than :data:`SKILL_LOST` of it."""
        lost = _skill_lost(evidence)
        if not lost:
            return "not_applicable", "No candidate learned anything on train."
        over = {name: share for name, share in lost.items() if share > SKILL_LOST}
        if over:
            named = ", ".join(f"{name} ({share:.0%})" for name, share in sorted(over.items(), key=lambda kv: -kv[1]))
            mark = f" The champion, {evidence.champion}, is among them." if evidence.champion in over else ""
            return (
                "fail",
                f"More than {SKILL_LOST:.0%} of the skill shown on train is lost on the holdout by: {named}.{mark}",
            )
        name = max(lost, key=lambda n: lost[n])
        return (
            "pass",
            f"No candidate loses more than {lost[name]:.0%} of the skill it shows on train ({name}; alarm at {SKILL_LOST:.0%}).",
        )


class Miscalibration(TableCheck):
    """Compare predicted probabilities with what happened."""

    code = "miscalibration"
    title = "Miscalibration"
    severity = "warning"
    question = "Can the probabilities be taken at their word?"
    needs = {"calibration": "Calibration is measured for binary tasks."}

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if more than a quarter of the bins lie outside their interval."""
        calibration = evidence.calibration
        assert calibration is not None
        bins = calibration.bins
        outside = sum(not b.low <= b.predicted <= b.high for b in bins)
        slope = "undefined" if calibration.slope is None else f"{calibration.slope:.2f}"
        text = (
            f"Probabilities of {evidence.champion} are off by {calibration.ece:.3f} on average (slope {slope}, 1 is ideal); "
            f"{outside} of {len(bins)} bins lie outside their 95% interval"
        )
        # Two of ten bins outside by chance alone happens in 9% of runs, three in 1%.
        if outside > 0.25 * len(bins):
            return "fail", f"{text}. Recalibrate before using them as probabilities."
        return "pass", f"{text}."


class OutsideEnvelope(TableCheck):
    """Ask each base whether it was pretrained for a table like this."""

    code = "outside_envelope"
    title = "Base outside its envelope"
    severity = "warning"
    question = "Was the base made for a table like this?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if one was not."""
        if evidence.envelopes:
            return "fail", " ".join(f"{name}: {why}." for name, why in evidence.envelopes.items())
        bases = sorted(name for name, kind in evidence.kinds.items() if kind == "base")
        if not bases:
            return "not_applicable", "No pretrained base is among the candidates."
        return "pass", f"The table lies inside what {', '.join(bases)} was pretrained for."


class FairnessGap(TableCheck):
    """Compare the champion's scores between groups of sensitive columns."""

    code = "fairness_gap"
    title = "Fairness gap"
    severity = "warning"
    question = "Do sensitive groups fare alike?"
    needs = {"groups": "The schema marks no field as sensitive, or no group has enough rows."}

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if the widest gap exceeds :data:`FAIRNESS_GAP` of the overall score."""
        scores = {field: {g: score for g, (score, _) in of.items()} for field, of in evidence.groups.items()}
        gaps = {field: max(of.values()) - min(of.values()) for field, of in scores.items()}
        field = max(gaps, key=lambda name: gaps[name])
        gap, of = gaps[field], scores[field]
        low, high = min(of, key=lambda g: of[g]), max(of, key=lambda g: of[g])
        text = (
            f"Between groups of '{field}', {evidence.champion} differs by {gap:.3f} {evidence.metric.called} "
            f"({low}: {of[low]:.3f}, {high}: {of[high]:.3f})"
        )
        overall, prior = (evidence.scores[name]["holdout"] for name in (evidence.champion, "prior"))
        if gap > max(FAIRNESS_GAP * abs(overall), 1e-12 * abs(prior)) and abs(overall - prior) > 0:
            return "fail", f"{text}. Look at the slices before deciding about people by it."
        return "pass", f"{text}; alarm at {FAIRNESS_GAP:.0%} of the overall score."


def _skill_lost(evidence: TableEvidence) -> dict[str, float]:
    """Return the share of its skill on train that each candidate loses on the holdout."""
    sign, chance = evidence.metric.sign, evidence.scores["prior"]
    lost = {}
    for name, parts in evidence.scores.items():
        skill = sign * (parts["train"] - chance["train"])
        gap = sign * (parts["train"] - parts["holdout"])
        if name != "prior" and skill > 1e-9 * abs(chance["train"]) and math.isfinite(gap):
            lost[name] = gap / skill
    return lost


def _moved(psi: dict[str, float]) -> list[str]:
    """Return the columns that moved most, four at most."""
    return sorted((name for name, value in psi.items() if value > SHIFT_PSI), key=lambda name: -psi[name])[:4]


def few_cases(holdout: Features, task: str) -> Finding:
    """Return whether the holdout has enough rows, of the rarest class if there are classes."""
    if task == "regression":
        n, what = len(holdout), "rows"
    else:
        counts = np.bincount(holdout.labels, minlength=len(holdout.layout.classes))
        n, what = int(counts.min()), f"rows of class '{holdout.layout.classes[int(counts.argmin())]}'"
    text = f"The holdout has {n:,} {what}"
    if n < MIN_HOLDOUT_CASES:
        return "fail", f"{text}; under {MIN_HOLDOUT_CASES} its intervals are wide and may be too narrow still."
    return "pass", f"{text} ({MIN_HOLDOUT_CASES} or more are wanted)."


def sensitive_groups(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return group names of a sensitive column: its values, or the quarter of its numbers that a number falls in."""
    values = values_of(frame, column)
    if not values.dtype.is_numeric() or values.n_unique() <= 12:
        return as_text(values)
    numbers = values.cast(pl.Float64).to_numpy()
    present = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[present], np.linspace(0, 1, 5)))
    quarter = np.searchsorted(edges[1:-1], numbers, side="left")
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return pl.Series(column, [names[q] if known else None for q, known in zip(quarter, present, strict=True)])
