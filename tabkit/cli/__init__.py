"""The command line: verbs that parse and print, nothing else."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tabkit.errors import EXIT_DATA, EXIT_INTERRUPTED, EXIT_OUR_FAULT, EXIT_USAGE, TabkitError, UsageError

app = typer.Typer(
    name="tabkit",
    help="Adapt pretrained tabular models to your domain, and prove whether it paid.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

_INTERRUPTED = "Interrupted; nothing half-written was left. Run the command again{}."

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Recipe = Annotated[
    str, typer.Argument(help="A shipped recipe (finance/loan_default) or a recipe file.", metavar="RECIPE")
]


class BudgetLevel(StrEnum):
    """How long to search; the harness is the same."""

    quick = "quick"
    standard = "standard"
    thorough = "thorough"


class Device(StrEnum):
    """Where networks are trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Things(StrEnum):
    """What can be listed."""

    recipes = "recipes"
    models = "models"
    metrics = "metrics"
    checks = "checks"


class Base(StrEnum):
    """A base that tabkit pretrains itself."""

    icl = "icl"


@app.command("list")
def list_(
    what: Annotated[Things, typer.Argument(help="What to list.")] = Things.recipes,
    as_json: Json = False,
) -> None:
    """List recipes, models, metrics or checks."""
    from tabkit.cli import printing

    printing.listing(what.value, as_json)


@app.command()
def show(
    recipe: Recipe,
    as_json: Json = False,
    frictionless: Annotated[
        bool, typer.Option("--frictionless", help="Print the schema as Frictionless JSON.")
    ] = False,
) -> None:
    """Show what a recipe asks, of which data, and how it decides."""
    from tabkit.cli import printing
    from tabkit.recipe import load_recipe

    printing.recipe(load_recipe(recipe), as_json, frictionless)


@app.command()
def run(
    recipe: Recipe,
    data: Annotated[
        Path | None, typer.Option(help="CSV, Parquet or Arrow file, folder or glob. Default: the recipe's sample.")
    ] = None,
    source: Annotated[Path | None, typer.Option(help="Related rows to pretrain on.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make. Default: runs/NAME-TIMESTAMP.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same split and models.", min=0)] = 0,
    budget: Annotated[BudgetLevel, typer.Option(help="How long to search.")] = BudgetLevel.standard,
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
        int, typer.Option(help="Ranking: at how many cutoffs the planned comparison is carried out.", min=1, max=12)
    ] = 1,
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
    from tabkit.cli import printing

    with printing.progress(quiet=as_json) as watch:
        from tabkit.run import run as run_

        own = _pairs(weights or [])
        done = run_(
            recipe,
            data,
            source,
            out,
            seed,
            budget.value,
            device.value,
            watch,
            _command(),
            distill,
            own,
            cutoffs,
            base,
            jobs,
        )
    printing.verdict(done.result, done.folder, as_json)


@app.command()
def score(
    bundle: Annotated[Path, typer.Argument(help="The bundle folder of a run.")],
    data: Annotated[Path, typer.Argument(help="CSV, Parquet or Arrow file, folder or glob.")],
    out: Annotated[Path, typer.Option(help="Where scores go: .csv or .parquet.")],
    rejects: Annotated[
        Path | None, typer.Option(help="Where rows that do not fit go. Default: OUT.rejects.csv.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after an interruption.")] = False,
    as_json: Json = False,
) -> None:
    """Score new records with a bundle."""
    from tabkit.cli import printing

    with printing.progress(quiet=as_json) as watch:
        from tabkit.score import score as score_

        done = score_(bundle, data, out, rejects, resume, watch=lambda rows: watch("scoring", 0.0, f"{rows:,} rows"))
    printing.scored(done, as_json)


@app.command()
def check(
    recipe: Recipe,
    data: Annotated[Path, typer.Argument(help="CSV, Parquet or Arrow file, folder or glob.")],
    as_json: Json = False,
) -> None:
    """Check a table against a recipe's schema: every kind of failure, its count and first rows."""
    from tabkit.cli import printing
    from tabkit.run import check as check_

    found = check_(recipe, data)
    printing.checked(found, as_json)
    if not found.ok:
        raise typer.Exit(EXIT_DATA)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="VERTICAL/NAME of the recipe to write.")],
    data: Annotated[Path, typer.Option(help="The table to learn the schema from.")],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    task: Annotated[
        str | None, typer.Option(help="binary, multiclass or regression. Default: from the target.")
    ] = None,
    id_: Annotated[str | None, typer.Option("--id", help="The column that names a row.")] = None,
    time: Annotated[str | None, typer.Option(help="The column to split by time.")] = None,
    group: Annotated[str | None, typer.Option(help="The column whose rows stay together.")] = None,
    folder: Annotated[Path, typer.Option("--dir", help="Where domains/ and data_schemas/ are written.")] = Path("."),
    as_json: Json = False,
) -> None:
    """Write a recipe and a schema for your own table; they run as they are."""
    from tabkit.cli import printing
    from tabkit.draft import new as new_

    printing.drafted(new_(name, data, target, task=task, id=id_, time=time, group=group, folder=folder), data, as_json)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    as_json: Json = False,
) -> None:
    """Compare runs side by side, and say whether their numbers can be compared."""
    from tabkit.cli import printing
    from tabkit.report import compare_runs

    printing.comparison(compare_runs(runs), as_json)


@app.command()
def pretrain(
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
    from tabkit.cli import printing

    where = "cuda" if device is Device.cuda else "cpu"
    others: dict[str, object] = {"--epochs": epochs}
    if continue_on:
        others = {"--steps": steps, "--seconds": seconds, "--workers": workers, "--from": start}
    for flag, value in others.items():
        if value is not None:
            raise UsageError(f"{flag} {'has no meaning with' if continue_on else 'needs'} --continue-on. Leave it out.")
    if continue_on:
        with printing.progress(quiet=False) as watch:
            from tabkit.pretrain import Continuation, continue_icl

            how = Continuation(seed=seed, epochs=epochs or Continuation.epochs)
            done = continue_icl(
                continue_on, out, how, where, lambda share, note: watch(f"{base.value} (continuing)", share, note)
            )
        printing.continued(done)
        return
    with printing.progress(quiet=False) as watch:
        from tabkit.pretrain import Plan, pretrain_icl

        whole = steps or Plan.steps
        folder = Path(start) if start and start != "shipped" else None
        plan = Plan.further(whole, seed, folder) if start else Plan(whole, seed)
        weights = pretrain_icl(
            out,
            plan,
            workers=workers or 2,
            device=where,
            seconds=seconds or float("inf"),
            start=folder,
            progress=lambda step, note: watch(f"{base.value} (pretraining)", step / whole, note),
        )
    printing.pretrained(weights)


@app.command()
def report(run_folder: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")]) -> None:
    """Write a run's report.html again."""
    from tabkit.report import write_report

    typer.echo(write_report(run_folder))


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Adapt pretrained tabular models to your domain, and prove whether it paid."""
    if version:
        from importlib import metadata

        typer.echo(f"tabkit {metadata.version('tabkit-ml')}")
        raise typer.Exit()


def _pairs(weights: list[str]) -> dict[str, str]:
    pairs = {}
    for text in weights:
        base, equals, path = text.partition("=")
        if not equals or not base or not path:
            raise UsageError(f"--weights {text}: expected BASE=PATH, for instance icl=my_base/weights.")
        pairs[base] = path
    return pairs


def _command() -> str:
    return " ".join(["tabkit", *map(shlex.quote, sys.argv[1:])])


def main() -> None:
    """Run the command line; every way out has its exit code (DESIGN: 0, 1, 2, 3, 4, 130)."""
    # Polars and Python may each raise one Ctrl-C; the second then falls into the clean-up after the first.
    sys.unraisablehook = lambda lost: (
        None if isinstance(lost.exc_value, KeyboardInterrupt) else sys.__unraisablehook__(lost)
    )
    try:
        app()
    except TabkitError as fault:
        _say(str(fault))
        sys.exit(fault.exit_code)
    except KeyboardInterrupt:
        _say_interrupted()
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `tabkit list | head`: no error at exit
        sys.exit(0)
    except OSError as problem:
        place, reason = problem.filename or "A file", problem.strerror or problem
        _say(f"{place} cannot be read or written: {reason}. Check space and permissions.")
        sys.exit(EXIT_USAGE)
    except SystemExit as done:
        if done.code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this
            _say_interrupted()
        raise
    except Exception:
        traceback.print_exc()
        _say("This is a fault of tabkit, not yours. Please report it with the lines above.")
        sys.exit(EXIT_OUR_FAULT)


def _say_interrupted() -> None:
    keeps = {
        "score": ", with --resume to keep the rows already scored",
        "run": "; a recipe with folds goes on after those that it finished",
    }
    _say(_INTERRUPTED.format(keeps.get("".join(sys.argv[1:2]), "")))


def _say(text: str) -> None:
    typer.secho(f"tabkit: {text}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
