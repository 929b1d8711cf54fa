"""Rows that are there twice: as they are, or but for one cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

MOST_LOOKED_UP = 20_000
"""Rows held out that are looked up; of more, a draw."""
BY_CHANCE = 0.001
"""A copy counts if fewer rows than this would agree by chance, were columns independent."""

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


class Copies(NamedTuple):
    """Rows looked up; of these with an exact copy, with one that differs in one cell, and with one that chance explains."""

    looked_up: int
    exact: int
    near: int
    by_chance: int


def copies(frame: pl.DataFrame, before: Rows, held: Rows, rng: np.random.Generator) -> Copies:
    """Look rows held out up among those before.

    Tables of few, coarse columns repeat rows by chance, and new rows will repeat them too: how many rows would agree is
    reckoned from how frequent each of the values is, as if columns were independent.

    Parameters
    ----------
    frame
        The columns to compare, the target among them.
    before, held
        Positions of rows.
    """
    held = np.sort(rng.permutation(held)[:MOST_LOOKED_UP])
    rows, n_before = np.r_[before, held], len(before)

    def hashed(j: int) -> Hashes:
        # Under a plain name: one such as ^x.*$ is a pattern to Polars.
        return frame.to_series(j).alias("cell").hash(seed=j).to_numpy()[rows]

    def found(keys: Hashes) -> npt.NDArray[np.bool_]:
        return np.isin(keys[n_before:], keys[:n_before])

    whole = np.zeros(len(rows), dtype=np.uint64)  # wraps around, as a sum of hashes may
    for j in range(frame.width):
        whole += hashed(j)
    exact = found(whole)
    # Of two columns, one alone says little: then only whole rows are compared.
    near = [found(whole - hashed(j)) & ~exact for j in range(frame.width if frame.width > 2 else 0)]
    at = np.flatnonzero(np.logical_or.reduce([exact, *near]))
    if not at.size:
        return Copies(len(held), 0, 0, 0)
    shares = np.column_stack([_log_share(hashed(j), n_before + at) for j in range(frame.width)])
    chance = shares.sum(axis=1) + np.log(n_before)
    told = exact[at] & (chance < np.log(BY_CHANCE))
    differs = np.zeros(len(at), dtype=bool)
    for j, by_column in enumerate(near):
        differs |= by_column[at] & (chance - shares[:, j] < np.log(BY_CHANCE / frame.width))
    return Copies(len(held), int(told.sum()), int(differs.sum()), int((~told & ~differs).sum()))


def _log_share(hashes: Hashes, rows: Rows) -> npt.NDArray[np.float64]:
    """Return the log of the share of all other rows that have the value of each of these rows."""
    values = np.unique(hashes[rows])
    place = np.minimum(np.searchsorted(values, hashes), len(values) - 1)
    counts = np.bincount(place[values[place] == hashes], minlength=len(values))
    others = counts[np.searchsorted(values, hashes[rows])] - 1
    return np.asarray(np.log(np.maximum(others, 1) / len(hashes)))
