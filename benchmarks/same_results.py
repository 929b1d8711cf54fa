"""Compare two run folders value by value: python benchmarks/same_results.py RUN OTHER [--tolerance 1e-12].

For a change that must not change a number: run a recipe before and after it with one seed, and compare. Every value of
``result.json`` that both have must be equal, and so must the predictions of the holdout (or the lists of its users). What
a clock or the machine decides (seconds, memory, energy, cost, versions, folders, how often the holdout was opened) is left out.
Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

MEASURED = {
    "created",
    "tabkit",
    "command",
    "seconds_total",
    "seconds",
    "cpu_seconds",
    "peak_mb",
    "energy_wh",
    "score_cpu_seconds_per_million",
    "cost_per_million",
    "adapt_cost",
    "score_cost_per_1000",
    "net_gain_per_year",
    "speedup",
    "holdout_opened",
    "versions",
    "machine",
    "seal",
}
"""Keys whose values a clock or the machine decides."""
TIMED_CHECKS = {"holdout_reopened"}


def differences(one: Any, other: Any, tolerance: float, at: str = "") -> Iterator[str]:
    """Yield the places at which two JSON values differ; keys that only one has are left out."""
    if isinstance(one, dict) and isinstance(other, dict):
        if one.get("code") in TIMED_CHECKS:
            return
        for key in one.keys() & other.keys() - MEASURED:
            yield from differences(one[key], other[key], tolerance, f"{at}.{key}" if at else key)
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            yield f"{at}: {len(one)} entries, {len(other)} in the other"
        for i, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from differences(a, b, tolerance, f"{at}[{i}]")
    elif isinstance(one, float) and isinstance(other, (int, float)):
        if not math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{at}: {one!r}, {other!r} in the other"
    elif one != other and not _timed(at):
        yield f"{at}: {one!r}, {other!r} in the other"


def _timed(at: str) -> bool:
    return at == "value.sentence"  # it tells the price of computing


def compare(one: Path, other: Path, tolerance: float) -> list[str]:
    """Return what differs between two run folders, a line for each."""
    results = [json.loads((folder / "result.json").read_text(encoding="utf-8")) for folder in (one, other)]
    out = list(differences(*results, tolerance))
    frames = [pl.read_parquet(folder / "holdout_predictions.parquet") for folder in (one, other)]
    if frames[0].columns != frames[1].columns or frames[0].height != frames[1].height:
        return [*out, "holdout_predictions.parquet: other columns or rows"]
    for name in frames[0].columns:
        a, b = frames[0][name], frames[1][name]
        far = (a - b).abs().max() if a.dtype.is_float() else None
        if (float(far) > tolerance) if isinstance(far, float) else not a.equals(b):
            out.append(f"holdout_predictions.parquet, column {name}: differs{f' by up to {far:.2g}' if far else ''}")
    return out


def main() -> None:
    """Compare, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-12)
    options = parser.parse_args()
    lines = compare(options.run, options.other, options.tolerance)
    try:
        print("\n".join(lines) or "every value that both have is equal", flush=True)
    except BrokenPipeError:  # `| head` has seen enough; what is left in the buffer goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1 if lines else 0)


if __name__ == "__main__":
    main()
