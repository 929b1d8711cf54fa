"""A search for what gives the target away: a column, whether it is missing, one of many values, two columns together.

Everything is scored on rows that it did not learn from, on a bounded draw of rows, without a model: the mean target of a
bin or a value, from the other folds (target encoding, Micci-Barreca, *SIGKDD Explorations* 2001).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.frames import values_of
from tabkit.data.single import LEAK_SCORE
from tabkit.seed import stream

HONEST, STRONG = 0.90, 0.94
"""ROC AUC (R squared) that an honest column may have by itself, and from which one may be suspected.

Of 23 real tables (``benchmarks/checks.py --real``), one has a column above .94: .942, where all others together reach .971.
"""
Z = 1.2816
"""Beyond the error of an honest column: one of :data:`HONEST` is above it in one draw of ten."""
TIMES = 3.0
"""How many times more all other columns together must err: a strong column of a table that others know too is none."""

MOST_ROWS, MOST_SCREENED, MOST_PAIRS, MOST_CONFIRMED = 4_000, 1_000, 600, 3
FOLDS, LEAST_SEEN = 5, 30
"""Rows of values that other folds have too, from which a column of many values is scored."""

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trace:
    """What may give the target away, the columns it takes, its score alone, and that of all other columns together."""

    says: str
    columns: tuple[str, ...]
    score: float
    others: float


@dataclass(frozen=True)
class Scored:
    """What a way of reading columns scores out of fold, and its predictions (n_rows, targets)."""

    says: str
    columns: tuple[str, ...]
    score: float
    error: float
    """Of the score, if it were :data:`HONEST`."""
    predicted: Floats

    @property
    def suspected(self) -> bool:
        """Whether it is stronger than an honest column, beyond chance."""
        return self.score >= STRONG and self.score - HONEST > Z * self.error


def hidden_leaks(frame: pl.DataFrame, columns: Sequence[str], y: npt.NDArray[np.generic], seed: int) -> list[Trace]:
    """Return what tells the target while everything else hardly does, the strongest first.

    Parameters
    ----------
    frame
        Labelled rows; only ``columns`` are read.
    y
        Class index int64 (n_rows,), or target float64 (n_rows,).

    Returns
    -------
    list of Trace
        Scores are ROC AUC, for classes the mean of one against the rest, or R squared of values or ranks. Two columns
        together are searched among numbers (difference, sum, ratio), and must reach :data:`LEAK_SCORE`, since an honest
        target may well follow two strong columns.
    """
    search = LeakSearch.of(frame, tuple(columns), y, seed)
    best = {column: search.alone(column) for column in columns}
    found = [scored for scored in best.values() if scored.suspected]
    strong = {scored.columns[0] for scored in found}
    found += [s for s in search.pairs() if s.suspected and s.score >= LEAK_SCORE and not strong & {*s.columns}]
    if not found:
        return []
    taken = strong.union(*(s.columns for s in found))
    rest = [scored for name, scored in best.items() if name not in taken]
    others = search.together(rest)
    found.sort(key=lambda s: -s.score)
    return [Trace(s.says, s.columns, s.score, others) for s in found if 1 - others >= TIMES * (1 - s.score)]


@dataclass(frozen=True)
class LeakSearch:
    """Drawn rows, their labels, and the fold of each."""

    frame: pl.DataFrame
    columns: tuple[str, ...]
    y: npt.NDArray[np.generic]
    fold: Codes

    @classmethod
    def of(cls, frame: pl.DataFrame, columns: tuple[str, ...], y: npt.NDArray[np.generic], seed: int) -> LeakSearch:
        """Draw :data:`MOST_ROWS` rows, and their folds."""
        rows = np.sort(stream(seed, "leaks").permutation(frame.height)[:MOST_ROWS])
        return cls(frame[rows], columns, y[rows], stream(seed, "leak folds").integers(FOLDS, size=len(rows)))

    @cached_property
    def targets(self) -> Floats:
        """Return one column a class (of two, the second only); of numbers, the values and their ranks."""
        if self.y.dtype.kind == "f":
            from scipy.stats import rankdata

            return np.column_stack([self.y, rankdata(self.y) / len(self.y)])
        classes = np.unique(self.y)
        return np.column_stack([self.y == k for k in classes[1 if len(classes) == 2 else 0 :]]).astype(np.float64)

    def alone(self, column: str) -> Scored:
        """Score a column by bins, by its values, by its order, by whether it is missing; the best of these counts."""
        ways = list(self._ways(column))
        best, last = max(ways, key=lambda s: s.score), ways[-1]
        # Bins know what is missing too: if that is all, say so.
        return last if last.score >= best.score - 0.01 else best

    def _ways(self, column: str) -> Iterable[Scored]:
        values, named = values_of(self.frame, column), f"'{column}'"
        missing = values.is_null().to_numpy().astype(np.int64)
        if (numbers := _numbers(values)) is not None:
            missing |= ~np.isfinite(numbers)
            yield self.by_code(named, (column,), _bins(numbers))
            yield self.by_order(named, (column,), numbers)
        exact = (values.rank("dense").fill_null(0)).to_numpy().astype(np.int64)
        if numbers is None or exact.max(initial=0) <= len(exact) / 2:
            yield self.by_code(named, (column,), exact)
        if 0 < missing.sum() < len(missing):
            yield self.by_code(f"whether {named} is missing", (column,), missing)

    def by_code(self, says: str, columns: tuple[str, ...], codes: Codes) -> Scored:
        """Score the mean target of each row's code in the other folds, on rows whose code is there."""
        size = int(codes.max(initial=0)) + 1
        at = self.fold * size + codes

        def of_others(weights: Floats | None) -> Floats:
            of_fold = np.bincount(at, weights, FOLDS * size).reshape(FOLDS, size)
            return np.asarray(of_fold.sum(axis=0) - of_fold, dtype=np.float64)

        rows = of_others(None)
        predicted = np.empty_like(self.targets)
        for k in range(self.targets.shape[1]):
            total = of_others(self.targets[:, k])
            mean = total.sum(axis=1, keepdims=True) / np.maximum(rows.sum(axis=1, keepdims=True), 1)
            predicted[:, k] = ((total + mean) / (rows + 1)).ravel()[at]
        seen = rows.ravel()[at] > 0
        return self.scored(says, columns, predicted, seen)

    def by_order(self, says: str, columns: tuple[str, ...], numbers: Floats) -> Scored:
        """Score numbers as they are: nothing is learned but the direction, from all rows."""
        from scipy.stats import rankdata

        known = np.isfinite(numbers)
        order = np.full(len(numbers), 0.5)
        order[known] = rankdata(numbers[known]) / known.sum()
        up = (order - 0.5) @ (self.targets[:, -1] - self.targets[:, -1].mean()) >= 0
        predicted = np.repeat((order if up else 1 - order)[:, None], self.targets.shape[1], axis=1)
        return self.scored(says, columns, predicted, known)

    def scored(self, says: str, columns: tuple[str, ...], predicted: Floats, rows: npt.NDArray[np.bool_]) -> Scored:
        """Score predictions (n_rows, targets) on some rows."""
        targets = self.targets[rows]
        if rows.sum() < LEAST_SEEN:
            return Scored(says, columns, 0.0, math.inf, predicted)
        if self.y.dtype.kind == "f":
            score = max(_r2(targets[:, k], predicted[rows, k]) for k in range(2))
            # Of a correlation, on Fisher's scale; back on that of R squared by its slope at HONEST.
            error = 2 * math.sqrt(HONEST) * (1 - HONEST) / math.sqrt(rows.sum() - 3)
            return Scored(says, columns, score, error, predicted)
        present = [k for k in range(targets.shape[1]) if 0 < targets[:, k].sum() < len(targets)]
        if not present:
            return Scored(says, columns, 0.0, math.inf, predicted)
        score = float(np.mean([_auc(targets[:, k], predicted[rows, k]) for k in present]))
        fewest = min(min(targets[:, k].sum(), len(targets) - targets[:, k].sum()) for k in present)
        return Scored(says, columns, score, _error(int(fewest), int(len(targets) - fewest)), predicted)

    def pairs(self) -> list[Scored]:
        """Score the most promising differences, sums and ratios of two numbers, among the pairs that hang together most."""
        numbers = {c: n for c in self.columns if (n := _numbers(values_of(self.frame, c))) is not None}
        if len(numbers) < 2:
            return []
        few = np.arange(min(len(self.fold), MOST_SCREENED))
        table = _ranks(np.column_stack(list(numbers.values()))[few])
        alike = np.abs(np.corrcoef(table, rowvar=False))
        order = sorted(itertools.combinations(range(len(numbers)), 2), key=lambda ij: -alike[ij])[:MOST_PAIRS]
        columns = list(numbers.items())
        made: list[tuple[str, tuple[str, str], Floats]] = []
        for i, j in order:
            (a, x), (b, z) = columns[i], columns[j]
            with np.errstate(all="ignore"):
                made += [(f"'{a}' {sign} '{b}'", (a, b), v) for sign, v in (("-", x - z), ("+", x + z), ("/", x / z))]
        ranks = _ranks(np.column_stack([values[few] for *_, values in made])) - 0.5
        spread = self.targets[few] - self.targets[few].mean(axis=0)
        promising = np.abs(ranks.T @ spread).max(axis=1) / np.maximum(np.linalg.norm(ranks, axis=0), 1e-12)
        best: dict[tuple[str, ...], Scored] = {}
        for k in np.argsort(-promising, kind="stable")[:MOST_CONFIRMED]:
            says, pair, values = made[k]
            for scored in (self.by_code(says, pair, _bins(values)), self.by_order(says, pair, values)):
                if pair not in best or scored.score > best[pair].score:
                    best[pair] = scored
        return list(best.values())

    def together(self, others: list[Scored]) -> float:
        """Return what a line through other columns' predictions scores, out of fold."""
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.model_selection import cross_val_predict

        if not others:
            return 0.0 if self.y.dtype.kind == "f" else 0.5
        regression = self.y.dtype.kind == "f"
        predicted = np.hstack([s.predicted for s in others])
        if not regression:
            predicted = np.clip(predicted, 0.01, 0.99)
            predicted = np.log(predicted / (1 - predicted))
        predicted = (predicted - predicted.mean(axis=0)) / np.maximum(predicted.std(axis=0), 1e-9)
        if regression:
            line = cross_val_predict(Ridge(10.0), predicted, self.targets, cv=FOLDS)
        else:
            model = LogisticRegression(C=0.1, max_iter=300)
            line = cross_val_predict(model, predicted, self.y, cv=FOLDS, method="predict_proba")
            line = line[:, 1 if line.shape[1] == 2 else 0 :]
        return self.scored("", (), line, np.ones(len(line), dtype=bool)).score


def _numbers(values: pl.Series) -> Floats | None:
    if values.dtype.is_temporal():
        values = values.to_physical()
    elif not values.dtype.is_numeric():
        return None
    return np.asarray(values.cast(pl.Float64).fill_null(math.nan).to_numpy(), dtype=np.float64)


def _bins(numbers: Floats) -> Codes:
    """Return codes of quantile bins, missing apart."""
    known = np.isfinite(numbers)
    n_bins = int(np.clip(known.sum() / 20, 4, 32))
    edges = np.unique(np.quantile(numbers[known], np.linspace(0, 1, n_bins + 1)[1:-1])) if known.any() else np.zeros(0)
    codes = np.searchsorted(edges, numbers, side="left").astype(np.int64)
    codes[~known] = len(edges) + 1
    return codes


def _ranks(table: Floats) -> Floats:
    """Return ranks of each column from 0 to 1, ties in the order of rows; what is unknown lies in the middle."""
    known = np.isfinite(table)
    order = np.argsort(np.where(known, table, np.inf), axis=0, kind="stable")
    ranks = np.empty(table.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, len(table) + 1)[:, None].repeat(table.shape[1], axis=1), axis=0)
    return np.where(known, ranks / np.maximum(known.sum(axis=0), 1), 0.5)


def _auc(truth: Floats, score: Floats) -> float:
    from scipy.stats import rankdata

    positive = truth.sum()
    return float((rankdata(score) @ truth - positive * (positive + 1) / 2) / (positive * (len(truth) - positive)))


def _r2(truth: Floats, predicted: Floats) -> float:
    """Return the squared correlation, which no line through the prediction exceeds."""
    if np.ptp(truth) == 0 or np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(truth, predicted)[0, 1] ** 2)


def _error(positive: int, negative: int) -> float:
    """Return the standard error of a ROC AUC of :data:`HONEST` (Hanley & McNeil, *Radiology* 1982)."""
    a = HONEST
    one, two = a / (2 - a) - a**2, 2 * a**2 / (1 + a) - a**2
    return math.sqrt((a * (1 - a) + (positive - 1) * one + (negative - 1) * two) / (positive * negative))
