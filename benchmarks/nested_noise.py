"""Cross-validation on tables where nothing predicts the target: python benchmarks/nested_noise.py --tables 200.

Every table goes through ``tabkit run`` with outer folds and a small search. No model knows anything about new rows, so the
truth is known without a second sample: every gain between two candidates is 0 in ROC AUC. Counted are the intervals of the
planned comparison that hold 0 (95% should), and the verdicts that say ``adapt`` (at most 5% may).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

import tabkit
from tabkit.models import base

SCHEMA = 'name = "noise"\nrow = "one record"\n' + "".join(
    f"[fields.{name}]\ntype = {kind!r}\n" for name, kind in [*((f"x{i}", "number") for i in range(5)), ("y", "string")]
)
RECIPE = """
name = "noise/noise"
title = "Noise"
schema = "noise"
task = "binary"
target = "y"
positive = "yes"
[split]
folds = {folds}
[metrics]
primary = "roc_auc"
[candidates]
without = ["catboost"]
[candidates.adapt]
icl = ["head"]
"""


def main() -> None:
    """Run the tables and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first table")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    base.BUDGETS["quick"] = replace(base.BUDGETS["quick"], trials=3, epochs=4, trees=60)
    started = time.perf_counter()
    decisions: Counter[str] = Counter()
    held: list[bool] = []
    for seed in range(options.first, options.first + options.tables):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["TABKIT_LEDGER"] = str(folder / "ledger")
            found = run(folder, seed, options.rows, options.folds)
        decisions[found["verdict"]["decision"]] += 1
        held += [against["low"] <= 0 <= against["high"] for against in (found["planned"] or {"against": []})["against"]]
    share, n = float(np.mean(held)), len(held)
    half = 1.96 * np.sqrt(share * (1 - share) / (n / 2))  # two intervals a table, which share its rows
    print(f"{options.tables} tables of {options.rows} rows, {options.folds} folds")
    print(f"intervals of the planned comparison that hold the truth: {share:.1%} of {n} (+-{half:.1%})")
    print(f"verdicts: {', '.join(f'{decision} {count}' for decision, count in decisions.most_common())}")
    print(f"{time.perf_counter() - started:.0f} s")


def run(folder: Path, seed: int, n_rows: int, folds: int) -> dict:
    """Run tabkit on one table of noise and return ``result.json``."""
    rng = np.random.default_rng([seed, 41])
    table = {f"x{i}": rng.normal(size=n_rows) for i in range(5)} | {"y": rng.choice(["no", "yes"], n_rows)}
    pl.DataFrame(table).write_parquet(folder / "d.parquet")
    for place, text in (("data_schemas", SCHEMA), ("domains/noise", RECIPE.format(folds=folds))):
        (folder / place).mkdir(parents=True)
        (folder / place / "noise.toml").write_text(text, encoding="utf-8")
    recipe = str(folder / "domains/noise/noise.toml")
    return tabkit.run(recipe, data=folder / "d.parquet", out=folder / "run", seed=seed, budget="quick").result


if __name__ == "__main__":
    main()
