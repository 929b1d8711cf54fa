"""``tabkit run``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tabkit.cli.options import Device, Json, Recipe
from tabkit.cli.output import console, number, print_json, progress
from tabkit.errors import UsageError

if TYPE_CHECKING:
    from tabkit.result import CandidateFacts, Result


def command(
    recipe: Recipe,
    data: Annotated[
        Path | None,
        typer.Option(help="CSV, Parquet, Arrow or Excel file, folder or glob. Default: the recipe's sample."),
    ] = None,
    source: Annotated[Path | None, typer.Option(help="Related rows to pretrain on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make. Default: runs/NAME-TIMESTAMP.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split and models.", min=0)] = 0,
    budget: Annotated[
        str, typer.Option(help="How long to search: quick, standard or thorough.", metavar="LEVEL")
    ] = "standard",
    device: Annotated[Device, typer.Option(help="Where networks are trained.")] = Device.auto,
    distill: Annotated[
        bool, typer.Option("--distill", help="Also teach LightGBM the champion's answers, for scoring at tree speed.")
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Your own weights of a base, for instance icl=FOLDER of 'tabkit pretrain icl'.", metavar="BASE=PATH"
        ),
    ] = None,
    cutoffs: Annotated[
        int | None,
        typer.Option(
            help="Ranking: at how many cutoffs the planned comparison is carried out. Default: 1.", min=1, max=12
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option(
            help="Ranking: a bundle of this recipe, to be refreshed with the events of --data.", metavar="BUNDLE"
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Recipes with folds: processes that measure folds side by side. Default: a core each.", min=1
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Adapt, compare on untouched rows, decide, and write a report and a bundle."""
    own = weights_of(weights or [])
    asked = _asked(source=source, distill=distill, weights=own, jobs=jobs, cutoffs=cutoffs, base=base)
    with progress(quiet=as_json) as watch:
        from tabkit.workflow import run as run_recipe

        finished = run_recipe(
            recipe,
            data,
            out=out,
            seed=seed,
            budget=budget,
            device=device.value,
            watch=watch,
            command=" ".join(["tabkit", *map(shlex.quote, sys.argv[1:])]),
            **asked,
        )
    if as_json:
        print_json({"folder": str(finished.folder), **finished.result.model_dump(mode="json")})
    else:
        print_result(finished.result, finished.folder)


def _asked(**settings: Any) -> dict[str, Any]:
    """Return what was asked for: some settings are for tables only, some for lists only, and refused elsewhere."""
    return {name: value for name, value in settings.items() if value}


def weights_of(options: list[str]) -> dict[str, str]:
    """Return base -> path of ``--weights BASE=PATH`` options.

    Raises
    ------
    UsageError
        An option is not of that form.
    """
    paths = {}
    for text in options:
        base, _, path = text.partition("=")
        if not base or not path:
            raise UsageError(f"--weights {text}: expected BASE=PATH, for instance icl=my_base/weights.")
        paths[base] = path
    return paths


def print_result(result: Result, folder: Path) -> None:
    """Print the candidates' table, who was left out, failed checks and the verdict."""
    from tabkit.result import ListResult

    out, student = console(), getattr(result, "student", None)
    out.print(_candidates(result))
    for left in result.ranking.left_out if isinstance(result, ListResult) else ():
        out.print(Text(f"  {left.name} was left out: {left.reason}.", style="yellow"))
    failed = [c for c in result.checks if c.outcome == "fail"]
    passed = sum(c.outcome == "pass" for c in result.checks)
    out.print(Text(f"\nChecks: {passed} passed, {len(failed)} failed."))
    for check in failed:
        style = "red" if check.severity == "error" else "yellow"
        out.print(Text(f"  {check.severity}: {check.code}: {check.message}", style=style))
    if result.value is not None:
        out.print(Text(f"\nValue: {result.value.sentence}"))
    out.print(Text(f"\n{result.verdict.decision}: {result.verdict.sentence}", style="bold"))
    if student is not None:
        out.print(Text(f"\n{student.sentence}"))
    out.print(Text(f"\nReport: {folder / 'report.html'}\nBundle: {folder / 'bundle'}"))
    if student is not None:
        out.print(Text(f"Student: {folder / 'student'}"))


def _candidates(result: Result) -> Table:
    title = f"{result.recipe}: {result.metric.title} by part{', rows weighted' if result.weighted else ''}"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    table.add_column("candidate", no_wrap=True)
    table.add_column("kind")
    for name in ("train", "valid", "holdout (95%)", "overfit gap", "trained parameters", "seconds"):
        table.add_column(name, justify="right")
    for candidate in result.candidates:
        if candidate.refused:
            refusal = Text(f"refused: {candidate.refused}", style="red")
            table.add_row(Text(candidate.name), candidate.kind, refusal)
        else:
            champion = candidate.name == result.champion
            cells = _cells(candidate, result.primary, "* " if champion else "  ")
            table.add_row(*(Text(cell, style="bold" if champion else "") for cell in cells))
    return table


def _cells(candidate: CandidateFacts, primary: str, mark: str) -> tuple[str, ...]:
    from tabkit.result import PARTS

    train, valid, holdout = (candidate.score(primary, part) for part in PARTS)
    return (
        mark + candidate.name,
        candidate.kind,
        number(train.value if train else None),
        number(valid.value if valid else None),
        f"{number(holdout.value)} [{number(holdout.low)}, {number(holdout.high)}]" if holdout else "not chosen",
        number(candidate.overfit_gap),
        f"{candidate.trained_parameters:,} of {candidate.total_parameters:,}",
        f"{candidate.seconds:.1f}",
    )
