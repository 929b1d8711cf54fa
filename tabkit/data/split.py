"""Cut rows into train, valid and holdout: holdout first, then valid from what remains by the same rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import as_text
from tabkit.errors import DataError, count
from tabkit.recipe import Recipe, SplitKind
from tabkit.seed import stream

Rows = npt.NDArray[np.int64]

_GIVEN = ("train", "valid", "holdout")


@dataclass(frozen=True)
class Split:
    """Row positions of each part (ascending, disjoint, together all rows).

    ``groups`` are codes (n_rows,) of what must stay together and is resampled together; None when rows are
    independent. ``fold`` numbers the split among the outer folds of a cross-validation (0 of 1 for one cut).
    """

    kind: SplitKind
    train: Rows
    valid: Rows
    holdout: Rows
    groups: Rows | None
    text: str
    fold: int = 0
    n_folds: int = 1

    def sizes(self) -> dict[str, int]:
        """Return the number of rows per part."""
        return {"train": len(self.train), "valid": len(self.valid), "holdout": len(self.holdout)}


def split_rows(frame: pl.DataFrame, recipe: Recipe, seed: int) -> tuple[Split, ...]:
    """Split labelled rows by the recipe's rule, or by what its time and group columns ask for.

    Returns
    -------
    tuple of Split
        One per outer fold; one for a single holdout.

    Raises
    ------
    DataError
        A part would be empty, a class is missing from train, or the split column holds other values.
    """
    rule = recipe.split
    kind = rule.kind or default_kind(recipe)
    groups = _codes(frame[recipe.group]) if recipe.group else None
    everything = np.arange(frame.height)
    rng = stream(seed, "split")
    if kind == "given":
        assert rule.column is not None
        train, valid, holdout = _given(frame[rule.column], rule.column)
        if len(valid) == 0:
            inner: SplitKind = "grouped" if groups is not None else _inner_kind(recipe)
            train, valid = _cut(inner, frame, train, rule.valid, recipe, groups, rng)
    else:
        rest, holdout = _cut(kind, frame, everything, rule.holdout, recipe, groups, rng)
        train, valid = _cut(kind, frame, rest, rule.valid, recipe, groups, rng)
    split = Split(kind, np.sort(train), np.sort(valid), np.sort(holdout), groups, "")
    _check(split, frame, recipe)
    return (Split(kind, split.train, split.valid, split.holdout, groups, _text(split, recipe)),)


def default_kind(recipe: Recipe) -> SplitKind:
    """Return the split the recipe's roles ask for: time first, then groups, then classes."""
    if recipe.time:
        return "temporal"
    if recipe.group:
        return "grouped"
    return _inner_kind(recipe)


def _inner_kind(recipe: Recipe) -> SplitKind:
    return "random" if recipe.task == "regression" else "stratified"


def _cut(
    kind: SplitKind,
    frame: pl.DataFrame,
    rows: Rows,
    share: float,
    recipe: Recipe,
    groups: Rows | None,
    rng: np.random.Generator,
) -> tuple[Rows, Rows]:
    """Cut ``rows`` into (rest, part), ``part`` holding about ``share`` of them."""
    match kind:
        case "temporal":
            assert recipe.time is not None
            return _by_time(frame[recipe.time], rows, share, recipe.time)
        case "grouped":
            assert groups is not None
            return _by_group(groups, rows, share, rng)
        case "stratified":
            return _by_class(_codes(frame[recipe.target]), rows, share, rng)
        case _:
            shuffled = rng.permutation(rows)
            cut = max(1, round(share * len(rows)))
            return shuffled[cut:], shuffled[:cut]


def _by_class(codes: Rows, rows: Rows, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    parts = []
    for code in np.unique(codes[rows]):
        members = rng.permutation(rows[codes[rows] == code])
        # At least one row of a class on each side, wherever the class has two.
        cut = min(max(1, round(share * len(members))), len(members) - 1)
        parts.append((members[cut:], members[:cut]))
    return np.concatenate([rest for rest, _ in parts]), np.concatenate([part for _, part in parts])


def _by_group(groups: Rows, rows: Rows, share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    names, sizes = np.unique(groups[rows], return_counts=True)
    order = rng.permutation(len(names))
    filled = np.cumsum(sizes[order])
    # The cut between two groups that comes closest to the wanted share, with a group left on each side.
    last = int(np.argmin(np.abs(filled[:-1] - share * len(rows)))) if len(names) > 1 else 0
    chosen = np.isin(groups[rows], names[order[: last + 1]])
    return rows[~chosen], rows[chosen]


def _by_time(times: pl.Series, rows: Rows, share: float, column: str) -> tuple[Rows, Rows]:
    stamps = (times.cast(pl.Int64) if times.dtype.is_temporal() else times.cast(pl.Float64)).to_numpy()[rows]
    moments, counts = np.unique(stamps, return_counts=True)
    if len(moments) < 2:
        raise DataError(
            f"Time column '{column}' has a single value, so no later rows can be held out. Expected several moments."
        )
    before = np.cumsum(counts)[:-1]
    # Rows of one moment stay together: the boundary is the moment whose cut comes closest to the wanted share.
    boundary = moments[int(np.argmin(np.abs(before - (1 - share) * len(rows))))]
    late = stamps > boundary
    return rows[~late], rows[late]


def _given(parts: pl.Series, column: str) -> tuple[Rows, Rows, Rows]:
    names = as_text(parts)
    other = sorted(set(names.drop_nulls().unique()) - set(_GIVEN))
    if other or names.null_count():
        found = ", ".join(map(repr, other[:5])) or "missing values"
        raise DataError(
            f"Split column '{column}' holds {found}. Expected only 'train', 'valid' (optional) and 'holdout'."
        )
    train, valid, holdout = (np.flatnonzero((names == part).to_numpy()) for part in _GIVEN)
    return train, valid, holdout


def _codes(values: pl.Series) -> Rows:
    """Code values by first appearance; a missing value is a group of its own row."""
    codes = values.rank("dense").cast(pl.Int64).to_numpy().astype(float)
    missing = np.isnan(codes)
    codes[missing] = codes[~missing].max(initial=0) + 1 + np.arange(missing.sum())
    return codes.astype(np.int64)


def _check(split: Split, frame: pl.DataFrame, recipe: Recipe) -> None:
    for part, rows in (("train", split.train), ("valid", split.valid), ("holdout", split.holdout)):
        if len(rows) == 0:
            raise DataError(
                f"The {split.kind} split leaves no {part} rows out of {frame.height:,}. Give more rows, groups or moments."
            )
    if recipe.task != "regression":
        target = as_text(frame[recipe.target])
        everywhere = set(target.unique())
        absent = sorted(everywhere - set(target[split.train].unique()))
        if absent:
            raise DataError(
                f"Class {', '.join(map(repr, absent[:5]))} of '{recipe.target}' has no training row after the {split.kind} split "
                f"({count(len(split.train), 'training row')}). Expected every class in train: give more rows, or merge rare classes."
            )


def _text(split: Split, recipe: Recipe) -> str:
    sizes = split.sizes()
    how = {
        "temporal": f"by time ({recipe.time}): the holdout is the latest rows, as in use",
        "grouped": f"by {recipe.group}: no {recipe.group} is in two parts",
        "stratified": "at random, with the same share of each class in every part",
        "random": "at random",
        "given": f"as column {recipe.split.column} says",
    }[split.kind]
    return (
        f"Rows were split {how}: {sizes['train']:,} to train on, {sizes['valid']:,} to choose on, "
        f"{sizes['holdout']:,} held out and read once."
    )
