"""How much rows of one group, or of one day, err alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tabkit.evaluate.metrics import Floats, Labels

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Alike:
    """Groups, the intraclass correlation of a number within them, the chance of so much of it, and the design effect.

    The design effect says how many times too small the variance of a mean is if rows are taken for independent.
    """

    n_groups: int
    correlation: float
    chance: float
    design_effect: float


def alike(values: Floats, codes: Codes) -> Alike:
    """Return the ANOVA estimate of the intraclass correlation of ``values`` (n_rows,) within groups ``codes`` (n_rows,).

    Source: Donner, *A Review of Inference Procedures for the Intraclass Correlation Coefficient*, Int. Stat. Rev. 1986; the
    design effect is Kish's, *Survey Sampling* 1965.

    >>> found = alike(np.array([1.0, 1.1, 5.0, 5.1]), np.array([0, 0, 1, 1]))
    >>> found.n_groups, round(found.correlation, 3), round(found.design_effect, 2)
    (2, 0.999, 2.0)
    """
    from scipy import stats

    _, at, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    n, k = len(values), len(sizes)
    if k < 2 or k == n:
        return Alike(k, 0.0, 1.0, 1.0)
    means = np.bincount(at, values) / sizes
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (k - 1)
    within = float(((values - means[at]) ** 2).sum()) / (n - k)
    typical = (n - float((sizes.astype(np.float64) ** 2).sum()) / n) / (k - 1)
    total = between + (typical - 1) * within
    if total <= 0:
        return Alike(k, 0.0, 1.0, 1.0)
    rho = max(0.0, (between - within) / total)
    chance = float(stats.f.sf(between / within, k - 1, n - k)) if within > 0 else 0.0
    # Large groups weigh more in a mean than their number says.
    weighted = float((sizes.astype(np.float64) ** 2).sum()) / n
    return Alike(k, rho, chance, 1 + (weighted - 1) * rho)


def errors(y: Labels, predicted: Floats) -> Floats:
    """Return by how much each row (n_rows,) came out otherwise than predicted; of many classes, what its own class lacked."""
    if predicted.ndim == 1:
        return np.asarray(y - predicted, dtype=np.float64)
    if predicted.shape[1] == 2:
        return np.asarray(y - predicted[:, 1], dtype=np.float64)
    return np.asarray(1 - predicted[np.arange(len(y)), y], dtype=np.float64)
