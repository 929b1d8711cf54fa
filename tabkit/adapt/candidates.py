"""Which candidates a recipe asks for: baselines first, then each base untouched and its adaptations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tabkit.adapt.runtime import Wanted, Watch, silent
from tabkit.errors import UsageError, nearest
from tabkit.learner import Effort, Learner, Weights
from tabkit.learner.need import Size
from tabkit.models.base import Model, baselines, installed, model_class, model_names
from tabkit.models.blend import Blend
from tabkit.rankers import base as rankers
from tabkit.recipe import Recipe
from tabkit.result.lists import LeftOut


def wanted(recipe: Recipe, has_source: bool, where: str = "recipe") -> tuple[Wanted, ...]:
    """Return the candidates of a table's recipe.

    Raises
    ------
    UsageError
        An unknown base or strategy, one that does not fit the task, or one that needs a source table.
    """
    out = [Wanted(base, how, "baseline") for base, how in baselines(recipe.candidates.without, where)]
    for base, hows in recipe.candidates.adapt.items():
        _check_base(base, model_names(), "base", where)
        model = model_class(base)
        _check_model(base, model, recipe.task, where)
        _check_strategies(base, model, hows, where)
        for how in hows:
            if how in model.needs_source and not has_source:
                raise UsageError(
                    f"{where}: '{base}' can only be adapted by '{how}' with a source table to pretrain on. "
                    "Add [source] to the recipe, give --source FILE, or remove the strategy."
                )
        possible = [how for how in model.hows if has_source or how not in model.needs_source]
        untouched = [how for how in possible if model.hows[how] in ("base", "baseline")]
        out += [Wanted(base, how, model.hows[how]) for how in [*untouched, *hows]]
    return tuple(dict.fromkeys(out))


def wanted_rankers(recipe: Recipe, effort: Effort, where: str) -> tuple[Wanted, ...]:
    """Return the rankers of a recipe.

    Raises
    ------
    UsageError
        An unknown base or strategy.
    """
    assert recipe.ranking is not None
    always = rankers.baselines(recipe.candidates.without, effort, cold_items=recipe.ranking.cold_items, where=where)
    out = [Wanted(base, how, "baseline") for base, how in always]
    for base, hows in recipe.candidates.adapt.items():
        _check_base(base, rankers.ranker_names(), "ranker", where)
        known = rankers.ranker_class(base).hows
        _check_strategies(base, rankers.ranker_class(base), hows, where)
        out += [Wanted(base, how, known[how]) for how in [*(h for h, k in known.items() if k == "base"), *hows]]
    return tuple(dict.fromkeys(out))


def fitting(
    todo: Sequence[Wanted], size: Size, effort: Effort, without: Collection[str]
) -> tuple[tuple[Wanted, ...], tuple[LeftOut, ...], tuple[str, ...]]:
    """Return the rankers that fit a log of some size, those that do not and why, and the names no other ranker may ask.

    It depends on the log and the budget, never on the machine: the same log gives the same candidates everywhere.

    Parameters
    ----------
    without
        Rankers that the recipe leaves out.
    """
    kept, left = [], []
    kinds = {name: rankers.ranker_class(name) for name in rankers.ranker_names()}
    barred = {*without, *(n for n, kind in kinds.items() if kind.need(size, "scratch", effort).too_much(effort))}
    for item in todo:
        kind = kinds[item.base]
        if reason := kind.need(size, item.how, effort).too_much(effort):
            left.append(LeftOut(name=item.name, title=kind().called(item.how), reason=reason))
        else:
            kept.append(item)
    return tuple(kept), tuple(left), tuple(sorted(barred))


def wanted_on_top(base: str, todo: Sequence[Wanted]) -> tuple[Wanted, ...]:
    """Return the rankers of a refresh: the baselines of a run, the parent, and its adaptations short of fitting it again.

    A parent that is held against fewer baselines than a run is could be taken for better than it is.
    """
    known = rankers.ranker_class(base).hows
    out = [item for item in todo if item.kind == "baseline"]
    out += [Wanted(base, how, kind) for how, kind in known.items() if kind != "baseline" and how != "full"]
    return tuple(out)


def _check_base(base: str, known: Collection[str], what: str, where: str) -> None:
    if base not in known:
        raise UsageError(
            f"{where}: table [candidates.adapt], unknown {what} '{base}'.{nearest(base, known)} See: tabkit list models."
        )


def _check_model(base: str, model: type[Model], task: str, where: str) -> None:
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
    if task not in model.tasks:
        raise UsageError(f"{where}: base '{base}' cannot do {task} tasks; it does {', '.join(sorted(model.tasks))}.")


def _check_strategies(base: str, learner: type[Learner], hows: Sequence[str], where: str) -> None:
    strategies = [how for how, kind in learner.hows.items() if kind == "adapted"]
    for how in hows:
        if how not in strategies:
            raise UsageError(
                f"{where}: table [candidates.adapt], base '{base}' has no strategy '{how}'.{nearest(how, strategies)}"
            )


def open_weights(
    todo: Sequence[Wanted], weights: Mapping[str, str | Path], task: str, watch: Watch = silent
) -> dict[str, Model]:
    """Open the bases that have weights: the user's own if ``weights`` (base -> path) names them.

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
