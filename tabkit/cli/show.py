"""``tabkit show``."""

from __future__ import annotations

from typing import Annotated

import typer

from tabkit.cli.options import Json, Recipe
from tabkit.cli.output import console, print_json


def command(
    recipe: Recipe,
    as_json: Json = False,
    frictionless: Annotated[
        bool, typer.Option("--frictionless", help="Print the schema as Frictionless JSON.")
    ] = False,
) -> None:
    """Show what a recipe asks, of which data, and how it decides."""
    from tabkit.catalogue import show
    from tabkit.recipe import load_recipe

    if frictionless:
        print_json(load_recipe(recipe).schema.to_frictionless())
        return
    facts = show(recipe)
    if as_json:
        print_json({"recipe": facts.recipe, "schema": facts.schema})
    else:
        console().print(facts)
