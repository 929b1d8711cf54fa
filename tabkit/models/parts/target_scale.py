"""A model that learns another scale of the target and answers in the target's own unit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tabkit.data.encode import Features
from tabkit.data.target import from_scale, smearing_factor, to_scale
from tabkit.learner import Adapted, Budget, Predictions, Settings
from tabkit.models.base import Model, stand_in

FILE = "target_scale.json"
SMEARING = "smearing"


class OnScale(Model):
    """A model of any kind behind a scale of the target; everything else is the model's own.

    The smearing factor is measured on valid, whose rows the model was not trained on, and kept among the settings:
    the same procedure on all rows uses it again. Where a model is chosen for the median, it stays 1.
    """

    title = "On a scale"
    hows = {}

    def __init__(self, inner: Model, kind: str, predicts: str, smearing: float = 1.0) -> None:
        self.inner, self.kind, self.predicts, self.smearing_ = inner, kind, predicts, smearing
        stand_in(self, inner)

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Adapt the model inside to the scaled labels. See :meth:`Model.adapt`."""
        inner_settings = None if settings is None else {k: v for k, v in settings.items() if k != SMEARING}
        scaled = None if valid is None else self._scaled(valid)
        made = self.inner.adapt(self._scaled(train), scaled, how, rng, budget, inner_settings)
        smearing = 1.0
        if self.predicts == "mean":
            if settings is not None:
                smearing = float(settings[SMEARING])
            elif scaled is not None:
                smearing = smearing_factor(scaled.labels, made.model.predict(scaled))
        model = OnScale(made.model, self.kind, self.predicts, smearing)
        return replace(made, model=model, settings={**made.settings, SMEARING: smearing})

    def predict(self, features: Features) -> Predictions:
        """Predict in the target's unit (n_rows,)."""
        return from_scale(self.kind, self.inner.predict(features.with_y(None)), self.smearing_)

    def predict_train(self, train: Features) -> Predictions:
        """Predict train rows as the model inside does, in the target's unit (n_rows,)."""
        return from_scale(self.kind, self.inner.predict_train(self._scaled(train)), self.smearing_)

    def save(self, folder: Path) -> None:
        """Write the weights of the model inside, and ``target_scale.json``."""
        self.inner.save(folder)
        facts = {"kind": self.kind, "predicts": self.predicts, "smearing": self.smearing_}
        (folder / FILE).write_text(json.dumps(facts), encoding="utf-8")

    def envelope(self, train: Features) -> str | None:
        """Return what the model inside says."""
        return self.inner.envelope(self._scaled(train))

    def _scaled(self, features: Features) -> Features:
        return features.with_y(None if features.y is None else to_scale(self.kind, features.y))


def wrapped(inner: Model, folder: Path) -> Model:
    """Return a loaded model behind the scale that was saved with it, or as it is where there was none."""
    path = folder / FILE
    if not path.is_file():
        return inner
    facts = json.loads(path.read_text(encoding="utf-8"))
    return OnScale(inner, facts["kind"], facts["predicts"], facts["smearing"])
