"""Cross-validation on tables where nothing predicts the target: python benchmarks/nested_noise.py --tables 200.

Every table goes through ``tabkit run`` with outer folds and a small search. No model knows anything about new rows, so the
truth is known without a second sample: every ROC AUC is .5, and every gain of one candidate over another is 0. Counted are
the intervals of the champion, of all candidates and of the planned comparison that hold it (95% should), and the verdicts
that say ``adapt`` (at most 5% may). Tables are run side by side, one thread each.
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
from joblib import Parallel, delayed, parallel_config

import tabkit
from tabkit import learner
from tabkit.result import Result

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
    started = time.perf_counter()
    decisions: Counter[str] = Counter()
    held: dict[str, list[bool]] = {"the champion": [], "all candidates": [], "the planned comparison": []}
    seeds = range(options.first, options.first + options.tables)
    with parallel_config("loky", inner_max_num_threads=1):
        runs = Parallel(-1, return_as="generator_unordered")(
            delayed(run)(seed, options.rows, options.folds) for seed in seeds
        )
        for result in runs:
            decisions[result.verdict.decision] += 1
            scores = {c.name: c.score("roc_auc") for c in result.candidates if c.name != "prior"}
            hold_half = {name: score.low <= 0.5 <= score.high for name, score in scores.items() if score is not None}
            held["the champion"] += [hold_half[result.champion]] if result.champion in hold_half else []
            held["all candidates"] += hold_half.values()
            against = () if result.planned is None else result.planned.against
            held["the planned comparison"] += [a.low <= 0 <= a.high for a in against]
    print(f"{options.tables} tables of {options.rows} rows, {options.folds} folds")
    for what, those in held.items():
        share = float(np.mean(those)) if those else float("nan")
        half = 1.96 * np.sqrt(share * (1 - share) / options.tables)  # those of one table share its rows
        print(f"intervals of {what} that hold the truth: {share:.1%} of {len(those)} (+-{half:.1%})")
    print(f"verdicts: {', '.join(f'{decision} {count}' for decision, count in decisions.most_common())}")
    print(f"{time.perf_counter() - started:.0f} s")


def run(seed: int, n_rows: int, folds: int) -> Result:
    """Run tabkit on one table of noise and return its result."""
    learner.BUDGETS["quick"] = replace(learner.BUDGETS["quick"], trials=3, epochs=4, trees=60)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TABKIT_LEDGER"] = str(folder / "ledger")
        return run_in(folder, seed, n_rows, folds)


def run_in(folder: Path, seed: int, n_rows: int, folds: int) -> Result:
    """Write table, schema and recipe into a folder, and run them there."""
    rng = np.random.default_rng([seed, 41])
    table = {f"x{i}": rng.normal(size=n_rows) for i in range(5)} | {"y": rng.choice(["no", "yes"], n_rows)}
    pl.DataFrame(table).write_parquet(folder / "d.parquet")
    for place, text in (("data_schemas", SCHEMA), ("domains/noise", RECIPE.format(folds=folds))):
        (folder / place).mkdir(parents=True)
        (folder / place / "noise.toml").write_text(text, encoding="utf-8")
    recipe = str(folder / "domains/noise/noise.toml")
    return tabkit.run(recipe, data=folder / "d.parquet", out=folder / "run", seed=seed, budget="quick", jobs=1).result


if __name__ == "__main__":
    main()
