"""Tables with few cases or many columns: no verdict without evidence, no alarm by luck, no name that hangs on the rows."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, make_features, write_recipe
from scipy import stats

import tabkit
from tabkit.data.derive import matches
from tabkit.data.encode import as_text
from tabkit.data.single import single_features, suspects
from tabkit.evaluate.intervals import FEWEST_CASES, Resampled, Resampler, interval, paired
from tabkit.evaluate.metrics import METRICS
from tabkit.report import page

FAST = "[candidates]\nwithout = ['catboost', 'blend']\n[candidates.adapt]\nicl = ['head']\n"


def rare(n_rows: int, positives: int) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    y = np.where(rng.permutation(n_rows) < positives, "yes", "no")
    return pl.DataFrame({"x": rng.normal(size=n_rows), "z": rng.normal(size=n_rows), "y": y.tolist()})


@pytest.mark.parametrize("positives", [1, 3])
def test_a_class_of_one_row_decides_nothing(positives: int, tmp_path: Path) -> None:
    frame = rare(200, positives)
    path = write_recipe(tmp_path, frame, BINARY + FAST)
    done = tabkit.run(str(path), frame, out=tmp_path / "out", budget="quick")
    assert done.decision == "not_enough_evidence" and "too few cases to tell" in done.result.verdict.sentence
    shown = re.sub(r"<[^>]*>", " ", done.report.read_text(encoding="utf-8")) + done.result.verdict.sentence
    words = [*(c.message for c in done.result.checks), done.result.verdict.reason, shown]
    assert not any(re.search(r"\b(nan|inf)\b", text, re.IGNORECASE) for text in words)
    json.loads((done.folder / "result.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_an_interval_ends_nowhere_if_too_many_resamples_are_undefined() -> None:
    draws = np.linspace(0.4, 0.6, 100)
    assert math.isfinite(interval(Resampled(0.5, np.r_[draws[:96], np.full(4, np.nan)])).low)
    assert math.isnan(interval(Resampled(0.5, np.r_[draws[:90], np.full(10, np.nan)])).low)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_best_of_many_noise_columns_is_no_leak(task: str) -> None:
    alarms = 0
    for seed in range(3):
        rows = make_features(task, 39, n_num=400, seed=seed, signal=0.0, with_cat=False)
        rows = rows.with_y(np.random.default_rng(seed + 100).permutation(rows.labels))
        alone = single_features(rows.take(np.arange(30)), rows.take(np.arange(30, 39)))
        assert task != "binary" or max(c.score for c in alone.values()) > 0.95, (
            "luck alone reaches what looks like a leak"
        )
        alarms += len(suspects(alone))
    assert alarms == 0


def test_a_leak_is_one_among_many_columns_too() -> None:
    rows = make_features("binary", 120, n_num=400, signal=0.0, with_cat=False)
    rows.x_num[:, 7] = rows.labels
    alone = single_features(rows.take(np.arange(60)), rows.take(np.arange(60, 120)))
    assert list(suspects(alone)) == ["x7"]


@pytest.mark.parametrize(("condition", "n_rows"), [("1 = 1", 3), ("1 = 2", 0), ("x > 1", 2), ("x >= MAX(x)", 1)])
def test_a_condition_has_an_answer_for_every_row(condition: str, n_rows: int) -> None:
    frame = pl.DataFrame({"x": [1, 2, 3]})
    inside = matches(frame, condition, "recipe: where")
    assert len(inside) == 3 and inside.sum() == n_rows
    assert len(matches(frame[:0], condition, "recipe: where")) == 0


def test_a_condition_on_no_column_runs(tmp_path: Path) -> None:
    frame = rare(300, 120)
    slices = "[[slices]]\nname = 'all'\nwhere = '1 = 1'\n"
    path = write_recipe(
        tmp_path,
        frame,
        f"where = '1 = 1'\n{BINARY}{slices}[candidates]\nwithout = ['catboost', 'blend']\n[candidates.adapt]\n",
    )
    done = tabkit.run(str(path), frame, out=tmp_path / "out", budget="quick")
    assert next(s for s in done.result.slices if s.name == "all").rows == done.result.rows.holdout


def test_half_grades_keep_their_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.choice([1.0, 1.5, 2.0], 300)
    frame = pl.DataFrame({"x": y + 0.3 * rng.normal(size=300), "y": y})
    assert as_text(pl.Series([1.0, 2.0])).to_list() == as_text(pl.Series([1.0, 1.5, 2.0])).to_list()[::2]
    recipe = (
        'task = "multiclass"\ntarget = "y"\n[metrics]\nprimary = "log_loss"\n[candidates]\nwithout = ["catboost"]\n'
    )
    path = write_recipe(tmp_path, frame, recipe + "[candidates.adapt]\n")
    done = tabkit.run(str(path), frame, out=tmp_path / "out", budget="quick")
    assert done.result.classes == ("1", "1.5", "2") and done.report.is_file()
    whole = frame.filter(pl.col("y") != 1.5)
    whole.write_parquet(tmp_path / "whole.parquet")
    scored = tabkit.score(done.folder / "bundle", tmp_path / "whole.parquet", tmp_path / "s.csv")
    assert scored.rows_scored == whole.height
    classes = pl.read_csv(tmp_path / "s.csv", schema_overrides={"prediction": pl.String})["prediction"]
    assert float((classes == as_text(whole["y"])).mean() or 0) > 0.7


def test_a_report_that_fails_leaves_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = rare(200, 80)
    path = write_recipe(tmp_path, frame, BINARY + "[candidates]\nwithout = ['catboost', 'blend']\n[candidates.adapt]\n")

    def broken(*_: object) -> str:
        raise ValueError("math domain error")

    with monkeypatch.context() as patched:
        patched.setattr(page, "render", broken)
        with pytest.raises(ValueError, match="math domain") as raised:
            tabkit.run(str(path), frame, out=tmp_path / "out", budget="quick")
    assert "tabkit report" in raised.value.__notes__[0]
    assert (tmp_path / "out" / "bundle" / "manifest.json").is_file()
    assert page.write_report(tmp_path / "out").is_file()


def scored_rows(n_positive: int, apart: float = 1.6, n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n_positive)
    y = (np.arange(n) < n_positive).astype(np.int64)
    p = 1 / (1 + np.exp(-(rng.normal(size=n) + apart * y)))
    return y, np.column_stack([1 - p, p])


@pytest.mark.parametrize("n_positive", [12, 50])
def test_the_interval_of_roc_auc_is_that_of_delong_on_the_logit(n_positive: int) -> None:
    y, p = scored_rows(n_positive)
    scored = Resampler(len(y), None, 2000, 0).score(METRICS["roc_auc"], y, p)
    ours = interval(scored)
    ranks, within = stats.rankdata(p[:, 1]), [stats.rankdata(p[y == k, 1]) for k in (1, 0)]
    placed = [(ranks[y == 1] - within[0]) / (y == 0).sum(), 1 - (ranks[y == 0] - within[1]) / n_positive]
    error = math.sqrt(sum(v.var(ddof=1) / len(v) for v in placed)) / (ours.value * (1 - ours.value))
    half = stats.t.ppf(0.975, n_positive - 1) * error
    middle = math.log(ours.value / (1 - ours.value))
    for end, at in ((ours.low, middle - half), (ours.high, middle + half)):
        assert end == pytest.approx(1 / (1 + math.exp(-at)), abs=0.02)


def test_what_hangs_on_few_rows_of_a_class_is_as_wide_as_they_are_few() -> None:
    y, p = scored_rows(6)
    resampler = Resampler(len(y), None, 500, 0)
    scored = resampler.scored({n: METRICS[n] for n in ("roc_auc", "log_loss")}, y, p)
    assert scored["log_loss"].stretch == pytest.approx(math.sqrt(6 / 5) * stats.t.ppf(0.975, 5) / stats.norm.ppf(0.975))
    grouped = Resampler(len(y), np.arange(len(y)) // 3, 500, 0)
    assert grouped.score(METRICS["roc_auc"], y, p).cases == (2, 198), "two groups have a positive"
    numbers = resampler.score(METRICS["rmse"], p[:, 1], p[:, 0])
    assert numbers.cases is None and numbers.stretch == resampler.stretch


def test_the_interval_of_the_largest_distance_holds_the_truth_more_often_than_percentiles() -> None:
    truth, held = 2 * stats.norm.cdf(0.4) - 1, np.zeros((40, 2))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        y = (np.arange(250) < 25).astype(np.int64)
        p = 1 / (1 + np.exp(-(rng.normal(size=250) + 0.8 * y)))
        scored = Resampler(250, None, 300, seed).score(METRICS["ks"], y, np.column_stack([1 - p, p]))
        for i, found in enumerate((interval(scored), interval(scored._replace(within=None)))):
            held[seed, i] = found.low <= truth <= found.high
            assert found.low <= found.value <= found.high or i == 1
    ours, percentiles = held.mean(axis=0)
    assert ours >= 0.85 > percentiles


@pytest.mark.parametrize(("n_positive", "settled"), [(FEWEST_CASES - 1, False), (FEWEST_CASES, True)])
def test_under_a_floor_of_positives_no_gain_is_shown_in_either_direction(n_positive: int, settled: bool) -> None:
    y, good = scored_rows(n_positive, apart=9.0)
    bad = good[np.random.default_rng(0).permutation(len(y))]
    resampler = Resampler(len(y), None, 500, 0)
    ours, theirs = (resampler.score(METRICS["roc_auc"], y, p) for p in (good, bad))
    for a, b in ((ours, theirs), (theirs, ours)):
        gain = paired(METRICS["roc_auc"], a, b)[0]
        assert math.isfinite(gain.value) and (math.isfinite(gain.low) and math.isfinite(gain.high)) == settled
