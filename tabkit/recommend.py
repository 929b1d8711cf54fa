"""From events to a verdict on lists: the sibling of the tables' flow in ``run.py``. It reads top to bottom."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tabkit import assembled as result
from tabkit import bundle, report
from tabkit.adapt_rankers import Clock, adapt_rankers, again_on, clock_of, wanted_on_top, wanted_rankers
from tabkit.data.interactions import Names, Truth, arrivals, as_date, events_of, truth_of
from tabkit.data.validate import Table
from tabkit.errors import DataError, count
from tabkit.evaluate.comparison import Chosen, compare_planned
from tabkit.evaluate.intervals import RESAMPLES, Resampler
from tabkit.evaluate.ledger import Sealed
from tabkit.evaluate.lists import (
    ListCard,
    Measured,
    choose_lists,
    evaluate_lists,
    measure,
    only_among,
    only_new,
    spread_of,
    worth,
)
from tabkit.evaluate.metrics import Metric
from tabkit.learner import Adapted, Budget, Cost
from tabkit.rankers.base import ListCandidate, Ranker
from tabkit.recipe import Plan, Ranking
from tabkit.refresh import Taken, take_on

Watch = Callable[[str, float, str], None]
MIN_EVALUATED = 10
"""Fewer users in a window cannot be resampled into an interval that means anything."""


@dataclass(frozen=True)
class _Windows:
    """The clock, and the two windows of answers; that of the holdout is sealed. ``taken``: the parent of a refresh."""

    clock: Clock
    taken: Taken | None
    valid: Truth
    holdout: Sealed[Truth]


def recommend(
    plan: Plan,
    table: Table,
    folder: Path,
    metrics: dict[str, Metric],
    seed: int,
    allowance: Budget,
    cutoffs: int,
    watch: Watch,
    started: float,
    command: str,
    parent: bundle.ListBundle | None = None,
) -> dict[str, Any]:
    """Adapt rankers, choose on the window before the cutoff, compare on the one after it, write the run folder.

    Parameters
    ----------
    table
        Events that passed the schema; with ``parent``, those since its end.
    cutoffs
        At how many cutoffs, the last one included and a window apart, the planned comparison is carried out.
    parent
        A bundle to be taken on by the new events: it is the base, and nothing is fitted from scratch.

    Returns
    -------
    dict
        The content of ``result.json``.
    """
    ranking = plan.recipe.ranking
    assert ranking is not None
    primary = next(iter(metrics))
    todo = wanted_rankers(plan.recipe, allowance.level, str(plan.path))
    watch("data", 0.5, "coding events")
    windows = _windows(plan, table, ranking, seed, parent)
    taken = windows.taken
    if taken is not None:
        todo = wanted_on_top(taken.base, ranking.cold_items)
    clock, depth, names = windows.clock, max(20, ranking.length), list(metrics)
    watch("data", 1.0, "")

    def judge(ranker: Ranker) -> float:
        found = measure(ranker, windows.valid, [primary], depth, ranking.new_only)
        return metrics[primary].sign * float(np.nanmean(found.per_user[primary]))

    made = {} if taken is None else {taken.base: taken.ranker}
    contestants = adapt_rankers(
        todo, clock, windows.valid, judge, depth, ranking.new_only, seed, allowance, watch, made
    )
    on_valid = {c.name: worth(c.valid, c.adapted.model, windows.valid, names, ranking.new_only) for c in contestants}
    values = {name: float(np.nanmean(m.per_user[primary])) for name, m in on_valid.items()}
    chosen, refused = choose_lists(contestants, values, metrics[primary])

    past = clock.at(clock.cutoff)
    finals: dict[str, tuple[Adapted[Ranker], Cost]] = {}
    for done, contestant in enumerate(contestants):
        watch("to the cutoff", done / len(contestants), contestant.name)
        finals[contestant.name] = again_on(contestant, past, seed, allowance)
    on_train = {
        c.name: _where_fitted(finals[c.name][0], windows, names, depth, ranking, on_valid[c.name]) for c in contestants
    }
    by_name = {c.name: c for c in contestants}
    earlier = _earlier(by_name, chosen, clock, ranking, metrics, depth, seed, allowance, cutoffs, watch)
    card = evaluate_lists(
        contestants,
        finals,
        chosen,
        refused,
        on_valid,
        on_train,
        windows.valid,
        windows.holdout.open(),
        past,
        earlier,
        metrics,
        depth,
        ranking.new_only,
        plan.recipe.metrics.worthwhile,
        ranking.margin,
        ranking.currency,
        allowance.level,
        seed,
        lambda f, note: watch("harness", f, note),
        None if taken is None else (taken.facts["events_end"], taken.facts["gap_days"]),
    )
    card = replace(card, facts=card.facts | {"parent": None if taken is None else taken.facts})
    watch("bundle", 0.0, card.verdict.champion)
    document = result.assemble_lists(
        plan, table, clock, card, allowance.level, seed, time.perf_counter() - started, command
    )
    model = _champion(plan, card, clock, seed, allowance)
    _write(folder, plan, table, card, model, document, clock)
    watch("bundle", 1.0, "")
    return document


def _windows(plan: Plan, table: Table, ranking: Ranking, seed: int, parent: bundle.ListBundle | None) -> _Windows:
    """Code the events and cut them by the clock.

    Raises
    ------
    DataError
        The period is too short, or hardly anyone can be evaluated.
    """
    recipe = plan.recipe
    assert recipe.id is not None and recipe.time is not None
    names = Names(
        recipe.id,
        recipe.target,
        recipe.time,
        ranking.basket,
        ranking.store,
        ranking.price,
        tuple(ranking.attributes),
        tuple(ranking.text),
    )
    events = events_of(table.frame, names)
    taken = None if parent is None else take_on(parent, events)
    clock = clock_of(events, ranking, seed) if taken is None else taken.clock
    first = int(clock.events.day.min())
    if clock.base_end <= first or clock.cutoff + 1 > clock.events.end:
        raise DataError(
            f"Events run from {as_date(first)} to {as_date(clock.events.end - 1)}. Expected some before {as_date(clock.base_end)}, where the "
            f"bases end, and some from the cutoff {as_date(clock.cutoff)} on. Set cutoff, days and base_days under [ranking] to fit."
        )
    valid, holdout = (_truth(clock, start, ranking) for start in (clock.cutoff - clock.days, clock.cutoff))
    for name, truth in (("valid", valid), ("holdout", holdout)):
        if len(truth.users) < MIN_EVALUATED:
            raise DataError(
                f"Only {count(len(truth.users), 'user')} with history take something in the {name} window from {as_date(truth.start)}. "
                f"Expected at least {MIN_EVALUATED}. Choose an earlier cutoff or a longer window under [ranking]."
            )
    key = json.dumps(
        [
            table.fingerprint,
            recipe.target,
            recipe.where,
            clock.cutoff,
            clock.days,
            ranking.new_only,
            ranking.cold_users,
            ranking.cold_items,
        ]
    )
    key = hashlib.sha256(key.encode() + holdout.users.tobytes()).hexdigest()
    return _Windows(clock, taken, valid, Sealed(holdout, key))


def _truth(clock: Clock, start: int, ranking: Ranking) -> Truth:
    """Return what was taken, of what the recipe is about, in the window from ``start`` by those whom it is about."""
    end = start + clock.days
    window = clock.events.between(start, end)
    known = clock.at(start)
    truth = truth_of(known.extended(window), start, end)
    if clock.whom is not None:
        truth = truth.take(np.flatnonzero(np.isin(truth.users, clock.whom)))
    if ranking.cold_items:
        truth = only_among(truth, arrivals(clock.events, start, end))
    return only_new(truth) if ranking.new_only else truth


def _where_fitted(
    final: Adapted[Ranker], windows: _Windows, names: list[str], depth: int, ranking: Ranking, on_valid: Measured
) -> Measured:
    """Measure a ranker in the last window before the cutoff, to which it may have been fitted; else as on valid."""
    clock = windows.clock
    there = final.model.looking_at(clock.at(clock.cutoff - clock.days))
    return on_valid if there is None else measure(there, windows.valid, names, depth, ranking.new_only)


def _earlier(
    by_name: dict[str, ListCandidate],
    chosen: Chosen,
    clock: Clock,
    ranking: Ranking,
    metrics: dict[str, Metric],
    depth: int,
    seed: int,
    budget: Budget,
    cutoffs: int,
    watch: Watch,
) -> list[dict[str, Any]]:
    """Carry out the planned comparison at earlier cutoffs, with the settings found and what was known at each."""
    out = []
    primary = next(iter(metrics))
    rivals = [n for n in dict.fromkeys((chosen.adapted, chosen.base, chosen.baseline)) if n]
    for back in range(1, cutoffs):
        day = clock.cutoff - back * clock.days
        watch("earlier cutoffs", (back - 1) / cutoffs, as_date(day))
        if day - 2 * clock.days < clock.base_end:
            break  # the base would have been made of the window itself
        truth, past = _truth(clock, day, ranking), clock.at(day)
        found = {
            n: measure(
                again_on(by_name[n], past, seed, budget)[0].model,
                truth,
                [primary],
                depth,
                ranking.new_only,
            )
            for n in rivals
        }
        resampler = Resampler(len(truth.users), None, RESAMPLES[budget.level], seed)
        planned = compare_planned(
            chosen, primary, metrics[primary], spread_of(found, primary, metrics[primary], resampler)
        )
        gains = (
            []
            if planned is None
            else [
                {"name": a.name, "gain": a.gain.value, "low": a.gain.low, "high": a.gain.high} for a in planned.against
            ]
        )
        out.append({"cutoff": as_date(day), "users": len(truth.users), "gains": gains})
    watch("earlier cutoffs", 1.0, "")
    return out


def _champion(plan: Plan, card: ListCard, clock: Clock, seed: int, budget: Budget) -> Ranker:
    """Return the ranker to bundle: the champion's procedure on all events, or the very one that was measured."""
    score = card.score(card.verdict.champion)
    assert score.final is not None
    if plan.recipe.bundle.train_on == "train":
        return score.final.model
    return again_on(score.contestant, clock.events, seed, budget)[0].model


def _write(
    folder: Path, plan: Plan, table: Table, card: ListCard, model: Ranker, document: dict[str, Any], clock: Clock
) -> None:
    """Write the run folder whole: an interrupted run leaves none."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        result.write_json(temporary / "result.json", document)
        result.scorecard_table(document).write_parquet(temporary / "scorecard.parquet")
        _lists(card, clock, plan).write_parquet(temporary / "holdout_predictions.parquet")
        if table.rejects.height:
            table.rejects.write_csv(temporary / "rejects.csv")
        champion: ListCandidate = card.score(card.verdict.champion).contestant
        facts = {
            "tabkit": document["tabkit"],
            "created": document["created"],
            "recipe": plan.recipe.name,
            "task": "ranking",
            "champion": champion.name,
            "model": champion.base,
            "how": champion.how,
            "decision": card.verdict.decision,
            "trained_on": document["bundle"]["train_on"],
            "events_end": as_date(model.past.end),
            "data_fingerprint": table.fingerprint,
            "versions": document["versions"],
        }
        bundle.save_lists(temporary / "bundle", plan, model, facts, document, result.list_card(document))
        report.write_report(temporary)
        temporary.chmod(0o755)  # mkdtemp makes it private
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _lists(card: ListCard, clock: Clock, plan: Plan) -> pl.DataFrame:
    """Return the champion's lists of the holdout: user, rank, item, score, and whether it was taken."""
    lists = card.holdout[card.verdict.champion].lists
    users, events = card.truth.users, clock.events
    rows, ranks = np.nonzero(lists.items >= 0)
    items = lists.items[rows, ranks]
    taken = np.asarray(card.truth.items[rows, items]).ravel() > 0
    id_, item = plan.recipe.id, plan.recipe.target
    return pl.DataFrame(
        [
            events.users.gather(users[rows].astype(np.int64)).alias(str(id_)),
            pl.Series("rank", ranks + 1, dtype=pl.Int32),
            events.items.gather(items.astype(np.int64)).alias(item),
            pl.Series("score", lists.scores[rows, ranks]),
            pl.Series("taken", taken),
        ]
    )
