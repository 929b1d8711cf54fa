"""Candidates of a table: each adapted from its origin, blends of them, and any of them made again on other rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tabkit.adapt.candidates import licence_note
from tabkit.adapt.runtime import Runtime, Wanted, measured
from tabkit.data.encode import Features
from tabkit.data.target import Standard, to_scale
from tabkit.learner import Budget, Cost, Kind, Settings, candidate_name, candidate_parts
from tabkit.models.base import Model, TableCandidate, model_class
from tabkit.models.blend import LEAST_ROWS, Blend, Member, Part, mix, unweighted_of
from tabkit.models.parts.bagged import Bagged
from tabkit.models.parts.target_scale import OnScale
from tabkit.recipe import TargetScale
from tabkit.result import CandidateFacts
from tabkit.seed import stream


@dataclass(frozen=True)
class Lessons:
    """The rows that bases are pretrained on.

    Attributes
    ----------
    train
        The target's train rows.
    source
        Labelled rows of the source tables, in the layout of ``train``; None without any.
    unlabelled
        Rows of the target without a label, for self-supervised pretraining; None without any.
    scale
        The scale on which the target is learned; every candidate still answers in the target's unit.
    inner
        Inner folds that ``train`` is cut into, valid being the same rows; None if valid is a part of its own.
    """

    train: Features
    source: Features | None = None
    unlabelled: Features | None = None
    scale: TargetScale | None = None
    inner: int | None = None


class Origins:
    """The models that candidates are adapted from. A base that a run pretrains is made when it is first asked for.

    Parameters
    ----------
    opened
        Bases with weights, from :func:`tabkit.adapt.candidates.open_weights`.
    """

    def __init__(self, lessons: Lessons, opened: Mapping[str, Model], runtime: Runtime) -> None:
        own, source = lessons.train.with_y(None), lessons.source
        self._rows = own if lessons.unlabelled is None else own.stack(lessons.unlabelled.with_y(None))
        self._standard: Standard | None = None
        if lessons.train.layout.task == "regression":
            kind = None if lessons.scale is None else lessons.scale.kind
            self._standard = Standard.of(to_scale(kind, lessons.train.labels))
            if source is not None:  # in the target's unit: what bases learn from it is to be adapted to the target
                source = source.with_y(self._standard.learned(to_scale(kind, source.labels)))
        self._source, self.lessons, self.runtime = source, lessons, runtime
        self._bases = {
            name: self._behind(base if source is None else base.knowing(source)) for name, base in opened.items()
        }

    def of(self, base: str, kind: Kind) -> Model:
        """Return what candidates of this base and kind begin from: baselines from nothing, others from the base."""
        if kind == "baseline":
            return self._behind(model_class(base)())
        if base not in self._bases:
            stage, runtime = f"{base} (pretraining)", self.runtime
            rng = runtime.stream("pretrain", base)
            pretrained = model_class(base).pretrain(self._source, self._rows, rng, runtime.budget_of(stage))
            assert pretrained is not None, f"{base}.pretrain() made no base: needs_source lacks a strategy"
            self._bases[base] = self._behind(pretrained)
            runtime.watch(stage, 1.0, "")
        return self._bases[base]

    def of_name(self, name: str, settings: Settings) -> Model:
        """Return what a candidate begins from, by its name; a blend begins from its members' origins."""
        base, how = candidate_parts(name)
        if base != "blend":
            return self.of(base, model_class(base).hows[how])
        return Blend([Member(m, weight, self.of_name(m, {})) for m, weight in settings["weights"].items()])

    def scaled(self, model: Model) -> Model:
        """Return a model that learns a regression's target standardised, on the recipe's scale if it has one."""
        scale = self.lessons.scale
        if self._standard is None:
            return model
        if scale is None:
            return OnScale(model, None, standard=self._standard)
        return OnScale(model, scale.kind, scale.predicts, standard=self._standard)

    def _behind(self, model: Model) -> Model:
        scaled, inner = self.scaled(model), self.lessons.inner
        return scaled if inner is None else Bagged(scaled, inner, self.runtime.seed)


def make_all(
    todo: tuple[Wanted, ...], origins: Origins, train: Features, valid: Features
) -> tuple[TableCandidate, ...]:
    """Make every candidate from its origin; choices are made on ``valid``."""
    return tuple(make(w, origins.of(w.base, w.kind), train, valid, origins.runtime) for w in todo)


def make(item: Wanted, origin: Model, train: Features, valid: Features, runtime: Runtime) -> TableCandidate:
    """Make one candidate."""
    own = runtime.budget_of(item.name)
    with measured() as cost:
        adapted = origin.adapt(train, valid, item.how, runtime.stream("adapt", item.name), own)
    if origin.opened_from is not None and origin.opened_from.source != "shipped":
        adapted = replace(adapted, notes=(*adapted.notes, licence_note(origin.opened_from)))
    on_train, on_valid = adapted.model.predict_train(train), adapted.predict_valid(valid)
    runtime.watch(item.name, 1.0, "")
    named = (item.name, item.base, item.how, item.kind, origin)
    return TableCandidate(*named, adapted, cost[0], on_train, on_valid, unweighted=unweighted(origin, train))


def unweighted(origin: Model, train: Features) -> str:
    """Return what of a model is made without the rows' weights; empty if nothing is, or rows have none."""
    return "" if train.w is None else origin.unweighted


def blend_all(candidates: tuple[TableCandidate, ...], valid: Features, seed: int) -> tuple[TableCandidate, ...]:
    """Blend candidates: only baselines, with untouched bases, and with adapted ones too.

    What adapting adds to a blend is the last against the others, so it is made only if an adapted candidate has
    weight. Nothing is trained here; nothing is blended if only one candidate knows more than the prior, or if valid
    has too few rows to tell.

    Parameters
    ----------
    candidates
        Those whose proof was accepted.
    """
    if len(valid) < LEAST_ROWS:
        return ()
    out = [blend for how in Blend.hows if (blend := _blend(how, candidates, valid, seed)) is not None]
    # Without weight on a base, this blend is that of the baselines; it stays only as the opponent of an adapted one.
    needed = any(c.kind == "adapted" for c in out)
    return tuple(c for c in out if c.kind != "base" or needed or any(m.kind == "base" for m in c.members))


def _blend(how: str, candidates: tuple[TableCandidate, ...], valid: Features, seed: int) -> TableCandidate | None:
    kind = Blend.hows[how]
    pool = [c for c in candidates if c.kind in _POOLS[kind]]
    if sum(c.base != "prior" for c in pool) < 2 or not any(c.kind == kind for c in pool):
        return None
    with measured() as own:
        parts = [Part(c.name, c.adapted, c.valid) for c in pool]
        adapted = mix(how, parts, valid, stream(seed, "blend"))
    weights = adapted.settings["weights"]
    members = tuple(c for c in pool if c.name in weights)
    if kind == "adapted" and not any(c.kind == kind for c in members):
        return None
    assert isinstance(adapted.model, Blend) and adapted.on_valid is not None
    on_train = adapted.model.combine({c.name: c.train for c in members})
    origin = Blend([Member(c.name, weights[c.name], c.origin) for c in members])
    # Whoever wants the blend has to make all that it was chosen from.
    spent = [own[0], *(c.cost for c in pool)]
    cost = Cost(sum(s.seconds for s in spent), sum(s.cpu_seconds for s in spent), max(s.peak_mb for s in spent))
    name = candidate_name("blend", how)
    named = (name, "blend", how, kind, origin)
    return TableCandidate(*named, adapted, cost, on_train, adapted.on_valid, members, unweighted_of(members))


_POOLS: dict[Kind, tuple[Kind, ...]] = {
    "baseline": ("baseline",),
    "base": ("baseline", "base"),
    "adapted": ("baseline", "base", "adapted"),
}
"""Kinds of candidates that a blend of each kind is chosen from."""


def rerun(candidate: CandidateFacts, origins: Origins, rows: Features, budget: Budget) -> Model:
    """Run a candidate's procedure again on other rows with the settings found; nothing is chosen anew.

    Its facts are enough: the candidate itself may have been made by another process.
    """
    origin = origins.of_name(candidate.name, candidate.settings)
    rng = origins.runtime.stream("adapt", candidate.name)
    return origin.adapt(rows, None, candidate.how, rng, budget, candidate.settings).model
