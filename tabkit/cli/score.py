"""``tabkit score``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from tabkit.cli.options import Json, Table
from tabkit.cli.output import console, print_json, progress
from tabkit.errors import EXIT_DATA, count

if TYPE_CHECKING:
    from tabkit.scoring import Scored


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder of a run.")],
    data: Table,
    out: Annotated[Path, typer.Option(help="Where scores go: .csv or .parquet.")],
    rejects: Annotated[
        Path | None, typer.Option(help="Where rows that do not fit go. Default: OUT.rejects.csv.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an output that exists already.")] = False,
    as_json: Json = False,
) -> None:
    """Score new records with a bundle."""
    with progress(quiet=as_json) as watch:
        from tabkit.scoring import score

        scored = score(
            bundle,
            data,
            out,
            rejects=rejects,
            resume=resume,
            force=force,
            watch=lambda rows, total: watch("scoring", min(1.0, rows / total), f"{rows:,} rows"),
        )
    if as_json:
        print_json(scored)
    else:
        _print(scored)
    if not scored.rows_scored:
        raise typer.Exit(EXIT_DATA)  # nothing fitted: a scheduler must hear of it


def _print(scored: Scored) -> None:
    text = (
        f"{count(scored.rows_scored, 'row')} scored to {scored.out}, {scored.rows_rejected:,} rejected, "
        f"of {scored.rows_in:,}."
    )
    if scored.rejects:
        text += f" Reasons: {scored.rejects}"
    if scored.without_id is not None:
        text += (
            f"\nThere is no column '{scored.without_id}', the id: rows are named by their number, in the column row."
        )
    if scored.ignored:
        text += (
            f"\nIgnored {count(len(scored.ignored), 'column')} the model does not need: "
            f"{', '.join(scored.ignored[:8])}."
        )
    console().print(Text(text))
