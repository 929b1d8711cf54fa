"""Run both finance recipes and print their tables: python benchmarks/finance.py --budget quick."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--seed", default="0")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TABKIT_LEDGER"] = str(Path(folder) / "ledger.jsonl")
        for recipe in ("finance/loan_default", "finance/new_product"):
            out = Path(folder) / recipe.replace("/", "-")
            words = ["run", recipe, "--budget", options.budget, "--seed", options.seed, "--out", str(out)]
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "tabkit", *words], check=True, capture_output=True)
            seconds = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            report(recipe, json.loads((out / "result.json").read_text()), seconds, peak)


def report(recipe: str, result: dict, seconds: float, peak_mb: float) -> None:
    """Print one recipe's table; the peak is the largest of the runs so far."""
    print(f"\n{recipe}: {seconds:.0f} s, peak {peak_mb:.0f} MB, verdict {result['verdict']['decision']}")
    print("| candidate | valid | holdout | overfit gap |\n|---|---|---|---|")
    for candidate in result["candidates"]:
        holdout = candidate["scores"]["holdout"][result["primary"]]
        valid = candidate["scores"]["valid"][result["primary"]]
        star = " *" if candidate["name"] == result["champion"] else ""
        shown = f"{holdout['value']:.3f} [{holdout['low']:.3f}, {holdout['high']:.3f}]"
        print(f"| {candidate['name']}{star} | {valid['value']:.3f} | {shown} | {candidate['overfit_gap']:+.3f} |")


if __name__ == "__main__":
    main()
