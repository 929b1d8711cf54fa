"""What is found of a table's predictions: learning curve, value, importance, ablations, intervals, the student."""

from __future__ import annotations

from tabkit.result.facts import Interval, MaybeNumber, Number
from tabkit.result.findings import Facts, Findings


class Ablation(Facts):
    """A baseline trained again without some columns."""

    name: str
    """Its name."""
    drop: tuple[str, ...]
    """The columns left out."""
    candidate: str
    """The baseline."""
    score: Interval
    """Primary metric on the holdout."""
    gain: Interval
    """Change against the same baseline with all columns; above zero is better."""


class CurvePoint(Facts):
    """One point of the learning curve."""

    rows: int
    """Train rows."""
    scores: dict[str, Number]
    """Valid score by candidate."""


class Curve(Facts):
    """Valid score by number of train rows."""

    metric: str
    """The metric."""
    points: tuple[CurvePoint, ...]
    """Points, fewest rows first."""


class ColumnImportance(Facts):
    """What shuffling one column costs."""

    name: str
    """The column."""
    drop: Number
    """How much worse the metric gets when the column is shuffled."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of its interval."""


class Importance(Facts):
    """Permutation importance of the champion on the holdout."""

    candidate: str
    """The champion."""
    metric: str
    """The metric that drops."""
    columns: tuple[ColumnImportance, ...]
    """Columns, strongest first."""


class Payoff(Facts):
    """A candidate's payoff on the holdout."""

    name: str
    """The candidate."""
    value: Number
    """Payoff per ``per`` decisions."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of its interval."""
    acted_share: float | None
    """Share of rows acted upon; null for regression."""
    threshold: float | None = None
    """Its own threshold: chosen on valid; over outer folds on all rows, while the amounts are at each fold's own."""


class PayoffGain(Facts):
    """Payoff of the measured candidate minus that of the rival against which it is shown least."""

    candidate: str
    """The candidate measured."""
    against: str
    """The rival: the best baseline, its own base or the best base; the candidate itself if nothing was adapted."""
    value: Number
    """Gain per ``per`` decisions."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of its interval."""


class Value(Facts):
    """What predictions are worth, by the recipe's payoffs."""

    unit: str
    """Unit of every amount here."""
    per: int
    """Amounts are per this many decisions."""
    action: str = ""
    """What acting on a row means."""
    threshold: float | None
    """Probability at which the measured candidate acts: chosen on valid, over outer folds on all rows; null for regression."""
    assumptions: str = ""
    """What the payoffs assume."""
    candidates: tuple[Payoff, ...]
    """Payoffs by candidate."""
    gain: PayoffGain
    """The gain over the rival against which least is shown."""
    adapt_cost: Number
    """Price of the computing to adapt, once."""
    score_cost_per_1000: Number
    """Price of the computing to score 1,000 records."""
    decisions_per_year: float
    """Decisions a year, from the recipe."""
    net_gain_per_year: Number
    """Best estimate of the gain a year, less the computing."""
    worth_it: bool
    """Whether the low end of the gain over every rival pays the computing within a year."""
    sentence: str
    """The same in one sentence."""

    def threshold_of(self, name: str) -> float | None:
        """Return the threshold of a candidate; None if it was not priced or has none."""
        return next((payoff.threshold for payoff in self.candidates if payoff.name == name), None)


class PredictionInterval(Facts):
    """Regression: the champion's intervals around its predictions."""

    level: float
    """Share of new rows that they are made to hold."""
    half_width: float
    """Their half-width on the scale, calibrated on valid; the mean over folds if there are several."""
    scale: str | None
    """The scale on which they are as wide for every row; null for the target's own."""


class Student(Facts):
    """LightGBM taught the champion's answers, and how well it stands in for it on the holdout."""

    candidate: str
    """The student among the candidates."""
    teacher: str
    """The champion it learned from."""
    unlabelled: int
    """Rows without a label that it learned on, beside train."""
    agreement: float | None
    """Share of holdout rows on which both predict the same class, at the teacher's threshold; null for regression."""
    mean_difference: Number
    """Mean absolute difference of their probabilities on the holdout; of their predictions, in the target's unit, for regression."""
    r2: MaybeNumber
    """Share of the variance of the teacher's holdout predictions that the student's explain; null for classification."""
    speedup: float | None
    """Rows scored per CPU second, student over teacher."""
    gain: Interval
    """Of the student over the teacher in the primary metric on the holdout; positive is better."""
    sentence: str
    """The above in words."""


class TableFindings(Findings):
    """What is found of a table's predictions alone."""

    curve: Curve | None
    """Valid score by number of train rows; null if it was not measured."""
    value: Value | None
    """What predictions are worth; null if the recipe says nothing of it."""
    importance: Importance | None
    """Permutation importance of the champion on the holdout; null if it was not measured."""
    ablations: tuple[Ablation, ...]
    """Ablations of the recipe."""
    interval_coverage: MaybeNumber
    """Regression: share of holdout targets inside the 90% intervals calibrated on valid."""
    prediction_interval: PredictionInterval | None = None
    """Regression: the champion's intervals around its predictions; null for other tasks."""
    student: Student | None = None
    """LightGBM taught the champion's answers (--distill); null if none was asked for."""
