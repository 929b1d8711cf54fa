"""What one column holds, inferred from its values."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from tabkit.data.cells import read_cells
from tabkit.draft.text import infer_text
from tabkit.schema import Field, FieldType

SENTINELS = (-9999.0, -999.0, -99.0, 999.0, 9999.0, 99999.0)

_SENSITIVE = re.compile(r"(^|_)(age|sex|gender|race|ethnic\w*|religion|nationality|marital\w*|disab\w*)(_|$)", re.I)


@dataclass(frozen=True)
class ColumnProfile:
    """A column as it will be written: its field, and the comments that stand above it.

    ``excluded`` is the reason why it is no feature; empty if it is one.
    """

    name: str
    spec: Field
    missing: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    excluded: str = ""
    unique: bool = False
    mixed: bool = False


def infer(values: pl.Series, delimiter: str = ",", *, is_target: bool = False) -> ColumnProfile:
    """Infer one column's type and notation from its own values.

    Parameters
    ----------
    delimiter
        Of the file: what separates cells is rarely a decimal mark too.
    is_target
        Whether its texts are classes, one of which may be called None.
    """
    name, comments, values = values.name, [], values.alias("")
    sensitive = bool(_SENSITIVE.search(name))
    if sensitive:
        comments.append("looks like a personal attribute: marked sensitive, so that the report compares its groups")
    numbers = pl.Series(dtype=pl.Float64)
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String).str.strip_chars()
        guess = infer_text(text, delimiter, is_target=is_target)
        codes, mixed = guess.codes, guess.mixed
        spec = guess.spec.model_copy(update={"sensitive": sensitive})
        is_missing = text.is_in(["", *guess.missing]) | text.is_null()
        if n_missing := int(is_missing.sum()):
            counts = text.filter(is_missing).fill_null("").alias("value").value_counts(sort=True, name="n").rows()
            written = " and ".join(f"{code!r} ({n:,})" for code, n in sorted(counts, key=lambda r: (-r[1], r[0])))
            comments += _missing_note(n_missing, values.len(), f", written as {written}")
        comments += guess.comments
        if spec.type in ("number", "integer"):
            numbers = read_cells(text.filter(~is_missing), spec).cast(pl.Float64)
    else:
        spec, codes, mixed = Field(type=_infer_typed(values), sensitive=sensitive), (), False
        present = values.drop_nans() if values.dtype.is_float() else values
        comments += _missing_note(values.len() - present.drop_nulls().len(), values.len(), "")
        if spec.type in ("number", "integer"):
            numbers = values.cast(pl.Float64)
    comments += _sentinel_notes(numbers)
    unique = values.null_count() == 0 and values.len() > 1 and values.n_unique() == values.len()
    return ColumnProfile(name, spec, codes, tuple(comments), unique=unique, mixed=mixed)


def _missing_note(n_missing: int, n_rows: int, written: str) -> list[str]:
    return [f"missing in {n_missing:,} of {n_rows:,} rows ({n_missing / n_rows:.1%}){written}"] if n_missing else []


def _infer_typed(values: pl.Series) -> FieldType:
    dtype = values.dtype
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        # Beyond 64 signed bits a number is a key.
        return "integer" if values.cast(pl.Int64, strict=False).null_count() == values.null_count() else "string"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Date:
        return "date"
    return "datetime" if dtype == pl.Datetime else "string"


def _sentinel_notes(numbers: pl.Series) -> list[str]:
    present = numbers.drop_nulls().to_numpy()
    present = present[np.isfinite(present)]
    if len(present) < 20:
        return []
    out = []
    for code in SENTINELS:
        share = (present == code).sum() / len(present)
        if share <= 0.005:
            continue
        others = present[~np.isin(present, SENTINELS)]
        if not len(others):
            continue
        low, high = others.min(), others.max()
        if max(low - code, code - high) > 0.2 * (high - low):
            out.append(
                f"{code:g} stands apart from all other values in {share:.1%} of the rows; if it means missing, add: missing = [{code:g}]"
            )
    return out
