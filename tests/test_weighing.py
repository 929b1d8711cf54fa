"""Rows that stand for several: a weight counts in fitting, in every figure and in every choice, or it is said that it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from conftest import make_features, write_recipe
from scipy.stats import CensoredData, ecdf
from test_models import CASES, adapt, first_task, prepared

import tabkit
from tabkit import learner
from tabkit.data.encode import Features
from tabkit.data.split import split_for_bundle, split_rows
from tabkit.data.weighing import effective_rows
from tabkit.errors import DataError, UsageError
from tabkit.estimators import TabkitClassifier, TabkitRegressor
from tabkit.evaluate.conformal import conformal_half_width
from tabkit.evaluate.explain import calibration
from tabkit.evaluate.intervals import Resampler
from tabkit.evaluate.metrics import METRICS, ranked_within
from tabkit.evaluate.value import Payoffs, best_threshold
from tabkit.models import icl
from tabkit.models.base import Model, loss, model_class, model_names, prior_of
from tabkit.models.blend import greedy_weights
from tabkit.recipe import Value, load_recipe
from tabkit.report import diagnose
from tabkit.workflow.reading import read_rows

QUICK = 'candidates = { adapt = {}, without = ["catboost", "blend"] }\n'


def repeated(rows: Features, times: np.ndarray) -> Features:
    return rows.take(np.repeat(np.arange(len(rows)), times)).weighing(None)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is searched here."""
    smaller(monkeypatch)


def smaller(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(
        learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, epochs=4, trees=40, resamples=200)
    )
    patch.setitem(icl.EFFORTS, "quick", icl.Effort(members=2, context_rows=150, epochs=2, episodes=2, episode_rows=64))


# Models


def mixture(rows: Features, weighted: bool) -> Features:
    """Rows with their labels, and again with the opposite ones; these weigh a hundred times as much, if weighted."""
    y = rows.labels
    opposite = -y if rows.layout.task == "regression" else y[:, ::-1] if y.ndim == 2 else 1 - y
    both = rows.stack(rows.with_y(opposite))
    return both.weighing(np.repeat([0.02, 1.98], len(rows))) if weighted else both


SLOW = {("tabnet", "scratch"), ("tabnet", "head")}
"""TabNet learns by one loss, whatever is frozen: two of its strategies stand for all."""
FITTED = [
    pytest.param(name, how, marks=[pytest.mark.slow] if (name, how) in SLOW else [])
    for name, how, task in CASES
    if how != "as_is"
    and name != "prior"
    and not model_class(name).unweighted
    and (name != "tabnet" or (name, how) in SLOW)
    if task == ("regression" if name == "svm" else "binary")
]


@pytest.mark.parametrize(("name", "how"), FITTED)
def test_what_weighs_more_is_what_is_learned(name: str, how: str) -> None:
    model, train, valid = prepared(name, how, first_task(name))
    score = []
    for weighted in (False, True):
        fitted = adapt(model, mixture(train, weighted), mixture(valid, weighted), how).model
        predicted = fitted.predict(valid)
        known = valid.labels[:, 1] if valid.labels.ndim == 2 else valid.labels
        found = predicted if predicted.ndim == 1 else predicted[:, 1]
        # Of opposite labels that weigh the same, nothing may be learned: all rows then get one answer.
        score.append(0.0 if np.ptp(found) < 1e-6 else -float(np.corrcoef(found, known)[0, 1]))
    assert score[1] > score[0] + 0.1, score


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize(
    ("name", "most"), [("prior", 2), ("linear", 2), ("lgbm", 1)]
)  # LightGBM guesses rows of a leaf
def test_a_row_of_weight_2_is_two_rows_and_one_of_weight_0_is_none(name: str, most: int, task: str) -> None:
    train, fresh = (make_features(task, n, seed=n, with_cat=name != "lgbm") for n in (200, 50))
    times = np.random.default_rng(3).integers(0, most + 1, len(train))
    coarse = [replace(rows, x_num=np.round(rows.x_num)) for rows in (train, fresh)]  # bins that do not hang on rows
    settings = {"strength": 3.0, "learning_rate": 0.1, "num_leaves": 8, "min_child_samples": 1, "trees": 15}
    both = (coarse[0].weighing(times.astype(float)), repeated(coarse[0], times))
    both = (both[0].take(np.flatnonzero(times)), both[1])
    weighted, rows = (adapt(model_class(name)(), part, None, "scratch", settings=settings).model for part in both)
    np.testing.assert_allclose(weighted.predict(coarse[1]), rows.predict(coarse[1]), rtol=1e-5, atol=1e-6)


def test_every_model_takes_weights_or_says_that_it_does_not() -> None:
    told = {name: model_class(name).unweighted for name in model_names()}
    assert {name for name, text in told.items() if text} == {"icl", "mitra", "tabicl", "tabpfn"}
    assert Model.unweighted == "fitted without the rows' weights"  # of one that another package adds


@pytest.mark.slow
def test_the_in_context_base_leans_to_weighted_classes_only_if_valid_says_so() -> None:
    """Cases taken more often than others need it; rows that weigh by a column alone must not have it."""
    train, valid = make_features("binary", 150, seed=1), make_features("binary", 250, seed=2)
    base = model_class("icl").open_weights(None, "binary")
    for on_class in (True, False):

        def weighed(rows: Features, on_class: bool = on_class) -> Features:
            heavy = rows.labels == 1 if on_class else rows.x_num[:, 0] > 0.3
            return rows.weighing(np.where(heavy, 1.0, 9.0))

        own = adapt(base, weighed(train), weighed(valid), "as_is")
        plain = adapt(base, train, weighed(valid), "as_is")
        assert own.settings["weighted_classes"] is on_class
        assert "weighted_classes" not in plain.settings
        gain = loss(weighed(valid), plain.model.predict(valid)) - loss(weighed(valid), own.model.predict(valid))
        assert gain > 0.05 if on_class else gain == pytest.approx(0.0)
        again = adapt(base, weighed(train), None, "as_is", settings=own.settings).model
        np.testing.assert_array_equal(again.predict(valid), own.model.predict(valid))


def test_loss_prior_and_stacked_rows_weigh() -> None:
    rows, times = make_features("regression", 40), np.arange(40) % 3 + 1
    weighed, twice = rows.weighing(times.astype(float)), repeated(rows, times)
    assert loss(weighed, rows.x_num[:, 0]) == pytest.approx(loss(twice, twice.x_num[:, 0]))
    assert prior_of(weighed) == pytest.approx(prior_of(twice))
    assert weighed.stack(rows).weights[40:].tolist() == [1.0] * 40 and rows.stack(rows).w is None


# Figures


def cases(n_rows: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    p = rng.random(n_rows).round(2)
    return (rng.random(n_rows) < p).astype(np.int64), np.column_stack([1 - p, p]), rng.integers(1, 4, n_rows)


@pytest.mark.parametrize("name", [n for n, m in METRICS.items() if "binary" in m.tasks])
def test_resamples_and_the_whole_weigh(name: str) -> None:
    y, p, times = cases()
    again = np.repeat(np.arange(len(y)), times)
    resampler = Resampler(len(y), None, 40, 0, row_weights=times.astype(float))
    score = resampler.score(METRICS[name], y, p)
    assert score.value == pytest.approx(METRICS[name].value(y[again], p[again]))
    counts = next(replace(resampler, row_weights=None).weights())[0].astype(int)
    drawn = np.repeat(np.arange(len(y)), counts * times)
    stretched = score.value + score.stretch * (METRICS[name].value(y[drawn], p[drawn]) - score.value)
    assert score.draws[0] == pytest.approx(stretched)
    part = np.arange(30, 90)
    assert resampler.at(part).score(METRICS[name], y[part], p[part]).value == pytest.approx(
        METRICS[name].value(y[part], p[part], times[part].astype(float))
    )


def test_ranks_within_folds_weigh_and_a_constant_is_one_half_in_every_fold() -> None:
    y, p, times = cases()
    again, fold = np.repeat(np.arange(len(y)), times), np.arange(len(y)) % 3
    np.testing.assert_allclose(
        ranked_within(p, fold, times.astype(float))[again], ranked_within(p[again], fold[again]), atol=1e-12
    )
    same = ranked_within(np.full((120, 2), 0.3), fold, np.random.default_rng(0).random(120))
    assert (same == 0.5).all()


def test_calibration_thresholds_and_blends_weigh() -> None:
    y, p, times = cases(400)
    w, again = times.astype(float), np.repeat(np.arange(len(y)), times)
    weighed = calibration(y, p[:, 1], w)
    assert weighed.slope == pytest.approx(calibration(y[again], p[again, 1]).slope, rel=1e-3)
    inside = p[:, 1] <= np.quantile(p[:, 1], 0.1)
    assert weighed.bins[0].observed == pytest.approx(np.average(y[inside], weights=w[inside]))
    even = calibration(y, p[:, 1], np.full(len(y), 2.0))  # equal weights tell as much as none
    assert [b.low for b in even.bins] == pytest.approx([b.low for b in calibration(y, p[:, 1]).bins], abs=1e-4)
    rule = Value(unit="EUR", act_when="above", acted="CASE WHEN y = 1 THEN 3 ELSE -2 END")
    plain = best_threshold(Payoffs(pl.DataFrame({"y": y[again]}), rule), p[again])
    assert best_threshold(Payoffs(pl.DataFrame({"y": y}), rule, w), p) == plain
    errors = np.stack([p[np.arange(len(y)), y], np.random.default_rng(2).random(len(y))])
    np.testing.assert_allclose(
        greedy_weights(errors, "binary", row_weights=w), greedy_weights(errors[:, again], "binary")
    )


def test_weighted_intervals_cover_the_population_where_others_do_not() -> None:
    """The noisy half is a tenth of the sample and half of the population."""
    rng = np.random.default_rng(0)

    def draw(noisy: float, n: int) -> tuple[np.ndarray, np.ndarray]:
        half = rng.random(n) < noisy
        return half, np.where(half, 3.0, 1.0) * rng.normal(size=n)

    half, y = draw(0.1, 4000)
    weights, zero = np.where(half, 5.0, 5 / 9), np.zeros(4000)
    new = np.abs(draw(0.5, 50_000)[1])
    assert (new <= conformal_half_width(y, zero, weights=weights)).mean() == pytest.approx(0.9, abs=0.015)
    assert (new <= conformal_half_width(y, zero)).mean() < 0.82
    assert conformal_half_width(y, zero, weights=np.full(4000, 7.0)) == conformal_half_width(y, zero)


def test_effective_rows() -> None:
    assert effective_rows(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_rows(np.array([1.0, 1.0, 0.0])) == pytest.approx(2)


# A survey: those who answer yes are asked six times as often


def survey(n_rows: int = 2500, seed: int = 0) -> tuple[pl.DataFrame, float]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_rows)
    y = rng.random(n_rows) < 1 / (1 + np.exp(1.5 - x))
    chance = np.where(y, 0.6, 0.1)
    asked = rng.random(n_rows) < chance
    frame = pl.DataFrame(
        {"x": x, "z": rng.normal(size=n_rows), "wt": 1000 / chance, "answer": np.where(y, "yes", "no")}
    )
    return frame.filter(pl.Series(asked)), float(y.mean())


SURVEY = 'task = "binary"\ntarget = "answer"\n{weight}\n[metrics]\nprimary = "log_loss"\nreport = ["roc_auc"]\n'


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run with weights, on ten rows of weight 0 more than there are; the in-context base is among the candidates."""
    folder = tmp_path_factory.mktemp("survey")
    frame, truth = survey()
    nothing = frame.head(10).with_columns(wt=pl.lit(0.0), answer=pl.lit("yes"))
    lines = SURVEY.format(weight='weight = "wt"') + '[candidates]\nadapt = { icl = [] }\nwithout = ["catboost"]\n'
    recipe = write_recipe(folder, frame, lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABKIT_LEDGER", str(folder / "ledger"))
        smaller(patch)
        run = tabkit.run(recipe, pl.concat([nothing, frame]), out=folder / "run", budget="quick", device="cpu")
    return SimpleNamespace(run=run, frame=frame, truth=truth, recipe=recipe, folder=folder)


def test_the_weighted_answer_is_right_and_the_unweighted_is_biased(surveyed: SimpleNamespace) -> None:
    predictions = pl.read_parquet(surveyed.run.folder / "holdout_predictions.parquet")
    w = surveyed.frame["wt"].to_numpy()[predictions["row"].to_numpy() - 10]
    for name in ("prior", "linear", "lgbm", "icl_as_is"):
        assert np.average(predictions[name], weights=w) == pytest.approx(surveyed.truth, abs=0.04), name
    assert (surveyed.frame["answer"] == "yes").mean() > surveyed.truth + 0.25
    fresh, truth = survey(seed=1)
    p = surveyed.run.bundle.predict(fresh.drop("wt", "answer"))["probability_yes"]  # scoring needs no weight
    assert np.average(p, weights=fresh["wt"]) == pytest.approx(truth, abs=0.08)


def test_figures_are_those_of_scikit_learn_by_weight(surveyed: SimpleNamespace) -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    predictions = pl.read_parquet(surveyed.run.folder / "holdout_predictions.parquet")
    w = surveyed.frame["wt"].to_numpy()[predictions["row"].to_numpy() - 10]
    y, p = (predictions["target"] == "yes").to_numpy(), predictions["linear"].to_numpy()
    scores = surveyed.run.result.candidate("linear").scores["holdout"]
    assert scores["log_loss"].value == pytest.approx(log_loss(y, p, sample_weight=w))
    assert scores["roc_auc"].value == pytest.approx(roc_auc_score(y, p, sample_weight=w))
    assert scores["log_loss"].low < scores["log_loss"].value < scores["log_loss"].high
    np.testing.assert_allclose(predictions["weight"], w)  # what curves of the report are drawn with
    assert diagnose.area(y, p, predictions["weight"].to_numpy()) == pytest.approx(scores["roc_auc"].value)
    assert abs(log_loss(y, p) - scores["log_loss"].value) > 0.02
    halves = predictions.with_columns(fold=pl.Series(np.arange(len(y)) % 2))
    ranks = diagnose.in_order(halves, ["linear"])["linear"]
    np.testing.assert_allclose(ranks, ranked_within(p[:, None], np.arange(len(y)) % 2, w)[:, 0])


def test_everyone_is_told(surveyed: SimpleNamespace) -> None:
    result = surveyed.run.result
    assert result.rows.weightless == 10 and result.rows.used == surveyed.frame.height
    assert result.weighted.column == "wt" and result.weighted.effective < 0.8 * result.rows.holdout
    assert {c.name for c in result.candidates if c.unweighted and not c.members} == {"icl_as_is"}
    report = surveyed.run.report.read_text(encoding="utf-8")
    assert "Rows are weighted by ‘wt’" in report or "Rows are weighted by &#39;wt&#39;" in report
    assert "10 of weight 0" in report and "the rows of its context count once each" in report
    assert "Rows are weighted by 'wt'" in (surveyed.run.folder / "bundle" / "CARD.md").read_text(encoding="utf-8")
    shown = {c.column: c.role for c in tabkit.show(str(surveyed.recipe)).columns}
    assert shown["wt"] == "weight" and "wt" not in result.features.columns


# What is refused


def recipe_of(folder: Path, frame: pl.DataFrame, weight: str = 'weight = "wt"') -> Path:
    return write_recipe(folder, frame, QUICK + SURVEY.format(weight=weight))


def test_a_row_without_a_proper_weight_is_rejected_with_its_reason(tmp_path: Path) -> None:
    frame, _ = survey()
    bad = [None, -1.0, float("inf")]
    frame = frame.with_columns(wt=pl.concat([pl.Series(bad), frame["wt"][3:]]))
    recipe = recipe_of(tmp_path, frame)
    report = tabkit.check(recipe, frame)
    assert [(f.column, f.count) for f in report.failures] == [("wt", 3)]
    assert "finite number from 0 on: it is the row's weight" in report.failures[0].message
    rows = read_rows(load_recipe(str(recipe)), frame)
    assert sorted(set(rows.table.rejects["row"])) == [0, 1, 2] and rows.labelled.frame.height == frame.height - 3
    with pytest.raises(DataError, match="weight 'wt' is 0 in every row"):
        read_rows(load_recipe(str(recipe)), frame[3:].with_columns(wt=pl.lit(0.0)))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('weight = "w"', "weight names 'w', which .* does not describe. Did you mean 'wt'"),
        ('weight = "answer"', "weight = 'answer' has another role"),
        ('weight = "plan"', "weight names 'plan', which .* calls a string. Expected number or integer"),
        ('weight = "wt"\n[censoring]\ntime = "x"\nevent = "z > 0"\nhorizon = 1.0', "Remove outcome and weight, or it"),
        ('positive = "no"\n[censoring]\ntime = "x"\nevent = "z > 0"\nhorizon = 1.0', "leave positive out"),
        ('[censoring]\ntime = "x"\nevent = "z > 0"\nhorizon = 0.0', "horizon"),
        ('[censoring]\ntime = "plan"\nevent = "z > 0"\nhorizon = 1.0', "follow-up names 'plan', .* calls a string"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    frame = survey()[0].with_columns(plan=pl.lit("a"))
    with pytest.raises(UsageError, match=message):
        load_recipe(str(recipe_of(tmp_path, frame, lines)))


# Follow-up


def patients(n_rows: int = 1500, seed: int = 0) -> tuple[pl.DataFrame, float]:
    """Follow-up of patients, and the true risk by 3: half of them are lost at some time."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_rows)
    comes, lost = rng.exponential(6.0 * np.exp(-0.7 * x)), rng.exponential(5.0, n_rows)
    frame = pl.DataFrame(
        {"x": x, "site": rng.integers(0, 40, n_rows), "days": np.minimum(comes, lost), "state": (comes <= lost) + 1}
    )
    return frame, float(np.mean(1 - np.exp(-3 / (6.0 * np.exp(-0.7 * rng.normal(size=200_000))))))


FOLLOWED = (
    'task = "binary"\ntarget = "relapsed"\nexclude = ["state", "site"]\n{extra}\n'
    '[censoring]\ntime = "days"\nevent = "state = 2"\nhorizon = 3.0\n'
    '[metrics]\nprimary = "log_loss"\nreport = ["roc_auc"]\n{split}'
)


def followed(folder: Path, frame: pl.DataFrame, extra: str = "", split: str = "") -> Path:
    described = frame.with_columns(relapsed=pl.lit("yes"))
    return write_recipe(folder, described, QUICK + FOLLOWED.format(extra=extra, split=split))


@pytest.mark.parametrize(
    ("extra", "split"),
    [("", ""), ("", "[split]\nfolds = 4\nrepeats = 2\n"), ('group = "site"', "[split]\nfolds = 3\n"), ("", "[split]\ninner = 4\n")],
)  # fmt: skip
def test_censoring_is_estimated_on_the_train_rows_of_each_split(tmp_path: Path, extra: str, split: str) -> None:
    frame, _ = patients()
    plan = load_recipe(str(followed(tmp_path, frame, extra, split)))
    rows = read_rows(plan, frame)
    assert rows.weighing is not None and rows.weighing.rows.height == frame.height
    splits, seen = split_rows(rows.labelled.frame, plan.recipe, 0, rows.weighing), []
    for each in splits:
        assert each.weights is not None and (each.weights > 0).all()
        assert max(each.train.max(), each.holdout.max()) < rows.labelled.frame.height == len(each.weights)
        y = (rows.labelled.frame["relapsed"] == "yes").to_numpy()[each.train]
        weighted = np.average(y, weights=each.weights[each.train])
        assert weighted == pytest.approx(kaplan_meier(frame), abs=0.04) and y.mean() > weighted + 0.07
        seen.append(tuple(each.weights))
    assert len(set(seen)) == len(splits), "every fold has weights of its own"
    own = split_for_bundle(rows.labelled.frame, plan.recipe, 0, rows.weighing)
    assert own.weights is not None and np.union1d(own.train, own.valid).tolist() == list(range(len(own.weights)))


def kaplan_meier(frame: pl.DataFrame) -> float:
    data = CensoredData.right_censored(frame["days"].to_numpy(), (frame["state"] == 1).to_numpy())
    return float(1 - ecdf(data).sf.evaluate(3.0))


def test_probabilities_are_those_of_all_patients(tmp_path: Path) -> None:
    frame, risk = patients(2500)
    recipe = followed(tmp_path, frame)
    run = tabkit.run(recipe, frame, out=tmp_path / "run", budget="quick", device="cpu")
    predictions = pl.read_parquet(run.folder / "holdout_predictions.parquet")
    fresh, _ = patients(4000, seed=1)
    mean = run.bundle.predict(fresh[["x"]])["probability_yes"].mean()
    assert mean == pytest.approx(risk, abs=0.03)
    known = frame.filter((pl.col("state") == 2) | (pl.col("days") >= 3))
    biased = ((known["days"] <= 3) & (known["state"] == 2)).mean()
    assert biased > risk + 0.08 and (predictions["target"] == "yes").mean() == pytest.approx(biased, abs=0.02)
    assert "the others stand for them" in run.result.weighted.text and run.result.weighted.column is None
    assert run.result.rows.unlabelled == frame.height - known.height


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.with_columns(state=pl.lit("a")), r"\[censoring\] key 'event' cannot be evaluated"),
        (lambda f: f.with_columns(days=-pl.col("days")), "finite number from 0 on: it is the row's follow-up"),
        (lambda f: f.with_columns(days=pl.col("days") / 100), "shorter horizon|one class only"),
    ],
)
def test_follow_up_that_cannot_answer_is_refused(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    frame = change(patients(300)[0])
    plan = load_recipe(str(followed(tmp_path, frame)))
    with pytest.raises((DataError, UsageError), match=message):
        split_rows((rows := read_rows(plan, frame)).labelled.frame, plan.recipe, 0, rows.weighing)


def test_the_event_is_no_feature(tmp_path: Path) -> None:
    frame, _ = patients(300)
    path = followed(tmp_path, frame)
    path.write_text(path.read_text().replace('["state", "site"]', '["site"]'))
    with pytest.raises(UsageError, match="uses 'state', which is a feature, and is only known when follow-up ends"):
        read_rows(load_recipe(str(path)), frame)


# tabkit new, and scikit-learn's way


def test_a_column_that_looks_like_a_weight_is_proposed(tmp_path: Path) -> None:
    frame, _ = survey()
    new = tabkit.new("test/plain", frame, "answer", folder=tmp_path)
    assert load_recipe(str(new.recipe_path)).recipe.weight is None
    assert '# weight = "wt"' in new.recipe_path.read_text(encoding="utf-8")
    new = tabkit.new("test/sure", frame.rename({"wt": "sample_weight"}), "answer", folder=tmp_path)
    assert load_recipe(str(new.recipe_path)).recipe.weight == "sample_weight"
    assert any("for how many rows a row stands" in note for note in new.notes)
    signed = frame.with_columns(sample_weight=pl.col("x")).drop("wt")
    new = tabkit.new("test/no", signed, "answer", folder=tmp_path)
    assert "weight =" not in new.recipe_path.read_text(encoding="utf-8")


def test_estimators_take_weights() -> None:
    frame, truth = survey(1200)
    X, y, w = frame[["x", "z"]], frame["answer"], frame["wt"]
    model = TabkitClassifier(candidates={}, without=["catboost", "blend"], metric="log_loss")
    model.fit(X, y, sample_weight=w)
    assert np.average(model.predict_proba(X)[:, 1], weights=w) == pytest.approx(truth, abs=0.05)
    assert model.result_.weighted is not None and "sample_weight" not in model.result_.features.columns
    few = TabkitRegressor()
    with pytest.warns(UserWarning, match="linear model"):
        few.fit([[0.0], [1.0], [2.0], [1.0]], [0.0, 1.0, 2.0, 100.0], sample_weight=[1, 1, 1, 0])
    assert few.predict([[1.0]]) == pytest.approx(1.0)
    for wrong in ([1, -1, 1], [1, 1], [0, 0, 0]):
        with pytest.raises(ValueError, match=r"sample_weight|inconsistent"):
            TabkitRegressor().fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0], sample_weight=wrong)
