"""What a column of text holds: truth, numbers in some notation, dates, or names. Judged by its own cells only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from tabkit.data.cells import CURRENCY, read_cells
from tabkit.schema import Field, Schema

MISSING_CODES = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "?", "-", "--", ".", "n/a", "#N/A")

DATE_FORMATS = (
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d-%b-%Y", "%d %b %Y", "%b %d, %Y",
    "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%d-%b-%y",
)  # fmt: skip

CLOCKS = ("%H:%M", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p")

_SHORT_YEAR = r"^\d{1,2}[./-](?:\d{1,2}|\p{L}{3})[./-]\d\d(?:\s|$)"
_ZONE = r":\d\d(?:\.\d+)?\s?(?:Z|z|UTC|[+-]\d\d(?::?\d\d)?)$"
_WHOLE = r"^[+-]?\d{1,18}$"

MOST_BAD_CELLS = 0.05
"""Share of a numeric target's cells that may be anything else: they are then missing, and said to be."""

LEAST_DECIMALS = 20
"""Different numbers such as 2,4 in a file cut by commas, above which they are no list of choices."""


@dataclass(frozen=True)
class Guess:
    """What a text column holds.

    Attributes
    ----------
    codes
        Missing codes that its field must state, beyond the schema's own.
    missing
        All texts that mean missing in it.
    """

    spec: Field
    codes: tuple[str, ...] = ()
    missing: tuple[str, ...] = MISSING_CODES
    comments: tuple[str, ...] = ()
    mixed: bool = False


def infer_text(text: pl.Series, delimiter: str, *, is_target: bool) -> Guess:
    """Infer what stripped text (n_rows,) holds."""
    is_code = text.is_in(list(MISSING_CODES))
    found = set(text.filter(is_code).unique()) if is_code.any() else set()
    codes = tuple(sorted(found - set(Schema.model_fields["missing"].default)))
    rest = text.filter(~is_code).drop_nulls() if found or text.null_count() else text
    guess = _guess(rest, delimiter, is_target=is_target)
    if not is_target or guess.spec.type != "string":
        return Guess(
            guess.spec,
            tuple(sorted({*codes, *guess.codes})),
            (*MISSING_CODES, *guess.codes),
            guess.comments,
            guess.mixed,
        )
    # Of a target's texts, only what the field states means missing: a class may be called None.
    comments = guess.comments
    if "None" in found:
        n = int((text == "None").sum())
        comments = (*comments, f"'None' ({n:,}) is taken as a class; if it means missing, list it under missing")
    stated = tuple(sorted(found - {"", "None"}))
    return Guess(guess.spec, stated, stated, comments, guess.mixed)


def _guess(rest: pl.Series, delimiter: str, *, is_target: bool) -> Guess:
    if rest.is_empty():
        return Guess(Field(type="string"))
    truth = {"true", "false"}
    if rest[0].lower() in truth and set(rest.str.to_lowercase().unique()) <= truth:
        return Guess(Field(type="boolean"))
    digits = rest.str.contains(r"^[+-]?\d+$").all()
    # 007, phone numbers and keys of more than 18 digits are names, not quantities.
    if digits and rest.str.contains(r"^0\d|^[+-]?\d{19,}$").any():
        return Guess(
            Field(type="string"), comments=("digits with leading zeros or too many for a number: kept as text",)
        )
    eight = digits and rest.str.contains(r"^(19|20)\d{6}$").all()
    if eight and rest.n_unique() > 1 and _fits(rest, day := Field(type="date", format="%Y%m%d")):
        return Guess(day)
    numbers = _as_numbers(rest, delimiter)
    if numbers is not None and _fits(rest, numbers.spec):
        return numbers
    return _as_times(rest) or _mostly_numbers(rest, numbers, is_target=is_target)


def _fits(text: pl.Series, spec: Field) -> bool:
    parts = (text.head(50), text) if text.len() > 1000 else (text,)
    return all(read_cells(part, spec).null_count() == 0 for part in parts)


def _n_read(text: pl.Series, spec: Field) -> int:
    return text.len() - read_cells(text, spec).null_count()


def _as_numbers(rest: pl.Series, delimiter: str) -> Guess | None:
    """Return the notation in which most cells are numbers; None if hardly any is one."""
    if not rest.str.contains(r"\d").any():
        return None
    plain = Field(type="number")
    if _fits(rest, plain):
        return _plain(rest)
    notations = [(plain, rest)]
    if rest.str.ends_with("%").any():
        notations.append((Field(type="number", notation="percent", unit="%"), rest.str.strip_chars_end("% ")))
    signs = rest.str.extract(f"({CURRENCY})").drop_nulls().unique().to_list()
    if signs or rest.str.contains(r"^\(.*\d\)$").any():
        unit = signs[0] if len(signs) == 1 else ""
        if len(signs) > 1 and _n_read(rest, Field(type="number", notation="currency", group=",")) > 0.8 * rest.len():
            shown = ", ".join(repr(sign) for sign in sorted(signs)[:4])
            advice = (
                f"amounts in several currencies ({shown}): kept as text; convert them to one to use them as numbers"
            )
            return Guess(Field(type="string"), comments=(advice,))
        if len(signs) < 2:
            bare = rest.str.replace_all(f"{CURRENCY}|[()\\s]", "")
            notations.append((Field(type="number", notation="currency", unit=unit), bare))
    best: Guess | None = None
    most = 0
    for spec, bare in notations:
        guess = _with_marks(rest, bare, spec, delimiter)
        if (n := _n_read(rest, guess.spec)) > most:
            best, most = guess, n
    return best


def _plain(rest: pl.Series) -> Guess:
    if rest.str.contains(_WHOLE).all():
        return Guess(Field(type="integer"))
    # 5.601 may be 5601 if every point could group thousands: 0.642, 12345.678 and 7.5 could not.
    grouped = rest.str.contains(r"^[+-]?(?:[1-9]\d{0,2}\.\d{3}|\d{1,3})$").all()
    comments: tuple[str, ...] = ()
    if grouped:
        first = str(rest.filter(rest.str.contains(".", literal=True))[0])
        comments = (
            f"{first!r} is read as {first}, with a decimal point, and every point stands before three digits: if it groups "
            'thousands, set decimal = "," and group = "."',
        )
    return Guess(Field(type="number"), comments=comments)


def _with_marks(rest: pl.Series, bare: pl.Series, spec: Field, delimiter: str) -> Guess:
    """Return the decimal and the grouping mark with which most cells are numbers; what is ambiguous is said."""
    marks: list[tuple[str | None, str | None]] = [(None, None)]
    if bare.str.contains(r"\d,\d").any():
        marks += [(None, ","), (",", None)]
    for group, pattern in ((" ", r"\d[\s\u00a0\u202f\u2009]\d"), ("'", "\\d['\u2019]\\d")):
        if bare.str.contains(pattern).any():
            comma = [(",", group), (None, group)]
            marks += comma if delimiter == ";" else comma[::-1]
    if bare.str.contains(r"\d\.\d{3}\.\d{3}").any():
        marks.append((",", None))
    specs = [spec.model_copy(update={"decimal": decimal, "group": group}) for decimal, group in marks]
    n_read = [_n_read(rest, each) for each in specs]
    best = max(n_read)
    fitting = [each for each, n in zip(specs, n_read, strict=True) if n == best]
    if len({(each.decimal, each.group) for each in fitting} & {(None, ","), (",", None)}) == 2:
        return _comma(bare, spec, delimiter)
    chosen = fitting[0]
    if chosen.decimal == "," and chosen.group is None and delimiter == "," and bare.n_unique() <= LEAST_DECIMALS:
        return Guess(
            Field(type="string"),
            comments=(
                f'{rest[0]!r} and others could be a list or a number: kept as text; for numbers, set type to number and decimal = ","',
            ),
        )
    if not (words := _words(chosen)):
        return Guess(chosen)
    n_other = rest.len() - _n_read(rest, Field(type="number"))
    return Guess(
        chosen, comments=(f"read as {', '.join(words)} ({n_other:,} of {rest.len():,} values are so written)",)
    )


def _words(spec: Field) -> list[str]:
    words = []
    if spec.notation is None and (spec.decimal or spec.group):
        words.append("numbers")
    if spec.notation == "percent":
        words.append("numbers in per cent: 12.5% is 12.5")
    if spec.notation == "currency":
        words.append("amounts of money: a currency is taken off, and (300) is -300")
    if spec.decimal == ",":
        words.append("with a decimal comma")
    if spec.group is not None:
        words.append(f"with thousands grouped by {spec.group!r}")
    return words


def _comma(bare: pl.Series, spec: Field, delimiter: str) -> Guess:
    """Tell whether the comma of 4,311 groups thousands, if every cell could be read either way."""
    plain = bare.filter(bare.str.contains(r"^[+-]?\d+$")).str.strip_chars("+-")
    example = str(bare.filter(bare.str.contains(",", literal=True))[0])
    grouped, decimal = spec.model_copy(update={"group": ","}), spec.model_copy(update={"decimal": ","})
    whole, part = example.replace(",", ""), example.replace(",", ".")
    if bare.str.contains(r"^[+-]?0\d*,").any():
        return Guess(decimal, comments=("read as numbers, with a decimal comma",))
    small = plain.len() > 0 and bool((plain.str.len_chars() <= 3).all())
    if small:
        why = f"the comma groups thousands ({example!r} is {whole}), since it always stands before three digits and no number from 1000 on lacks it"
        return Guess(grouped, comments=(why,))
    takes_groups = plain.is_empty() and delimiter != ";"
    read, other = (
        (whole, 'decimal = "," in the place of group')
        if takes_groups
        else (part, 'group = "," in the place of decimal')
    )
    text = (
        f"ambiguous: {example!r} is read as {read}, but could be {part if takes_groups else whole}; if so, set {other}"
    )
    return Guess(grouped if takes_groups else decimal, comments=(text,))


def _as_times(rest: pl.Series) -> Guess | None:
    clocked = rest.str.contains(":", literal=True).any()
    kind: Literal["datetime", "date"] = "datetime" if clocked else "date"
    iso = Field(type=kind)
    if rest.str.contains(r"^\d{4}\D").all() and _fits(rest, iso):
        zoned = rest.str.contains(_ZONE)
        if not zoned.any():
            return Guess(iso)
        some = "times with an offset are read in UTC"
        if not zoned.all():
            some += f"; {int((~zoned).sum()):,} state none, and are taken to be UTC as well"
        return Guess(iso, comments=(some,))
    short = rest.str.contains(_SHORT_YEAR).all()
    for day in DATE_FORMATS:
        if ("%y" in day) != short:
            continue
        for form in [f"{day} {clock}" for clock in CLOCKS] if clocked else [day]:
            if _fits(rest, spec := Field(type=kind, format=form)):
                return Guess(spec, comments=tuple(_doubts(rest, spec)))
    return None


def _doubts(rest: pl.Series, spec: Field) -> list[str]:
    """Say what a date could mean besides."""
    assert spec.format is not None
    doubts = []
    if spec.format.startswith("%d/%m/"):
        swapped = spec.format.replace("%d/%m/", "%m/%d/")
        if _fits(rest, spec.model_copy(update={"format": swapped})):
            doubts.append(
                f"no day is above 12, so days and months could be swapped: if the month comes first, set format to {swapped}"
            )
    if "%y" in spec.format:
        doubts.append("years of two digits: 70 to 99 are taken as 1970 to 1999, 00 to 69 as 2000 to 2069")
    return doubts


def _mostly_numbers(rest: pl.Series, guess: Guess | None, *, is_target: bool) -> Guess:
    """Judge text among numbers: a single word that comes back means missing; anything else is for a person."""
    name = Field(type="string")
    if guess is None or guess.spec.type == "string":
        return Guess(name, comments=guess.comments if guess else _with_unit(rest))
    numbers = read_cells(rest, guess.spec)
    words, known = rest.filter(numbers.is_null()), numbers.drop_nulls()
    if known.len() < 0.8 * rest.len() or known.n_unique() <= 10:
        return Guess(name, comments=_with_unit(rest))
    share = f"{known.len() / rest.len():.1%} of its values are numbers"
    shown = ", ".join(repr(word) for word in words.unique(maintain_order=True)[:3])
    several = words.n_unique() > 1 or re.search(r"\d", words[0]) is not None
    if several and is_target and words.len() <= MOST_BAD_CELLS * rest.len():
        text = f"{words.len():,} of {rest.len():,} values are no numbers ({shown}): taken as missing, so that those rows are left out; fix them to use them"
        return Guess(guess.spec, tuple(sorted(words.unique())), comments=(*guess.comments, text))
    if not several:
        whole = rest.filter(numbers.is_not_null()).str.contains(_WHOLE).all()
        spec = Field(type="integer") if whole else guess.spec
        comment = f"{share}, and {words[0]!r} ({words.len():,}) is the only other: taken as missing"
        return Guess(spec, (words[0],), comments=(*guess.comments, comment))
    how = "".join(
        f", {key} = {value!r}" for key in ("decimal", "group", "notation") if (value := getattr(guess.spec, key))
    )
    advice = f"{share}, but not {shown} ({words.len():,} in all): fix them, or list them under missing, and set type to number{how}"
    return Guess(name, comments=(advice,), mixed=True)


def _with_unit(rest: pl.Series) -> tuple[str, ...]:
    """Say what to do with numbers that a unit or a word follows, such as 12 kg."""
    shape = r"^[+-]?\d[\d.,]*\s*([^\d\s.,:/-]{1,8})$"
    units = rest.str.extract(shape).drop_nulls()
    if units.len() < 0.8 * rest.len() or units.n_unique() > 3 or rest.n_unique() <= 10:
        return ()
    return (
        f"{rest[0]!r} and others look like numbers with {' or '.join(repr(u) for u in sorted(units.unique()))}: kept as text; take it off in the file to "
        "use them as numbers",
    )
