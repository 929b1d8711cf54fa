"""What one column holds, inferred from its values."""

from __future__ import annotations

import re
from dataclasses import dataclass

import polars as pl

from tabkit.schema import Field, Schema

MISSING_CODES = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-", "--", ".", "n/a", "#N/A")

SENTINELS = (-9999.0, -999.0, -99.0, 999.0, 9999.0, 99999.0)

DATE_FORMATS = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y")

MOMENT_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M")

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


def infer(values: pl.Series, decimal: str) -> ColumnProfile:
    """Infer one column's type from its values."""
    name, comments, mixed = values.name, [], False
    sensitive = bool(_SENSITIVE.search(name))
    if sensitive:
        comments.append("looks like a personal attribute: marked sensitive, so that the report compares its groups")
    numbers = pl.Series(dtype=pl.Float64)
    if values.dtype in (pl.String, pl.Categorical, pl.Enum):
        text = values.cast(pl.String).str.strip_chars()
        guess = _infer_text(text, decimal)
        kind, form, codes, mixed = guess.kind, guess.format, guess.codes, guess.mixed
        is_missing = text.is_in([*MISSING_CODES, *codes]) | text.is_null()
        counts = text.filter(is_missing).fill_null("").alias("value").value_counts(sort=True, name="n").rows()
        written = " and ".join(f"{code!r} ({n:,})" for code, n in sorted(counts, key=lambda r: (-r[1], r[0])))
        comments += [*_missing_note(int(is_missing.sum()), values.len(), f", written as {written}"), *guess.comments]
        if kind in ("number", "integer"):
            numbers = _to_numbers(text.filter(~is_missing), decimal)
    else:
        kind, form, codes = _infer_typed(values), None, ()
        present = values.drop_nans() if values.dtype.is_float() else values
        comments += _missing_note(values.len() - present.drop_nulls().len(), values.len(), "")
        if kind in ("number", "integer"):
            numbers = values.cast(pl.Float64)
    comments += _sentinel_notes(numbers)
    spec = Field(type=kind, format=form, sensitive=sensitive)  # type: ignore[arg-type]
    unique = values.null_count() == 0 and values.len() > 1 and values.n_unique() == values.len()
    return ColumnProfile(name, spec, codes, tuple(comments), unique=unique, mixed=mixed)


def _missing_note(n_missing: int, n_rows: int, written: str) -> list[str]:
    return [f"missing in {n_missing:,} of {n_rows:,} rows ({n_missing / n_rows:.1%}){written}"] if n_missing else []


def _infer_typed(values: pl.Series) -> str:
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


_SWAPPED = "no day is above 12, so days and months could be swapped: if the month comes first, set format to %m/%d/%Y"


@dataclass(frozen=True)
class _Guess:
    """What a text column holds; ``codes`` are missing codes beyond the schema's own."""

    kind: str
    format: str | None = None
    codes: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    mixed: bool = False


def _infer_text(text: pl.Series, decimal: str) -> _Guess:
    defaults = set(Schema.model_fields["missing"].default)
    rest = text.filter(~text.is_in(list(MISSING_CODES))).drop_nulls()
    codes = tuple(sorted(set(text.filter(text.is_in(list(MISSING_CODES))).unique()) - defaults))
    if rest.is_empty():
        return _Guess("string", codes=codes)
    if set(rest.str.to_lowercase().unique()) <= {"true", "false"}:
        return _Guess("boolean", codes=codes)
    # 007, phone numbers and keys of more than 18 digits are names, not quantities.
    if rest.str.contains(r"^[+-]?\d+$").all() and rest.str.contains(r"^0\d|^[+-]?\d{19,}$").any():
        return _Guess("string", None, codes, ("digits with leading zeros or too many for a number: kept as text",))
    eight = rest.str.contains(r"^(19|20)\d{6}$").all()
    if eight and rest.n_unique() > 1 and rest.str.strptime(pl.Date, "%Y%m%d", strict=False).null_count() == 0:
        return _Guess("date", "%Y%m%d", codes)
    numbers = _to_numbers(rest, decimal)
    if numbers.null_count() == 0:
        whole = rest.str.contains(r"^[+-]?\d{1,18}$").all()
        return _Guess("integer" if whole else "number", codes=codes)
    for kind, formats in (("date", DATE_FORMATS), ("datetime", MOMENT_FORMATS)):
        dtype = pl.Date if kind == "date" else pl.Datetime("us")
        fits = [f for f in formats if rest.str.strptime(dtype, f, strict=False).null_count() == 0]
        if fits:
            default = fits[0] in ("%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S")
            both = [f for f in fits if f in ("%d/%m/%Y", "%m/%d/%Y")]
            comments = (_SWAPPED,) if len(both) == 2 else ()
            return _Guess(kind, None if default else fits[0], codes, comments)
    return _mostly_numbers(rest, numbers, codes)


def _mostly_numbers(rest: pl.Series, numbers: pl.Series, codes: tuple[str, ...]) -> _Guess:
    """Judge text among numbers: a single word that comes back means missing; anything else is for a person."""
    words = rest.filter(numbers.is_null())
    kept = numbers.drop_nulls()
    if kept.len() < 0.8 * rest.len() or kept.n_unique() <= 10:
        return _Guess("string", codes=codes)
    share = f"{kept.len() / rest.len():.1%} of its values are numbers"
    if words.n_unique() == 1 and not re.search(r"\d", words[0]):
        whole = rest.filter(numbers.is_not_null()).str.contains(r"^[+-]?\d{1,18}$").all()
        comment = f"{share}, and {words[0]!r} is the only other: taken as missing"
        return _Guess("integer" if whole else "number", None, tuple(sorted((*codes, words[0]))), (comment,))
    shown = ", ".join(repr(word) for word in words.unique(maintain_order=True)[:3])
    advice = f"{share}, but not {shown}: fix them, or list them under missing, and set type to number"
    return _Guess("string", None, codes, (advice,), mixed=True)


def _to_numbers(text: pl.Series, decimal: str) -> pl.Series:
    """Read numbers as :func:`conform` does: with a decimal comma, a point must group thousands."""
    if decimal == ",":
        fits = text.str.contains(r"^[+-]?(\d{1,3}(\.\d{3})+(,\d+)?|\d+(,\d+)?([eE][+-]?\d+)?)$")
        cleaned = text.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
        text = pl.select(pl.when(fits).then(cleaned)).to_series()
    return text.cast(pl.Float64, strict=False)


def _sentinel_notes(numbers: pl.Series) -> list[str]:
    present = numbers.drop_nulls()
    present = present.filter(present.is_finite())
    if present.len() < 20:
        return []
    out = []
    for code in SENTINELS:
        share = (present == code).sum() / present.len()
        others = present.filter(~present.is_in(list(SENTINELS)))
        if share <= 0.005 or others.is_empty():
            continue
        low, high = others.min(), others.max()
        assert isinstance(low, float) and isinstance(high, float)
        if max(low - code, code - high) > 0.2 * (high - low):
            out.append(
                f"{code:g} stands apart from all other values in {share:.1%} of the rows; if it means missing, add: missing = [{code:g}]"
            )
    return out
