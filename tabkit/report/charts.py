"""The small charts with two axes: learning curves, ROC, precision-recall, reliability, residuals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from markupsafe import Markup

from tabkit.data.target import band
from tabkit.report import diagnose
from tabkit.report.numbers import fixed, number, share, shortened, signed, whole
from tabkit.report.svg import Axis, Figure, Frame, Series, axis, tag

_MOST_STEPS = 60
_CURVE_POINTS = 40
_UNIT = Axis(0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def learning(key: str, candidate: dict[str, Any]) -> Figure:
    """Draw a candidate's loss by epoch or tree; the untouched base, the stages and the best step are marked."""
    history = candidate["history"]
    steps = [h["step"] for h in history]
    best = min(history, key=lambda h: h["valid_loss"] if h["valid_loss"] is not None else math.inf)
    adapted = candidate["kind"] == "adapted" and steps[0] == 0
    stages = _stages(history)
    trained = [s for s in stages if s[0] > 0] or stages
    # Every step a setting of its own: settings tried, not time. Two or three of them are so only without a step 0.
    contest = len(stages) > max(3, len(history) // 2) or (steps[0] > 0 and len(stages) == len(history))
    kept = _kept(len(history), steps.index(best["step"]))
    thin = [history[i] for i in kept]
    losses = [h[k] for h in history for k in ("train_loss", "valid_loss")]
    frame = Frame(
        axis([float(s) for s in steps], pad=0.02),
        _clipped(losses, best["valid_loss"]),
        _step_name(candidate, contest),
        "loss",
    )
    x = [float(h["step"]) for h in thin]
    top = frame.y.high
    lines = [
        Series("train", x, [_cut(h["train_loss"], top) for h in thin], "s-muted", dots=contest),
        Series("valid", x, [_cut(h["valid_loss"], top) for h in thin], "s-adapted", dots=contest),
    ]
    layers = []
    if not contest:
        # Names would hide the curves: stages are numbered in the picture and named in the note below it.
        layers += [frame.vertical(float(step), "stage", str(i)) for i, (step, _) in enumerate(trained, 1) if i > 1]
    layers += [frame.line(s) for s in lines if any(v is not None for v in s.y)]
    if adapted:
        y = _cut(history[0]["valid_loss"], top)
        if y is not None:
            layers.append(tag("circle", cx=frame.px(0.0), cy=frame.py(y), r=5, class_="ring s-base"))
    if best["valid_loss"] is not None:
        layers.append(
            tag(
                "circle", cx=frame.px(float(best["step"])), cy=frame.py(best["valid_loss"]), r=4, class_="dot s-adapted"
            )
        )
    title = f"Loss by step: {candidate['title']}"
    note = _learning_note(history, best, adapted, contest)
    if len(trained) > 1 and not contest:
        note += f" Stages: {'; '.join(f'{i} {name}' for i, (_, name) in enumerate(trained, 1))}."
    rows = tuple(
        (whole(h["step"]), number(h["train_loss"], 4), number(h["valid_loss"], 4), h["stage"])
        for h in _few(thin, 25, best)
    )
    legend = [("line s-adapted", "valid")]
    if any(h["train_loss"] is not None for h in history):
        legend.insert(0, ("line s-muted", "train"))
    if adapted:
        legend.append(("ring s-base", "untouched base"))
    legend.append(("dot s-adapted", "lowest on valid"))
    svg = frame.svg(key, title, note, *layers)
    return Figure(title, note, svg, ("step", "train loss", "valid loss", "stage"), rows, tuple(legend), note)


def _learning_note(history: list[dict[str, Any]], best: dict[str, Any], adapted: bool, contest: bool) -> str:
    last = history[-1]["step"]
    if contest:
        stage = best["stage"] or f"step {best['step']}"
        return f"Each step is a setting tried; '{stage}' was best on valid (loss {number(best['valid_loss'], 4)})."
    if adapted and best["step"] == 0:
        return f"No step of {last} beat the untouched base on valid (loss {number(best['valid_loss'], 4)})."
    return f"Lowest valid loss {number(best['valid_loss'], 4)} at step {best['step']:,} of {last:,}."


def _stages(history: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Return each stage with the step at which it begins."""
    out: list[tuple[int, str]] = []
    for h in history:
        if not out or h["stage"] != out[-1][1]:
            out.append((h["step"], h["stage"]))
    return out


def _step_name(candidate: dict[str, Any], contest: bool) -> str:
    if contest:
        return "setting tried"
    names = {b["name"] for b in candidate["proof"]}
    return "trees" if any("tree" in n or n in ("leaves", "splits") for n in names) else "epoch"


def _kept(n: int, best: int) -> list[int]:
    if n <= _MOST_STEPS:
        return list(range(n))
    return sorted({*np.linspace(0, n - 1, _MOST_STEPS).round().astype(int).tolist(), best})


def _few(rows: list[dict[str, Any]], most: int, best: dict[str, Any]) -> list[dict[str, Any]]:
    if len(rows) <= most:
        return rows
    chosen = {*np.linspace(0, len(rows) - 1, most).round().astype(int).tolist()}
    return [r for i, r in enumerate(rows) if i in chosen or r["step"] == best["step"]]


def _clipped(losses: Iterable[float | None], best: float | None) -> Axis:
    """Return the loss axis; one wild step does not flatten all others."""
    seen = sorted(v for v in losses if v is not None)
    if len(seen) > 10 and best is not None and seen[-1] > 4 * (seen[int(0.9 * (len(seen) - 1))]):
        return axis([seen[0], seen[int(0.9 * (len(seen) - 1))]])
    return axis(seen)


def _cut(value: float | None, top: float) -> float | None:
    return None if value is None else min(value, top)


def by_rows(
    key: str, curve: dict[str, Any], titles: dict[str, str], styles: dict[str, str], metric: dict[str, Any]
) -> Figure:
    """Draw the valid score by number of train rows."""
    points = curve["points"]
    names = list(dict.fromkeys(name for p in points for name in p["scores"]))
    x = [float(p["rows"]) for p in points]
    frame = Frame(
        axis(x, want=3, pad=0.05),
        axis([v for p in points for v in p["scores"].values()], pad=0.1),
        "train rows",
        f"{metric['title']} on valid",
    )
    series = [
        Series(n, x, [p["scores"].get(n) for p in points], f"s-{styles.get(n, 'champion')}", dots=True) for n in names
    ]
    title = f"{metric['title']} on valid by number of train rows"
    ends = [(n, [v for v in (p["scores"].get(n) for p in points) if v is not None]) for n in names]
    desc = "; ".join(f"{titles.get(n, n)} from {number(v[0])} to {number(v[-1])}" for n, v in ends if v)
    rows = tuple((whole(p["rows"]), *(number(p["scores"].get(n), 4) for n in names)) for p in points)
    legend = tuple((f"line s-{styles.get(n, 'champion')}", titles.get(n, n)) for n in names)
    svg = frame.svg(
        key, title, desc, *(frame.line(s) for s in series), x_labels={v: f"{v:,.0f}" for v in x} if len(x) < 6 else None
    )
    return Figure(title, desc, svg, ("train rows", *(titles.get(n, n) for n in names)), rows, legend)


def roc(key: str, frame: pl.DataFrame, styles: dict[str, str], titles: dict[str, str], positive: str) -> Figure | None:
    """Draw the ROC curves."""
    curves = _curves(frame, styles, positive, diagnose.roc)
    if not curves:
        return None
    plot = Frame(_UNIT, _UNIT, "false positive rate", "true positive rate")
    layers = [plot.segment((0, 1), (0, 1), "chance"), *_lines(plot, curves, styles)]
    title = f"ROC: how many '{positive}' are found at which rate of false alarms"
    grid = np.r_[0.01, 0.02, 0.05, np.arange(1, 10) / 10]
    columns = {n: diagnose.at_grid(c, grid) for n, c in curves.items()}
    rows = tuple((share(float(g)), *(share(float(columns[n][i])) for n in curves)) for i, g in enumerate(grid))
    desc = "; ".join(f"{titles.get(n, n)} finds {share(float(columns[n][3]))} at 10% false alarms" for n in curves)
    return Figure(
        title,
        desc,
        plot.svg(key, title, desc, *layers),
        ("false positive rate", *(titles.get(n, n) for n in curves)),
        rows,
        _legend(curves, styles, titles, "chance"),
    )


def precision_recall(
    key: str, frame: pl.DataFrame, styles: dict[str, str], titles: dict[str, str], positive: str
) -> Figure | None:
    """Draw the precision-recall curves."""
    curves = _curves(frame, styles, positive, diagnose.precision_recall)
    if not curves:
        return None
    rate = float((frame["target"].cast(pl.String) == positive).to_numpy().mean())
    top = max(float(np.max(c.y)) for c in curves.values())
    plot = Frame(_UNIT, axis([], limits=(0.0, min(1.0, 1.05 * top))), "recall", "precision")
    layers = [plot.segment((0, 1), (rate, rate), "chance"), *_lines(plot, curves, styles)]
    title = f"Precision and recall for '{positive}'"
    grid = np.arange(1, 11) / 10
    columns = {n: diagnose.at_grid(c, grid) for n, c in curves.items()}
    rows = tuple((share(float(g)), *(share(float(columns[n][i])) for n in curves)) for i, g in enumerate(grid))
    desc = "; ".join(
        f"{titles.get(n, n)} is right in {share(float(columns[n][4]))} of alarms at 50% recall" for n in curves
    )
    legend = _legend(curves, styles, titles, f"share of '{shortened(positive, 16)}': {share(rate)}")
    return Figure(
        title, desc, plot.svg(key, title, desc, *layers), ("recall", *(titles.get(n, n) for n in curves)), rows, legend
    )


def _curves(frame: pl.DataFrame, styles: dict[str, str], positive: str, make: Any) -> dict[str, diagnose.Curve]:
    y = (frame["target"].cast(pl.String) == positive).to_numpy()
    made = {n: make(y, frame[n].to_numpy()) for n in styles if n in frame.columns}
    return {n: c for n, c in made.items() if c is not None}


def _lines(plot: Frame, curves: dict[str, diagnose.Curve], styles: dict[str, str]) -> list[Markup]:
    # The first is the champion: drawn last, on top.
    return [plot.line(Series(n, c.x.tolist(), c.y.tolist(), f"s-{styles[n]}")) for n, c in reversed(curves.items())]


def _legend(
    names: Iterable[str], styles: dict[str, str], titles: dict[str, str], reference: str
) -> tuple[tuple[str, str], ...]:
    return (*((f"line s-{styles[n]}", titles.get(n, n)) for n in names), ("chance", reference))


def reliability(
    key: str, candidates: list[dict[str, Any]], styles: dict[str, str], champion: str, positive: str
) -> Figure | None:
    """Draw observed shares over predicted probabilities; the champion's with intervals."""
    shown = [c for c in candidates if c["name"] in styles and c["calibration"]]
    shown.sort(key=lambda c: c["name"] != champion)
    if not shown:
        return None
    values = [b[k] for c in shown for b in c["calibration"]["bins"] for k in ("predicted", "observed")]
    values += [b["high"] for b in shown[0]["calibration"]["bins"]]
    top = min(1.0, 1.04 * max(values, default=1.0)) or 1.0
    scale = axis([], limits=(0.0, top))
    plot = Frame(scale, scale, f"predicted probability of '{shortened(positive, 20)}'", "observed share")
    layers = [plot.segment((0, top), (0, top), "chance")]
    first = shown[0]["calibration"]["bins"]
    for b in first:
        if b["low"] is not None and b["high"] is not None:
            layers.append(
                plot.segment(
                    (b["predicted"], b["predicted"]),
                    (b["low"], min(b["high"], top)),
                    f"whisker s-{styles[shown[0]['name']]}",
                )
            )
    for c in reversed(shown):
        bins = c["calibration"]["bins"]
        layers.append(
            plot.line(
                Series(
                    c["name"],
                    [b["predicted"] for b in bins],
                    [b["observed"] for b in bins],
                    f"s-{styles[c['name']]}",
                    dots=True,
                )
            )
        )
    title = f"Reliability: how often '{positive}' happened, by predicted probability"
    best = shown[0]
    desc = f"{best['title']}: off by {share(best['calibration']['ece'])} on average"
    rows = tuple(
        (
            c["title"],
            number(b["predicted"]),
            number(b["observed"]),
            number(b["low"]),
            number(b["high"]),
            whole(b["rows"]),
        )
        for c in shown
        for b in c["calibration"]["bins"]
    )
    legend = _legend([c["name"] for c in shown], styles, {c["name"]: c["title"] for c in shown}, "perfect")
    columns = ("candidate", "predicted", "observed", "low", "high", "rows")
    return Figure(title, desc, plot.svg(key, title, desc, *layers), columns, rows, legend)


def predicted_observed(key: str, frame: pl.DataFrame, name: str, title_of: str, unit: str) -> Figure:
    """Draw predictions over observations of a regression."""
    y, p = frame["target"].to_numpy(), frame[name].to_numpy()
    seen, guessed = diagnose.sample(y, p)
    scale = axis([float(y.min()), float(y.max()), float(p.min()), float(p.max())], want=4, pad=0.02)
    end = f" ({unit})" if unit else ""
    plot = Frame(scale, scale, f"observed{end}", f"predicted{end}")
    layers = [
        plot.points(seen.tolist(), guessed.tolist(), "s-adapted"),
        plot.segment((scale.low, scale.high), (scale.low, scale.high), "chance"),
    ]
    title = f"Predicted and observed: {title_of}"
    groups = diagnose.grouped(y, p)
    rows = tuple(
        (whole(g.rows), number(g.predicted, 4), number(g.observed, 4), signed(g.observed - g.predicted)) for g in groups
    )
    low, high = groups[0], groups[-1]
    desc = (
        f"Where it predicts {number(low.predicted)} on average, {number(low.observed)} was observed; "
        f"where {number(high.predicted)}, {number(high.observed)}."
    )
    note = f"{len(seen):,} of {len(y):,} rows drawn. " if len(seen) < len(y) else ""
    columns = ("rows (tenths by prediction)", "mean predicted", "mean observed", "difference")
    return Figure(
        title,
        desc,
        plot.svg(key, title, desc, *layers),
        columns,
        rows,
        (("dot s-adapted", "a holdout row"), ("chance", "perfect")),
        note + desc,
    )


def residuals_predicted(
    key: str, frame: pl.DataFrame, name: str, title_of: str, unit: str, interval: dict[str, Any] | None
) -> Figure:
    """Draw residuals over predictions, with the intervals around the predictions where ``interval`` tells them."""
    y, p = frame["target"].to_numpy(), frame[name].to_numpy()
    error = y - p
    end = f" ({unit})" if unit else ""
    seen, guessed = diagnose.sample(y, p)
    x = axis([float(p.min()), float(p.max())], pad=0.02)
    grid = np.linspace(float(p.min()), float(p.max()), _CURVE_POINTS)
    edges: tuple[np.ndarray, ...] = ()
    inside = None
    if interval is not None:
        low, high = band(interval["scale"], p, interval["half_width"])
        inside = (low <= y) & (y <= high)
        edges = tuple(edge - grid for edge in band(interval["scale"], grid, interval["half_width"]))
    values = np.concatenate([error, *edges])
    plot = Frame(
        x, axis([float(values.min()), float(values.max())]), f"predicted{end}", f"observed minus predicted{end}"
    )
    layers = [plot.points(guessed.tolist(), (seen - guessed).tolist(), "s-adapted")]
    layers += [plot.line(Series("interval", grid.tolist(), edge.tolist(), "s-base")) for edge in edges]
    layers.append(plot.segment((x.low, x.high), (0.0, 0.0), "zero"))
    title = f"Residuals by prediction: {title_of}"
    groups = diagnose.grouped(y, p, 10, inside)
    rows = tuple(
        (whole(g.rows), number(g.predicted, 4), signed(g.observed - g.predicted), share(g.inside)) for g in groups
    )
    desc = _residual_note(diagnose.grouped(y, p, 3, inside), inside, interval, unit)
    legend = [("dot s-adapted", "a holdout row")]
    if interval is not None:
        legend.append(("line s-base", f"{share(interval['level'])} interval"))
    columns = ("rows (tenths by prediction)", "mean predicted", "mean residual", "inside the interval")
    return Figure(title, desc, plot.svg(key, title, desc, *layers), columns, rows, tuple(legend), desc)


def _residual_note(
    thirds: list[diagnose.Group],
    inside: npt.NDArray[np.bool_] | None,
    interval: dict[str, Any] | None,
    unit: str,
) -> str:
    """Say whether the mean error depends on the prediction, and how many rows the intervals held."""
    low, high = thirds[0], thirds[-1]
    told = (
        f"Mean residual {signed(low.observed - low.predicted)} in the third of the lowest predictions, "
        f"{signed(high.observed - high.predicted)} in that of the highest."
    )
    if inside is None or interval is None:
        return told
    width = f"± {number(interval['half_width'])}{' ' + unit if unit else ''}"
    wide = width if interval["scale"] is None else "as wide on the logarithm for every row"
    return (
        f"{told} The {share(interval['level'])} intervals ({wide}) held {share(float(inside.mean()))} of {len(inside):,} rows: "
        f"{share(low.inside)} in the lowest third, {share(high.inside)} in the highest."
    )


def residuals(key: str, frame: pl.DataFrame, name: str, title_of: str, unit: str) -> Figure:
    """Draw the histogram of what was observed minus what was predicted."""
    error = frame["target"].to_numpy() - frame[name].to_numpy()
    counts, edges = diagnose.histogram(error)
    end = f" ({unit})" if unit else ""
    plot = Frame(
        axis([], limits=(float(edges[0]), float(edges[-1]))),
        axis([0.0, float(counts.max())], pad=0.0),
        f"observed minus predicted{end}",
        "rows",
    )
    base = plot.py(0.0)
    bars = [
        tag(
            "rect",
            x=plot.px(float(a)) + 0.5,
            y=plot.py(float(n)),
            width=max(0.5, plot.px(float(b)) - plot.px(float(a)) - 1),
            height=round(base - plot.py(float(n)), 1),
            class_="column",
        )
        for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    mean, middle = float(error.mean()), float(np.median(np.abs(error)))
    title = f"Residuals: {title_of}"
    desc = (
        f"Half of the predictions are within {number(middle)}{' ' + unit if unit else ''} of what was observed; "
        f"the mean error is {signed(mean)}."
    )
    lines = [plot.vertical(0.0, "zero")] if edges[0] < 0 < edges[-1] else []
    digits = max(0, 2 - math.floor(math.log10(max(abs(float(edges[0])), abs(float(edges[-1])), 1e-12))))
    rows = tuple(
        (fixed(float(a), digits), fixed(float(b), digits), whole(int(n)))
        for n, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    )
    return Figure(title, desc, plot.svg(key, title, desc, *bars, *lines), ("from", "to", "rows"), rows, (), desc)
