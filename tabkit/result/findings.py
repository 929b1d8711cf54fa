"""What measuring found, piece by piece: candidates, the planned comparison, the verdict, checks, slices, value.

The harness fills these, once per split; over outer folds they are pooled into one. ``document.py`` adds where they come
from, and that is ``result.json``.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from tabkit.result.facts import (
    DOCUMENTED,
    Block,
    CheckState,
    Cost,
    Decision,
    GainState,
    Interval,
    Kind,
    MaybeNumber,
    Number,
    Part,
    Severity,
    Step,
    Weights,
)


class Facts(BaseModel):
    """A frozen group of facts; keys that this version does not know are ignored when it reads an older or newer file."""

    model_config = ConfigDict(**DOCUMENTED, frozen=True, extra="ignore", protected_namespaces=())


class MetricFacts(Facts):
    """What a reader needs to know of a metric."""

    title: str
    """Its name for people."""
    greater_is_better: bool
    """Its direction."""
    unit: str
    """Its unit; empty without one."""

    @property
    def sign(self) -> int:
        """+1 if greater is better, else -1."""
        return 1 if self.greater_is_better else -1


class CalibrationBin(Facts):
    """One bin of predicted probability."""

    predicted: Number
    """Mean predicted probability."""
    observed: Number
    """Observed share of the positive class."""
    low: Number
    """Lower end of its Wilson 95% interval."""
    high: Number
    """Upper end of its Wilson 95% interval."""
    rows: int
    """Rows in the bin."""


class Calibration(Facts):
    """How probabilities compare with what happened on the holdout."""

    bins: tuple[CalibrationBin, ...]
    """Bins by decile of the predicted probability."""
    ece: Number
    """Expected calibration error: mean distance between predicted and observed."""
    slope: MaybeNumber
    """Cox's calibration slope; 1 is ideal."""
    intercept: MaybeNumber
    """Cox's calibration intercept; 0 is ideal."""


class CandidateFacts(Facts):
    """One candidate: a base and how it was adapted, with what it scored and what it cost."""

    name: str
    """Its name in tables and files."""
    base: str
    """Name of the model."""
    how: str
    """The strategy: as_is, head, gradual, full, scratch, tuned and so on."""
    kind: Kind
    """What it is in the comparison."""
    title: str
    """What it is called in sentences."""
    trained_parameters: int
    """Parameters that training moved."""
    total_parameters: int
    """Parameters of the model returned."""
    proof: tuple[Block, ...]
    """What was trained, block by block, measured on the weights."""
    refused: str | None = None
    """Why the harness refused it (its proof contradicts its how); null if it did not."""
    scores: dict[Part, dict[str, Interval]] = {}
    """Scores by part, then metric; empty if the candidate was refused, valid only if a refresh did not choose it."""
    overfit_gap: MaybeNumber = None
    """Train minus holdout on the primary metric; above zero if train looks better, whatever the metric's direction."""
    excess_gap: MaybeNumber = None
    """Its overfit gap minus that of the chosen baseline."""
    selection_optimism: MaybeNumber = None
    """Valid minus holdout on the primary metric; above zero if valid looks better."""
    calibration: Calibration | None = None
    """Calibration on the holdout; binary tasks only."""
    threshold: float | None = None
    """Probability from which acting pays most on valid; only if the recipe says what decisions pay."""
    history: tuple[Step, ...] = ()
    """Learning curve; empty if nothing was learned step by step."""
    settings: dict[str, Any] = {}
    """What the search found; free keys, enough to run the procedure again."""
    notes: tuple[str, ...] = ()
    """Remarks, such as the number of trials or a deadline reached."""
    weights: dict[str, Weights] = {}
    """The pretrained weights behind it or its members, by base; empty if the run made the base itself."""
    members: tuple[str, ...] = ()
    """The candidates that a blend gives weight to; empty for all others."""
    unweighted: str = ""
    """What of it was made without the rows' weights; empty if all that it learned is weighted, or rows are not."""
    seconds: float
    """Wall seconds to make it."""
    cpu_seconds: float
    """CPU seconds to make it, all threads."""
    peak_mb: float | None
    """Peak resident memory while it was made, in MiB."""
    energy_wh: float | None
    """Energy to make it in watt-hours: an estimate from CPU seconds."""
    score_cpu_seconds_per_million: float | None
    """CPU seconds to score a million rows."""
    cost_per_million: float | None
    """Price of the computing to score a million rows, in the value block's unit (US dollars without one)."""

    @property
    def cost(self) -> Cost:
        """What making it took."""
        return Cost(self.seconds, self.cpu_seconds, self.peak_mb or 0.0)

    def score(self, metric: str, part: Part = "holdout") -> Interval | None:
        """Return a score, or None if the candidate was refused or the part was not measured."""
        return self.scores.get(part, {}).get(metric)


class Chosen(Facts):
    """What valid chose before the holdout was opened: names of candidates."""

    adapted: str | None
    """The best adapted candidate."""
    base: str | None
    """Its own base, untouched."""
    baseline: str
    """The best baseline."""
    best_base: str | None = None
    """The best untouched base of all, whichever base was adapted."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names chosen, each once."""
        return tuple(dict.fromkeys(n for n in (self.adapted, self.base, self.baseline, self.best_base) if n))

    @property
    def rivals(self) -> tuple[str, ...]:
        """What the adapted candidate is held against, each once; the baseline if nothing was adapted."""
        bases = (self.base, self.best_base) if self.adapted else ()
        return tuple(dict.fromkeys(n for n in (self.baseline, *bases) if n))


class Against(Facts):
    """The gain over one opponent of the planned comparison; above zero is better."""

    name: str
    """The opponent."""
    role: str
    """Why it is one."""
    gain: Number
    """The candidate minus the other, turned so that above zero is better."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of its interval; it allows for any of several opponents showing that adapting did not pay."""
    state: GainState = "not_settled"
    """Whether the gain is shown to be worthwhile, shown not to be, or not settled."""

    @classmethod
    def of(cls, name: str, role: str, gain: Interval, worthwhile: float) -> Against:
        """Return the gain over an opponent, and which of three states its interval shows.

        Source: two one-sided tests, Schuirmann, *J. Pharmacokinet. Biopharm.* 1987.
        """
        state: GainState = "not_settled"
        if gain.low > worthwhile:
            state = "worthwhile"
        elif gain.high < worthwhile:
            state = "not_worthwhile"
        return cls(name=name, role=role, gain=gain.value, low=gain.low, high=gain.high, state=state)

    @property
    def interval(self) -> Interval:
        """The gain with its 95% interval."""
        return Interval(self.gain, self.low, self.high)


class Planned(Facts):
    """The one comparison planned before the holdout was opened, carried out."""

    candidate: str
    """The adapted candidate."""
    metric: str
    """The primary metric."""
    against: tuple[Against, ...]
    """Its opponents."""
    question: int = 1
    """The number of this question among those asked of these holdout rows on this machine."""
    level: Number = 0.95
    """The level of the intervals: it rises with the number of questions."""


class Exploratory(Facts):
    """One unplanned comparison, its p-value adjusted for all of them."""

    candidate: str
    """The candidate."""
    against: str
    """The best baseline."""
    gain: Number
    """The candidate minus the other, turned so that above zero is better."""
    low: Number
    """Lower end of its interval."""
    high: Number
    """Upper end of its interval."""
    p: Number
    """Two-sided bootstrap p-value."""
    p_holm: Number
    """The same, adjusted for the number of comparisons (Holm)."""


class Verdict(Facts):
    """What to do, in one sentence, with the numbers behind it."""

    decision: Decision
    """The decision."""
    sentence: str
    """One plain sentence."""
    reason: str
    """The numbers behind it."""
    rows_needed: int | None = None
    """More labelled rows that would settle it in four of five cases; null if it is settled, or no reachable number would."""
    rows_even_odds: int | None = None
    """More labelled rows that would settle it in one of two cases."""


class CheckOutcome(Facts):
    """What a check found."""

    code: str
    """Stable name of the check."""
    title: str
    """Its title."""
    severity: Severity
    """How bad a failure is."""
    outcome: CheckState
    """What it found; not applicable is not passed."""
    message: str
    """A sentence with its number."""


class Slice(Facts):
    """A part of the holdout, scored apart."""

    name: str
    """Its name."""
    rows: int
    """Its rows, or users."""
    too_few: bool
    """Whether it has too few rows for a score."""
    scores: dict[str, Interval]
    """Primary metric by candidate; empty if there are too few rows."""


class Intervals(Facts):
    """How intervals were made."""

    method: str
    """The method."""
    resamples: int
    """Bootstrap resamples."""
    widening: float = 1.0
    """What each resample's distance from the value on holdout was multiplied with: over 1 if outer folds share training rows."""
    level: float = 0.95
    """Their level."""
    unit: str
    """What is drawn: row, group or user."""


class Findings(Facts):
    """All that the harness found on one split, or pooled over outer folds."""

    primary: str
    """The metric that decides."""
    metrics: dict[str, MetricFacts]
    """Every metric reported, the primary one first."""
    candidates: tuple[CandidateFacts, ...]
    """Every candidate, refused ones included."""
    chosen: Chosen
    """What valid chose before the holdout was opened."""
    planned: Planned | None
    """The one comparison planned before the holdout was opened; null if nothing was adapted."""
    exploratory: tuple[Exploratory, ...]
    """Comparisons that nobody planned: hints."""
    verdict: Verdict
    """What to do."""
    champion: str
    """The candidate that goes into the bundle."""
    slices: tuple[Slice, ...]
    """Slices of the recipe, and groups of sensitive columns or of like users."""
    checks: tuple[CheckOutcome, ...]
    """Every check."""
    intervals: Intervals
    """How intervals were made."""
    holdout_opened: int | None
    """How often these holdout rows, or a part of them, were opened on this machine; null if no ledger could be kept."""
    holdout_question: int | None = None
    """The number of this question among those asked of them; null if no ledger could be kept."""

    def candidate(self, name: str) -> CandidateFacts:
        """Return a candidate by name.

        Raises
        ------
        KeyError
            There is none.
        """
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(name)

    @property
    def metric(self) -> MetricFacts:
        """The metric that decides."""
        return self.metrics[self.primary]

    @property
    def rivals(self) -> tuple[str, ...]:
        """The champion and whom valid chose, each once."""
        return tuple(dict.fromkeys((self.champion, *self.chosen.names)))
