"""Make every candidate: pretrain the bases, adapt them each way the recipe asks, fit the baselines.

Nothing here ever sees a holdout row. The strategies themselves live with the models.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tabkit.data.encode import Features
from tabkit.data.target import to_scale
from tabkit.errors import UsageError, count, nearest
from tabkit.learner import Adapted, Budget, Cost, Kind, Predictions, Weights, candidate_name
from tabkit.models.base import Model, TableCandidate, baselines, installed, model_class, model_names
from tabkit.models.blend import LEAST_ROWS, Blend, Member, Part, mix
from tabkit.models.parts.bagged import Bagged
from tabkit.models.parts.target_scale import OnScale
from tabkit.recipe import Recipe, TargetScale
from tabkit.seed import stream

CURVE_SHARES = {"quick": (0.5,), "standard": (0.125, 0.25, 0.5), "thorough": (0.0625, 0.125, 0.25, 0.5)}
"""Shares of the train rows at which the learning curve is measured, by budget."""

Watch = Callable[[str, float, str], None]
"""Progress: (candidate, fraction done, note)."""


@dataclass(frozen=True)
class Wanted:
    """One candidate to be made."""

    base: str
    how: str
    kind: Kind

    @property
    def name(self) -> str:
        """The candidate's name in tables and files."""
        return candidate_name(self.base, self.how)


def wanted(recipe: Recipe, has_source: bool, where: str = "recipe") -> tuple[Wanted, ...]:
    """Return the candidates of a recipe: baselines first, then each base untouched and its adaptations.

    Raises
    ------
    UsageError
        An unknown base or strategy, one that does not fit the task, or one that needs a source table.
    """
    out = [Wanted(base, how, "baseline") for base, how in baselines(recipe.candidates.without, where)]
    for base, hows in recipe.candidates.adapt.items():
        if base not in model_names():
            raise UsageError(
                f"{where}: table [candidates.adapt], unknown base '{base}'.{nearest(base, model_names())} "
                "See: tabkit list models."
            )
        model = model_class(base)
        if not installed(model):
            raise UsageError(
                f"{where}: base '{base}' needs the package '{model.needs_package}', which is not installed. "
                f"Install it with: pip install 'tabkit-ml[{base}]'"
            )
        if issubclass(model, Blend):
            raise UsageError(
                f"{where}: table [candidates.adapt], 'blend' is made of the other candidates and needs no entry. Remove it; "
                'without = ["blend"] under [candidates] leaves blends out.'
            )
        if recipe.task not in model.tasks:
            raise UsageError(
                f"{where}: base '{base}' cannot do {recipe.task} tasks; it does {', '.join(sorted(model.tasks))}."
            )
        strategies = [how for how, kind in model.hows.items() if kind == "adapted"]
        for how in hows:
            if how not in strategies:
                raise UsageError(
                    f"{where}: table [candidates.adapt], base '{base}' has no strategy '{how}'.{nearest(how, strategies)}"
                )
            if how in model.needs_source and not has_source:
                raise UsageError(
                    f"{where}: '{base}' can only be adapted by '{how}' with a source table to pretrain on. "
                    "Add [source] to the recipe, give --source FILE, or remove the strategy."
                )
        possible = [how for how in model.hows if has_source or how not in model.needs_source]
        untouched = [how for how in possible if model.hows[how] in ("base", "baseline")]
        out += [Wanted(base, how, model.hows[how]) for how in [*untouched, *hows]]
    return tuple(dict.fromkeys(out))


def open_weights(
    todo: tuple[Wanted, ...],
    weights: Mapping[str, str | Path],
    task: str,
    watch: Watch = lambda stage, fraction, note: None,
) -> dict[str, Model]:
    """Open the bases that have weights: the user's own where ``weights`` (base -> path) names them.

    The licence of weights that tabkit does not ship is told to ``watch`` before anything uses them.

    Raises
    ------
    UsageError
        A base that the recipe does not adapt or that takes no weights, or weights that are missing or do not fit.
    """
    opened: dict[str, Model] = {}
    bases = [base for base in dict.fromkeys(w.base for w in todo if w.kind != "baseline")]
    takers = [base for base in bases if model_class(base).has_weights]
    for base in weights:
        if base not in takers:
            raise UsageError(
                f"--weights {base}={weights[base]}: the recipe adapts no base '{base}' that takes weights."
                f"{nearest(base, takers)}"
            )
    for base in takers:
        place = Path(weights[base]) if base in weights else None
        opened[base] = model_class(base).open_weights(place, task)
        known = opened[base].opened_from
        if known is not None and known.source != "shipped":
            watch(f"{base} (weights)", 1.0, licence_note(known))
    return opened


def licence_note(weights: Weights) -> str:
    """Say which weights are used and under which licence."""
    return f"weights {weights.source} (sha256 {weights.sha256[:12]}), licence: {weights.licence}"


def adapt_all(
    todo: tuple[Wanted, ...],
    train: Features,
    valid: Features,
    source: Features | None,
    unlabelled: Features | None,
    seed: int,
    budget: Budget,
    watch: Watch,
    opened: Mapping[str, Model] | None = None,
    scale: TargetScale | None = None,
    inner: int | None = None,
) -> tuple[TableCandidate, ...]:
    """Make every candidate, each from its own stream of random numbers, so that none depends on the others.

    Parameters
    ----------
    source
        Labelled rows of the source table, in the layout of ``train``; None without one.
    unlabelled
        Rows of the target without a label, for self-supervised pretraining; None without any.
    opened
        Bases with weights, from :func:`open_weights`.
    scale
        The scale on which the target is learned; every candidate still answers in the target's unit.
    inner
        Inner folds that ``train`` is cut into, ``valid`` being the same rows; None where valid is a part of its own.
    """

    origins = Origins(train, source, unlabelled, seed, budget, watch, opened or {}, scale, inner)
    return make_all(todo, origins, train, valid)


class Origins:
    """The models that candidates are adapted from. A base that a run pretrains is made when it is first asked for.

    Parameters are those of :func:`adapt_all`.
    """

    def __init__(
        self,
        train: Features,
        source: Features | None,
        unlabelled: Features | None,
        seed: int,
        budget: Budget,
        watch: Watch,
        opened: Mapping[str, Model],
        scale: TargetScale | None,
        inner: int | None,
    ) -> None:
        own = train.with_y(None)
        self._rows = own if unlabelled is None else own.stack(unlabelled.with_y(None))
        if scale is not None and source is not None:
            source = source.with_y(to_scale(scale.kind, source.labels))
        self._source = source
        self.seed, self.budget, self.watch = seed, budget, watch
        self._scale, self._inner = scale, inner
        self._made = {
            name: self._behind(base if self._source is None else base.knowing(self._source))
            for name, base in opened.items()
        }

    def of(self, base: str, kind: Kind) -> Model:
        """Return what candidates of this base and kind begin from: baselines from nothing, others from the base."""
        if kind == "baseline":
            return self._behind(model_class(base)())
        if base not in self._made:
            stage = f"{base} (pretraining)"
            own = replace(self.budget, progress=_part_of(self.watch, stage))
            rng = stream(self.seed, "pretrain", base)
            made = model_class(base).pretrain(self._source, self._rows, rng, own)
            assert made is not None, f"{base} made no base, and wanted() should have refused it"
            self._made[base] = self._behind(made)
            self.watch(stage, 1.0, "")
        return self._made[base]

    def _behind(self, model: Model) -> Model:
        scaled = _behind(self._scale, model)
        return scaled if self._inner is None else Bagged(scaled, self._inner, self.seed)


def make_all(
    todo: tuple[Wanted, ...], origins: Origins, train: Features, valid: Features
) -> tuple[TableCandidate, ...]:
    """Make every candidate from its origin; see :func:`adapt_all`."""
    return tuple(
        _make(w, origins.of(w.base, w.kind), train, valid, origins.seed, origins.budget, origins.watch) for w in todo
    )


def with_origin(candidate: TableCandidate, origins: Origins) -> TableCandidate:
    """Return a candidate, and the members of a blend, with the models that they were adapted from."""
    members = tuple(with_origin(member, origins) for member in candidate.members)
    if not members:
        return replace(candidate, origin=origins.of(candidate.base, candidate.kind))
    weights = candidate.adapted.settings["weights"]
    return replace(
        candidate, origin=Blend([Member(m.name, weights[m.name], m.origin) for m in members]), members=members
    )


def _behind(scale: TargetScale | None, model: Model) -> Model:
    return model if scale is None else OnScale(model, scale.kind, scale.predicts)


def _make(
    item: Wanted, origin: Model, train: Features, valid: Features, seed: int, budget: Budget, watch: Watch
) -> TableCandidate:
    own = replace(budget, progress=_part_of(watch, item.name))
    with measured() as cost:
        adapted = origin.adapt(train, valid, item.how, stream(seed, "adapt", item.name), own)
    if origin.opened_from is not None and origin.opened_from.source != "shipped":
        adapted = replace(adapted, notes=(*adapted.notes, licence_note(origin.opened_from)))
    on_train, on_valid = adapted.model.predict_train(train), adapted.predict_valid(valid)
    watch(item.name, 1.0, "")
    return TableCandidate(item.name, item.base, item.how, item.kind, origin, adapted, cost[0], on_train, on_valid)


def blend_all(candidates: tuple[TableCandidate, ...], valid: Features, seed: int) -> tuple[TableCandidate, ...]:
    """Blend the candidates made already: baselines alone, with untouched bases, and with adapted ones too.

    What adapting adds to a blend is the last against the others, so it is made only where an adapted candidate has
    weight. Nothing is trained here; nothing is blended where only one candidate knows more than the prior, or where valid
    has too few rows to tell.

    Parameters
    ----------
    candidates
        Those whose proof was accepted.
    """
    out: list[TableCandidate] = []
    if len(valid) < LEAST_ROWS:
        return ()
    for how, kind in Blend.hows.items():
        pool = [c for c in candidates if c.kind in _POOLS[kind]]
        if sum(c.base != "prior" for c in pool) < 2 or not any(c.kind == kind for c in pool):
            continue
        with measured() as own:
            parts = [Part(c.name, c.adapted, c.valid) for c in pool]
            adapted = mix(how, parts, valid, stream(seed, "blend"))
        members = tuple(c for c in pool if c.name in adapted.settings["weights"])
        if kind == "adapted" and not any(c.kind == kind for c in members):
            continue
        assert isinstance(adapted.model, Blend) and adapted.on_valid is not None
        on_train = adapted.model.combine({c.name: c.train for c in members})
        origin = Blend([Member(c.name, adapted.settings["weights"][c.name], c.origin) for c in members])
        # Whoever wants the blend has to make all that it was chosen from.
        spent = [own[0], *(c.cost for c in pool)]
        cost = Cost(sum(s.seconds for s in spent), sum(s.cpu_seconds for s in spent), max(s.peak_mb for s in spent))
        name = candidate_name("blend", how)
        out.append(TableCandidate(name, "blend", how, kind, origin, adapted, cost, on_train, adapted.on_valid, members))
    # Without weight on a base, this blend is that of the baselines; it stays only as the opponent of an adapted one.
    needed = any(c.kind == "adapted" for c in out)
    return tuple(c for c in out if c.kind != "base" or needed or any(m.kind == "base" for m in c.members))


_POOLS: dict[Kind, tuple[Kind, ...]] = {
    "baseline": ("baseline",),
    "base": ("baseline", "base"),
    "adapted": ("baseline", "base", "adapted"),
}
"""Kinds of candidates that a blend of each kind is chosen from."""


def _part_of(watch: Watch, stage: str) -> Callable[[float, str], None]:
    return lambda fraction, note: watch(stage, fraction, note)


def again(candidate: TableCandidate, rows: Features, seed: int, budget: Budget) -> Model:
    """Run a candidate's procedure again on other rows with the settings found; nothing is chosen anew."""
    return _adapted_again(candidate, rows, seed, budget).model


def _adapted_again(candidate: TableCandidate, rows: Features, seed: int, budget: Budget) -> Adapted[Model]:
    rng = stream(seed, "adapt", candidate.name)
    return candidate.origin.adapt(rows, None, candidate.how, rng, budget, candidate.adapted.settings)


def student(
    teacher: TableCandidate,
    train: Features,
    valid: Features,
    unlabelled: Features | None,
    seed: int,
    budget: Budget,
    watch: Watch = lambda *_: None,
    scale: TargetScale | None = None,
) -> TableCandidate:
    """Distil a candidate into LightGBM: it learns the teacher's answers, never the labels.

    The teacher answers train rows context-safe, as it would answer new ones; its answers of valid stop the growing.
    """
    item = Wanted("lgbm", "student", "student")
    soft = _answers(teacher.adapted.model, train.with_y(teacher.train), unlabelled)
    origin, own = _behind(scale, model_class("lgbm")()), replace(budget, progress=_part_of(watch, item.name))
    with measured() as cost:
        adapted = origin.adapt(soft, valid.with_y(teacher.valid), item.how, stream(seed, "adapt", item.name), own)
    notes = (*adapted.notes, f"learned the answers of {teacher.name} on {count(len(soft), 'row')}")
    model = adapted.model
    return TableCandidate(
        item.name,
        item.base,
        item.how,
        item.kind,
        origin,
        replace(adapted, notes=notes),
        cost[0],
        model.predict(train),
        model.predict(valid),
    )


def student_again(
    pupil: TableCandidate, teacher: Model, rows: Features, unlabelled: Features | None, seed: int, budget: Budget
) -> Model:
    """Distil a teacher that was trained on ``rows`` into a student of the size found before."""
    soft = _answers(teacher, rows.with_y(teacher.predict_train(rows)), unlabelled)
    return again(pupil, soft, seed, budget)


def _answers(teacher: Model, rows: Features, unlabelled: Features | None) -> Features:
    return rows if unlabelled is None else rows.stack(unlabelled.with_y(teacher.predict(unlabelled)))


def shuffled(candidate: TableCandidate, train: Features, valid: Features, seed: int, budget: Budget) -> Predictions:
    """Run the procedure on shuffled labels and predict valid: a pipeline without a leak now knows nothing."""
    assert train.y is not None
    labels = stream(seed, "shuffle").permutation(train.y)
    return _adapted_again(candidate, train.with_y(labels), seed, budget).predict_valid(valid)


def without_columns(
    name: str,
    columns: list[str],
    candidate: TableCandidate,
    train: Features,
    valid: Features,
    seed: int,
    budget: Budget,
) -> TableCandidate:
    """Fit a baseline again without some columns, its search included."""
    item = Wanted(candidate.base, candidate.how, candidate.kind)
    made = _make(item, candidate.origin, train.without(columns), valid.without(columns), seed, budget, lambda *_: None)
    return replace(made, name=name)


def learning_curve(
    candidates: tuple[TableCandidate, ...], train: Features, valid: Features, seed: int, budget: Budget, watch: Watch
) -> list[tuple[int, dict[str, Predictions]]]:
    """Predict valid after training on nested shares of train, choices included; the last point is all of train."""
    assert train.y is not None
    points: list[tuple[int, dict[str, Predictions]]] = []
    order = _nested_order(train, stream(seed, "curve"))
    smaller = replace(budget, trials=max(1, budget.trials // 4), seconds=budget.seconds / 4)
    shares = CURVE_SHARES[budget.level]
    alone = tuple(dict.fromkeys(member.name for c in candidates for member in c.members or (c,)))
    by_name = {member.name: member for c in candidates for member in c.members or (c,)}
    for done, share in enumerate(shares):
        rows = np.sort(order[: max(2, round(share * len(train)))])
        fitted: dict[str, Adapted[Model]] = {}
        for name in alone:  # once each, however many blends they are members of
            watch("learning curve", done / len(shares), f"{name} on {len(rows):,} rows")
            rng, candidate = stream(seed, "adapt", name), by_name[name]
            fitted[name] = candidate.origin.adapt(train.take(rows), valid, candidate.how, rng, smaller)
        on_valid = {name: _on_valid(adapted, rows, valid) for name, adapted in fitted.items()}
        for c in candidates:
            if c.members:
                parts = [Part(m.name, fitted[m.name], on_valid[m.name]) for m in c.members]
                on_valid[c.name] = mix(c.how, parts, valid, stream(seed, "blend")).predict_valid(valid)
        points.append((len(rows), {c.name: on_valid[c.name] for c in candidates}))
    watch("learning curve", 1.0, "")
    return [*points, (len(train), {c.name: c.valid for c in candidates})]


def _on_valid(adapted: Adapted[Model], rows: npt.NDArray[np.int64], valid: Features) -> Predictions:
    """Predict valid; where it is train itself (inner folds), ``rows`` of it were learned from and are predicted out of fold."""
    if not isinstance(adapted.model, Bagged):
        return adapted.predict_valid(valid)
    predicted = adapted.model.predict(valid)
    predicted[rows] = adapted.predict_valid(valid.take(rows))
    return predicted


def _nested_order(train: Features, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Order rows at random, a row of each class first, so that every share has every class."""
    order = rng.permutation(len(train))
    if train.layout.task == "regression":
        return order
    assert train.y is not None
    _, first = np.unique(train.y[order], return_index=True)
    return np.concatenate([order[first], np.delete(order, first)])


@contextmanager
def measured() -> Iterator[list[Cost]]:
    """Measure wall seconds, CPU seconds (all threads) and peak resident memory of a block.

    The peak is that of the block on Linux, where it can be reset; elsewhere that of the process so far.
    """
    out: list[Cost] = []
    _reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    yield out
    out.append(Cost(time.perf_counter() - start, time.process_time() - cpu, _peak_mb()))


def _reset_peak() -> None:
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's own
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_mb() -> float:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
