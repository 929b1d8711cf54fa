"""Run and score lists at growing sizes: python benchmarks/list_scale.py --sizes 25000x3000x300000 100000x20000x2000000.

A size is users x items x events. The log is simulated: users of unequal activity come back to items of their own, and items
are popular by Zipf's law. The run and each scoring have a process of their own, so that CPU seconds (all threads, start
included) and peak memory are theirs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

RECIPE = """
name = "bench/lists"
title = "Lists at scale"
schema = "lists"
task = "ranking"
target = "item"
id = "user"
time = "time"
[ranking]
base_days = 140
[metrics]
primary = "ndcg@10"
report = ["recall@20"]
worthwhile = 0.002
[candidates.adapt]
counts = ["refresh"]
als = ["fold_in", "warm"]
rerank = ["continue", "full"]
"""
SCHEMA = """
name = "lists"
[fields.user]
type = "integer"
[fields.item]
type = "integer"
[fields.time]
type = "datetime"
"""
DAYS, OWN, REPEATS = 300, 12, 0.7
SECONDS_A_DAY = 86_400
LOAD_AND_SCORE = """
import sys, time
import polars as pl
import tabkit.bundle, lightgbm
started = time.perf_counter()
bundle = tabkit.bundle.load_bundle(sys.argv[1])
loaded = time.perf_counter()
bundle.predict(pl.read_csv(sys.argv[2]))
print(loaded - started, time.perf_counter() - loaded)
"""
"""One user in a process that is up: seconds to load the bundle, and to list."""


def events(n_users: int, n_items: int, n_events: int, seed: int = 0) -> pl.DataFrame:
    """Return a log of so many events; users have ``OWN`` items of their own, which they take in ``REPEATS`` of the cases."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, n_items + 1)
    edges = np.cumsum(share / share.sum())
    activity = np.cumsum(rng.lognormal(0, 0.6, n_users))
    user = np.searchsorted(activity / activity[-1], rng.random(n_events))
    own = np.minimum(np.searchsorted(edges, rng.random((n_users, OWN))), n_items - 1)
    item = np.minimum(np.searchsorted(edges, rng.random(n_events)), n_items - 1)
    again = rng.random(n_events) < REPEATS
    item[again] = own[user[again], rng.integers(OWN, size=int(again.sum()))]
    seconds = rng.integers(DAYS * SECONDS_A_DAY, size=n_events)
    frame = pl.DataFrame({"user": user.astype(np.int64), "item": item.astype(np.int64), "time": seconds})
    return frame.with_columns(time=pl.from_epoch("time", time_unit="s") + pl.duration(days=19_000))


def measure(words: list[str], folder: Path) -> tuple[float, float, float, str]:
    """Return wall seconds, CPU seconds, peak resident megabytes and the output of a process."""
    started = time.perf_counter()
    out = folder / "output.txt"
    with out.open("w") as file:
        process = subprocess.Popen([sys.executable, *words], stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{words} ended with {status}")
    text = out.read_text()
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text


def one(size: str, options: argparse.Namespace, folder: Path) -> float:
    """Run and score one size, print a line for each step; return the CPU seconds of the run."""
    n_users, n_items, n_events = (int(part) for part in size.split("x"))
    data, few, many = folder / "events.parquet", folder / "one.csv", folder / "many.csv"
    events(n_users, n_items, n_events).write_parquet(data)
    users = pl.read_parquet(data, columns=["user"])["user"].unique().sort()
    users[:1].to_frame().write_csv(few)
    users[: options.score].to_frame().write_csv(many)
    run = ["-m", "tabkit", "run", str(folder / "domains/bench/lists.toml"), "--data", str(data)]
    run += ["--budget", options.budget, "--out", str(folder / "run")]
    wall, cpu, peak, text = measure([*run, "--json"], folder)
    result = json.loads(text)
    line(size, f"run --budget {options.budget}", wall, cpu, peak)
    bundle = str(folder / "run" / "bundle")
    for users_file, name in ((few, "score 1 user"), (many, f"score {min(options.score, len(users)):,} users")):
        words = ["-m", "tabkit", "score", bundle, str(users_file), "--out", str(folder / "lists.parquet"), "--force"]
        line(size, name, *measure(words, folder)[:3])
    load, answer = map(float, measure(["-c", LOAD_AND_SCORE, bundle, str(few)], folder)[3].split())
    print(
        f"\n{size}: champion {result['champion']}, in a process that is up {load:.2f} s to load and {answer:.2f} s for 1 user"
    )
    for c in sorted(result["candidates"], key=lambda c: -c["cpu_seconds"])[: options.costs]:
        print(f"  {c['name']}: {c['cpu_seconds']:.0f} CPU s, {c['peak_mb']:,.0f} MB")
    for left in result["ranking"]["left_out"]:
        print(f"  left out: {left['name']}: {left['reason']}")
    print()
    return cpu


def line(size: str, step: str, wall: float, cpu: float, peak: float) -> None:
    print(f"| {size} | {step} | {wall:.1f} | {cpu:.1f} | {peak:,.0f} |", flush=True)


def main() -> None:
    """Run every size, smallest first, and say how CPU seconds grow with events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["25000x3000x300000"], help="users x items x events")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--score", type=int, default=100_000, help="users that are scored at once")
    parser.add_argument("--costs", type=int, default=0, help="the dearest candidates to be named")
    parser.add_argument("--keep", type=Path, help="folder in which logs, runs and bundles are kept")
    options = parser.parse_args()
    print("| users x items x events | step | wall s | CPU s | peak MB |\n|---|---|---|---|---|")
    spent = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["TABKIT_LEDGER"] = str(Path(name) / "ledger.jsonl")
        for size in options.sizes:
            folder = Path(options.keep or name) / size
            for path, text in (
                (folder / "domains/bench/lists.toml", RECIPE),
                (folder / "data_schemas/lists.toml", SCHEMA),
            ):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            spent.append((int(size.split("x")[2]), one(size, options, folder)))
    for (fewer, less), (more, longer) in itertools.pairwise(spent):
        print(f"{more / fewer:.1f} times the events: {longer / less:.1f} times the CPU seconds")


if __name__ == "__main__":
    main()
