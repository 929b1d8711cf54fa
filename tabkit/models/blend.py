"""A blend: the weighted mean of other candidates' predictions, weights found by greedy selection on valid.

Source: Caruana et al., *Ensemble Selection from Libraries of Models*, ICML 2004: members are added one at a time, with
replacement, each time the one that brings the loss of the mean down most. Nothing is trained to find weights.

Weights are the mean of several selections, each without one fold of the rows: bagged selection, the paper's own guard
against overfitting. Even so, weights that were found on valid make valid look good. So valid is cut into folds, each is
predicted with weights found (bagging and all) on the other folds, and these predictions are what the blend is judged by
when valid chooses. What this does not undo: members chose their own settings on the same valid, so one that searched more looks a little better there,
to the weights as to every other choice; and folds are cut by row, whatever groups the rows belong to.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Kind, Learner, Predictions, Proof, Settings, candidate_parts
from tabkit.models.base import Model, folds_of
from tabkit.models.parts.bagged import read_model

STEPS = 20
"""Additions per selection: weights are then multiples of .05 or coarser."""

FOLDS = 5

LEAST_ROWS = 4 * FOLDS
"""Fewer rows of valid tell nothing about weights; no blend is made of them."""

MOST_ROWS = 10_000
"""Rows on which weights are found at most: a handful of weights needs no more."""

LEAST_WEIGHT = 0.05
"""A mean weight below this is noise from a single fold; the member would be refitted and scored for nothing."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Member:
    """One model of a blend, by its candidate's name; ``weight`` is its share of the mean."""

    name: str
    weight: float
    model: Model


@dataclass(frozen=True)
class Part:
    """A candidate that may become a member: what it is, and its predictions of valid."""

    name: str
    adapted: Adapted[Model]
    valid: Predictions


class Blend(Model):
    """The weighted mean of its members' predictions: probabilities, or means.

    ``baselines`` blends baselines only, ``bases`` also untouched bases, ``all`` also adapted models: what adapting adds
    is the difference between the last and the others.
    """

    title = "Blend"
    hows = {"baselines": "baseline", "bases": "base", "all": "adapted"}
    optional = True
    unweighted = ""

    def __init__(self, members: Sequence[Member] = ()) -> None:
        self.members_ = tuple(members)
        rows = [m.model.importance_rows for m in self.members_ if m.model.importance_rows is not None]
        self.importance_rows = min(rows, default=None)

    def called(self, how: str) -> str:
        """Return what the blend is called; see :func:`title_of`."""
        return title_of(how, {m.model.hows[candidate_parts(m.name)[1]] for m in self.members_})

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Adapt every member its own way, then find the weights. See :meth:`Model.adapt`.

        With ``settings``, members run again with theirs, and the weights are kept.
        """
        if how not in self.hows:
            raise ValueError(f"blend knows {sorted(self.hows)}, not {how!r}")
        if not self.members_:
            raise ValueError("blend needs members; blend.mix makes one of candidates")
        seed = int(rng.integers(2**31 - 1))
        parts = []
        for member in self.members_:
            if settings is not None and member.name not in settings["weights"]:
                continue
            own = None if settings is None else settings["members"][member.name]
            stream = np.random.default_rng([seed, zlib.crc32(member.name.encode())])  # none depends on the others
            adapted = member.model.adapt(train, valid, candidate_parts(member.name)[1], stream, budget, own)
            on_valid = np.zeros(0) if valid is None else adapted.predict_valid(valid)
            parts.append(Part(member.name, adapted, on_valid))
        if settings is not None:
            return blended(how, parts, settings["weights"])
        assert valid is not None, "without valid rows, settings must say what was chosen"
        return mix(how, parts, valid, rng)

    def predict(self, features: Features) -> Predictions:
        """Return the weighted mean of the members' predictions, row by row."""
        return self.combine({m.name: m.model.predict(features) for m in self.members_})

    def predict_train(self, train: Features) -> Predictions:
        """Return the weighted mean of the members' context-safe predictions."""
        return self.combine({m.name: m.model.predict_train(train) for m in self.members_})

    def combine(self, predicted: Mapping[str, Predictions]) -> Predictions:
        """Return the weighted mean of predictions made already, by member; others are not read."""
        total = self.members_[0].weight * predicted[self.members_[0].name]
        for member in self.members_[1:]:
            total = total + member.weight * predicted[member.name]
        return np.asarray(total)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` (names and weights) and a folder per member, each as its own model writes it."""
        for member in self.members_:
            (folder / member.name).mkdir()
            member.model.save(folder / member.name)
        config = {"weights": {m.name: m.weight for m in self.members_}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        weights = json.loads((folder / "config.json").read_text(encoding="utf-8"))["weights"]
        models = {name: read_model(candidate_parts(name)[0], folder / name) for name in weights}
        return cls([Member(name, weight, models[name]) for name, weight in weights.items()])


def title_of(how: str, kinds: Collection[Kind]) -> str:
    """Return what a blend with members of these kinds is called: without weight on a base, not after bases."""
    if how == "bases" and kinds and "base" not in kinds:
        return "Blend (no base has weight)"
    return Learner.called(Blend(), how)


def mix(how: str, parts: Sequence[Part], valid: Features, rng: np.random.Generator) -> Adapted[Model]:
    """Find weights on valid and return the blend, with the predictions of valid that it may be judged by.

    Parameters
    ----------
    parts
        Candidates with their predictions of ``valid``.
    rng
        Cuts valid into folds, classes evenly.

    Returns
    -------
    Adapted
        ``on_valid`` holds, for each row of valid, the prediction with weights found on the other folds.
    """
    table = np.stack([part.valid for part in parts])
    fold = folds_of(valid, FOLDS, rng)
    on_valid = np.zeros_like(parts[0].valid)
    for k in range(FOLDS):
        inside, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        apart = valid.take(rest)
        on_valid[inside] = np.tensordot(
            _bagged(table[:, rest], apart, folds_of(apart, FOLDS, rng)), table[:, inside], axes=1
        )
    found = _bagged(table, valid, fold)
    weights = {p.name: float(w) for p, w in zip(parts, found, strict=True) if w > 0}
    return replace(blended(how, parts, weights), on_valid=on_valid)


class Titled(Protocol):
    """Whatever says what of it was made without the rows' weights."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def unweighted(self) -> str:
        """What was made without them; empty if nothing was."""


def unweighted_of(members: Iterable[Titled]) -> str:
    """Return what of a blend was made without the rows' weights, member by member."""
    return "; ".join(f"{m.title}: {m.unweighted}" for m in members if m.unweighted)


class MemberFacts(Protocol):
    """What is known of a member; the model itself may be elsewhere."""

    @property
    def name(self) -> str:
        """The candidate's name."""

    @property
    def proof(self) -> tuple[Block, ...]:
        """What was trained, block by block."""

    @property
    def settings(self) -> Settings:
        """The settings found."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks."""


@dataclass(frozen=True)
class _Facts:
    name: str
    proof: tuple[Block, ...]
    settings: Settings
    notes: tuple[str, ...]


def described(
    members: Sequence[MemberFacts], weights: Mapping[str, float]
) -> tuple[Proof, dict[str, Any], tuple[str, ...]]:
    """Return a blend's proof, member by member and block by block, its settings and its notes."""
    blocks = [replace(b, name=f"{m.name}/{b.name}") for m in members for b in m.proof]
    settings = {
        "weights": {m.name: weights[m.name] for m in members},
        "members": {m.name: dict(m.settings) for m in members},
    }
    shares = ", ".join(f"{weights[m.name]:.0%} {m.name}" for m in sorted(members, key=lambda m: -weights[m.name]))
    selection = f"greedy selection on valid, {FOLDS} folds; valid is scored with weights found on the other folds"
    notes = (f"{shares} ({selection})", *(f"{m.name}: {note}" for m in members for note in m.notes))
    return Proof(tuple(blocks)), settings, notes


def blended(how: str, parts: Sequence[Part], weights: Mapping[str, float]) -> Adapted[Model]:
    """Return the blend of ``parts`` with these weights."""
    weighted = [part for part in parts if part.name in weights]
    blend = Blend([Member(p.name, weights[p.name], p.adapted.model) for p in weighted])
    facts = [_Facts(p.name, a.proof.blocks, a.settings, a.notes) for p in weighted for a in (p.adapted,)]
    proof, settings, notes = described(facts, weights)
    return Adapted(blend, how, proof, settings, (), notes)


def member_proofs(adapted: Adapted[Model]) -> dict[str, Adapted[Model]]:
    """Return each member's part of a blend's proof, as that member's own, for whoever checks it."""
    blocks: dict[str, list[Block]] = {name: [] for name in adapted.settings["weights"]}
    for block in adapted.proof.blocks:
        name, _, own = block.name.partition("/")
        blocks.setdefault(name, []).append(replace(block, name=own))
    return {name: Adapted(adapted.model, candidate_parts(name)[1], Proof(tuple(own))) for name, own in blocks.items()}


def greedy_weights(predicted: Floats, task: str, steps: int = STEPS, row_weights: Floats | None = None) -> Floats:
    """Add one member at a time, with replacement, and keep the additions up to the lowest loss.

    Parameters
    ----------
    predicted
        (n_members, n_rows): probability of the row's own class, or the residual for regression. Both are linear in
        the members, so the blend's is the mean of theirs.
    steps
        Additions at most.
    row_weights
        For how many rows each stands, (n_rows,); None if each counts once.

    Returns
    -------
    ndarray
        Weights (n_members,), multiples of 1 / (number of additions), summing to 1.
    """
    total, counts = np.zeros(predicted.shape[1]), np.zeros(len(predicted))
    best_loss, best_counts = np.inf, counts
    for step in range(1, steps + 1):
        mean = (total + predicted) / step
        per_row = mean**2 if task == "regression" else -np.log(np.clip(mean, 1e-15, None))
        losses = per_row.mean(axis=1) if row_weights is None else np.average(per_row, axis=1, weights=row_weights)
        chosen = int(np.argmin(losses))  # the first of equals: the order is that of the scorecard
        total, counts = total + predicted[chosen], counts.copy()
        counts[chosen] += 1
        if losses[chosen] < best_loss:
            best_loss, best_counts = float(losses[chosen]), counts
    return np.asarray(best_counts / best_counts.sum())


def _bagged(table: Floats, rows: Features, fold: npt.NDArray[np.int64]) -> Floats:
    """Return the mean weights (n_members,) of selections without one fold each, small ones left out."""
    errors = _errors_of(table, rows)
    found = []
    for k in range(FOLDS):
        kept = np.flatnonzero(fold != k)
        kept = kept[:: 1 + (len(kept) - 1) // MOST_ROWS]
        own = None if rows.w is None else rows.w[kept]
        found.append(greedy_weights(errors[:, kept], rows.layout.task, row_weights=own))
    return _without_small(np.mean(found, axis=0))


def _without_small(weights: Floats, kept: npt.NDArray[np.bool_] | bool = False) -> Floats:
    """Return weights that sum to 1, with those under LEAST_WEIGHT at 0, but for the greatest and the ones ``kept``."""
    small = weights < min(LEAST_WEIGHT, float(weights.max()))
    large = np.where(small & np.logical_not(kept), 0.0, weights)
    return np.asarray(large / large.sum())


def mean_weights(
    found: Sequence[Mapping[str, float]], names: Sequence[str], adapted: Collection[str]
) -> dict[str, float]:
    """Return the mean of the weights that several folds found, small ones left out.

    Parameters
    ----------
    found
        The weights of each fold's blend.
    names
        All members, in order.
    adapted
        Of a blend that is called adapted, the adapted members: the heaviest stays, however small its mean weight.
    """
    mean = np.mean([[weights.get(name, 0.0) for name in names] for weights in found], axis=0)
    stays = np.zeros(len(names), dtype=bool)
    if adapted:
        own = np.array([name in adapted for name in names])
        stays[np.argmax(np.where(own, mean, -1.0))] = True
    return {n: float(w) for n, w in zip(names, _without_small(mean, stays), strict=True) if w > 0}


def _errors_of(table: npt.NDArray[np.float64], rows: Features) -> Floats:
    if rows.layout.task == "regression":
        return np.asarray(table - rows.labels)
    return np.asarray(table[:, np.arange(len(rows)), rows.labels])
