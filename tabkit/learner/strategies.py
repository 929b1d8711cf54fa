"""The strategies: what each is called in a sentence, and what its proof must show.

A strategy of a new model needs one entry here, and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tabkit.result.facts import Block, Proof


@dataclass(frozen=True)
class Strategy:
    """A way to make a candidate.

    Attributes
    ----------
    title
        What stands in brackets behind the model's title; nothing if empty.
    rule
        Returns what in a proof contradicts the strategy; None if nothing does.
    """

    title: str
    rule: Callable[[Proof], str | None]


def _moved(block: Block) -> bool:
    return bool(block.trained or block.change)


def _untouched(proof: Proof) -> str | None:
    moved = [b.name for b in proof.blocks if _moved(b)]
    return f"its blocks {moved} moved" if moved else None


def _whole(proof: Proof) -> str | None:
    idle = [b.name for b in proof.blocks if b.total and not b.trained]
    return f"its blocks {idle} were never trained" if idle else None


def _head(proof: Proof) -> str | None:
    moved = [b.name for b in proof.blocks if b.name != "head" and _moved(b)]
    if moved:
        return f"blocks below the head moved: {moved}"
    return None if any(b.name == "head" and b.trained for b in proof.blocks) else "its head was never trained"


def _lora(proof: Proof) -> str | None:
    adapters = [b for b in proof.blocks if b.name.startswith("lora")]
    if not any(b.trained for b in adapters):
        return "it trained no low-rank adapter"
    moved = [b.name for b in proof.blocks if b not in adapters and b.name != "head" and _moved(b)]
    return f"blocks outside the adapters moved: {moved}" if moved else None


def _beside(frozen: str, changed: str, trained: str, idle: str) -> Callable[[Proof], str | None]:
    """Return the rule of two blocks: the first must stay as it was, the second must be trained."""

    def rule(proof: Proof) -> str | None:
        blocks = {b.name: b for b in proof.blocks}
        if _moved(blocks[frozen]):
            return changed
        return None if blocks[trained].trained else idle

    return rule


def _by_member(proof: Proof) -> str | None:
    """Accept: a blend's members are checked one by one, each by its own strategy's rule."""
    return None


STRATEGIES: dict[str, Strategy] = {
    "scratch": Strategy("", _whole),
    "tuned": Strategy("tuned", _whole),
    "as_is": Strategy("untouched base", _untouched),
    "head": Strategy("head only", _head),
    "gradual": Strategy("unfrozen step by step", _whole),
    "lora": Strategy("low-rank adapters", _lora),
    "full": Strategy("all weights", _whole),
    "context": Strategy("source rows in its context", _untouched),  # it reads more rows, and trains nothing
    "pool": Strategy("source rows pooled in", _whole),
    "refit": Strategy(
        "leaf values refitted",
        _beside("splits", "it changed splits", "leaves", "no leaf value was re-estimated"),
    ),
    "continue": Strategy(
        "trees continued",
        _beside("base_trees", "it changed the base's trees", "new_trees", "it grew no tree"),
    ),
    "student": Strategy("student of the champion", _whole),
    "baselines": Strategy("of baselines", _by_member),
    "bases": Strategy("with untouched bases", _by_member),
    "all": Strategy("with adapted members", _by_member),
    "popular": Strategy("popularity", _whole),
    "recent": Strategy("recent popularity", _whole),
    "frequency": Strategy("personal frequency", _whole),
    "decay": Strategy("decayed frequency", _whole),
    "affinity": Strategy("affinity for its kinds", _whole),
    "refresh": Strategy("counts refreshed", _whole),
    "fold_in": Strategy(
        "users folded in",
        _beside("item_factors", "it changed the items' factors", "user_factors", "it solved no user"),
    ),
    "warm": Strategy("warm start", _whole),
}
