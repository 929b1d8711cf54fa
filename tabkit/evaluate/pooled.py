"""Outer folds laid side by side: who predicted which row, on which resamples all comparisons are made, how rows weigh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features
from tabkit.data.split import Split
from tabkit.evaluate import roles, value
from tabkit.evaluate.choice import Terms
from tabkit.evaluate.harness import BOOTSTRAP
from tabkit.evaluate.intervals import Resampled, Resampler, widening_over_folds
from tabkit.evaluate.metrics import Metric, ranked_within
from tabkit.evaluate.tables import TableFound, drawn_together
from tabkit.learner import Predictions
from tabkit.recipe import Value as Rule
from tabkit.result import TableFindings


@dataclass(frozen=True)
class Fold:
    """One outer fold: how its rows were cut, and what was found on its holdout."""

    split: Split
    found: TableFound

    @property
    def findings(self) -> TableFindings:
        """What was found."""
        return self.found.findings


@dataclass(frozen=True)
class Pooled:
    """Out-of-fold predictions by repeat, and the resamples that all comparisons share."""

    folds: tuple[Fold, ...]
    repeats: tuple[tuple[Fold, ...], ...]
    y: npt.NDArray[np.generic]
    split: Split
    resampler: Resampler

    @classmethod
    def of(cls, everything: Features, folds: tuple[Fold, ...], terms: Terms) -> Pooled:
        """Arrange folds by repeat: a new repeat begins where a row would be held out again."""
        repeats: list[list[Fold]] = []
        seen: set[int] = set()
        for fold in folds:
            held = set(fold.split.holdout.tolist())
            if not repeats or seen & held:
                repeats.append([])
                seen = set()
            repeats[-1].append(fold)
            seen |= held
        rows = np.sort(np.concatenate([f.split.holdout for f in repeats[0]]))
        one = folds[0].split
        split = replace(one, holdout=rows, fold=0, weights=_mean_weights(folds))
        groups = drawn_together(one, rows)
        widening = widening_over_folds(len(repeats[0]), test_to_train(folds))
        own = None if split.weights is None else split.weights[rows]
        resampler = Resampler(len(rows), groups, terms.resamples, terms.seed, widening, own)
        return cls(folds, tuple(map(tuple, repeats)), everything.labels[rows], split, resampler)

    @property
    def method(self) -> str:
        """How the intervals are made."""
        return (
            f"{BOOTSTRAP}, {self.resampler.stretch:.2f} times as wide since folds share training rows (train and valid: "
            "corrected resampled t)"
        )

    @cached_property
    def fold_of(self) -> list[npt.NDArray[np.int64]]:
        """The fold of each pooled row, one array a repeat."""
        out = []
        for repeat in self.repeats:
            rows = np.concatenate([f.split.holdout for f in repeat])
            folds = np.repeat([f.split.fold for f in repeat], [len(f.split.holdout) for f in repeat])
            out.append(folds[np.argsort(rows)])
        return out

    def predictions(self, pick: roles.Pick) -> list[Predictions]:
        """Return out-of-fold predictions, in the order of the pooled rows, one array a repeat."""
        out = []
        for repeat in self.repeats:
            rows = np.concatenate([f.split.holdout for f in repeat])
            parts = [f.found.predictions[name] for f in repeat if (name := pick(f.findings)) is not None]
            out.append(np.concatenate(parts)[np.argsort(rows)])
        return out

    def mean(self, pick: roles.Pick) -> Predictions:
        """Return each row's prediction, the mean over repeats."""
        return np.asarray(np.mean(self.predictions(pick), axis=0))

    def scored(self, terms: Terms, pick: roles.Pick) -> dict[str, Resampled]:
        """Return each metric of all rows and its resamples, both the mean over repeats."""
        each = [
            self._scored(terms.metrics, fold, p) for fold, p in zip(self.fold_of, self.predictions(pick), strict=True)
        ]
        return {
            name: Resampled(
                float(np.mean([scores[name].value for scores in each])),
                np.mean([scores[name].draws for scores in each], axis=0),
                each[0][name].cases,
            )
            for name in terms.metrics
        }

    def _scored(
        self, metrics: Mapping[str, Metric], fold: npt.NDArray[np.int64], predicted: Predictions
    ) -> dict[str, Resampled]:
        ordered = {name: metric for name, metric in metrics.items() if metric.by_order}
        others = {name: metric for name, metric in metrics.items() if not metric.by_order}
        ranked = ranked_within(predicted, fold, self.resampler.row_weights) if ordered else predicted
        found = self.resampler.scored(ordered, self.y, ranked) if ordered else {}
        return found | (self.resampler.scored(others, self.y, predicted) if others else {})

    def weights(self, at: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float64] | None:
        """Return the weights of some pooled rows; None if each counts once."""
        own = self.resampler.row_weights
        return own if own is None or at is None else own[at]

    def share_of(self, at: npt.NDArray[np.int64]) -> float:
        """Return the share of all pooled rows that these are, by weight."""
        own, whole = self.weights(at), self.weights()
        return len(at) / len(self.split.holdout) if own is None or whole is None else float(own.sum() / whole.sum())

    def primary(self, terms: Terms, pick: roles.Pick) -> Resampled:
        """Return the primary metric only."""
        return self.scored(replace(terms, metrics={terms.primary: terms.metric}), pick)[terms.primary]

    def payoffs(
        self, frame: pl.DataFrame, rule: Rule, pick: roles.Pick
    ) -> tuple[npt.NDArray[np.float64], float | None]:
        """Return what each row pays at its fold's threshold, the mean over repeats, and the share of rows acted upon."""
        per_row, acted = np.zeros(len(self.split.holdout)), 0.0
        for fold in self.folds:
            held, own = fold.split.holdout, pick(fold.findings)
            assert own is not None
            predicted, threshold = fold.found.predictions[own], fold.findings.candidate(own).threshold
            at = np.searchsorted(self.split.holdout, held)
            paid, share = value.Payoffs(frame[held], rule, self.weights(at)).of(predicted, threshold)
            per_row[at] += paid / len(self.repeats)
            acted += (share or 0.0) * self.share_of(at) / len(self.repeats)
        return per_row, None if rule.acted is None else acted


def test_to_train(folds: tuple[Fold, ...]) -> float:
    """Return rows held out over rows learned from (train and valid), of all folds."""
    return sum(len(f.split.holdout) for f in folds) / sum(len(f.split.before) for f in folds)


def _mean_weights(folds: tuple[Fold, ...]) -> npt.NDArray[np.float64] | None:
    """Return the weight of each row, the mean over the folds that held it out, each by its own train rows."""
    if folds[0].split.weights is None:
        return None
    total, times = np.zeros(len(folds[0].split.weights)), np.zeros(len(folds[0].split.weights))
    for fold in folds:
        assert fold.split.weights is not None
        total[fold.split.holdout] += fold.split.weights[fold.split.holdout]
        times[fold.split.holdout] += 1
    return total / np.maximum(times, 1)
