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
    from tabkit.bundle import Missing
    from tabkit.scoring import Scored


def command(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder of a run.", metavar="BUNDLE")],
    data: Table,
    out: Annotated[Path, typer.Option(help="Where scores go: .csv or .parquet.")],
    rejects: Annotated[
        Path | None, typer.Option(help="Where rows that do not fit go. Default: OUT.rejects.csv.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over an output that exists already.")] = False,
    events: Annotated[
        Path | None, typer.Option(help="Lists: newer events, which histories then include; nothing is fitted again.")
    ] = None,
    among: Annotated[
        Path | None, typer.Option(help="Lists: the items that may be listed; for each user, if the file names users.")
    ] = None,
    without: Annotated[
        Path | None, typer.Option(help="Lists: items that may not be listed; for each user, if the file names users.")
    ] = None,
    k: Annotated[int | None, typer.Option(help="Lists: how many items. Default: as the recipe says.", min=1)] = None,
    similar: Annotated[
        bool, typer.Option("--similar", help="Lists: rows are items, answered with the items most like them.")
    ] = False,
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
            events=events,
            among=among,
            without=without,
            k=k,
            similar=similar,
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
            f"{', '.join(c or repr(c) for c in scored.ignored[:8])}."
        )
    if scored.missing is not None:
        text += _missing(scored.missing, scored.rows_scored)
    console().print(Text(text))


def _missing(missing: Missing, rows: int) -> str:
    """Say how many rows have no history; nothing if all have one."""
    if not missing.cold:
        return ""
    share = f"{missing.cold / max(1, rows):.0%}"
    text = f"\n{missing.cold:,} of {rows:,} ({share}) without history are cold, {missing.unknown:,} of them unknown to the bundle."
    if missing.near is not None:
        given, known = missing.near
        text += f" Ids may be spelled another way: '{given}' was asked for, and the bundle knows '{known}'."
    return text
