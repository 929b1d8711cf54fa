"""Ranking recipes from events to a scored list of users, on events whose habits are known."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from pathlib import Path

import jsonschema
import numpy as np
import polars as pl
import pytest
from events import NAMES, arriving, coded, habits, shop_recipe

import tabkit
from tabkit.adapt import Wanted
from tabkit.adapt.candidates import wanted_again
from tabkit.adapt.lists import clock_of
from tabkit.bundle import Contents, ListBundle, load_bundle, save_bundle, saving_ranker
from tabkit.data.event_table import events_of
from tabkit.data.interactions import WINDOW, join_events
from tabkit.errors import BundleError, DataError, UsageError
from tabkit.learner import BUDGETS, candidate_parts
from tabkit.rankers.base import Ranker, ranker_class
from tabkit.rankers.counts import Counts
from tabkit.rankers.tifu import Tifu
from tabkit.ranking import Ranking
from tabkit.recipe import Plan, load_recipe
from tabkit.result import CandidateFacts, Interval, ListResult, Verdict, read_result, result_schema, to_json
from tabkit.result.document import BundleFacts
from tabkit.workflow import Run
from tabkit.workflow.refresh import open_parent


def lists_of(done: Run) -> ListResult:
    """Return a run's result after holding its file to the schema and to what the run says it found."""
    text = (done.folder / "result.json").read_text(encoding="utf-8")
    jsonschema.validate(json.loads(text), result_schema())
    assert json.loads(text) == json.loads(to_json(done.result)) == json.loads(to_json(read_result(done.folder)))
    assert isinstance(done.result, ListResult)
    return done.result


def ndcg_of(result: ListResult) -> dict[str, float]:
    """Return NDCG@10 on the holdout by candidate."""
    scores = {c.name: c.score("ndcg@10") for c in result.candidates}
    return {name: score.value for name, score in scores.items() if score is not None}


def lists_in(folder: Path) -> ListBundle:
    bundle = load_bundle(folder)
    assert isinstance(bundle, ListBundle)
    return bundle


def save_ranker(folder: Path, plan: Plan, ranker: Ranker, base: str, how: str) -> None:
    """Write a ranker's bundle without a run: of the result, only what a manifest quotes."""
    candidate = CandidateFacts.model_construct(name=f"{base}_{how}", base=base, how=how)
    result = ListResult.model_construct(
        tabkit="0",
        created="2020-08-20",
        recipe=plan.recipe.name,
        verdict=Verdict(decision="keep_base", sentence="", reason=""),
        bundle=BundleFacts(train_on="all", rows=len(ranker.past), members=(candidate.name,)),
        data_fingerprint="",
        versions={},
    )
    save, vocabularies = saving_ranker(ranker)
    save_bundle(
        folder,
        plan,
        Contents(candidate, save, vocabularies, events_end=ranker.past.calendar.date(ranker.past.end)),
        result,
        "",
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ListResult, pl.DataFrame]:
    folder = tmp_path_factory.mktemp("shop")
    frame = habits()
    frame.write_parquet(folder / "events.parquet")
    recipe = shop_recipe(folder, adapt='rerank = ["continue", "full"]')
    done = tabkit.run(str(recipe), folder / "events.parquet", out=folder / "run", budget="quick", cutoffs=2)
    return folder / "run", lists_of(done), frame


def test_result_follows_its_schema_and_the_clock(finished: tuple[Path, ListResult, pl.DataFrame]) -> None:
    run, result, frame = finished
    assert result.rows.used == frame.unique(["user", "item", "basket"]).height
    assert result.ranking.users == 60
    assert (run / "report.html").read_text(encoding="utf-8").count("NDCG@10")
    outcomes = {c.code: c.outcome for c in result.checks}
    assert outcomes["clock"] == "pass" and outcomes["feature_canary"] == "pass"
    assert outcomes["too_few_users"] == "fail"  # 60 users
    assert len(result.ranking.cutoffs) == 1
    assert "Of 2 cutoffs," in result.verdict.reason
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Lift, last window before" in page and "In the last window before the holdout" in page
    assert result.ranking.cutoffs[0].cutoff in page and "No column's importance" not in page
    assert result.ranking.value is not None and math.isfinite(result.ranking.value.extra_margin.value)


def test_personal_habits_beat_popularity(finished: tuple[Path, ListResult, pl.DataFrame]) -> None:
    _, result, _ = finished
    at = ndcg_of(result)
    assert at["counts_decay"] > at["counts_popular"] + 0.2
    assert set(at) >= {"rerank_as_is", "rerank_continue", "rerank_full", "als_warm", "ease", "tifu", "itemknn"}
    assert not any(c.refused for c in result.candidates)


def test_scoring_knows_users_and_gives_strangers_what_is_popular(
    finished: tuple[Path, ListResult, pl.DataFrame], tmp_path: Path
) -> None:
    run, _, frame = finished
    users = [*sorted(frame["user"].unique().to_list()), "nobody"]
    pl.DataFrame({"user": users}).write_csv(tmp_path / "users.csv")
    done = tabkit.score(run / "bundle", tmp_path / "users.csv", tmp_path / "lists.parquet")
    assert (done.rows_in, done.rows_scored, done.rows_rejected) == (61, 61, 0)
    lists = pl.read_parquet(tmp_path / "lists.parquet")
    assert lists.columns == ["user", "rank", "item", "score", "cold"]
    assert lists.height == 61 * 7
    assert lists.filter("cold")["user"].unique().to_list() == ["nobody"]
    last = frame.filter(pl.col("day") > frame["day"].max() - pl.duration(days=28))
    top = last.group_by("item").agg(pl.n_unique("basket")).sort("basket", "item", descending=[True, False])["item"][:7]
    assert lists.filter("cold").sort("rank")["item"].to_list() == top.to_list()
    # Neither chunks nor the order of the users change a list.
    pl.DataFrame({"user": users[::-1]}).write_csv(tmp_path / "backwards.csv")
    tabkit.score(run / "bundle", tmp_path / "backwards.csv", tmp_path / "again.parquet", chunk_rows=4)
    again = pl.read_parquet(tmp_path / "again.parquet")
    assert again.sort("user", "rank").equals(lists.sort("user", "rank"))

    def killed(rows: int, total: int) -> None:
        if rows > 8:
            raise KeyboardInterrupt

    out = tmp_path / "resumed.parquet"
    with pytest.raises(KeyboardInterrupt):
        tabkit.score(run / "bundle", tmp_path / "users.csv", out, chunk_rows=4, watch=killed)
    assert not out.exists()
    tabkit.score(run / "bundle", tmp_path / "users.csv", out, chunk_rows=4, resume=True)
    assert pl.read_parquet(out).equals(lists)


def test_bundle_is_sealed_and_holds_no_pickle(finished: tuple[Path, ListResult, pl.DataFrame], tmp_path: Path) -> None:
    run, result, frame = finished
    bundle = lists_in(run / "bundle")
    past = bundle.ranker.past
    assert bundle.manifest.events_end == past.calendar.date(past.end)
    assert past.calendar.date(past.end) == str(frame["day"].max() + timedelta(1))
    assert {p.suffix for p in (run / "bundle").rglob("*") if p.is_file()} <= {
        ".json",
        ".toml",
        ".md",
        ".parquet",
        ".npz",
        ".txt",
        ".sha256",
    }
    assert result.verdict.sentence in (run / "bundle" / "CARD.md").read_text(encoding="utf-8")
    history = run / "bundle" / "model" / "history.parquet"
    kept = history.read_bytes()
    try:
        history.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        with pytest.raises(BundleError, match="changed"):
            load_bundle(run / "bundle")
    finally:
        history.write_bytes(kept)


def test_new_only_lists_nothing_the_user_had(tmp_path: Path) -> None:
    frame = habits()
    frame.write_parquet(tmp_path / "events.parquet")
    recipe = shop_recipe(tmp_path, "new_only = true")
    tabkit.run(str(recipe), tmp_path / "events.parquet", out=tmp_path / "run", budget="quick")
    lists = pl.read_parquet(tmp_path / "run" / "holdout_predictions.parquet")
    before = frame.filter(pl.col("day") <= frame["day"].max() - pl.duration(days=28)).select("user", "item").unique()
    assert lists.height and lists.join(before, on=["user", "item"], how="inner").height == 0


def test_cold_users_have_their_weeks_and_no_part_in_the_bases(tmp_path: Path) -> None:
    events = coded(habits())
    clock = clock_of(events, events.end - WINDOW, Ranking(cold_users=0.25, cold_weeks=2), seed=0)
    assert len(clock.cold) == 15
    assert not np.isin(clock.source().user, clock.cold).any()
    past = clock.at(clock.cutoff)
    mine = past.day[np.isin(past.user, clock.cold)]
    assert mine.min() >= clock.cutoff - 14 and past.day.max() < clock.cutoff
    warm = ~np.isin(past.user, clock.cold)
    assert past.day[warm].min() == events.day.min()


def test_cold_items_are_ranked_among_themselves(tmp_path: Path) -> None:
    frame = arriving(habits())
    frame.write_parquet(tmp_path / "events.parquet")
    recipe = shop_recipe(tmp_path, "cold_items = true", 'content = ["full"]')
    recipe.write_text(recipe.read_text().replace('counts = ["refresh"]\nals = ["fold_in", "warm"]\n', ""))
    done = tabkit.run(str(recipe), tmp_path / "events.parquet", out=tmp_path / "run", budget="quick")
    at = ndcg_of(lists_of(done))
    assert set(at) == {"counts_popular", "content_affinity", "content_as_is", "content_full"}
    assert at["content_affinity"] > at["counts_popular"] + 0.2
    cutoff = frame["day"].max() - pl.duration(days=27)
    before = frame.filter(pl.col("day") < cutoff)["item"].unique()
    lists = pl.read_parquet(tmp_path / "run" / "holdout_predictions.parquet")
    assert lists.height and not lists["item"].is_in(before.implode()).any()
    # What the bundle lists are the arrivals of its last window, for strangers too.
    pl.DataFrame({"user": ["u000", "nobody"]}).write_csv(tmp_path / "users.csv")
    tabkit.score(tmp_path / "run" / "bundle", tmp_path / "users.csv", tmp_path / "lists.parquet")
    scored = pl.read_parquet(tmp_path / "lists.parquet")
    assert set(scored["user"]) == {"u000", "nobody"} and not scored["item"].is_in(before.implode()).any()
    # A refresh goes on from it.
    later = arriving(habits(days=365)).filter(pl.col("day") > frame["day"].max())
    later.write_parquet(tmp_path / "later.parquet")
    base = tmp_path / "run" / "bundle"
    again = tabkit.run(str(recipe), tmp_path / "later.parquet", out=tmp_path / "later", budget="quick", base=base)
    parent = lists_of(again).ranking.parent
    assert parent is not None and parent.new_items > 0


def test_a_store_has_its_own_users_and_the_base_everyones(tmp_path: Path) -> None:
    frame = habits()
    frame.write_parquet(tmp_path / "events.parquet")
    recipe = shop_recipe(tmp_path, "home_stores = [2]", 'rerank = ["continue"]')
    done = tabkit.run(str(recipe), tmp_path / "events.parquet", out=tmp_path / "run", budget="quick")
    lists = pl.read_parquet(tmp_path / "run" / "holdout_predictions.parquet")
    assert set(lists["user"]) == set(frame.filter(pl.col("store") == 2)["user"])
    assert "Lists are for 15 users who went most to the stores 2" in done.result.split.text
    with pytest.raises(UsageError, match="home_stores names 9, which no event has"):
        shop_recipe(tmp_path, "home_stores = [9]")
        tabkit.run(str(recipe), tmp_path / "events.parquet", out=tmp_path / "none", budget="quick")


def test_too_few_users_is_told_before_any_work(tmp_path: Path) -> None:
    habits(n_users=8).write_parquet(tmp_path / "events.parquet")
    recipe = shop_recipe(tmp_path)
    with pytest.raises(DataError, match=r"Only 8 users with history"):
        tabkit.run(str(recipe), tmp_path / "events.parquet", out=tmp_path / "run", budget="quick")
    assert not (tmp_path / "run").exists()


def test_a_short_period_is_told(tmp_path: Path) -> None:
    habits(days=80).write_parquet(tmp_path / "events.parquet")
    with pytest.raises(DataError, match="bases end"):
        tabkit.run(str(shop_recipe(tmp_path)), tmp_path / "events.parquet", out=tmp_path / "run", budget="quick")


@pytest.mark.parametrize(
    ("more", "adapt", "said"),
    [
        ("base_days = 30", "", "base_days = 30"),
        ("", 'alz = ["warm"]', "Did you mean 'als'"),
        ("", 'ease = ["warm"]', "no strategy 'warm'"),
        ("cutof = 2020-01-01", "", "Did you mean 'cutoff'"),
        ("home_stores = [1]\ncold_users = 0.2", "", "home_stores needs"),
    ],
)
def test_recipe_faults_name_the_key(tmp_path: Path, more: str, adapt: str, said: str) -> None:
    habits().write_parquet(tmp_path / "events.parquet")
    with pytest.raises(UsageError, match=said):
        tabkit.run(str(shop_recipe(tmp_path, more, adapt)), tmp_path / "events.parquet", out=tmp_path / "run")


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame, pl.DataFrame]:
    """Bundles of some rankers, made by no run, of what happened until day 230, and what happened after."""
    folder = tmp_path_factory.mktemp("parents")
    recipe = shop_recipe(folder)
    frame = habits()
    # Two users and one item come later than the parent.
    later = pl.col("day") >= frame["day"].min() + pl.duration(days=230)
    frame = frame.filter(later | ~(pl.col("user").is_in(["u000", "u031"]) | (pl.col("item") == 44)))
    plan = load_recipe(str(recipe))
    past, new = frame.filter(~later), frame.filter(later)
    source = events_of(past, NAMES)
    for base in ("counts", "als", "rerank"):
        ranker = ranker_class(base).pretrain(source, np.random.default_rng(0), BUDGETS["quick"])
        assert ranker is not None
        save_ranker(folder / base, plan, ranker, base, "as_is")
    save_ranker(folder / "tifu", plan, Tifu()._fit(source), "tifu", "scratch")
    return folder, past, new


@pytest.mark.parametrize("base", ["counts", "tifu"])
def test_a_bundle_is_taken_on_by_new_events(
    base: str, parents: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    folder, past, new = parents
    new.write_parquet(tmp_path / "new.parquet")
    recipe = str(folder / "domains" / "shop" / "next.toml")
    done = tabkit.run(recipe, tmp_path / "new.parquet", out=tmp_path / "run", budget="quick", base=folder / base)
    result = lists_of(done)
    assert {"counts_as_is", "counts_refresh", "tifu"} <= {c.name for c in result.candidates}
    about = result.ranking.parent
    assert about is not None and (about.new_users, about.new_items, about.gap_days) == (2, 1, 0)
    assert {c.code: c.outcome for c in result.checks}["history_gap"] == "pass"
    # The new bundle knows every event, as if both tables had been one.
    both = lists_in(tmp_path / "run" / "bundle").ranker.past
    whole = events_of(pl.concat([past, new]), NAMES)
    assert both.users.to_list() == whole.users.to_list() and both.items.to_list() == whole.items.to_list()
    assert (both.counts != whole.counts).nnz == 0
    assert both.attributes.equals(whole.attributes)


def test_refreshed_counts_are_those_counted_from_scratch(parents: tuple[Path, pl.DataFrame, pl.DataFrame]) -> None:
    folder, past, new = parents
    known = lists_in(folder / "counts").ranker
    joined = join_events(known.past, events_of(new, NAMES))
    parent = known.recoded(joined)
    assert parent is not None
    settings = {"half_life": 60, "pull": 0.0}
    rng = np.random.default_rng(0)
    fresh = parent.adapt(joined.events, None, "refresh", rng, BUDGETS["quick"], settings).model
    scratch = Counts(60)._count(events_of(pl.concat([past, new]), NAMES))
    users = np.arange(scratch.past.n_users, dtype=np.int32)
    np.testing.assert_array_equal(fresh.top(users, 20).items, scratch.top(users, 20).items)
    stale = parent.adapt(joined.events, None, "as_is", rng, BUDGETS["quick"]).model
    assert (stale.top(users, 20).items != scratch.top(users, 20).items).any()


def test_the_parent_is_kept_where_new_events_say_nothing(
    parents: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    folder, _, new = parents
    # After the parent everyone buys at random: what was counted before is the best there is.
    rng = np.random.default_rng(1)
    noise = new.with_columns(pl.Series("item", rng.permutation(new["item"].to_numpy())))
    noise = noise.with_columns(kind=pl.format("kind {}", pl.col("item") // 20), maker=pl.col("item") % 7)
    noise.write_parquet(tmp_path / "new.parquet")
    recipe = str(folder / "domains" / "shop" / "next.toml")
    done = tabkit.run(recipe, tmp_path / "new.parquet", out=tmp_path / "run", budget="quick", base=folder / "rerank")
    assert done.decision != "adapt"


def test_a_refresh_wants_the_whole_history_and_says_so(
    parents: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    folder, past, new = parents
    recipe = str(folder / "domains" / "shop" / "next.toml")

    def run(frame: pl.DataFrame) -> ListResult:
        frame.write_parquet(tmp_path / "new.parquet")
        out = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        return lists_of(tabkit.run(recipe, tmp_path / "new.parquet", out=out, budget="quick", base=folder / "counts"))

    with pytest.raises(DataError, match="counted twice"):
        run(pl.concat([past.tail(5), new]))
    with pytest.raises(DataError, match="Expected at least 56"):
        run(new.filter(pl.col("day") < new["day"].min() + pl.duration(days=50)))
    holes = run(new.filter(pl.col("day") >= new["day"].min() + pl.duration(days=3)))
    gap = next(c for c in holes.checks if c.code == "history_gap")
    assert gap.outcome == "fail" and "3 days later" in gap.message


def test_only_a_bundle_of_the_recipe_can_be_taken_on(
    parents: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    folder, _, _ = parents
    recipe = str(folder / "domains" / "shop" / "next.toml")
    with pytest.raises(UsageError, match=r"binary task.*Leave --base out"):
        tabkit.run("telecom/churn", out=tmp_path / "run", base=folder / "counts")
    with pytest.raises(UsageError, match="made by shop/next"):
        tabkit.run("retail/next_purchases", out=tmp_path / "run", base=folder / "counts")
    with pytest.raises(UsageError, match="events since 2020-08-18: give --data"):
        tabkit.run(recipe, out=tmp_path / "run", base=folder / "counts")


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A run on what happened until day 230, and its refresh by all that happened after."""
    folder = tmp_path_factory.mktemp("refreshed")
    recipe, frame = str(shop_recipe(folder, adapt='rerank = ["continue", "full"]')), habits(40)
    later = pl.col("day") >= frame["day"].min() + pl.duration(days=230)
    parent = tabkit.run(recipe, frame.filter(~later), out=folder / "parent", budget="quick")
    base = folder / "parent" / "bundle"
    return parent, tabkit.run(recipe, frame.filter(later), out=folder / "later", budget="quick", base=base)


def test_a_refresh_takes_over_what_the_parents_run_found(refreshed: tuple[Run, Run]) -> None:
    parent, later = (lists_of(done) for done in refreshed)
    assert later.ranking.parent is not None and later.ranking.parent.champion == parent.champion
    known = {c.name: c for c in parent.candidates}
    strategies = {c.base: c.name for c in later.candidates if c.kind == "adapted"}
    assert strategies["rerank"] == "rerank_continue"
    for candidate in later.candidates:
        if candidate.kind != "base" and candidate.base != "counts":
            assert candidate.settings == known[candidate.name].settings, candidate.name
    gone = {left.name: left.reason for left in later.ranking.left_out}
    assert gone["rerank_full"] == "a refresh adapts each base in one way, and the parent's run favours rerank_continue"
    assert {c.name for c in parent.candidates} == {c.name for c in later.candidates} | set(gone)


def test_a_refresh_asks_the_holdout_only_about_those_chosen(refreshed: tuple[Run, Run]) -> None:
    done = refreshed[1]
    later = lists_of(done)
    asked = {c.name for c in later.candidates if "holdout" in c.scores}
    assert asked == set(later.chosen.names) and later.champion in asked
    others = [c for c in later.candidates if c.name not in asked]
    assert others and all(set(c.scores) == {"valid"} for c in others)
    page = done.report.read_text(encoding="utf-8")
    assert f"On the holdout, {len(others)} candidates not chosen on valid were not measured." in page
    assert set(pl.read_parquet(done.folder / "holdout_lists.parquet")["candidate"].cast(pl.String)) == asked


def test_every_bundle_keeps_the_bases_whatever_its_champion_is(refreshed: tuple[Run, Run]) -> None:
    kept = [done.folder / "bundle" / "bases" / "rerank" / "rerank.txt" for done in refreshed]
    assert kept[0].read_text() == kept[1].read_text()
    opened = open_parent(refreshed[1].folder / "bundle", refreshed[1].bundle.plan)
    assert set(opened.bases) == {"rerank"}


def facts(name: str, valid: float) -> CandidateFacts:
    base, how = candidate_parts(name)
    scores = {"valid": {"ndcg@10": Interval(value=valid, low=valid, high=valid)}}
    return CandidateFacts.model_construct(name=name, base=base, how=how, scores=scores, settings={"found": name})


def test_what_was_far_behind_is_not_tried_again() -> None:
    todo = [Wanted(base, "scratch", "baseline") for base in ("tifu", "itemknn")]
    todo += [Wanted("als", how, kind) for how, kind in (("as_is", "base"), ("warm", "adapted"), ("full", "adapted"))]
    todo += [Wanted("content", how, kind) for how, kind in (("as_is", "base"), ("full", "adapted"))]
    at = {"tifu": 0.4, "itemknn": 0.29, "als_as_is": 0.2, "als_warm": 0.31, "als_full": 0.32, "content_as_is": 0.39}
    known = {name: facts(name, value) for name, value in {**at, "content_full": 0.38}.items()}
    kept, left = wanted_again(todo, known, "ndcg@10")
    # Als comes along by its strategy, whatever it scores untouched; from scratch is tried only if there is nothing else.
    assert [w.name for w in kept] == ["tifu", "als_as_is", "als_warm", "content_as_is", "content_full"]
    assert [w.settings for w in kept if w.kind != "base"] == [
        {"found": n} for n in ("tifu", "als_warm", "content_full")
    ]
    assert [w.name for w in left] == ["itemknn", "als_full"]
    assert (
        left[0].reason
        == "it was far behind when the parent was made: 0.2900 ndcg@10 on valid, where the best had 0.4000"
    )
    known["als_warm"] = facts("als_warm", 0.29)
    known["als_full"] = facts("als_full", 0.29)
    assert [w.name for w in wanted_again(todo, known, "ndcg@10")[0]] == ["tifu", "content_as_is", "content_full"]
    assert wanted_again(todo, {}, "ndcg@10") == (tuple(todo), ())
