"""Accessible SVG by hand: escaped by construction, coloured by CSS variables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup, escape

from tabkit.report.numbers import scientific, shortened


def tag(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """Return an element; attributes and text are escaped, ``Markup`` children are not.

    >>> tag("text", "<b>", x=1, class_="a")
    Markup('<text x="1" class="a">&lt;b&gt;</text>')
    >>> tag("line", class_='"><script>')
    Markup('<line class="&#34;&gt;&lt;script&gt;"/>')
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(children)
    return Markup(f"<{name}{pairs}>{inside}</{name}>") if children else Markup(f"<{name}{pairs}/>")


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def picture(key: str, title: str, desc: str, *children: Markup, **attributes: object) -> Markup:
    """Return an ``svg`` with an accessible name; ``key`` makes its ids unique on the page."""
    return tag(
        "svg",
        tag("title", title, id=f"{key}-t"),
        tag("desc", desc, id=f"{key}-d"),
        *children,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
        **attributes,
    )


@dataclass(frozen=True)
class Axis:
    """A linear scale with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Return where ``value`` lies, 0 to 1."""
        return (value - self.low) / (self.high - self.low)

    def label(self, tick: float) -> str:
        """Return a tick's text, with the decimals that the step needs."""
        if tick == 0:
            return "0"
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick)
        last = math.floor(math.log10(step) + 1e-9)
        digits = max(2, math.floor(math.log10(abs(tick))) - last + 1)
        # Ten to a power if the tick would be long, unless that too needs every digit to tell it from the next.
        if last < -5 or (abs(tick) >= 1e7 and digits <= 4):
            return scientific(tick, digits)
        return f"{tick:,.{max(0, -last)}f}".replace("-", "−")

    def labels(self, room: float) -> dict[float, str]:
        """Return the ticks with their texts, only every second or fifth if ``room`` pixels would not hold all side by side."""
        texts = {tick: self.label(tick) for tick in self.ticks}
        if len(texts) < 2:
            return texts
        step = self.ticks[1] - self.ticks[0]
        needed = 1.25 * CHARACTER * max(map(len, texts.values())) + 8
        every = next((k for k in (1, 2, 5, 10) if k * step / (self.high - self.low) * room >= needed), 20)
        return {tick: text for tick, text in texts.items() if round(tick / step) % every == 0} or texts

    def anchor(self, tick: float, text: str, room: float) -> str:
        """Return how a tick's text is anchored, so that it ends inside the picture."""
        share, half = self.at(tick), len(text) * CHARACTER / 2 / room
        return "start" if share < half - 0.02 else "end" if share > 1.02 - half else "middle"


def axis(
    values: Iterable[float | None], want: int = 4, pad: float = 0.04, limits: tuple[float, float] | None = None
) -> Axis:
    """Return an axis that holds ``values`` with some air, and about ``want`` ticks.

    >>> axis([0.61, 0.96]).ticks
    (0.6, 0.7, 0.8, 0.9)
    >>> axis([1e-12, 6e-12]).ticks, axis([0.0, 0.0]).ticks
    ((2e-12, 4e-12, 6e-12), (-1.0, -0.5, 0.0, 0.5, 1.0))
    """
    finite = [v for v in values if v is not None and math.isfinite(v)]
    low, high = limits or ((min(finite), max(finite)) if finite else (0.0, 1.0))
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    if limits is None:
        low, high = low - pad * (high - low), high + pad * (high - low)
    step = _round_step(high - low, want)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # To twelve digits, not decimals: of ticks of 1e-13 no decimal would be left.
    return Axis(low, high, tuple(float(f"{i * step:.12g}") for i in range(first, last + 1)))


def _round_step(reach: float, want: int) -> float:
    unit = 10.0 ** math.floor(math.log10(reach / want))
    return min((m * unit for m in (1, 2, 5, 10)), key=lambda step: abs(reach / step - want))


@dataclass(frozen=True)
class Series:
    """One line of a chart; ``style`` is a CSS class that sets colour and dashes."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: str
    dots: bool = False


CHARACTER = 7.4
"""Pixels that a character of a chart's text takes on average, in a wide font."""
WIDTH, HEIGHT = 360.0, 268.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 12.0, 26.0, 42.0
_MOST_TITLE = int(WIDTH / CHARACTER) - 2


@dataclass(frozen=True)
class Frame:
    """The plot area of a small chart with two axes, in units of a 360 by 268 view box."""

    x: Axis
    y: Axis
    x_title: str
    y_title: str

    @cached_property
    def left(self) -> float:
        """Where the plot begins: behind the longest text of the vertical axis."""
        return max(_LEFT, 10 + CHARACTER * max((len(self.y.label(tick)) for tick in self.y.ticks), default=0))

    def px(self, value: float) -> float:
        """Return a horizontal position."""
        return round(self.left + self.x.at(value) * (WIDTH - self.left - _RIGHT), 1)

    def py(self, value: float) -> float:
        """Return a vertical position."""
        return round(HEIGHT - _BOTTOM - self.y.at(value) * (HEIGHT - _TOP - _BOTTOM), 1)

    def axes(self, x_labels: dict[float, str] | None = None) -> Markup:
        """Draw grid, ticks and titles."""
        parts = []
        for tick in self.y.ticks:
            y = self.py(tick)
            parts.append(tag("line", x1=self.left, x2=WIDTH - _RIGHT, y1=y, y2=y, class_="gridline"))
            parts.append(tag("text", self.y.label(tick), x=self.left - 6, y=y + 3.5, text_anchor="end", class_="tick"))
        base, room = HEIGHT - _BOTTOM, WIDTH - self.left - _RIGHT
        for tick, text in (self._apart(x_labels) if x_labels else self.x.labels(room)).items():
            x, anchor = self.px(tick), self.x.anchor(tick, text, room)
            parts.append(tag("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
            parts.append(tag("text", text, x=x, y=base + 16, text_anchor=anchor, class_="tick"))
        parts.append(tag("line", x1=self.left, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
        x_title, y_title = (shortened(title, _MOST_TITLE) for title in (self.x_title, self.y_title))
        middle = min((self.left + WIDTH - _RIGHT) / 2, WIDTH - len(x_title) * CHARACTER / 2)
        parts.append(tag("text", x_title, x=middle, y=HEIGHT - 6, text_anchor="middle", class_="axis-title"))
        parts.append(tag("text", y_title, x=2, y=10, class_="axis-title"))
        return Markup("").join(parts)

    def _apart(self, labels: dict[float, str]) -> dict[float, str]:
        """Return the labels that do not touch, the last and the first among them if they do not."""
        kept: dict[float, str] = {}
        for tick in sorted(labels, reverse=True):
            width = CHARACTER * len(labels[tick]) + 8
            if all(abs(self.px(tick) - self.px(other)) > width for other in kept):
                kept[tick] = labels[tick]
        return kept

    def line(self, series: Series) -> Markup:
        """Draw a series; a missing value breaks the line."""
        path, pen_down = [], False
        for x, y in zip(series.x, series.y, strict=True):
            if y is None or not math.isfinite(y):
                pen_down = False
                continue
            path.append(f"{'L' if pen_down else 'M'}{_plain(self.px(x))} {_plain(self.py(y))}")
            pen_down = True
        drawn = [tag("path", d="".join(path), class_=f"line {series.style}")]
        if series.dots:
            drawn += [
                tag("circle", cx=self.px(x), cy=self.py(y), r=3, class_=f"dot {series.style}")
                for x, y in zip(series.x, series.y, strict=True)
                if y is not None and math.isfinite(y)
            ]
        return Markup("").join(drawn)

    def points(self, x: Sequence[float], y: Sequence[float], style: str) -> Markup:
        """Draw many points as one path of round caps: ten bytes a point."""
        path = "".join(f"M{_plain(self.px(a))} {_plain(self.py(b))}h0" for a, b in zip(x, y, strict=True))
        return tag("path", d=path, class_=f"points {style}")

    def vertical(self, x: float, style: str, label: str = "") -> Markup:
        """Draw a vertical line over the plot, with a label at its top."""
        at = self.px(x)
        line = tag("line", x1=at, x2=at, y1=_TOP, y2=HEIGHT - _BOTTOM, class_=style)
        if not label:
            return line
        right = at > 0.7 * WIDTH
        text = tag(
            "text",
            label,
            x=at + (-4 if right else 4),
            y=_TOP + 9,
            text_anchor="end" if right else "start",
            class_="mark-label",
        )
        return line + text

    def segment(self, x: tuple[float, float], y: tuple[float, float], style: str) -> Markup:
        """Draw a straight line between two points."""
        return tag("line", x1=self.px(x[0]), x2=self.px(x[1]), y1=self.py(y[0]), y2=self.py(y[1]), class_=style)

    def svg(self, key: str, title: str, desc: str, *layers: Markup, x_labels: dict[float, str] | None = None) -> Markup:
        """Put axes and layers together."""
        return picture(
            key, title, desc, self.axes(x_labels), *layers, viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", class_="chart"
        )


def heading(text: str) -> Markup:
    """Return a heading within a section."""
    return tag("h3", text)


def aside(text: str) -> Markup:
    """Return a quiet paragraph."""
    return tag("p", text, class_="aside")
