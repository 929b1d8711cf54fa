"""Which candidates a recipe asks for: baselines first, then each base untouched and its adaptations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tabkit.adapt.runtime import Wanted, Watch, silent
from tabkit.errors import UsageError, nearest
from tabkit.learner import Effort, Learner, Weights
from tabkit.learner.need import Size
from tabkit.models.base import Model, baselines, installed, model_class, model_names
from tabkit.models.blend import Blend
from tabkit.rankers import base as rankers
from tabkit.recipe import Recipe
from tabkit.result import CandidateFacts
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


WITHIN_REACH = 0.75
"""Share of the best score on the parent's valid that a ranker had, if a refresh tries it again. When all habits changed at
once in ``benchmarks/refresh.py``, the new best baseline had had .97 of the old one's."""


def wanted_again(
    todo: Sequence[Wanted], known: Mapping[str, CandidateFacts], primary: str
) -> tuple[tuple[Wanted, ...], tuple[LeftOut, ...]]:
    """Return the rankers of a refresh, with the settings that the parent's run found, and those that need not be tried again.

    Baselines are those of a full run; of each base one strategy is tried, the best on the parent's valid of those short of
    fitting it from scratch. What was far behind the best there is left out.

    Parameters
    ----------
    known
        The candidates of the parent's run, by name; if there are none, nothing is left out or taken over.
    """
    at = {name: score.value for name, facts in known.items() if (score := facts.score(primary, "valid")) is not None}
    if not at:
        return tuple(todo), ()
    best, strategies = max(at.values()), _strategies(todo, at)
    behind = {w.base for w in todo if w.kind == "adapted"} - {
        w.base for w in todo if w.kind != "baseline" and at.get(w.name, 0.0) >= WITHIN_REACH * best
    }
    kept, left = [], []
    for item in todo:
        value = at.get(item.name)
        if value is None:
            reason = "the parent's run did not try it"
        elif item.kind == "adapted" and item.name != strategies[item.base]:
            reason = f"a refresh adapts each base in one way, and the parent's run favours {strategies[item.base]}"
        elif item.base in behind if item.kind != "baseline" else value < WITHIN_REACH * best:
            reason = f"it was far behind when the parent was made: {value:.4f} {primary} on valid, where the best had {best:.4f}"
        else:
            timeless = rankers.ranker_class(item.base).timeless and item.kind != "base"
            kept.append(replace(item, settings=known[item.name].settings if timeless else None))
            continue
        left.append(LeftOut(name=item.name, title=rankers.ranker_class(item.base)().called(item.how), reason=reason))
    return tuple(kept), tuple(left)


def _strategies(todo: Sequence[Wanted], at: Mapping[str, float]) -> dict[str, str]:
    """Return the strategy that a refresh tries, by base: the best on valid; from scratch only if there is no other."""
    tried = [w for w in todo if w.kind == "adapted" and w.name in at]
    ranked = sorted(tried, key=lambda w: (w.how != "full", at[w.name]))
    return {w.base: w.name for w in ranked}


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
