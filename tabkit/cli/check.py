"""``tabkit check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table as Grid
from rich.text import Text

from tabkit.cli.options import Json, Recipe, Table
from tabkit.cli.output import console, print_json
from tabkit.errors import EXIT_DATA, count

if TYPE_CHECKING:
    from tabkit.data.validate import CheckReport


def command(
    recipe: Recipe,
    data: Table,
    source: Annotated[
        Path | None, typer.Option(help="As for run: a source table in the place of the recipe's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a table against a recipe and its schema: every kind of failure, its count and first rows."""
    from tabkit.workflow import check

    report = check(recipe, data, source)
    if as_json:
        print_json(report)
    else:
        print_report(report)
    if not report.ok:
        raise typer.Exit(EXIT_DATA)


def print_report(report: CheckReport) -> None:
    """Print every kind of failure, and what was noticed."""
    out = console()
    if report.ok:
        out.print(Text(f"{count(report.n_rows, 'row')} fit the schema."))
    if report.failures:
        grid = Grid("column", "what", "rows", "first rows", "for instance", box=None, pad_edge=False)
        for f in report.failures:
            first = ", ".join(map(str, f.first_rows))
            grid.add_row(*map(Text, (f.column, f.message, f"{f.count:,}", first, f.example)))
        out.print(grid)
    for note in report.notes:
        out.print(Text(note, style="dim"))
