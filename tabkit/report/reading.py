"""One result as every section reads it: its candidates by kind, their titles and scores, the holdout's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import polars as pl

from tabkit.errors import inside
from tabkit.report.numbers import NEARLY_ZERO, fixed, known
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
        self.scored = [c for c in result.candidates if "holdout" in c.scores]
        self.by_kind = [c for kind in KINDS for c in self.scored if c.kind == kind]
        self.units = "users" if isinstance(result, ListResult) else "rows"
        better = self.metric.greater_is_better
        self.gain_title = f"Gain in {self.metric_name}" if better else f"Reduction of {self.metric_name}"
        self.loss_title = f"Loss in {self.metric_name}" if better else f"Rise of {self.metric_name}"
        self.unit = f" {self.metric.unit}" if self.metric.unit else ""

    @property
    def student(self) -> Student | None:
        """The student, if one was taught."""
        return self.result.student if isinstance(self.result, TableResult) else None

    @property
    def unweighted(self) -> str:
        """What candidates made without the rows' weights, in a sentence; empty if nothing."""
        named: dict[str, list[str]] = {}
        for c in self.result.candidates:
            if c.unweighted and not c.members:
                named.setdefault(c.unweighted, []).append(c.title)
        each = "; ".join(f"{listed(titles)} ({what})" for what, titles in named.items())
        return f"Made without the weights, at least in part: {each}." if named else ""

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

    def column(self, name: str) -> str:
        """Return what the schema calls a column; of a slice by a column, ``title: value``."""
        column, colon, value = name.partition(": ")
        return f"{self.result.features.titles.get(column) or column}{colon}{value}"

    def change(self, gain: float, decimals: int) -> str:
        """Say a change of the metric in its own direction: an error is lowered, where a score is gained.

        Parameters
        ----------
        gain
            Above zero is better.
        """
        if not known(gain) or gain == 0:
            return f"neither {'gained nor lost' if self.metric.greater_is_better else 'lowered nor raised'} {self.metric_name}"
        if fixed(gain, decimals) == NEARLY_ZERO:
            return f"left {self.metric_name} about as it was"
        size = f"{fixed(abs(gain), decimals)}{self.unit}"
        if self.metric.greater_is_better:
            return f"{'gained' if gain > 0 else 'lost'} {size} {self.metric_name}"
        return f"{'lowered' if gain > 0 else 'raised'} {self.metric_name} by {size}"

    def score(self, name: str, part: Part = "holdout", metric: str | None = None) -> Interval | None:
        """Return a candidate's score; None if it is undefined."""
        score = self.result.candidate(name).score(metric or self.result.primary, part)
        return score if score is not None and known(score.value) else None


Comparison = TypeVar("Comparison", Against, Exploratory)


def gain_of(comparison: Against | Exploratory | CutoffGain) -> Interval:
    """Return the gain of a comparison with its interval."""
    return Interval(comparison.gain, comparison.low, comparison.high)


def once(compared: Sequence[Comparison]) -> list[tuple[Comparison, ...]]:
    """Return comparisons, those with the very same numbers together: blends of the same members are one opponent."""
    groups: dict[tuple[float, float, float], list[Comparison]] = {}
    for each in compared:
        groups.setdefault((each.gain, each.low, each.high), []).append(each)
    return [tuple(group) for group in groups.values()]


def listed(parts: list[str]) -> str:
    """Return a list in words.

    >>> listed(["a", "b", "c"]), listed(["a"])
    ('a, b and c', 'a')
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
