"""Which rows have a label, and the scale on which a skewed target is learned: no model has to know that there is one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.errors import DataError, count

Floats = npt.NDArray[np.float64]

_OFFSET = {"log": 0.0, "log1p": 1.0}
"""``log`` is for targets above 0, ``log1p`` (the logarithm of 1 + y) for those from 0 on."""
_FARTHEST = 700.0
"""Largest exponent of a finite float64: beyond lies no prediction anyone could use."""


@dataclass(frozen=True)
class Standard:
    """The line from a target to what models learn: centred, of unit spread, whatever its unit and its zero.

    Without it a model's answer would hang on them: trees keep labels as float32 (seconds since 1970 lose two minutes),
    and penalties such as LightGBM's ``lambda_l1`` are sizes in the target's unit.

    Attributes
    ----------
    origin
        A value of the target, taken off first: exact, so that whole seconds or cents are learned bit by bit the same
        wherever they are counted from.
    centre
        Mean distance from the origin.
    spread
        Standard deviation; 1 for a constant target.
    """

    origin: float = 0.0
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, y: Floats) -> Standard:
        """Fit it to the rows (n_rows,) that models learn from; a constant target is centred only.

        >>> Standard.of(np.array([1e9, 1e9 + 2.0]))
        Standard(origin=1000000000.0, centre=1.0, spread=1.0)
        >>> Standard.of(np.array([3.0, 3.0]))
        Standard(origin=3.0, centre=0.0, spread=1.0)
        """
        if not len(y):
            return cls()
        # In units of the farthest from the origin: no sum or square loses digits or leaves the range of float64.
        apart = y - y[0]
        farthest = float(np.abs(apart).max())
        if farthest == 0.0 or not np.isfinite(farthest):
            return cls(float(y[0]))
        apart = apart / farthest
        return cls(float(y[0]), float(farthest * apart.mean()), float(farthest * apart.std()))

    def learned(self, y: Floats) -> Floats:
        """Return targets (n_rows,) as models learn them."""
        return np.asarray((y - self.origin - self.centre) / self.spread)

    def answered(self, z: Floats) -> Floats:
        """Return a model's answers (n_rows,) in the target's unit."""
        return np.asarray(self.origin + (z * self.spread + self.centre))


def check_scale(kind: str, y: Floats, target: str) -> None:
    """Check that the scale is defined for every label.

    Raises
    ------
    DataError
        Naming how many labels are out of range, and which scale would take them.
    """
    outside = y <= 0 if kind == "log" else y <= -1
    if outside.any():
        instead = "'log1p' takes values from 0 on" if kind == "log" and y.min() > -1 else "remove [target_scale]"
        raise DataError(
            f"Target '{target}' is {y.min():g} at its lowest, in {count(int(outside.sum()), 'row')} outside what target_scale "
            f"'{kind}' takes ({'above 0' if kind == 'log' else 'above -1'}); {instead}."
        )


def to_scale(kind: str | None, y: Floats) -> Floats:
    """Return targets (n_rows,) on the scale they are learned on; None leaves them."""
    return y if kind is None else np.log(y + _OFFSET[kind])


def from_scale(kind: str | None, z: Floats, smearing: float = 1.0) -> Floats:
    """Return values of the scale (n_rows,) in the target's own unit.

    Parameters
    ----------
    smearing
        What :func:`smearing_factor` found, for the mean of the target; 1 gives its median.
    """
    if kind is None:
        return z
    return np.asarray(np.exp(np.clip(z, -_FARTHEST, _FARTHEST)) * smearing - _OFFSET[kind])


def smearing_factor(y: Floats, predicted: Floats, weights: Floats | None = None) -> float:
    """Return the mean of exp(residual): what undoing a logarithm loses of the mean, without assuming a distribution.

    The exponential of a mean logarithm is a geometric mean, which lies below the mean: by a fifth where
    residuals spread by .6. Source: Duan, *Smearing Estimate: A Nonparametric Retransformation Method*,
    JASA 1983.

    Parameters
    ----------
    y, predicted
        Targets and predictions on the logarithmic scale (n_rows,), of rows that were not trained on: the
        residuals of train rows are too small as soon as a model overfits.
    weights
        For how many rows each stands, (n_rows,).

    >>> smearing_factor(np.log([1.0, 3.0]), np.log([1.0, 1.0]))
    2.0
    """
    lost = np.exp(np.clip(y - predicted, -_FARTHEST, _FARTHEST))
    return float(np.mean(lost) if weights is None else np.average(lost, weights=weights))


def band(kind: str | None, predicted: Floats, half_width: float) -> tuple[Floats, Floats]:
    """Return the interval (low, high), each (n_rows,), around predictions in the target's unit.

    ``half_width`` is measured on the scale, so there the interval is as wide for every row; in the target's
    unit it grows with the prediction and never leaves the target's range.
    """
    middle = on_scale(kind, predicted)
    return from_scale(kind, middle - half_width), from_scale(kind, middle + half_width)


def on_scale(kind: str | None, predicted: Floats) -> Floats:
    """Return predictions on the scale; one at or below its lower end is moved just above it."""
    if kind is None:
        return predicted
    return to_scale(kind, np.maximum(predicted, np.finfo(np.float64).tiny - _OFFSET[kind] * (1 - 1e-9)))


def with_label(target: pl.Series) -> pl.Series:
    """Tell which rows have a label (n_rows,): neither missing nor, of numbers, infinite or NaN."""
    return (
        target.is_not_null() & target.is_finite().fill_null(False) if target.dtype.is_float() else target.is_not_null()
    )
