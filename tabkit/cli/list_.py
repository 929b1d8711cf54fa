"""``tabkit list``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from tabkit.cli.options import Json
from tabkit.cli.output import console, print_json


class Things(StrEnum):
    """What can be listed."""

    recipes = "recipes"
    models = "models"
    metrics = "metrics"
    checks = "checks"


def command(
    what: Annotated[Things, typer.Argument(help="What to list.")] = Things.recipes,
    as_json: Json = False,
) -> None:
    """List recipes, models, metrics or checks."""
    from rich.table import Table
    from rich.text import Text

    from tabkit.catalogue import listing

    rows = listing(what.value)
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row.values()))
    console().print(table)
