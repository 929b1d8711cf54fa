"""Did adapting pay? The one comparison that was planned before the holdout was opened."""

from __future__ import annotations

from tabkit.report import rows
from tabkit.report.numbers import decimals_for, number
from tabkit.report.pieces import Piece, Section
from tabkit.report.reading import Reading, listed, once
from tabkit.report.svg import aside
from tabkit.report.tried import Tried, like
from tabkit.result import Against, Planned, TableResult

_TITLE = "Did adapting pay?"


def gain(reading: Reading) -> Section:
    """Return what adapting gained."""
    planned = reading.result.planned
    if planned is None:
        return Section("gain", "Gain", _TITLE, "Nothing was adapted in this run, so there is no gain to show.")
    pieces: list[Piece] = [rows.gains(reading, planned)] if planned.against else []
    bar = f"{number(reading.result.worthwhile)}{reading.unit}" if reading.result.worthwhile else "zero"
    pieces.append(
        aside(
            "This comparison was fixed before the holdout was opened. "
            f"It takes every gain, its whole interval, above {bar} to call it a success."
        )
    )
    if (tried := _tried(reading)) is not None:
        pieces.append(aside(tried.sentence))
    return Section("gain", "Gain", _TITLE, _sentence(reading, planned), tuple(pieces))


def _tried(reading: Reading) -> Tried | None:
    """Return how runs on such tables fared; None for lists."""
    result = reading.result
    if not isinstance(result, TableResult):
        return None
    return like(numbers=result.task == "regression", rows=result.rows.used)


def _sentence(reading: Reading, planned: Planned) -> str:
    bar = reading.result.worthwhile
    opponents = once(planned.against)
    decimals = decimals_for(same[0].interval for same in opponents)
    gains = [
        f"{reading.change(same[0].gain, decimals)} against {listed([reading.title(a.name) for a in same])}"
        for same in opponents
    ]
    # The states are read off the bounds: a result of an earlier version has none.
    states = [Against.of(a.name, a.role, a.interval, bar).state for a, *_ in opponents]
    n, below = len(states), states.count("not_worthwhile")
    which = _which_gains(n, states.count("worthwhile"))
    above = f"the {number(bar)}{reading.unit} that would matter" if bar else "zero"
    rest = (
        f"; {'it' if n == 1 else f'{below} of {n}'} {'is' if below == 1 else 'are'} shown to be below" if below else ""
    )
    return f"{reading.title(planned.candidate)} {listed(gains)}; {which} shown to be above {above}{rest}."


def _which_gains(n: int, shown: int) -> str:
    """Say how many of the gains are shown.

    >>> _which_gains(2, 2), _which_gains(3, 1), _which_gains(1, 0)
    ('both gains are', 'only one of the 3 gains is', 'the gain is not')
    """
    if shown == n:
        return "both gains are" if n == 2 else "the gain is" if n == 1 else f"all {n} gains are"
    if n == 1:
        return "the gain is not"
    if not shown:
        return "neither gain is" if n == 2 else f"none of the {n} gains is"
    of = "two" if n == 2 else n
    return f"only one of the {of} gains is" if shown == 1 else f"only {shown} of the {of} gains are"
