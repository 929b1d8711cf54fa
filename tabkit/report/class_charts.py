"""Charts of a binary task on the holdout: ROC, precision and recall, reliability."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import polars as pl
from markupsafe import Markup

from tabkit.data.encode import as_text
from tabkit.report import diagnose
from tabkit.report.numbers import known, number, share, shortened, whole
from tabkit.report.pieces import Figure
from tabkit.report.reading import Reading
from tabkit.report.svg import Axis, Frame, Series, axis
from tabkit.result import Calibration, CandidateFacts

_UNIT = Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
_Curves = dict[str, diagnose.Curve]


def roc(reading: Reading, frame: pl.DataFrame, positive: str) -> Figure | None:
    """Draw the ROC curves; None if there are none."""
    curves = _curves(reading, frame, positive, diagnose.roc)
    if not curves:
        return None
    plot = Frame(_UNIT, _UNIT, "false positive rate", "true positive rate")
    layers = [plot.segment((0, 1), (0, 1), "chance"), *_lines(plot, curves, reading.styles)]
    title = f"ROC: how many '{positive}' are found at which rate of false alarms"
    desc = "; ".join(f"{reading.title(n)} finds {_share_at(c, 0.1)} at 10% false alarms" for n, c in curves.items())
    return Figure(
        title,
        desc,
        plot.svg("roc", title, desc, *layers),
        ("false positive rate", *map(reading.title, curves)),
        _rows(curves, np.r_[0.01, 0.02, 0.05, np.arange(1, 10) / 10]),
        _legend(reading, curves, "chance"),
    )


def precision_recall(reading: Reading, frame: pl.DataFrame, positive: str) -> Figure | None:
    """Draw the precision-recall curves; None if there are none."""
    curves = _curves(reading, frame, positive, diagnose.precision_recall)
    if not curves:
        return None
    rate = float(np.average(_observed(frame, positive), weights=diagnose.weights_of(frame)))
    top = max(float(np.max(c.y)) for c in curves.values())
    plot = Frame(_UNIT, axis([], limits=(0.0, min(1.0, 1.05 * top))), "recall", "precision")
    layers = [plot.segment((0, 1), (rate, rate), "chance"), *_lines(plot, curves, reading.styles)]
    title = f"Precision and recall for '{positive}'"
    desc = "; ".join(
        f"{reading.title(n)} is right in {_share_at(c, 0.5)} of alarms at 50% recall" for n, c in curves.items()
    )
    return Figure(
        title,
        desc,
        plot.svg("pr", title, desc, *layers),
        ("recall", *map(reading.title, curves)),
        _rows(curves, np.arange(1, 11) / 10),
        _legend(reading, curves, f"share of '{shortened(positive, 16)}': {share(rate)}"),
    )


def _observed(frame: pl.DataFrame, positive: str) -> npt.NDArray[np.bool_]:
    return (as_text(frame["target"]) == positive).to_numpy()


def _curves(
    reading: Reading,
    frame: pl.DataFrame,
    positive: str,
    curve_of: Callable[[npt.NDArray[np.bool_], diagnose.Floats, diagnose.Floats | None], diagnose.Curve | None],
) -> _Curves:
    y, names = _observed(frame, positive), [n for n in reading.styles if n in frame.columns]
    ordered = diagnose.in_order(frame, names)
    weights = diagnose.weights_of(frame)
    curves = {n: curve_of(y, ordered[n].to_numpy(), weights) for n in names}
    return {n: c for n, c in curves.items() if c is not None}


def _share_at(curve: diagnose.Curve, x: float) -> str:
    return share(float(diagnose.at_grid(curve, np.array([x]))[0]))


def _rows(curves: _Curves, grid: diagnose.Floats) -> tuple[tuple[str, ...], ...]:
    return tuple((share(x), *(_share_at(c, x) for c in curves.values())) for x in grid.tolist())


def _lines(plot: Frame, curves: _Curves, styles: dict[str, str]) -> list[Markup]:
    # The first is the champion: drawn last, on top.
    return [plot.line(Series(n, c.x.tolist(), c.y.tolist(), f"s-{styles[n]}")) for n, c in reversed(curves.items())]


def _legend(reading: Reading, names: Iterable[str], reference: str) -> tuple[tuple[str, str], ...]:
    return (*((f"line s-{reading.styles[n]}", reading.title(n)) for n in names), ("chance", reference))


def reliability(reading: Reading, positive: str) -> Figure | None:
    """Draw observed shares over predicted probabilities, the champion's with intervals; None if none are known."""
    shown = [(c, c.calibration) for c in reading.result.candidates if c.name in reading.styles and c.calibration]
    if not shown:
        return None
    shown.sort(key=lambda pair: pair[0] is not reading.champion)
    best, calibration = shown[0]
    values = [v for _, each in shown for b in each.bins for v in (b.predicted, b.observed)]
    values += [b.high for b in calibration.bins]
    top = min(1.0, 1.04 * max(filter(known, values), default=1.0)) or 1.0
    scale = axis([], limits=(0.0, top))
    plot = Frame(scale, scale, f"predicted probability of '{shortened(positive, 20)}'", "observed share")
    title = f"Reliability: how often '{positive}' happened, by predicted probability"
    desc = f"{best.title}: off by {share(calibration.ece)} on average"
    rows = (
        (c.title, *(number(v) for v in (b.predicted, b.observed, b.low, b.high)), whole(b.rows))
        for c, each in shown
        for b in each.bins
    )
    return Figure(
        title,
        desc,
        plot.svg("reliability", title, desc, *_reliability_layers(plot, shown, reading.styles)),
        ("candidate", "predicted", "observed", "low", "high", "rows"),
        tuple(rows),
        _legend(reading, [c.name for c, _ in shown], "perfect"),
    )


def _reliability_layers(
    plot: Frame, shown: list[tuple[CandidateFacts, Calibration]], styles: dict[str, str]
) -> list[Markup]:
    top = plot.y.high
    layers = [plot.segment((0, top), (0, top), "chance")]
    first, calibration = shown[0]
    whisker = f"whisker s-{styles[first.name]}"
    for b in calibration.bins:
        if known(b.low) and known(b.high):
            layers.append(plot.segment((b.predicted, b.predicted), (b.low, min(b.high, top)), whisker))
    for c, each in reversed(shown):
        x, y = [b.predicted for b in each.bins], [b.observed for b in each.bins]
        layers.append(plot.line(Series(c.name, x, y, f"s-{styles[c.name]}", dots=True)))
    return layers
