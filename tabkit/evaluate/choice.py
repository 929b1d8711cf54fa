"""What is fixed before the holdout is opened: the terms of the contest, and what valid chose."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from tabkit.data.encode import Features
from tabkit.evaluate.metrics import Metric
from tabkit.evaluate.proof import contradiction
from tabkit.learner import Candidate, Predictions, candidate_name
from tabkit.models.base import TableCandidate, folds_of
from tabkit.models.blend import FOLDS
from tabkit.result import Chosen, Kind

AnyCandidate = TypeVar("AnyCandidate", bound=Candidate[Any])


@dataclass(frozen=True)
class Terms:
    """By what candidates are judged; nothing here may change once a run has begun.

    Attributes
    ----------
    metrics
        What is reported; the first one decides.
    worthwhile
        The smallest gain in it that would matter.
    resamples
        Behind an interval on the holdout.
    unit
        What is held out and drawn: a row, or a user.
    cpu_hour_cost
        Price of a CPU hour.
    """

    metrics: dict[str, Metric]
    worthwhile: float
    resamples: int
    seed: int
    unit: Literal["row", "user"] = "row"
    cpu_hour_cost: float = 0.05

    @property
    def primary(self) -> str:
        """Name of the metric that decides."""
        return next(iter(self.metrics))

    @property
    def metric(self) -> Metric:
        """The metric that decides."""
        return self.metrics[self.primary]


@dataclass(frozen=True)
class Choice:
    """What valid chose, made before the holdout opens.

    Attributes
    ----------
    on_valid
        The primary metric on valid, by candidate whose proof was accepted.
    titles
        What each candidate is called in a sentence.
    refused
        Candidates whose proof contradicts their ``how``, and why.
    """

    chosen: Chosen
    on_valid: dict[str, float]
    titles: dict[str, str]
    refused: dict[str, str]

    def accepted(self, candidates: Iterable[AnyCandidate]) -> tuple[AnyCandidate, ...]:
        """Return the candidates that were not refused."""
        return tuple(c for c in candidates if c.name not in self.refused)


def refusals(candidates: Iterable[Candidate[Any]]) -> dict[str, str]:
    """Return the candidates whose proof contradicts their ``how``, and why."""
    faults = {c.name: contradiction(c.adapted, c.base) for c in candidates}
    return {name: fault for name, fault in faults.items() if fault is not None}


def choose(
    candidates: Sequence[Candidate[Any]],
    on_valid: Mapping[str, float],
    metric: Metric,
    picking: Mapping[Kind, float] | None = None,
) -> Choice:
    """Check every proof and choose on valid: the best adapted one, its base, the best baseline, the best base.

    A blend's value on valid comes from weights found on other rows; that of the best single candidate was picked
    because it is high on these very rows. So a blend is compared with what picking is worth on rows not picked by.

    Parameters
    ----------
    on_valid
        The primary metric on valid, by candidate.
    picking
        The primary metric of :func:`picked_on_valid`, by kind; needed only where there are blends.
    """
    refused = refusals(candidates)
    accepted = [c for c in candidates if c.name not in refused]

    def rank(c: Candidate[Any]) -> tuple[float, int]:
        # Ties go to the candidate with fewer trained parameters.
        return metric.sign * or_worst(on_valid[c.name], metric), -c.adapted.proof.trained_parameters

    def best(kind: Kind) -> Candidate[Any] | None:
        of_kind = [c for c in accepted if c.kind == kind]
        single = max((c for c in of_kind if c.base != "blend"), key=rank, default=None)
        blend = max((c for c in of_kind if c.base == "blend"), key=rank, default=None)
        if single is None or blend is None:
            return single or blend
        assert picking is not None, "a blend is compared with what picking is worth"
        return blend if rank(blend)[0] > metric.sign * or_worst(picking[kind], metric) else single

    baseline, adapted = best("baseline"), best("adapted")
    assert baseline is not None, "baselines are always in the table"
    bases = [c for c in accepted if c.kind == "base"]
    base = next((c for c in bases if adapted and c.base == adapted.base), None)
    best_base = max((c for c in bases if c.base != "blend"), key=rank, default=None)
    chosen = Chosen(
        adapted=adapted.name if adapted else None,
        base=base.name if base else None,
        baseline=baseline.name,
        best_base=best_base.name if best_base else None,
    )
    values = {c.name: on_valid[c.name] for c in accepted}
    return Choice(chosen, values, {c.name: c.title for c in candidates}, refused)


def choose_on_valid(candidates: Sequence[TableCandidate], valid: Features, metric: Metric) -> Choice:
    """Choose among a table's candidates by their predictions of valid; nothing here sees the holdout."""
    on_valid = {c.name: metric.value(valid.labels, c.valid, valid.w) for c in candidates}
    refused = refusals(candidates)
    picking: dict[Kind, float] = {}
    for kind in ("baseline", "adapted"):
        singles = [c for c in candidates if c.kind == kind and c.base != "blend" and c.name not in refused]
        if singles:
            picking[kind] = metric.value(valid.labels, picked_on_valid(singles, valid, metric), valid.w)
    return choose(candidates, on_valid, metric, picking)


def picked_on_valid(candidates: Sequence[TableCandidate], valid: Features, metric: Metric) -> Predictions:
    """Predict each row of valid by the candidate that is best on the folds without it."""
    fold = folds_of(valid, FOLDS, np.random.default_rng(0))
    out = np.zeros_like(candidates[0].valid)
    for k in np.unique(fold):
        inside, rest = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        known = valid.take(rest)
        values = [metric.value(known.labels, c.valid[rest], known.w) for c in candidates]
        best = candidates[int(np.argmax([metric.sign * or_worst(value, metric) for value in values]))]
        out[inside] = best.valid[inside]
    return out


def better_on_valid(choice: Choice, metric: Metric, barred: Collection[str] = ()) -> str:
    """Return what stays if adapting did not pay, none of those ``barred``; a tie goes to the baseline."""
    chosen = choice.chosen
    blended = candidate_name("blend", "bases")  # there without an adapted blend if no adapted member had weight
    bases = [chosen.base, chosen.best_base, blended if blended in choice.on_valid else None]
    options = [chosen.baseline, *dict.fromkeys(name for name in bases if name)]
    options = [name for name in options if name not in barred]
    return max(options, key=lambda name: metric.sign * or_worst(choice.on_valid[name], metric))


def or_worst(value: float, metric: Metric) -> float:
    """Return a value, or the worst there can be if it is undefined."""
    return value if math.isfinite(value) else -metric.sign * math.inf
