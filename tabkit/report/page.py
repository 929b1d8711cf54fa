"""``report.html``: the verdict with its key figures, then every section, in one file that needs nothing else."""

from __future__ import annotations

from pathlib import Path

import jinja2
import polars as pl

from tabkit.files import write_text
from tabkit.report import numbers
from tabkit.report.read import read_predictions
from tabkit.report.reading import DECISIONS, KINDS, Reading
from tabkit.report.sections import SECTIONS
from tabkit.result import ListResult, Result, read_result

REPORT = "report.html"


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all, from the files there and nothing else.

    Raises
    ------
    UsageError
        The folder is no run folder, or a file in it is broken.
    """
    run_folder = Path(run_folder)
    path = run_folder / REPORT
    write_text(path, render(read_result(run_folder), read_predictions(run_folder)))
    return path


def render(result: Result, predictions: pl.DataFrame | None) -> str:
    """Return the page.

    Parameters
    ----------
    result
        What the run found.
    predictions
        The holdout's predictions; without them the page has no curves.
    """
    reading = Reading(result, predictions)
    needed = result.verdict.rows_needed
    return template("report.html.j2").render(
        r=result,
        decision=DECISIONS[result.verdict.decision],
        sentence=numbers.typographic(result.verdict.sentence),
        reason=numbers.typographic(result.verdict.reason),
        more=f"{numbers.whole(needed)} more {'users' if reading.units == 'users' else 'labelled rows'}"
        if needed and f"{needed:,}" not in result.verdict.sentence
        else "",
        facts=_facts(reading),
        sections=[section for make in SECTIONS if (section := make(reading)) is not None],
    )


def template(name: str) -> jinja2.Template:
    """Return a template of this folder; it escapes all that it is given: names and messages come from data."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _facts(reading: Reading) -> list[tuple[str, str, str]]:
    """Return the figures beside the verdict: name, number, explanation."""
    champion, metric = reading.champion, reading.metric
    score = reading.score(champion.name)
    decimals = numbers.decimals_for([score])
    gap = numbers.fixed(champion.overfit_gap, decimals, sign=True)
    parts = "train minus holdout" if metric.greater_is_better else "holdout minus train"
    within = f"95% interval {numbers.limits(score, decimals)}".replace(", ", ",\u00a0") if score else ""
    value = numbers.fixed(score.value, decimals) + reading.unit if score else numbers.MISSING
    outcomes = [c.outcome for c in reading.result.checks if c.outcome != "not_applicable"]
    failed = outcomes.count("fail")
    passed = f"passed; {failed} failed" if failed else "passed" if outcomes else "made"
    kind = KINDS[champion.kind].lower().removesuffix("s").replace("bases, ", "base, ")
    return [
        ("Champion", champion.title, kind),
        (f"{metric.title} on holdout{', by weight' if reading.result.weighted else ''}", value, within),
        ("Overfit gap", gap + reading.unit, f"{parts}; near 0 is good"),
        _worth_or_size(reading),
        ("Checks", f"{len(outcomes) - failed} of {len(outcomes)}" if outcomes else "none", passed),
    ]


def _worth_or_size(reading: Reading) -> tuple[str, str, str]:
    """Return what adapting is worth a year; if nobody priced it, the size of the holdout."""
    r = reading.result
    if r.value and numbers.known(r.value.net_gain_per_year):
        shown = "worth it" if r.value.worth_it else "not shown to be worth it"
        net = numbers.money(r.value.net_gain_per_year, r.value.unit, sign=True)
        return "Adapting, a year", net, f"net, best estimate; {shown}"
    if isinstance(r, ListResult):
        lists = r.ranking
        return "Holdout", f"{lists.users:,} users", f"in the {lists.length} from {lists.cutoff}, read once"
    folds = r.split.folds
    read = f"each in one of {folds} folds" if folds > 1 else f"of {r.rows.used:,}, read once"
    return "Holdout", f"{r.rows.holdout:,} rows", read
