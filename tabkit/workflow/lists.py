"""A run on events: code them, cut them by the clock, adapt rankers, compare their lists after the cutoff."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from tabkit.adapt import Runtime, Wanted
from tabkit.adapt.candidates import fitting, wanted_again, wanted_rankers
from tabkit.adapt.lists import Clock, Exam, adapt_rankers, calendar_of, clock_of, rerun
from tabkit.bundle import Contents, saving_ranker
from tabkit.data.event_table import events_of, like_quantity, moments, names_of, returned, sketch_of, stray
from tabkit.data.interactions import WINDOW, Events, Truth, arrivals, truth_of
from tabkit.data.source import DataLike
from tabkit.data.validate import Table, read_table
from tabkit.errors import DataError, UsageError, count
from tabkit.evaluate.choice import Choice, choose
from tabkit.evaluate.harness import Ground, Judged
from tabkit.evaluate.ledger import Opening, Sealed, question_of
from tabkit.evaluate.lists import (
    ListFound,
    ListScores,
    OpenWindow,
    Prepared,
    Question,
    compared_at,
    only_among,
    only_new,
    score_lists,
)
from tabkit.learner import budget_of
from tabkit.learner.need import Size
from tabkit.rankers.base import ListCandidate, Ranker
from tabkit.ranking import Ranking
from tabkit.recipe import Plan
from tabkit.result import ListFindings
from tabkit.result.document import FeatureFacts, SplitFacts
from tabkit.result.lists import Cutoff, LeftOut, Parent
from tabkit.workflow.assemble import About
from tabkit.workflow.options import ListOptions, asked_by, terms_of
from tabkit.workflow.reading import input_of
from tabkit.workflow.refresh import open_parent, take_on, told
from tabkit.workflow.spine import Arm, find

MIN_EVALUATED = 10
"""Fewer users in a window cannot be resampled into an interval that means anything."""
LEAST_DEPTH = 20
"""Items listed per user at least, for the metrics that look at so many."""


@dataclass(frozen=True)
class Windows:
    """The clock, which holds the past only, and the two windows of answers; that of the holdout is sealed."""

    clock: Clock
    valid: Truth
    holdout: Sealed[Truth]


@dataclass(frozen=True)
class ListOutcome:
    """What a run on events found, and the ranker to bundle."""

    found: ListFound
    ranker: Ranker

    @property
    def bases(self) -> dict[str, Ranker]:
        """What a refresh adapts again, by name."""
        return {c.base: c.origin for c in self.found.candidates if c.kind == "base" and c.origin.lasting}

    @property
    def findings(self) -> ListFindings:
        """What was found."""
        return self.found.findings


class ListArm(Arm[ListCandidate, Prepared, OpenWindow, ListFound]):
    """The procedure at one cutoff. It holds the past and two truths, that of the holdout sealed; no later event."""

    def __init__(self, run: ListRun, windows: Windows, runtime: Runtime) -> None:
        self.terms, self.watch, self.runtime = run.terms, run.options.watch, runtime
        self.todo, self.parents, self.parent = run.todo, run.parents, run.parent
        self.barred, self.left_out = run.barred, run.left_out
        self.question, self.ranking, self.cutoffs = run.question, run.ranking, run.options.cutoffs
        self.windows, self.clock = windows, windows.clock
        self._on_valid: dict[str, ListScores] = {}

    def candidates(self) -> tuple[ListCandidate, ...]:
        """Adapt every ranker on what was known before valid."""
        valid, metric, primary = self.windows.valid, self.terms.metric, self.terms.primary
        alone = Question((primary,), self.question.depth, self.question.new_only)

        def judge(ranker: Ranker) -> float:
            return metric.sign * score_lists(ranker, valid, alone).mean(primary)

        exam = Exam(valid, judge, self.question.depth, self.question.new_only)
        return adapt_rankers(self.todo, self.clock, exam, self.parents, self.runtime, self.barred)

    def choose(self, candidates: tuple[ListCandidate, ...]) -> Choice:
        """Check every proof, and choose on valid."""
        valid = self.windows.valid
        self._on_valid = {c.name: score_lists(c.adapted.model, valid, self.question, c.valid) for c in candidates}
        values = {name: scores.mean(self.terms.primary) for name, scores in self._on_valid.items()}
        return choose(candidates, values, self.terms.metric)

    def prepare(self, accepted: tuple[ListCandidate, ...], choice: Choice) -> Prepared:
        """Run every procedure again up to the cutoff, and the planned comparison at earlier ones.

        A refresh takes there only what was chosen: nothing else can be in its comparison or become its champion.
        """
        past = self.clock.at(self.clock.cutoff)
        asked = [c for c in accepted if self.parent is None or c.name in choice.chosen.names]
        finals: dict[str, Ranker] = {}
        for done, candidate in enumerate(asked):
            self.watch("to the cutoff", done / len(asked), candidate.name)
            finals[candidate.name] = rerun(candidate, past, self.runtime)
        on_train = {name: self._where_fitted(final, self._on_valid[name]) for name, final in finals.items()}
        earlier = self._earlier({c.name: c for c in accepted}, choice)
        return Prepared(finals, on_train, self._on_valid, self.windows.valid, past, earlier, self.parent, self.left_out)

    def _where_fitted(self, final: Ranker, on_valid: ListScores) -> ListScores:
        """Measure a ranker in the last window before the cutoff, to which it may have been fitted; else as on valid."""
        there = final.looking_at(self.clock.at(self.clock.cutoff - WINDOW))
        return on_valid if there is None else score_lists(there, self.windows.valid, self.question)

    def _earlier(self, by_name: Mapping[str, ListCandidate], choice: Choice) -> tuple[Cutoff, ...]:
        """Carry out the planned comparison at earlier cutoffs, with the settings found and what was known at each."""
        out = []
        alone = Question((self.terms.primary,), self.question.depth, self.question.new_only)
        days = self.clock.earlier[: self.cutoffs - 1]
        for done, day in enumerate(days):
            self.watch("earlier cutoffs", done / len(days), self.clock.past.calendar.date(day))
            truth, past = truth_at(self.clock, self.clock.past, day, self.ranking), self.clock.at(day)
            truth = truth.sample(self.runtime.budget.listed)
            scores = {
                name: score_lists(rerun(by_name[name], past, self.runtime), truth, alone)
                for name in choice.chosen.names
            }
            out.append(compared_at(choice.chosen, scores, truth, self.terms))
        self.watch("earlier cutoffs", 1.0, "")
        return tuple(out)

    def open(self, prepared: Prepared) -> OpenWindow:
        """Break the seal."""
        return OpenWindow(self.windows.holdout, prepared, self.question, self.terms)

    def ground(self, opened: OpenWindow, prepared: Prepared, choice: Choice) -> Ground:
        """Return users, and the earlier cutoffs."""
        return opened.ground()

    def findings(
        self, opened: OpenWindow, prepared: Prepared, judged: Judged, accepted: tuple[ListCandidate, ...]
    ) -> ListFound:
        """Look at everything else."""
        return opened.findings(judged, accepted)


class ListRun:
    """One run on events. Everything that can be refused without reading is refused when it is made."""

    def __init__(self, plan: Plan, options: ListOptions) -> None:
        self._opened = None if options.base is None else open_parent(options.base, plan)
        self.plan = plan if self._opened is None else self._opened.bundle.plan
        ranking = self.plan.recipe.ranking
        assert ranking is not None
        self.options, self.ranking = options, ranking
        self.budget = budget_of(options.budget, options.device)
        self.terms = terms = terms_of(self.plan, options, self.budget)
        self.todo: tuple[Wanted, ...] = wanted_rankers(self.plan.recipe, self.budget.effort, str(self.plan.path))
        depth = max(LEAST_DEPTH, ranking.length)
        self.question = Question(tuple(terms.metrics), depth, ranking.new_only, ranking.margin, ranking.currency)
        self.parents: dict[str, Ranker] = {}
        self.parent: Parent | None = None
        self.far_behind: tuple[LeftOut, ...] = ()

    def rehearse(self, data: DataLike) -> tuple[str, ...]:
        """Read the events and cut them by the clock, as a run would, and return what it would note.

        Raises
        ------
        UsageError, DataError
            As a run would.
        """
        self.read(data, Path())
        return (self.note,) if self.note else ()

    def read(self, data: DataLike | None, folder: Path) -> None:
        """Read the events, code them, cut them by the clock.

        Raises
        ------
        UsageError, DataError
            The events cannot be used, the period is too short, or hardly anyone can be evaluated.
        """
        plan, parent = self.plan, self._opened
        if parent is not None and data is None:
            past = parent.bundle.ranker.past
            raise UsageError(
                f"--base {self.options.base} needs the events since {past.calendar.date(past.end)}: give --data FILE."
            )
        self.options.watch("data", 0.0, "reading")
        given = input_of(plan, data, plan.recipe.sample, "--data FILE")
        quantities = frozenset(c for c in given.columns if like_quantity(c))
        self.table: Table = read_table(plan, given, plan.recipe.where, also=quantities)
        self.options.watch("data", 0.5, "coding events")
        names = names_of(plan)
        self._leave_out()
        if parent is None:
            calendar, cutoff = calendar_of(self.table.frame, names.time, self.ranking, data is None)
            self.events = events_of(self.table.frame, names, calendar)
            self.clock = clock_of(self.events, cutoff, self.ranking, self.options.seed, str(plan.path))
        else:
            taken = take_on(parent, events_of(self.table.frame, names, parent.bundle.ranker.past.calendar))
            self.events, self.clock, self.parent, self.parents = taken.events, taken.clock, taken.facts, taken.bases
            found = parent.scorecard
            self.todo, self.far_behind = wanted_again(self.todo, found.known, found.primary)
        self.windows = self._windows()
        size, without = Size.of(self.clock.past, len(self.windows.valid.users)), plan.recipe.candidates.without
        self.todo, too_large, self.barred = fitting(self.todo, size, self.budget.effort, without)
        self.left_out = (*self.far_behind, *too_large)
        for left in self.left_out:
            self.options.watch(left.name, 1.0, f"left out: {left.reason}")
        self.options.watch("data", 1.0, "")

    def _leave_out(self) -> None:
        """Set apart the lines that are no event, and say what is odd about the rest.

        Raises
        ------
        DataError
            A few lines lie so far after all others that every window would be theirs.
        """
        recipe, frame, notes = self.plan.recipe, self.table.frame, []
        time, quantity = str(recipe.time), self.ranking.quantity
        there = pl.Series([True]).new_from_index(0, frame.height)
        for column in _key(self.plan):
            there = there & frame[column].is_not_null()
        if not there.all():
            notes.append(f"{count(int((~there).sum()), 'line')} without {' or '.join(_key(self.plan))} were left out.")
        if quantity is not None:
            taken = (frame[quantity] > 0).fill_null(True)
            notes.append(f"{count(int((there & ~taken).sum()), 'line')} whose {quantity} is not above 0 were left out.")
            there = there & taken
        lines = frame.filter(there)
        if far := stray(lines, time):
            raise DataError(
                f"{far}. Fix or remove {'it' if far.startswith('1 of') else 'them'}, or leave later lines out by where, such as "
                f"where = \"{time} < DATE '2025-01-01'\"."
            )
        if self.ranking.basket is None:
            repeats = lines.height - lines.select(_key(self.plan)).n_unique()
            if repeats:
                notes.append(f"{count(repeats, 'line')} that repeat user, item and time of another were counted once.")
        notes += [
            f"{c} has values below 0: name it as quantity under [ranking] to leave returns out."
            for c in returned(lines)
            if self.plan.roles.get(c) != "quantity"
        ]
        if unit := moments(lines[time])[1]:
            notes.append(unit)
        self.note = " ".join(notes)
        gone = frame.height - lines.height
        self.table = replace(
            self.table,
            frame=lines,
            rows=self.table.rows[there.to_numpy()],
            n_out_of_scope=self.table.n_out_of_scope + gone,
        )

    def _windows(self) -> Windows:
        clock, events, ranking = self.clock, self.events, self.ranking
        date, first = events.calendar.date, int(events.day.min())
        if clock.base_end <= first or clock.cutoff + 1 > events.end:
            raise DataError(
                f"Events run from {date(first)} to {date(events.end - 1)}. Expected some before {date(clock.base_end)}, where the "
                f"bases end, and some from the cutoff {date(clock.cutoff)} on. Set cutoff, days and base_days under [ranking] to fit."
            )
        possible = 1 + len(clock.earlier)
        if self.options.cutoffs > possible:
            raise UsageError(
                f"--cutoffs {self.options.cutoffs}: there can be {possible}. Each is a window of its own, none is the one that choices "
                f"are made on, and all begin after the bases' end, {date(clock.base_end)}. Ask for fewer, or raise base_days under "
                "[ranking]."
            )
        valid, holdout = (truth_at(clock, events, start, ranking) for start in (clock.cutoff - WINDOW, clock.cutoff))
        for name, truth in (("valid", valid), ("holdout", holdout)):
            if len(truth.users) < MIN_EVALUATED:
                raise DataError(
                    f"Only {count(len(truth.users), 'user')} with history take something in the {name} window from {date(truth.start)}. "
                    f"Expected at least {MIN_EVALUATED}. Choose an earlier cutoff or a longer window under [ranking]."
                )
        self.n_holdout = len(holdout.users)
        valid, holdout = (truth.sample(self.budget.listed) for truth in (valid, holdout))
        return Windows(clock, valid, Sealed(holdout, self._opening(holdout)))

    def _opening(self, holdout: Truth) -> Opening:
        """Return what is asked of which events: those of the window and of its users."""
        plan, options, events = self.plan, self.options, self.events
        question = {
            **asked_by(plan),
            "data": self.table.fingerprint,
            "candidates": [item.name for item in self.todo],
            "parent": None if self._opened is None else self._opened.bundle.seal,
            "options": [options.seed, options.cutoffs, self.budget.effort],
        }
        first, end = (day * events.calendar.tick + events.calendar.origin for day in (holdout.start, holdout.end))
        users = events.users[holdout.users]
        return Opening(question_of(question), sketch_of(self.table.frame, names_of(plan), users, first, end))

    def find(self, until_written: ExitStack) -> ListOutcome:
        """Carry out the procedure; fit what is bundled. Nothing is kept meanwhile."""
        runtime = Runtime(self.options.seed, self.budget, self.options.watch)
        found = find(ListArm(self, self.windows, runtime))
        champion = found.findings.champion
        self.options.watch("bundle", 0.0, champion)
        if self.plan.recipe.bundle.train_on == "train":
            return ListOutcome(found, found.finals[champion])
        candidate = next(c for c in found.candidates if c.name == champion)
        return ListOutcome(found, rerun(candidate, self.events, runtime))

    def about(self, outcome: ListOutcome) -> About:
        """Return what the result says of the events; rows of the parts are events, those evaluated users."""
        recipe, clock, days = self.plan.recipe, self.clock, self.events.day
        start, end = clock.cutoff - WINDOW, clock.cutoff + WINDOW
        sizes = {
            "train": int((days < start).sum()),
            "valid": int(((days >= start) & (days < clock.cutoff)).sum()),
            "holdout": int(((days >= clock.cutoff) & (days < end)).sum()),
        }
        before = sizes["train"] + sizes["valid"]
        return About(
            table=self.table,
            sizes={**sizes, "unlabelled": 0, "source": int((days < clock.base_end).sum())},
            sources=(),
            split=SplitFacts(
                kind="clock",
                holdout=sizes["holdout"] / max(1, sum(sizes.values())),
                valid=sizes["valid"] / max(1, before),
                column=recipe.time,
                seed=self.options.seed,
                text=self._text(start),
            ),
            features=FeatureFacts(
                columns=tuple(c for c, role in self.plan.roles.items() if role != "target"),
                numeric=0,
                categorical=0,
                dropped={},
                ignored=self.table.ignored,
                infinite=0,
            ),
            classes=(),
            bundled=len(self.events) if recipe.bundle.train_on == "all" else before,
            members=(outcome.findings.champion,),
        )

    def _text(self, start: int) -> str:
        clock, ranking, parent = self.clock, self.ranking, self.parent
        whom = ""
        if len(clock.cold):
            whom = f" Lists are for {len(clock.cold):,} users with {ranking.cold_weeks} weeks of history."
        elif clock.whom is not None:
            stores = ", ".join(map(str, ranking.home_stores))
            whom = f" Lists are for {len(clock.whom):,} users who went most to the stores {stores} before the bases' end; bases know everyone."
        if ranking.cold_items:
            whom += " Lists are of items first taken in the window, among themselves."
        if self.n_holdout > self.budget.listed:
            whom += f" Of {self.n_holdout:,} users to list for, {self.budget.listed:,} drawn at random stand for all."
        date, length = self.events.calendar.date, self.events.calendar.length
        bases = f"Bases end on {date(clock.base_end)}."
        if parent is not None:
            bases = told(parent)
        return (
            f"A global clock: choices on the {length(WINDOW)} from {date(start)}, by what was known before; the verdict on those from "
            f"{date(clock.cutoff)}, by what was known then. {bases}{whom}{f' {self.note}' if self.note else ''}"
        )

    def predictions(self, outcome: ListOutcome) -> pl.DataFrame:
        """Return the champion's lists of the holdout: user, rank, item, score, and whether it was taken."""
        return self._listed(outcome, outcome.findings.champion)

    def lists(self, outcome: ListOutcome) -> pl.DataFrame:
        """Return every candidate's lists of the holdout: its name, then as in :meth:`predictions`, without scores."""
        names = list(outcome.found.lists)
        parts = [self._listed(outcome, name).drop("score") for name in names]
        return pl.concat(
            p.select(pl.lit(n, pl.Enum(names)).alias("candidate"), pl.all()) for n, p in zip(names, parts, strict=True)
        )

    def _listed(self, outcome: ListOutcome, name: str) -> pl.DataFrame:
        lists, truth, events = outcome.found.lists[name], outcome.found.truth, self.events
        rows, ranks = np.nonzero(lists.items >= 0)
        items = lists.items[rows, ranks]
        return pl.DataFrame(
            [
                events.users.gather(truth.users[rows].astype(np.int64)).alias(str(self.plan.recipe.id)),
                pl.Series("rank", ranks + 1, dtype=pl.Int32),
                events.items.gather(items.astype(np.int64)).alias(self.plan.recipe.target),
                pl.Series("score", lists.scores[rows, ranks]),
                pl.Series("taken", np.asarray(truth.items[rows, items]).ravel() > 0),
            ]
        )

    def bundles(self, outcome: ListOutcome) -> dict[str, Contents]:
        """Return what goes into the bundle."""
        findings, ranker = outcome.findings, outcome.ranker
        save, vocabularies = saving_ranker(ranker)
        champion, end = findings.candidate(findings.champion), ranker.past.calendar.date(ranker.past.end)
        bases = {name: base.save_base for name, base in outcome.bases.items()}
        return {"bundle": Contents(champion, save, vocabularies, events_end=end, bases=bases)}

    @property
    def rejects(self) -> pl.DataFrame:
        """The rows that did not fit."""
        return self.table.rejects

    def finish(self) -> None:
        """Nothing is left to remove."""


def _key(plan: Plan) -> list[str]:
    """Return the columns without which a line is no event."""
    recipe = plan.recipe
    return [str(recipe.id), recipe.target, str(recipe.time)]


def truth_at(clock: Clock, events: Events, start: int, ranking: Ranking) -> Truth:
    """Return the in-scope items that in-scope users took in the window from ``start``.

    Parameters
    ----------
    events
        Those that hold the window: the past for a window before the cutoff, all for that of the holdout.
    """
    end = min(start + WINDOW, events.end)
    known = clock.at(start)
    truth = truth_of(known.extended(events.between(start, end)), start, end)
    if clock.whom is not None:
        truth = truth.take(np.flatnonzero(np.isin(truth.users, clock.whom)))
    if ranking.cold_items:
        truth = only_among(truth, arrivals(events, start, end))
    return only_new(truth) if ranking.new_only else truth
