"""Runs side by side, and whether their numbers can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabkit.errors import UsageError
from tabkit.report.read import read_result


@dataclass(frozen=True)
class Run:
    """One run: its champion's primary metric on holdout rows with a 95% interval, and what it took.

    ``overfit_gap`` is train minus holdout, above zero where train looks better; ``rows`` are those that were split.
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

    rows: tuple[Run, ...]
    warnings: tuple[str, ...]


def compare_runs(folders: Sequence[Path]) -> Comparison:
    """Read runs for comparison.

    Raises
    ------
    UsageError
        No folder was given, or one is no run folder.
    """
    if not folders:
        raise UsageError("No run folder given. Give at least one folder that `tabkit run` made.")
    results = [(Path(folder), read_result(Path(folder))) for folder in folders]
    return Comparison(
        tuple(_row(folder, result) for folder, result in results), tuple(_warnings([r for _, r in results]))
    )


def _row(folder: Path, result: dict[str, Any]) -> Run:
    champion = next((c for c in result["candidates"] if c["name"] == result["champion"]), None)
    if champion is None:
        raise UsageError(
            f"{folder}: the champion '{result['champion']}' is not among the candidates. Run the recipe again."
        )
    score = champion["scores"].get("holdout", {}).get(result["primary"]) or {}
    rows = result["rows"]
    return Run(
        run=str(folder),
        recipe=result["recipe"],
        decision=result["verdict"]["decision"],
        champion=result["champion"],
        metric=result["primary"],
        holdout=score.get("value"),
        low=score.get("low"),
        high=score.get("high"),
        overfit_gap=champion["overfit_gap"],
        rows=rows["train"] + rows["valid"] + rows["holdout"],
        seconds=result["seconds_total"],
        budget=result["budget"],
        seed=result["seed"],
    )


def _warnings(results: list[dict[str, Any]]) -> list[str]:
    """Say what differs that must be equal for holdout scores to be of the same rows and in the same measure."""
    out = []
    metrics = {r["primary"] for r in results}
    if len(metrics) > 1:
        out.append(
            f"the primary metrics differ ({', '.join(sorted(metrics))}): the holdout column holds different measures."
        )
    targets = {(r["task"], r["target"]) for r in results}
    if len(targets) > 1:
        named = ", ".join(f"{target} ({task})" for task, target in sorted(targets))
        out.append(f"the runs predict different things: {named}.")
    if len({r["data_fingerprint"] for r in results}) > 1:
        out.append("the data differ (fingerprints): a difference in score may be a difference in rows.")
    splits = {tuple(r["split"][key] for key in ("kind", "holdout", "column", "seed")) for r in results}
    if len(splits) > 1:
        out.append("the splits differ (kind, share, column or seed): the holdout rows are not the same ones.")
    return out
