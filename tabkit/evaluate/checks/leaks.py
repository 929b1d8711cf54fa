"""Checks of what a table knows that new rows will not: leaks, rows that parts share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from tabkit.data.copies import copies
from tabkit.data.encode import Features, as_text
from tabkit.data.frames import values_of
from tabkit.data.leaks import STRONG, TIMES, hidden_leaks
from tabkit.data.single import LEAK_SCORE, single_features, suspects
from tabkit.evaluate.checks.base import NO_SOURCE, Finding, TableCheck, TableEvidence
from tabkit.evaluate.intervals import with_limits
from tabkit.seed import stream

DUPLICATE_SHARE = 0.005


class SingleFeatureLeak(TableCheck):
    """Fit a small tree to each column alone."""

    code = "single_feature_leak"
    title = "Single-feature leak"
    severity = "error"
    question = "Does one column alone give the target away?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail from :data:`LEAK_SCORE` on, if that is more than the best of so many columns reaches by luck."""
        alone = single_features(evidence.train, evidence.valid)
        unit = "R squared" if evidence.plan.recipe.task == "regression" else "ROC AUC"
        if leaks := suspects(alone):
            named = ", ".join(f"'{name}' ({score:.3f})" for name, score in list(leaks.items())[:5])
            return "fail", (
                f"A single column predicts the target nearly perfectly: {named} {unit} on valid (alarm at {LEAK_SCORE}). "
                "It may be recorded after the outcome; ask how it comes about, or exclude it."
            )
        name = max(alone, key=lambda column: alone[column].score)
        luck = ""
        if alone[name].score >= LEAK_SCORE:
            luck = f", as the best of {len(alone):,} may by luck on {len(evidence.valid):,} rows"
        return (
            "pass",
            f"The strongest single column, '{name}', reaches {alone[name].score:.3f} {unit} on valid (alarm at {LEAK_SCORE}){luck}.",
        )


class HiddenLeak(TableCheck):
    """Search columns, missing values, categories of many values, and pairs of numbers."""

    code = "hidden_leak"
    title = "Hidden leak"
    severity = "warning"
    question = "Does a column, a missing value or a pair of columns tell what all others hardly know?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if one is as strong as no honest column, and all others together err several times as much."""
        plan, split = evidence.plan, evidence.split
        frame = evidence.frame[np.union1d(split.before, split.holdout)]
        columns = [c for c in evidence.train.layout.columns if c in frame.columns]
        if not columns:
            return "not_applicable", "All features are components of spectra."
        target = values_of(frame, plan.recipe.target)
        regression = plan.recipe.task == "regression"
        y = target.cast(pl.Float64) if regression else as_text(target).rank("dense").cast(pl.Int64)
        unit = "R squared" if regression else "ROC AUC"
        if traces := hidden_leaks(frame, columns, y.to_numpy(), evidence.seed):
            named = ", ".join(f"{t.says} ({t.score:.3f})" for t in traces[:5])
            return "fail", (
                f"Suspicious: {named} {unit} out of fold, where all other columns together reach {traces[0].others:.3f}. Check "
                "when it is known: what is recorded with the outcome, or after it, must be excluded."
            )
        return "pass", (
            f"No column, missing value or pair of numbers reaches {STRONG} {unit} where all others together err {TIMES:g} times "
            "as much."
        )


class PostOutcomeColumn(TableCheck):
    """Look for features that the schema marks as known only at the outcome."""

    code = "post_outcome_column"
    title = "Post-outcome column"
    severity = "error"
    question = "Is a feature known only at the outcome?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if a model sees one."""
        plan = evidence.plan
        late = [n for n, field in plan.schema.fields.items() if field.known == "at_outcome" and n not in plan.roles]
        used = [name for name in late if name in evidence.train.layout.columns]
        if used:
            return "fail", f"Known only at the outcome, and yet features: {used}. Exclude them."
        if not late:
            return "not_applicable", "The schema marks no field as known only at the outcome."
        return "pass", f"{len(late)} field(s) known only at the outcome were kept out: {', '.join(late[:8])}."


class LabelShuffle(TableCheck):
    """Train on shuffled labels: the pipeline must then score chance.

    This tests tabkit's own code. It cannot find a column that gives the target away, which is independent of shuffled
    labels: that is :class:`HiddenLeak`'s.
    """

    code = "label_shuffle"
    title = "Label shuffle"
    severity = "error"
    question = "Does tabkit's own pipeline score chance on shuffled labels?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if even the least gain over the prior is proven."""
        gain = min(evidence.shuffled, key=lambda interval: interval.value)
        times = "" if len(evidence.shuffled) == 1 else f" (the least of {len(evidence.shuffled)} shuffles)"
        text = (
            f"Trained on shuffled labels, {evidence.baseline} gains {with_limits(gain, 3)} {evidence.metric.called} on the "
            f"prior on valid{times}"
        )
        if not math.isfinite(gain.value):
            return "not_applicable", f"On valid, {evidence.metric.called} is undefined: it lacks cases of a class."
        if gain.low > 0:
            return (
                "fail",
                f"{text}: it knows the target without labels, so tabkit itself, or a model, lets it through. Please report it.",
            )
        return (
            "pass",
            f"{text}: nothing beyond chance, as it must be (of tabkit's own code; a leaky column is not found this way).",
        )


class DuplicateRows(TableCheck):
    """Look for holdout rows that are in train or valid too, whole or but for one cell."""

    code = "duplicate_rows"
    title = "Duplicate rows across parts"
    severity = "warning"
    question = "Are holdout rows also in train, whole or but for one cell?"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail above :data:`DUPLICATE_SHARE`."""
        frame, plan, split = evidence.frame, evidence.plan, evidence.split
        # The table's own columns: a spectrum's components are none of them.
        columns = [*(c for c in frame.columns if plan.is_feature(c)), plan.recipe.target]
        found = copies(frame[columns], split.before, split.holdout, stream(evidence.seed, "copies"))
        text = f"{_copies(found.exact, found.looked_up)} in train or valid"
        if found.near:
            text += f", and {found.near:,} more one that differs in a single cell"
        if found.by_chance:
            text += f" (so few values would repeat another {found.by_chance:,} by chance)"
        if (found.exact + found.near) / found.looked_up > DUPLICATE_SHARE:
            return "fail", f"{text}. Remove copies, or name the column that ties them as group."
        return "pass", f"{text}."


class GroupOverlap(TableCheck):
    """Look for groups on both sides of the holdout."""

    code = "group_overlap"
    title = "Group overlap"
    severity = "error"
    question = "Is a group on both sides of the holdout?"
    needs = {"split.groups": "The recipe names no group column."}

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if there is one."""
        groups, split, column = evidence.split.groups, evidence.split, evidence.plan.recipe.group
        assert groups is not None
        both = np.intersect1d(groups[split.before], groups[split.holdout]).size
        if both:
            return (
                "fail",
                f"{both:,} value(s) of '{column}' have rows on both sides of the holdout; scores then flatter. Use split.kind = 'grouped'.",
            )
        return "pass", f"No value of '{column}' has rows on both sides of the holdout."


class TimeOverlap(TableCheck):
    """Compare the last training row with the first of the holdout."""

    code = "time_overlap"
    title = "Time overlap"
    severity = "error"
    question = "Was the model trained on the holdout's future?"
    needs = {"plan.recipe.time": "The recipe names no time column."}

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if training rows run past it."""
        column = evidence.plan.recipe.time
        assert column is not None
        times = values_of(evidence.frame, column)
        last: Any = times[evidence.split.before].max()
        first: Any = times[evidence.split.holdout].min()
        if last > first:
            return (
                "fail",
                f"Training rows run to {last}, past the first holdout row of {first}: the model has seen the future it is tested on.",
            )
        return "pass", f"Training rows end at {last}, the holdout starts at {first}."


class SourceCopies(TableCheck):
    """Look for holdout rows in the source table."""

    code = "source_copies"
    title = "Holdout rows in the source"
    severity = "error"
    before = "source_distance"
    question = "Has a base already seen rows that are held out?"
    needs = NO_SOURCE

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail above :data:`DUPLICATE_SHARE`."""
        assert evidence.source is not None
        holdout, seen = evidence.holdout, set(_row_keys(evidence.source))
        copies = sum(key in seen for key in _row_keys(holdout))
        text = f"{_copies(copies, len(holdout))} in the source"
        if copies / len(holdout) > DUPLICATE_SHARE:
            return "fail", f"{text}: the bases have seen them. Take the target's rows out of the source."
        return "pass", f"{text}."


def _copies(copies: int, n: int) -> str:
    return f"{copies:,} of {n:,} holdout rows ({copies / n:.1%}) have an exact copy, target included,"


def _row_keys(rows: Features) -> list[bytes]:
    arrays = (rows.x_num, rows.x_cat, rows.labels)
    return [b"".join(np.ascontiguousarray(array[i]).tobytes() for array in arrays) for i in range(len(rows))]
