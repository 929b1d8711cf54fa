"""Time `tabkit score` beside a plain script that loads everything: python benchmarks/scoring.py --rows 1000000.

Both use the same LightGBM trees on the same rows, Parquet to Parquet, each in a process of its own; the plain script
is what most people write: pandas, one frame, one predict.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RECIPE = """
name = "bench/scoring"
title = "Scoring speed"
schema = "scoring"
task = "binary"
target = "y"
positive = "1"
max_rejected = 0.0
[metrics]
primary = "roc_auc"
[candidates]
adapt = {}
without = ["catboost", "blend"]
"""

PLAIN = """
import sys
import lightgbm, pandas
frame = pandas.read_parquet(sys.argv[2])
model = lightgbm.Booster(model_file=sys.argv[1])
columns = [c for c in frame.columns if c != "y"]
frame["probability_1"] = model.predict(frame[columns].to_numpy(), num_threads=1)
frame[["probability_1"]].to_parquet(sys.argv[3])
"""


def main() -> None:
    """Make a table and a bundle, score both ways, print seconds and peaks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--train-rows", type=int, default=20_000, help="rows that the trees are grown on")
    options = parser.parse_args()
    import numpy as np
    import polars as pl

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TABKIT_LEDGER"] = str(folder / "ledger.jsonl")
        rng = np.random.default_rng(0)

        def table(n_rows: int) -> pl.DataFrame:
            x = rng.normal(size=(n_rows, options.columns)).astype(np.float32)
            y = (x[:, 0] * x[:, 1] + x[:, 2] + rng.normal(size=n_rows) > 0).astype(np.int64)
            return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(options.columns)}, "y": y})

        small, large = folder / "train.parquet", folder / "new.parquet"
        table(options.train_rows).write_parquet(small)
        table(options.rows).write_parquet(large)
        fields = "".join(f'[fields.x{i}]\ntype = "number"\n' for i in range(options.columns))
        for path, text in (
            (folder / "domains" / "bench" / "scoring.toml", RECIPE),
            (folder / "data_schemas" / "scoring.toml", f'name = "scoring"\n[fields.y]\ntype = "integer"\n{fields}'),
        ):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        run = [sys.executable, "-m", "tabkit", "run", str(folder / "domains/bench/scoring.toml"), "--data", str(small)]
        subprocess.run([*run, "--budget", "quick", "--out", str(folder / "run")], check=True, capture_output=True)
        bundle = folder / "run" / "bundle"
        trees = booster_in(bundle)
        ours = [sys.executable, "-m", "tabkit", "score", str(bundle), str(large), "--out", str(folder / "ours.parquet")]
        plain = [sys.executable, "-c", PLAIN, str(trees), str(large), str(folder / "plain.parquet")]
        print(f"{options.rows:,} rows x {options.columns} columns, Parquet to Parquet\n")
        print("| path | wall s | CPU s | peak MB | rows per CPU s |\n|---|---|---|---|---|")
        for label, words in (("tabkit score", ours), ("pandas + LightGBM, all at once", plain)):
            wall, cpu, peak = measure(words)
            print(f"| {label} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {options.rows / cpu:,.0f} |")
        a = pl.read_parquet(folder / "ours.parquet")["probability_1"].to_numpy()
        b = pl.read_parquet(folder / "plain.parquet")["probability_1"].to_numpy()
        print(f"\nlargest difference between the two: {abs(a - b).max():.1e}")


def booster_in(bundle: Path) -> Path:
    """Return the champion's trees, which LightGBM reads by itself."""
    champion = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["champion"]
    texts = sorted((bundle / "model").rglob("*.txt"))
    if len(texts) != 1:
        raise SystemExit(
            f"The champion is {champion}, and the bundle holds {len(texts)} LightGBM models. Expected one."
        )
    return texts[0]


def measure(words: list[str]) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds and peak resident megabytes of a process."""
    started = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words} ended with {status}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
