"""Checks of a table's predictions: shift, skill, calibration, fairness."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import polars as pl

from tabkit.data.encode import UNKNOWN, Features, as_text, fit_encoder
from tabkit.data.frames import values_of
from tabkit.evaluate.checks.base import NO_SOURCE, Finding, TableCheck, TableEvidence
from tabkit.evaluate.checks.fair import MATTERS, Gap, gaps
from tabkit.evaluate.checks.shift import (
    ALPHA,
    column_psi,
    column_shift,
    discoveries,
    elsewhere,
    label_shift,
    two_sample_auc,
)
from tabkit.evaluate.dependence import alike, errors
from tabkit.result import Calibration
from tabkit.seed import stream

SHIFT_AUC = 0.60
SHIFT_PSI = 0.25
SOURCE_AUC = 0.9
"""From here on a classifier hardly errs: source and target are other populations, and what one teaches may not hold."""
SKILL_LOST, MOST_LOST = 0.5, 0.75
"""Share of the skill on train that is worth a note, and that must be lost at the better end of the interval for an alarm."""
MIN_HOLDOUT_CASES = 50
MIN_GROUP_ROWS = 100
LEAST_DAYS = 10
"""Groups, or days, under which how they differ is hardly known; so few days are not drawn."""
DESIGN_EFFECT = 1.5
"""From here on intervals that take rows for independent are too narrow by more than a fifth."""
UNFAIR = 0.002
"""Chance under which a gap between groups is none: a model that learned from few rows is off by more than its rows show."""
DRAWS = 1_000


class HoldoutShift(TableCheck):
    """Compare the holdout with the rows before it, by a classifier and column by column."""

    code = "holdout_shift"
    title = "Train-holdout shift"
    severity = "warning"
    question = "Does the holdout look like the training rows?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if the classifier tells them apart, or a column's PSI is no chance and exceeds :data:`SHIFT_PSI`."""
        before, holdout = _encoded_alike(evidence)
        units = evidence.units
        auc = two_sample_auc(before, holdout, evidence.seed, units=units)
        found = column_shift(before, holdout, units)
        beyond = discoveries(found, ALPHA)
        psi = {name: moved.psi for name, moved in found.items()}
        worst = max(psi, key=lambda name: (name in beyond, psi[name]))
        chance = "" if worst in beyond else ", which so few rows may show by chance"
        numbers = (
            f"a classifier tells holdout rows from training rows with ROC AUC {auc:.3f} (.5 is none); largest PSI "
            f"{psi[worst]:.3f} ('{worst}'{chance})"
        )
        # Three standard errors of the AUC under no shift (Mann-Whitney): few rows must not alarm by chance.
        n, m = (len(before), len(holdout)) if units is None else (len(np.unique(u)) for u in units)
        alarm = max(SHIFT_AUC, 0.5 + 3 * math.sqrt((1 / n + 1 / m) / 12))
        moved = _moved({name: psi[name] for name in beyond})
        if auc > alarm or moved:
            named = ", ".join(f"'{name}' {psi[name]:.2f}" for name in moved)
            return (
                "fail",
                f"The holdout differs from what was trained on: {numbers}{'; PSI by column: ' + named if named else ''}.",
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
        enough, few = few_cases(evidence.holdout, evidence.plan.recipe.task)
        if enough == "fail" and gain <= 0:
            return "not_applicable", f"{text}. {few}"
        if champion == "prior" or gain <= 0:
            return "fail", f"{text}: the columns do not predict the target."
        return "pass", f"{text}."


class Overfit(TableCheck):
    """Compare the champion's skill on train with what it may have on the holdout."""

    code = "overfit"
    title = "Overfitting"
    severity = "warning"
    question = "How much of the champion's skill on train is lost on the holdout?"
    needs = {"champion_score": "The champion has no interval on the holdout."}

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if the champion loses more than :data:`MOST_LOST` of it even at the better end of its interval."""
        lost, score = _skill_lost(evidence), evidence.champion_score
        assert score is not None
        over = [f"{n} ({share:.0%})" for n, share in sorted(lost.items(), key=lambda kv: -kv[1]) if share > SKILL_LOST]
        others = [name for name in over if not name.startswith(f"{evidence.champion} (")]
        note = f" Other candidates lose more than {SKILL_LOST:.0%}: {', '.join(others)}." if others else ""
        if evidence.champion not in lost:
            return "not_applicable", f"The champion, {evidence.champion}, learned nothing on train.{note}"
        sign, chance = evidence.metric.sign, evidence.scores["prior"]
        best = score.high if sign > 0 else score.low
        skill = sign * (evidence.scores[evidence.champion]["train"] - chance["train"])
        least = 1 - sign * (best - chance["holdout"]) / skill
        text = f"The champion, {evidence.champion}, loses {lost[evidence.champion]:.0%} of the skill it shows on train"
        if least > MOST_LOST:
            return "fail", f"{text}, {least:.0%} at the better end of its interval (alarm at {MOST_LOST:.0%}).{note}"
        return "pass", f"{text} (alarm at {MOST_LOST:.0%} at the better end of its interval).{note}"


class Miscalibration(TableCheck):
    """Compare predicted probabilities with what happened."""

    code = "miscalibration"
    title = "Miscalibration"
    severity = "warning"
    question = "Can the probabilities be taken at their word?"
    needs = {"calibration": "Calibration is measured for binary tasks."}

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if the error is no chance, and beyond it at least :data:`MATTERS` of the rarer class's share."""
        calibration = evidence.calibration
        assert calibration is not None
        error, by_chance, chance = _calibration_error(evidence, calibration)
        share = sum(b.rows * b.observed for b in calibration.bins) / sum(b.rows for b in calibration.bins)
        matters = MATTERS * min(share, 1 - share)
        slope = "undefined" if calibration.slope is None else f"{calibration.slope:.2f}"
        text = (
            f"Probabilities of {evidence.champion} are off by {error:.3f} on average (slope {slope}, 1 is ideal), where true "
            f"ones would seem to be by {by_chance:.3f} (chance of so much {chance:.3f}; {matters:.3f} beyond that matters)"
        )
        if chance <= ALPHA and error - by_chance >= matters:
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
    """Compare how right the champion is for groups of sensitive columns with how right it is for all others."""

    code = "fairness_gap"
    title = "Fairness gap"
    severity = "warning"
    question = "Are predictions as right for each sensitive group as for all others?"
    needs = {
        "groups": "The schema marks no field as sensitive, or no group has enough rows.",
        "predicted": "The champion has no predictions on the holdout.",
    }

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if a group's error is no chance, and differs by at least :data:`MATTERS`."""
        predicted, units = evidence.predicted, evidence.units
        assert predicted is not None
        held = evidence.frame[evidence.split.holdout]
        groups = {column: sensitive_groups(held, column) for column in evidence.groups}
        found = gaps(evidence.holdout.labels, predicted, groups, None if units is None else units[1], MIN_GROUP_ROWS)
        field, spread = _widest(evidence.groups)
        scores = (
            f"Between groups of '{field}', {evidence.metric.called} differs by {spread:.3f}, as it may by their make-up"
        )
        if not found:
            return "not_applicable", f"No group has {MIN_GROUP_ROWS} rows beside as many others. {scores}."
        worst = min(found, key=lambda gap: (not _alarms(gap), gap.chance))
        text = (
            f"For '{worst.column}: {worst.group}', {worst.says} is {worst.value:+.3g} off that of all others, {worst.relative:.0%} "
            f"of its scale (alarm at {MATTERS:.0%}; chance of so much {worst.chance:.2g})"
        )
        if _alarms(worst):
            return "fail", f"{text}. Look at the slices before deciding about people by it. {scores}."
        return "pass", f"{text}. {scores}."


class DependentRows(TableCheck):
    """Count groups and days of the holdout, and measure how far the champion's errors hang together in them."""

    code = "dependent_rows"
    title = "Rows that hang together"
    severity = "warning"
    question = "Are there enough groups and days, if rows of one err alike?"
    needs = {"predicted": "The champion has no predictions on the holdout."}
    before = "too_few_holdout_cases"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if rows of one group or day err alike, and they are few, or are not what the resamples draw."""
        split, predicted, roles = evidence.split, evidence.predicted, evidence.plan.recipe
        assert predicted is not None
        of = {"group": (split.groups, roles.group), "day": (split.days, roles.time)}
        error, texts, alarm = errors(evidence.holdout.labels, predicted), [], ""
        for what, (codes, column) in of.items():
            if codes is None:
                continue
            found = alike(error, codes[split.holdout])
            if found.n_groups == len(error):
                texts.append(f"a {what} of its own in every row")
                continue
            texts.append(
                f"{found.n_groups:,} {what}s of '{column}' (intraclass correlation of the errors {found.correlation:.3f}, "
                f"which makes {len(error):,} rows count as {len(error) / found.design_effect:,.0f})"
            )
            drawn = what == "group" or (split.groups is None and found.n_groups >= LEAST_DAYS)
            if (
                found.chance <= ALPHA
                and found.design_effect >= DESIGN_EFFECT
                and not (drawn and found.n_groups >= LEAST_DAYS)
            ):
                why = (
                    f"fewer than {LEAST_DAYS}" if found.n_groups < LEAST_DAYS else "and resamples draw groups, not days"
                )
                alarm = alarm or f"Rows of one {what} err alike, {why}: intervals may be too narrow"
        if not texts:
            return "not_applicable", "The recipe names no group, and the split is not in time."
        text = f"The holdout has {' and '.join(texts)}"
        if alarm:
            return "fail", f"{text}. {alarm}. Hold out more of them, or wait for more, before a close decision."
        return "pass", f"{text}."


def _encoded_alike(evidence: TableEvidence) -> tuple[Features, Features]:
    """Return the rows before and those of the holdout by an encoder that knows both.

    That of the models knows the categories of train only: of a column of many, rows held out are unknown more often, which
    is no shift.
    """
    before, holdout, split = evidence.train.stack(evidence.valid), evidence.holdout, evidence.split
    columns, recipe = list(before.layout.columns), evidence.plan.recipe
    known = not any((part.x_cat == UNKNOWN).any() for part in (before, holdout))
    if known or not set(columns) <= set(evidence.frame.columns):  # components of spectra are no columns of the table
        return before, holdout
    frame = evidence.frame
    both = np.r_[split.before, split.holdout]
    encoder = fit_encoder(frame[both], columns, recipe.task, recipe.target, before.layout.classes)
    rows = evidence.before_rows if evidence.before_rows is not None else split.before
    return encoder.encode(frame[rows]), encoder.encode(frame[split.holdout])


def _alarms(gap: Gap) -> bool:
    return gap.chance <= UNFAIR and gap.relative >= MATTERS


def _widest(groups: Mapping[str, Mapping[str, tuple[float, int]]]) -> tuple[str, float]:
    """Return the column whose groups' scores lie farthest apart, and how far."""
    spread = {c: max(s for s, _ in of.values()) - min(s for s, _ in of.values()) for c, of in groups.items()}
    return max(spread.items(), key=lambda kv: kv[1])


def _calibration_error(evidence: TableEvidence, calibration: Calibration) -> tuple[float, float, float]:
    """Return the expected calibration error, its mean if probabilities were true, and the chance of so much.

    Outcomes are drawn from the probabilities (Vaicenavicius et al., *Evaluating Model Calibration in Classification*,
    AISTATS 2019); rows that hang together count as fewer.
    """
    effect = 1.0
    if evidence.units is not None and evidence.predicted is not None:
        effect = alike(errors(evidence.holdout.labels, evidence.predicted), evidence.units[1]).design_effect
    bins, rng = calibration.bins, stream(evidence.seed, "calibration")
    weights = np.array([b.rows for b in bins]) / sum(b.rows for b in bins)
    predicted, observed = np.array([b.predicted for b in bins]), np.array([b.observed for b in bins])
    rows = np.maximum(1, np.array([b.rows for b in bins]) / effect).astype(np.int64)
    drawn = rng.binomial(rows, np.clip(predicted, 0, 1), size=(DRAWS, len(bins))) / rows
    null = np.abs(drawn - predicted) @ weights
    error = float(np.abs(observed - predicted) @ weights)
    return error, float(null.mean()), float((1 + (null >= error).sum()) / (DRAWS + 1))


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
