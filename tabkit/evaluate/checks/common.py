"""Checks that serve tables and lists alike."""

from __future__ import annotations

import math

from tabkit.evaluate.checks.base import Check, Evidence, Finding


class HoldoutReopened(Check[Evidence]):
    """Look the holdout up in the ledger of openings."""

    code = "holdout_reopened"
    title = "Holdout opened before"
    severity = "warning"
    question = "Has this holdout been looked at before?"
    needs = {"looks": "The ledger of holdout openings could not be written, so earlier ones are unknown."}
    before = "too_few_holdout_cases"

    def find(self, evidence: Evidence) -> Finding:
        """Fail from the second question on."""
        looks, words = evidence.looks, evidence.wording
        assert looks is not None
        if looks.question > 1:
            return "fail", (
                f"{words.reopened} {looks.question} questions on this machine. Choices made after looking make {words.numbers} "
                f"optimistic, so the verdict asks for more with each: use {words.advice} for the final word."
            )
        if looks.openings > 1:
            return "pass", f"{words.first} {looks.openings} times on this machine, always with this very question."
        return "pass", f"{words.first} for the first time on this machine."


class UnderBaseline(Check[Evidence]):
    """Hold the champion against the best baseline."""

    code = "under_baseline"
    title = "Champion under baseline"
    severity = "error"
    question = "Is the champion proven worse than a baseline?"
    before = "overfit"

    def find(self, evidence: Evidence) -> Finding:
        """Fail if the whole interval of the gain lies below zero."""
        gain, digits = evidence.champion_gain, evidence.wording.digits
        if gain is None:
            return "not_applicable", f"The champion, {evidence.champion}, is the best baseline itself."
        if not math.isfinite(gain.value):
            return (
                "not_applicable",
                f"On the holdout, {evidence.metric.called} is undefined: it lacks cases of a class.",
            )
        limits = f" [{gain.low:{digits}}, {gain.high:{digits}}]" if math.isfinite(gain.low) else ""
        text = (
            f"The champion, {evidence.champion}, gains {gain.value:{digits}}{limits} "
            f"{evidence.metric.called} on the best baseline, {evidence.baseline}"
        )
        return ("fail", f"{text}: it is proven worse.") if gain.high < 0 else ("pass", f"{text}.")
