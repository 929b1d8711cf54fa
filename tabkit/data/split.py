"""Cut rows into train, valid and holdout: holdout first, then valid from what remains by the same rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import as_text
from tabkit.errors import DataError, count
from tabkit.recipe import Recipe, SplitKind
from tabkit.seed import stream

Rows = npt.NDArray[np.int64]

LEAST_ROWS = 5
"""Fewer rows per inner fold cannot stop or choose anything."""

_GIVEN = ("train", "valid", "holdout")


@dataclass(frozen=True)
class Split:
    """Row positions of each part (ascending, disjoint, together all rows).

    With ``inner`` folds, valid is train itself: each row is chosen on by a model that did not learn from it.
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
    inner: int | None = None

    @property
    def before(self) -> Rows:
        """Rows that are not held out, ascending."""
        return np.union1d(self.train, self.valid)

    def sizes(self) -> dict[str, int]:
        """Return the number of rows per part, each row once: valid has none of its own where it is train itself."""
        valid = 0 if self.inner is not None else len(self.valid)
        return {"train": len(self.train), "valid": valid, "holdout": len(self.holdout)}


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
    if rule.folds is not None:
        return _cross(kind, frame, recipe, groups, rng)
    if kind == "given":
        assert rule.column is not None
        train, valid, holdout = _given(frame[rule.column], rule.column)
        if len(valid) == 0:
            inner: SplitKind = "grouped" if groups is not None else _inner_kind(recipe)
            train, valid = _to_choose_on(inner, frame, train, recipe, groups, rng)
        elif rule.inner is not None:
            raise DataError(
                f"Split column '{rule.column}' names {count(len(valid), 'valid row')}, and split.inner chooses on all rows that are "
                "not held out. Call them 'train', or remove split.inner."
            )
    else:
        rest, holdout = _cut(kind, frame, everything, rule.holdout, recipe, groups, rng)
        train, valid = _to_choose_on(kind, frame, rest, recipe, groups, rng)
    split = Split(kind, np.sort(train), np.sort(valid), np.sort(holdout), groups, "", inner=rule.inner)
    _check(split, frame, recipe)
    return (replace(split, text=_text(split, recipe)),)


def _to_choose_on(
    kind: SplitKind, frame: pl.DataFrame, rest: Rows, recipe: Recipe, groups: Rows | None, rng: np.random.Generator
) -> tuple[Rows, Rows]:
    """Return (train, valid) of what is not held out: valid is cut from it, or, with inner folds, the same rows."""
    if recipe.split.inner is None:
        return _cut(kind, frame, rest, recipe.split.valid, recipe, groups, rng)
    if len(rest) < LEAST_ROWS * recipe.split.inner:
        raise DataError(
            f"{count(len(rest), 'row')} to learn from cannot be cut into {recipe.split.inner} inner folds. Expected at least "
            f"{LEAST_ROWS * recipe.split.inner}: set a smaller split.inner, or give more rows."
        )
    return rest, rest


def _cross(
    kind: SplitKind, frame: pl.DataFrame, recipe: Recipe, groups: Rows | None, rng: np.random.Generator
) -> tuple[Split, ...]:
    """Return a split per outer fold; valid is cut from what a fold learns from, by the same rule."""
    rule = recipe.split
    inner: SplitKind = kind
    if kind == "given":
        inner = "grouped" if groups is not None else _inner_kind(recipe)
    pairs = [pair for _ in range(rule.repeats) for pair in _folds(kind, frame, recipe, groups, rng)]
    out = []
    for fold, (rest, holdout) in enumerate(pairs):
        train, valid = _to_choose_on(inner, frame, rest, recipe, groups, rng)
        split = Split(kind, np.sort(train), np.sort(valid), np.sort(holdout), groups, "", fold, len(pairs), rule.inner)
        _check(split, frame, recipe)
        out.append(split)
    text = _cross_text(tuple(out), recipe)
    return tuple(replace(split, text=text) for split in out)


def _folds(
    kind: SplitKind, frame: pl.DataFrame, recipe: Recipe, groups: Rows | None, rng: np.random.Generator
) -> list[tuple[Rows, Rows]]:
    """Return (rows to learn from, rows held out) of each fold of one repeat."""
    rule, n_rows = recipe.split, frame.height
    if kind == "temporal":
        assert recipe.time is not None and isinstance(rule.folds, int)
        return _forward(frame[recipe.time], rule.folds, recipe.time)
    if kind == "given":
        assert rule.column is not None
        if frame[rule.column].null_count():
            raise DataError(f"Fold column '{rule.column}' has missing values. Expected the fold of every row.")
        fold_of = _codes(frame[rule.column])
    else:
        assert isinstance(rule.folds, int)
        fold_of = np.empty(n_rows, dtype=np.int64)
        if kind == "grouped":
            assert groups is not None
            fold_of = _group_folds(groups, rule.folds, rng)
        else:
            strata = _codes(frame[recipe.target]) if kind == "stratified" else np.zeros(n_rows, dtype=np.int64)
            # Dealt out class by class without starting over, so that folds differ by one row at most.
            order = np.concatenate([rng.permutation(np.flatnonzero(strata == code)) for code in np.unique(strata)])
            fold_of[order] = np.arange(n_rows) % rule.folds
    names = np.unique(fold_of)
    if len(names) < 2:
        raise DataError(f"Column '{rule.column or recipe.group}' makes one fold only. Expected two or more values.")
    return [(np.flatnonzero(fold_of != name), np.flatnonzero(fold_of == name)) for name in names]


def _group_folds(groups: Rows, folds: int, rng: np.random.Generator) -> Rows:
    """Deal groups to folds, the largest first, each to the fold with the fewest rows so far."""
    names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = rng.permutation(len(names))
    filled, fold_of = np.zeros(folds), np.empty(len(names), dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = int(np.argmin(filled))
        filled[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[of_row])


def _forward(times: pl.Series, folds: int, column: str) -> list[tuple[Rows, Rows]]:
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


def _cross_text(splits: tuple[Split, ...], recipe: Recipe) -> str:
    one, rule = splits[0], recipe.split
    how = {
        "temporal": f"in time ({recipe.time}), each block of time held out after learning from all that came before",
        "grouped": f"by {recipe.group}, no {recipe.group} on both sides",
        "stratified": "at random, with the same share of each class",
        "random": "at random",
        "given": f"as column {rule.column} says",
    }[one.kind]
    n = len(splits) // rule.repeats
    again = f", {rule.repeats} times over" if rule.repeats > 1 else ""
    used = f"{len(one.train):,} rows were trained on and {len(one.valid):,} chosen on"
    if rule.inner is not None:
        used = f"{len(one.train):,} rows were trained and chosen on in {rule.inner} inner folds"
    return (
        f"Rows were cut into {n} folds {how}{again}. In each, about {used}, by the whole procedure anew, and about "
        f"{len(one.holdout):,} held out and read once."
    )


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
    if recipe.task == "regression":
        known = frame[recipe.target][split.train]
        if known.n_unique() < 2:
            raise DataError(
                f"Target '{recipe.target}' is {known[0]} in every training row after the {split.kind} split "
                f"({count(len(known), 'row')}{_of_fold(split)}): nothing can be learned. Give more rows, or other folds."
            )
    else:
        target = as_text(frame[recipe.target])
        everywhere = set(target.unique())
        absent = sorted(everywhere - set(target[split.train].unique()))
        if absent:
            raise DataError(
                f"Class {', '.join(map(repr, absent[:5]))} of '{recipe.target}' has no training row after the {split.kind} split "
                f"({count(len(split.train), 'training row')}{_of_fold(split)}). Expected every class in train: give more rows, or merge rare classes."
            )


def _of_fold(split: Split) -> str:
    return f", fold {split.fold + 1} of {split.n_folds}" if split.n_folds > 1 else ""


def _text(split: Split, recipe: Recipe) -> str:
    sizes = split.sizes()
    how = {
        "temporal": f"by time ({recipe.time}): the holdout is the latest rows, as in use",
        "grouped": f"by {recipe.group}: no {recipe.group} is in two parts",
        "stratified": "at random, with the same share of each class in every part",
        "random": "at random",
        "given": f"as column {recipe.split.column} says",
    }[split.kind]
    used = f"{sizes['train']:,} to train on, {sizes['valid']:,} to choose on"
    if split.inner is not None:
        used = f"{sizes['train']:,} to train and choose on, in {split.inner} inner folds"
    return f"Rows were split {how}: {used}, {sizes['holdout']:,} held out and read once."
