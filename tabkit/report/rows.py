"""Charts of one row per thing: a label, a number, and marks on a common scale below them.

Positions are percentages and text is in pixels, so that a phone shows the same chart narrower, not smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tabkit.report import numbers
from tabkit.report.pieces import Figure
from tabkit.report.reading import Reading
from tabkit.report.svg import Axis, axis, picture, tag
from tabkit.result import PARTS, Importance, Interval, Planned

_MARGIN = 2.0  # per cent at each side, so that a mark at the end of the scale stays inside
MOST_COLUMNS = 15


@dataclass(frozen=True)
class Mark:
    """A mark on a row: ``span`` and ``bar`` reach from ``x`` to ``to``; ``dot``, ``ring``, ``tick`` stand at ``x``."""

    shape: str
    x: float | None
    style: str
    to: float | None = None


@dataclass(frozen=True)
class Row:
    """One row: ``label`` at the left, ``right`` at the right, ``sub`` on a second line; then the marks."""

    label: str
    right: str
    marks: tuple[Mark, ...]
    sub: str = ""
    strong: bool = False

    @property
    def height(self) -> int:
        """Pixels it takes."""
        return 62 if self.sub else 42


@dataclass(frozen=True)
class Chart:
    """Rows over one scale; ``lines`` go vertically over all of them: position, CSS class, label."""

    rows: Sequence[Row]
    scale: Axis
    x_title: str
    lines: Sequence[tuple[float, str, str]] = ()

    def svg(self, key: str, title: str, desc: str) -> Markup:
        """Draw it."""
        parts: list[Markup] = []
        top = 16 if any(label for _, _, label in self.lines) else 4
        bottom = top + sum(row.height for row in self.rows)
        for tick in self.scale.ticks:
            x = _at(self.scale, tick)
            parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="gridline"))
            parts.append(tag("text", self.scale.label(tick), x=x, y=bottom + 16, text_anchor="middle", class_="tick"))
        for value, style, label in self.lines:
            x = _at(self.scale, value)
            parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_=style))
            if label:
                anchor = "end" if self.scale.at(value) > 0.5 else "start"
                parts.append(tag("text", label, x=x, y=10, text_anchor=anchor, class_="mark-label"))
        y = top
        for row in self.rows:
            parts += _row(row, self.scale, y)
            y += row.height
        parts.append(tag("text", self.x_title, x="50%", y=bottom + 34, text_anchor="middle", class_="axis-title"))
        return picture(key, title, desc, *parts, width="100%", height=bottom + 40, class_="rows")


def _row(row: Row, scale: Axis, top: int) -> list[Markup]:
    line = top + 15
    parts = [tag("text", row.label, x="0", y=line, class_="row-label strong" if row.strong else "row-label")]
    if row.sub:
        line += 17
        parts.append(tag("text", row.sub, x="0", y=line, class_="row-sub"))
    parts.append(tag("text", row.right, x="100%", y=line, text_anchor="end", class_="row-value"))
    return parts + [_mark(mark, scale, line + 14) for mark in row.marks if numbers.known(mark.x)]


def _at(scale: Axis, value: float) -> str:
    share = min(1.0, max(0.0, scale.at(value)))
    return f"{_MARGIN + share * (100 - 2 * _MARGIN):.2f}%"


def _mark(mark: Mark, scale: Axis, y: int) -> Markup:
    assert mark.x is not None
    x = _at(scale, mark.x)
    match mark.shape:
        case "span" | "bar":
            end = _at(scale, mark.to) if numbers.known(mark.to) else x
            return tag("line", x1=x, x2=end, y1=y, y2=y, class_=f"{mark.shape} {mark.style}")
        case "tick":
            return tag("line", x1=x, x2=x, y1=y - 6, y2=y + 6, class_=f"cut {mark.style}")
        case _:
            return tag("circle", cx=x, cy=y, r=5, class_=f"{mark.shape} {mark.style}")


def gains(reading: Reading, planned: Planned) -> Figure:
    """Draw the planned comparison: gains with intervals, the zero line, the worthwhile line."""
    worthwhile, metric = reading.result.worthwhile, reading.metric
    gains = [(reading.title(a.name), a.role, a.interval) for a in planned.against]
    decimals = numbers.decimals_for(gain for *_, gain in gains)
    rows = [
        Row(
            numbers.shortened(f"against {name}", 46),
            numbers.interval(gain, decimals, sign=True),
            (Mark("span", gain.low, "accent", gain.high), Mark("dot", gain.value, "accent")),
            sub=numbers.shortened(role, 28),
        )
        for name, role, gain in gains
    ]
    lines = [(0.0, "zero", "")]
    if worthwhile:
        lines.append((worthwhile, "worthwhile", f"worthwhile: {numbers.signed(worthwhile)}"))
    title = f"Gain of {reading.title(planned.candidate)} in {reading.metric_name}"
    desc = "; ".join(f"against {name} {numbers.interval(gain, decimals, sign=True)}" for name, _, gain in gains)
    unit = f", {metric.unit}" if metric.unit else ""
    scale = axis([0.0, worthwhile, *(v for *_, gain in gains for v in _ends(gain))], want=5, pad=0.06)
    chart = Chart(rows, scale, f"gain in {reading.metric_name}{unit} (right of zero is better)", lines)
    return Figure(
        title,
        desc,
        chart.svg("gain", title, desc),
        ("against", "role", "gain", "low", "high"),
        tuple((name, role, *_fixed(gain, decimals, sign=True)) for name, role, gain in gains),
        (("accent", "gain and its 95% interval"),),
    )


def _ends(score: Interval) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def _fixed(score: Interval, decimals: int, *, sign: bool = False) -> tuple[str, ...]:
    return tuple(numbers.fixed(value, decimals, sign=sign) for value in _ends(score))


def gaps(reading: Reading) -> Figure:
    """Draw each candidate's train, valid and holdout scores on one line; its length is the overfit gap."""
    metric = reading.metric
    rows, table, values = [], [], []
    for c in reading.by_kind:
        train, valid, holdout = (s.value if (s := reading.score(c.name, part)) else None for part in PARTS)
        values += [train, valid, holdout]
        marks = (
            Mark("bar", train if holdout is not None else None, "gap", holdout),
            Mark("ring", train, "train"),
            Mark("tick", valid, "valid"),
            Mark("dot", holdout, "holdout"),
        )
        gap = f"gap {numbers.signed(c.overfit_gap, 2)}"
        rows.append(Row(numbers.shortened(c.title, 32), gap, marks, strong=c is reading.champion))
        scores = (numbers.number(v, 4) for v in (train, valid, holdout))
        table.append((c.title, *scores, numbers.signed(c.overfit_gap)))
    title = f"{metric.title} on train, valid and holdout, by candidate"
    desc = "; ".join(f"{name}: train {t}, holdout {h}, gap {g}" for name, t, _, h, g in table)
    better = "higher" if metric.greater_is_better else "lower"
    chart = Chart(rows, axis(values, want=5), f"{metric.title} ({better} is better)")
    return Figure(
        title,
        desc,
        chart.svg("gaps", title, desc),
        ("candidate", "train", "valid", "holdout", "overfit gap"),
        tuple(table),
        (("ring train", "train"), ("cut valid", "valid"), ("dot holdout", "holdout")),
        "The champion is in bold.",
    )


def importance(reading: Reading, block: Importance) -> Figure:
    """Draw how much the metric suffers when a column is shuffled, strongest first."""
    drops = [(c.name, Interval(c.drop, c.low, c.high)) for c in block.columns]
    shown = drops[:MOST_COLUMNS]
    decimals = numbers.decimals_for(drop for _, drop in shown[:8])
    rows = [
        Row(
            numbers.shortened(name, 26),
            numbers.interval(drop, decimals),
            (
                Mark("bar", 0.0, "accent" if drop.low > 0 else "faint", drop.value),
                Mark("span", drop.low, "thin", drop.high),
                Mark("tick", drop.value, "thin"),
            ),
        )
        for name, drop in shown
    ]
    title = f"Loss in {reading.metric_name} when a column is shuffled"
    desc = "Strongest first: " + "; ".join(f"{name} {numbers.interval(drop, decimals)}" for name, drop in shown[:5])
    hidden = len(drops) - len(shown)
    scale = axis([0.0, *(v for _, drop in shown for v in _ends(drop))])
    chart = Chart(rows, scale, f"how much worse {reading.metric_name} gets", [(0.0, "zero", "")])
    return Figure(
        title,
        desc,
        chart.svg("importance", title, desc),
        ("column", "loss", "low", "high"),
        tuple((name, *_fixed(drop, decimals)) for name, drop in drops),
        (("bar accent", "above zero"), ("bar faint", "perhaps nothing"), ("span thin", "95% interval")),
        f"{hidden} weaker columns are in the data table only." if hidden else "",
    )
