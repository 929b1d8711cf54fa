"""Logistic and ridge regression on standardised numbers, missing indicators and one-hot categories.

With a source table the line fitted to it is a base. ``pool`` fits one line to the rows of both, those of the source
weighted down; how far is chosen on valid, from all of their weight to a hundredth, the untouched base in the contest.
Source: the power prior of Ibrahim & Chen, *Power Prior Distributions for Regression Models*, Statistical Science 2000.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression, Ridge
from threadpoolctl import threadpool_limits

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings, Step
from tabkit.models.base import Model, loss, one_hot

STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""L2 penalties tried (scikit-learn's 1/C, and ridge's alpha), strongest first; valid chooses."""

SOURCE_WEIGHTS = (1.0, 0.3, 0.1, 0.03, 0.01)
"""Weights of a source row, against one for a row of the target, that ``pool`` tries."""

MOST_NEWTON = 400
"""Columns times classes up to which the Hessian is small enough to factorise at every step."""

MANY_PRODUCTS = 1e10
"""Products of a Gram matrix from which more than one thread pays. Below, threads that must wait for a core which
another job holds take many times longer than one thread alone."""


class Linear(Model):
    """L2-regularised linear model; the penalty is chosen on valid.

    A missing number is the train mean plus an indicator of its own. An unknown category has weight zero
    unless rare training categories have taught one.
    """

    title = "Linear"
    hows = {"scratch": "baseline", "as_is": "base", "pool": "adapted"}
    needs_source = frozenset({"as_is", "pool"})
    baselines = {"scratch": 20}
    unweighted = ""

    def __init__(
        self,
        weights: dict[str, npt.NDArray[np.float64]] | None = None,
        task: str = "binary",
        source: Features | None = None,
        strength: float = 1.0,
    ) -> None:
        self.weights_ = weights or {}
        self.task = task
        self.source_ = source
        self.strength_ = strength

    @classmethod
    def pretrain(cls, source: Features | None, rows: Features, rng: np.random.Generator, budget: Budget) -> Self | None:
        """Fit the base to the source table, its penalty chosen on a fifth of the source kept apart."""
        if source is None or source.y is None:
            return None
        order = rng.permutation(len(source))
        cut = max(1, len(source) // 5)
        part, rest = source.take(order[:cut]), source.take(order[cut:])
        strength = float(cls().adapt(rest, part, "scratch", rng, budget).settings["strength"])
        return cls(cls()._fit(source, strength).weights_, source.layout.task, source, strength)

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Fit one model per penalty, or per weight of the source, and keep the best on valid. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"linear knows {sorted(self.hows)}, not {how!r}")
        if how in self.needs_source and self.source_ is None:
            raise ValueError(f"linear {how} needs a line fitted to a source table")
        if how == "as_is":
            blocks = tuple(Block(name, self.weights_[key].size, 0, 0.0) for name, key in _BLOCKS.items())
            return Adapted(Linear(self.weights_, self.task), how, Proof(blocks))
        if how == "pool":
            return self._pool(train, valid, settings)
        strengths = STRENGTHS if settings is None else (float(settings["strength"]),)
        fitted = [(strength, self._fit(train, strength)) for strength in strengths]
        tried = [(0.0 if valid is None else loss(valid, model.predict(valid)), s, model) for s, model in fitted]
        _, strength, best = min(tried, key=lambda entry: entry[0])
        history = tuple(
            Step(i, loss(train, model.predict(train)), on_valid, f"penalty {s:g}")
            for i, (on_valid, s, model) in enumerate(tried)
        )
        blocks = tuple(
            Block(name, best.weights_[key].size, best.weights_[key].size, float(np.linalg.norm(best.weights_[key])))
            for name, key in _BLOCKS.items()
        )
        return Adapted(best, how, Proof(blocks), {"strength": strength}, history if valid is not None else ())

    def _pool(self, train: Features, valid: Features | None, settings: Settings | None) -> Adapted[Model]:
        """Fit the rows of source and target together; the source's weight is chosen on valid."""
        assert self.source_ is not None
        both = self.source_.stack(train)
        options = (None, *SOURCE_WEIGHTS) if settings is None else (settings["source_weight"],)
        tried: list[tuple[float, float | None, Linear]] = []
        for weight in options:
            model = Linear(self.weights_, self.task)
            if weight is not None:
                shares = np.repeat([weight, 1.0], [len(self.source_), len(train)])
                weighed = both.weighing(shares if both.w is None else shares * both.w)
                model = self._fit(weighed, self.strength_)
            tried.append((0.0 if valid is None else loss(valid, model.predict(valid)), weight, model))
        _, weight, best = min(tried, key=lambda entry: entry[0])
        history = tuple(
            Step(i, None, on_valid, "untouched base" if w is None else f"source rows weigh {w:g}")
            for i, (on_valid, w, _) in enumerate(tried)
        )
        blocks = tuple(
            Block(name, best.weights_[key].size, best.weights_[key].size, _distance(best, self, key))
            for name, key in _BLOCKS.items()
        )
        return Adapted(best, "pool", Proof(blocks), {"source_weight": weight}, history if settings is None else ())

    def _fit(self, train: Features, strength: float) -> Linear:
        assert train.y is not None
        indicated = np.flatnonzero(np.isnan(train.x_num).any(axis=0))
        x = _design(train, indicated)
        few = x.shape[0] * x.shape[1] ** 2 < MANY_PRODUCTS
        with threadpool_limits(1 if few else None, user_api="blas"):
            return self._solve(x, train, strength, indicated)

    def _solve(
        self, x: npt.NDArray[np.float64], train: Features, strength: float, indicated: npt.NDArray[np.int64]
    ) -> Linear:
        assert train.y is not None
        task = train.layout.task
        if task == "regression":
            ridge = Ridge(alpha=strength).fit(x, train.y, sample_weight=train.w)
            coef, bias = ridge.coef_[None, :], np.array([ridge.intercept_])
        else:
            # A class may be absent from a learning curve's first rows: its score then stays at the prior's floor.
            n_classes = len(train.layout.classes)
            present = np.unique(train.y)
            coef, bias = np.zeros((n_classes, x.shape[1])), np.full(n_classes, -30.0)
            if len(present) == 1:
                bias[present] = 0.0
            else:
                # Newton's steps are exact and fast until the Hessian is large; then the gradient alone must do.
                solver = "newton-cholesky" if x.shape[1] * len(present) <= MOST_NEWTON else "lbfgs"
                logistic = LogisticRegression(C=1.0 / strength, max_iter=1000, solver=solver, tol=1e-6)
                logistic.fit(x, train.y, sample_weight=train.w)
                if len(present) == 2:
                    coef[present[1]], bias[present[1]] = logistic.coef_[0], logistic.intercept_[0]
                    bias[present[0]] = 0.0
                else:
                    coef[present], bias[present] = logistic.coef_, logistic.intercept_
        arrays = {"coef": coef.astype(np.float64), "bias": bias.astype(np.float64), "indicated": indicated}
        return Linear(arrays, task)

    def predict(self, features: Features) -> Predictions:
        """Predict row by row: sums run along a row's own columns, so rows beside it cannot change a bit."""
        coef, bias = self.weights_["coef"], self.weights_["bias"]
        x = _design(features, self.weights_["indicated"].astype(np.int64))
        scores = np.column_stack([(x * coef[k]).sum(axis=1) + bias[k] for k in range(len(bias))])
        if self.task == "regression":
            return np.asarray(scores[:, 0])
        scores -= scores.max(axis=1, keepdims=True)
        odds = np.exp(scores)
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        save_file({k: np.ascontiguousarray(v) for k, v in self.weights_.items()}, folder / "weights.safetensors")
        (folder / "config.json").write_text(json.dumps({"task": self.task}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        task = json.loads((folder / "config.json").read_text(encoding="utf-8"))["task"]
        return cls(load_file(folder / "weights.safetensors"), task)


_BLOCKS = {"coefficients": "coef", "intercept": "bias"}
"""Names of the blocks in a proof, and of the arrays that they are."""


def _distance(a: Linear, b: Linear, key: str) -> float:
    """Return the norm of the change; a missing indicator that one of them lacks has no coefficient there."""
    if a.weights_[key].shape != b.weights_[key].shape:
        return float(np.linalg.norm(a.weights_[key]))
    return float(np.linalg.norm(a.weights_[key] - b.weights_[key]))


def _design(features: Features, indicated: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    x_num = features.x_std.astype(np.float64)
    missing = np.isnan(x_num)
    codes = one_hot(features.x_cat, features.layout.cat_sizes)
    return np.ascontiguousarray(np.hstack([np.where(missing, 0.0, x_num), missing[:, indicated], codes]))
