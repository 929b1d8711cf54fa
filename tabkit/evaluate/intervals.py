"""Bootstrap intervals, paired by construction: every candidate is scored on the same resamples.

Bootstrap (Efron & Tibshirani 1993) over rows, or over groups where rows of one group belong together: percentiles, but for
scores of order, whose intervals are made on the logit scale; Holm's step-down adjustment (Holm 1979) for what is exploratory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tabkit.evaluate.metrics import Case, Floats, Labels, Metric
from tabkit.result import Interval
from tabkit.seed import stream

LEVEL = 0.95
_NORMAL = NormalDist()
MOST_DECIMALS = 8
"""Decimals up to which numbers of a sentence are written out."""
_CHUNK_BYTES = 48_000_000


FEWEST_CASES = 12
"""Rows of the rarer class under which no gain is shown, nor shown not to be: see ``benchmarks/rare.py``."""


class Resampled(NamedTuple):
    """A metric's value on all rows, and on each of the common resamples (resamples,), stretched about it.

    Attributes
    ----------
    cases
        Rows (or groups) of the rarest class and all others, if the metric hangs on them.
    stretch
        By how much the resamples were stretched.
    within
        The least and the greatest value there is, if the interval is made on the logit scale between them.
    too_high
        Whether the value tends to be too high, and resamples by as much again.
    """

    value: float
    draws: Floats
    cases: tuple[int, int] | None = None
    stretch: float = 1.0
    within: tuple[float, float] | None = None
    too_high: bool = False


@dataclass(frozen=True)
class Resampler:
    """The resamples of one part of the table.

    Attributes
    ----------
    n_rows
        Rows of the part.
    groups
        Codes (n_rows,) of what is drawn together, or None to draw rows.
    resamples
        How many.
    widening
        Over 1 where rows were predicted by the models of outer folds: :func:`widening_over_folds`.
    row_weights
        For how many rows each stands, (n_rows,), whenever it is drawn; None if each counts once.
    """

    n_rows: int
    groups: npt.NDArray[np.int64] | None
    resamples: int
    seed: int
    widening: float = 1.0
    row_weights: Floats | None = None

    def at(self, rows: npt.NDArray[np.int64]) -> Resampler:
        """Return resamples of some of the rows."""
        groups = None if self.groups is None else self.groups[rows]
        own = None if self.row_weights is None else self.row_weights[rows]
        return replace(self, n_rows=len(rows), groups=groups, row_weights=own)

    @property
    def stretch(self) -> float:
        """What the distance of every resample from the whole is multiplied with.

        A bootstrap of n units is too narrow by sqrt((n - 1)/n), and by taking a t for a normal (Hesterberg, *What Teachers
        Should Know About the Bootstrap*, American Statistician 2015; of few groups, Cameron, Gelbach & Miller, *Rev. Econ.
        Stat.* 2008). This widens it to match: 1.9 times with 4 groups, 1.002 times with 1,000 rows.
        """
        return self.stretch_of(self.n_rows if self.groups is None else len(np.unique(self.groups)))

    def stretch_of(self, n: int) -> float:
        """Return the stretch if the metric hangs on ``n`` units."""
        if n < 2:
            return self.widening
        from scipy import stats

        upper = (1 + LEVEL) / 2
        return self.widening * math.sqrt(n / (n - 1)) * float(stats.t.ppf(upper, n - 1) / stats.norm.ppf(upper))

    def cases(self, y: Labels, predicted: Floats) -> tuple[int, int] | None:
        """Return the units with a row of the rarest class that is there, and all others; None unless there are classes."""
        if predicted.ndim != 2 or y.dtype.kind not in "iu":
            return None
        _, counts = np.unique(y, return_counts=True)
        if self.groups is not None:
            counts = np.array([len(np.unique(self.groups[y == k])) for k in np.unique(y)])
        return int(counts.min()), int(counts.sum() - counts.min())

    def around(self, whole: float, resampled: Floats) -> Floats:
        """Return what was computed on resamples, stretched about its value on all rows."""
        return whole + self.stretch * (resampled - whole)

    def weights(self) -> Iterator[Floats]:
        """Yield row counts (B, n_rows), times row weights, chunk by chunk, within bounded memory; the same on every call."""
        rng = stream(self.seed, "bootstrap")
        if self.groups is None:
            units, unit_of_row = self.n_rows, None
        else:
            names, unit_of_row = np.unique(self.groups, return_inverse=True)
            units = len(names)
        chunk = max(1, _CHUNK_BYTES // (8 * max(1, self.n_rows)))
        for start in range(0, self.resamples, chunk):
            size = min(chunk, self.resamples - start)
            drawn = np.stack([np.bincount(rng.integers(units, size=units), minlength=units) for _ in range(size)])
            counts = (drawn if unit_of_row is None else drawn[:, unit_of_row]).astype(np.float64)
            yield counts if self.row_weights is None else counts * self.row_weights

    def scored(self, metrics: dict[str, Metric], y: Labels, predicted: Floats) -> dict[str, Resampled]:
        """Return several metrics on all rows and on every resample, drawing the resamples once.

        What hangs on the rows of a rare class knows no more than so many rows do: it is stretched by their t.
        """
        parts: dict[str, list[Floats]] = {name: [] for name in metrics}
        for w in self.weights():
            case = Case(y, predicted, w)
            for name, metric in metrics.items():
                parts[name].append(metric.function(case))
        whole = {name: metric.value(y, predicted, self.row_weights) for name, metric in metrics.items()}
        cases = self.cases(y, predicted)
        return {
            name: self._resampled(
                metric, whole[name], np.concatenate(parts[name]), cases if _hangs(metric, predicted) else None
            )
            for name, metric in metrics.items()
        }

    def _resampled(self, metric: Metric, whole: float, resampled: Floats, cases: tuple[int, int] | None) -> Resampled:
        stretch = self.stretch if cases is None else max(self.stretch, self.stretch_of(max(2, cases[0])))
        within = metric.within if cases is not None and metric.by_order else None
        return Resampled(whole, whole + stretch * (resampled - whole), cases, stretch, within, metric.too_high)

    def score(self, metric: Metric, y: Labels, predicted: Floats) -> Resampled:
        """Return one metric on all rows and on every resample."""
        return self.scored({"": metric}, y, predicted)[""]

    def mean(self, per_row: Floats) -> Resampled:
        """Return the mean of a number per row (n_rows,) on all rows and on every resample."""
        whole = float(per_row.mean() if self.row_weights is None else np.average(per_row, weights=self.row_weights))
        drawn = np.concatenate([w @ per_row / w.sum(axis=1) for w in self.weights()])
        return Resampled(whole, self.around(whole, drawn))


def widening_over_folds(n_folds: int, test_to_train: float) -> float:
    """Return by how much to widen a bootstrap over rows that models of outer folds predicted.

    A bootstrap takes rows to be predicted independently of each other. Folds train on mostly the same rows, and each row
    trains the models that predict the others. For scores of k training sets drawn from the same rows, Nadeau & Bengio
    (*Inference for the Generalization Error*, Machine Learning 2003) approximate the variance of the mean as
    (1/k + n_test/n_train) of theirs in place of 1/k; the bootstrap is widened by the root of that ratio. No estimate of
    it is right for every model (Bates, Hastie & Tibshirani, *Cross-Validation: What Does It Estimate and How Well Does It
    Do It?*, JASA 2024): how often the intervals hold the truth, beside those of Nadeau and Bengio's own t, is measured by
    ``benchmarks/fold_intervals.py`` on equal folds; temporal and unequal folds were not measured.

    Parameters
    ----------
    n_folds
        Folds, of one repeat.
    test_to_train
        Rows held out over rows learned from, the sums over all folds.

    >>> round(widening_over_folds(5, 1 / 4), 3)
    1.5
    """
    return math.sqrt(1 + n_folds * test_to_train)


def corrected_t(values: list[float], test_to_train: float) -> Interval:
    """Return the mean over folds with the 95% interval of the corrected resampled t.

    Folds train on mostly the same rows, so their scores are not independent: the variance of their mean is
    (1/k + n_test/n_train) of theirs, not 1/k. Source: Nadeau & Bengio, *Inference for the Generalization Error*,
    Machine Learning 2003.

    Parameters
    ----------
    values
        One score or gain a fold, all folds of all repeats.
    test_to_train
        Rows held out over rows learned from, in one fold.

    >>> found = corrected_t([0.1, 0.2, 0.3], 0.5)
    >>> round(found.low, 4), round(found.high, 4)
    (-0.1928, 0.5928)
    """
    from scipy import stats

    k, mean = len(values), float(np.mean(values))
    if k < 2 or not np.isfinite(values).all():
        return Interval(mean, float("nan"), float("nan"))
    spread = math.sqrt((1 / k + test_to_train) * float(np.var(values, ddof=1)))
    half = float(stats.t.ppf((1 + LEVEL) / 2, k - 1)) * spread
    return Interval(mean, mean - half, mean + half)


def interval(scored: Resampled, within: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Return a value with the percentile interval of its resamples; undefined resamples are left out.

    If more of them are undefined than an interval leaves out anyway, it has no ends: the metric hangs on a few cases
    (a class with one row is in no more than two resamples of three), and those that are left know nothing of that.

    Parameters
    ----------
    within
        The least and the greatest value there is; a widened interval ends there.
    """
    defined = scored.draws[np.isfinite(scored.draws)]
    if defined.size < LEVEL * scored.draws.size or not defined.size:
        return Interval(scored.value, math.nan, math.nan)
    if scored.within is not None and (ends := _on_logit(scored, defined, scored.within)) is not None:
        return Interval(scored.value, *ends)
    tail = (1 - LEVEL) / 2
    low, high = np.clip(np.quantile(defined, [tail, 1 - tail]), *within)
    return Interval(scored.value, float(low), float(high))


def _hangs(metric: Metric, predicted: Floats) -> bool:
    """Tell whether the rows of the rarest class decide a metric: of two classes always, of more if it is one of order."""
    return predicted.ndim == 2 and (predicted.shape[1] == 2 or metric.by_order)


def _on_logit(scored: Resampled, defined: Floats, within: tuple[float, float]) -> tuple[float, float] | None:
    """Return an interval made on the logit scale between the least and the greatest value; None at either end.

    The spread of the resamples, taken to the logit scale (as DeLong's is: Pepe, *The Statistical Evaluation of Medical
    Tests* 2003), for a score near its end has a long side and a short one. What tends to be too high, as the largest of
    many distances does, is reflected instead: resamples lie above the value as far as it lies above the truth.
    """
    low, width = within[0], within[1] - within[0]
    value, draws = (scored.value - low) / width, (defined - low) / width
    spread = float(draws.std())
    if not 0 < value < 1 or spread == 0:
        return None
    middle, upper = math.log(value / (1 - value)), (1 + LEVEL) / 2
    if scored.too_high and scored.cases is not None:
        finest = 1 / (2 * scored.cases[0] * max(1, scored.cases[1]))
        plain = np.clip(value + (draws - value) / scored.stretch, finest, 1 - finest)
        there = middle + scored.stretch * (np.log(plain / (1 - plain)) - middle)
        ends = 2 * middle - np.quantile(there, [upper, 1 - upper])
        ends[1] = max(ends[1], middle)  # the value itself is never outside
    else:
        half = _NORMAL.inv_cdf(upper) * spread / (value * (1 - value))
        ends = np.array([middle - half, middle + half])
    least, most = low + width / (1 + np.exp(-ends))
    return float(least), float(most)


def level_of(question: int) -> float:
    """Return at which level the planned intervals of a question stand, by its number among those asked of the same rows.

    The error that may be made is spent over the questions: .025 a side on the first, 6/(π²k²) of that on question k (after
    Foster & Stine, *Alpha-investing*, JRSS B 2008, without what it earns), so that all of them together wrongly show a gain with a
    chance of .035 at most, however many there are, if each is planned without looking at the answers of the others. For
    whoever looks there is no such bound (Dwork et al., *Science* 2015); ``benchmarks/reuse.py`` tries one.

    >>> [round(level_of(k), 4) for k in (1, 2, 3, 10)]
    [0.95, 0.9924, 0.9966, 0.9997]
    """
    return 1 - (1 - LEVEL) * (1.0 if question == 1 else 6 / (math.pi * question) ** 2)


def at_level(of: Interval, level: float, any_of: int = 1) -> Interval:
    """Return a 95% interval at another level, its sides stretched as those of a normal are.

    Resamples are too few for the quantiles of a high level itself.

    Parameters
    ----------
    any_of
        Of how many intervals any upper end is enough to show something; the error of that side is shared among them
        (Bonferroni). All lower ends together show something, which needs no sharing (Berger 1982).

    >>> at_level(Interval(0.0, -1.0, 1.0), 0.95, any_of=2).high.__round__(3)
    1.144
    """
    below, above = (_z(1 - (1 - level) / n) / _z(LEVEL) for n in (1, any_of))
    return Interval(of.value, of.value - below * (of.value - of.low), of.value + above * (of.high - of.value))


def _z(level: float) -> float:
    return _NORMAL.inv_cdf((1 + level) / 2)


def with_limits(of: Interval, decimals: int) -> str:
    """Return a change with its interval for a sentence; in a small unit, to three digits each instead.

    >>> with_limits(Interval(0.01, -0.002, 0.02), 3), with_limits(Interval(1.234e-12, 0.0, 2e-12), 15)
    ('+0.010 [-0.002, +0.020]', '+1.23e-12 [+0, +2e-12]')
    >>> with_limits(Interval(math.nan, math.nan, math.nan), 3), with_limits(Interval(0.5, math.nan, math.nan), 1)
    ('undefined', '+0.5 (no interval)')
    """
    if not math.isfinite(of.value):
        return "undefined"
    size = max(abs(v) for v in (of.value, of.low, of.high) if math.isfinite(v))
    digits = f"+.{decimals}f" if decimals <= MOST_DECIMALS and (size >= 10.0**-decimals or not size) else "+.3g"
    limits = f"[{of.low:{digits}}, {of.high:{digits}}]" if math.isfinite(of.low) else "(no interval)"
    return f"{of.value:{digits}} {limits}"


def difference(metric: Metric, a: Resampled, b: Resampled) -> Resampled:
    """Return the gain of a over b on all rows and on every resample; positive is better, whatever the metric."""
    return Resampled(metric.sign * (a.value - b.value), metric.sign * (a.draws - b.draws), a.cases)


def paired(metric: Metric, a: Resampled, b: Resampled) -> tuple[Interval, float]:
    """Return the gain of a over b, both over the same resamples, and its two-sided p-value.

    Under :data:`FEWEST_CASES` rows of the rarest class the gain has no ends: nothing is shown by so few.
    """
    gain = difference(metric, a, b)
    defined = gain.draws[np.isfinite(gain.draws)]
    below, above = (defined <= 0).sum(), (defined >= 0).sum()
    p = min(1.0, 2.0 * (min(below, above) + 1) / (defined.size + 1))
    if gain.cases is not None and gain.cases[0] < FEWEST_CASES:
        return Interval(gain.value, math.nan, math.nan), 1.0
    return interval(gain), float(p)


def holm(p_values: list[float]) -> list[float]:
    """Return Holm-adjusted p-values, in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return [float(p) for p in adjusted]
