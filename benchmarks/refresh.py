"""Is the verdict of a refresh that of a full run? python benchmarks/refresh.py --logs 20.

Simulated logs, by turns: habits that stay (none), that move on item by item (drift), and that change at once where the
parent's events end (regime). The parent is the bundle of a run on all but the last ``SINCE`` days; the refresh takes these on
(--base), the full run reads everything. Both list for the same users in the same last window.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

import tabkit
from tabkit.bundle import load_bundle
from tabkit.result import Result

RECIPE = """
name = "bench/refresh"
title = "Refreshed lists"
schema = "refresh"
task = "ranking"
target = "item"
id = "user"
time = "day"
[ranking]
basket = "basket"
[metrics]
primary = "ndcg@10"
worthwhile = 0.002
[candidates]
without = ["bpr"]
[candidates.adapt]
counts = ["refresh"]
als = ["fold_in", "warm"]
rerank = ["continue", "full"]
"""
SCHEMA = "name = 'refresh'\n" + "".join(
    f"[fields.{name}]\ntype = '{kind}'\n"
    for name, kind in (("user", "integer"), ("item", "integer"), ("day", "date"), ("basket", "integer"))
)
DAYS, SINCE, ITEMS, OWN = 400, 84, 120, 6
END = date(2021, 2, 1)
REFRESHED = ("counts", "als", "rerank")
"""Rankers that can be taken on; a parent of another kind is fitted again on all events."""
KINDS = ("none", "drift", "regime")


def log(kind: str, n_users: int, seed: int) -> pl.DataFrame:
    """Return a log: baskets about every six days, three items of the user's own in each, and one that is popular."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, ITEMS + 1)
    share /= share.sum()
    rows = []
    for user in range(n_users):
        own = rng.choice(ITEMS, OWN, replace=False, p=share)
        late = rng.choice(ITEMS, OWN, replace=False, p=share)
        day = int(rng.integers(6))
        while day < DAYS:
            if kind == "drift" and rng.random() < 0.05:
                own[rng.integers(OWN)] = rng.choice(ITEMS, p=share)
            mine = late if kind == "regime" and day >= DAYS - SINCE else own
            basket = {*rng.choice(mine, 3, replace=False), rng.choice(ITEMS, p=share)}
            rows += [(user, int(item), day, user * DAYS + day) for item in basket]
            day += int(rng.integers(3, 10))
    frame = pl.DataFrame(rows, schema=["user", "item", "day", "basket"], orient="row")
    return frame.with_columns(day=pl.lit(END - timedelta(DAYS)) + pl.duration(days=pl.col("day")))


def timed(recipe: Path, data: pl.DataFrame, out: Path, base: Path | None = None) -> tuple[Result, float]:
    """Run at budget quick; return what was found, and the CPU seconds."""
    started = time.process_time()
    done = tabkit.run(recipe, data, out=out, budget="quick", base=base)
    return done.result, time.process_time() - started


def main() -> None:
    """Make each log, run it in full and as a refresh, and hold the two verdicts beside each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--users", type=int, default=300)
    options = parser.parse_args()
    same: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    spent = np.zeros(2)
    print(
        "| log | full run | its champion | refresh | its champion | CPU s, full | CPU s, refresh |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TABKIT_LEDGER"] = str(folder / "ledger.jsonl")
        recipe = folder / "domains/bench/refresh.toml"
        for path, text in ((recipe, RECIPE), (folder / "data_schemas/refresh.toml", SCHEMA)):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        for number in range(options.logs):
            kind = KINDS[number % len(KINDS)]
            frame = log(kind, options.users, number)
            cut = pl.col("day") < END - timedelta(SINCE)
            timed(recipe, frame.filter(cut), folder / f"parent{number}")
            whole, cpu = timed(recipe, frame, folder / f"full{number}")
            held = load_bundle(folder / f"parent{number}" / "bundle").manifest.model
            if held not in REFRESHED:
                refused[held] += 1
                print(
                    f"| {kind} {number} | {whole.verdict.decision} | {whole.champion} | refused | {held} | {cpu:.1f} | |",
                    flush=True,
                )
                continue
            later, less = timed(
                recipe, frame.filter(~cut), folder / f"later{number}", folder / f"parent{number}" / "bundle"
            )
            spent += cpu, less
            same[kind] += whole.verdict.decision == later.verdict.decision
            facts = (whole.verdict.decision, whole.champion, later.verdict.decision, later.champion)
            print(f"| {kind} {number} | {' | '.join(facts)} | {cpu:.1f} | {less:.1f} |", flush=True)
    tried = options.logs - refused.total()
    print(f"\nthe same verdict in {same.total()} of {tried} ({dict(same)}); refused for their parent: {dict(refused)}")
    print(f"CPU seconds, refresh to full: {spent[1] / max(1e-9, spent[0]):.2f}")


if __name__ == "__main__":
    main()
