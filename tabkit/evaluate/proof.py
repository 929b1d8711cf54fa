"""The strategy asked for is the strategy that ran, or the candidate is refused."""

from __future__ import annotations

from tabkit.models.base import Adapted, Proof, candidate_parts, model_class
from tabkit.models.blend import member_proofs


def contradiction(adapted: Adapted, base: str) -> str | None:
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
    rule = _RULES.get(how)
    if rule is None:
        return f"no rule says what '{how}' may train, so its proof cannot be checked"
    fault = rule(proof)
    return None if fault is None else f"{base} was asked for '{how}', but {fault}"


def _as_is(proof: Proof) -> str | None:
    moved = [b.name for b in proof.blocks if b.trained or b.change]
    return f"its blocks {moved} moved" if moved else None


def _whole(proof: Proof) -> str | None:
    idle = [b.name for b in proof.blocks if b.total and not b.trained]
    return f"its blocks {idle} were never trained" if idle else None


def _head(proof: Proof) -> str | None:
    moved = [b.name for b in proof.blocks if b.name != "head" and (b.trained or b.change)]
    if moved:
        return f"blocks below the head moved: {moved}"
    return None if any(b.name == "head" and b.trained for b in proof.blocks) else "its head was never trained"


def _refit(proof: Proof) -> str | None:
    blocks = {b.name: b for b in proof.blocks}
    if blocks["splits"].trained or blocks["splits"].change:
        return "it changed splits"
    return None if blocks["leaves"].trained else "no leaf value was re-estimated"


def _continue(proof: Proof) -> str | None:
    blocks = {b.name: b for b in proof.blocks}
    if blocks["base_trees"].trained or blocks["base_trees"].change:
        return "it changed the base's trees"
    return None if blocks["new_trees"].trained else "it grew no tree"


def _lora(proof: Proof) -> str | None:
    adapters = [b for b in proof.blocks if b.name.startswith("lora")]
    if not any(b.trained for b in adapters):
        return "it trained no low-rank adapter"
    moved = [b.name for b in proof.blocks if b not in adapters and b.name != "head" and (b.trained or b.change)]
    return f"blocks outside the adapters moved: {moved}" if moved else None


_BLENDS = {
    "baselines": frozenset({"baseline"}),
    "bases": frozenset({"baseline", "base"}),
    "all": frozenset({"baseline", "base", "adapted"}),
}
"""Kinds of members that each blend may have."""


def _blend(adapted: Adapted) -> str | None:
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


def _fold_in(proof: Proof) -> str | None:
    blocks = {b.name: b for b in proof.blocks}
    if blocks["item_factors"].trained or blocks["item_factors"].change:
        return "it changed the items' factors"
    return None if blocks["user_factors"].trained else "it solved no user"


_RULES = {
    "fold_in": _fold_in,
    **dict.fromkeys(("popular", "recent", "frequency", "decay", "affinity", "refresh", "warm"), _whole),
    "as_is": _as_is,
    "context": _as_is,  # it reads more rows, and trains nothing
    "pool": _whole,
    "scratch": _whole,
    "tuned": _whole,
    "full": _whole,
    "gradual": _whole,
    "head": _head,
    "refit": _refit,
    "continue": _continue,
    "lora": _lora,
    "student": _whole,
}
