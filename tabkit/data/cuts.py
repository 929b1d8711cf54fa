"""Ways to cut rows, given what must stay together or be spread evenly: by class, by group, by time."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.errors import DataError, count

Rows = npt.NDArray[np.int64]


def group_folds(groups: Rows, folds: int, rng: np.random.Generator) -> Rows:
    """Deal groups to folds, the largest first, each to the fold with the fewest rows so far."""
    names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(names))
    filled, fold_of = np.zeros(folds), np.empty(len(names), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = int(np.argmin(filled))
        filled[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[of_row])


def group_folds_by_class(groups: Rows, codes: Rows, folds: int, rng: np.random.Generator) -> Rows:
    """Deal groups to folds so that every fold has about the same share of each class."""
    from sklearn.model_selection import StratifiedGroupKFold

    if len(np.unique(groups)) < folds or np.unique(codes, return_counts=True)[1].max() < folds:
        return group_folds(groups, folds, rng)
    # scikit-learn warns of a class with fewer rows than folds; whether train still has it is checked for every split.
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=int(rng.integers(2**32)))
    fold_of = np.empty(len(groups), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, held_out) in enumerate(splitter.split(codes, codes, groups)):
            fold_of[held_out] = fold
    return fold_of


def forward(times: pl.Series, folds: int, column: str) -> list[tuple[Rows, Rows]]:
    """Hold out block after block of time, each learned from all that came before it; the first is only learned from."""
    stamps = (times.cast(pl.Int64) if times.dtype.is_temporal() else times.cast(pl.Float64)).to_numpy()
    moments, counts = np.unique(stamps, return_counts=True)
    if len(moments) < folds + 1:
        raise DataError(
            f"Time column '{column}' has {count(len(moments), 'moment')}, too few for {folds} folds in time. Expected {folds + 1} or more."
        )
    block_of = np.minimum((np.cumsum(counts) - counts) * (folds + 1) // len(stamps), folds)
    block = block_of[np.searchsorted(moments, stamps)]
    return [(np.flatnonzero(block < b), np.flatnonzero(block == b)) for b in np.unique(block)[1:]]


def by_class(codes: Rows, rows: Rows, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Cut rows into (rest, part) at random, each class for itself."""
    parts = []
    for code in np.unique(codes[rows]):
        members = rng.permutation(rows[codes[rows] == code])
        # At least one row of a class on each side, if the class has two.
        cut = min(max(1, round(share * len(members))), len(members) - 1)
        parts.append((members[cut:], members[:cut]))
    return np.concatenate([rest for rest, _ in parts]), np.concatenate([part for _, part in parts])


def by_group(groups: Rows, rows: Rows, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Cut rows into (rest, part) at random, whole groups together."""
    names, sizes = np.unique(groups[rows], return_counts=True)
    order = rng.permutation(len(names))
    filled = np.cumsum(sizes[order])
    # The cut between two groups that comes closest to the wanted share, with a group left on each side.
    last = int(np.argmin(np.abs(filled[:-1] - share * len(rows)))) if len(names) > 1 else 0
    chosen = np.isin(groups[rows], names[order[: last + 1]])
    return rows[~chosen], rows[chosen]


def by_time(times: pl.Series, rows: Rows, share: float, column: str, moments_left: int) -> tuple[Rows, Rows]:
    """Cut rows into (earlier, later), whole moments together; so many moments are left among the earlier ones."""
    stamps = (times.cast(pl.Int64) if times.dtype.is_temporal() else times.cast(pl.Float64)).to_numpy()[rows]
    moments, counts = np.unique(stamps, return_counts=True)
    if len(moments) <= moments_left:
        raise DataError(
            f"Time column '{column}' has {count(len(moments), 'moment')} in {count(len(rows), 'row')} to cut, too few to train on "
            "earlier rows, choose on later ones and hold out the latest. Expected three moments or more."
        )
    before = np.cumsum(counts)[moments_left - 1 : -1]
    # Rows of one moment stay together: the boundary is the moment whose cut comes closest to the wanted share.
    boundary = moments[moments_left - 1 + int(np.argmin(np.abs(before - (1 - share) * len(rows))))]
    late = stamps > boundary
    return rows[~late], rows[late]
