"""Spectra: many like columns compressed to a few, by principal components of the train rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.frames import values_of
from tabkit.errors import DataError


@dataclass(frozen=True)
class Compression:
    """Principal components of many like columns (the bands of a spectrum), fitted on train rows.

    Attributes
    ----------
    columns
        The bands, in the order of the table.
    normalise
        Whether each row's bands are centred and scaled first (standard normal variate: Barnes et al., *Appl.
        Spectrosc.* 1989), which takes off how rough or moist the sample scattered the light.
    mean
        Of the train rows, by band (n_bands,).
    axes
        One component a line (n_components, n_bands), the strongest first.
    """

    name: str
    columns: tuple[str, ...]
    normalise: bool
    mean: tuple[float, ...]
    axes: tuple[tuple[float, ...], ...]

    @property
    def made(self) -> tuple[str, ...]:
        """Names of the columns it makes."""
        return tuple(f"{self.name}.{i + 1}" for i in range(len(self.axes)))

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the component columns of these rows; a row with a missing band has none of them."""
        bands = _bands(frame, self.columns, self.normalise) - np.asarray(self.mean)
        # Along a row's own bands, so that the rows beside it cannot change a bit.
        scores = [(bands * np.asarray(axis)).sum(axis=1) for axis in self.axes]
        return pl.DataFrame({name: pl.Series(s).fill_nan(None) for name, s in zip(self.made, scores, strict=True)})


def _bands(frame: pl.DataFrame, columns: tuple[str, ...], normalise: bool) -> npt.NDArray[np.float64]:
    bands = np.column_stack([values_of(frame, c).cast(pl.Float64).to_numpy().astype(np.float64) for c in columns])
    if normalise:
        spread = bands.std(axis=1, keepdims=True)
        bands = (bands - bands.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0)
    return bands


def fit_compression(
    frame: pl.DataFrame, name: str, columns: tuple[str, ...], components: int, normalise: bool
) -> Compression:
    """Fit principal components on train rows without a missing band.

    Raises
    ------
    DataError
        Fewer than three such rows, which have no axes to speak of.
    """
    bands = _bands(frame, columns, normalise)
    whole = bands[np.isfinite(bands).all(axis=1)]
    if len(whole) < 3:
        raise DataError(
            f"Spectrum '{name}': {len(whole)} training rows have all of its {len(columns):,} bands. Expected three or more."
        )
    mean = whole.mean(axis=0)
    _, sizes, axes = np.linalg.svd(whole - mean, full_matrices=False)
    # Axes of rounding noise carry nothing; of n rows, n - 1 axes are left after the mean is taken off.
    n_kept = min(components, len(whole) - 1, int((sizes > 1e-9 * max(sizes[0], float(np.abs(whole).max()))).sum()))
    if n_kept == 0:
        raise DataError(f"Spectrum '{name}' is the same in every training row. Expected bands that vary.")
    # The sign of an axis is arbitrary: the largest loading is made positive, the same on every machine.
    signs = np.sign(axes[np.arange(n_kept), np.abs(axes[:n_kept]).argmax(axis=1)])
    turned = axes[:n_kept] * signs[:, None]
    return Compression(name, columns, normalise, tuple(mean.tolist()), tuple(tuple(axis) for axis in turned.tolist()))
