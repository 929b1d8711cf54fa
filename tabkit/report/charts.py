"""The small charts with two axes that every task may have: learning curves, and scores by number of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tabkit.report.numbers import known, number, whole
from tabkit.report.pieces import Figure
from tabkit.report.reading import Reading
from tabkit.report.svg import Axis, Frame, Series, axis, tag
from tabkit.result import CandidateFacts, Step
from tabkit.result.tables import Curve

_MOST_STEPS = 60
_MOST_TABLE_ROWS = 25


def learning(key: str, candidate: CandidateFacts) -> Figure:
    """Draw a candidate's loss by epoch or tree; the untouched base, the stages and the best step are marked."""
    history = candidate.history
    best = min(history, key=lambda h: h.valid_loss if known(h.valid_loss) else math.inf)
    stages = _stages(history)
    trained = [s for s in stages if s[0] > 0] or stages
    # Every step a setting of its own: settings tried, not time. With two or three of them, only if there is no step 0.
    contest = len(stages) > max(3, len(history) // 2) or (history[0].step > 0 and len(stages) == len(history))
    adapted = candidate.kind == "adapted" and history[0].step == 0
    thin = [history[i] for i in _spread(len(history), _MOST_STEPS, history.index(best))]
    frame = Frame(
        axis([float(h.step) for h in history], pad=0.02),
        _clipped([loss for h in history for loss in (h.train_loss, h.valid_loss)], best.valid_loss),
        _step_name(candidate, contest=contest),
        "loss",
    )
    layers = []
    if not contest:
        # Names would hide the curves: stages are numbered in the picture and named in the note below it.
        layers += [frame.vertical(float(step), "stage", str(i)) for i, (step, _) in enumerate(trained, 1) if i > 1]
    x, top = [float(h.step) for h in thin], frame.y.high
    for name, style in (("train_loss", "s-muted"), ("valid_loss", "s-adapted")):
        y = [_cut(getattr(h, name), top) for h in thin]
        layers += [frame.line(Series(name, x, y, style, dots=contest))] if any(known(v) for v in y) else []
    first = _cut(history[0].valid_loss, top)
    if adapted and known(first):
        layers.append(tag("circle", cx=frame.px(0.0), cy=frame.py(first), r=5, class_="ring s-base"))
    if known(best.valid_loss):
        spot = {"cx": frame.px(float(best.step)), "cy": frame.py(best.valid_loss)}
        layers.append(tag("circle", **spot, r=4, class_="dot s-adapted"))
    title = f"Loss by step: {candidate.title}"
    note = _learning_note(history, best, adapted=adapted, contest=contest)
    if len(trained) > 1 and not contest:
        note += f" Stages: {'; '.join(f'{i} {name}' for i, (_, name) in enumerate(trained, 1))}."
    few = [thin[i] for i in _spread(len(thin), _MOST_TABLE_ROWS, thin.index(best))]
    return Figure(
        title,
        note,
        frame.svg(key, title, note, *layers),
        ("step", "train loss", "valid loss", "stage"),
        tuple((whole(h.step), number(h.train_loss, 4), number(h.valid_loss, 4), h.stage) for h in few),
        _learning_legend(history, adapted=adapted),
        note,
    )


def _learning_legend(history: Sequence[Step], *, adapted: bool) -> tuple[tuple[str, str], ...]:
    entries = {
        "line s-muted": ("train", any(known(h.train_loss) for h in history)),
        "line s-adapted": ("valid", True),
        "ring s-base": ("untouched base", adapted),
        "dot s-adapted": ("lowest on valid", True),
    }
    return tuple((style, text) for style, (text, shown) in entries.items() if shown)


def _learning_note(history: Sequence[Step], best: Step, *, adapted: bool, contest: bool) -> str:
    last, loss = history[-1].step, number(best.valid_loss, 4)
    if contest:
        return f"Each step is a setting tried; '{best.stage or f'step {best.step}'}' was best on valid (loss {loss})."
    if adapted and best.step == 0:
        return f"No step of {last} beat the untouched base on valid (loss {loss})."
    return f"Lowest valid loss {loss} at step {best.step:,} of {last:,}."


def _stages(history: Sequence[Step]) -> list[tuple[int, str]]:
    """Return each stage with the step at which it begins."""
    out: list[tuple[int, str]] = []
    for h in history:
        if not out or h.stage != out[-1][1]:
            out.append((h.step, h.stage))
    return out


def _step_name(candidate: CandidateFacts, *, contest: bool) -> str:
    if contest:
        return "setting tried"
    names = {b.name for b in candidate.proof}
    return "trees" if any("tree" in n or n in ("leaves", "splits") for n in names) else "epoch"


def _spread(n: int, most: int, best: int) -> list[int]:
    """Return at most ``most`` evenly spread indices of ``n``, and the best one."""
    if n <= most:
        return list(range(n))
    return sorted({*np.linspace(0, n - 1, most).round().astype(int).tolist(), best})


def _clipped(losses: Iterable[float | None], best: float) -> Axis:
    """Return the loss axis; one wild step does not flatten all others."""
    seen = sorted(v for v in losses if known(v))
    if len(seen) > 10 and known(best) and seen[-1] > 4 * (seen[int(0.9 * (len(seen) - 1))]):
        return axis([seen[0], seen[int(0.9 * (len(seen) - 1))]])
    return axis(seen)


def _cut(value: float | None, top: float) -> float | None:
    return min(value, top) if known(value) else None


def by_rows(reading: Reading, curve: Curve) -> Figure:
    """Draw the valid score by number of train rows."""
    metric = reading.result.metrics.get(curve.metric, reading.metric)
    x = [float(p.rows) for p in curve.points]
    names = list(dict.fromkeys(name for p in curve.points for name in p.scores))
    values = {n: [p.scores.get(n) for p in curve.points] for n in names}
    frame = Frame(
        axis(x, want=3, pad=0.05),
        axis([v for scores in values.values() for v in scores], pad=0.1),
        "train rows",
        f"{metric.title} on valid",
    )
    styles = {n: f"s-{reading.styles.get(n, 'champion')}" for n in names}
    lines = [frame.line(Series(n, x, values[n], styles[n], dots=True)) for n in names]
    title = f"{metric.title} on valid by number of train rows"
    defined = {n: [v for v in values[n] if known(v)] for n in names}
    desc = "; ".join(f"{reading.title(n)} from {number(v[0])} to {number(v[-1])}" for n, v in defined.items() if v)
    return Figure(
        title,
        desc,
        frame.svg("by-rows", title, desc, *lines, x_labels={v: f"{v:,.0f}" for v in x} if len(x) < 6 else None),
        ("train rows", *(reading.title(n) for n in names)),
        tuple((whole(p.rows), *(number(p.scores.get(n), 4) for n in names)) for p in curve.points),
        tuple((f"line {styles[n]}", reading.title(n)) for n in names),
    )
