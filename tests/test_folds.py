"""Outer cross-validation: every row once in the holdout, the whole procedure in each fold, honest intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, noise_table, signal_table, write_recipe
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

import tabkit
from tabkit import learner
from tabkit.data.split import split_rows
from tabkit.errors import DataError, UsageError
from tabkit.evaluate.folds import pool
from tabkit.evaluate.intervals import Resampler, corrected_t, interval, widening_over_folds
from tabkit.evaluate.metrics import METRICS, ranked_within
from tabkit.evaluate.roles import blended_alone, named
from tabkit.evaluate.tables import drawn_together
from tabkit.models.blend import LEAST_ROWS
from tabkit.recipe import Recipe, load_recipe
from tabkit.result import Chosen

FAST = "[candidates]\nwithout = ['catboost']\n[candidates.adapt]\ntabnet = ['full']\n"


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, epochs=3, trees=30))


def recipe(task: str = "binary", group: str | None = None, time: str | None = None, **split: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "a/b", "title": "T", "schema": "s", "task": task, "target": "y", "group": group, "time": time,
            "metrics": {"primary": "roc_auc"}, "split": split,
        }
    )  # fmt: skip


@given(n=st.integers(40, 120), k=st.integers(2, 6), repeats=st.integers(1, 3), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_row_is_held_out_once_a_repeat(n: int, k: int, repeats: int, seed: int) -> None:
    frame = pl.DataFrame({"y": (["a"] * (n // 4) + ["b"] * (n - n // 4))})
    splits = split_rows(frame, recipe(folds=k, repeats=repeats), seed)
    assert [s.fold for s in splits] == list(range(k * repeats))
    for again in range(repeats):
        of_repeat = splits[again * k : (again + 1) * k]
        np.testing.assert_array_equal(np.sort(np.concatenate([s.holdout for s in of_repeat])), np.arange(n))
        sizes = [len(s.holdout) for s in of_repeat]
        assert max(sizes) - min(sizes) <= 1
    for s in splits:
        np.testing.assert_array_equal(np.sort(np.concatenate([s.train, s.valid, s.holdout])), np.arange(n))
        assert set(frame["y"][s.holdout].unique()) == {"a", "b"} and set(frame["y"][s.valid].unique()) == {"a", "b"}
    if repeats > 1:
        assert not np.array_equal(splits[0].holdout, splits[k].holdout)


def test_groups_stay_together_and_folds_are_even() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 400)
    frame = pl.DataFrame({"y": rng.normal(size=400), "g": groups})
    splits = split_rows(frame, recipe("regression", group="g", folds=5), 0)
    for s in splits:
        parts = [set(groups[rows]) for rows in (s.train, s.valid, s.holdout)]
        assert not parts[0] & parts[2] and not parts[1] & parts[2] and not parts[0] & parts[1]
        assert 60 <= len(s.holdout) <= 100


def test_temporal_folds_never_learn_from_the_future() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"y": rng.normal(size=300), "t": rng.integers(0, 50, 300)})
    splits = split_rows(frame, recipe("regression", time="t", folds=4), 0)
    times = frame["t"].to_numpy()
    assert len(splits) == 4
    for s in splits:
        assert times[s.train].max() < times[s.valid].min() and times[s.valid].max() < times[s.holdout].min()
    with pytest.raises(DataError, match="3 moments, too few for 4 folds"):
        split_rows(frame.with_columns(t=pl.col("t") % 3), recipe("regression", time="t", folds=4), 0)


def test_given_folds_are_taken_as_they_are() -> None:
    frame = pl.DataFrame({"y": np.arange(60.0), "f": [1, 2, 3] * 20})
    splits = split_rows(frame, recipe("regression", kind="given", column="f", folds="given"), 0)
    assert [set(frame["f"][s.holdout]) for s in splits] == [{1}, {2}, {3}]
    with pytest.raises(DataError, match="one fold only"):
        split_rows(frame.with_columns(f=1), recipe("regression", kind="given", column="f", folds="given"), 0)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("folds = 1", "expected 2 to 50"),
        ('folds = "given"', "kind = 'given'"),
        ("repeats = 3", "needs a number of folds"),
    ],
)
def test_folds_that_make_no_sense_are_refused(split: str, words: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, noise_table(50, 0), f"{BINARY}[split]\n{split}\n")
    with pytest.raises(UsageError, match=words):
        load_recipe(str(path))


def test_the_corrected_interval_is_nadeaus_and_bengios() -> None:
    values = [0.71, 0.74, 0.69, 0.78, 0.73]
    got = corrected_t(values, 0.25)
    standard_error = np.sqrt((1 / 5 + 0.25) * np.var(values, ddof=1))
    assert (got.low, got.high) == pytest.approx(stats.t.interval(0.95, 4, np.mean(values), standard_error))
    plain = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert got.high - got.low == pytest.approx(1.5 * (plain[1] - plain[0]))  # sqrt(.45 / .2)
    assert np.isnan(corrected_t([0.5, float("nan")], 0.25).low)


def test_a_run_over_folds_scores_every_row_once_by_models_that_never_saw_it(tmp_path: Path) -> None:
    frame = signal_table(300)
    path = write_recipe(tmp_path, frame, BINARY + "[split]\nfolds = 3\n" + FAST)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    table = pl.read_parquet(done.folder / "holdout_predictions.parquet")
    assert table["row"].to_list() == list(range(300)) and done.result.rows.holdout == 300
    linear = done.result.candidate("linear")
    ranks = table.select(((pl.col("linear").rank() - 0.5) / pl.len()).over("fold"))["linear"]
    told = roc_auc_score(table["target"] == "yes", ranks)
    assert linear.scores["holdout"]["roc_auc"].value == pytest.approx(told) and told > 0.75
    assert table["target"].to_list() == frame["y"].to_list()  # rows of the folds are put back in order
    widening = done.result.intervals.widening
    assert widening == pytest.approx(1.5811 * stats.t.ppf(0.975, 299) / 1.96 * (300 / 299) ** 0.5, rel=1e-3)
    y, p = (table["target"] == "yes").to_numpy().astype(int), ranks.to_numpy()
    single = Resampler(300, None, 1000, 0)
    plain = single.score(METRICS["roc_auc"], y, np.c_[1 - p, p]).draws
    low = told - widening / single.stretch * (told - np.quantile(plain, 0.025))
    assert linear.scores["holdout"]["roc_auc"].low == pytest.approx(low, abs=1e-6)
    assert "3 folds" in done.result.split.text and "3 folds" in done.result.verdict.reason
    scored = tabkit.score(done.folder / "bundle", tmp_path / "d.parquet", tmp_path / "s.parquet")
    assert scored.rows_scored == 300


def test_a_row_is_not_scored_by_a_model_trained_on_it(tmp_path: Path) -> None:
    """A column that names the row memorises its label; held-out rows must not profit."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"x": np.arange(240.0), "y": rng.choice(["no", "yes"], 240).tolist()})
    path = write_recipe(tmp_path, frame, BINARY + "[split]\nfolds = 3\n" + FAST)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    lgbm = done.result.candidate("lgbm")
    assert lgbm.scores["holdout"]["roc_auc"].value < 0.65
    assert done.decision != "adapt"


@pytest.mark.slow
def test_intervals_over_folds_cover_what_they_say() -> None:
    """On noise, a linear model's folds agree by chance: the plain bootstrap does not know it, the widened one does."""
    metric, n, k = METRICS["roc_auc"], 60, 5
    plain, widened = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(n, 6)), (np.arange(n) < n // 2).astype(int)
        folds = np.empty(n, dtype=int)
        for c in (0, 1):
            folds[y == c] = rng.permutation(n // 2) % k
        p = np.zeros(n)
        for f in range(k):
            a, b = folds != f, folds == f
            slopes = np.linalg.lstsq(np.c_[np.ones(a.sum()), x[a]], y[a], rcond=None)[0]
            p[b] = np.c_[np.ones(b.sum()), x[b]] @ slopes
        predicted = np.c_[1 - p, p]
        resampler = Resampler(n, None, 400, seed)
        for kept, widening in ((plain, 1.0), (widened, widening_over_folds(k, 1 / (k - 1)))):
            found = interval(replace(resampler, widening=widening).score(metric, y, predicted), metric.within)
            kept.append(found.low <= 0.5 <= found.high)
    # Of 30 rows a class, the t of a rare class widens them once more: rather too careful than too bold.
    assert np.mean(plain) < 0.9 and 0.93 <= np.mean(widened) <= 0.98, (np.mean(plain), np.mean(widened))


def test_a_widened_interval_ends_where_the_metric_does() -> None:
    y = np.array([0, 1] * 20)
    predicted = np.c_[1 - y, y] * 0.8 + 0.1
    predicted[0] = predicted[0, ::-1]
    metric = METRICS["roc_auc"]
    wide = Resampler(40, None, 200, 0, widening=1.5).score(metric, y, predicted)
    value, plain = (s := Resampler(40, None, 200, 0).score(metric, y, predicted)).value, s.draws
    assert value == wide.value == metric.value(y, predicted)
    np.testing.assert_allclose(wide.draws - value, 1.5 * (plain - value), rtol=1e-9)
    assert wide.draws.max() > 1 and interval(wide._replace(within=None), metric.within).high == 1 > interval(wide).high
    groups = np.arange(40) % 8
    assert Resampler(40, groups, 200, 0, 1.5).stretch == pytest.approx(1.5 * 2.3646 / 1.96 * (8 / 7) ** 0.5, rel=1e-3)
    assert Resampler(40, groups * 0, 200, 0, 1.5).stretch == 1.5


@pytest.mark.parametrize(("n_groups", "least"), [(4, 0.93), (10, 0.93), (40, 0.93)])
def test_few_groups_are_drawn_whole_and_made_up_for(n_groups: int, least: float) -> None:
    """A shock common to a group: the mean's interval holds the truth, however few groups there are."""
    rng, kept, singly = np.random.default_rng(n_groups), [], []
    groups = np.repeat(np.arange(n_groups), 20)
    for seed in range(400):
        values = rng.normal(size=n_groups)[groups] + rng.normal(size=len(groups))
        for held, codes in ((kept, groups), (singly, None)):
            found = interval(Resampler(len(values), codes, 400, seed).mean(values))
            held.append(found.low <= 0 <= found.high)
    assert np.mean(kept) >= least and np.mean(singly) < 0.7, (np.mean(kept), np.mean(singly))


def test_what_models_of_other_folds_ranked_is_not_compared() -> None:
    """The mean of the other folds' labels ranks rows backwards, and knows nothing: within a fold it says one thing."""
    rng = np.random.default_rng(0)
    fold = np.repeat(np.arange(10), 30)
    y = (rng.random(300) < np.linspace(0.1, 0.7, 10)[fold]).astype(int)
    p = np.array([y[fold != f].mean() for f in range(10)])[fold]
    both = np.c_[1 - p, p]
    for name, chance in (("roc_auc", 0.5), ("gini", 0.0), ("ks", 0.0)):
        assert METRICS[name].value(y, ranked_within(both, fold)) == pytest.approx(chance)
    assert METRICS["roc_auc"].value(y, both) < 0.4, "this guards nothing"
    assert METRICS["roc_auc"].value(y, ranked_within(both, fold * 0)) == METRICS["roc_auc"].value(y, both)
    assert [n for n, m in METRICS.items() if m.by_order and m.within[1] != 1.0] == []


def test_days_of_a_split_in_time_are_drawn_whole() -> None:
    start = datetime(2024, 1, 1)
    frame = signal_table(400).with_columns(at=pl.Series([start + timedelta(hours=3 * i) for i in range(400)]))
    (split,) = split_rows(frame, recipe(time="at"), 0)
    days = drawn_together(split, split.holdout)
    assert days is not None and len(np.unique(days)) == len(np.unique(frame["at"].dt.date().to_numpy()[split.holdout]))
    assert drawn_together(split, split.holdout[:60]) is None, "fewer than ten days are not drawn"


def findings(adapted: str | None, baseline: str, measured: dict[str, bool]) -> Any:
    """Findings as far as picks look at them: what was chosen, and whether each candidate was accepted."""
    candidates = [SimpleNamespace(name=n, scores={"holdout": {}} if ok else {}) for n, ok in measured.items()]
    return SimpleNamespace(chosen=Chosen(adapted=adapted, base=None, baseline=baseline), candidates=candidates)


def test_a_blend_that_found_no_weight_for_a_kind_is_the_blend_without_it() -> None:
    three = findings(
        "blend_all", "linear", dict.fromkeys(("linear", "blend_baselines", "blend_bases", "blend_all"), True)
    )
    two = findings("icl_full", "linear", {"linear": True, "blend_baselines": True, "blend_bases": True, "lgbm": False})
    one = findings("icl_full", "linear", {"linear": True, "blend_baselines": True})
    assert [named("blend_all")(c) for c in (three, two, one)] == ["blend_all", "blend_bases", "blend_baselines"]
    assert [named("blend_bases")(c) for c in (three, two, one)] == ["blend_bases", "blend_bases", "blend_baselines"]
    assert named("lgbm")(two) is None and named("linear")(two) == "linear"
    assert [blended_alone(c) for c in (three, two)] == ["blend_baselines", "linear"]


def test_blends_over_folds_have_bases_and_are_bundled_with_their_mean_weights(tmp_path: Path) -> None:
    frame = signal_table(400)
    recipe_text = BINARY + "[split]\nfolds = 3\n" + FAST.replace("tabnet = ['full']", "icl = ['head']")
    path = write_recipe(tmp_path, frame, recipe_text)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    found = {c.name: c for c in done.result.candidates}
    assert {"blend_baselines", "blend_bases"} <= found.keys() and found["blend_bases"].kind == "base"
    assert done.result.champion.startswith("blend"), "this guards nothing"
    table = pl.read_parquet(tmp_path / "out" / "holdout_predictions.parquet")
    others = table.select(n for n in found if not n.startswith("blend")).to_numpy()
    for name in (n for n in found if n.startswith("blend")):  # each row by a mean of what its own fold made
        p = table[name].to_numpy()
        assert (p >= others.min(axis=1) - 1e-9).all() and (p <= others.max(axis=1) + 1e-9).all()
        told = roc_auc_score(
            table["target"] == "yes", table.select(((pl.col(name).rank() - 0.5) / pl.len()).over("fold"))[name]
        )
        assert found[name].scores["holdout"]["roc_auc"].value == pytest.approx(told)
    model = tmp_path / "out" / "bundle" / "model"
    weights = json.loads((model / "config.json").read_text())["weights"]
    assert sum(weights.values()) == pytest.approx(1) and set(weights) == set(done.result.bundle.members)
    assert {p.name for p in model.iterdir() if p.is_dir()} == set(weights)
    assert tabkit.score(done.folder / "bundle", tmp_path / "d.parquet", tmp_path / "s.parquet").rows_scored == 400


def test_folds_with_few_valid_rows_blend_nothing_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of temporal folds has few rows: blends in the others alone could not be compared."""
    frame = signal_table(150).with_columns(t=pl.Series(range(150)))
    path = write_recipe(tmp_path, frame, 'time = "t"\n' + BINARY + "[split]\nfolds = 3\n" + FAST)
    frame.write_parquet(tmp_path / "d.parquet")
    splits = split_rows(frame, load_recipe(str(path)).recipe, 0)
    assert min(len(s.valid) for s in splits) < LEAST_ROWS <= max(len(s.valid) for s in splits), "this guards nothing"
    blended: list[object] = []
    monkeypatch.setattr("tabkit.adapt.tables.blend_all", lambda *a: blended.append(a) or ())
    tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick", jobs=1)
    assert blended == []


def test_what_was_refused_in_a_fold_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = signal_table(150)
    both = FAST.replace("['catboost']", "['catboost', 'blend']").replace("tabnet = ['full']", "icl = ['head']")
    path = write_recipe(tmp_path, frame, BINARY + "[split]\nfolds = 3\n" + both)
    frame.write_parquet(tmp_path / "d.parquet")
    asked: list[Any] = []
    monkeypatch.setattr("tabkit.workflow.tables.pool", lambda *a: (asked.extend(a), pool(*a))[1])
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick", jobs=1)
    assert done.result.chosen.base == "icl_as_is" and done.result.planned is not None

    plan, table, everything, folds, *rest = asked
    first = folds[0].findings
    for gone, lost in (("icl_as_is", {"base": None}), ("icl_head", {"adapted": None, "base": None})):
        refused = first.candidate(gone).model_copy(update={"refused": "no", "scores": {}})
        candidates = tuple(refused if c.name == gone else c for c in first.candidates)
        changed = {"candidates": candidates, "chosen": first.chosen.model_copy(update=lost)}
        fold = replace(folds[0], found=replace(folds[0].found, findings=first.model_copy(update=changed)))
        pooled = pool(plan, table, everything, (fold, *folds[1:]), *rest)[0].findings
        assert pooled.planned is None and pooled.chosen.adapted is None
        assert pooled.verdict.decision == "use_baseline" and "was refused in some" in pooled.verdict.reason
        assert [c.refused for c in pooled.candidates if c.name == gone] == ["no"]
