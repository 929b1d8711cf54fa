"""Whether predictions are as right for one group of people as for all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.evaluate.intervals import holm
from tabkit.evaluate.metrics import Floats, Labels

MATTERS = 0.1
"""Size of a difference that matters: a tenth of the rarer class's share, of the spread of a number, of the mean error."""


@dataclass(frozen=True)
class Gap:
    """What a group has beyond all other rows, in units of what it is measured by, and the chance of so much by luck."""

    column: str
    group: str
    says: str
    value: float
    relative: float
    chance: float


@dataclass(frozen=True)
class _Measure:
    """A number per row whose mean does not depend on the group if predictions are right, its least variance, its scale."""

    says: str
    values: Floats
    variance: Floats
    scale: float


def gaps(
    y: Labels, predicted: Floats, groups: Mapping[str, pl.Series], units: npt.NDArray[np.int64] | None, least: int
) -> list[Gap]:
    """Compare each group with all other rows; chances are Holm-adjusted over everything compared.

    Scores such as log loss differ between groups of other base rates though every probability is true. What is compared
    is nought in every group then: what came out beyond what was predicted, and the Brier score beyond the one that the
    probabilities expect of themselves (Spiegelhalter, *Stat. Med.* 1986). Of numbers: the mean error and its mean size.

    Parameters
    ----------
    groups
        The group of each row, by sensitive column; null for none.
    units
        Codes of rows that hang together (n_rows,): they count once.
    least
        Rows of the smallest group compared.
    """
    apart = np.arange(len(y)) if units is None else units
    found = []
    for column, names in groups.items():
        for group in names.drop_nulls().unique().sort():
            inside = (names == group).fill_null(False).to_numpy()
            if inside.sum() >= least and (~inside).sum() >= least:
                found += [_gap(measure, column, str(group), inside, apart) for measure in _measures(y, predicted)]
    chances = holm([gap.chance for gap in found])
    return [
        Gap(g.column, g.group, g.says, g.value, g.relative, chance) for g, chance in zip(found, chances, strict=True)
    ]


def _measures(y: Labels, predicted: Floats) -> Iterator[_Measure]:
    none = np.zeros(len(y))
    if predicted.ndim == 1:
        error = np.asarray(y - predicted, dtype=np.float64)
        yield _Measure("the target beyond its prediction", error, none, float(np.std(y)))
        yield _Measure("the mean size of the error", np.abs(error), none, float(np.abs(error).mean()))
        return
    variance = predicted * (1 - predicted)
    classes = [1] if predicted.shape[1] == 2 else list(range(predicted.shape[1]))
    for k in classes:
        came, share = (y == k).astype(np.float64), float((y == k).mean())
        says = "the outcome beyond its probability" if len(classes) == 1 else f"class {k} beyond its probability"
        yield _Measure(says, came - predicted[:, k], variance[:, k], min(share, 1 - share))
    beyond = ((np.eye(predicted.shape[1])[y] - predicted) ** 2 - variance)[:, classes].sum(axis=1)
    # Classes hang together: the variance of their sum is at most so many times the sum of theirs.
    least = len(classes) * ((1 - 2 * predicted) ** 2 * variance)[:, classes].sum(axis=1)
    yield _Measure("the Brier score beyond the expected", beyond, least, float(variance[:, classes].sum(axis=1).mean()))


def _gap(
    measure: _Measure, column: str, group: str, inside: npt.NDArray[np.bool_], units: npt.NDArray[np.int64]
) -> Gap:
    from scipy import stats

    parts = [_mean(measure, rows, units) for rows in (inside, ~inside)]
    value = parts[0][0] - parts[1][0]
    error = float(np.sqrt(parts[0][1] + parts[1][1]))
    chance = 2 * float(stats.t.sf(abs(value) / error, min(parts[0][2], parts[1][2]) - 1)) if error > 0 else 1.0
    relative = abs(value) / measure.scale if measure.scale > 0 else 0.0
    return Gap(column, group, measure.says, value, relative, chance)


def _mean(measure: _Measure, rows: npt.NDArray[np.bool_], units: npt.NDArray[np.int64]) -> tuple[float, float, int]:
    """Return the mean over some rows, its variance with rows of one unit taken together, and the number of units."""
    values = measure.values[rows]
    _, at = np.unique(units[rows], return_inverse=True)
    sums = np.bincount(at, values - values.mean())
    k = len(sums)
    # A group without a case would seem certain: the probabilities themselves say how uncertain it is at least.
    variance = max(float((sums**2).sum()) * k / max(k - 1, 1), float(measure.variance[rows].sum()))
    return float(values.mean()), variance / len(values) ** 2, k
