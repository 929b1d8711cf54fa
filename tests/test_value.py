"""Money: the threshold chosen on valid is the best there is, and payoffs are counted row by row."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, signal_table, write_recipe

import tabkit
from tabkit import learner
from tabkit.data.split import split_rows
from tabkit.evaluate.intervals import Resampler
from tabkit.evaluate.value import Payoffs, Worth, best_threshold, mean_payoff, summary, worth
from tabkit.recipe import Value, load_recipe
from tabkit.result import CandidateFacts, Chosen, Interval


def payoffs(y: list[int], when: str = "below") -> Payoffs:
    acted = "CASE WHEN y = 1 THEN -10 ELSE 1 END" if when == "below" else "CASE WHEN y = 1 THEN 10 ELSE -1 END"
    rule = Value.model_validate({"unit": "EUR", "act_when": when, "acted": acted})
    return Payoffs(pl.DataFrame({"y": y}), rule)


def two(p: list[float]) -> np.ndarray:
    return np.column_stack([1 - np.array(p), p])


@pytest.mark.parametrize("when", ["below", "above"])
def test_threshold_is_the_best_of_all(when: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        y = rng.integers(0, 2, 40).tolist()
        p = two(rng.random(40).round(1).tolist())
        paid = payoffs(y, when)
        chosen = best_threshold(paid, p)
        assert chosen is not None
        best = max(paid.of(p, t)[0].sum() for t in np.linspace(-0.05, 1.05, 221))
        assert paid.of(p, chosen)[0].sum() >= best - 1e-9 or not 0 < p[:, 1].min() <= p[:, 1].max() < 1


def test_known_answer() -> None:
    paid = payoffs([0, 0, 1, 0])
    p = two([0.1, 0.2, 0.9, 0.3])
    threshold = best_threshold(paid, p)
    assert threshold == pytest.approx(0.6)
    resampler = Resampler(4, None, 200, 0)
    ours, nobody = worth("m", paid, p, threshold, resampler), worth("none", paid, p, 0.0, resampler)
    assert ours.payoff.value == pytest.approx(750)  # three of four pay 1, per 1,000 decisions
    assert ours.acted_share == 0.75
    assert nobody.payoff.value == 0
    assert mean_payoff(ours.per_row - nobody.per_row, resampler, 1000).value == pytest.approx(750)


def test_regression_payoff_sees_the_prediction() -> None:
    rule = Value.model_validate({"unit": "kg", "payoff": "-ABS(prediction - y)"})
    paid = Payoffs(pl.DataFrame({"y": [1.0, 2.0]}), rule)
    assert paid.of(np.array([1.5, 2.0]), None)[0].tolist() == [-0.5, 0.0]


def test_a_regression_says_what_its_predictions_are_worth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Money booked for what is predicted, and a penalty for what goes beyond: the prior books the mean for all."""
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, trees=30))
    rng = np.random.default_rng(0)
    x = rng.normal(size=300)
    frame = pl.DataFrame({"x": x, "y": 50 + 10 * x + rng.normal(size=300)})
    frame.write_parquet(tmp_path / "d.parquet")
    payoff = "-prediction - CASE WHEN y > prediction THEN 5 * (y - prediction) ELSE 0 END"
    recipe = write_recipe(
        tmp_path,
        frame,
        'task = "regression"\ntarget = "y"\n[metrics]\nprimary = "rmse"\n[candidates]\nwithout = ["catboost", "blend"]\n'
        f'[candidates.adapt]\n[value]\nunit = "EUR"\nper = 100\npayoff = "{payoff}"\n',
    )
    done = tabkit.run(str(recipe), tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    held = pl.read_parquet(tmp_path / "out" / "holdout_predictions.parquet")
    worths = {w.name: w for w in done.result.value.candidates}
    for name in ("linear", "prior"):
        over = np.maximum(held["target"] - held[name], 0)
        assert worths[name].value == pytest.approx(100 * float((-held[name] - 5 * over).to_numpy().mean()))
        assert worths[name].acted_share is None and worths[name].threshold is None
    assert worths["linear"].low > worths["prior"].high
    html = (tmp_path / "out" / "report.html").read_text()
    assert "EUR per 100 decisions on the holdout" in html and "Acted on" not in html


def test_worth_it_only_against_every_rival() -> None:
    """Over the baseline it earns 5 a decision; its own base, untouched, earns as much."""
    rule = Value.model_validate({"unit": "EUR", "per": 1, "act_when": "above", "acted": "1", "decisions_per_year": 100})
    names = Chosen(adapted="icl:full", base="icl:as_is", baseline="linear", best_base="icl:as_is")
    facts = {
        name: CandidateFacts.model_construct(name=name, title=name, score_cpu_seconds_per_million=None)
        for name in names.names
    }
    worths = {name: Worth(name, 0.5, Interval(5.0, 4.0, 6.0), 1.0, np.ones(1)) for name in names.names}
    over = {"linear": Interval(5.0, 4.0, 6.0), "icl:as_is": Interval(0.1, -1.0, 1.2)}
    told = summary(rule, names, worths, over, facts, 0.0)
    assert (told.worth_it, told.gain.against) == (False, "icl:as_is") and "not shown to be worth it" in told.sentence
    assert summary(rule, names, worths, over | {"icl:as_is": Interval(1.0, 0.5, 1.5)}, facts, 0.0).worth_it


def test_over_folds_each_fold_decides_at_its_own_threshold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, trees=30))
    frame = signal_table(240)
    frame.write_parquet(tmp_path / "d.parquet")
    money = "[value]\nunit = 'EUR'\nper = 10\nact_when = 'above'\nacted = \"CASE WHEN y = 'yes' THEN 3 ELSE -1 END\"\n"
    quick = "[split]\nfolds = 3\n[candidates]\nwithout = ['catboost', 'blend']\n[candidates.adapt]\n"
    recipe = load_recipe(str(write_recipe(tmp_path, frame, BINARY + quick + money)))
    done = tabkit.run(str(recipe.path), tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    held = pl.read_parquet(tmp_path / "out" / "holdout_predictions.parquet")
    (told,) = [w for w in done.result.value.candidates if w.name == "linear"]

    yes, linear = (held["target"] == "yes").to_numpy(), two(held["linear"].to_list())
    paid = np.where(yes, 3, -1)
    by_fold = []
    for split in split_rows(frame, recipe.recipe, 0):
        at_one = [(paid[split.holdout] * (linear[split.holdout, 1] > t)).sum() for t in np.linspace(0, 1, 1001)]
        by_fold.append(set(at_one))
    total = round(told.value / 10 * len(held))
    assert any(sum(each) == total for each in itertools.product(*by_fold))
    all_rows = Payoffs(frame, recipe.recipe.value)  # type: ignore[arg-type]
    assert told.threshold == best_threshold(all_rows, linear)  # what is bundled knows every row
    best = all_rows.of(linear, told.threshold)[0].mean() * 10
    assert told.value < best  # chosen on valid, not on the rows that it is measured by
    rng = np.random.default_rng(0)
    plain = [rng.choice(paid * (linear[:, 1] > told.threshold), 240).mean() * 10 for _ in range(500)]
    assert (told.high - told.low) > 1.3 * (np.quantile(plain, 0.975) - np.quantile(plain, 0.025))
    manifest = json.loads((tmp_path / "out" / "bundle" / "manifest.json").read_text())
    champion = next(w for w in done.result.value.candidates if w.name == done.result.champion)
    assert manifest["threshold"] == champion.threshold
    assert "Threshold, from all rows" in (tmp_path / "out" / "report.html").read_text()
