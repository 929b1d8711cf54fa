"""Checks of whether the answer makes sense: is it worth anything, and could it be known when it is needed."""

from __future__ import annotations

import re

from tabkit.evaluate.checks.base import Finding, TableCheck, TableEvidence

LATE_NAME = re.compile(
    r"(^|[^a-z])(paid|payments?|repaid|recover\w*|collect\w*|closed|cancel\w*|refund\w*|returned|"
    r"balance|settle\w*|charge.?off\w*|charged.?off|write.?off\w*|written.?off|terminat\w*|discharge\w*|outcome|result|"
    r"final|after|post)([^a-z]|$)",
    re.I,
)
"""Words in a column's name that often mean it is recorded once the outcome is known."""


class WorthNothing(TableCheck):
    """Hold what the champion's decisions pay against deciding by the prior, which looks at no column."""

    code = "worth_nothing"
    title = "Champion against doing nothing"
    severity = "error"
    question = "Do decisions by the champion pay more than deciding without a model?"
    needs = {"over_nothing": "The recipe has no [value], so decisions have no price."}
    before = "overfit"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if they pay less, proven or not: nobody should adopt a model for that."""
        gain, rule = evidence.over_nothing, evidence.plan.recipe.value
        assert gain is not None and rule is not None
        text = (
            f"Decisions by {evidence.champion} pay {gain.value:+,.0f} {rule.unit} [{gain.low:+,.0f}, {gain.high:+,.0f}] per "
            f"{rule.per:,} against deciding without a model (the same decision for everyone)"
        )
        if gain.value < 0:
            return "fail", f"{text}: on these rows you would be better off without it. Do not use it to decide."
        if gain.low <= 0:
            return "pass", f"{text}; that it is more is not shown."
        return "pass", f"{text}."


class AskWhenKnown(TableCheck):
    """Look for features that matter and whose names speak of what comes after the decision."""

    code = "ask_when_known"
    title = "Columns that may come too late"
    severity = "warning"
    question = "Are the strongest columns known when the decision is taken?"
    before = "label_shuffle"

    def find(self, evidence: TableEvidence) -> Finding:
        """Fail if any such column matters beyond chance."""
        fields = evidence.plan.schema
        suspects = [
            c.name
            for c in evidence.importance
            if c.low > 0
            and LATE_NAME.search(c.name)
            and (spec := fields.field(c.name))
            and not (spec.title or spec.description)
        ]
        if suspects:
            return "fail", (
                f"The champion leans on {', '.join(map(repr, suspects[:8]))}, whose names speak of what happens after the "
                'decision. Ask when each is recorded: if later, set known = "at_outcome" in the schema; if before, say so in '
                "its title or description there, and this check is silent."
            )
        return "pass", "No column that matters has a name that speaks of what comes after the decision."
