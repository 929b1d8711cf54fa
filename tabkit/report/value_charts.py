"""Charts of a regression on the holdout: predicted and observed, residuals, intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tabkit.data.target import band
from tabkit.report import diagnose
from tabkit.report.numbers import fixed, number, share, signed, whole
from tabkit.report.pieces import Figure
from tabkit.report.svg import Frame, Series, axis, tag
from tabkit.result.tables import PredictionInterval

_CURVE_POINTS = 40


@dataclass(frozen=True)
class Residuals:
    """What was observed and what one candidate predicted, in the target's unit."""

    title: str
    unit: str
    observed: diagnose.Floats
    predicted: diagnose.Floats

    @property
    def end(self) -> str:
        """The unit as it ends an axis title."""
        return f" ({self.unit})" if self.unit else ""

    @property
    def after(self) -> str:
        """The unit as it follows a number."""
        return f" {self.unit}" if self.unit else ""


def predicted_observed(pairs: Residuals) -> Figure:
    """Draw predictions over observations."""
    y, p = pairs.observed, pairs.predicted
    seen, guessed = diagnose.sample(y, p)
    scale = axis([float(y.min()), float(y.max()), float(p.min()), float(p.max())], want=4, pad=0.02)
    plot = Frame(scale, scale, f"observed{pairs.end}", f"predicted{pairs.end}")
    layers = [
        plot.points(seen.tolist(), guessed.tolist(), "s-adapted"),
        plot.segment((scale.low, scale.high), (scale.low, scale.high), "chance"),
    ]
    title = f"Predicted and observed: {pairs.title}"
    groups = diagnose.grouped(y, p)
    low, high = groups[0], groups[-1]
    desc = (
        f"Where it predicts {number(low.predicted)}{pairs.after} on average, {number(low.observed)} was observed; "
        f"where {number(high.predicted)}{pairs.after}, {number(high.observed)}."
    )
    note = f"{len(seen):,} of {len(y):,} rows drawn. " if len(seen) < len(y) else ""
    return Figure(
        title,
        desc,
        plot.svg("observed", title, desc, *layers),
        ("rows (tenths by prediction)", "mean predicted", "mean observed", "difference"),
        tuple(
            (whole(g.rows), number(g.predicted, 4), number(g.observed, 4), signed(g.observed - g.predicted))
            for g in groups
        ),
        (("dot s-adapted", "a holdout row"), ("chance", "perfect")),
        note + desc,
    )


def residuals_predicted(pairs: Residuals, interval: PredictionInterval | None) -> Figure:
    """Draw residuals over predictions, with the intervals around the predictions if they are known."""
    y, p = pairs.observed, pairs.predicted
    seen, guessed = diagnose.sample(y, p)
    x = axis([float(p.min()), float(p.max())], pad=0.02)
    grid = np.linspace(float(p.min()), float(p.max()), _CURVE_POINTS)
    edges: tuple[np.ndarray, ...] = ()
    inside = None
    if interval is not None:
        low, high = band(interval.scale, p, interval.half_width)
        inside = (low <= y) & (y <= high)
        edges = tuple(edge - grid for edge in band(interval.scale, grid, interval.half_width))
    values = np.concatenate([y - p, *edges])
    reach = axis([float(values.min()), float(values.max())])
    plot = Frame(x, reach, f"predicted{pairs.end}", f"observed minus predicted{pairs.end}")
    layers = [plot.points(guessed.tolist(), (seen - guessed).tolist(), "s-adapted")]
    layers += [plot.line(Series("interval", grid.tolist(), edge.tolist(), "s-base")) for edge in edges]
    layers.append(plot.segment((x.low, x.high), (0.0, 0.0), "zero"))
    title = f"Residuals by prediction: {pairs.title}"
    thirds = diagnose.grouped(y, p, 3, inside)
    desc = _drift(thirds, pairs.after)
    legend = [("dot s-adapted", "a holdout row")]
    if interval is not None and inside is not None:
        desc = f"{desc} {_held(thirds, inside, interval, pairs.unit)}"
        legend.append(("line s-base", f"{share(interval.level)} interval"))
    return Figure(
        title,
        desc,
        plot.svg("spread", title, desc, *layers),
        ("rows (tenths by prediction)", "mean predicted", "mean residual", "inside the interval"),
        tuple(
            (whole(g.rows), number(g.predicted, 4), signed(g.observed - g.predicted), share(g.inside))
            for g in diagnose.grouped(y, p, 10, inside)
        ),
        tuple(legend),
        desc,
    )


def _drift(thirds: list[diagnose.Group], unit: str) -> str:
    """Say whether the mean error depends on the prediction."""
    low, high = thirds[0], thirds[-1]
    return (
        f"Mean residual {signed(low.observed - low.predicted)}{unit} in the third of the lowest predictions, "
        f"{signed(high.observed - high.predicted)}{unit} in that of the highest."
    )


def _held(thirds: list[diagnose.Group], inside: npt.NDArray[np.bool_], interval: PredictionInterval, unit: str) -> str:
    """Say how many rows the intervals held."""
    width = f"± {number(interval.half_width)}{' ' + unit if unit else ''}"
    wide = width if interval.scale is None else "as wide on the logarithm for every row"
    return (
        f"The {share(interval.level)} intervals ({wide}) held {share(float(inside.mean()))} of {len(inside):,} rows: "
        f"{share(thirds[0].inside)} in the lowest third, {share(thirds[-1].inside)} in the highest."
    )


def residuals(pairs: Residuals) -> Figure:
    """Draw the histogram of what was observed minus what was predicted."""
    error = pairs.observed - pairs.predicted
    counts, edges = diagnose.histogram(error)
    x = axis([], limits=(float(edges[0]), float(edges[-1])))
    plot = Frame(x, axis([0.0, float(counts.max())], pad=0.0), f"observed minus predicted{pairs.end}", "rows")
    columns = list(zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True))
    base = plot.py(0.0)
    bars = [
        tag(
            "rect",
            x=plot.px(a) + 0.5,
            y=plot.py(n),
            width=max(0.5, plot.px(b) - plot.px(a) - 1),
            height=round(base - plot.py(n), 1),
            class_="column",
        )
        for n, a, b in columns
    ]
    lines = [plot.vertical(0.0, "zero")] if edges[0] < 0 < edges[-1] else []
    title = f"Residuals: {pairs.title}"
    desc = (
        f"Half of the predictions are within {number(float(np.median(np.abs(error))))}"
        f"{pairs.after} of what was observed; the mean error is {signed(float(error.mean()))}{pairs.after}."
    )
    digits = max(0, 2 - math.floor(math.log10(max(abs(float(edges[0])), abs(float(edges[-1]))) or 1.0)))
    rows = tuple((fixed(a, digits), fixed(b, digits), whole(n)) for n, a, b in columns)
    return Figure(
        title, desc, plot.svg("residuals", title, desc, *bars, *lines), ("from", "to", "rows"), rows, (), desc
    )
