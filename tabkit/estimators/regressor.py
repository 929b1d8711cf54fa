"""The regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import RegressorMixin
from sklearn.utils.validation import check_array

from tabkit.estimators.base import Estimator, counted, labels_of, name_of, value_errors
from tabkit.estimators.table import Labelled


class TabkitRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """A regressor that compares adapted models with strong baselines, keeps the best, and says whether adapting paid.

    Parameters and attributes are those of :class:`TabkitClassifier`, but for ``classes_``. The default metric is RMSE.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True, as_frame=True)
    >>> model = TabkitRegressor(candidates={}, without=["catboost"])
    >>> model.fit(X, y).bundle_.predict(X)  # with intervals  # doctest: +SKIP
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Run the comparison and keep its champion, fitted on all rows. See :meth:`TabkitClassifier.fit`.

        Raises
        ------
        ValueError
            The data or a parameter cannot be used; the message says what was expected.

        Warns
        -----
        NotJudgedWarning
            There are fewer than 30 rows: a linear model is fitted, without a verdict.
        """
        with value_errors():
            features = self._features(X, reset=True)
            labels = check_array(labels_of(self, y), ensure_2d=False, dtype=np.float64, input_name="y")
            features, labels, weights = counted(features, labels, sample_weight)
            self._learn(Labelled.of(features, pl.Series(name_of(y), labels), (), weights))
        return self

    def predict(self, X: Any) -> npt.NDArray[np.float64]:
        """Predict each row, (n_rows,).

        Raises
        ------
        ValueError
            ``X`` does not fit what the estimator was fitted on.
        """
        return self._predict(X)[0]
