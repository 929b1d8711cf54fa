"""What a row is recognised by, whatever its table is called, however it is ordered, cut or renamed.

A row's marks are hashes of its cells in the few columns of the file that tell rows apart best, used by the recipe or
not. Numbers count to six digits. Three marks and the label make a key; a row is the same if any of its keys is, so that
two of five columns may be dropped or rewritten. Names play no part, unless the columns hardly tell rows apart.

A set of rows is kept as its least key hashes (Bar-Yossef et al., *Counting Distinct Elements in a Data Stream*, RANDOM
2002): exact up to ``MOST_KEYS`` rows, and an estimate of the share in common beyond.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.frames import values_of

Hashes = npt.NDArray[np.uint64]

MARKS = 5
"""Columns that mark a row."""
IN_A_KEY = 3
MOST_KEYS = 512
"""Hashes kept of a set of rows, for each choice of columns."""
LEAST_APART = 0.9
"""Share of different keys from which columns tell rows apart."""
LEAST_COMMON = 3
"""Fewer keys in common are chance."""
_LOOKED_AT = 2_000
_DIGITS = 6


def marking(frame: pl.DataFrame) -> list[str]:
    """Return the columns of a file that tell its rows apart best, from its first rows; the first of equals."""
    head = frame.head(_LOOKED_AT)
    flat = [c for c, dtype in head.schema.items() if not dtype.is_nested() and dtype not in (pl.Binary, pl.Object)]
    return sorted(flat, key=lambda name: -values_of(head, name).n_unique())[:MARKS]


def hashed(values: pl.Series) -> Hashes:
    """Hash cells (n,): a number to six digits, in whatever type it comes; any other as text. Nulls are alike.

    >>> bool(hashed(pl.Series(["0.10", "x"]))[0] == hashed(pl.Series([0.1 + 1e-12]))[0])
    True
    """
    text = values.cast(pl.String, strict=False).str.strip_chars().fill_null("")
    number = (values if values.dtype.is_numeric() else text).cast(pl.Float64, strict=False)
    number = number.fill_nan(None).round_sig_figs(_DIGITS)
    words = _hash(text.to_numpy().astype(object))
    numbers = _hash(number.fill_null(0.0).to_numpy() + 0.0)  # -0.0 is 0.0
    return np.asarray(np.where(number.is_not_null().to_numpy(), numbers, words), np.uint64)


@dataclass(frozen=True)
class Marks:
    """The marks of a table's rows.

    Attributes
    ----------
    columns
        What marks them.
    rows
        Row numbers in the input (n,), ascending.
    cells
        Hashes (n, columns).
    """

    columns: tuple[str, ...]
    rows: npt.NDArray[np.int64]
    cells: Hashes

    @classmethod
    def of(cls, columns: Sequence[str], parts: Sequence[tuple[npt.NDArray[np.int64], Hashes]]) -> Marks:
        """Put the marks of consecutive batches together."""
        return cls(tuple(columns), np.concatenate([r for r, _ in parts]), np.concatenate([c for _, c in parts]))

    def sketch(self, rows: npt.NDArray[np.int64], labels: pl.Series) -> Sketch:
        """Return what these rows (n,), with their labels (n,), are recognised by."""
        cells = self.cells[np.searchsorted(self.rows, rows)]
        label = hashed(labels)
        keys = [
            _mixed(cells[:, list(which)].sum(axis=1, dtype=np.uint64) + label)
            for which in combinations(range(len(self.columns)), min(IN_A_KEY, len(self.columns)))
        ]
        keys = [key for key in keys if len(np.unique(key)) >= LEAST_APART * len(key)]
        if not keys:  # coarse columns: other tables have such rows too, so that their names have to agree
            names = _hash(np.array([" ".join(sorted(self.columns))], dtype=object))
            keys = [_mixed(cells.sum(axis=1, dtype=np.uint64) + label + names)]
        return Sketch.of(keys)


@dataclass(frozen=True)
class Sketch:
    """A set of rows: for each choice of columns, the least of its key hashes, ascending; and whether these are all."""

    keys: tuple[Hashes, ...]
    whole: bool

    @classmethod
    def of(cls, keys: Sequence[Hashes]) -> Sketch:
        """Sketch rows by their keys, each (n,)."""
        least = tuple(np.unique(key)[:MOST_KEYS] for key in keys)
        return cls(least, all(len(np.unique(key)) <= MOST_KEYS for key in keys))

    @classmethod
    def of_cells(cls, columns: Sequence[pl.Series]) -> Sketch:
        """Sketch rows by all of some columns."""
        return cls.of([_mixed(np.sum([hashed(column) for column in columns], axis=0, dtype=np.uint64))])

    def share_in(self, other: Sketch) -> float:
        """Estimate which share of these rows the other set has: the greatest over all choices of columns."""
        if not self.keys or not other.keys or not np.isin(np.concatenate(self.keys), np.concatenate(other.keys)).any():
            return 0.0  # most sets that a ledger holds are of other tables
        best = 0.0
        for ours, theirs in product(self.keys, other.keys):
            best = max(best, self._share(ours, other, theirs))
            if best == 1.0:
                break
        return best

    def _share(self, ours: Hashes, other: Sketch, theirs: Hashes) -> float:
        if not self.whole:
            theirs = theirs[theirs <= ours[-1]]
        if not other.whole:
            ours = ours[ours <= theirs[-1]] if len(theirs) else ours[:0]
        common = len(np.intersect1d(ours, theirs, assume_unique=True))
        return common / len(ours) if common >= min(LEAST_COMMON, len(ours)) else 0.0

    def to_text(self) -> list[str]:
        """Return it for JSON: each choice's hashes in base 64."""
        return [base64.b64encode(key.astype("<u8").tobytes()).decode() for key in self.keys]

    @classmethod
    def from_text(cls, keys: Sequence[str], *, whole: bool) -> Sketch:
        """Read what :meth:`to_text` made."""
        return cls(tuple(np.frombuffer(base64.b64decode(key), dtype="<u8") for key in keys), whole)


def _mixed(hashes: Hashes) -> Hashes:
    """Spread sums of hashes evenly again."""
    return _hash(hashes)


def _hash(values: npt.NDArray[Any]) -> Hashes:
    from pandas.util import hash_array  # the same in every process and version, as Polars' own is not

    return np.asarray(hash_array(values, categorize=True), np.uint64)
