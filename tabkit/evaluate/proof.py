"""The strategy asked for is the strategy that ran, or the candidate is refused."""

from __future__ import annotations

from tabkit.learner import STRATEGIES, Adapted, Kind, Proof, candidate_parts
from tabkit.models.base import Model, model_class
from tabkit.models.blend import member_proofs


def contradiction(adapted: Adapted[Model], base: str) -> str | None:
    """Return why a proof contradicts its ``how``, or None where it agrees.

    Parameters
    ----------
    adapted
        What a model returned.
    base
        The model's name, for the sentence.
    """
    if adapted.how in _BLENDS:
        return _blend(adapted)
    return against_rule(adapted.proof, adapted.how, base)


def against_rule(proof: Proof, how: str, base: str) -> str | None:
    """Return why a proof contradicts the rule of its strategy, or None; for tables and lists alike."""
    if how not in STRATEGIES:
        return f"no rule says what '{how}' may train, so its proof cannot be checked"
    fault = STRATEGIES[how].rule(proof)
    return None if fault is None else f"{base} was asked for '{how}', but {fault}"


_BLENDS: dict[str, frozenset[Kind]] = {
    "baselines": frozenset({"baseline"}),
    "bases": frozenset({"baseline", "base"}),
    "all": frozenset({"baseline", "base", "adapted"}),
}
"""Kinds of members that each blend may have."""


def _blend(adapted: Adapted[Model]) -> str | None:
    """Check every member by its own rule, and that a blend is called adapted only for an adapted member's weight."""
    weights = adapted.settings["weights"]
    kinds = {name: model_class(candidate_parts(name)[0]).hows[candidate_parts(name)[1]] for name in weights}
    strange = [name for name, kind in kinds.items() if kind not in _BLENDS[adapted.how]]
    if strange:
        return f"blend was asked for '{adapted.how}', but {strange} are of another kind"
    if adapted.how == "all" and not any(weights[name] > 0 for name, kind in kinds.items() if kind == "adapted"):
        return "blend was asked for 'all', but no adapted member has weight"
    for name, own in member_proofs(adapted).items():
        if name not in weights:
            return f"blend's proof has a block of '{name}', which has no weight"
        if fault := contradiction(own, candidate_parts(name)[0]):
            return f"in a blend, {fault}"
    return None
