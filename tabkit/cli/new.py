"""``tabkit new``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tabkit.cli.options import Json
from tabkit.cli.output import console, print_json


def command(
    name: Annotated[
        str, typer.Argument(help="Of the recipe to write, such as retail/returns.", metavar="VERTICAL/NAME")
    ],
    data: Annotated[Path, typer.Option(help="The table to learn the schema from: a file, folder or glob.")],
    target: Annotated[str | None, typer.Option(help="The column to predict; none for --task ranking.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="binary, multiclass or regression (default: from the target), or ranking: a log of events."),
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The column that names a row.")] = None,
    time: Annotated[str | None, typer.Option(help="The column to split by time; of events, when.")] = None,
    group: Annotated[str | None, typer.Option(help="The column whose rows stay together.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Events: whom to list for. These are found by name if they can be told.")
    ] = None,
    item: Annotated[str | None, typer.Option(help="Events: what was taken.")] = None,
    basket: Annotated[str | None, typer.Option(help="Events: what was taken together.")] = None,
    store: Annotated[str | None, typer.Option(help="Events: where it was taken.")] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of a CSV file that is not UTF-8: cp1252, cp932, gb18030 (default: by its words)."),
    ] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Where domains/ and data_schemas/ are written.")] = Path("."),
    as_json: Json = False,
) -> None:
    """Write a recipe and a schema for your own table; they run as they are."""
    from tabkit.draft import new

    roles = {"id": id_, "time": time, "group": group, "user": user, "item": item, "basket": basket, "store": store}
    draft = new(name, data, target, task=task, **roles, encoding=encoding, folder=folder)
    if as_json:
        print_json(draft)
        return
    out = console()
    out.print(Text(f"Wrote {draft.recipe_path}\nWrote {draft.schema_path}"))
    for note in draft.notes:
        out.print(Text(f"- {note}"))
    out.print(Text(f"\nNow: tabkit run {draft.recipe_path} --data {data}"))
