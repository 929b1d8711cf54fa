"""The harness for lists: plan on valid, open the holdout window once, compare on the same resampled users."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.data.interactions import Events, Truth, as_date
from tabkit.evaluate.checks import ListEvidence, run_checks
from tabkit.evaluate.comparison import (
    Chosen,
    Exploratory,
    Planned,
    Verdict,
    better_on_valid,
    compare_planned,
    decide,
    explore,
    over_cutoffs,
)
from tabkit.evaluate.intervals import RESAMPLES, Interval, Resampler, interval, paired
from tabkit.evaluate.metrics import Floats, Metric
from tabkit.evaluate.proof import against_rule
from tabkit.evaluate.ranking import PER_USER, compare_lists
from tabkit.models.base import Cost
from tabkit.rankers.base import Contestant, Fitted, Lists, Ranker
from tabkit.result import CheckOutcome
from tabkit.result import Interval as Reported
from tabkit.result.lists import Lift

FEW_BASKETS = 10


@dataclass(frozen=True)
class Measured:
    """The lists of one ranker in one window, and what they are worth to each user.

    ``per_user`` holds (n_users,) by metric, in the order of the truth's users; NaN where undefined.
    """

    lists: Lists
    per_user: dict[str, Floats]
    cpu_seconds: float


@dataclass(frozen=True)
class ListScore:
    """One contestant, measured; ``final`` is its procedure run again on all that was known at the cutoff."""

    contestant: Contestant
    refused: str | None
    scores: dict[str, dict[str, Interval]]
    final: Fitted | None = None
    cost: Cost | None = None
    overfit_gap: float | None = None
    excess_gap: float | None = None
    selection_optimism: float | None = None
    score_cpu_seconds_per_row: float = 0.0


@dataclass(frozen=True)
class ListCard:
    """All that the harness measured."""

    primary: str
    metrics: dict[str, Metric]
    scores: tuple[ListScore, ...]
    chosen: Chosen
    planned: Planned | None
    exploratory: tuple[Exploratory, ...]
    verdict: Verdict
    checks: tuple[CheckOutcome, ...]
    slices: list[dict[str, Any]]
    facts: dict[str, Any]
    holdout: dict[str, Measured] = field(repr=False)
    truth: Truth = field(repr=False)
    opened: int | None
    resamples: int

    def score(self, name: str) -> ListScore:
        """Return the score of a contestant by name."""
        return next(s for s in self.scores if s.contestant.name == name)


def only_new(truth: Truth) -> Truth:
    """Return the part of the truth that the users had never taken, and the users who have any."""
    items = (truth.items - truth.items.multiply(truth.seen > 0)).tocsr()
    items.eliminate_zeros()
    rows = np.flatnonzero(np.diff(items.indptr) > 0)
    return replace(truth.take(rows), items=items[rows])


def only_among(truth: Truth, among: npt.NDArray[np.bool_]) -> Truth:
    """Return the part of the truth that lies among some items (n_items,), the only ones that may be listed."""
    items = truth.items.multiply(among).tocsr()
    items.eliminate_zeros()
    rows = np.flatnonzero(np.diff(items.indptr) > 0)
    return replace(truth.take(rows), items=items[rows], among=among)


def measure(ranker: Ranker, truth: Truth, names: list[str], depth: int, new_only: bool) -> Measured:
    """List for the users of a truth, and compare."""
    started = time.process_time()
    lists = ranker.top(truth.users, depth, new_only, truth.among)
    spent = time.process_time() - started
    return worth(lists, ranker, truth, names, new_only, spent)


def worth(lists: Lists, ranker: Ranker, truth: Truth, names: list[str], new_only: bool, spent: float = 0.0) -> Measured:
    """Compare lists with the truth, by the metrics named; those of new items need lists of their own."""
    new = None
    if any(name.startswith("new_") for name in names):
        new = lists if new_only else ranker.top(truth.users, lists.items.shape[1], True, truth.among)
    hits = compare_lists(lists, truth, new)
    return Measured(lists, {name: PER_USER[name](hits) for name in names}, spent)


def choose_lists(
    contestants: tuple[Contestant, ...], on_valid: dict[str, float], metric: Metric
) -> tuple[Chosen, dict[str, str]]:
    """Check every proof and choose on valid: the best adapted one, its base, the best baseline; and who was refused."""
    faults = {c.name: against_rule(c.adapted.proof, c.how, c.base) for c in contestants}
    refused = {name: fault for name, fault in faults.items() if fault is not None}

    def best(kind: str) -> Contestant | None:
        those = [c for c in contestants if c.kind == kind and c.name not in refused]
        return max(those, key=lambda c: metric.sign * on_valid[c.name], default=None)

    adapted, baseline = best("adapted"), best("baseline")
    assert baseline is not None, "baselines are always in the table"
    base = next((c for c in contestants if adapted and c.kind == "base" and c.base == adapted.base), None)
    return Chosen(adapted.name if adapted else None, base.name if base else None, baseline.name), refused


def spread_of(
    measured: dict[str, Measured], primary: str, metric: Metric, resampler: Resampler
) -> dict[str, tuple[float, Floats]]:
    """Return the primary metric of each ranker and its distribution over the common resamples of users."""
    none = np.zeros(resampler.n_rows, np.int64)
    out = {}
    for name, found in measured.items():
        values = found.per_user[primary]
        out[name] = (metric.value(none, values), resampler.distribution(metric, none, values))
    return out


def evaluate_lists(
    contestants: tuple[Contestant, ...],
    finals: dict[str, tuple[Fitted, Cost]],
    chosen: Chosen,
    refused: dict[str, str],
    on_valid: dict[str, Measured],
    on_train: dict[str, Measured],
    valid: Truth,
    opened: tuple[Truth, int | None],
    past: Events,
    earlier: list[dict[str, Any]],
    metrics: dict[str, Metric],
    depth: int,
    new_only: bool,
    worthwhile: float,
    margin: float | None,
    currency: str,
    level: str,
    seed: int,
    watch: Callable[[float, str], None] = lambda fraction, note: None,
    hole: tuple[str, int] | None = None,
) -> ListCard:
    """Measure every contestant on the holdout window, now open.

    Parameters
    ----------
    finals
        Each contestant's procedure run again on ``past``, all that was known at the cutoff.
    on_valid, on_train
        What the lists were worth on valid, and in the window that the final model was last fitted to.
    opened
        The truth of the holdout window, and how often it was opened before.
    earlier
        The planned comparison at earlier cutoffs: the verdict is one over all of them.
    hole
        Of a refresh: the day on which the parent's events end, and the days without events after it.
    """
    truth, times = opened
    primary = next(iter(metrics))
    metric = metrics[primary]
    resamplers = {
        part: Resampler(len(t.users), None, RESAMPLES[level] // fewer, seed)
        for part, t, fewer in (("train", valid, 4), ("valid", valid, 4), ("holdout", truth, 1))
    }
    holdout: dict[str, Measured] = {}
    scores: list[ListScore] = []
    for done, c in enumerate(contestants):
        watch(done / len(contestants), f"measuring {c.name}")
        if c.name in refused:
            scores.append(ListScore(c, refused[c.name], {}))
            continue
        final, cost = finals[c.name]
        holdout[c.name] = measure(final.ranker, truth, list(metrics), depth, new_only)
        by_part = {}
        for part, found in (("train", on_train[c.name]), ("valid", on_valid[c.name]), ("holdout", holdout[c.name])):
            none = np.zeros(resamplers[part].n_rows, np.int64)
            by_part[part] = {
                n: interval(m.value(none, found.per_user[n]), resamplers[part].distribution(m, none, found.per_user[n]))
                for n, m in metrics.items()
            }
        at = {part: by_part[part][primary].value for part in by_part}
        scores.append(
            ListScore(
                c,
                None,
                by_part,
                final,
                cost,
                overfit_gap=metric.sign * (at["train"] - at["holdout"]),
                selection_optimism=metric.sign * (at["valid"] - at["holdout"]),
                score_cpu_seconds_per_row=holdout[c.name].cpu_seconds / max(1, len(truth.users)),
            )
        )
    gap = next(s.overfit_gap or 0.0 for s in scores if s.contestant.name == chosen.baseline)
    scores = [s if s.overfit_gap is None else replace(s, excess_gap=s.overfit_gap - gap) for s in scores]
    watch(1.0, "comparing")
    spread = spread_of(holdout, primary, metric, resamplers["holdout"])
    planned = compare_planned(chosen, primary, metric, spread)
    titles = {c.name: c.title for c in contestants}
    values = {n: float(np.nanmean(m.per_user[primary])) for n, m in on_valid.items()}
    sizes = {"train": 0, "valid": 0, "holdout": len(truth.users)}
    verdict = decide(planned, chosen, values, metric, worthwhile, sizes, {}, titles, unit="user")
    stay = better_on_valid(chosen, values, metric)
    verdict = over_cutoffs(verdict, earlier, worthwhile, stay, titles[stay])
    measured_at = {
        part: {n: _mean(m.per_user[primary]) for n, m in found.items()}
        for part, found in (("train", on_train), ("holdout", holdout))
    }
    lifts = {n: {part: _lift(at[n], at[chosen.baseline]) for part, at in measured_at.items()} for n in holdout}
    rivals = [n for n in dict.fromkeys((verdict.champion, chosen.adapted, chosen.base, chosen.baseline)) if n]
    facts = {
        "cutoff": as_date(truth.start),
        "days": truth.end - truth.start,
        "users": len(truth.users),
        "truth_mean": _mean(np.diff(truth.items.indptr)),
        "repeat_share": float(truth.items.multiply(truth.seen > 0).sum() / max(1, truth.items.sum())),
        "catalogue": int(past.known.sum()),
        "lifts": lifts,
        "lists": {n: character(m.lists, past) for n, m in holdout.items()},
        "cutoffs": earlier,
        "value": _value(holdout, truth, past, chosen, margin, currency, resamplers["holdout"]),
    }
    gain = None
    if verdict.champion != chosen.baseline:
        gain = Reported(*astuple(paired(metric, spread[verdict.champion], spread[chosen.baseline])[0]))
    checks = run_checks(
        ListEvidence(
            metric=metric,
            champion=verdict.champion,
            baseline=chosen.baseline,
            champion_gain=gain,
            opened=times,
            seed=seed,
            truth=truth,
            past=past,
            lifts={n: Lift.model_validate(at) for n, at in lifts.items()},
            gap=hole,
        )
    )
    return ListCard(
        primary,
        metrics,
        tuple(scores),
        chosen,
        planned,
        explore(chosen, metric, spread),
        verdict,
        checks,
        _slices(rivals, holdout, truth, past, primary, metric, resamplers["holdout"]),
        facts,
        holdout,
        truth,
        times,
        RESAMPLES[level],
    )


def _mean(values: npt.NDArray[Any]) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _lift(value: float, against: float) -> float:
    return value / against - 1 if against else float("nan")


def character(lists: Lists, past: Events) -> dict[str, float]:
    """Return what lists are like, whatever is taken from them.

    Returns
    -------
    dict
        ``coverage``, share of the catalogue in a list; ``novelty``, mean self-information in bits (Zhou et al. 2010);
        ``diversity``, share of pairs within a list that differ in the first attribute (NaN without attributes).
    """
    listed = lists.items[lists.items >= 0]
    buyers = np.asarray((past.counts > 0).sum(axis=0)).ravel()
    share = buyers[listed] / max(1, int(past.active.sum()))
    out = {
        "coverage": len(np.unique(listed)) / max(1, int(past.known.sum())),
        "novelty": float(-np.log2(np.clip(share, 1e-9, None)).mean()) if listed.size else float("nan"),
        "diversity": float("nan"),
    }
    kinds = [c for c in past.attributes.columns if c not in past.text]
    if kinds:
        codes = past.attributes[kinds[0]].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        of = np.where(lists.items >= 0, codes[lists.items], -np.arange(1, lists.items.shape[1] + 1))
        alike = np.mean([(np.unique(row, return_counts=True)[1] ** 2).sum() for row in of]) - of.shape[1]
        out["diversity"] = float(1 - alike / max(1, of.shape[1] * (of.shape[1] - 1)))
    return out


def _value(
    holdout: dict[str, Measured],
    truth: Truth,
    past: Events,
    chosen: Chosen,
    margin: float | None,
    currency: str,
    resampler: Resampler,
) -> dict[str, Any] | None:
    """Return the margin on items listed and taken, the adapted ranker's less the best baseline's, per user."""
    if margin is None or chosen.adapted is None or not np.isfinite(past.price).any():
        return None
    priced = np.isfinite(past.price)
    total = np.bincount(past.item[priced], past.price[priced], minlength=past.n_items)
    price = total / np.maximum(1, np.bincount(past.item[priced], minlength=past.n_items))
    found = {}
    for name in (chosen.adapted, chosen.baseline):
        lists = holdout[name].lists
        hit = compare_lists(lists, truth).hit
        items = lists.items[:, : hit.shape[1]]
        found[name] = (hit.sum(axis=1).astype(float), (hit * price[items]).sum(axis=1) * margin)
    out: dict[str, Any] = {"currency": currency, "margin": margin}
    for key, k in (("extra_items", 0), ("extra_margin", 1)):
        difference = found[chosen.adapted][k] - found[chosen.baseline][k]
        drawn = np.concatenate([w @ difference / w.sum(axis=1) for w in resampler.weights()])
        out[key] = interval(float(difference.mean()), drawn)
    return out


def _slices(
    rivals: list[str],
    holdout: dict[str, Measured],
    truth: Truth,
    past: Events,
    primary: str,
    metric: Metric,
    resampler: Resampler,
) -> list[dict[str, Any]]:
    baskets = np.bincount(np.unique(np.stack([past.user, past.basket]), axis=1)[0], minlength=past.n_users)[truth.users]
    edges = np.quantile(baskets, [0.25, 0.5, 0.75])
    quarter = np.searchsorted(edges, baskets, side="left")
    named: list[tuple[str, npt.NDArray[np.bool_]]] = [
        (f"fewer than {FEW_BASKETS} baskets before", baskets < FEW_BASKETS)
    ]
    named += [(f"activity quartile {q + 1} of 4", quarter == q) for q in range(4)]
    out: list[dict[str, Any]] = []
    for name, inside in named:
        rows = np.flatnonzero(inside)
        entry: dict[str, Any] = {"name": name, "rows": len(rows), "too_few": len(rows) < 20, "scores": {}}
        if not entry["too_few"]:
            few = Resampler(len(rows), None, min(500, resampler.resamples), resampler.seed)
            none = np.zeros(len(rows), np.int64)
            for ranker in rivals:
                values = holdout[ranker].per_user[primary][rows]
                entry["scores"][ranker] = interval(metric.value(none, values), few.distribution(metric, none, values))
        out.append(entry)
    return out
