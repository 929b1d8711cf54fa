"""scikit-learn's interface: a classifier and a regressor whose ``fit`` is a run, and whose model is its champion."""

from tabkit.estimators.base import NotJudgedWarning
from tabkit.estimators.classifier import TabkitClassifier
from tabkit.estimators.regressor import TabkitRegressor

__all__ = ["NotJudgedWarning", "TabkitClassifier", "TabkitRegressor"]
