"""Runs side by side, and whether their numbers can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabkit.errors import UsageError
from tabkit.result import Interval, Result, read_result


@dataclass(frozen=True)
class RunRow:
    """One run: the primary metric of its champion on holdout rows with a 95% interval, and what it took.

    ``overfit_gap`` is train minus holdout, above zero if train looks better; ``rows`` are those that were split.
    """

    run: str
    recipe: str
    decision: str
    champion: str
    metric: str
    holdout: float | None
    low: float | None
    high: float | None
    overfit_gap: float | None
    rows: int
    seconds: float
    budget: str
    seed: int


@dataclass(frozen=True)
class Comparison:
    """Runs in the order given, and why their numbers cannot be compared, if they cannot."""

    rows: tuple[RunRow, ...]
    warnings: tuple[str, ...]


def compare_runs(folders: Sequence[str | Path]) -> Comparison:
    """Read runs for comparison.

    Raises
    ------
    UsageError
        No folder was given, or one is no run folder.
    """
    if not folders:
        raise UsageError("No run folder given. Give at least one folder that `tabkit run` made.")
    results = [(Path(folder), read_result(folder)) for folder in folders]
    return Comparison(
        tuple(_row(folder, result) for folder, result in results), tuple(_warnings([r for _, r in results]))
    )


def _row(folder: Path, result: Result) -> RunRow:
    if result.champion not in {c.name for c in result.candidates}:
        raise UsageError(
            f"{folder}: the champion '{result.champion}' is not among the candidates. Run the recipe again."
        )
    champion = result.candidate(result.champion)
    score = champion.score(result.primary) or Interval(math.nan, math.nan, math.nan)
    return RunRow(
        run=str(folder),
        recipe=result.recipe,
        decision=result.verdict.decision,
        champion=result.champion,
        metric=result.primary,
        holdout=_defined(score.value),
        low=_defined(score.low),
        high=_defined(score.high),
        overfit_gap=champion.overfit_gap,
        rows=result.rows.used,
        seconds=result.seconds_total,
        budget=result.budget,
        seed=result.seed,
    )


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _warnings(results: list[Result]) -> list[str]:
    """Say what differs between runs that keeps their holdout scores from being comparable."""
    out = []
    metrics = {r.primary for r in results}
    if len(metrics) > 1:
        out.append(
            f"the primary metrics differ ({', '.join(sorted(metrics))}): the holdout column holds different measures."
        )
    targets = {(r.task, r.target) for r in results}
    if len(targets) > 1:
        named = ", ".join(f"{target} ({task})" for task, target in sorted(targets))
        out.append(f"the runs predict different things: {named}.")
    if len({r.data_fingerprint for r in results}) > 1:
        out.append("the data differ (fingerprints): a difference in score may be a difference in rows.")
    splits = {(r.split.kind, r.split.holdout, r.split.column, r.split.seed) for r in results}
    if len(splits) > 1:
        out.append("the splits differ (kind, share, column or seed): the holdout rows are not the same ones.")
    return out
