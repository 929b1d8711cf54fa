"""One result as every section reads it: its candidates by kind, their titles and scores, the holdout's predictions."""

from __future__ import annotations

import polars as pl

from tabkit.errors import inside
from tabkit.report.numbers import known
from tabkit.result import Against, Exploratory, Interval, Kind, ListResult, Part, Result, Student, TableResult
from tabkit.result.lists import CutoffGain

KINDS: dict[Kind, str] = {
    "adapted": "Adapted",
    "base": "Bases, untouched",
    "baseline": "Baselines",
    "student": "Student",
}
DECISIONS = {
    "adapt": "Adapt",
    "keep_base": "Keep the base",
    "use_baseline": "Use the baseline",
    "not_enough_evidence": "Not enough evidence",
}


class Reading:
    """A result, its predictions on the holdout (None if they are gone), and the look-ups of the sections."""

    def __init__(self, result: Result, predictions: pl.DataFrame | None = None) -> None:
        self.result = result
        self.predictions = predictions
        self.metric = result.metric
        self.metric_name = inside(self.metric.title)
        self.champion = result.candidate(result.champion)
        self.titles = {c.name: c.title for c in result.candidates}
        self.scored = [c for c in result.candidates if c.scores]
        self.by_kind = [c for kind in KINDS for c in self.scored if c.kind == kind]
        self.units = "users" if isinstance(result, ListResult) else "rows"

    @property
    def student(self) -> Student | None:
        """The student, if one was taught."""
        return self.result.student if isinstance(self.result, TableResult) else None

    @property
    def styles(self) -> dict[str, str]:
        """The candidates that curves show, the champion first, each with its role: its line style."""
        chosen = self.result.chosen
        roles = {chosen.best_base: "base", chosen.adapted: "adapted", chosen.base: "base", chosen.baseline: "baseline"}
        scored = {c.name for c in self.scored}
        return {name: roles.get(name, "champion") for name in self.result.rivals if name in scored}

    def title(self, name: str | None) -> str:
        """Return what a candidate is called."""
        return self.titles.get(name or "", name or "")

    def score(self, name: str, part: Part = "holdout", metric: str | None = None) -> Interval | None:
        """Return a candidate's score; None if it is undefined."""
        score = self.result.candidate(name).score(metric or self.result.primary, part)
        return score if score is not None and known(score.value) else None


def gain_of(comparison: Against | Exploratory | CutoffGain) -> Interval:
    """Return the gain of a comparison with its interval."""
    return Interval(comparison.gain, comparison.low, comparison.high)


def listed(parts: list[str]) -> str:
    """Return a list in words.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
