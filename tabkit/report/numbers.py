# ruff: noqa: RUF002 (the doctests hold the typographic signs that people are meant to see)
"""Numbers for people: three or four significant digits, thousands separators, a true minus, never a false zero."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterable
from typing import TypeGuard

from tabkit.result import Interval

MISSING = "–"
NEARLY_ZERO = "≈\u00a00"
_MINUS = "−"
_LONG = 1e15
"""From here on a number is shown as a power of ten: nobody counts its commas."""
_MOST_DECIMALS = 8
"""Decimals up to which a column of small numbers has them in common."""
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def known(value: float | None) -> TypeGuard[float]:
    """Tell whether there is a number to show: neither None nor NaN."""
    return value is not None and math.isfinite(value)


def number(value: float | None, digits: int = 3) -> str:
    """Format one number by itself, to ``digits`` significant digits.

    >>> number(0.012345), number(9857), number(1.8e-5), number(1.8e-7), number(-0.5), number(0.0), number(None)
    ('0.0123', '9,857', '0.000018', '1.8 × 10⁻⁷', '−0.5', '0', '–')
    >>> number(1234567.8), number(59.6), number(0.0001)
    ('1,234,568', '59.6', '0.0001')
    """
    if not known(value):
        return MISSING
    if value == 0:
        return "0"
    if abs(value) < 1e-6 or abs(value) >= _LONG:
        return scientific(value, digits)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _trimmed(f"{value:,.{decimals}f}").replace("-", _MINUS)


def scientific(value: float, digits: int) -> str:
    """Format a number other than zero as a power of ten.

    >>> scientific(-1.5e-12, 3), scientific(2e9, 2)
    ('−1.5 × 10⁻¹²', '2 × 10⁹')
    """
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{_trimmed(mantissa)} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", _MINUS)


def signed(value: float | None, digits: int = 3) -> str:
    """Format a change, with its sign.

    >>> signed(0.01), signed(-0.0129), signed(0.0)
    ('+0.01', '−0.0129', '0')
    """
    text = number(value, digits)
    return f"+{text}" if known(value) and value > 0 else text


def fixed(value: float | None, decimals: int, *, sign: bool = False) -> str:
    """Format a number of a column with its common decimals; one too small for them is told from a true zero.

    >>> fixed(1.234e-12, 15), fixed(2.5e20, 0)
    ('1.234 × 10⁻¹²', '2.5 × 10²⁰')
    >>> fixed(0.5, 3), fixed(0.00004, 3), fixed(0.00012, 3), fixed(-0.25, 2, sign=True), fixed(0.0, 3)
    ('0.500', '≈\xa00', '≈\xa00', '−0.25', '0')
    """
    if not known(value):
        return MISSING
    if value == 0:
        return "0"
    if decimals > _MOST_DECIMALS or abs(value) >= _LONG:
        text = number(value, max(2, decimals + 1 + math.floor(math.log10(abs(value)))) if decimals else 4)
    else:
        text = f"{value:,.{decimals}f}"
        if float(text.replace(",", "")) == 0:
            return NEARLY_ZERO
    text = text.replace("-", _MINUS)
    return f"+{text}" if sign and value > 0 else text


def decimals_for(scores: Iterable[Interval | None]) -> int:
    """Return the decimals that a column of scores deserves: two digits of the narrowest interval, 3 or 4 in all.

    >>> decimals_for([Interval(0.72, 0.65, 0.78)]), decimals_for([Interval(0.7212, 0.7182, 0.7241)])
    (3, 4)
    >>> decimals_for([Interval(4321.0, 4300.0, 4350.0)])
    0
    """
    defined = [s for s in scores if s is not None and known(s.value)]
    sizes = [abs(v) for s in defined for v in (s.value, s.low, s.high) if known(v) and v]
    if not sizes:
        return 3
    magnitude = math.floor(math.log10(max(sizes)))
    widths = [w for s in defined if known(w := (s.high - s.low) / 2) and w > 1e-12 * max(sizes)]
    wanted = 1 - math.floor(math.log10(min(widths))) if widths else 3 - magnitude
    return max(0, min(max(wanted, 2 - magnitude), 3 - magnitude))


def interval(score: Interval | None, decimals: int | None = None, *, sign: bool = False) -> str:
    """Format a value with its interval.

    >>> interval(Interval(0.7212, 0.65, 0.7819))
    '0.721 [0.650, 0.782]'
    >>> interval(Interval(0.01, -0.002, 0.02), sign=True)
    '+0.0100 [−0.0020, +0.0200]'
    """
    if score is None or not known(score.value):
        return MISSING
    if decimals is None:
        decimals = decimals_for([score])
    return f"{fixed(score.value, decimals, sign=sign)} {limits(score, decimals, sign=sign)}".strip()


def limits(score: Interval | None, decimals: int, *, sign: bool = False) -> str:
    """Format only the interval; nothing if there is none."""
    if score is None or not (known(score.low) and known(score.high)):
        return ""
    return f"[{fixed(score.low, decimals, sign=sign)}, {fixed(score.high, decimals, sign=sign)}]"


def share(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """Format a share, or with ``sign`` a relative change, as a percentage.

    >>> share(0.9188), share(1.0), share(0.0004), share(None), share(0.066, sign=True)
    ('91.9%', '100%', '0.04%', '–', '+6.6%')
    """
    return MISSING if not known(value) else f"{(signed if sign else number)(100 * value, digits)}%"


def whole(value: float | None) -> str:
    """Format a count.

    >>> whole(9857), whole(None)
    ('9,857', '–')
    """
    return MISSING if not known(value) else f"{value:,.0f}".replace("-", _MINUS)


def duration(seconds: float | None) -> str:
    """Format a duration.

    >>> duration(0.0005), duration(4.25), duration(125.0), duration(7300.0)
    ('0.5 ms', '4.25 s', '2 min 5 s', '2 h 2 min')
    """
    if not known(seconds):
        return MISSING
    if seconds < 0.1:
        return f"{number(1000 * seconds, 2)} ms"
    if seconds < 90:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 90:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def money(value: float | None, unit: str, *, sign: bool = False) -> str:
    """Format an amount in the recipe's unit, without an interval: three digits, none of them below a hundredth.

    >>> money(1020676.6, "USD"), money(1.8e-5, "USD"), money(2989.7, "USD", sign=True), money(0.0, "USD")
    ('1,020,000 USD', 'under 0.01 USD', '+2,990 USD', '0 USD')
    """
    if not known(value):
        return MISSING
    if 0 < abs(value) < 0.005:
        return f"under 0.01 {unit}".strip()
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    text = f"{round(value, min(2, digits)):,.{max(0, min(2, digits))}f}".replace("-", _MINUS)
    return f"{'+' if sign and value > 0 else ''}{text} {unit}".strip()


def amount(score: Interval, unit: str, *, sign: bool = False) -> str:
    """Format an amount with its interval, to the two digits of the half-width that it bears.

    >>> amount(Interval(31.4, -800.0, 900.0), "USD", sign=True), amount(Interval(-2498.0, -23278.0, 12804.0), "USD")
    ('+30 USD [−800, +900]', '−2,000 USD [−23,000, 13,000]')
    >>> amount(Interval(412345.6, 380000.0, 440000.0), "USD"), amount(Interval(0.112, 0.081, 0.143), "USD", sign=True)
    ('412,000 USD [380,000, 440,000]', '+0.11 USD [+0.08, +0.14]')
    """
    width = (score.high - score.low) / 2
    if not (known(width) and width > 0):
        return money(score.value, unit, sign=sign)
    places = 1 - math.floor(math.log10(width))
    places = 2 if width >= 0.02 and places > 2 else places  # money has hundredths
    value, low, high = (
        fixed(round(v, places), max(0, places), sign=sign) for v in (score.value, score.low, score.high)
    )
    return f"{f'{value} {unit}'.strip()} [{low}, {high}]"


def typographic(text: str) -> str:
    """Return a sentence with the minus sign that the page's own numbers have.

    >>> typographic("-0.5 [-1, +2], from 2017-12-04, 1e-05, x-1")
    '−0.5 [−1, +2], from 2017-12-04, 1e-05, x-1'
    """
    return re.sub(r"(?<![\w.)-])-(?=\.?\d)", _MINUS, text)


def parameters(trained: int, total: int) -> str:
    """Format how much of a model was trained.

    >>> parameters(1234, 5678), parameters(10, 10), parameters(0, 5)
    ('1,234 of 5,678', 'all 10', 'none of 5')
    """
    if trained == total:
        return f"all {total:,}"
    return f"{trained:,} of {total:,}" if trained else f"none of {total:,}"


def shortened(text: str, most: int) -> str:
    """Cut a label to ``most`` characters.

    >>> shortened("loan_to_income", 8)
    'loan_to…'
    """
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def wrapped(text: str, most: int) -> list[str]:
    """Return the lines of a label, of ``most`` characters each; none if it is empty.

    >>> wrapped("Interest rate, set by the lender", 16), wrapped("loan_to_income_of_all", 8)
    (['Interest rate,', 'set by the', 'lender'], ['loan_to_', 'income_o', 'f_all'])
    """
    return textwrap.wrap(text, most)


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
