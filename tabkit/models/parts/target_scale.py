"""A model that learns the target standardised, or the logarithm of it so, and answers in the target's own unit."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from tabkit.data.encode import Features
from tabkit.data.target import Standard, from_scale, smearing_factor, to_scale
from tabkit.learner import Adapted, Budget, Predictions, Settings
from tabkit.models.base import Model, stand_in

FILE = "target_scale.json"
SMEARING = "smearing"
AS_IT_IS = Standard()


class OnScale(Model):
    """A model of any kind behind the standard and the scale of the target; everything else is the model's own.

    A base and all that is adapted from it share one standard, and the same procedure on other rows keeps it: what a base
    learned means the same to whoever goes on from there. Learning curves show losses of the standardised target.

    The smearing factor of a logarithm is measured on valid, whose rows the model was not trained on, and kept among the
    settings: the same procedure on all rows uses it again. Where a model is chosen for the median, it stays 1.

    Parameters
    ----------
    kind
        Scale that is learned, ``log`` or ``log1p``; None for the target as it is.
    standard
        Of the target on that scale.
    """

    title = "On a scale"
    hows = {}

    def __init__(
        self,
        inner: Model,
        kind: str | None,
        predicts: str = "mean",
        smearing: float = 1.0,
        standard: Standard = AS_IT_IS,
    ) -> None:
        self.inner, self.kind, self.predicts, self.smearing_, self.standard = inner, kind, predicts, smearing, standard
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
        """Adapt the model inside to the labels as it learns them. See :meth:`Model.adapt`."""
        inner_settings = None if settings is None else {k: v for k, v in settings.items() if k != SMEARING}
        learned = None if valid is None else self._learned(valid)
        adapted = self.inner.adapt(self._learned(train), learned, how, rng, budget, inner_settings)
        on_valid = None if adapted.on_valid is None else self._answered(adapted.on_valid, 1.0)
        adapted = replace(adapted, on_valid=on_valid)
        if self.kind is None:
            return replace(adapted, model=OnScale(adapted.model, None, self.predicts, 1.0, self.standard))
        smearing = 1.0
        if self.predicts == "mean":
            if settings is not None:
                smearing = float(settings[SMEARING])
            elif learned is not None:
                there, answers = self.standard.answered(learned.labels), adapted.model.predict(learned)
                smearing = smearing_factor(there, self.standard.answered(answers), learned.w)
        model = OnScale(adapted.model, self.kind, self.predicts, smearing, self.standard)
        return replace(adapted, model=model, settings={**adapted.settings, SMEARING: smearing})

    def predict(self, features: Features) -> Predictions:
        """Predict in the target's unit (n_rows,)."""
        return self._answered(self.inner.predict(features.with_y(None)), self.smearing_)

    def predict_train(self, train: Features) -> Predictions:
        """Predict train rows as the model inside does, in the target's unit (n_rows,)."""
        return self._answered(self.inner.predict_train(self._learned(train)), self.smearing_)

    def save(self, folder: Path) -> None:
        """Write the weights of the model inside, and ``target_scale.json``."""
        self.inner.save(folder)
        facts = {
            "kind": self.kind,
            "predicts": self.predicts,
            "smearing": self.smearing_,
            "standard": asdict(self.standard),
        }
        (folder / FILE).write_text(json.dumps(facts), encoding="utf-8")

    def envelope(self, train: Features) -> str | None:
        """Return what the model inside says."""
        return self.inner.envelope(self._learned(train))

    def _learned(self, features: Features) -> Features:
        y = features.y
        return features if y is None else features.with_y(self.standard.learned(to_scale(self.kind, y)))

    def _answered(self, z: Predictions, smearing: float) -> Predictions:
        return from_scale(self.kind, self.standard.answered(z), smearing)


def wrapped(inner: Model, folder: Path) -> Model:
    """Return a loaded model behind what was saved with it, or as it is; bundles of earlier versions have no standard."""
    path = folder / FILE
    if not path.is_file():
        return inner
    facts = json.loads(path.read_text(encoding="utf-8"))
    standard = Standard(**facts.get("standard", {}))
    return OnScale(inner, facts["kind"], facts["predicts"], facts["smearing"], standard)
