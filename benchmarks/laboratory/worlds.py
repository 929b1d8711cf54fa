"""Populations that can be drawn from without end, and whose rows tell the probability of each answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.special import expit, softmax

Floats = npt.NDArray[np.float64]
Span = tuple[float, float]
"""From where to where a number is drawn, evenly, once per world."""

COLUMNS = 12
HEAVY = 1.2
"""Spread of the logarithm of heavy-tailed errors."""


@dataclass(frozen=True)
class Later:
    """What is otherwise for the rows held out in time than for those before, and stays so for fresh rows.

    Attributes
    ----------
    moved
        By how many standard deviations each column is moved, in a direction of its own.
    offset
        Added to the score: another share of positives.
    turned
        How far the relation turns: 0 not at all, 1 to an unrelated one.
    """

    moved: float = 0.0
    offset: float = 0.0
    turned: float = 0.0


@dataclass(frozen=True)
class Kind:
    """What worlds are drawn like.

    Attributes
    ----------
    signal
        Standard deviation of the score that columns tell; 0 is noise.
    distance
        How far the source's relation lies from the target's: 0 the same, 1 unrelated, 2 the opposite.
    novelty
        Weight of what only the target's rows know: a step in a column that means nothing in the source.
    moved
        By how many standard deviations the source's columns are moved.
    blind
        Share of the target's rows of a sort that the source has none of, and for which the relation is reversed.
    rate
        Share of positives.
    shared
        Standard deviation of an error that all rows of a group, or day, have in common.
    of_group
        Rows of a group, or of a day.
    in_time
        Rows have a day, and the split is in time.
    """

    task: Literal["binary", "multiclass", "regression"] = "binary"
    signal: Span = (0.8, 1.8)
    distance: Span = (0.0, 0.0)
    novelty: Span = (0.0, 0.0)
    moved: float = 0.0
    blind: float = 0.0
    rate: float = 0.4
    n_classes: int = 2
    heavy: bool = False
    shared: float = 0.0
    of_group: int = 0
    in_time: bool = False
    later: Later = Later()


@dataclass(frozen=True)
class Rows:
    """Rows of a population: the columns, and what may be answered to each with which weight.

    Attributes
    ----------
    answers, weights
        (n_rows, n_answers): class indices and their probabilities; for numbers, the mean less and plus a standard
        deviation, which give every squared error its true mean.
    """

    frame: pl.DataFrame
    answers: Floats
    weights: Floats


class World:
    """One population, with all that is random about it drawn once."""

    def __init__(self, kind: Kind, rng: np.random.Generator) -> None:
        self.kind = kind
        k = kind.n_classes if kind.task == "multiclass" else 1

        def relation() -> Floats:
            drawn = rng.normal(size=(COLUMNS, k))
            return drawn / np.linalg.norm(drawn, axis=0)

        self.signal, distance = rng.uniform(*kind.signal), rng.uniform(*kind.distance)
        self.novelty, self.bend = rng.uniform(*kind.novelty), rng.uniform(0.0, 0.6)
        self.own = relation()
        unrelated = relation()
        nearer = (self.own, unrelated, distance) if distance <= 1 else (unrelated, -self.own, distance - 1)
        self.other = _between(*nearer)
        self.turned = _between(self.own, relation(), kind.later.turned)
        self.toward = rng.choice([-1.0, 1.0], COLUMNS)
        self.offset = 0.0
        if kind.task == "binary":
            self.offset = _offset_for(kind.rate, self._score(self._columns(20_000, rng), self.own)[:, 0])

    def table(self, n_rows: int, held_out: float, rng: np.random.Generator, first: int = 0) -> pl.DataFrame:
        """Return a labelled table, its groups or days numbered from ``first``; its last ``held_out`` rows are of later."""
        kind = self.kind
        n_late = round(n_rows * held_out) if kind.later != Later() else 0
        parts = [self._rows(n_rows - n_late, rng, first=first)]
        if n_late:
            parts.append(self._rows(n_late, rng, later=True, first=first + n_rows))
        return pl.concat([labelled(part, kind, rng) for part in parts])

    def source(self, n_rows: int, rng: np.random.Generator) -> pl.DataFrame:
        """Return a labelled table of another population, related to this one."""
        x = self._columns(n_rows, rng) + self.kind.moved * self.toward
        if self.kind.blind:
            x[:, 0] = -1.0
        score = self._score(x, self.other, source=True)
        return labelled(self._told(x, score, None), replace(self.kind, in_time=False, of_group=0), rng)

    def fresh(self, n_rows: int, rng: np.random.Generator) -> Rows:
        """Return rows like those held out, of groups and days that nobody has seen."""
        return self._rows(n_rows, rng, later=True, first=10**7)

    def _rows(self, n_rows: int, rng: np.random.Generator, *, later: bool = False, first: int) -> Rows:
        kind, change = self.kind, self.kind.later if later else Later()
        x = self._columns(n_rows, rng) + change.moved * self.toward
        unit = np.arange(n_rows) // max(1, kind.of_group)
        common = kind.shared * rng.normal(size=unit[-1] + 1)[unit]
        if kind.of_group and not kind.in_time:
            x += 0.7 * rng.normal(size=(unit[-1] + 1, COLUMNS))[unit]
        score = self._score(x, self.turned if later else self.own) + (common + change.offset)[:, None]
        return self._told(x, score, unit + first)

    def _columns(self, n_rows: int, rng: np.random.Generator) -> Floats:
        x = rng.normal(size=(n_rows, COLUMNS))
        if self.kind.blind:
            x[:, 0] = np.where(rng.random(n_rows) < self.kind.blind, 1.0, -1.0)
        return x

    def _score(self, x: Floats, relation: Floats, *, source: bool = False) -> Floats:
        told = x @ relation + self.bend * (x[:, 1] * x[:, 2])[:, None]
        if self.kind.blind:
            told = np.where(x[:, [0]] > 0, -told, told)
        step = 0.0 if source else self.novelty * np.sign(x[:, [COLUMNS - 1]])
        return self.signal * told + step

    def _told(self, x: Floats, score: Floats, unit: npt.NDArray[np.int64] | None) -> Rows:
        kind = self.kind
        if kind.task == "regression":
            answers = np.hstack([score - 1.0, score + 1.0])
            weights = np.full_like(answers, 0.5)
        else:
            up = expit(score + self.offset)
            weights = softmax(score, axis=1) if kind.task == "multiclass" else np.hstack([1.0 - up, up])
            answers = np.tile(np.arange(weights.shape[1], dtype=float), (len(x), 1))
        frame = pl.DataFrame(x, schema=[f"x{i}" for i in range(COLUMNS)])
        if unit is not None and kind.in_time:
            frame = frame.with_columns(day=pl.Series(unit))
        elif unit is not None and kind.of_group:
            frame = frame.with_columns(team=pl.Series(unit).cast(pl.String))
        return Rows(frame, answers, weights)


def labelled(rows: Rows, kind: Kind, rng: np.random.Generator) -> pl.DataFrame:
    """Return rows with an answer drawn for each."""
    if kind.task == "regression":
        error = rng.normal(size=len(rows.answers))
        if kind.heavy:
            grown = np.exp(HEAVY * error)
            error = (grown - np.exp(HEAVY**2 / 2)) / np.sqrt(np.expm1(HEAVY**2) * np.exp(HEAVY**2))
        return rows.frame.with_columns(y=pl.Series(rows.answers.mean(axis=1) + error))
    chosen = (rng.random((len(rows.weights), 1)) > rows.weights.cumsum(axis=1)[:, :-1]).sum(axis=1)
    return rows.frame.with_columns(y=pl.Series([f"c{k}" for k in chosen]))


def _between(a: Floats, b: Floats, share: float) -> Floats:
    """Return the direction that lies ``share`` of the way from a to b."""
    mixed = (1.0 - share) * a + share * b
    return mixed / np.linalg.norm(mixed, axis=0)


def _offset_for(rate: float, score: Floats) -> float:
    """Return what makes so large a share of rows positive, by halving."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(score + middle).mean() < rate else (low, middle)
    return low
