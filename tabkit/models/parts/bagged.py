"""Bagging over inner folds: every row is learned from and chosen on, where a valid part would be too few to choose by.

A part of thirty rows set aside to choose on leaves both less to learn from and too little to choose by. So rows are cut
into inner folds. For each of them a model is adapted to the other folds, stops and chooses on this one, and predicts it:
choices between candidates are made on the predictions of all rows, each by a model that did not learn from it. What
predicts new rows is the mean of the models (cross-validated committees: Parmanto, Munro & Doyle, *Improving Committee
Diagnosis with Resampling Techniques*, NIPS 1995; after Breiman, *Bagging Predictors*, Machine Learning 1996).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings
from tabkit.models.base import Model, folds_of, model_class, stand_in
from tabkit.models.parts.target_scale import wrapped
from tabkit.seed import stream

FILE = "bag.json"
LEAST_TRIALS = 3
"""Settings that each model of a bag tries at least, of the trials that they share."""


class Bagged(Model):
    """The mean of one model per inner fold; everything else is the model's own.

    Parameters
    ----------
    inner
        What each model is adapted from; it may answer on another scale of the target.
    seed
        Of the folds: they are the same for every candidate that is given the same rows.
    """

    title = "Bagged"
    hows = {}

    def __init__(self, inner: Model, n_folds: int, seed: int, members: Sequence[Model] = ()) -> None:
        self.inner, self.n_folds, self.seed, self.members_ = inner, n_folds, seed, tuple(members)
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
        """Adapt a model per inner fold of ``train``. See :meth:`Model.adapt`.

        ``valid`` is not read: each model has its own. With ``settings``, each runs again with those it found. Seconds and
        trials are shared out among the models.

        Returns
        -------
        Adapted
            ``on_valid`` holds, for each row of train, the prediction of the model that did not learn from it.
        """
        folds = self._folds(train)
        share = replace(
            budget, seconds=budget.seconds / self.n_folds, trials=max(LEAST_TRIALS, budget.trials // self.n_folds)
        )
        streams = rng.spawn(self.n_folds)
        made: list[Adapted[Model]] = []
        held_out: list[Predictions] = []
        for k, own in enumerate(streams):
            rest, inside = train.take(np.flatnonzero(folds != k)), train.take(np.flatnonzero(folds == k))
            if settings is None:
                made.append(self.inner.adapt(rest, inside, how, own, share))
            else:
                made.append(self.inner.adapt(rest, None, how, own, share, settings["bag"][k]))
            held_out.append(made[-1].predict_valid(inside))
        order = np.argsort(np.concatenate([np.flatnonzero(folds == k) for k in range(self.n_folds)]))
        return Adapted(
            Bagged(self.inner, self.n_folds, self.seed, [a.model for a in made]),
            how,
            _merged(made),
            {"bag": [dict(a.settings) for a in made]},
            made[0].history,
            (f"the mean of {self.n_folds} models, each adapted to all inner folds but one", *made[0].notes),
            np.concatenate(held_out)[order],
        )

    def predict(self, features: Features) -> Predictions:
        """Return the mean of the models' predictions, row by row."""
        return np.asarray(np.mean([m.predict(features) for m in self.members_], axis=0))

    def predict_train(self, train: Features) -> Predictions:
        """Return, for each row, the mean of the models that learned from it, context-safe."""
        folds = self._folds(train)
        total: Predictions | None = None
        for k, member in enumerate(self.members_):
            learned = np.flatnonzero(folds != k)
            predicted = member.predict_train(train.take(learned))
            total = np.zeros((len(train), *predicted.shape[1:])) if total is None else total
            total[learned] += predicted
        assert total is not None
        return np.asarray(total / (self.n_folds - 1))

    def save(self, folder: Path) -> None:
        """Write ``bag.json`` and a folder per model, each as its own model writes it."""
        for k, member in enumerate(self.members_):
            (folder / str(k)).mkdir()
            member.save(folder / str(k))
        (folder / FILE).write_text(json.dumps({"n_folds": self.n_folds, "seed": self.seed}), encoding="utf-8")

    def envelope(self, train: Features) -> str | None:
        """Return what the first model says of the rows that it learned from."""
        return self.members_[0].envelope(train.take(np.flatnonzero(self._folds(train) != 0)))

    def _folds(self, train: Features) -> npt.NDArray[np.int64]:
        return folds_of(train, self.n_folds, stream(self.seed, "inner folds"))


def read_model(name: str, folder: Path) -> Model:
    """Read a saved model of ``models/<name>.py``: a bag where it was saved as one, behind a scale where it had one."""

    def alone(place: Path) -> Model:
        return wrapped(model_class(name).load(place), place)

    if not (folder / FILE).is_file():
        return alone(folder)
    facts = json.loads((folder / FILE).read_text(encoding="utf-8"))
    members = [alone(folder / str(k)) for k in range(facts["n_folds"])]
    return Bagged(members[0], facts["n_folds"], facts["seed"], members)


def _merged(made: Sequence[Adapted[Model]]) -> Proof:
    """Merge proofs block by block: parameters are summed over the models, changes are the root of summed squares."""
    blocks: dict[str, Block] = {}
    for block in (block for a in made for block in a.proof.blocks):
        so_far = blocks.get(block.name, Block(block.name, 0, 0, 0.0))
        blocks[block.name] = Block(
            block.name,
            so_far.total + block.total,
            so_far.trained + block.trained,
            float(np.hypot(so_far.change, block.change)),
        )
    return Proof(tuple(blocks.values()))
