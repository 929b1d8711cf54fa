"""Arguments and options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Recipe = Annotated[
    str, typer.Argument(help="A shipped recipe (finance/loan_default) or a recipe file.", metavar="RECIPE")
]
Table = Annotated[Path, typer.Argument(help="CSV, Parquet, Arrow or Excel file, folder or glob.", metavar="DATA")]


class Device(StrEnum):
    """Where networks are trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
