"""How verbs print: a console as wide as its reader, JSON for programs, a bar per stage."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from typing import Any

from rich.console import Console

Watch = Callable[[str, float, str], None]


def console() -> Console:
    """Return a console for standard output."""
    # A pipe or a file has no width: wide enough for every table, so that no line is folded.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def print_json(document: Any) -> None:
    """Print dataclasses and plain data as JSON."""
    sys.stdout.write(json.dumps(document, indent=1, default=_jsonable) + "\n")


def _jsonable(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return str(value)


@contextmanager
def progress(*, quiet: bool) -> Iterator[Watch]:
    """Show a bar per stage on a terminal; stay silent elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, fraction, note: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def watch(stage: str, fraction: float, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0, note=note)
            bars.update(tasks[stage], completed=fraction, note=note)

        yield watch


def number(value: float | None) -> str:
    """Format a score for a table.

    >>> number(0.61803), number(1234.5), number(None), number(float("nan"))
    ('0.6180', '1,234', '-', '-')
    >>> number(0.00012), number(4.56e-12), number(0.0), number(1.7e9)
    ('0.00012', '4.56e-12', '0.0000', '1.7e+09')
    """
    if value is None or not math.isfinite(value):
        return "-"
    if 0 < abs(value) < 1e-3:  # in a small unit four decimals would show zero
        return f"{value:.3g}"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}"
