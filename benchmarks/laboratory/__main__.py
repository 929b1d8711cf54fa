"""Draw tables, run tabkit on each, and count how often it is wrong.

    python -m benchmarks.laboratory draw --rounds 80 --out draws.jsonl
    python -m benchmarks.laboratory tally draws.jsonl

``draw`` makes a draw of every scenario per round and appends it to the file; started again, it goes on where it was
stopped. A draw has no other seed than its scenario's name and its number. ``tally`` prints the tables; with ``--write`` it puts them into README.md, benchmarks/README.md and the report.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

from . import book, publish, tally
from .draws import draw
from .scenarios import SCENARIOS


def main() -> None:
    """Read the command and carry it out."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.laboratory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw", help="make draws that are not in the file yet")
    drawing.add_argument("--rounds", type=int, default=80)
    drawing.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), metavar="SCENARIO")
    drawing.add_argument("--out", type=Path, required=True)
    drawing.add_argument("--tally", action="store_true", help="print the tables afterwards")
    telling = commands.add_parser("tally", help="print the tables of a file")
    telling.add_argument("out", type=Path, metavar="FILE")
    telling.add_argument("--write", action="store_true", help="write the pages and the report's counts instead")
    options = parser.parse_args()
    if options.command == "draw":
        make(options.rounds, options.only, options.out)
    if options.command == "tally" and options.write:
        publish.write(book.read(options.out))
    elif options.command == "tally" or options.tally:
        print(tally.tables(book.read(options.out)))


def make(rounds: int, only: list[str], out: Path) -> None:
    """Make the draws that are left, and append each."""
    warnings.filterwarnings("ignore")
    book.mend(out)
    done = {(d.scenario, d.number) for d in book.read(out)} if out.exists() else set()
    for name, number in book.to_do(rounds, only, done):
        began = time.perf_counter()
        made = draw(name, number)
        book.append(out, made)
        print(f"{name} {number}: {made.decision}, {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
