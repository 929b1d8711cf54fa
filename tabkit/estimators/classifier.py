"""The classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from tabkit.estimators.base import Estimator, counted, labels_of, name_of, value_errors
from tabkit.estimators.table import Labelled, class_names


class TabkitClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """A classifier that compares adapted models with strong baselines, keeps the best, and says whether adapting paid.

    Every column of ``X`` is a feature, unless it carries nothing; for ids, dates that order the rows, groups, source
    tables and a report, write a recipe (:func:`tabkit.new`) and run it (:func:`tabkit.run`).

    Parameters
    ----------
    budget
        ``quick``, ``standard`` or ``thorough``.
    metric
        The metric that decides; by default ROC AUC for two classes, log loss for more.
    candidates
        Bases to adapt, and how: ``{"icl": ["head", "full"]}``; ``{}`` for the baselines only. By default, the shipped
        base, by its head.
    without
        What to leave out of the table of candidates: ``catboost``, ``blend``.
    worthwhile
        The gain in ``metric`` that would change what you do. By default, as ``tabkit new`` writes it; 0 if you choose
        the metric.
    folds
        Hold every row out once, in so many folds; by default a quarter of the rows is held out, once.
    weights
        Your own weights of a base: base -> the folder or file that holds them.
    random_state
        The same whole number gives the same split and models; None draws one.
    device
        ``auto``, ``cpu`` or ``cuda``.

    Attributes
    ----------
    classes_
        The classes, in the order of the columns of ``predict_proba``.
    verdict_
        Whether adapting paid (:class:`tabkit.result.Verdict`); None if the table was too small to be judged.
    result_
        All that the run found (:class:`tabkit.result.TableResult`), or None.
    bundle_
        The champion's bundle in memory, or None; :meth:`write_bundle` writes it.
    n_features_in_, feature_names_in_
        By scikit-learn's conventions.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    >>> model = TabkitClassifier(candidates={"icl": ["head", "full"]})
    >>> model.fit(X, y)  # doctest: +SKIP
    >>> model.verdict_.decision  # doctest: +SKIP
    'use_baseline'
    >>> model.predict_proba(X[:1]).round(3)  # doctest: +SKIP
    array([[0.994, 0.006]])
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Run the comparison and keep its champion, fitted on all rows.

        Parameters
        ----------
        X
            A numeric array, or a pandas or polars frame of numbers, text, booleans and dates; values may be missing.
        y
            A class per row.
        sample_weight
            For how many rows each stands, (n_rows,), numbers from 0 on: models are fitted, and all figures measured, with
            these weights. None if each counts once.

        Raises
        ------
        ValueError
            The data or a parameter cannot be used; the message says what was expected.

        Warns
        -----
        NotJudgedWarning
            There are fewer than 30 rows, or fewer than 3 of a class: a linear model is fitted, without a verdict.
        """
        with value_errors():
            features, labels = self._features(X, reset=True), labels_of(self, y)
            check_classification_targets(labels)
            features, labels, weights = counted(features, labels, sample_weight)
            self.classes_, codes = np.unique(labels, return_inverse=True)
            if len(self.classes_) == 1:
                raise ValueError(
                    f"TabkitClassifier needs two classes, and y holds one class only: {self.classes_[0]!r}."
                )
            self._names_of_classes = class_names(self.classes_.tolist())
            names = pl.Series(name_of(y), [self._names_of_classes[code] for code in codes], dtype=pl.String)
            self._learn(Labelled.of(features, names, self._names_of_classes, weights))
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability of each class, (n_rows, n_classes).

        Raises
        ------
        ValueError
            ``X`` does not fit what the estimator was fitted on.
        """
        probabilities, names = self._predict(X)
        return probabilities[:, [names.index(name) for name in self._names_of_classes]]

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable class of each row, (n_rows,).

        Raises
        ------
        ValueError
            ``X`` does not fit what the estimator was fitted on.
        """
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])
