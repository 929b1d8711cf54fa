"""The command line: a file per verb, which parses and prints, nothing else.

Assembling them here must load nothing heavy: a verb imports what it works with when it is called.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Annotated

import typer

from tabkit.errors import EXIT_INTERRUPTED, EXIT_OUR_FAULT, EXIT_USAGE, TabkitError

VERBS = ("list", "show", "run", "score", "check", "new", "compare", "pretrain", "report")
"""In the order of the help; verb X is ``command`` in X.py (or X_.py, if X is a builtin)."""

app = typer.Typer(
    name="tabkit",
    help="Adapt pretrained tabular models to your domain, and prove whether it paid.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Adapt pretrained tabular models to your domain, and prove whether it paid."""
    if version:
        from importlib import metadata

        typer.echo(f"tabkit {metadata.version('tabkit-ml')}")
        raise typer.Exit()


for _verb in VERBS:
    _module = importlib.import_module(f"tabkit.cli.{_verb}{'_' if _verb == 'list' else ''}")
    app.command(_verb)(_module.command)


def main() -> None:
    """Run the command line; every way out has its exit code: 0, 1, 2, 3, 4 or 130."""
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
    except SystemExit as end:
        if end.code == EXIT_INTERRUPTED:  # typer turns Ctrl-C into this
            _say_interrupted()
        raise
    except Exception:
        traceback.print_exc()
        _say("This is a fault of tabkit, not yours. Please report it with the lines above.")
        sys.exit(EXIT_OUR_FAULT)


def _say_interrupted() -> None:
    advice = {
        "score": ", with --resume to go on after the rows that were scored, if there are any",
        "run": "; a recipe with folds goes on after those that it finished",
    }.get("".join(sys.argv[1:2]), "")
    _say(f"Interrupted; nothing half-written was left. Run the command again{advice}.")


def _say(text: str) -> None:
    typer.secho(f"tabkit: {text}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
