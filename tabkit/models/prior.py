"""The prior: what is known before looking at any column. Every other candidate must beat it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings
from tabkit.models.base import Model, prior_of


class Prior(Model):
    """Predicts the class shares, or the mean target, of train for every row."""

    title = "Prior"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 10}
    unweighted = ""

    def __init__(self, values: Predictions | None = None, regression: bool = False) -> None:
        self.values_ = values
        self.regression = regression

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Count. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"prior knows {sorted(self.hows)}, not {how!r}")
        values = prior_of(train)
        model = Prior(values, train.layout.task == "regression")
        block = Block("prior", values.size, values.size, float(np.linalg.norm(values)))
        return Adapted(model, how, Proof((block,)))

    def predict(self, features: Features) -> Predictions:
        """Return the prior for every row."""
        assert self.values_ is not None
        if self.regression:
            return np.full(len(features), self.values_[0])
        return np.tile(self.values_, (len(features), 1))

    def save(self, folder: Path) -> None:
        """Write ``prior.json``."""
        assert self.values_ is not None
        text = json.dumps({"values": self.values_.tolist(), "regression": self.regression})
        (folder / "prior.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``prior.json``."""
        values = json.loads((folder / "prior.json").read_text(encoding="utf-8"))
        return cls(np.array(values["values"]), values["regression"])
