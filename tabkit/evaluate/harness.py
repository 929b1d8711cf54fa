"""The harness, for tables and lists alike: measure on common resamples, compare as planned, decide.

How a candidate is measured is each arm's own (``tables.py``, ``lists.py``); everything that follows is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.evaluate.choice import Choice, Terms
from tabkit.evaluate.comparison import GainCurve, compare_planned, decide, explore, may_not_stay, over_cutoffs
from tabkit.evaluate.intervals import LEVEL, Resampled, Resampler, interval, paired
from tabkit.evaluate.ledger import Looks
from tabkit.evaluate.metrics import Metric
from tabkit.learner import Candidate
from tabkit.result import (
    PARTS,
    Calibration,
    CandidateFacts,
    CheckOutcome,
    Exploratory,
    Findings,
    Interval,
    Intervals,
    MetricFacts,
    Part,
    Planned,
    Slice,
    Verdict,
)

TRAIN_SHARE = 4
"""Intervals on train and valid only describe; a quarter of the resamples does."""
WATTS_PER_CORE = 10.0
"""Assumed power of a busy core, for the energy estimate; stated beside the figure."""
BOOTSTRAP = "bootstrap, paired on common resamples: percentiles, scores of order on the logit scale"


@dataclass(frozen=True)
class Measured:
    """One candidate, measured.

    Attributes
    ----------
    parts
        Each metric on train, valid and holdout, over the common resamples of the part; on valid only, if the holdout is not
        asked about it.
    cpu_seconds_per_row
        To score one row, or to list for one user.
    threshold
        The probability from which acting pays most on valid, if the recipe says what decisions pay.
    """

    parts: Mapping[Part, Mapping[str, Resampled]]
    cpu_seconds_per_row: float
    calibration: Calibration | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Ground:
    """What the verdict stands on, beside the gains.

    Attributes
    ----------
    n_rows
        Rows (or users) of the parts, ``holdout`` among them.
    curve
        Whether the gain shrinks as rows grow.
    earlier
        The planned comparison at earlier cutoffs: the verdict is one over all of them.
    question
        The number of this question among those asked of these rows.
    """

    n_rows: Mapping[str, int]
    curve: GainCurve = field(default_factory=dict)
    earlier: Sequence[Any] = ()
    question: int = 1


@dataclass(frozen=True)
class Judged:
    """Every candidate's scores, the comparison, and the verdict."""

    candidates: tuple[CandidateFacts, ...]
    on_holdout: dict[str, Resampled]
    choice: Choice
    planned: Planned | None
    exploratory: tuple[Exploratory, ...]
    verdict: Verdict
    champion: str
    terms: Terms

    @property
    def champion_gain(self) -> Interval | None:
        """What the champion gains on the best baseline; None if it is the best baseline."""
        baseline = self.choice.chosen.baseline
        if self.champion == baseline:
            return None
        return paired(self.terms.metric, self.on_holdout[self.champion], self.on_holdout[baseline])[0]

    @property
    def rivals(self) -> list[str]:
        """The champion and whom valid chose, each once."""
        return list(dict.fromkeys((self.champion, *self.choice.chosen.names)))

    def scores(self) -> dict[str, dict[Part, float]]:
        """Return the primary metric of each measured candidate, by part."""
        primary = self.terms.primary
        return {
            c.name: {part: c.scores[part][primary].value for part in PARTS}
            for c in self.candidates
            if "holdout" in c.scores
        }

    def findings(
        self,
        checks: tuple[CheckOutcome, ...],
        slices: tuple[Slice, ...],
        intervals: Intervals,
        looks: Looks | None,
        units: Mapping[str, str],
    ) -> Findings:
        """Return what both arms report.

        Parameters
        ----------
        units
            The unit of each metric, for people.
        """
        metrics = self.terms.metrics
        return Findings(
            primary=self.terms.primary,
            metrics={
                name: MetricFacts(title=m.title, greater_is_better=m.greater_is_better, unit=units[name])
                for name, m in metrics.items()
            },
            candidates=self.candidates,
            chosen=self.choice.chosen,
            planned=self.planned,
            exploratory=self.exploratory,
            verdict=self.verdict,
            champion=self.champion,
            slices=slices,
            checks=checks,
            intervals=intervals,
            holdout_opened=None if looks is None else looks.openings,
            holdout_question=None if looks is None else looks.question,
        )


def judge(
    candidates: Sequence[Candidate[Any]], measured: Mapping[str, Measured], choice: Choice, terms: Terms, ground: Ground
) -> Judged:
    """Compare what was measured, as planned, and decide.

    Parameters
    ----------
    measured
        Every candidate that was not refused, by name.
    """
    facts = with_excess(
        [facts_of(c, measured.get(c.name), choice.refused.get(c.name), terms) for c in candidates],
        choice.chosen.baseline,
    )
    on_holdout = {name: m.parts["holdout"][terms.primary] for name, m in measured.items() if "holdout" in m.parts}
    planned = compare_planned(choice.chosen, terms, on_holdout, ground.question)
    barred = may_not_stay(choice.chosen, terms.metric, on_holdout)
    verdict, champion = decide(planned, choice, terms, ground.n_rows, ground.curve, barred)
    verdict, champion = over_cutoffs(verdict, champion, ground.earlier, choice, terms, barred)
    exploratory = explore(choice.chosen, terms.metric, on_holdout)
    return Judged(facts, on_holdout, choice, planned, exploratory, verdict, champion, terms)


def resamplers(
    sizes: Mapping[Part, int],
    groups: Mapping[Part, npt.NDArray[np.int64] | None],
    terms: Terms,
    weights: Mapping[Part, npt.NDArray[np.float64] | None] | None = None,
) -> dict[Part, Resampler]:
    """Return the common resamples of each part.

    Parameters
    ----------
    groups
        Codes of what is drawn together, if not rows.
    weights
        For how many rows each stands; by default, each counts once.
    """
    return {
        part: Resampler(
            sizes[part],
            groups.get(part),
            terms.resamples // (1 if part == "holdout" else TRAIN_SHARE),
            terms.seed,
            row_weights=None if weights is None else weights[part],
        )
        for part in PARTS
    }


def facts_of(candidate: Candidate[Any], measured: Measured | None, refused: str | None, terms: Terms) -> CandidateFacts:
    """Return what is reported of one candidate; ``measured`` is None if it was refused."""
    adapted, cost = candidate.adapted, candidate.cost
    per_million = 1e6 * (0.0 if measured is None else measured.cpu_seconds_per_row)
    return CandidateFacts(
        name=candidate.name,
        base=candidate.base,
        how=candidate.how,
        kind=candidate.kind,
        title=candidate.title,
        trained_parameters=adapted.proof.trained_parameters,
        total_parameters=adapted.proof.total_parameters,
        proof=adapted.proof.blocks,
        refused=refused,
        history=adapted.history,
        settings=dict(adapted.settings),
        notes=adapted.notes,
        weights=candidate.weights,
        members=tuple(member.name for member in candidate.members),
        unweighted=candidate.unweighted,
        seconds=cost.seconds,
        cpu_seconds=cost.cpu_seconds,
        peak_mb=cost.peak_mb,
        energy_wh=cost.cpu_seconds * WATTS_PER_CORE / 3600,
        score_cpu_seconds_per_million=per_million,
        cost_per_million=per_million / 3600 * terms.cpu_hour_cost,
        **({} if measured is None else _scored(measured, terms)),
    )


def _scored(measured: Measured, terms: Terms) -> dict[str, Any]:
    at = {part: scores[terms.primary].value for part, scores in measured.parts.items()}
    return {
        "scores": {part: {n: interval(s) for n, s in scores.items()} for part, scores in measured.parts.items()},
        **(gaps(at, terms.metric) if "holdout" in at else {}),
        "calibration": measured.calibration,
        "threshold": measured.threshold,
    }


def gaps(at: Mapping[Part, float], metric: Metric) -> dict[str, float | None]:
    """Return overfit gap and selection optimism; above zero if train, or valid, looks better than the holdout.

    A gap is None if the metric is undefined in a part: a ROC AUC of one class.
    """

    def gap(part: Part) -> float | None:
        distance = metric.sign * (at[part] - at["holdout"])
        return distance if math.isfinite(distance) else None

    return {"overfit_gap": gap("train"), "selection_optimism": gap("valid")}


def with_excess(candidates: Sequence[CandidateFacts], baseline: str) -> tuple[CandidateFacts, ...]:
    """Return candidates with their overfit gap beyond the baseline's."""
    own = next((c.overfit_gap for c in candidates if c.name == baseline), None)
    return tuple(
        c if c.overfit_gap is None or own is None else c.model_copy(update={"excess_gap": c.overfit_gap - own})
        for c in candidates
    )


def intervals_of(resampler: Resampler, unit: str, method: str = BOOTSTRAP) -> Intervals:
    """Say how the intervals on the holdout were made."""
    return Intervals(method=method, resamples=resampler.resamples, widening=resampler.stretch, level=LEVEL, unit=unit)
