"""Cut rows into train, valid and holdout: holdout first, then valid from what remains by the same rule."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.cuts import Rows, by_class, by_group, by_time, forward, group_folds, group_folds_by_class
from tabkit.data.embargo import known, left_out
from tabkit.data.encode import as_text
from tabkit.data.frames import values_of
from tabkit.data.weighing import Weighing
from tabkit.errors import DataError, count
from tabkit.recipe import Recipe
from tabkit.result.facts import SplitKind
from tabkit.seed import stream

Floats = npt.NDArray[np.float64]

LEAST_ROWS = 5
"""Fewer rows per inner fold cannot stop or choose anything."""

_GIVEN = ("train", "valid", "holdout")


@dataclass(frozen=True)
class Split:
    """Row positions of each part (ascending, disjoint, together all rows but those under an embargo).

    With ``inner`` folds, valid is train itself: each row is chosen on by a model that did not learn from it.
    ``groups`` are codes (n_rows,) of what must stay together and is resampled together; None when rows are
    independent. ``days`` are codes (n_rows,) of the day, or other moment, of each row if the split is in time.
    ``fold`` numbers the split among the outer folds of a cross-validation (0 of 1 for one cut). ``weights`` (n_rows,) say for
    how many rows each stands; None if each counts once.
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
    days: Rows | None = None
    weights: Floats | None = None

    @property
    def before(self) -> Rows:
        """Rows that are not held out, ascending."""
        return np.union1d(self.train, self.valid)

    def weights_of(self, rows: Rows) -> Floats | None:
        """Return the weights of some rows, those of train being 1 on average: no penalty hangs on the unit of weights."""
        return None if self.weights is None else self.weights[rows] / self.weights[self.train].mean()

    def sizes(self) -> dict[str, int]:
        """Return the number of rows per part, each row once: valid has none of its own if it is train itself."""
        valid = 0 if self.inner is not None else len(self.valid)
        return {"train": len(self.train), "valid": valid, "holdout": len(self.holdout)}


@dataclass(frozen=True)
class _Cutter:
    """The rows that are cut, how they hang together, how they weigh, and the chance by which they are cut."""

    frame: pl.DataFrame
    recipe: Recipe
    groups: Rows | None
    rng: np.random.Generator
    weighing: Weighing | None = None

    def cut(self, kind: SplitKind, rows: Rows, share: float, *, to_be_cut_again: bool = False) -> tuple[Rows, Rows]:
        """Cut ``rows`` into (rest, part), ``part`` holding about ``share`` of them.

        What is ``to_be_cut_again`` in time keeps two moments.
        """
        recipe = self.recipe
        match kind:
            case "temporal":
                assert recipe.time is not None
                times = values_of(self.frame, recipe.time)
                rest, part = by_time(times, rows, share, recipe.time, 2 if to_be_cut_again else 1)
                return known(times, recipe, rest, part), part
            case "grouped":
                assert self.groups is not None
                return by_group(self.groups, rows, share, self.rng)
            case "stratified":
                return by_class(_codes(values_of(self.frame, recipe.target)), rows, share, self.rng)
            case "random":
                shuffled = self.rng.permutation(rows)
                n_part = max(1, round(share * len(rows)))
                return shuffled[n_part:], shuffled[:n_part]
            case "given":
                raise AssertionError("a given split is read, not cut")
            case _:
                assert_never(kind)

    def to_choose_on(self, kind: SplitKind, rest: Rows) -> tuple[Rows, Rows]:
        """Return (train, valid) of what is not held out: valid is cut from it, or, with inner folds, the same rows."""
        rule = self.recipe.split
        if rule.inner is None:
            return self.cut(kind, rest, rule.valid)
        if len(rest) < LEAST_ROWS * rule.inner:
            raise DataError(
                f"{count(len(rest), 'row')} to learn from cannot be cut into {rule.inner} inner folds. Expected at least "
                f"{LEAST_ROWS * rule.inner}: set a smaller split.inner, or give more rows."
            )
        return rest, rest

    def days(self, kind: SplitKind) -> Rows | None:
        """Return codes of the day of each row, or of its moment if times are numbers; None unless the split is in time."""
        if kind != "temporal":
            return None
        times = values_of(self.frame, str(self.recipe.time))
        return _codes(times.cast(pl.Date) if times.dtype.is_temporal() else times)

    def valid_kind(self, kind: SplitKind) -> SplitKind:
        """Return how valid is cut: by the rule of the holdout, unless a column gives that."""
        if kind != "given":
            return kind
        return "grouped" if self.groups is not None else _by_task(self.recipe)

    def cross(self, kind: SplitKind) -> tuple[Split, ...]:
        """Return a split per outer fold; valid is cut from what a fold learns from, by the same rule."""
        rule = self.recipe.split
        pairs = [pair for _ in range(rule.repeats) for pair in self.folds(kind)]
        splits, days = [], self.days(kind)
        for fold, (rest, holdout) in enumerate(pairs):
            train, valid = (np.sort(rows) for rows in self.to_choose_on(self.valid_kind(kind), rest))
            split = Split(kind, train, valid, np.sort(holdout), self.groups, "", fold, len(pairs), rule.inner, days)
            splits.append(self.checked(split))
        text = _cross_text(tuple(splits), self.recipe)
        return tuple(replace(split, text=text) for split in splits)

    @property
    def labelled(self) -> pl.DataFrame:
        """The rows with a label."""
        return self.frame if self.weighing is None else self.frame[: self.weighing.n_labelled]

    def weighed(self, split: Split) -> Split:
        """Return a split of the labelled rows alone, with their weights by its train rows."""
        if self.weighing is None:
            return split
        n, groups, days = self.weighing.n_labelled, split.groups, split.days
        return replace(
            split,
            weights=self.weighing.weights(split.train),
            train=split.train[split.train < n],
            valid=split.valid[split.valid < n],
            holdout=split.holdout[split.holdout < n],
            groups=None if groups is None else groups[:n],
            days=None if days is None else days[:n],
        )

    def checked(self, split: Split) -> Split:
        """Return the weighed split, if it can be learned from."""
        split = self.weighed(split)
        _check(split, self.labelled, self.recipe)
        return split

    def folds(self, kind: SplitKind) -> list[tuple[Rows, Rows]]:
        """Return (rows to learn from, rows held out) of each fold of one repeat."""
        recipe, rule = self.recipe, self.recipe.split
        if kind == "temporal":
            assert recipe.time is not None and isinstance(rule.folds, int)
            times = values_of(self.frame, recipe.time)
            blocks = forward(times, rule.folds, recipe.time)
            return [(known(times, recipe, before, held), held) for before, held in blocks]
        fold_of = self._fold_of(kind)
        names = np.unique(fold_of)
        if len(names) < 2:
            raise DataError(f"Column '{rule.column or recipe.group}' makes one fold only. Expected two or more values.")
        return [(np.flatnonzero(fold_of != name), np.flatnonzero(fold_of == name)) for name in names]

    def _fold_of(self, kind: Literal["random", "stratified", "grouped", "given"]) -> Rows:
        """Return the fold (n_rows,) of each row."""
        recipe, rule, n_rows = self.recipe, self.recipe.split, self.frame.height
        if kind == "given":
            assert rule.column is not None
            if values_of(self.frame, rule.column).null_count():
                raise DataError(f"Fold column '{rule.column}' has missing values. Expected the fold of every row.")
            return _codes(values_of(self.frame, rule.column))
        assert isinstance(rule.folds, int)
        strata = np.zeros(n_rows, dtype=np.int64)
        match kind:
            case "grouped":
                assert self.groups is not None
                if recipe.task == "regression":
                    return group_folds(self.groups, rule.folds, self.rng)
                return group_folds_by_class(
                    self.groups, _codes(values_of(self.frame, recipe.target)), rule.folds, self.rng
                )
            case "stratified":
                strata = _codes(values_of(self.frame, recipe.target))
            case "random":
                pass
            case _:
                assert_never(kind)
        fold_of = np.empty(n_rows, dtype=np.int64)
        # Dealt out class by class without starting over, so that folds differ by one row at most.
        order = np.concatenate([self.rng.permutation(np.flatnonzero(strata == code)) for code in np.unique(strata)])
        fold_of[order] = np.arange(n_rows) % rule.folds
        return fold_of


def split_rows(frame: pl.DataFrame, recipe: Recipe, seed: int, weighing: Weighing | None = None) -> tuple[Split, ...]:
    """Split labelled rows by the recipe's rule, or by what its time and group columns ask for.

    Parameters
    ----------
    weighing
        How rows weigh. Its rows, which may have some without a label below, are then cut in the place of ``frame``.

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
    kind, cutter = _cutter(frame, recipe, seed, weighing)
    frame, groups = cutter.frame, cutter.groups
    if rule.folds is not None:
        return cutter.cross(kind)
    if kind == "given":
        assert rule.column is not None
        train, valid, holdout = _given(values_of(frame, rule.column), rule.column)
        if len(valid) == 0:
            train, valid = cutter.to_choose_on(cutter.valid_kind(kind), train)
        elif rule.inner is not None:
            raise DataError(
                f"Split column '{rule.column}' names {count(len(valid), 'valid row')}, and split.inner chooses on all rows that are "
                "not held out. Call them 'train', or remove split.inner."
            )
    else:
        rest, holdout = cutter.cut(kind, np.arange(frame.height), rule.holdout, to_be_cut_again=True)
        train, valid = cutter.to_choose_on(kind, rest)
    split = Split(
        kind, np.sort(train), np.sort(valid), np.sort(holdout), groups, "", inner=rule.inner, days=cutter.days(kind)
    )
    split = cutter.checked(split)
    return (replace(split, text=_text(split, recipe, frame.height if weighing is None else weighing.n_labelled)),)


def split_for_bundle(frame: pl.DataFrame, recipe: Recipe, seed: int, weighing: Weighing | None = None) -> Split:
    """Cut all labelled rows into train and valid, with nothing held out.

    Folds measure a procedure; the model to be used is that procedure, choice of settings included, on all rows.

    Raises
    ------
    DataError
        As for :func:`split_rows`.
    """
    kind, cutter = _cutter(frame, recipe, seed, weighing)
    train, valid = cutter.to_choose_on(cutter.valid_kind(kind), np.arange(cutter.frame.height))
    nothing = np.empty(0, dtype=np.int64)
    split = Split(kind, np.sort(train), np.sort(valid), nothing, cutter.groups, "", inner=recipe.split.inner)
    split = cutter.weighed(split)
    _check_train(split, cutter.labelled, recipe)
    return split


def _cutter(frame: pl.DataFrame, recipe: Recipe, seed: int, weighing: Weighing | None) -> tuple[SplitKind, _Cutter]:
    frame = frame if weighing is None else weighing.rows
    groups = _codes(values_of(frame, recipe.group)) if recipe.group else None
    return recipe.split.kind or default_kind(recipe), _Cutter(frame, recipe, groups, stream(seed, "split"), weighing)


def _cross_text(splits: tuple[Split, ...], recipe: Recipe) -> str:
    one, rule = splits[0], recipe.split
    match one.kind:
        case "temporal":
            how = f"in time ({recipe.time}), each block of time held out after learning from all that came before"
        case "grouped":
            how = f"by {recipe.group}, no {recipe.group} on both sides"
        case "stratified":
            how = "at random, with the same share of each class"
        case "random":
            how = "at random"
        case "given":
            how = f"as column {rule.column} says"
        case _:
            assert_never(one.kind)
    n = len(splits) // rule.repeats
    again = f", {rule.repeats} times over" if rule.repeats > 1 else ""
    used = f"{len(one.train):,} rows were trained on and {len(one.valid):,} chosen on"
    if rule.inner is not None:
        used = f"{len(one.train):,} rows were trained and chosen on in {rule.inner} inner folds"
    return (
        f"Rows were cut into {n} folds {how}{again}. In each, about {used}, by the whole procedure anew, and about "
        f"{len(one.holdout):,} held out and read once.{left_out(recipe)}"
    )


def default_kind(recipe: Recipe) -> SplitKind:
    """Return the split the recipe's roles ask for: time first, then groups, then classes."""
    if recipe.time:
        return "temporal"
    if recipe.group:
        return "grouped"
    return _by_task(recipe)


def _by_task(recipe: Recipe) -> SplitKind:
    return "random" if recipe.task == "regression" else "stratified"


def _given(parts: pl.Series, column: str) -> tuple[Rows, Rows, Rows]:
    names = as_text(parts)
    other = sorted(set(names.drop_nulls().unique()) - set(_GIVEN))
    if other or names.null_count():
        values = ", ".join(map(repr, other[:5])) or "missing values"
        raise DataError(
            f"Split column '{column}' holds {values}. Expected only 'train', 'valid' (optional) and 'holdout'."
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
    _check_train(split, frame, recipe)


def _check_train(split: Split, frame: pl.DataFrame, recipe: Recipe) -> None:
    if recipe.task == "regression":
        known = values_of(frame, recipe.target)[split.train]
        if known.n_unique() < 2:
            raise DataError(
                f"Target '{recipe.target}' is {known[0]} in every training row after the {split.kind} split "
                f"({count(len(known), 'row')}{_of_fold(split)}): nothing can be learned. Give more rows, or other folds."
            )
    else:
        target = as_text(values_of(frame, recipe.target))
        everywhere = set(target.unique())
        absent = sorted(everywhere - set(target[split.train].unique()))
        if absent:
            raise DataError(
                f"Class {', '.join(map(repr, absent[:5]))} of '{recipe.target}' has no training row after the {split.kind} split "
                f"({count(len(split.train), 'training row')}{_of_fold(split)}). Expected every class in train: give more rows, or merge rare classes."
            )


def _of_fold(split: Split) -> str:
    return f", fold {split.fold + 1} of {split.n_folds}" if split.n_folds > 1 else ""


def _text(split: Split, recipe: Recipe, n_rows: int) -> str:
    sizes = split.sizes()
    match split.kind:
        case "temporal":
            how = f"by time ({recipe.time}): the holdout is the latest rows, as in use"
        case "grouped":
            how = f"by {recipe.group}: no {recipe.group} is in two parts"
        case "stratified":
            how = "at random, with the same share of each class in every part"
        case "random":
            how = "at random"
        case "given":
            how = f"as column {recipe.split.column} says"
        case _:
            assert_never(split.kind)
    used = f"{sizes['train']:,} to train on, {sizes['valid']:,} to choose on"
    if split.inner is not None:
        used = f"{sizes['train']:,} to train and choose on, in {split.inner} inner folds"
    tail = left_out(recipe, n_rows - sum(sizes.values()))
    return f"Rows were split {how}: {used}, {sizes['holdout']:,} held out and read once.{tail}"
