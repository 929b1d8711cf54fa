"""The encoder: typed columns to ``x_num`` and ``x_cat``. Fitted on train rows only, saved as JSON.

A row's features depend on that row and the fitted statistics only, so the same row gives the same
features in training and in scoring, whatever stands beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.frames import values_of
from tabkit.data.spectra import Compression
from tabkit.errors import DataError

MISSING, UNKNOWN, FIRST_KNOWN = 0, 1, 2
"""Category codes: missing value, value not seen (or too rare) in training, first known category."""

MAX_CATEGORIES = 200
"""Most categories kept per column, by frequency; the rest share UNKNOWN and a frequency column is added."""

MIN_ROWS_PER_CATEGORY = 2
"""A category seen once teaches nothing and stands for what scoring will meet as unknown."""

FLOAT32_MAX = float(np.finfo(np.float32).max)

Z_LIMIT = 1e9
"""Standardised numbers are clipped here: far beyond any real value, and safe in float32."""

BLUR = 1e-5
"""Most that float32 may move a value, in spreads of its column, before the column's mean is taken off first."""

SMALLEST = 1e-20
"""Spread below which (or above one over it) a column is scaled: LightGBM takes what is under 1e-35 for zero."""

Form = Literal["number", "date", "category", "frequency"]


@dataclass(frozen=True)
class Layout:
    """What the columns of the arrays are: shared by every part of a table, and by its source tables.

    ``num_source`` and ``cat_source`` name the table column each encoded column was made from; ``num_mean`` and
    ``num_std`` are train statistics (0 and 1 if empty).
    """

    task: str
    classes: tuple[str, ...]
    num_names: tuple[str, ...]
    cat_names: tuple[str, ...]
    cat_sizes: tuple[int, ...]
    num_source: tuple[str, ...]
    cat_source: tuple[str, ...]
    num_mean: tuple[float, ...] = ()
    num_std: tuple[float, ...] = ()

    @property
    def n_features(self) -> int:
        """Number of encoded columns."""
        return len(self.num_names) + len(self.cat_names)

    @property
    def columns(self) -> tuple[str, ...]:
        """The table columns that reach the model, in order of first use."""
        return tuple(dict.fromkeys((*self.num_source, *self.cat_source)))


@dataclass(frozen=True)
class Features:
    """Rows as a model sees them.

    Attributes
    ----------
    x_num
        float32 (n_rows, n_num), in the table's own units, as trees want them; NaN is missing.
    x_cat
        int64 (n_rows, n_cat); 0 is missing, 1 unknown, from 2 on the known categories.
    y
        Class index int64 (n_rows,), or target float64 (n_rows,); None for rows without labels.
    w
        Weight of each row, float64 (n_rows,), above 0: for how many rows it stands; None if each counts once.
    """

    x_num: npt.NDArray[np.float32]
    x_cat: npt.NDArray[np.int64]
    y: npt.NDArray[Any] | None
    layout: Layout
    w: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return int(self.x_num.shape[0])

    @property
    def x_std(self) -> npt.NDArray[np.float32]:
        """``x_num`` standardised with train statistics, float32 (n_rows, n_num); NaN is missing."""
        if not self.layout.num_mean:
            return self.x_num
        z = (self.x_num.astype(np.float64) - self.layout.num_mean) / self.layout.num_std
        return np.clip(z, -Z_LIMIT, Z_LIMIT).astype(np.float32)

    @property
    def labels(self) -> npt.NDArray[Any]:
        """The labels of rows that must have them."""
        assert self.y is not None, "these rows have no labels"
        return self.y

    def take(self, rows: npt.NDArray[np.int64]) -> Features:
        """Return the rows at these positions, in this order."""
        y, w = (None if each is None else each[rows] for each in (self.y, self.w))
        return replace(self, x_num=self.x_num[rows], x_cat=self.x_cat[rows], y=y, w=w)

    def without(self, columns: Iterable[str]) -> Features:
        """Return the same rows without what was encoded from these table columns."""
        gone = set(columns)
        layout = self.layout
        num = [i for i, source in enumerate(layout.num_source) if source not in gone]
        cat = [i for i, source in enumerate(layout.cat_source) if source not in gone]
        if not num and not cat:
            raise ValueError(f"no feature is left without {sorted(gone)}")
        smaller = replace(
            layout,
            num_names=tuple(layout.num_names[i] for i in num),
            num_source=tuple(layout.num_source[i] for i in num),
            num_mean=tuple(layout.num_mean[i] for i in num if layout.num_mean),
            num_std=tuple(layout.num_std[i] for i in num if layout.num_std),
            cat_names=tuple(layout.cat_names[i] for i in cat),
            cat_source=tuple(layout.cat_source[i] for i in cat),
            cat_sizes=tuple(layout.cat_sizes[i] for i in cat),
        )
        return replace(self, x_num=self.x_num[:, num], x_cat=self.x_cat[:, cat], layout=smaller)

    def with_y(self, y: npt.NDArray[Any] | None) -> Features:
        """Return the same rows with other labels."""
        assert y is None or len(y) == len(self)
        return replace(self, y=y)

    def weighing(self, w: npt.NDArray[np.float64] | None) -> Features:
        """Return the same rows with other weights."""
        assert w is None or len(w) == len(self)
        return replace(self, w=w)

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """The weights (n_rows,), ones if each row counts once."""
        return np.ones(len(self)) if self.w is None else self.w

    def mean(self, values: npt.NDArray[Any]) -> float:
        """Return the weighted mean of a number per row (n_rows,)."""
        return float(np.mean(values)) if self.w is None else float(np.average(values, weights=self.w))

    def stack(self, below: Features) -> Features:
        """Return these rows with those of ``below`` under them; both must share a layout.

        If only one of them is weighted, rows of the other count once.
        """
        assert self.layout == below.layout
        y = None if self.y is None or below.y is None else np.concatenate([self.y, below.y])
        x_num, x_cat = np.vstack([self.x_num, below.x_num]), np.vstack([self.x_cat, below.x_cat])
        w = None if self.w is None and below.w is None else np.concatenate([self.weights, below.weights])
        return replace(self, x_num=x_num, x_cat=x_cat, y=y, w=w)


@dataclass(frozen=True)
class Column:
    """How one encoded column is made from one table column.

    ``shift`` is taken off first: if values lie far from zero for their spread, float32 would blur them. What is left is
    divided by ``scale``, a power of two, if it would lie at the ends of float32's range.
    """

    name: str
    source: str
    form: Form
    mean: float = 0.0
    std: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    part: str = ""
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Encoder:
    """Fitted encoder. ``dropped`` says which columns carry nothing, and why."""

    task: str
    target: str
    classes: tuple[str, ...]
    columns: tuple[Column, ...]
    dropped: dict[str, str]
    infinite: int = 0
    spectra: tuple[Compression, ...] = ()

    @property
    def inputs(self) -> tuple[str, ...]:
        """The table columns that are read: those of the layout, with bands in the place of their components."""
        bands = {made: spectrum.columns for spectrum in self.spectra for made in spectrum.made}
        return tuple(dict.fromkeys(c for name in self.layout.columns for c in bands.get(name, (name,))))

    @property
    def layout(self) -> Layout:
        """The layout of every :class:`Features` this encoder makes."""
        num = [c for c in self.columns if c.form != "category"]
        cat = [c for c in self.columns if c.form == "category"]
        return Layout(
            self.task,
            self.classes,
            tuple(c.name for c in num),
            tuple(c.name for c in cat),
            tuple(FIRST_KNOWN + len(c.categories) for c in cat),
            tuple(c.source for c in num),
            tuple(c.source for c in cat),
            tuple(c.mean for c in num),
            tuple(c.std for c in num),
        )

    def encode(self, frame: pl.DataFrame) -> Features:
        """Encode rows. Labels are read if the target column is there; a row without one makes ``y`` None.

        Raises
        ------
        DataError
            A label that is none of ``classes``.
        """
        num = [c for c in self.columns if c.form != "category"]
        cat = [c for c in self.columns if c.form == "category"]
        frame = frame.with_columns(column for spectrum in self.spectra for column in spectrum.apply(frame))
        x_num = np.empty((frame.height, len(num)), dtype=np.float32)
        for i, column in enumerate(num):
            values = _numbers(values_of(frame, column.source), column)
            x_num[:, i] = np.clip((values - column.shift) / column.scale, -FLOAT32_MAX, FLOAT32_MAX)
        x_cat = np.empty((frame.height, len(cat)), dtype=np.int64)
        for i, column in enumerate(cat):
            x_cat[:, i] = _codes(values_of(frame, column.source), column.categories)
        return Features(x_num, x_cat, self._labels(frame), self.layout)

    def _labels(self, frame: pl.DataFrame) -> npt.NDArray[Any] | None:
        if self.target not in frame.columns or values_of(frame, self.target).null_count() > 0:
            return None
        values = values_of(frame, self.target)
        if self.task == "regression":
            return values.cast(pl.Float64).to_numpy()
        names = as_text(values)
        unknown = set(names.unique()) - set(self.classes)
        if unknown:
            raise DataError(
                f"Target '{self.target}' has {sorted(unknown)}, which training did not: expected one of {list(self.classes)}."
            )
        return names.replace_strict(list(self.classes), range(len(self.classes)), return_dtype=pl.Int64).to_numpy()

    def to_json(self) -> str:
        """Return the encoder as JSON text; :meth:`from_json` restores it exactly."""
        return json.dumps(asdict(self), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Encoder:
        """Restore an encoder from :meth:`to_json`."""
        values = json.loads(text)
        columns = [
            Column(**{**c, "categories": tuple(c["categories"]), "counts": tuple(c["counts"])})
            for c in values["columns"]
        ]
        spectra = tuple(
            Compression(
                s["name"], tuple(s["columns"]), s["normalise"], tuple(s["mean"]), tuple(tuple(a) for a in s["axes"])
            )
            for s in values["spectra"]
        )
        return cls(**{**values, "classes": tuple(values["classes"]), "columns": tuple(columns), "spectra": spectra})


def fit_encoder(
    frame: pl.DataFrame,
    columns: list[str],
    task: str,
    target: str,
    classes: tuple[str, ...],
    spectra: tuple[Compression, ...] = (),
) -> Encoder:
    """Fit an encoder on train rows (of the target, and of its source tables if any).

    Parameters
    ----------
    frame
        Typed rows; only ``columns`` are read.
    columns
        The feature columns of the table.
    classes
        Class names in order, the positive class last for a binary task; empty for regression.
    spectra
        Fitted compressions, whose components take the place of their bands.

    Raises
    ------
    DataError
        No column carries anything a model could learn from.
    """
    outputs: list[Column] = []
    dropped: dict[str, str] = {}
    infinite = 0
    bands = {band for spectrum in spectra for band in spectrum.columns}
    frame = frame.with_columns(column for spectrum in spectra for column in spectrum.apply(frame))
    for name in [*(c for c in columns if c not in bands), *(c for s in spectra for c in s.made)]:
        values = values_of(frame, name)
        present = values.drop_nulls()
        if values.dtype.is_float():
            numbers = present.to_numpy()  # faster on few rows, of which there may be thousands of columns
            infinite += int(np.isinf(numbers).sum())
            present = pl.Series(numbers[np.isfinite(numbers)])
        if present.is_empty():
            dropped[name] = "no value in any training row"
        elif present.len() == values.len() and (present == present[0]).all():
            dropped[name] = f"constant ({present[0]})"
        elif values.dtype == pl.String:
            if present.n_unique() > max(20, 0.9 * present.len()):
                dropped[name] = f"nearly every row has its own text ({present.n_unique():,} values)"
            else:
                outputs += _fit_categories(name, present)
        elif values.dtype.is_temporal():
            outputs += [_fit_number(f"{name}.{part}", name, "date", values, part) for part in _parts(values)]
        else:
            outputs.append(_fit_number(name, name, "number", values, ""))
    if not outputs:
        reasons = "; ".join(f"{name}: {why}" for name, why in dropped.items()) or "the recipe leaves none"
        raise DataError(f"No feature column is left to learn from ({reasons}). Expected at least one that varies.")
    return Encoder(task, target, classes, tuple(outputs), dropped, infinite, spectra)


def as_text(values: pl.Series) -> pl.Series:
    """Return class names as text: booleans as ``true``/``false``, whole floats without the fraction.

    A value's name is its own, whatever stands beside it: grades 1, 1.5 and 2 are the same in a part that has whole ones
    only.

    >>> as_text(pl.Series([1.0, 1.5, None])).to_list()
    ['1', '1.5', None]
    """
    text = values.cast(pl.String)
    if not values.dtype.is_float():
        return text
    integers = values.cast(pl.Int64, strict=False)
    return integers.cast(pl.String).zip_with((integers.cast(pl.Float64) == values).fill_null(False), text)


def _fit_number(name: str, source: str, form: Form, values: pl.Series, part: str) -> Column:
    numbers = _numbers(values, Column(name, source, form, part=part))
    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return Column(name, source, form, part=part)
    # Divided by a power of two near the farthest value, which is exact: no sum or square leaves float64's range.
    unit = 2.0 ** math.floor(math.log2(float(np.abs(finite).max()) or 1.0))
    mean, std = unit * float((finite / unit).mean()), unit * float((finite / unit).std())
    # A column whose spread is rounding noise (or none: only its missingness varies) is centred, not scaled.
    if std <= 1e-12 * float(np.abs(finite).max()):
        std = 0.0
    with np.errstate(over="ignore"):
        blur = float(np.abs(finite.astype(np.float32) - finite).max())
    shift = 0.0
    if blur > BLUR * std or abs(mean) > 1e4 * std:
        # A value of the column, not the mean itself: what is left of whole numbers is then whole, and float32 keeps it.
        shift = float(finite[np.abs(finite - mean).argmin()])
        mean = unit * float(((finite - shift) / unit).mean())
        std = unit * float(((finite - shift) / unit).std()) if std else 0.0
    scale = 1.0 if std == 0.0 or SMALLEST < std < 1 / SMALLEST else 2.0 ** round(math.log2(std))
    return Column(name, source, form, mean=mean / scale, std=std / scale or 1.0, shift=shift, scale=scale, part=part)


def _fit_categories(name: str, present: pl.Series) -> list[Column]:
    # Named apart from the column, which may itself be called n.
    counts = present.alias("value").value_counts(name="n").sort(["n", "value"], descending=[True, False])
    kept = counts.filter(pl.col("n") >= MIN_ROWS_PER_CATEGORY).head(MAX_CATEGORIES)
    names, numbers = tuple(kept["value"].to_list()), tuple(kept["n"].to_list())
    outputs = [Column(name, name, "category", categories=names)]
    if counts.height > MAX_CATEGORIES:
        frequency = Column(f"{name}.frequency", name, "frequency", categories=names, counts=numbers)
        log_counts = _numbers(present, frequency)
        outputs.append(replace(frequency, mean=float(log_counts.mean()), std=float(log_counts.std()) or 1.0))
    return outputs


def _numbers(values: pl.Series, column: Column) -> npt.NDArray[np.float64]:
    match column.form:
        case "date":
            out = _date_part(values, column.part)
        case "frequency":
            table = pl.Series([math.log1p(n) for n in column.counts], dtype=pl.Float64)
            codes = _codes(values, column.categories)
            known = np.where(codes >= FIRST_KNOWN, codes - FIRST_KNOWN, 0)
            logs = table.to_numpy()[known] if column.counts else np.zeros(len(codes))
            return np.where(codes == MISSING, np.nan, np.where(codes == UNKNOWN, 0.0, logs))
        case _:
            out = values.cast(pl.Float64)
    numbers = out.to_numpy().astype(np.float64)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _codes(values: pl.Series, categories: tuple[str, ...]) -> npt.NDArray[np.int64]:
    known = values.replace_strict(
        list(categories), range(FIRST_KNOWN, FIRST_KNOWN + len(categories)), default=UNKNOWN, return_dtype=pl.Int64
    )
    codes = known.to_numpy().astype(np.int64)
    return np.where(values.is_null().to_numpy(), MISSING, codes)


def _parts(values: pl.Series) -> list[str]:
    parts = ["days", "month", "weekday"]
    return [*parts, "hour"] if isinstance(values.dtype, pl.Datetime) else parts


def _date_part(values: pl.Series, part: str) -> pl.Series:
    match part:
        case "days":
            return values.dt.epoch("d").cast(pl.Float64)
        case "month":
            return values.dt.month().cast(pl.Float64)
        case "weekday":
            return values.dt.weekday().cast(pl.Float64)
        case _:
            return values.dt.hour().cast(pl.Float64)
