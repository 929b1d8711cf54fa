"""Checks of lists: the clock, the features of the future, the window, and the lift."""

from __future__ import annotations

import math

import numpy as np

from tabkit.data.interactions import WINDOW, Codes
from tabkit.data.windows import canary, features, kin_features
from tabkit.errors import count
from tabkit.evaluate.checks.base import Finding, ListCheck, ListEvidence
from tabkit.seed import stream

MIN_USERS = 200
OVERFIT_POINTS = 0.05
"""A lift over the baseline that is larger by this much where the model was fitted than on the holdout."""
CANARY_PAIRS = 500


class TooFewUsers(ListCheck):
    """Count the users on the holdout."""

    code = "too_few_users"
    title = "Too few evaluated users"
    severity = "warning"
    question = "Can the holdout window tell rankers apart?"

    def find(self, evidence: ListEvidence) -> Finding:
        """Fail under :data:`MIN_USERS`."""
        truth = evidence.truth
        n = len(truth.users)
        text = f"{n:,} users have history before {truth.calendar.date(truth.start)} and take something within {truth.calendar.length(truth.end - truth.start)}"
        if n < MIN_USERS:
            return "fail", (
                f"{text}; under {MIN_USERS} no ranker can be told from another. "
                "Take an earlier cutoff, a longer window or more users."
            )
        return "pass", f"{text} ({MIN_USERS} or more are wanted)."


class Clock(ListCheck):
    """Compare the last day that models saw with the first of the holdout."""

    code = "clock"
    title = "Global clock"
    severity = "error"
    question = "Did any model see the window that it is tested on?"

    def find(self, evidence: ListEvidence) -> Finding:
        """Fail if the two overlap."""
        days = int(evidence.past.day.max()), evidence.truth.start
        last, start = (evidence.truth.calendar.date(day) for day in days)
        if days[0] >= days[1]:
            return "fail", f"Models saw events until {last}, past the first day of the holdout, {start}."
        return "pass", f"Models saw events until {last}; the holdout begins on {start}."


class ShortWindow(ListCheck):
    """Compare the holdout window with the one that the recipe asks about."""

    code = "short_window"
    title = "Short holdout window"
    severity = "warning"
    question = "Do the events cover the whole window that the recipe asks about?"

    def find(self, evidence: ListEvidence) -> Finding:
        """Fail if the events end before the window does."""
        truth, length = evidence.truth, evidence.truth.calendar.length
        had, asked = length(truth.end - truth.start), length(WINDOW)
        if truth.end - truth.start < WINDOW:
            return "fail", (
                f"The events end {had} after the cutoff, and the recipe asks about {asked}: the figures are those of a window of "
                f"{had}. Set an earlier cutoff, or wait for more events."
            )
        return "pass", f"The events cover the whole window of {asked}."


class FeatureCanary(ListCheck):
    """Plant events on the first day of the holdout, and see whether as-of features change."""

    code = "feature_canary"
    title = "Features of the future"
    severity = "error"
    question = "Does a feature change with events after its day?"

    def find(self, evidence: ListEvidence) -> Finding:
        """Fail if any feature does; kin features are asked if lists are of new items."""
        truth, past = evidence.truth, evidence.past
        rng = stream(evidence.seed, "canary")
        users: Codes = rng.choice(truth.users, CANARY_PAIRS).astype(np.int32)
        items: Codes = rng.choice(np.flatnonzero(past.known), CANARY_PAIRS).astype(np.int32)
        leaks = canary(features, past, truth.start, users, items)
        if truth.among is not None:
            leaks += canary(kin_features, past, truth.start, users, items)
        if leaks:
            return "fail", f"Events planted on the very day change these features: {', '.join(leaks)}."
        return "pass", f"Of {CANARY_PAIRS} pairs bought once more on the day itself, no as-of feature changed."


class HistoryGap(ListCheck):
    """Look for days without events between a parent's events and the new ones."""

    code = "history_gap"
    title = "Gap after the parent's events"
    severity = "warning"
    question = "Do the new events begin where the parent's end?"
    needs = {"gap": "No bundle is refreshed."}

    def find(self, evidence: ListEvidence) -> Finding:
        """Fail if there is one."""
        assert evidence.gap is not None
        end, days = evidence.gap
        if days:
            return "fail", (
                f"The parent's events end on {end}, and the new ones begin {count(days, 'day')} later. "
                f"Unless nothing was sold then, histories have a hole: give all events from {end} on."
            )
        return "pass", f"The new events begin on {end}, where the parent's end."


class LiftPair(ListCheck):
    """Compare each lift in the window that it was fitted to with that on the holdout."""

    code = "lift_pair"
    title = "Lift where fitted and on the holdout"
    severity = "warning"
    question = "Does the lift over the baseline survive?"

    def find(self, evidence: ListEvidence) -> Finding:
        """Fail if one loses more than :data:`OVERFIT_POINTS`."""
        lifts, baseline = evidence.lifts, evidence.baseline
        lost = {
            name: lift.train - lift.holdout
            for name, lift in lifts.items()
            if math.isfinite(lift.train) and math.isfinite(lift.holdout) and (lift.train > 0 or name == baseline)
        }
        if not lost:
            return "not_applicable", f"There is no lift over {baseline}, whose {evidence.metric.called} is zero."
        worst = max(lost, key=lambda name: lost[name])
        pair = (
            f"{worst}: {lifts[worst].train:+.1%} over {baseline} in the last window that models were fitted to or chosen on, "
            f"{lifts[worst].holdout:+.1%} on the holdout"
        )
        if lost[worst] > OVERFIT_POINTS:
            return "fail", f"{pair}. That much of the lift was fitted to its window."
        return "pass", f"The largest difference is that of {pair}."


class UnseenItems(ListCheck):
    """Say how much of the truth no model could list; it never fails."""

    code = "unseen_items"
    title = "Items never seen"
    severity = "info"
    question = "How much of the truth could no model list?"

    def find(self, evidence: ListEvidence) -> Finding:
        """Count the items taken that had never been sold before."""
        truth = evidence.truth
        if truth.among is not None:
            return "not_applicable", (
                f"Lists are of the {int(truth.among.sum()):,} items first sold in the window, among themselves."
            )
        taken = truth.items.tocoo()
        unseen = float(np.mean(~evidence.past.known[taken.col])) if taken.nnz else 0.0
        return "pass", f"{unseen:.1%} of what was taken had never been sold before; it stays in every denominator."
