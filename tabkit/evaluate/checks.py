"""Checks, each one entry of :data:`CHECKS`: a code, a title, a severity, and a sentence with its number.

"Not applicable" is not "passed": a check that cannot be made says why.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.encode import Features, as_text
from tabkit.data.single import LEAK_SCORE, single_feature_scores
from tabkit.data.split import Split
from tabkit.evaluate.intervals import Interval
from tabkit.evaluate.metrics import Metric
from tabkit.recipe import Plan
from tabkit.seed import stream

Severity = Literal["error", "warning", "info"]
Verdict = tuple[Literal["pass", "fail", "not_applicable"], str]

DUPLICATE_SHARE = 0.005
SHIFT_AUC = 0.60
SHIFT_PSI = 0.25
SOURCE_AUC = 0.9
"""From here on a classifier hardly errs: source and target are other populations, and what one teaches may not hold."""
SKILL_LOST = 0.5
MIN_HOLDOUT_CASES = 50
FAIRNESS_GAP = 0.2
MIN_GROUP_ROWS = 100


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    code: str
    title: str
    severity: Severity
    outcome: Literal["pass", "fail", "not_applicable"]
    message: str


@dataclass(frozen=True)
class Evidence:
    """All that the checks look at, gathered once the holdout is open.

    ``scores`` holds the primary metric by candidate and part; ``prior`` is the prior's, the score of knowing
    nothing. ``shuffled`` is the gain over the prior of the best baseline trained on shuffled labels, by shuffle.
    """

    plan: Plan
    frame: pl.DataFrame
    split: Split
    train: Features
    valid: Features
    holdout: Features
    metric: Metric
    scores: dict[str, dict[str, float]]
    kinds: dict[str, str]
    champion: str
    baseline: str
    champion_gain: Interval | None
    shuffled: tuple[Interval, ...]
    calibration: dict[str, object] | None
    envelopes: dict[str, str]
    groups: dict[str, dict[str, tuple[float, int]]]
    opened: int | None
    seed: int
    source: Features | None = None


@dataclass(frozen=True)
class Check:
    """One check: ``code`` is its key in :data:`CHECKS`."""

    title: str
    severity: Severity
    question: str
    function: Callable[[Evidence], Verdict]


def run_checks(evidence: Evidence) -> tuple[Outcome, ...]:
    """Run every check, in order."""
    made = []
    for code, check in CHECKS.items():
        outcome, message = check.function(evidence)
        made.append(Outcome(code, check.title, check.severity, outcome, message))
    return tuple(made)


def _single_feature_leak(e: Evidence) -> Verdict:
    scores = single_feature_scores(e.train, e.valid)
    unit = "R squared" if e.plan.recipe.task == "regression" else "ROC AUC"
    leaks = {name: score for name, score in scores.items() if score >= LEAK_SCORE}
    if leaks:
        named = ", ".join(f"'{name}' ({score:.3f})" for name, score in sorted(leaks.items(), key=lambda kv: -kv[1])[:5])
        return "fail", (
            f"A single column predicts the target nearly perfectly: {named} {unit} on valid (alarm at {LEAK_SCORE}). "
            "It may be recorded after the outcome; ask how it comes about, or exclude it."
        )
    name = max(scores, key=lambda column: scores[column])
    return (
        "pass",
        f"The strongest single column, '{name}', reaches {scores[name]:.3f} {unit} on valid (alarm at {LEAK_SCORE}).",
    )


def _post_outcome(e: Evidence) -> Verdict:
    late = [name for name, field in e.plan.schema.fields.items() if field.known == "at_outcome"]
    late = [name for name in late if name not in e.plan.roles]
    used = [name for name in late if name in e.train.layout.columns]
    if used:
        return "fail", f"Known only at the outcome, and yet features: {used}. Exclude them."
    if not late:
        return "not_applicable", "The schema marks no field as known only at the outcome."
    return "pass", f"{len(late)} field(s) known only at the outcome were kept out: {', '.join(late[:8])}."


def _duplicate_rows(e: Evidence) -> Verdict:
    # The table's own columns: a spectrum's components are none of them.
    columns = [*(c for c in e.frame.columns if e.plan.is_feature(c)), e.plan.recipe.target]
    keys = e.frame.select(pl.struct(columns).hash(seed=0).alias("key"))["key"].to_numpy()
    copies = int(np.isin(keys[e.split.holdout], keys[e.split.before]).sum())
    share = copies / len(e.split.holdout)
    text = f"{copies:,} of {len(e.split.holdout):,} holdout rows ({share:.1%}) have an exact copy, target included, in train or valid"
    if share > DUPLICATE_SHARE:
        return "fail", f"{text}. Remove copies, or name the column that ties them as group."
    return "pass", f"{text}."


def _group_overlap(e: Evidence) -> Verdict:
    if e.split.groups is None:
        return "not_applicable", "The recipe names no group column."
    both = np.intersect1d(e.split.groups[e.split.before], e.split.groups[e.split.holdout]).size
    column = e.plan.recipe.group
    if both:
        return (
            "fail",
            f"{both:,} value(s) of '{column}' have rows on both sides of the holdout; scores then flatter. Use split.kind = 'grouped'.",
        )
    return "pass", f"No value of '{column}' has rows on both sides of the holdout."


def _time_overlap(e: Evidence) -> Verdict:
    column = e.plan.recipe.time
    if column is None:
        return "not_applicable", "The recipe names no time column."
    times = e.frame[column]
    last: Any = times[e.split.before].max()
    first: Any = times[e.split.holdout].min()
    if last > first:
        return (
            "fail",
            f"Training rows run to {last}, past the first holdout row of {first}: the model has seen the future it is tested on.",
        )
    return "pass", f"Training rows end at {last}, the holdout starts at {first}."


def _shift(e: Evidence) -> Verdict:
    before = e.train.stack(e.valid)
    auc = two_sample_auc(before, e.holdout, e.seed)
    psi = column_psi(before, e.holdout)
    worst = max(psi, key=lambda name: psi[name])
    numbers = f"a classifier tells holdout rows from training rows with ROC AUC {auc:.3f} (.5 is none); largest PSI {psi[worst]:.3f} ('{worst}')"
    # Three standard errors of the AUC under no shift (Mann-Whitney): few rows must not alarm by chance.
    alarm = max(SHIFT_AUC, 0.5 + 3 * math.sqrt((1 / len(before) + 1 / len(e.holdout)) / 12))
    if auc > alarm or psi[worst] > SHIFT_PSI:
        moved = ", ".join(f"'{n}' {v:.2f}" for n, v in sorted(psi.items(), key=lambda kv: -kv[1])[:4] if v > SHIFT_PSI)
        return (
            "fail",
            f"The holdout differs from what was trained on: {numbers}{'; PSI by column: ' + moved if moved else ''}.",
        )
    return "pass", f"{numbers[0].upper()}{numbers[1:]}."


def _source_distance(e: Evidence) -> Verdict:
    if e.source is None:
        return "not_applicable", "The recipe has no source table."
    auc = two_sample_auc(e.source, e.train, e.seed)
    psi = column_psi(e.source, e.train)
    moved = sorted((name for name, value in psi.items() if value > SHIFT_PSI), key=lambda name: -psi[name])
    named = f": {', '.join(f'{name!r} {psi[name]:.2f}' for name in moved[:4])}" if moved else ""
    text = (
        f"A classifier tells source rows from training rows with ROC AUC {auc:.3f} (.5 is none, alarm at {SOURCE_AUC}); "
        f"{len(moved)} of {len(psi)} columns have a PSI above {SHIFT_PSI}{named}; {_label_shift(e.source, e.train)}."
    )
    if elsewhere := _elsewhere(e.source, e.train):
        return "fail", f"{text} Nowhere near those of the target: {'; '.join(elsewhere[:4])}. Are they in another unit?"
    return ("fail" if auc > SOURCE_AUC else "pass"), text


def _source_copies(e: Evidence) -> Verdict:
    if e.source is None:
        return "not_applicable", "The recipe has no source table."
    seen = set(_row_keys(e.source))
    copies = sum(key in seen for key in _row_keys(e.holdout))
    share = copies / len(e.holdout)
    text = f"{copies:,} of {len(e.holdout):,} holdout rows ({share:.1%}) have an exact copy, target included, in the source"
    if share > DUPLICATE_SHARE:
        return "fail", f"{text}: the bases have seen them. Take the target's rows out of the source."
    return "pass", f"{text}."


def _row_keys(rows: Features) -> list[bytes]:
    arrays = (rows.x_num, rows.x_cat, rows.labels)
    return [b"".join(np.ascontiguousarray(array[i]).tobytes() for array in arrays) for i in range(len(rows))]


def _elsewhere(source: Features, train: Features) -> list[str]:
    """Return the numbers whose middle nine tenths in the source lie outside all that the target's rows have."""
    numbers = [(name, source.x_num[:, i], train.x_num[:, i]) for i, name in enumerate(train.layout.num_names)]
    if train.layout.task == "regression":
        numbers.append(("the target", source.labels, train.labels))
    out = []
    for name, there, here in numbers:
        there, here = there[np.isfinite(there)], here[np.isfinite(here)]
        if len(there) and len(here):
            low, high = np.quantile(there, [0.05, 0.95])
            if low > here.max() or high < here.min():
                out.append(f"{name!r} is {low:.4g} to {high:.4g} there and {here.min():.4g} to {here.max():.4g} here")
    return out


def _label_shift(source: Features, train: Features) -> str:
    a, b = source.labels, train.labels
    if train.layout.task == "regression":
        pooled = math.sqrt((float(a.var()) + float(b.var())) / 2)
        by = f", {abs(b.mean() - a.mean()) / pooled:.2f} standard deviations apart" if pooled else ""
        return f"the target is {a.mean():.4g} there and {b.mean():.4g} here on average{by}"
    name = train.layout.classes[-1]
    k = len(train.layout.classes) - 1
    return f"the share of '{name}' is {np.mean(a == k):.1%} there and {np.mean(b == k):.1%} here"


def _label_shuffle(e: Evidence) -> Verdict:
    gain = min(e.shuffled, key=lambda interval: interval.value)
    times = "" if len(e.shuffled) == 1 else f" (the least of {len(e.shuffled)} shuffles)"
    text = f"Trained on shuffled labels, {e.baseline} gains {gain.value:+.3f} {e.metric.called} on the prior on valid [{gain.low:+.3f}, {gain.high:+.3f}]{times}"
    if gain.low > 0:
        return "fail", f"{text}: it knows the target without labels, so something leaks it."
    return "pass", f"{text}: nothing beyond chance, as it must be."


def _under_baseline(e: Evidence) -> Verdict:
    if e.champion_gain is None:
        return "not_applicable", f"The champion, {e.champion}, is the best baseline itself."
    gain = e.champion_gain
    text = f"The champion, {e.champion}, gains {gain.value:+.4g} [{gain.low:+.4g}, {gain.high:+.4g}] {e.metric.called} on the best baseline, {e.baseline}"
    return ("fail", f"{text}: it is proven worse.") if gain.high < 0 else ("pass", f"{text}.")


def _knows_something(e: Evidence) -> Verdict:
    sign = e.metric.sign
    gain = sign * (e.scores[e.champion]["holdout"] - e.scores["prior"]["holdout"])
    text = f"The champion, {e.champion}, is {gain:+.4g} {e.metric.called} from the prior, which looks at no column"
    if e.champion == "prior" or gain <= 0:
        return "fail", f"{text}: the columns do not predict the target."
    return "pass", f"{text}."


def _overfit(e: Evidence) -> Verdict:
    lost = {}
    for name, parts in e.scores.items():
        chance = e.scores["prior"]
        skill = e.metric.sign * (parts["train"] - chance["train"])
        gap = e.metric.sign * (parts["train"] - parts["holdout"])
        if name != "prior" and skill > 1e-9 and math.isfinite(gap):
            lost[name] = gap / skill
    if not lost:
        return "not_applicable", "No candidate learned anything on train."
    over = {name: share for name, share in lost.items() if share > SKILL_LOST}
    if over:
        named = ", ".join(f"{name} ({share:.0%})" for name, share in sorted(over.items(), key=lambda kv: -kv[1]))
        mark = f" The champion, {e.champion}, is among them." if e.champion in over else ""
        return (
            "fail",
            f"More than {SKILL_LOST:.0%} of the skill shown on train is lost on the holdout by: {named}.{mark}",
        )
    name = max(lost, key=lambda n: lost[n])
    return (
        "pass",
        f"No candidate loses more than {lost[name]:.0%} of the skill it shows on train ({name}; alarm at {SKILL_LOST:.0%}).",
    )


def _miscalibration(e: Evidence) -> Verdict:
    if e.calibration is None:
        return "not_applicable", "Calibration is measured for binary tasks."
    ece, slope = e.calibration["ece"], e.calibration["slope"]
    bins = e.calibration["bins"]
    assert isinstance(ece, float) and isinstance(bins, list)
    outside = sum(not b["low"] <= b["predicted"] <= b["high"] for b in bins)
    shown = "undefined" if slope is None else f"{slope:.2f}"
    text = f"Probabilities of {e.champion} are off by {ece:.3f} on average (slope {shown}, 1 is ideal); {outside} of {len(bins)} bins lie outside their 95% interval"
    # Two of ten bins outside by chance alone happens in 9% of runs, three in 1%.
    return (
        ("fail", f"{text}. Recalibrate before using them as probabilities.")
        if outside > 0.25 * len(bins)
        else ("pass", f"{text}.")
    )


def _few_cases(e: Evidence) -> Verdict:
    return few_cases(e.holdout, e.plan.recipe.task)


def few_cases(holdout: Features, task: str) -> Verdict:
    """Return whether the holdout has enough rows, of the rarest class where there are classes."""
    if task == "regression":
        n, what = len(holdout), "rows"
    else:
        counts = np.bincount(holdout.labels, minlength=len(holdout.layout.classes))
        n, what = int(counts.min()), f"rows of class '{holdout.layout.classes[int(counts.argmin())]}'"
    text = f"The holdout has {n:,} {what}"
    if n < MIN_HOLDOUT_CASES:
        return "fail", f"{text}; under {MIN_HOLDOUT_CASES} its intervals are wide and may be too narrow still."
    return "pass", f"{text} ({MIN_HOLDOUT_CASES} or more are wanted)."


def _outside_envelope(e: Evidence) -> Verdict:
    if e.envelopes:
        return "fail", " ".join(f"{name}: {why}." for name, why in e.envelopes.items())
    bases = sorted(name for name, kind in e.kinds.items() if kind == "base")
    if not bases:
        return "not_applicable", "No pretrained base is among the candidates."
    return "pass", f"The table lies inside what {', '.join(bases)} was pretrained for."


def _reopened(e: Evidence) -> Verdict:
    if e.opened is None:
        return "not_applicable", "The ledger of holdout openings could not be written, so earlier ones are unknown."
    if e.opened > 1:
        return "fail", (
            f"These holdout rows have been opened {e.opened} times on this machine. Choices made after looking make every "
            "number on them optimistic: use a new seed, or new rows, for the final word."
        )
    return "pass", "These holdout rows were opened for the first time on this machine."


def _fairness(e: Evidence) -> Verdict:
    if not e.groups:
        return "not_applicable", "The schema marks no field as sensitive, or no group has enough rows."
    field, gap, low, high = max(
        (
            (
                field,
                max(v for v, _ in values.values()) - min(v for v, _ in values.values()),
                min(values, key=lambda g: values[g][0]),
                max(values, key=lambda g: values[g][0]),
            )
            for field, values in e.groups.items()
        ),
        key=lambda found: found[1],
    )
    text = f"Between groups of '{field}', {e.champion} differs by {gap:.3f} {e.metric.called} ({low}: {e.groups[field][low][0]:.3f}, {high}: {e.groups[field][high][0]:.3f})"
    scale = abs(e.scores[e.champion]["holdout"] - e.scores["prior"]["holdout"])
    if gap > max(FAIRNESS_GAP * abs(e.scores[e.champion]["holdout"]), 1e-12) and scale > 0:
        return "fail", f"{text}. Look at the slices before deciding about people by it."
    return "pass", f"{text}; alarm at {FAIRNESS_GAP:.0%} of the overall score."


CHECKS: dict[str, Check] = {
    "single_feature_leak": Check(
        "Single-feature leak", "error", "Does one column alone give the target away?", _single_feature_leak
    ),
    "post_outcome_column": Check(
        "Post-outcome column", "error", "Is a feature known only at the outcome?", _post_outcome
    ),
    "label_shuffle": Check(
        "Label shuffle", "error", "Does the pipeline score chance on shuffled labels?", _label_shuffle
    ),
    "duplicate_rows": Check(
        "Duplicate rows across parts", "warning", "Are holdout rows also in train?", _duplicate_rows
    ),
    "group_overlap": Check("Group overlap", "error", "Is a group on both sides of the holdout?", _group_overlap),
    "time_overlap": Check("Time overlap", "error", "Was the model trained on the holdout's future?", _time_overlap),
    "holdout_shift": Check("Train-holdout shift", "warning", "Does the holdout look like the training rows?", _shift),
    "source_copies": Check(
        "Holdout rows in the source",
        "error",
        "Has a base already seen rows that are held out?",
        _source_copies,
    ),
    "source_distance": Check(
        "Distance of the source", "info", "Do the source's rows look like the target's?", _source_distance
    ),
    "holdout_reopened": Check("Holdout opened before", "warning", "Have these rows been looked at before?", _reopened),
    "too_few_holdout_cases": Check(
        "Too few holdout cases", "warning", "Can the holdout tell candidates apart?", _few_cases
    ),
    "no_skill": Check("Skill over the prior", "error", "Do the columns predict the target at all?", _knows_something),
    "under_baseline": Check(
        "Champion under baseline", "error", "Is the champion proven worse than a baseline?", _under_baseline
    ),
    "overfit": Check("Overfitting", "warning", "How much of the skill on train is lost on the holdout?", _overfit),
    "miscalibration": Check(
        "Miscalibration", "warning", "Can the probabilities be taken at their word?", _miscalibration
    ),
    "outside_envelope": Check(
        "Base outside its envelope", "warning", "Was the base made for a table like this?", _outside_envelope
    ),
    "fairness_gap": Check("Fairness gap", "warning", "Do sensitive groups fare alike?", _fairness),
}


def two_sample_auc(a: Features, b: Features, seed: int, most_rows: int = 2000) -> float:
    """Return how well a classifier tells rows of ``a`` from rows of ``b``: out-of-fold ROC AUC, .5 for no shift.

    Source: Lopez-Paz & Oquab, *Revisiting Classifier Two-Sample Tests*, ICLR 2017.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rng = stream(seed, "two-sample")
    parts = [part.take(np.sort(rng.permutation(len(part))[:most_rows])) for part in (a, b)]
    if min(len(part) for part in parts) < 10:
        return 0.5
    x = np.vstack([np.hstack([part.x_num.astype(np.float64), part.x_cat]) for part in parts])
    which = np.repeat([0, 1], [len(part) for part in parts])
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8, random_state=seed, early_stopping=False)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    told = cross_val_predict(model, x, which, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(which, told))


def column_psi(a: Features, b: Features) -> dict[str, float]:
    """Return the population stability index of each encoded column, from ``a`` to ``b``; .25 is a strong shift.

    Numbers are binned by the deciles of ``a``, missing apart; categories by code. A category held by under 1%
    of the rows is pooled, since rare ones make the index of small samples large by chance.
    """
    out: dict[str, float] = {}
    for i, name in enumerate(a.layout.num_names):
        x, y = a.x_num[:, i], b.x_num[:, i]
        seen = x[~np.isnan(x)]
        edges = np.unique(np.quantile(seen, np.linspace(0.1, 0.9, 9))) if seen.size else np.zeros(0)
        out[name] = _psi(_bins(x, edges), _bins(y, edges), len(edges) + 2)
    for i, name in enumerate(a.layout.cat_names):
        codes_a, codes_b, size = a.x_cat[:, i], b.x_cat[:, i], a.layout.cat_sizes[i]
        rare = np.bincount(codes_a, minlength=size) < 0.01 * len(a)
        remap = np.where(rare, 0, np.arange(size))
        out[name] = _psi(remap[codes_a], remap[codes_b], size)
    return out


def _bins(x: npt.NDArray[np.float32], edges: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    binned = np.searchsorted(edges, x, side="left").astype(np.int64)
    binned[np.isnan(x)] = len(edges) + 1
    return binned


def _psi(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], size: int) -> float:
    # Half a row per bin keeps the logarithm finite.
    p = np.bincount(a, minlength=size) + 0.5
    q = np.bincount(b, minlength=size) + 0.5
    kept = (p > 0.5) | (q > 0.5)
    p, q = p[kept] / p[kept].sum(), q[kept] / q[kept].sum()
    # What sampling alone adds (a chi-squared over the rows of both sides) is taken off: few rows are no shift.
    by_chance = (kept.sum() - 1) * (1 / len(a) + 1 / len(b))
    return float(max(0.0, np.sum((q - p) * np.log(q / p)) - by_chance))


def sensitive_groups(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return group names of a sensitive column: its values, or the quarter of its numbers a number falls in."""
    values = frame[column]
    if not values.dtype.is_numeric() or values.n_unique() <= 12:
        return as_text(values)
    numbers = values.cast(pl.Float64).to_numpy()
    present = np.isfinite(numbers)
    edges = np.unique(np.quantile(numbers[present], np.linspace(0, 1, 5)))
    quarter = np.searchsorted(edges[1:-1], numbers, side="left")
    names = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    return pl.Series(column, [names[q] if known else None for q, known in zip(quarter, present, strict=True)])
