"""``tabkit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(run_folder: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write a run's report.html again."""
    from tabkit.report import write_report

    typer.echo(write_report(run_folder))
