"""The harness of lists: open the holdout window once, list for its users, measure, look at slices, lift and margin."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tabkit.data.interactions import Events, Truth
from tabkit.evaluate.checks import ListEvidence, run_checks
from tabkit.evaluate.choice import Terms
from tabkit.evaluate.comparison import compare_planned
from tabkit.evaluate.harness import Ground, Judged, Measured, intervals_of, resamplers
from tabkit.evaluate.intervals import Resampled, Resampler, interval
from tabkit.evaluate.ledger import Sealed, question_number
from tabkit.evaluate.metrics import METRICS, Floats
from tabkit.evaluate.ranking import compare_lists
from tabkit.rankers.base import ListCandidate, Lists, Ranker
from tabkit.result import Chosen, ListFacts, ListFindings, Part, Slice
from tabkit.result.lists import Cutoff, CutoffGain, LeftOut, Lift, ListCharacter, ListMargin, Parent

FEW_BASKETS = 10
LEAST_SLICE_USERS = 20
SLICE_RESAMPLES = 500


@dataclass(frozen=True)
class Question:
    """What lists are asked for: how many items, of which kind, and by what they are worth."""

    metrics: tuple[str, ...]
    depth: int
    new_only: bool
    margin: float | None = None
    currency: str = ""


@dataclass(frozen=True)
class ListScores:
    """The lists of one ranker in one window, and what they are worth to each user.

    ``per_user`` holds (n_users,) by metric, in the order of the truth's users; NaN if undefined.
    """

    lists: Lists
    per_user: dict[str, Floats]
    cpu_seconds: float

    def mean(self, metric: str) -> float:
        """Return a metric's mean over the users for whom it is defined."""
        return float(np.nanmean(self.per_user[metric]))


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


def score_lists(ranker: Ranker, truth: Truth, question: Question, lists: Lists | None = None) -> ListScores:
    """List for the users of a truth (or take the lists given), and compare; metrics of new items need lists of their own."""
    spent = 0.0
    if lists is None:
        started = time.process_time()
        lists = ranker.top(truth.users, question.depth, question.new_only, truth.among)
        spent = time.process_time() - started
    new = None
    if any(name.startswith("new_") for name in question.metrics):
        new = lists if question.new_only else ranker.top(truth.users, lists.items.shape[1], True, truth.among)
    hits = compare_lists(lists, truth, new)
    return ListScores(lists, {name: METRICS[name].of_users(hits) for name in question.metrics}, spent)


def compared_at(chosen: Chosen, scores: Mapping[str, ListScores], truth: Truth, terms: Terms) -> Cutoff:
    """Carry out the planned comparison at an earlier cutoff."""
    resampler = resamplers(dict.fromkeys(("train", "valid", "holdout"), len(truth.users)), {}, terms)["holdout"]
    drawn = {name: _scored(found, resampler, terms)[terms.primary] for name, found in scores.items()}
    planned = compare_planned(chosen, terms, drawn)
    gains = [] if planned is None else planned.against
    return Cutoff(
        cutoff=truth.calendar.date(truth.start),
        users=len(truth.users),
        gains=tuple(CutoffGain(name=a.name, gain=a.gain, low=a.low, high=a.high) for a in gains),
    )


def _scored(found: ListScores, resampler: Resampler, terms: Terms) -> dict[str, Resampled]:
    """Return each metric asked for and its distribution over the common resamples of users."""
    none = np.zeros(resampler.n_rows, np.int64)
    return {
        name: resampler.score(metric, none, found.per_user[name])
        for name, metric in terms.metrics.items()
        if name in found.per_user
    }


@dataclass(frozen=True)
class Prepared:
    """What was made before the holdout window opened.

    Attributes
    ----------
    finals
        Each candidate's procedure run again on ``past``, all that was known at the cutoff. Of the others, only valid is
        measured.
    on_train, on_valid
        What lists were worth in the window that the final ranker was last fitted to, and on valid.
    earlier
        The planned comparison at earlier cutoffs.
    parent
        The bundle that is refreshed, if any.
    left_out
        Rankers that the log is too large for.
    """

    finals: Mapping[str, Ranker]
    on_train: Mapping[str, ListScores]
    on_valid: Mapping[str, ListScores]
    valid: Truth
    past: Events
    earlier: tuple[Cutoff, ...] = ()
    parent: Parent | None = None
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class ListFound:
    """What was found, and what only the run needs: the lists of every candidate, and the rankers that were measured."""

    findings: ListFindings
    lists: Mapping[str, Lists]
    truth: Truth
    candidates: tuple[ListCandidate, ...]
    finals: Mapping[str, Ranker]


class OpenWindow:
    """The holdout window, open: it measures candidates, and tells what else there is to find."""

    def __init__(self, sealed: Sealed[Truth], prepared: Prepared, question: Question, terms: Terms) -> None:
        self.prepared, self.question, self.terms = prepared, question, terms
        self.truth, self.looks = sealed.open()
        n_valid = len(prepared.valid.users)
        self.resamplers = resamplers({"train": n_valid, "valid": n_valid, "holdout": len(self.truth.users)}, {}, terms)
        self.on_holdout: dict[str, ListScores] = {}

    def measure(self, candidate: ListCandidate) -> Measured:
        """List for the users of the holdout, and score all windows on their common resamples."""
        name, prepared = candidate.name, self.prepared
        if name not in prepared.finals:
            return Measured({"valid": _scored(prepared.on_valid[name], self.resamplers["valid"], self.terms)}, 0.0)
        found = self.on_holdout[name] = score_lists(prepared.finals[name], self.truth, self.question)
        by_part: dict[Part, ListScores] = {
            "train": prepared.on_train[name],
            "valid": prepared.on_valid[name],
            "holdout": found,
        }
        parts = {part: _scored(scores, self.resamplers[part], self.terms) for part, scores in by_part.items()}
        return Measured(parts, found.cpu_seconds / max(1, len(self.truth.users)))

    def ground(self) -> Ground:
        """Return what the verdict stands on: users, and the earlier cutoffs."""
        return Ground({"holdout": len(self.truth.users)}, {}, self.prepared.earlier, question_number(self.looks))

    def findings(self, judged: Judged, candidates: tuple[ListCandidate, ...]) -> ListFound:
        """Return everything found in the window."""
        truth, past, prepared, resampler = self.truth, self.prepared.past, self.prepared, self.resamplers["holdout"]
        chosen, parent = judged.choice.chosen, prepared.parent
        lifts = self._lifts(chosen.baseline)
        evidence = ListEvidence(
            metric=self.terms.metric,
            champion=judged.champion,
            baseline=chosen.baseline,
            champion_gain=judged.champion_gain,
            looks=self.looks,
            seed=self.terms.seed,
            truth=truth,
            past=past,
            lifts=lifts,
            gap=None if parent is None else (parent.events_end, parent.gap_days),
        )
        units = {name: metric.unit for name, metric in self.terms.metrics.items()}
        common = judged.findings(
            run_checks(evidence), self._slices(judged.rivals), intervals_of(resampler, "user"), self.looks, units
        )
        facts = ListFacts(
            cutoff=truth.calendar.date(truth.start),
            days=_whole(truth.calendar.days(truth.end - truth.start)),
            users=len(truth.users),
            truth_mean=_mean(np.diff(truth.items.indptr)),
            repeat_share=float(truth.items.multiply(truth.seen > 0).sum() / max(1, truth.items.sum())),
            catalogue=int(past.known.sum()),
            lifts=lifts,
            lists={n: character(scores.lists, past) for n, scores in self.on_holdout.items()},
            cutoffs=prepared.earlier,
            parent=parent,
            value=self._margin(chosen),
            left_out=prepared.left_out,
        )
        lists = {name: scores.lists for name, scores in self.on_holdout.items()}
        findings = ListFindings(**dict(common), ranking=facts)
        return ListFound(findings, lists, truth, candidates, prepared.finals)

    def _lifts(self, baseline: str) -> dict[str, Lift]:
        primary = self.terms.primary
        at = {
            part: {n: _mean(scores.per_user[primary]) for n, scores in found.items()}
            for part, found in (("train", self.prepared.on_train), ("holdout", self.on_holdout))
        }
        return {
            n: Lift(**{part: _lift(means[n], means[baseline]) for part, means in at.items()}) for n in self.on_holdout
        }

    def _margin(self, chosen: Chosen) -> ListMargin | None:
        """Return the margin on items listed and taken, the adapted ranker's less the best baseline's, per user."""
        past, margin, resampler = self.prepared.past, self.question.margin, self.resamplers["holdout"]
        if margin is None or chosen.adapted is None or not np.isfinite(past.price).any():
            return None
        priced = np.isfinite(past.price)
        total = np.bincount(past.item[priced], past.price[priced], minlength=past.n_items)
        price = total / np.maximum(1, np.bincount(past.item[priced], minlength=past.n_items))
        taken, earned = [], []
        for name in (chosen.adapted, chosen.baseline):
            lists = self.on_holdout[name].lists
            hit = compare_lists(lists, self.truth).hit
            taken.append(hit.sum(axis=1).astype(float))
            earned.append((hit * price[lists.items[:, : hit.shape[1]]]).sum(axis=1) * margin)
        return ListMargin(
            currency=self.question.currency,
            margin=margin,
            extra_items=interval(resampler.mean(taken[0] - taken[1])),
            extra_margin=interval(resampler.mean(earned[0] - earned[1])),
        )

    def _slices(self, rivals: Sequence[str]) -> tuple[Slice, ...]:
        past, users, primary = self.prepared.past, self.truth.users, self.terms.primary
        baskets = past.baskets[users]
        quarter = np.searchsorted(np.quantile(baskets, [0.25, 0.5, 0.75]), baskets, side="left")
        named = [(f"fewer than {FEW_BASKETS} baskets before", baskets < FEW_BASKETS)]
        named += [(f"activity quartile {q + 1} of 4", quarter == q) for q in range(4)]
        out = []
        for name, inside in named:
            rows = np.flatnonzero(inside)
            too_few = len(rows) < LEAST_SLICE_USERS
            few = replace(
                self.resamplers["holdout"],
                n_rows=len(rows),
                resamples=min(SLICE_RESAMPLES, self.resamplers["holdout"].resamples),
            )
            none = np.zeros(len(rows), np.int64)
            scores = {
                ranker: interval(few.score(self.terms.metric, none, self.on_holdout[ranker].per_user[primary][rows]))
                for ranker in (() if too_few else rivals)
            }
            out.append(Slice(name=name, rows=len(rows), too_few=too_few, scores=scores))
        return tuple(out)


def _whole(days: float) -> float:
    """Return days to the tenth of a second, as a whole number if they are one."""
    return int(days) if days == int(days) else round(days, 6)


def _mean(values: npt.NDArray[Any]) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _lift(value: float, against: float) -> float:
    return value / against - 1 if against else float("nan")


def character(lists: Lists, past: Events) -> ListCharacter:
    """Return what lists are like, whatever is taken from them.

    Novelty is the mean self-information in bits (Zhou et al. 2010); diversity is NaN without attributes.
    """
    listed = lists.items[lists.items >= 0]
    buyers = np.asarray((past.counts > 0).sum(axis=0)).ravel()
    share = buyers[listed] / max(1, int(past.active.sum()))
    diversity = float("nan")
    kinds = [c for c in past.attributes.columns if c not in past.text]
    if kinds:
        codes = past.attributes[kinds[0]].rank("dense").fill_null(0).to_numpy().astype(np.int64)
        of = np.where(lists.items >= 0, codes[lists.items], -np.arange(1, lists.items.shape[1] + 1))
        alike = np.mean([(np.unique(row, return_counts=True)[1] ** 2).sum() for row in of]) - of.shape[1]
        diversity = float(1 - alike / max(1, of.shape[1] * (of.shape[1] - 1)))
    return ListCharacter(
        coverage=len(np.unique(listed)) / max(1, int(past.known.sum())),
        novelty=float(-np.log2(np.clip(share, 1e-9, None)).mean()) if listed.size else float("nan"),
        diversity=diversity,
    )
