"""How well a single column predicts the target: the strongest sign of a leak."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features

LEAK_SCORE = 0.98
"""ROC AUC (R squared for regression) from which a single column is suspected of giving the target away.

A copy of the target with 16 leaves reaches .995 or more, whatever its distribution; an honest column that
correlates with it at .97 stays below .96.
"""


def single_feature_scores(fitted_on: Features, scored_on: Features) -> dict[str, float]:
    """Return, per table column, the score of a small decision tree that sees only that column.

    Parameters
    ----------
    fitted_on, scored_on
        Labelled rows of one layout, disjoint.

    Returns
    -------
    dict
        ROC AUC for binary tasks, the mean of one against the rest for multiclass; for regression the R squared
        of the values or of their ranks, whichever is higher: a few leaves cannot follow a long tail, and would
        miss a plain copy of the target. .5 (0) if ``scored_on`` holds a single class (value).
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    y, truth = fitted_on.y, scored_on.y
    assert y is not None and truth is not None
    # A leaf needs half a per cent of the rows: few enough to follow a leak, too many to follow noise.
    options = {"max_leaf_nodes": 16, "min_samples_leaf": max(5, len(fitted_on) // 200), "random_state": 0}
    targets = [(y, truth)]
    if fitted_on.layout.task == "regression":
        order = np.sort(y)
        targets.append((np.searchsorted(order, y) / len(y), np.searchsorted(order, truth) / len(y)))
    out: dict[str, float] = {}
    for column in fitted_on.layout.columns:
        x, z = _column(fitted_on, column), _column(scored_on, column)
        if fitted_on.layout.task == "regression":
            out[column] = max(_r2(known, DecisionTreeRegressor(**options).fit(x, t).predict(z)) for t, known in targets)
        else:
            tree = DecisionTreeClassifier(**options).fit(x, y)
            out[column] = _auc(tree.classes_, tree.predict_proba(z), truth)
    return out


def _column(rows: Features, column: str) -> npt.NDArray[np.float64]:
    num = [i for i, source in enumerate(rows.layout.num_source) if source == column]
    cat = [i for i, source in enumerate(rows.layout.cat_source) if source == column]
    return np.hstack([rows.x_num[:, num].astype(np.float64), rows.x_cat[:, cat].astype(np.float64)])


def _r2(truth: npt.NDArray[np.float64], predicted: npt.NDArray[np.float64]) -> float:
    spread = float(((truth - truth.mean()) ** 2).sum())
    return 1.0 - float(((truth - predicted) ** 2).sum()) / spread if spread else 0.0


def _auc(classes: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.int64]) -> float:
    from sklearn.metrics import roc_auc_score

    present = [k for k in classes if 0 < (truth == k).sum() < len(truth)]
    if len(classes) == 2:
        present = [classes[1]] if present else []
    scores = [roc_auc_score(truth == k, probabilities[:, list(classes).index(k)]) for k in present]
    return float(np.mean(scores)) if scores else 0.5
