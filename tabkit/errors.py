"""What can go wrong, and the exit code it ends with.

A user's fault is a :class:`TabkitError`: its message says what happened and where, what was
expected, and how to fix it. It reaches the terminal as that message alone, never as a traceback.
Anything else that escapes is our own fault (exit code 1).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE, EXIT_OUR_FAULT, EXIT_USAGE, EXIT_DATA, EXIT_BUNDLE, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130


class TabkitError(Exception):
    """A fault of the user's, told in one message. Each subclass carries its exit code."""

    exit_code = EXIT_USAGE


class UsageError(TabkitError):
    """The command line, a recipe or a schema asks for something that cannot be done."""


class DataError(TabkitError):
    """The data does not fit its schema, or cannot answer the recipe's question."""

    exit_code = EXIT_DATA


class BundleError(TabkitError):
    """A bundle is incomplete, changed, or of another format version."""

    exit_code = EXIT_BUNDLE


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the closest known names, to be appended to an error.

    >>> nearest("int_rat", ["int_rate", "term"])
    " Did you mean 'int_rate'?"
    >>> nearest("zzz", ["int_rate", "term"])
    " Known: 'int_rate', 'term'."
    """
    names = sorted(set(known))
    lower = {known.lower(): known for known in reversed(names)}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=2, cutoff=0.6)]
    if close:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    if not names:
        return ""
    shown = ", ".join(map(repr, names[:12])) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f" Known: {shown}."


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Spell a counted noun.

    >>> count(1, "row"), count(9857, "row")
    ('1 row', '9,857 rows')
    """
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def length_of(seconds: float, in_days: bool = False) -> str:
    """Spell a length of time in the largest unit that suits it: days from two on, or if it is whole days.

    Parameters
    ----------
    in_days
        Whether days are the unit, however short it is.

    >>> length_of(21_600), length_of(86_400), length_of(129_600), length_of(648_000), length_of(90)
    ('6 hours', '1 day', '36 hours', '7.5 days', '1.5 minutes')
    """
    unit, name = (60, "minute") if seconds < 3600 else (3600, "hour")
    if in_days or seconds >= 2 * 86_400 or (seconds > 0 and seconds % 86_400 == 0):
        unit, name = 86_400, "day"
    shown = f"{seconds / unit:,.1f}".removesuffix(".0")
    return f"{shown} {name}{'' if shown == '1' else 's'}"


_PROPER = ("Brier", "Gini", "Kolmogorov")


def inside(title: str) -> str:
    """Return a metric's title as it stands inside a sentence.

    >>> inside("Log loss"), inside("ROC AUC"), inside("Brier score"), inside("R squared")
    ('log loss', 'ROC AUC', 'Brier score', 'R squared')
    """
    return title if title.startswith(_PROPER) or not title[1:2].islower() else title[0].lower() + title[1:]
