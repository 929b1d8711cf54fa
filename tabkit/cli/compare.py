"""``tabkit compare``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tabkit.cli.options import Json
from tabkit.cli.output import console, number, print_json


def command(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.", metavar="RUN")],
    as_json: Json = False,
) -> None:
    """Compare runs side by side, and say whether their numbers can be compared."""
    from tabkit.report import compare_runs

    comparison, out = compare_runs(runs), console()
    if as_json:
        print_json(comparison)
        return
    rows = [asdict(row) for row in comparison.rows]
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(number(v) if isinstance(v, float) else str(v)) for v in row.values()))
    out.print(table)
    for warning in comparison.warnings:
        out.print(Text(f"Careful: {warning}", style="yellow"))
