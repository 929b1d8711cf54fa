"""The checks: what is planted is found by name, what is not is not."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, make_features, signal_table, write_recipe
from events import coded, habits

from tabkit import plugins
from tabkit.data.encode import Features
from tabkit.data.interactions import Codes, Events, truth_of
from tabkit.data.single import single_features
from tabkit.data.split import Split
from tabkit.data.windows import features
from tabkit.errors import UsageError
from tabkit.evaluate.checks import (
    Check,
    Evidence,
    Finding,
    ListEvidence,
    TableCheck,
    TableEvidence,
    all_checks,
    column_psi,
    discovery,
    run_checks,
    sensitive_groups,
    two_sample_auc,
)
from tabkit.evaluate.checks.sense import AskWhenKnown, WorthNothing
from tabkit.evaluate.checks.tables import SourceDistance
from tabkit.evaluate.ledger import Looks
from tabkit.evaluate.metrics import METRICS
from tabkit.recipe import load_recipe
from tabkit.result import Calibration, CheckOutcome, Interval
from tabkit.result.lists import Lift
from tabkit.result.tables import ColumnImportance

TABLES = (
    "single_feature_leak",
    "hidden_leak",
    "post_outcome_column",
    "ask_when_known",
    "label_shuffle",
    "duplicate_rows",
    "group_overlap",
    "time_overlap",
    "holdout_shift",
    "source_copies",
    "source_distance",
    "holdout_reopened",
    "dependent_rows",
    "too_few_holdout_cases",
    "no_skill",
    "under_baseline",
    "worth_nothing",
    "overfit",
    "miscalibration",
    "outside_envelope",
    "fairness_gap",
)
LISTS = (
    "too_few_users",
    "clock",
    "short_window",
    "feature_canary",
    "history_gap",
    "lift_pair",
    "unseen_items",
    "holdout_reopened",
    "under_baseline",
)
WORSE = Interval(-0.03, -0.05, -0.01)


VALUE = '[value]\nunit = "USD"\nact_when = "above"\nacted = "1"\n'


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TableEvidence:
    """A table without a fault, for which every check can be made."""
    frame = signal_table(1200).with_columns(who=pl.int_range(pl.len()) // 10, day=pl.int_range(pl.len()))
    frame = frame.with_columns(sex=pl.Series(["f", "m"] * 600))
    path = write_recipe(tmp_path_factory.mktemp("table"), frame, "group = 'who'\ntime = 'day'\n" + BINARY + VALUE)
    schema = path.parents[2] / "data_schemas" / "case.toml"
    late = "[fields.x4]\nknown = 'at_outcome'"
    schema.write_text(schema.read_text(encoding="utf-8").replace("[fields.x4]", late), encoding="utf-8")
    rows = make_features("binary", 1600)
    train, valid, holdout, source = (rows.take(np.arange(start, start + 400)) for start in range(0, 1600, 400))
    score = 1.5 * (holdout.x_num[:, 0] + (holdout.x_cat[:, 0] == 2)) - 0.5
    p = 0.5 * (1 + np.vectorize(math.erf)(score / math.sqrt(2)))
    names = ("predicted", "observed", "low", "high", "rows")
    bins = [dict(zip(names, (p, p, p - 0.1, p + 0.1, 40), strict=True)) for p in (0.2, 0.4, 0.6, 0.8)]
    return TableEvidence(
        metric=METRICS["roc_auc"],
        champion="lgbm",
        baseline="linear",
        champion_gain=Interval(0.02, -0.01, 0.05),
        looks=Looks(1, 1),
        seed=0,
        plan=load_recipe(str(path)),
        frame=frame,
        split=Split("given", *np.split(np.arange(1200), 3), np.arange(1200) // 10, "given"),
        train=train,
        valid=valid,
        holdout=holdout,
        scores={
            "prior": {"train": 0.5, "valid": 0.5, "holdout": 0.5},
            "lgbm": {"train": 0.9, "valid": 0.85, "holdout": 0.82},
        },
        kinds={"prior": "baseline", "lgbm": "baseline", "icl_as_is": "base"},
        shuffled=(Interval(0.01, -0.04, 0.06),),
        calibration=Calibration(bins=bins, ece=0.01, slope=1.0, intercept=0.0),
        envelopes={},
        groups={"sex": {"f": (0.8, 200), "m": (0.82, 200)}},
        source=source,
        over_nothing=Interval(20.0, 10.0, 30.0),
        predicted=np.column_stack([1 - p, p]),
        champion_score=Interval(0.82, 0.78, 0.86),
        units=(np.arange(800) // 10, 80 + np.arange(400) // 10),
    )


@pytest.fixture(scope="module")
def lists() -> ListEvidence:
    """Lists without a fault, for which every check can be made."""
    events = coded(habits(240))
    start = events.end - 28
    return ListEvidence(
        metric=METRICS["ndcg@10"],
        champion="rerank",
        baseline="counts",
        champion_gain=Interval(0.02, 0.01, 0.03),
        looks=Looks(1, 1),
        seed=0,
        truth=truth_of(events, start, events.end),
        past=events.before(start),
        lifts={"counts": Lift(train=0.0, holdout=0.0), "rerank": Lift(train=0.3, holdout=0.28)},
        gap=("2020-08-18", 0),
    )


def outcomes(evidence: Evidence) -> dict[str, CheckOutcome]:
    return {outcome.code: outcome for outcome in run_checks(evidence)}


def failing(evidence: Evidence) -> set[str]:
    return {code for code, outcome in outcomes(evidence).items() if outcome.outcome == "fail"}


def leaking(table: TableEvidence) -> TableEvidence:
    def leak(rows: Features) -> Features:
        return replace(rows, x_num=np.where(np.arange(4) == 3, rows.labels[:, None], rows.x_num).astype(np.float32))

    parts = {part: leak(getattr(table, part)) for part in ("train", "valid", "holdout", "source")}
    return replace(table, **parts)


def with_a_noisy_copy(table: TableEvidence) -> TableEvidence:
    noise = np.random.default_rng(0).normal(0, 0.35, table.frame.height)
    return replace(table, frame=table.frame.with_columns(x3=(pl.col("y") == "yes") + pl.Series(noise)))


def with_late_column(table: TableEvidence) -> TableEvidence:
    schema = table.plan.schema
    late = schema.model_copy(update={"fields": {**schema.fields, "x0": schema.fields["x4"]}})
    return replace(table, plan=replace(table.plan, schema=late))


def with_copies(table: TableEvidence) -> TableEvidence:
    columns = [c for c in table.frame.columns if c not in ("who", "day")]
    copied = pl.concat([table.frame.head(800), table.frame.head(400)]).select(columns)
    return replace(table, frame=copied.hstack(table.frame.select("who", "day")))


def reported(score: float) -> dict[str, dict[str, float]]:
    return {"prior": dict.fromkeys(("train", "valid", "holdout"), 0.5), "lgbm": {"train": 0.9, "holdout": score}}


def unfair(table: TableEvidence) -> TableEvidence:
    assert table.predicted is not None
    told = table.predicted[:, 1] + np.where(np.arange(400) % 2 == 0, 0.15, 0.0)  # of women, too much
    return replace(table, predicted=np.column_stack([1 - told, told]))


def err_alike(table: TableEvidence) -> TableEvidence:
    """Four groups, in two of which probabilities are half as high as they should be."""
    assert table.predicted is not None
    told = table.predicted[:, 1] * np.where(np.arange(400) < 200, 0.5, 1.5).clip(0, 1)
    groups = table.split.groups.copy()
    groups[800:] = 1000 + np.arange(400) // 100
    split = replace(table.split, groups=groups)
    return replace(table, predicted=np.column_stack([1 - told, told]), split=split)


def overconfident(table: TableEvidence) -> TableEvidence:
    assert table.calibration is not None
    off = [b.model_copy(update={"predicted": 0.99}) for b in table.calibration.bins]
    return replace(table, calibration=table.calibration.model_copy(update={"bins": tuple(off)}))


def with_a_telling_name(table: TableEvidence) -> TableEvidence:
    schema = table.plan.schema
    fields = {**schema.fields, "total_paid": schema.fields["x0"], "repayment_plan": schema.fields["x1"]}
    columns = tuple(
        ColumnImportance(name=name, drop=0.1, low=0.05, high=0.2) for name in ("total_paid", "repayment_plan")
    )
    plan = replace(table.plan, schema=schema.model_copy(update={"fields": fields}))
    return replace(table, plan=plan, importance=columns)


PLANTED: dict[str, tuple[Callable[[TableEvidence], TableEvidence], str]] = {
    "single_feature_leak": (leaking, "'x3' (1.000) ROC AUC on valid"),
    "hidden_leak": (with_a_noisy_copy, "Suspicious: 'x3' (0.9"),
    "post_outcome_column": (with_late_column, "yet features: ['x0']"),
    "ask_when_known": (with_a_telling_name, "leans on 'total_paid', whose names"),
    "label_shuffle": (
        lambda t: replace(t, shuffled=(Interval(0.1, 0.05, 0.15),)),
        "linear gains +0.100 [+0.050, +0.150] ROC AUC",
    ),
    "duplicate_rows": (with_copies, "400 of 400 holdout rows (100.0%)"),
    "group_overlap": (
        lambda t: replace(t, split=replace(t.split, groups=np.arange(1200) % 60)),
        "60 value(s) of 'who'",
    ),
    "time_overlap": (lambda t: replace(t, frame=t.frame.with_columns(day=-pl.col("day"))), "run to 0, past"),
    "holdout_shift": (lambda t: replace(t, holdout=shifted(t.holdout, 2, 2)), "PSI by column: 'x2'"),
    "source_copies": (lambda t: replace(t, source=t.holdout), "400 of 400 holdout rows"),
    "source_distance": (
        lambda t: replace(t, source=shifted(t.train, 2, 100)),
        "Nowhere near those of the target: 'x2' is",
    ),
    "holdout_reopened": (lambda t: replace(t, looks=Looks(4, 3)), "have been asked 3 questions on this machine"),
    "too_few_holdout_cases": (
        lambda t: replace(t, holdout=t.holdout.take(np.arange(60)), predicted=None, units=None),
        "rows of class",
    ),
    "no_skill": (
        lambda t: replace(t, scores=reported(0.45), champion_score=Interval(0.45, 0.4, 0.5)),
        "is -0.05 ROC AUC from the prior",
    ),
    "under_baseline": (lambda t: replace(t, champion_gain=WORSE), "gains -0.03 [-0.05, -0.01]"),
    "worth_nothing": (
        lambda t: replace(t, over_nothing=Interval(-20.0, -45.0, 5.0)),
        "pay -20 USD [-45, +5] per 1,000",
    ),
    "overfit": (
        lambda t: replace(t, scores=reported(0.55), champion_score=Interval(0.55, 0.51, 0.59)),
        "The champion, lgbm, loses 87% of the skill it shows on train, 78% at the better end",
    ),
    "miscalibration": (overconfident, "Probabilities of lgbm are off by 0.490 on average"),
    "outside_envelope": (lambda t: replace(t, envelopes={"icl_as_is": "many rows"}), "icl_as_is: many rows."),
    "fairness_gap": (unfair, "For 'sex: f', the outcome beyond its probability is"),
    "dependent_rows": (err_alike, "4 groups of 'who'"),
}


def test_a_table_without_a_fault_passes_every_check_in_order(table: TableEvidence) -> None:
    made = outcomes(table)
    assert tuple(made) == TABLES
    assert {code: o.message for code, o in made.items() if o.outcome != "pass"} == {}


@pytest.mark.parametrize("code", TABLES)
def test_a_fault_planted_in_a_table_is_found_by_name(code: str, table: TableEvidence) -> None:
    plant, words = PLANTED[code]
    made = outcomes(plant(table))
    assert made[code].outcome == "fail" and words in made[code].message, made[code]
    along = {"overfit"} if code == "no_skill" else set()
    assert {c for c, o in made.items() if o.outcome == "fail"} == {code} | along


def test_a_check_of_a_table_without_what_it_needs_says_so(table: TableEvidence) -> None:
    bare = replace(table, source=None, calibration=None, groups={}, looks=None, champion_gain=None, kinds={})
    bare = replace(bare, over_nothing=None, predicted=None, champion_score=None)
    bare = replace(bare, split=replace(table.split, groups=None))
    made = {code: o.message for code, o in outcomes(bare).items() if o.outcome == "not_applicable"}
    assert made == {
        "group_overlap": "The recipe names no group column.",
        "source_copies": "The recipe has no source table.",
        "source_distance": "The recipe has no source table.",
        "holdout_reopened": "The ledger of holdout openings could not be written, so earlier ones are unknown.",
        "under_baseline": "The champion, lgbm, is the best baseline itself.",
        "worth_nothing": "The recipe has no [value], so decisions have no price.",
        "miscalibration": "Calibration is measured for binary tasks.",
        "dependent_rows": "The champion has no predictions on the holdout.",
        "overfit": "The champion has no interval on the holdout.",
        "outside_envelope": "No pretrained base is among the candidates.",
        "fairness_gap": "The schema marks no field as sensitive, or no group has enough rows.",
    }


def leaky(events: Events, day: int, users: Codes, items: Codes) -> pl.DataFrame:
    return features(events, day + 1, users, items)


PLANTED_IN_LISTS: dict[str, tuple[Callable[[ListEvidence], ListEvidence], str]] = {
    "too_few_users": (lambda e: replace(e, truth=e.truth.take(np.arange(60))), "60 users have history"),
    "clock": (lambda e: replace(e, past=replace(e.past, day=e.past.day + 1)), "past the first day of the holdout"),
    "short_window": (
        lambda e: replace(e, truth=replace(e.truth, end=e.truth.end - 7)),
        "The events end 21 days after the cutoff, and the recipe asks about 28 days",
    ),
    "history_gap": (lambda e: replace(e, gap=("2020-08-18", 3)), "begin 3 days later"),
    "lift_pair": (
        lambda e: replace(e, lifts={**e.lifts, "rerank": Lift(train=0.3, holdout=0.2)}),
        "rerank: +30.0% over counts in the last window that models were fitted to or chosen on, +20.0% on the holdout",
    ),
    "holdout_reopened": (lambda e: replace(e, looks=Looks(4, 3)), "has been asked 3 questions on this machine"),
    "under_baseline": (lambda e: replace(e, champion_gain=WORSE), "gains -0.0300 [-0.0500, -0.0100] NDCG@10"),
}


def test_lists_without_a_fault_pass_every_check_in_order(lists: ListEvidence) -> None:
    made = outcomes(lists)
    assert tuple(made) == LISTS
    assert {code: o.message for code, o in made.items() if o.outcome != "pass"} == {}
    assert "0.0% of what was taken had never been sold" in made["unseen_items"].message


@pytest.mark.parametrize("code", PLANTED_IN_LISTS)
def test_a_fault_planted_in_lists_is_found_by_name(code: str, lists: ListEvidence) -> None:
    plant, words = PLANTED_IN_LISTS[code]
    made = outcomes(plant(lists))
    assert made[code].outcome == "fail" and words in made[code].message, made[code]
    assert {c for c, o in made.items() if o.outcome == "fail"} == {code}


def test_a_feature_of_the_future_is_found(lists: ListEvidence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tabkit.evaluate.checks.lists.features", leaky)
    assert failing(lists) == {"feature_canary"}


def test_a_check_of_lists_without_what_it_needs_says_so(lists: ListEvidence) -> None:
    among = np.arange(lists.past.n_items) < 5
    nothing = {"counts": Lift(train=float("nan"), holdout=float("nan"))}
    bare = replace(lists, truth=replace(lists.truth, among=among), looks=None, champion_gain=None, lifts=nothing)
    made = {code: o.message for code, o in outcomes(replace(bare, gap=None)).items() if o.outcome == "not_applicable"}
    assert made == {
        "history_gap": "No bundle is refreshed.",
        "lift_pair": "There is no lift over counts, whose NDCG@10 is zero.",
        "unseen_items": "Lists are of the 5 items first sold in the window, among themselves.",
        "holdout_reopened": "The ledger of holdout openings could not be written, so earlier ones are unknown.",
        "under_baseline": "The champion, rerank, is the best baseline itself.",
    }


class Rounded(TableCheck):
    """What a package outside tabkit brings."""

    code = "rounded"
    title = "Rounded rows"
    severity = "info"
    question = "Is the number of rows round?"

    def find(self, evidence: TableEvidence) -> Finding:
        n = evidence.frame.height
        return ("fail" if n % 100 == 0 else "pass"), f"The table has {n} rows."


class SameCode(Rounded):
    code = "overfit"


class Unfinished(TableCheck):
    code = title = question = "unfinished"
    severity = "info"


class Untitled(Rounded):
    title = ""


@pytest.fixture(autouse=True)
def found_anew() -> Iterator[None]:
    """Checks are looked for once per process: let no test see the packages of another."""
    discovery.all_checks.cache_clear()
    yield
    discovery.all_checks.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, name: str, value: object = None) -> None:
    """Pretend that a package outside tabkit, with one class, is installed."""
    outside = ModuleType("outside_checks")
    setattr(outside, name, value)
    monkeypatch.setitem(sys.modules, "outside_checks", outside)
    points = EntryPoints([EntryPoint("its_check", f"outside_checks:{name}", discovery.GROUP)])
    monkeypatch.setattr(plugins, "entry_points", lambda group: points.select(group=group))


def test_a_check_of_an_outside_package_is_found_and_made(
    monkeypatch: pytest.MonkeyPatch, table: TableEvidence, lists: ListEvidence
) -> None:
    install(monkeypatch, "Rounded", Rounded)
    assert all_checks()[-1] is Rounded
    assert run_checks(table)[-1] == CheckOutcome(
        code="rounded", title="Rounded rows", severity="info", outcome="fail", message="The table has 1200 rows."
    )
    assert tuple(outcomes(lists)) == LISTS, "a check of tables is not made of lists"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            SameCode,
            r"named 'overfit': tabkit\.evaluate\.checks\.tables\.Overfit, and outside_checks:thing, an entry point",
        ),
        (Unfinished, "expected a subclass of Check that defines find"),
        (Untitled, "another package, lacks title"),
        (len, "expected a subclass of Check"),
    ],
)
def test_an_outside_check_that_cannot_be_taken_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: object, says: str
) -> None:
    install(monkeypatch, "thing", value)
    with pytest.raises(UsageError, match=says):
        all_checks()


def test_an_outside_check_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "thing")
    gone = EntryPoints([EntryPoint("its_check", "outside_checks:other", discovery.GROUP)])
    monkeypatch.setattr(plugins, "entry_points", lambda group: gone)
    with pytest.raises(UsageError, match="outside_checks:other, an entry point of another package, cannot be loaded"):
        all_checks()


def shifted(rows: Features, column: int, by: float) -> Features:
    x_num = rows.x_num.copy()
    x_num[:, column] += by
    return replace(rows, x_num=x_num)


def test_two_samples_of_one_table_cannot_be_told_apart() -> None:
    a, b = make_features("binary", 800, seed=1), make_features("binary", 400, seed=2)
    assert abs(two_sample_auc(a, b, 0) - 0.5) < 0.06
    assert two_sample_auc(a, shifted(b, 2, 1.5), 0) > 0.7


def test_psi_names_the_column_that_moved() -> None:
    a, b = make_features("binary", 2000, seed=1), make_features("binary", 1000, seed=2)
    assert max(column_psi(a, b).values()) < 0.05
    psi = column_psi(a, shifted(b, 2, 1.0))
    assert max(psi, key=lambda n: psi[n]) == "x2" and psi["x2"] > 0.25
    gone = replace(b, x_num=np.where(np.arange(4) == 1, np.nan, b.x_num).astype(np.float32))
    assert column_psi(a, gone)["x1"] > 0.25


def test_psi_of_categories_counts_a_new_one() -> None:
    a, b = make_features("binary", 1000, seed=1), make_features("binary", 500, seed=2)
    x_cat = b.x_cat.copy()
    x_cat[:250] = 1  # unknown: never seen in training
    assert column_psi(a, replace(b, x_cat=x_cat))["kind"] > 0.25


def test_psi_matches_its_definition_on_large_samples() -> None:
    rng = np.random.default_rng(0)
    a, b = make_features("binary", 40_000, seed=1), make_features("binary", 40_000, seed=2)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.3, 0.4])
    a = replace(a, x_cat=rng.choice([2, 3, 4], (40_000, 1), p=p))
    b = replace(b, x_cat=rng.choice([2, 3, 4], (40_000, 1), p=q))
    assert column_psi(a, b)["kind"] == pytest.approx(float(((q - p) * np.log(q / p)).sum()), abs=0.01)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_single_column_that_gives_the_target_away_scores_near_one(task: str) -> None:
    a, b = make_features(task, 600, seed=1), make_features(task, 600, seed=2)
    honest = {name: alone.score for name, alone in single_features(a, b).items()}
    assert max(honest.values()) < 0.9

    def leak(rows: Features) -> Features:
        assert rows.y is not None
        x_num = rows.x_num.copy()
        x_num[:, 3] = -3.0 * rows.y
        return replace(rows, x_num=x_num)

    scores = {name: alone.score for name, alone in single_features(leak(a), leak(b)).items()}
    assert scores["x3"] > 0.98 and {k: v for k, v in scores.items() if k != "x3"} == {
        k: v for k, v in honest.items() if k != "x3"
    }


def test_sensitive_groups_are_values_or_quarters() -> None:
    frame = pl.DataFrame({"sex": ["f", "m", None, "f"] * 25, "age": list(range(100))})
    assert set(sensitive_groups(frame, "sex").drop_nulls()) >= {"f", "m"}
    ages = sensitive_groups(frame, "age").value_counts(name="n").sort("n", "age")
    assert ages["n"].to_list() == [25, 25, 25, 25] and "0 to 24.75" in ages["age"]


def test_every_check_has_a_title_a_severity_and_a_question() -> None:
    assert {check.code for check in all_checks()} == {*TABLES, *LISTS}
    for check in all_checks():
        code = check.code
        assert code == code.lower() and check.title and check.question.endswith("?"), code
        assert check.severity in ("error", "warning", "info") and issubclass(check, Check), code


def test_a_source_of_another_population_is_said_to_be_one(table: TableEvidence) -> None:
    rows = make_features("regression", 400)
    near, far = rows.take(np.arange(200)), rows.take(np.arange(200, 400))
    outcome, text = SourceDistance().find(replace(table, source=near, train=far))
    assert outcome == "pass" and "0 of" in text
    moved = replace(far, x_num=far.x_num + 5, y=far.labels + 10)
    outcome, text = SourceDistance().find(replace(table, source=near, train=moved))
    assert outcome == "fail" and "PSI above" in text and "standard deviations apart" in text
    assert SourceDistance().outcome(replace(table, source=None)).outcome == "not_applicable"


def test_a_gain_over_doing_nothing_that_is_not_shown_is_said_so(table: TableEvidence) -> None:
    state, text = WorthNothing().find(replace(table, over_nothing=Interval(20.0, -5.0, 45.0)))
    assert state == "pass" and "that it is more is not shown" in text


def test_a_column_that_is_explained_in_the_schema_is_not_asked_about(table: TableEvidence) -> None:
    named = with_a_telling_name(table)
    told = {"total_paid": named.plan.schema.fields["total_paid"].model_copy(update={"title": "Paid before this loan"})}
    schema = named.plan.schema.model_copy(update={"fields": {**named.plan.schema.fields, **told}})
    assert AskWhenKnown().find(replace(named, plan=replace(named.plan, schema=schema)))[0] == "pass"
    by_chance = tuple(c.model_copy(update={"low": -0.01}) for c in named.importance)
    assert AskWhenKnown().find(replace(named, importance=by_chance))[0] == "pass"
