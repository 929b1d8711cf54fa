"""How well a single column predicts the target: the strongest sign of a leak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features, Layout

LEAK_SCORE = 0.98
"""ROC AUC (R squared for regression) from which a single column is suspected of giving the target away.

A copy of the target with 16 leaves reaches .995 or more, whatever its distribution; an honest column that
correlates with it at .97 stays below .96.
"""

CHANCE = 0.01
"""Most chance that any of the columns would reach its score if all were noise, for one to be suspected."""

EXACT_PAIRS = 2_000
"""Pairs of rows up to which the chance of an AUC is computed exactly."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Alone:
    """What one column scores by itself, and the chance that a column of noise scores as much on as few rows.

    The chance of a ROC AUC that is no suspect's is not computed: it is 1.
    """

    score: float
    chance: float


def suspects(columns: Mapping[str, Alone]) -> dict[str, float]:
    """Return the scores of columns suspected of giving the target away, highest first.

    The best of many columns reaches a high score on a few rows by luck, so what counts is the chance that the best
    of all would (Bonferroni).

    >>> suspects({"id": Alone(0.99, 0.02), "x": Alone(0.6, 0.2)}), suspects({"id": Alone(0.99, 1e-6)})
    ({}, {'id': 0.99})
    """
    beyond = {n: c.score for n, c in columns.items() if c.score >= LEAK_SCORE and c.chance * len(columns) < CHANCE}
    return dict(sorted(beyond.items(), key=lambda item: -item[1]))


def single_features(fitted_on: Features, scored_on: Features) -> dict[str, Alone]:
    """Return, per table column, how a small decision tree does that sees only that column.

    Parameters
    ----------
    fitted_on, scored_on
        Labelled rows of one layout, disjoint.

    Returns
    -------
    dict
        Scores are ROC AUC for binary tasks, the mean of one against the rest for multiclass; for regression the R squared
        of the values or of their ranks, whichever is higher: a few leaves cannot follow a long tail, and would
        miss a plain copy of the target. .5 (0) if ``scored_on`` holds a single class (value).
    """
    from sklearn import config_context
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    y, truth = fitted_on.y, scored_on.y
    assert y is not None and truth is not None
    # A leaf needs half a per cent of the rows: few enough to follow a leak, too many to follow noise.
    options = {"max_leaf_nodes": 16, "min_samples_leaf": max(5, len(fitted_on) // 200), "random_state": 0}
    targets = [(y.astype(np.float64), truth)]
    regression = fitted_on.layout.task == "regression"
    if regression:
        order = np.sort(y)
        targets.append((np.searchsorted(order, y) / len(y), np.searchsorted(order, truth) / len(y)))
    out: dict[str, Alone] = {}
    places = _places(fitted_on.layout)
    with config_context(skip_parameter_validation=True):  # of a tree a column, of which there may be thousands
        for column, (num, cat) in places.items():
            x, z = _column(fitted_on, num, cat), _column(scored_on, num, cat)
            # A tree checks for missing values only with all its other checks, which take longer than a small tree.
            checked = bool(np.isnan(x).any() or np.isnan(z).any())
            if regression:
                trees = [(DecisionTreeRegressor(**options).fit(x, t, check_input=checked), k) for t, k in targets]
                score = max(_r2(known, tree.predict(z, check_input=checked)) for tree, known in trees)
                out[column] = Alone(score, len(targets) * _chance_of_r2(score, len(truth)))
            else:
                tree = DecisionTreeClassifier(**options).fit(x, y, check_input=checked)
                out[column] = _auc(tree.classes_, tree.predict_proba(z, check_input=checked), truth)
    return out


def _places(layout: Layout) -> dict[str, tuple[list[int], list[int]]]:
    """Return where each table column is among the numbers and among the categories."""
    places: dict[str, tuple[list[int], list[int]]] = {column: ([], []) for column in layout.columns}
    for kind, sources in enumerate((layout.num_source, layout.cat_source)):
        for i, source in enumerate(sources):
            places[source][kind].append(i)
    return places


def _column(rows: Features, num: list[int], cat: list[int]) -> npt.NDArray[np.float32]:
    return np.hstack([rows.x_num[:, num], rows.x_cat[:, cat].astype(np.float32)])


def _r2(truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((truth - predicted) ** 2).sum()) / spread if spread else 0.0


def _chance_of_r2(score: float, n_rows: int) -> float:
    """Return the chance of so high a squared correlation, which no R squared exceeds, of unrelated numbers."""
    from scipy import stats

    if n_rows < 3 or score <= 0:
        return 1.0
    t = np.sqrt(score * (n_rows - 2) / max(1 - score, 1e-15))
    return float(stats.t.sf(t, n_rows - 2))


def _auc(classes: npt.NDArray[np.int64], probabilities: Floats, truth: npt.NDArray[np.int64]) -> Alone:
    from scipy.stats import mannwhitneyu, rankdata

    present = [k for k in classes if 0 < (truth == k).sum() < len(truth)]
    if len(classes) == 2:
        present = [classes[1]] if present else []
    if not present:
        return Alone(0.5, 1.0)
    parts = {}
    for k in present:
        own, inside = probabilities[:, list(classes).index(k)], truth == k
        n_in = int(inside.sum())
        pairs = n_in * (len(own) - n_in)
        # The statistic is the AUC in pairs of rows (Mann & Whitney 1947).
        parts[k] = (rankdata(own)[inside].sum() - n_in * (n_in + 1) / 2) / pairs
    score = float(np.mean(list(parts.values())))
    if score < LEAK_SCORE:
        return Alone(score, 1.0)
    chances = []
    for k in present:
        own, inside = probabilities[:, list(classes).index(k)], truth == k
        method = "exact" if inside.sum() * (~inside).sum() <= EXACT_PAIRS else "asymptotic"
        # Without ties is the more likely case.
        test = mannwhitneyu(own[inside], own[~inside], alternative="greater", method=method)
        chances.append(float(np.nan_to_num(test.pvalue, nan=1.0)))
    # The mean is high only if every class's own score is: the least likely of them tells, for as many as there are.
    return Alone(score, min(1.0, len(present) * min(chances)))
