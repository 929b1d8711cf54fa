"""A run in a notebook: verdict, planned gains and candidates, as a fragment of HTML that needs nothing else."""

from __future__ import annotations

from tabkit.report.numbers import interval, signed
from tabkit.report.page import template
from tabkit.report.reading import DECISIONS, Reading
from tabkit.result import PARTS, Result


def summary_html(result: Result) -> str:
    """Return the verdict, the planned gains and the candidates, the best on holdout first; everything is escaped."""
    reading = Reading(result)
    holdout = {c.name: score for c in reading.scored if (score := reading.score(c.name))}
    order = sorted(
        reading.scored,
        key=lambda c: -reading.metric.sign * holdout[c.name].value if c.name in holdout else float("inf"),
    )
    planned = result.planned
    gains = (
        [(reading.title(a.name), a.role, interval(a.interval, sign=True)) for a in planned.against] if planned else []
    )
    return template("summary.html.j2").render(
        r=result,
        decision=DECISIONS[result.verdict.decision],
        candidate=reading.title(planned.candidate) if planned else "",
        metric=reading.metric_name,
        gains=gains,
        columns=("Candidate", *(part.capitalize() for part in reversed(PARTS)), "Overfit gap"),
        rows=[
            (
                c is reading.champion,
                c.title,
                [*(interval(reading.score(c.name, part)) for part in reversed(PARTS)), signed(c.overfit_gap, 2)],
            )
            for c in order
        ],
    )
