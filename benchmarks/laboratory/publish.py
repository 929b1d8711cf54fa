"""Put the counts where they are read: the report's file, and between the markers of README.md and benchmarks/README.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tabkit.report.tried import FILE, Tried

from . import tally
from .draws import Draw

SIZES = (200, 1000)
"""Labelled rows at which tables are told apart; larger ones are of few scenarios, and not told of."""
TOP = Path(__file__).parents[2]


def write(draws: Sequence[Draw]) -> None:
    """Write the counts of some draws into all three places."""
    FILE.write_text(json.dumps([t.model_dump() for t in groups(draws)], indent=1) + "\n", encoding="utf-8")
    between_markers(TOP / "README.md", tally.in_words(tally.by_scenario(draws)))
    between_markers(TOP / "benchmarks/README.md", tally.tables(draws))


def groups(draws: Sequence[Draw]) -> list[Tried]:
    """Return the counts by kind of target and size, for the report."""
    everything = [j for those in tally.by_scenario(draws).values() for j in those]
    out = []
    for numbers in (False, True):
        for least, below in zip((0, *SIZES), SIZES, strict=False):
            those = [j for j in everything if j.numbers == numbers and least <= j.draw.rows < below]
            if those:
                out.append(counted(those))
    return out


def counted(those: Sequence[tally.Judged]) -> Tried:
    """Return the counts of some draws of one kind."""
    held = tally.coverage(j.champion for j in those)
    return Tried(
        numbers=those[0].numbers,
        least_rows=min(j.draw.rows for j in those),
        most_rows=max(j.draw.rows for j in those),
        tables=len(those),
        adapt=sum(j.adapted for j in those),
        wrong_adapt=sum(j.adapted and not j.worth for j in those),
        not_paid=sum(j.firm for j in those),
        wrong_not_paid=sum(j.firm and j.worth for j in those),
        intervals=held.of,
        held=held.hits,
    )


def between_markers(path: Path, text: str) -> None:
    """Put a text between the laboratory's markers of a page."""
    start, whole = "<!-- measured: laboratory -->", path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(start) + r".*?<!-- /measured -->", re.DOTALL)
    if not pattern.search(whole):
        raise SystemExit(f"{path}: no '{start} ... <!-- /measured -->' to write into; add both lines.")
    path.write_text(pattern.sub(lambda _: f"{start}\n{text}\n<!-- /measured -->", whole), encoding="utf-8")
