"""One draw: a table and its source from a world, through ``tabkit.run``, beside the truth of every candidate."""

from __future__ import annotations

import os
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Self
from unittest import mock

import numpy as np
import polars as pl
from pydantic import BaseModel

import tabkit
from tabkit.data.encode import Encoder
from tabkit.evaluate import roles
from tabkit.evaluate.ledger import LEDGER
from tabkit.evaluate.metrics import METRICS, Case, Metric
from tabkit.models.base import TableCandidate
from tabkit.models.blend import Blend
from tabkit.result import Against, Chosen, Interval, Result, TableFindings
from tabkit.workflow.procedure import TableArm

from .scenarios import SCENARIOS, Scenario
from .worlds import Floats, Rows, World

FRESH_ROWS = 10_000
"""Fresh rows that tell the truth. Each is scored with the probability of every answer: that is as good as many more labels."""
MOST_MORE = 4000
"""More rows that are drawn at most, where a verdict asks for more rows."""


class Scored(BaseModel):
    """A score or a gain on the holdout and its truth; null if it is undefined. A gain is one if it is above zero."""

    value: float | None
    low: float | None
    high: float | None
    truth: float | None = None
    state: str = ""

    @classmethod
    def of(cls, interval: Interval, **more: Any) -> Self:
        """Return what an interval says."""
        return cls(value=interval.value, low=interval.low, high=interval.high, **more)


class Candidate(Scored):
    """A candidate's score; ``on_valid`` is that by which it was chosen."""

    kind: str
    on_valid: float | None


class More(BaseModel):
    """What came of the rows that a verdict asked for: by the rule, and if the question were the first of its rows."""

    rows: int
    decision: str
    settled: bool
    settled_as_first: bool


class Draw(BaseModel):
    """What a run said of one table, and what is true; no truth is told if a fault is planted."""

    scenario: str
    number: int = 0
    rows: int = 0
    metric: str
    worthwhile: float
    decision: str
    champion: str
    chosen: Chosen
    candidates: dict[str, Candidate]
    planned: dict[str, Scored]
    """The gains of the adapted candidate over its opponents."""
    over_baseline: dict[str, Scored]
    """The gains of all other candidates over the best baseline."""
    bundled: float | None = None
    """True score of the bundle, which is fitted again on all rows."""
    rows_needed: int | None
    more: More | None = None
    checks: dict[str, str]
    cpu_seconds: float = 0.0

    @property
    def sign(self) -> int:
        """+1 if greater scores are better, else -1."""
        return METRICS[self.metric].sign


@dataclass(frozen=True)
class Fold:
    """What a fold, or the one split, found, with the models that a run does not return."""

    encoder: Encoder
    candidates: tuple[TableCandidate, ...]
    findings: TableFindings

    def truth(self, metric: Metric, fresh: Rows) -> dict[str, float]:
        """Return each candidate's true score."""
        rows, answers = self.encoder.encode(fresh.frame), {}
        for c in self.candidates:
            model = c.adapted.model
            answers[c.name] = model.combine(answers) if isinstance(model, Blend) else model.predict(rows)
        return {name: expected(metric, fresh, answer) for name, answer in answers.items()}


@dataclass(frozen=True)
class Asked:
    """A finished run, and what each of its folds found."""

    run: tabkit.Run
    folds: Sequence[Fold]


def draw(name: str, number: int) -> Draw:
    """Make a draw of a scenario; the same number gives the same draw."""
    scenario, began = SCENARIOS[name], time.process_time()
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    world = World(scenario.kind, rng)
    n_rows = round(float(np.exp(rng.uniform(*np.log(scenario.rows)))))
    source = world.source(scenario.source_rows, rng)
    table = scenario.planted(world.table(n_rows, scenario.held_out, rng), number, rng)
    absent = [pl.lit(None, kind).alias(name) for name, kind in table.schema.items() if name not in source.columns]
    source, fresh, more = source.with_columns(absent), world.fresh(FRESH_ROWS, rng), None
    with tempfile.TemporaryDirectory() as place:
        os.environ[LEDGER] = str(Path(place) / "ledger.jsonl")
        asked = ask(scenario, table, source, Path(place), number)
        needed = asked.run.result.verdict.rows_needed
        if needed is not None and needed <= MOST_MORE and scenario.grows:
            larger = pl.concat([table, world.table(needed, scenario.held_out, rng, first=n_rows)])
            more = settled(ask(scenario, larger, source, Path(place), number).run.result, needed)
        found = said(scenario, asked.run.result)
        if not scenario.fault:
            tell_truth(found, asked, fresh)
    seconds = time.process_time() - began
    return found.model_copy(update={"number": number, "rows": table.height, "more": more, "cpu_seconds": seconds})


def ask(scenario: Scenario, table: pl.DataFrame, source: pl.DataFrame, place: Path, seed: int) -> Asked:
    """Run the scenario's recipe on a table, as anyone would, but for keeping the candidates' models."""
    for folder, text in (
        ("data_schemas", scenario.schema(table)),
        ("domains/laboratory", scenario.recipe(table.columns)),
    ):
        (place / folder).mkdir(parents=True, exist_ok=True)
        (place / folder / "table.toml").write_text(text, encoding="utf-8")
    folds, findings = [], TableArm.findings

    def keeping(arm, opened, prepared, judged, accepted):
        found = findings(arm, opened, prepared, judged, accepted)
        folds.append(Fold(arm.encoder, accepted, found.findings))
        return found

    settings = {"jobs": 1} if scenario.folds else {}
    out = place / f"run-{table.height}"
    with mock.patch.object(TableArm, "findings", keeping):
        run = tabkit.run(
            place / "domains/laboratory/table.toml",
            table,
            source=source,
            out=out,
            seed=seed,
            budget="quick",
            device="cpu",
            **settings,
        )
    return Asked(run, folds)


def said(scenario: Scenario, result: Result) -> Draw:
    """Return what a run said; the truth is still to be told."""
    primary, chosen = result.primary, result.chosen
    candidates = {}
    for c in result.candidates:
        on_holdout, on_valid = c.score(primary), c.score(primary, "valid")
        if on_holdout is not None and on_valid is not None:
            candidates[c.name] = Candidate.of(on_holdout, kind=c.kind, on_valid=on_valid.value)
    planned = () if result.planned is None else result.planned.against
    return Draw(
        scenario=next(name for name, other in SCENARIOS.items() if other is scenario),
        metric=primary,
        worthwhile=scenario.worthwhile,
        decision=result.verdict.decision,
        champion=result.champion,
        chosen=chosen,
        candidates=candidates,
        planned={a.name: Scored.of(a.interval, state=a.state) for a in planned},
        over_baseline={
            e.candidate: Scored.of(Interval(e.gain, e.low, e.high))
            for e in result.exploratory
            if e.candidate in candidates
        },
        rows_needed=result.verdict.rows_needed,
        checks={check.code: check.outcome for check in result.checks},
    )


def settled(result: Result, rows: int) -> More:
    """Return what came of more rows."""
    assert result.planned is not None
    decision, states = result.verdict.decision, set()
    normal = NormalDist()
    narrower = normal.inv_cdf(0.975) / normal.inv_cdf((1 + result.planned.level) / 2)
    for a in result.planned.against:
        plain = Interval(a.gain, a.gain - narrower * (a.gain - a.low), a.gain + narrower * (a.high - a.gain))
        states.add(Against.of(a.name, a.role, plain, result.worthwhile).state)
    first = "not_worthwhile" in states or states == {"worthwhile"}
    return More(rows=rows, decision=decision, settled=decision != "not_enough_evidence", settled_as_first=first)


def tell_truth(found: Draw, asked: Asked, fresh: Rows) -> None:
    """Score every candidate, each gain and the bundle on fresh rows; over folds, the mean of the folds' models.

    Over folds, the planned comparison is of what each fold adapted with what each fold chose.
    """
    metric, chosen = METRICS[found.metric], found.chosen
    by_fold = [fold.truth(metric, fresh) for fold in asked.folds]

    def true(pick: roles.Pick) -> float:
        return float(np.mean([scores[pick(f.findings)] for f, scores in zip(asked.folds, by_fold, strict=True)]))

    opponents = {chosen.best_base: roles.best_base, chosen.baseline: roles.baseline, chosen.base: roles.base}
    for name, candidate in found.candidates.items():
        candidate.truth = true(roles.named(name))
    for name, gain in found.planned.items():
        gain.truth = metric.sign * (true(roles.adapted) - true(opponents.get(name, roles.blended_alone)))
    for name, gain in found.over_baseline.items():
        gain.truth = metric.sign * (true(roles.named(name)) - true(roles.named(chosen.baseline)))
    scores = asked.run.bundle.predict(fresh.frame)
    names = [c for c in scores.columns if c.startswith("probability_")]
    answer = scores[names].to_numpy() if names else scores["prediction"].to_numpy()
    found.bundled = expected(metric, fresh, answer)


def expected(metric: Metric, rows: Rows, predicted: Floats) -> float:
    """Return a metric of predictions (n, n_classes) or (n,), every answer counted with its probability."""
    k = rows.answers.shape[1]
    answers = rows.answers if predicted.ndim == 1 else rows.answers.astype(np.int64)
    case = Case(answers.T.ravel(), np.concatenate([predicted] * k), rows.weights.T.reshape(1, -1))
    return float(metric.function(case)[0])
