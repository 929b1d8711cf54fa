"""A small transformer over baskets, pretrained on a source period and adapted to the events since.

The network and its sources are those of :mod:`tabkit.rankers.parts.sequence_net`. A lesson is a user on a day: his
history before it is read, and the items that he took in the window from it are the answer, by a softmax over the most
taken items and all that he took before (eSASRec's softmax, of all items of the table rather than of a sample).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tabkit.data.interactions import WINDOW, Codes, Events, Joined, truth_of
from tabkit.errors import DataError
from tabkit.learner import Adapted, Block, Budget, Effort, Proof, Settings
from tabkit.learner.need import Need, Size
from tabkit.rankers.base import Judge, Ranker, Scores
from tabkit.rankers.parts.histories import LENGTH, OWN, Baskets, Histories, Ints, ranges
from tabkit.rankers.parts.sequence_net import Batch, SequenceNet
from tabkit.torch_loop import Course, Pace, fit, one_thread, seeded

DIM, HEADS, BLOCKS = 32, 2, 1
ROWS: dict[Effort, int] = {"quick": 4_096, "standard": 8_192, "thorough": 16_384}
"""Items with a vector of their own, the most taken; the others are told by their popularity and the user's own counts."""
LESSONS: dict[Effort, int] = {"quick": 5, "standard": 8, "thorough": 10}
"""Windows that are learned from, the last ones."""
EPOCHS: dict[Effort, int] = {"quick": 3, "standard": 4, "thorough": 6}
"""Passes of pretraining."""
LEAST_STEPS = 60
"""Steps of pretraining at least: a small log is passed more often."""
ADAPT_EPOCHS: dict[Effort, int] = {"quick": 3, "standard": 6, "thorough": 12}
USERS = 32
"""Users in a batch, each with all of his lessons."""
MIN_HISTORY_DAYS = 28
PRETRAINING = Pace(learning_rate=3e-3, decay=1.0, pull=0.0, batch_rows=USERS, patience=1, weight_decay=0.01)
ADAPTING = Pace(learning_rate=1e-3, decay=0.5, pull=1e-4, batch_rows=USERS, patience=1)


@dataclass(frozen=True)
class View:
    """Histories, with what a network reads of them.

    Attributes
    ----------
    rows
        Item codes of the network's table (n_rows,).
    row_of
        The table's row of each item (n_items,), -1 if it has none.
    """

    histories: Histories
    baskets: Baskets
    rows: Codes
    row_of: Ints

    def batch(self, rows: Ints, dtype: torch.dtype = torch.float32) -> Batch:
        """Return some of the rows in tensors; each basket is there once."""
        past, bags = self.histories, self.baskets
        wanted = past.basket[rows]
        length = max(1, int((wanted >= 0).sum(axis=1).max(initial=0)))
        wanted = wanted[:, :length]
        used = np.unique(wanted[wanted >= 0])
        place = np.where(wanted >= 0, np.searchsorted(used, wanted), -1)
        of_basket, event = ranges(bags.start[used], bags.start[used + 1])
        start = np.searchsorted(of_basket, np.arange(len(used)))
        if not len(used):  # nobody here has a basket: one without items stands for all
            start = np.zeros(1, np.int64)
        row, pair = past.pairs(rows)
        popular = torch.from_numpy(past.popular[:, self.rows]).to(dtype)[past.when[rows]]
        tensor = torch.from_numpy
        return Batch(
            item=tensor(bags.item[event]),
            start=tensor(start),
            basket=tensor(place),
            age=tensor(past.age[rows, :length]),
            row=tensor(row),
            item_row=tensor(self.row_of[past.item[pair]]),
            own=tensor(past.own[pair]).to(dtype),
            popular=popular,
        )


@dataclass(frozen=True)
class Lessons:
    """Histories with their answers.

    Attributes
    ----------
    users
        Codes (n_users,) of those who have a lesson.
    first
        Where the lessons of each begin in ``row`` (n_users + 1,).
    row
        Rows of the view (n_lessons,), by user.
    start, answer
        The items' codes that each row took in the window, in order: where each begins (n_rows + 1,), and they (n,).
    new_only
        Whether what the user took before is no answer.
    """

    view: View
    users: Codes
    first: Ints
    row: Ints
    start: Ints
    answer: Codes
    new_only: bool

    @classmethod
    def of(cls, past: Events, days: list[int], ranker: Sequence) -> Self:
        """Return the windows from ``days``, read by a ranker's table."""
        row_of = ranker.row_of(past.n_items)
        baskets = Baskets.of(past, row_of)
        parts, sizes, answers = [], [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
        for day in days:
            truth = truth_of(past, day, day + WINDOW)
            if ranker.only is not None and np.isin(truth.users, ranker.only).any():
                truth = truth.take(np.flatnonzero(np.isin(truth.users, ranker.only)))
            items = truth.items
            if ranker.new_only:
                items = (items - items.multiply(truth.seen > 0)).tocsr()
                items.eliminate_zeros()
            items.sort_indices()
            parts.append(Histories.of(past, day, truth.users, baskets))
            sizes.append(np.diff(items.indptr))
            answers.append(items.indices.astype(np.int32))
        view = View(Histories.joined(parts), baskets, ranker.rows, row_of)
        row = np.argsort(view.histories.user, kind="stable")
        users, first = np.unique(view.histories.user[row], return_index=True)
        start = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
        return cls(view, users, np.append(first, len(row)), row, start, np.concatenate(answers), ranker.new_only)

    def loss(self, net: SequenceNet, users: Tensor) -> Tensor:
        """Return the mean cross-entropy of all lessons of some users, each user's items alike."""
        at = users.numpy()
        rows = self.row[ranges(self.first[at], self.first[at + 1])[1]]
        batch, n_items = self.view.batch(rows), len(self.view.row_of)
        of_row, answer = ranges(self.start[rows], self.start[rows + 1])
        taken = self.answer[answer]
        scores, own = net(batch)
        inside = batch.item_row >= 0
        place = (batch.row[inside], batch.item_row[inside])
        scores = scores.index_put(place, own.new_full((), -torch.inf) if self.new_only else own[inside])
        # Own items outside the table are answers too, and stand beside it.
        pair_row, pair = self.view.histories.pairs(rows)
        beside = np.flatnonzero(~inside.numpy() & (not self.new_only))
        keys = pair_row[beside] * n_items + self.view.histories.item[pair[beside]]
        took = np.isin(keys, of_row * n_items + taken)
        extra, extra_row = own[beside], batch.row[beside]
        highest = scores.detach().amax(dim=1)
        total = torch.exp(scores - highest[:, None]).sum(dim=1)
        total = torch.log(total.index_add(0, extra_row, torch.exp(extra - highest[extra_row]))) + highest
        column = self.view.row_of[taken]
        hit = column >= 0
        size = np.bincount(of_row[hit], minlength=len(rows)) + np.bincount(pair_row[beside][took], minlength=len(rows))
        weight = torch.from_numpy(1.0 / np.maximum(size, 1)).to(scores.dtype)
        at_row, at_column = torch.from_numpy(of_row[hit]), torch.from_numpy(column[hit])
        of_table = ((total[at_row] - scores[at_row, at_column]) * weight[at_row]).sum()
        kept = torch.from_numpy(took)
        of_others = ((total[extra_row] - extra) * weight[extra_row])[kept].sum()
        mean: Tensor = (of_table + of_others) / max(1, int((size > 0).sum()))
        return mean


class Sequence(Ranker):
    """Reads a user's last fifty baskets, and what he took before of each item, and answers what he takes next."""

    title = "Sequence network"
    hows = {"as_is": "base", "head": "adapted", "gradual": "adapted", "full": "adapted"}
    lasting = True
    how_titles = {"full": "all weights"}  # a ranker's "full" is otherwise one from scratch

    net: SequenceNet
    rows: Codes
    only: Codes | None = None

    def __init__(self, *, new_only: bool = False) -> None:
        self.new_only = new_only

    @classmethod
    def pretrain(
        cls,
        source: Events,
        rng: np.random.Generator,
        budget: Budget,
        new_only: bool = False,
        without: Collection[str] = (),
    ) -> Self:
        """Learn on the last windows of the source period, for a number of passes that only its size decides.

        Raises
        ------
        DataError
            The source is shorter than four weeks of history and a window.
        """
        made = cls(new_only=new_only)
        made.past = source
        users_of = np.bincount(source.counts.indices, minlength=source.n_items)
        most = np.argsort(-users_of, kind="stable")[: min(ROWS[budget.effort], int(source.known.sum()))]
        made.rows = np.sort(most).astype(np.int32)
        with seeded(int(rng.integers(2**31))):
            made.net = SequenceNet(len(made.rows), DIM, HEADS, BLOCKS)
        course = made._course(made._days(source, budget.effort), None, PRETRAINING)
        steps = max(1, round(course.n_rows / USERS))
        epochs = max(EPOCHS[budget.effort], ceil(LEAST_STEPS / steps))
        fit(course, "scratch", rng, budget, {"epochs": [epochs], "alpha": 1.0, "augment": False})
        return made

    def adapt(
        self,
        past: Events,
        judge: Judge | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Ranker]:
        """Train a copy on the windows since the base, and stop on valid; ``as_is`` only reads the histories of today.

        Items that the base has no vector for get none: they are told by popularity and the user's own counts.
        """
        made = self.looking_at(past)
        if how == "as_is":
            sizes = {b: sum(p.numel() for m in parts for p in m.parameters()) for b, parts in self.net.blocks.items()}
            return Adapted(made, how, Proof(tuple(Block(name, n, 0, 0.0) for name, n in sizes.items())))
        made.net = copy.deepcopy(self.net)
        days = made._days(past, budget.effort)
        since = [day for day in days if day + WINDOW > self.past.end] or days[:1]
        # Dropout is all the augmentation there is: no contest is held for it.
        spent = replace(budget, effort="quick", epochs=ADAPT_EPOCHS[budget.effort])
        done = fit(made._course(since, judge, ADAPTING), how, rng, spent, settings)
        return Adapted(made, how, done.proof, done.settings, done.history, done.notes)

    @staticmethod
    def _days(past: Events, effort: Effort) -> list[int]:
        """Return the days on which lessons' windows begin, the latest first."""
        first = int(past.day.min()) + MIN_HISTORY_DAYS if len(past) else past.end
        days = [past.end - WINDOW * k for k in range(1, LESSONS[effort] + 1)]
        kept = [day for day in days if day >= first]
        if not kept:
            length = past.calendar.length
            raise DataError(
                f"The events that the sequence network learns from span {length(past.end - first + MIN_HISTORY_DAYS)}. Expected at "
                f"least {length(MIN_HISTORY_DAYS + WINDOW)}: {length(MIN_HISTORY_DAYS)} of history and a window of {length(WINDOW)}. "
                "Give a longer period, or leave sequence out."
            )
        return kept

    def _course(self, days: list[int], judge: Judge | None, pace: Pace) -> Course:
        lessons = Lessons.of(self.past, days, self)

        def valid_loss() -> float:
            return 1 - judge(self) if judge is not None else float("nan")

        def batch_loss(users: Tensor, augment: bool) -> Tensor:
            return lessons.loss(self.net, users)

        return Course(self.net, self.net.blocks, len(lessons.users), batch_loss, valid_loss, pace)

    def row_of(self, n_items: int) -> Ints:
        """Return the table's row of each item, -1 if it has none."""
        out = np.full(n_items, -1)
        out[self.rows] = np.arange(len(self.rows))
        return out

    def looking_at(self, past: Events) -> Sequence:
        """Return the same network with the histories of another day."""
        made = type(self)(new_only=self.new_only)
        made.net, made.rows, made.only, made.past = self.net, self.rows, self.only, past
        return made

    def learning_from(self, users: Codes | None) -> Sequence:
        """Return the network with lessons of these users only."""
        made = self.looking_at(self.past)
        made.only = users
        return made

    def caught_up(self, joined: Joined) -> Sequence:
        """Return the network with the histories of all events; new items have no vector."""
        return self.recoded(joined).looking_at(joined.events)

    def recoded(self, joined: Joined) -> Sequence:
        """Return the network in the larger vocabulary; new items have no vector."""
        made = self.looking_at(joined.past)
        made.rows = joined.items[self.rows]
        return made

    @cached_property
    def _view(self) -> View:
        row_of = self.row_of(self.past.n_items)
        baskets = Baskets.of(self.past, row_of)
        everyone = np.arange(self.past.n_users, dtype=np.int32)
        return View(Histories.of(self.past, self.past.end, everyone, baskets), baskets, self.rows, row_of)

    def scores(self, users: Codes) -> Scores:
        """Return the logarithm of what each item is likely to be, up to a constant; float64 inside, see ``als``."""
        view = self._view
        rows = np.asarray(users, np.int64)
        popular = float(self.net.head.popular.weight.detach()) * view.histories.popular[0].astype(np.float64)
        out = np.empty((len(rows), self.past.n_items), np.float32)
        out[:] = popular.astype(np.float32)
        if not len(rows):
            return out
        with one_thread(), torch.inference_mode():
            table, own = copy.deepcopy(self.net).double().eval()(view.batch(rows, torch.float64))
        out[:, self.rows] = table.numpy()
        row, pair = view.histories.pairs(rows)
        out[row, view.histories.item[pair]] = own.numpy()
        return out

    @classmethod
    def need(cls, size: Size, how: str, effort: Effort) -> Need:
        """Estimate by what pretraining and one adaptation take; see :meth:`estimate`."""
        return Need(*cls.estimate(size.n_users, size.n_items, size.n_events, effort))

    @classmethod
    def estimate(cls, n_users: int, n_items: int, n_events: int, effort: Effort) -> tuple[float, float]:
        """Return roughly the CPU seconds and gigabytes of pretraining and one adaptation on a log of some size."""
        lessons, rows = n_users * LESSONS[effort], min(n_items, ROWS[effort])
        passes = EPOCHS[effort] + ADAPT_EPOCHS[effort]
        seconds = passes * lessons * (1e-4 + 1.2e-7 * rows) + 1e-8 * n_users * n_items * (passes + 4)
        return seconds, 1e-9 * ((16 * LENGTH + 8) * lessons + (4 * OWN + 12) * n_events * LESSONS[effort])

    def save(self, folder: Path) -> None:
        """Write the weights as safetensors, and what they are for as JSON."""
        save_file({name: tensor.contiguous() for name, tensor in self.net.state_dict().items()}, folder / WEIGHTS)
        facts = {"new_only": self.new_only, "rows": self.rows.tolist(), "dim": DIM, "heads": HEADS, "blocks": BLOCKS}
        (folder / "sequence.json").write_text(json.dumps(facts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, past: Events) -> Self:
        """Read weights and facts; histories follow from the events."""
        facts = json.loads((folder / "sequence.json").read_text(encoding="utf-8"))
        made = cls(new_only=facts["new_only"])
        made.past, made.rows = past, np.array(facts["rows"], np.int32)
        made.net = SequenceNet(len(made.rows), facts["dim"], facts["heads"], facts["blocks"])
        made.net.load_state_dict(load_file(folder / WEIGHTS))
        return made


WEIGHTS = "sequence.safetensors"
