"""Is the verdict of a refresh that of a full run? python benchmarks/refresh.py --logs 20.

Simulated logs, by turns: habits that stay (none), that move on item by item (drift), and that change at once where the
parent's events end (regime); or, with ``--households``, so many of The Complete Journey, by retail/next_purchases. The parent
is the bundle of a run on all but the last ``SINCE`` days; the refresh takes these on (--base), the full run reads everything.
Both list for the same users in the same last window, and neither knows that the other asks it too: each has its own ledger.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

import tabkit
from tabkit.bundle import load_bundle
from tabkit.result import Result
from tabkit.samples import load_sample

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
DAYS, SINCE, OWN = 400, 84, 6
END = date(2021, 2, 1)
KINDS = ("none", "drift", "regime")
RETAIL = "retail/next_purchases"


def log(kind: str, n_users: int, n_items: int, seed: int) -> pl.DataFrame:
    """Return a log: baskets about every six days, three items of the user's own in each, and one that is popular."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, n_items + 1)
    share /= share.sum()
    rows = []
    for user in range(n_users):
        own = rng.choice(n_items, OWN, replace=False, p=share)
        late = rng.choice(n_items, OWN, replace=False, p=share)
        day = int(rng.integers(6))
        while day < DAYS:
            if kind == "drift" and rng.random() < 0.05:
                own[rng.integers(OWN)] = rng.choice(n_items, p=share)
            mine = late if kind == "regime" and day >= DAYS - SINCE else own
            basket = {*rng.choice(mine, 3, replace=False), rng.choice(n_items, p=share)}
            rows += [(user, int(item), day, user * DAYS + day) for item in basket]
            day += int(rng.integers(3, 10))
    frame = pl.DataFrame(rows, schema=["user", "item", "day", "basket"], orient="row")
    return frame.with_columns(day=pl.lit(END - timedelta(DAYS)) + pl.duration(days=pl.col("day")))


def logs(options: argparse.Namespace) -> Iterator[tuple[str, pl.DataFrame, pl.Expr]]:
    """Yield logs: what each is like, its events, and which of them the parent knows."""
    if options.households:
        frame = load_sample("completejourney:purchases")
        kept = frame["household_id"].unique().sort()[: options.households]
        moment = pl.col("transaction_timestamp")
        last = frame["transaction_timestamp"].dt.date().max()
        assert isinstance(last, date)
        yield "retail", frame.filter(pl.col("household_id").is_in(kept.implode())), moment < last - timedelta(SINCE - 1)
        return
    for number in range(options.logs):
        kind = KINDS[number % len(KINDS)]
        yield kind, log(kind, options.users, options.items, number), pl.col("day") < END - timedelta(SINCE)


def timed(recipe: Path | str, data: pl.DataFrame, out: Path, base: Path | None = None) -> tuple[Result, float]:
    """Run at budget quick; return what was found, and the CPU seconds."""
    os.environ["TABKIT_LEDGER"] = str(out.with_suffix(".jsonl"))
    started = time.process_time()
    done = tabkit.run(recipe, data, out=out, budget="quick", base=base)
    return done.result, time.process_time() - started


def cells(result: Result) -> str:
    """Return the verdict, the champion, and what the adapted candidate gains on its own base and on the baseline."""
    gains = "; ".join(
        f"{a.gain:+.4f} [{a.low:+.4f}, {a.high:+.4f}]" for a in (result.planned.against[:2] if result.planned else ())
    )
    return f"{result.verdict.decision} | {result.champion} | {result.chosen.adapted}: {gains}"


def main() -> None:
    """Make each log, run it in full and as a refresh, and hold the two verdicts beside each other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=20)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument(
        "--households", type=int, default=0, help="of the retail sample, in the place of simulated logs"
    )
    options = parser.parse_args()
    same: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    spent = np.zeros(2)
    sides = ("full run", "refresh")
    columns = [f"{side}: {what}" for side in sides for what in ("verdict", "champion", "gain on base; on baseline")]
    print(f"| log | parent | {' | '.join(columns)} | CPU s, full | CPU s, refresh |\n{'|---' * 10}|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = folder / "domains/bench/refresh.toml"
        for path, text in ((recipe, RECIPE), (folder / "data_schemas/refresh.toml", SCHEMA)):
            path.parent.mkdir(parents=True)
            path.write_text(text)
        asked = RETAIL if options.households else recipe
        for number, (kind, frame, known) in enumerate(logs(options)):
            parent = folder / f"parent{number}" / "bundle"
            timed(asked, frame.filter(known), parent.parent)
            whole, cpu = timed(asked, frame, folder / f"full{number}")
            later, less = timed(asked, frame.filter(~known), folder / f"later{number}", parent)
            spent += cpu, less
            tried[kind] += 1
            same[kind] += whole.verdict.decision == later.verdict.decision
            champion = load_bundle(parent).manifest.champion
            print(
                f"| {kind} {number} | {champion} | {cells(whole)} | {cells(later)} | {cpu:.1f} | {less:.1f} |",
                flush=True,
            )
    print(f"\nthe same verdict in {same.total()} of {tried.total()} ({dict(same)} of {dict(tried)})")
    print(f"CPU seconds, refresh to full: {spent[1] / max(1e-9, spent[0]):.3f}")


if __name__ == "__main__":
    main()
