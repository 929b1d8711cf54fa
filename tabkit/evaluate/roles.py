"""Who plays which part in an outer fold: what it adapted, the base of that, its baseline, and who stands for a candidate."""

from __future__ import annotations

from collections.abc import Callable

from tabkit.learner import candidate_name
from tabkit.result import TableFindings

Pick = Callable[[TableFindings], str | None]
"""Who stands for a role, or for a candidate, in a fold; None if there is nobody."""


def adapted(findings: TableFindings) -> str | None:
    """Return what the fold adapted; None if nothing."""
    return findings.chosen.adapted


def base(findings: TableFindings) -> str | None:
    """Return the untouched base of what it adapted."""
    return findings.chosen.base


def best_base(findings: TableFindings) -> str | None:
    """Return the best of the untouched bases."""
    return findings.chosen.best_base


def baseline(findings: TableFindings) -> str | None:
    """Return the baseline it chose."""
    return findings.chosen.baseline


def named(name: str) -> Pick:
    """Return what stands for a candidate in a fold; None if it was refused or not made.

    A blend without weight on a base, or on an adapted member, is the blend without them, and was made as that one.
    """
    stand_ins = [name, *(candidate_name("blend", how) for how in _SMALLER.get(name, ()))]

    def pick(findings: TableFindings) -> str | None:
        measured = {c.name for c in findings.candidates if c.scores}
        return next((name for name in stand_ins if name in measured), None)

    return pick


_SMALLER = {candidate_name("blend", "all"): ("bases", "baselines"), candidate_name("blend", "bases"): ("baselines",)}


def blended_alone(findings: TableFindings) -> str | None:
    """Return the blend of baselines if a blend was adapted; its gain must not be credited to adaptation."""
    alone = named(candidate_name("blend", "baselines"))(findings)
    blended = findings.chosen.adapted == candidate_name("blend", "all")
    return alone if blended and alone else findings.chosen.baseline


ROLES: tuple[tuple[str, Pick], ...] = (("adapted", adapted), ("baseline", baseline))
