"""Charts of one row per thing: a label, a number, and marks on a common scale below them.

Positions are percentages and text is in pixels, so that a phone shows the same chart narrower, not smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tabkit.errors import inside
from tabkit.report import numbers
from tabkit.report.svg import Axis, Figure, axis, picture, tag

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


def chart(
    key: str,
    title: str,
    desc: str,
    rows: Sequence[Row],
    scale: Axis,
    lines: Sequence[tuple[float, str, str]],
    x_title: str,
) -> Markup:
    """Draw the rows over one scale.

    Parameters
    ----------
    lines
        Vertical lines over all rows: position, CSS class, label.
    """
    parts: list[Markup] = []
    top = 16 if any(label for _, _, label in lines) else 4
    height = {False: 42, True: 62}
    bottom = top + sum(height[bool(r.sub)] for r in rows)
    for tick in scale.ticks:
        x = _at(scale, tick)
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="gridline"))
        parts.append(tag("text", scale.label(tick), x=x, y=bottom + 16, text_anchor="middle", class_="tick"))
    for value, style, label in lines:
        x = _at(scale, value)
        parts.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_=style))
        if label:
            anchor = "end" if scale.at(value) > 0.5 else "start"
            parts.append(tag("text", label, x=x, y=10, text_anchor=anchor, class_="mark-label"))
    y = top
    for row in rows:
        line = y + 15
        parts.append(tag("text", row.label, x="0", y=line, class_="row-label strong" if row.strong else "row-label"))
        if row.sub:
            line += 17
            parts.append(tag("text", row.sub, x="0", y=line, class_="row-sub"))
        parts.append(tag("text", row.right, x="100%", y=line, text_anchor="end", class_="row-value"))
        parts += [_mark(mark, scale, line + 14) for mark in row.marks if mark.x is not None]
        y += height[bool(row.sub)]
    parts.append(tag("text", x_title, x="50%", y=bottom + 34, text_anchor="middle", class_="axis-title"))
    return picture(key, title, desc, *parts, width="100%", height=bottom + 40, class_="rows")


def _at(scale: Axis, value: float) -> str:
    inside = min(1.0, max(0.0, scale.at(value)))
    return f"{_MARGIN + inside * (100 - 2 * _MARGIN):.2f}%"


def _mark(mark: Mark, scale: Axis, y: int) -> Markup:
    assert mark.x is not None
    x = _at(scale, mark.x)
    match mark.shape:
        case "span":
            return tag(
                "line",
                x1=x,
                x2=_at(scale, mark.to if mark.to is not None else mark.x),
                y1=y,
                y2=y,
                class_=f"span {mark.style}",
            )
        case "bar":
            return tag(
                "line",
                x1=x,
                x2=_at(scale, mark.to if mark.to is not None else mark.x),
                y1=y,
                y2=y,
                class_=f"bar {mark.style}",
            )
        case "tick":
            return tag("line", x1=x, x2=x, y1=y - 6, y2=y + 6, class_=f"cut {mark.style}")
        case "ring":
            return tag("circle", cx=x, cy=y, r=5, class_=f"ring {mark.style}")
        case _:
            return tag("circle", cx=x, cy=y, r=5, class_=f"dot {mark.style}")


def gains(
    key: str, planned: dict[str, Any], titles: dict[str, str], metric: dict[str, Any], worthwhile: float
) -> Figure:
    """Draw the planned comparison: gains with intervals, the zero line, the worthwhile line."""
    against = planned["against"]
    scale = axis([0.0, worthwhile, *(a[k] for a in against for k in ("gain", "low", "high"))], want=5, pad=0.06)
    decimals = numbers.decimals_for([{"value": a["gain"], "low": a["low"], "high": a["high"]} for a in against])
    rows = [
        Row(
            numbers.shortened(f"against {titles.get(a['name'], a['name'])}", 46),
            numbers.interval(a, decimals, "gain", sign=True),
            (Mark("span", a["low"], "accent", a["high"]), Mark("dot", a["gain"], "accent")),
            sub=numbers.shortened(a["role"], 28),
        )
        for a in against
    ]
    lines = [(0.0, "zero", "")]
    if worthwhile:
        lines.append((worthwhile, "worthwhile", f"worthwhile: {numbers.signed(worthwhile)}"))
    title = f"Gain of {titles.get(planned['candidate'], planned['candidate'])} in {inside(metric['title'])}"
    desc = "; ".join(
        f"against {titles.get(a['name'], a['name'])} {numbers.interval(a, decimals, 'gain', sign=True)}"
        for a in against
    )
    table = tuple(
        (
            titles.get(a["name"], a["name"]),
            a["role"],
            numbers.fixed(a["gain"], decimals, True),
            numbers.fixed(a["low"], decimals, True),
            numbers.fixed(a["high"], decimals, True),
        )
        for a in against
    )
    unit = f", {metric['unit']}" if metric["unit"] else ""
    svg = chart(
        key, title, desc, rows, scale, lines, f"gain in {inside(metric['title'])}{unit} (right of zero is better)"
    )
    return Figure(
        title, desc, svg, ("against", "role", "gain", "low", "high"), table, (("accent", "gain and its 95% interval"),)
    )


def gaps(key: str, candidates: list[dict[str, Any]], primary: str, metric: dict[str, Any], champion: str) -> Figure:
    """Draw train, valid and holdout scores of each candidate on one line: how long it is, is the overfit gap."""
    at = {
        c["name"]: {part: (c["scores"].get(part, {}).get(primary) or {}).get("value") for part in _PARTS}
        for c in candidates
    }
    scale = axis([v for parts in at.values() for v in parts.values()], want=5)
    rows, table = [], []
    for c in candidates:
        a = at[c["name"]]
        strong = c["name"] == champion
        marks = (
            Mark("bar", a["train"] if a["holdout"] is not None else None, "gap", a["holdout"]),
            Mark("ring", a["train"], "train"),
            Mark("tick", a["valid"], "valid"),
            Mark("dot", a["holdout"], "holdout"),
        )
        label = numbers.shortened(c["title"], 32)
        rows.append(Row(label, f"gap {numbers.signed(c['overfit_gap'], 2)}", marks, strong=strong))
        table.append((c["title"], *(numbers.number(a[p], 4) for p in _PARTS), numbers.signed(c["overfit_gap"])))
    title = f"{metric['title']} on train, valid and holdout, by candidate"
    better = "higher" if metric["greater_is_better"] else "lower"
    desc = "; ".join(f"{name}: train {t}, holdout {h}, gap {g}" for name, t, _, h, g in table)
    svg = chart(key, title, desc, rows, scale, (), f"{metric['title']} ({better} is better)")
    legend = (("ring train", "train"), ("cut valid", "valid"), ("dot holdout", "holdout"))
    return Figure(
        title,
        desc,
        svg,
        ("candidate", "train", "valid", "holdout", "overfit gap"),
        tuple(table),
        legend,
        "The champion is in bold.",
    )


_PARTS = ("train", "valid", "holdout")


def importance(key: str, columns: list[dict[str, Any]], metric: dict[str, Any]) -> Figure:
    """Draw how much the metric suffers when a column is shuffled, strongest first."""
    shown = columns[:MOST_COLUMNS]
    scale = axis([0.0, *(c[k] for c in shown for k in ("drop", "low", "high"))])
    decimals = numbers.decimals_for([{"value": c["drop"], "low": c["low"], "high": c["high"]} for c in shown[:8]])
    rows = [
        Row(
            numbers.shortened(c["name"], 26),
            numbers.interval(c, decimals, "drop"),
            (
                Mark("bar", 0.0, "accent" if c["low"] is not None and c["low"] > 0 else "faint", c["drop"]),
                Mark("span", c["low"], "thin", c["high"]),
                Mark("tick", c["drop"], "thin"),
            ),
        )
        for c in shown
    ]
    title = f"Loss in {inside(metric['title'])} when a column is shuffled"
    desc = "Strongest first: " + "; ".join(f"{c['name']} {numbers.interval(c, decimals, 'drop')}" for c in shown[:5])
    table = tuple(
        (
            c["name"],
            numbers.fixed(c["drop"], decimals),
            numbers.fixed(c["low"], decimals),
            numbers.fixed(c["high"], decimals),
        )
        for c in columns
    )
    hidden = len(columns) - len(shown)
    note = f"{hidden} weaker columns are in the data table only." if hidden else ""
    svg = chart(key, title, desc, rows, scale, [(0.0, "zero", "")], f"how much worse {inside(metric['title'])} gets")
    legend = (("bar accent", "above zero"), ("bar faint", "perhaps nothing"), ("span thin", "95% interval"))
    return Figure(title, desc, svg, ("column", "loss", "low", "high"), table, legend, note)
