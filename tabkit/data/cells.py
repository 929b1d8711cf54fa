"""What a cell of text means: numbers by the notation stated, dates and times by their format.

``tabkit new`` infers with the same rules by which :mod:`tabkit.data.conform` reads, so both agree on every cell.
"""

from __future__ import annotations

import re
from datetime import datetime, time

import polars as pl
from polars.exceptions import PanicException, PolarsError

from tabkit.schema import FALSE, TRUE, Field, Schema

_SPACES = r"[\s\u00a0\u2007\u2009\u202f]"
_GROUPS = {",": ",", ".": r"\.", "'": "['\u2019]", " ": _SPACES}

_SIGNS = r"(?:US|A|C|NZ|HK|S|R)?\$|[€£¥₹₩₽₺₫₪฿₴₦]|kr\.?|zł|Kč|Fr\.|Rs\.?"
_CODES = (
    "USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|ISK|PLN|CZK|HUF|RON|BGN|TRY|RUB|UAH|BRL|MXN|ARS|CLP|COP|PEN|"
    "ZAR|KRW|SGD|HKD|TWD|THB|IDR|MYR|PHP|VND|ILS|AED|SAR|QAR|EGP|NGN|KES|GHS|MAD|PKR|BDT|LKR"
)
CURRENCY = f"(?:{_SIGNS}|{_CODES})"
"""Regular expression of a currency's sign or code."""

_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d")
_ZONE = r"(\d)\s?(?:Z|z|UTC)$"
_HAS_ZONE = r":\d\d(?:[.,]\d+)?\s?(?:Z|z|UTC|[+-]\d\d(?::?\d\d)?)$"


def value_of(text: pl.Expr, spec: Field, schema: Schema) -> pl.Expr:
    """Return the typed value of stripped text; null if it is none of the field's type."""
    match spec.type:
        case "string":
            return text
        case "number" | "integer":
            plain = _plain_number(text, spec, *schema.marks(spec))
            number = plain.cast(pl.Float64, strict=False)
            if spec.type == "number":
                return number
            # Long integers pass through text, since a float would round them.
            exact = plain.cast(pl.Int64, strict=False)
            whole = number.is_finite() & (number == number.round())
            return pl.coalesce(exact, pl.when(whole).then(number).otherwise(None).cast(pl.Int64, strict=False))
        case "boolean":
            lower = text.str.to_lowercase()
            return (
                pl.when(lower.is_in(list(TRUE))).then(True).when(lower.is_in(list(FALSE))).then(False).otherwise(None)
            )
        case "date":
            return _day(text, spec.format)
        case "datetime":
            return _moment(text, spec.format)


def read_cells(text: pl.Series, spec: Field) -> pl.Series:
    """Read stripped text (n_rows,) as a field that depends on no dialect says."""
    alone = Schema.model_construct(name="alone", fields={"cells": spec})  # checked as the field was; fast
    return text.alias("cells").to_frame().select(value_of(pl.col("cells"), spec, alone)).to_series()


def reads_what_it_writes(spec: Field) -> bool:
    """Tell whether a field's format is one: a moment that is written by it is read again, in the same year.

    >>> [reads_what_it_writes(Field(type="date", format=form)) for form in ("%d/%m/%y", "%Y%j", "%d/%m", "day", "%Q")]
    [True, True, False, False, False]
    """
    moment = pl.Series([datetime(1999, 11, 28)]).dt.replace_time_zone("UTC")
    try:
        written = moment.dt.strftime(re.sub(r"%[:#]z", "%z", spec.format or "%Y-%m-%d"))
        read = read_cells(written.str.strip_chars(), spec).dt.year()
    except (PolarsError, PanicException):
        return False
    return bool((read == 1999).all()) and not read.null_count()


def _plain_number(text: pl.Expr, spec: Field, decimal: str, group: str | None) -> pl.Expr:
    """Return a number's text as Python writes it; null if the notation is another."""
    if spec.notation == "percent":
        text = pl.when(text.str.ends_with("%")).then(text.str.head(-1).str.strip_chars_end())
    elif spec.notation == "currency":
        sign = re.escape(spec.unit) if re.fullmatch(CURRENCY, spec.unit) else CURRENCY
        owed = text.str.contains(r"^\(.*\)$")
        text = pl.when(owed).then(text.str.strip_chars("()")).otherwise(text).str.strip_chars()
        text = text.str.replace(rf"^([+-]?)\s*{sign}\s*", "${1}").str.replace(rf"\s*{sign}$", "")
        # Minus twice, as in (-300), says two things: it is no number.
        text = pl.when(~owed).then(text).when(text.str.contains(r"^[\d.,]")).then(pl.concat_str(pl.lit("-"), text))
    if decimal == "." and group is None:
        return text
    mark = re.escape(decimal)
    thousands = rf"\d{{1,3}}(?:{_GROUPS[group]}\d{{3}})+|" if group is not None else ""
    fits = text.str.contains(rf"^[+-]?(?:(?:{thousands}\d+)(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?$")
    if group is not None:
        text = text.str.replace_all(_GROUPS[group], "")
    return pl.when(fits).then(text.str.replace(decimal, ".", literal=True))


def _day(text: pl.Expr, form: str | None) -> pl.Expr:
    """Return days; a moment at midnight is a day too, as tools that know no dates write it."""
    if form is not None and "z" in form:
        moment = _moment(text, form)
        days = []
    else:
        days = [_parsed(text, pl.Date(), f) for f in ([form] if form else _DATES)]
        moment = _moment(text, None)
        if form is not None:
            moment = pl.coalesce(_parsed(text, pl.Datetime("us"), f"{form} {t}") for t in ("%H:%M:%S%.f", "%H:%M"))
    return pl.coalesce(*days, pl.when(moment.dt.time() == time(0)).then(moment.dt.date()))


def _moment(text: pl.Expr, form: str | None) -> pl.Expr:
    """Return moments without a zone; those that state an offset are in UTC."""
    day = _parsed(text, pl.Date(), "%Y-%m-%d").cast(pl.Datetime("us"))
    if form is not None:
        if "z" not in form:
            return pl.coalesce(_parsed(text, pl.Datetime("us"), form), day)
        return pl.coalesce(_zoned(text, re.sub(r"%[:#]?z", "%#z", form)), day)
    text = text.str.replace(r"^(\d{4}-\d\d?-\d\d?)[Tt]", "${1} ")
    clock = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
    zoned = pl.when(text.str.contains(_HAS_ZONE)).then(text)
    naive = [_parsed(text, pl.Datetime("us"), f) for f in clock]
    return pl.coalesce(*naive, *(_zoned(zoned, f"{f}%#z") for f in clock), day)


def _zoned(text: pl.Expr, form: str) -> pl.Expr:
    offset = text.str.replace(_ZONE, "${1}+00:00").str.replace(r"\s([+-]\d\d:?\d\d)$", "${1}")
    form = form.replace(" %#z", "%#z")
    return _parsed(offset, pl.Datetime("us", "UTC"), form).dt.replace_time_zone(None)


def _parsed(text: pl.Expr, dtype: pl.Date | pl.Datetime, form: str) -> pl.Expr:
    # Polars' %f counts nanoseconds; whoever writes it means a fraction of a second, as in Python.
    form = form.replace(".%f", "%.f").replace("%f", "%6f")
    value = text.str.strptime(dtype, form, strict=False)
    if "%Y" not in form:
        return value
    # %Y takes 96 as the year 96; whoever writes two digits means %y.
    return pl.when((value.dt.year() >= 100) | text.str.contains(r"00\d\d")).then(value)
