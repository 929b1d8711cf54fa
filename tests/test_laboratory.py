"""The laboratory counts what a run said beside what is true: here on draws whose counts are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from benchmarks.laboratory import book, publish, tally
from benchmarks.laboratory.draws import Candidate, Draw, More, Scored, expected
from benchmarks.laboratory.scenarios import SCENARIOS
from benchmarks.laboratory.worlds import Rows, World, labelled
from tabkit.evaluate.metrics import METRICS
from tabkit.result import Chosen

TRUTH = {"linear": 0.70, "lgbm": 0.60, "lgbm_tuned": 0.65, "linear_as_is": 0.75, "linear_pool": 0.80}


def make_draw(decision: str = "adapt", champion: str = "linear_pool", **changes: Any) -> Draw:
    kinds = {"linear_as_is": "base", "linear_pool": "adapted"}

    def scored(name: str) -> Candidate:
        value = TRUTH[name] + 0.01
        kind = kinds.get(name, "baseline")
        return Candidate(value=value, low=value - 0.05, high=value + 0.05, truth=TRUTH[name], kind=kind, on_valid=value)

    def gain(over: str) -> Scored:
        truth = TRUTH["linear_pool"] - TRUTH[over]
        return Scored(value=truth, low=truth - 0.02, high=truth + 0.02, truth=truth, state="worthwhile")

    facts: dict[str, Any] = {
        "scenario": "transfer",
        "metric": "roc_auc",
        "worthwhile": 0.01,
        "decision": decision,
        "champion": champion,
        "chosen": Chosen(adapted="linear_pool", base="linear_as_is", baseline="linear", best_base="linear_as_is"),
        "candidates": {name: scored(name) for name in TRUTH},
        "planned": {name: gain(name) for name in ("linear_as_is", "linear")},
        "over_baseline": {},
        "rows_needed": None,
        "checks": {"overfit": "pass"},
    }
    return Draw(**facts | changes)


def judged(*args: str, **changes: Any) -> tally.Judged:
    return tally.Judged(make_draw(*args, **changes))


def test_a_right_verdict_is_no_error() -> None:
    right = judged()
    assert right.worth and right.adapted and not right.firm and right.regret == 0
    assert right.optimism(right.champion.truth) == pytest.approx(0.01) and tally.holds(right.champion)
    assert right.power == pytest.approx((0.05 - 0.01) / 0.02)


def test_did_not_pay_is_wrong_where_adapting_is_worthwhile() -> None:
    wrong = judged("use_baseline", "linear")
    assert wrong.firm and wrong.worth and wrong.regret == pytest.approx(0.1)
    assert wrong.stays_wrongly  # the untouched base is .05 better than the baseline that stays
    assert not judged("keep_base", "linear_as_is").stays_wrongly
    assert wrong.worse_than(wrong.true("linear_as_is")) and not wrong.worse_than(wrong.true("lgbm"))


def test_a_gain_below_what_matters_makes_adapt_wrong() -> None:
    small = Scored(value=0.02, low=0.011, high=0.03, truth=0.005)
    assert not judged(planned={"linear": small}).worth


def test_errors_are_turned_so_that_greater_is_better() -> None:
    error = judged(metric="rmse")
    assert error.regret == pytest.approx(0.2) and error.optimism(error.champion.truth) == pytest.approx(-0.01)


def test_tables_show_every_scenario_and_the_rows_that_settled_it() -> None:
    more = More(rows=200, decision="adapt", settled=True, settled_as_first=True)
    unsettled = make_draw("not_enough_evidence", "linear", rows_needed=200, more=more)
    text = tally.tables([make_draw(), unsettled, make_draw(scenario="leak", candidates={}, checks={"overfit": "fail"})])
    assert "3 draws of 2 scenarios; 2 of them tell the truth" in text
    assert "| transfer | 2 | 2 | 1 | 0 | 0 | 0 | 1 | 1 |" in text
    assert "settled by the rule in 1 of 1" in text
    assert "| `overfit` | 0 of 2 (0.0% [0.0%, 84.2%]) | leak 1 of 1 |" in text


def test_a_killed_run_goes_on_after_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "draws.jsonl"
    book.append(path, make_draw(number=0))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])
    book.mend(path)
    assert path.read_bytes() == whole and [d.number for d in book.read(path)] == [0]
    left = book.to_do(4, ["transfer", "rare"], {("transfer", 0)})
    assert list(left) == [("rare", 0), ("transfer", 1), ("transfer", 2), ("rare", 2), ("transfer", 3)]


@pytest.mark.parametrize("name", [name for name, s in SCENARIOS.items() if s.kind.task != "regression"])
def test_a_world_tells_the_probability_of_each_answer(name: str) -> None:
    rng = np.random.default_rng(0)
    world = World(SCENARIOS[name].kind, rng)
    rows = world.fresh(20_000, rng)
    y = labelled(rows, world.kind, rng)["y"]
    share = np.array([(y == f"c{k}").mean() for k in range(rows.weights.shape[1])])
    assert share == pytest.approx(rows.weights.mean(axis=0), abs=0.01)


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
def test_the_truth_is_what_many_labels_tell(metric: str) -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(size=2000)
    rows = Rows(pl.DataFrame(), np.tile([0.0, 1.0], (2000, 1)), np.c_[1 - p, p])
    guess = np.clip(p + rng.normal(scale=0.2, size=2000), 0.01, 0.99)
    predicted = np.c_[1 - guess, guess]
    told = [METRICS[metric].value((rng.random(2000) < p).astype(int), predicted) for _ in range(200)]
    assert expected(METRICS[metric], rows, predicted) == pytest.approx(np.mean(told), abs=0.004)


def test_the_truth_of_a_number_knows_its_noise() -> None:
    mean = np.random.default_rng(2).normal(size=500)
    rows = Rows(pl.DataFrame(), np.c_[mean - 1, mean + 1], np.full((500, 2), 0.5))
    assert expected(METRICS["rmse"], rows, mean + 0.5) == pytest.approx(np.sqrt(1 + 0.25))


def test_counts_are_published_by_kind_and_size(tmp_path: Path) -> None:
    wrong = make_draw("use_baseline", "linear", rows=300)
    draws = [make_draw(rows=250), wrong, make_draw(rows=120), make_draw(rows=3000)]
    small, middle = publish.groups(draws)
    assert (small.tables, small.adapt, small.wrong_adapt) == (1, 1, 0)
    assert (middle.least_rows, middle.most_rows, middle.not_paid, middle.wrong_not_paid) == (250, 300, 1, 1)
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- measured: laboratory -->\nold\n<!-- /measured -->\nafter\n", encoding="utf-8")
    publish.between_markers(page, "new")
    assert page.read_text(encoding="utf-8").splitlines()[2] == "new"
    page.write_text("no markers", encoding="utf-8")
    with pytest.raises(SystemExit, match="add both lines"):
        publish.between_markers(page, "new")
