"""Every score of a run in long form."""

from __future__ import annotations

import polars as pl

from tabkit.result import PARTS, Result

_TEXTS = ("candidate", "base", "how", "kind", "part", "metric")
_NUMBERS = ("value", "low", "high")


def scorecard_table(result: Result) -> pl.DataFrame:
    """Return every score: candidate, base, how, kind, part, metric, value, low, high; null if it is undefined."""
    rows = [
        (c.name, c.base, c.how, c.kind, part, metric, score.value, score.low, score.high)
        for c in result.candidates
        for part in PARTS
        for metric, score in c.scores.get(part, {}).items()
    ]
    schema = dict.fromkeys(_TEXTS, pl.String()) | dict.fromkeys(_NUMBERS, pl.Float64())
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col(_NUMBERS).fill_nan(None))
