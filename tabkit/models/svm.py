"""Support vector regression with a Gaussian kernel: smooth, and strong where rows are few and columns are many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from scipy.spatial.distance import cdist
from sklearn.svm import SVR

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings, Step
from tabkit.models.base import Model, loss, one_hot

COSTS = (1.0, 10.0, 100.0)
WIDTHS = (0.1, 0.3, 1.0)
"""Settings tried: C, on a target of unit spread, and gamma in units of one over the spread of the design."""

EPSILON = 0.05
"""Half-width of the tube without loss, in spreads of the target."""

MOST_ROWS = 5000
"""Rows fitted at most, drawn at random: time grows with their square, and the model says when it left rows out."""

CHUNK = 512

Arrays = dict[str, npt.NDArray[np.float64]]


class Svm(Model):
    """Epsilon-SVR (Drucker et al., NIPS 1997; libsvm through scikit-learn); cost and width are chosen on valid.

    Numbers are standardised, a missing one is the train mean, categories are one-hot. Far from all support vectors
    it answers the intercept, so unlike a line it does not run away.
    """

    title = "Support vectors"
    hows = {"scratch": "baseline"}
    tasks = frozenset({"regression"})
    unweighted = ""

    def __init__(self, arrays: Arrays | None = None, gamma: float = 1.0) -> None:
        self.arrays_ = arrays or {}
        self.gamma_ = gamma

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Fit one machine per setting and keep the best on valid. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"svm knows {sorted(self.hows)}, not {how!r}")
        notes: tuple[str, ...] = ()
        if len(train) > MOST_ROWS:
            notes = (f"fitted on {MOST_ROWS:,} of {len(train):,} train rows, drawn at random",)
            train = train.take(np.sort(rng.choice(len(train), MOST_ROWS, replace=False)))
        grid = [(c, w) for c in COSTS for w in WIDTHS]
        if settings is not None:
            grid = [(float(settings["cost"]), float(settings["width"]))]
        fitted = [(c, w, self._fit(train, c, w)) for c, w in grid]
        losses = [0.0 if valid is None else loss(valid, model.predict(valid)) for _, _, model in fitted]
        best = int(np.argmin(losses))
        cost, width, model = fitted[best]
        history = tuple(
            Step(i, loss(train, m.predict(train)), losses[i], f"C {c:g}, width {w:g}")
            for i, (c, w, m) in enumerate(fitted)
        )
        dual, bias = model.arrays_["dual"], model.arrays_["bias"]
        blocks = (
            Block("support vectors", dual.size, dual.size, float(np.linalg.norm(dual))),
            Block("intercept", 1, 1, float(np.abs(bias[0]))),
        )
        found = {"cost": cost, "width": width}
        return Adapted(model, how, Proof(blocks), found, history if valid is not None else (), notes)

    def _fit(self, train: Features, cost: float, width: float) -> Svm:
        x, y = _design(train), train.labels.astype(np.float64)
        mean = train.mean(y)
        std = (y.std() if train.w is None else train.mean((y - mean) ** 2) ** 0.5) or 1.0
        gamma = width / max(1e-12, x.shape[1] * float(x.var()))
        svr = SVR(C=cost, epsilon=EPSILON, gamma=gamma).fit(x, (y - mean) / std, sample_weight=train.w)
        arrays = {
            "support": np.ascontiguousarray(svr.support_vectors_),
            "dual": np.ascontiguousarray(svr.dual_coef_[0] * std),
            "bias": np.array([float(svr.intercept_[0]) * std + mean]),
        }
        return Svm(arrays, gamma)

    def predict(self, features: Features) -> Predictions:
        """Predict row by row: a row's kernel values are summed along its own axis."""
        x, support, dual = _design(features), self.arrays_["support"], self.arrays_["dual"]
        out = np.full(len(features), self.arrays_["bias"][0])
        for start in range(0, len(out), CHUNK):
            # Pair by pair, not by a matrix product, whose bits depend on how many rows it has.
            apart = cdist(x[start : start + CHUNK], support, "sqeuclidean")
            out[start : start + CHUNK] += (np.exp(-self.gamma_ * apart) * dual).sum(axis=1)
        return out

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` (support vectors, dual coefficients, intercept) and ``config.json``."""
        save_file(self.arrays_, folder / "weights.safetensors")
        (folder / "config.json").write_text(json.dumps({"gamma": self.gamma_}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        gamma = json.loads((folder / "config.json").read_text(encoding="utf-8"))["gamma"]
        return cls(load_file(folder / "weights.safetensors"), gamma)


def _design(features: Features) -> npt.NDArray[np.float64]:
    codes = one_hot(features.x_cat, features.layout.cat_sizes)
    return np.ascontiguousarray(np.hstack([np.nan_to_num(features.x_std.astype(np.float64)), codes]))
