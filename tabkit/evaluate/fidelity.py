"""How well a student stands in for its teacher, measured on the holdout."""

from __future__ import annotations

import math

import numpy as np

from tabkit.errors import inside
from tabkit.evaluate.intervals import with_limits
from tabkit.learner import Predictions
from tabkit.result import CandidateFacts, Interval, MetricFacts, Student


def fidelity(
    student: tuple[CandidateFacts, Predictions],
    teacher: tuple[CandidateFacts, Predictions],
    gain: Interval,
    threshold: float,
    n_unlabelled: int,
    metrics: dict[str, MetricFacts],
) -> Student:
    """Compare a student's answers with its teacher's.

    Parameters
    ----------
    student, teacher
        Each with its predictions of the holdout.
    gain
        Of the student over the teacher in the primary metric.
    threshold
        Of the teacher, from which the positive class is predicted (binary).
    n_unlabelled
        Rows without a label that the student learned on.
    metrics
        The metrics reported, the primary one first.
    """
    (own, answers), (taught, truth) = student, teacher
    agreement = r2 = None
    if answers.ndim == 1:
        spread = float(np.sum((truth - truth.mean()) ** 2))
        r2 = 1.0 - float(np.sum((answers - truth) ** 2)) / spread if spread > 0 else None
    elif answers.shape[1] == 2:
        agreement = float(np.mean((answers[:, 1] >= threshold) == (truth[:, 1] >= threshold)))
    else:
        agreement = float(np.mean(answers.argmax(axis=1) == truth.argmax(axis=1)))
    seconds = own.score_cpu_seconds_per_million or 0.0, taught.score_cpu_seconds_per_million or 0.0
    facts = Student(
        candidate=own.name,
        teacher=taught.name,
        unlabelled=n_unlabelled,
        agreement=agreement,
        mean_difference=float(np.mean(np.abs(answers - truth))),
        r2=r2,
        speedup=seconds[1] / seconds[0] if seconds[0] > 0 else None,
        gain=gain,
        sentence="",
    )
    return facts.model_copy(update={"sentence": _sentence(facts, metrics, regression=answers.ndim == 1)})


def _sentence(facts: Student, metrics: dict[str, MetricFacts], *, regression: bool) -> str:
    """Say how well a student stands in for its teacher."""
    primary = next(iter(metrics.values()))
    parts = []
    if facts.agreement is not None:
        parts.append(f"decides as the champion does for {facts.agreement:.1%} of holdout rows")
    if facts.r2 is not None:
        parts.append(f"explains {facts.r2:.1%} of the variance of the champion's predictions on the holdout")
    if regression:
        unit = metrics.get("rmse", primary).unit
        parts.append(f"is {facts.mean_difference:.3g}{f' {unit}' if unit else ''} off them on average")
    else:
        parts.append(f"gives probabilities that differ from its by {facts.mean_difference:.4f} on average")
    if facts.speedup is not None:
        parts.append(f"scores {facts.speedup:.3g} times as many rows per CPU second")
    gain = facts.gain
    if math.isfinite(gain.value):
        parts.append(f"gains {with_limits(gain, 4)} over it in {inside(primary.title)}")
    return f"The student {', '.join(parts[:-1])} and {parts[-1]}."
