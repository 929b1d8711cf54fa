"""``tabkit pretrain``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from tabkit.cli.options import Device
from tabkit.cli.output import console, number, progress

if TYPE_CHECKING:
    from tabkit.pretraining import Continued, Pretrained


class Base(StrEnum):
    """A base that tabkit pretrains itself."""

    icl = "icl"


def command(
    base: Annotated[Base, typer.Argument(help="The base to pretrain.")],
    out: Annotated[Path, typer.Option(help="Folder of checkpoints, log and weights; resumed where it holds one.")],
    steps: Annotated[int | None, typer.Option(help="Steps of the whole schedule. Default: 3000.", min=1)] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop and checkpoint after these.", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that learn (CPU) or draw tables (GPU). Default: 2.", min=1)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Learn these weights further rather than start afresh: 'shipped', or a weights/ folder.",
            metavar="WEIGHTS",
        ),
    ] = None,
    continue_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Continue the shipped base on real tables instead, each left out once to see whether it pays; "
            "give it once per table: RECIPE (its sample) or RECIPE=DATA.",
            metavar="RECIPE[=DATA]",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Most epochs of --continue-on, per table left out. Default: 12.", min=1)
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the network is trained.")] = Device.cpu,
    seed: Annotated[int, typer.Option(help="The same seed gives the same weights, after any kill.", min=0)] = 0,
) -> None:
    """Pretrain a base on synthetic tables, or continue it on your own; run it again to go on where it stopped."""
    with progress(quiet=False) as watch:
        from tabkit.pretraining import Continued, pretrain

        outcome = pretrain(
            base.value,
            out,
            continue_on=continue_on or (),
            device="cuda" if device is Device.cuda else "cpu",
            seed=seed,
            watch=watch,
            steps=steps,
            seconds=seconds,
            workers=workers,
            start=start,
            epochs=epochs,
        )
    if isinstance(outcome, Continued):
        print_continued(outcome)
    else:
        print_pretrained(outcome)


def print_pretrained(outcome: Pretrained) -> None:
    """Say where a base went, and how it does on synthetic tables."""
    print_ = console().print
    print_(f"Weights: {outcome.weights}")
    print_(f"Step {outcome.step:,}, {outcome.tables:,} tables; on synthetic tables that no step draws:")
    for name, loss in outcome.valid.items():
        print_(f"  {name:<17} {loss:.4f}")
    print_(f"Log: {outcome.log}. The same command goes on where a run stopped.")


def print_continued(outcome: Continued) -> None:
    """Print each table left out, and whether continuing paid."""
    out = console()
    table = Table(box=None, pad_edge=False, title="Each table left out once", title_justify="left")
    for name in ("table", "holdout rows", "metric", "shipped base", "continued", "gain (95%)", "loss fell by"):
        table.add_column(name, justify="left" if name in ("table", "metric") else "right")
    for one in outcome.left_out:
        gain = f"{one.gain:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        cells = (one.table, f"{one.rows:,}", one.metric, number(one.base), number(one.continued), gain)
        table.add_row(*map(Text, (*cells, f"{one.loss_gain:+.2%}")))
    out.print(table)
    for note in outcome.notes:
        out.print(Text(note, style="dim"))
    out.print(Text(f"\n{outcome.sentence}", style="bold"))
    out.print(
        Text(f"\nWeights of all tables: {outcome.weights}\nUse: tabkit run RECIPE --weights icl={outcome.weights}")
    )
