"""Charts of one row per thing: a label, a number, and marks on a common scale below them.

Positions are percentages and text is in pixels, so that a phone shows the same chart narrower, not smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tabkit.errors import inside
from tabkit.report import numbers
from tabkit.report.numbers import wrapped
from tabkit.report.pieces import Figure
from tabkit.report.reading import Reading, listed, once
from tabkit.report.svg import CHARACTER, Axis, axis, picture, tag
from tabkit.result import PARTS, Importance, Interval, Planned

_PHONE = 284
"""Pixels of a chart on the narrowest phone, 320 pixels wide."""
_LINE = int(_PHONE / CHARACTER)
"""Characters that fit into one line there."""
_TEXT = 17
"""Pixels of a line of text."""
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
    def texts(self) -> list[tuple[str, str, str]]:
        """Its lines of text: what stands left, its CSS class, and what stands right."""
        name = "row-label strong" if self.strong else "row-label"
        lines = [(line, name, "") for line in wrapped(self.label, _LINE) or [""]]
        lines += [(line, "row-sub", "") for line in wrapped(self.sub, _LINE)]
        text, style, _ = lines[-1]
        if len(text) + len(self.right) > _LINE:
            return [*lines, ("", style, self.right)]
        return [*lines[:-1], (text, style, self.right)]

    @property
    def height(self) -> int:
        """Pixels it takes."""
        return _TEXT * len(self.texts) + 25


@dataclass(frozen=True)
class Chart:
    """Rows over one scale; ``lines`` stand vertically in all of them: position, CSS class."""

    rows: Sequence[Row]
    scale: Axis
    x_title: str
    lines: Sequence[tuple[float, str]] = ()

    def svg(self, key: str, title: str, desc: str) -> Markup:
        """Draw it."""
        parts: list[Markup] = []
        ticks = self.scale.labels(_PHONE)
        lines = [*((tick, "gridline") for tick in ticks), *self.lines]
        y = 0
        for row in self.rows:
            parts += _row(row, self.scale, y, lines)
            y += row.height
        for tick, text in ticks.items():
            anchor = self.scale.anchor(tick, text, _PHONE)
            parts.append(tag("text", text, x=_at(self.scale, tick), y=y + 14, text_anchor=anchor, class_="tick"))
        for line in wrapped(self.x_title, _LINE + 5):  # its font is smaller
            parts.append(tag("text", line, x="50%", y=y + 32, text_anchor="middle", class_="axis-title"))
            y += 15
        return picture(key, title, desc, *parts, width="100%", height=y + 23, class_="rows")


def _row(row: Row, scale: Axis, top: int, lines: Sequence[tuple[float, str]]) -> list[Markup]:
    """Draw the texts, and below them the lines and the marks: no line runs through a text."""
    parts = []
    for i, (text, style, right) in enumerate(row.texts, 1):
        y = top + _TEXT * i - 2
        parts += [tag("text", text, x="0", y=y, class_=style)] if text else []
        parts += [tag("text", right, x="100%", y=y, text_anchor="end", class_="row-value")] if right else []
    start, end = top + row.height - 21, top + row.height
    parts += [tag("line", x1=_at(scale, x), x2=_at(scale, x), y1=start, y2=end, class_=style) for x, style in lines]
    return parts + [_mark(mark, scale, start + 8) for mark in row.marks if numbers.known(mark.x)]


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
    gains = [
        (listed([reading.title(a.name) for a in same]), listed([a.role for a in same]), same[0].interval)
        for same in once(planned.against)
    ]
    decimals = numbers.decimals_for(gain for *_, gain in gains)
    rows = [
        Row(
            f"against {name}",
            numbers.interval(gain, decimals, sign=True),
            (Mark("span", gain.low, "accent", gain.high), Mark("dot", gain.value, "accent")),
            sub=role,
        )
        for name, role, gain in gains
    ]
    lines = [(0.0, "zero")]
    legend = [("accent", "its 95% interval"), ("cut zero", "no change")]
    if worthwhile:
        lines.append((worthwhile, "worthwhile"))
        legend.append(("cut worthwhile", f"worthwhile: {numbers.signed(worthwhile)}{reading.unit}"))
    title = f"{reading.gain_title} by {reading.title(planned.candidate)}"
    desc = "; ".join(f"against {name} {numbers.interval(gain, decimals, sign=True)}" for name, _, gain in gains)
    unit = f", {metric.unit}" if metric.unit else ""
    x_title = f"{inside(reading.gain_title)}{unit} (right of zero is better)"
    scale = axis([0.0, worthwhile, *(v for *_, gain in gains for v in _ends(gain))], want=5, pad=0.06)
    chart = Chart(rows, scale, x_title, lines)
    return Figure(
        title,
        desc,
        chart.svg("gain", title, desc),
        ("against", "role", "gain", "low", "high"),
        tuple((name, role, *_fixed(gain, decimals, sign=True)) for name, role, gain in gains),
        tuple(legend),
    )


def _ends(score: Interval) -> tuple[float, float, float]:
    return score.value, score.low, score.high


def _fixed(score: Interval, decimals: int, *, sign: bool = False) -> tuple[str, ...]:
    return tuple(numbers.fixed(value, decimals, sign=sign) for value in _ends(score))


def gaps(reading: Reading) -> Figure:
    """Draw each candidate's train, valid and holdout scores on one line; its length is the overfit gap."""
    metric = reading.metric
    rows, table, values = [], [], []
    decimals = numbers.decimals_for(reading.score(c.name, part) for c in reading.scored for part in PARTS)
    for c in reading.by_kind:
        train, valid, holdout = (s.value if (s := reading.score(c.name, part)) else None for part in PARTS)
        values += [train, valid, holdout]
        marks = (
            Mark("bar", train if holdout is not None else None, "gap", holdout),
            Mark("ring", train, "train"),
            Mark("tick", valid, "valid"),
            Mark("dot", holdout, "holdout"),
        )
        gap = f"gap {numbers.fixed(c.overfit_gap, decimals, sign=True)}"
        rows.append(Row(c.title, gap, marks, strong=c is reading.champion))
        scores = (numbers.fixed(v, decimals) for v in (train, valid, holdout))
        table.append((c.title, *scores, numbers.fixed(c.overfit_gap, decimals, sign=True)))
    title = f"{metric.title} on train, valid and holdout, by candidate"
    desc = "; ".join(f"{name}: train {t}, holdout {h}, gap {g}" for name, t, _, h, g in table)
    better = "higher" if metric.greater_is_better else "lower"
    unit = f", {metric.unit}" if metric.unit else ""
    chart = Chart(rows, axis(values, want=5), f"{metric.title}{unit} ({better} is better)")
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
    drops = [(reading.column(c.name), Interval(c.drop, c.low, c.high)) for c in block.columns]
    shown = drops[:MOST_COLUMNS]
    decimals = numbers.decimals_for(drop for _, drop in shown[:8])
    rows = [
        Row(
            name,
            numbers.interval(drop, decimals),
            (
                Mark("bar", 0.0, "accent" if drop.low > 0 else "faint", drop.value),
                Mark("span", drop.low, "thin", drop.high),
                Mark("tick", drop.value, "thin"),
            ),
        )
        for name, drop in shown
    ]
    title = f"{reading.loss_title} when a column is shuffled"
    desc = "Strongest first: " + "; ".join(f"{name} {numbers.interval(drop, decimals)}" for name, drop in shown[:5])
    hidden = len(drops) - len(shown)
    scale = axis([0.0, *(v for _, drop in shown for v in _ends(drop))])
    unit = f", {reading.metric.unit}" if reading.metric.unit else ""
    chart = Chart(rows, scale, f"{inside(reading.loss_title)}{unit}", [(0.0, "zero")])
    return Figure(
        title,
        desc,
        chart.svg("importance", title, desc),
        ("column", "name in the data", inside(reading.loss_title), "low", "high"),
        tuple((name, c.name, *_fixed(drop, decimals)) for c, (name, drop) in zip(block.columns, drops, strict=True)),
        (("bar accent", "above zero"), ("bar faint", "perhaps nothing"), ("span thin", "95% interval")),
        f"{hidden} weaker columns are in the data table only." if hidden else "",
    )
