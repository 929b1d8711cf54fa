"""Scoring lists as shops need it: newer events, stock and bans, so many items, items like items, strangers counted."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events import NAMES, arriving, coded, habits, shop_recipe
from test_rankers import ALL, fit
from test_recommend import lists_in, save_ranker
from typer.testing import CliRunner

import tabkit
from tabkit.cli import app
from tabkit.data.event_table import events_of
from tabkit.data.interactions import join_events
from tabkit.errors import DataError, UsageError
from tabkit.rankers.counts import Counts
from tabkit.recipe import load_recipe

KEPT = 272


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.DataFrame, pl.DataFrame]:
    """Return a bundle of decayed counts, the events in it, and those that came later."""
    folder, frame = tmp_path_factory.mktemp("shop"), habits()
    cut = frame["day"].min() + timedelta(KEPT)
    before, since = frame.filter(pl.col("day") < cut), frame.filter(pl.col("day") >= cut)
    plan = load_recipe(str(shop_recipe(folder)))
    save_ranker(folder / "bundle", plan, Counts(30)._count(coded(before)), "counts", "decay")
    return folder / "bundle", before, since


def score(bundle: Path, users: list[object], tmp_path: Path, **wishes: object) -> pl.DataFrame:
    column = "item" if wishes.get("similar") else "user"
    tabkit.score(bundle, pl.DataFrame({column: users}), tmp_path / "out.parquet", force=True, **wishes)  # type: ignore[arg-type]
    return pl.read_parquet(tmp_path / "out.parquet")


@pytest.mark.parametrize(("name", "how"), ALL)
def test_a_ranker_catches_up_with_newer_events_or_says_that_it_cannot(name: str, how: str) -> None:
    frame = arriving(habits(n_users=40))
    cut = frame["day"].max() - timedelta(27)
    stranger = frame.filter((pl.col("user") == "u001") & (pl.col("day") >= cut)).with_columns(user=pl.lit("new"))
    later = pl.concat([frame.filter(pl.col("day") >= cut), stranger.with_columns(basket=pl.col("basket") + 10**6)])
    events = coded(frame)
    ranker = fit(name, how, events).model
    joined = join_events(ranker.past, events_of(later, NAMES))
    made = ranker.caught_up(joined)
    if made is None:
        assert name == "bpr"
        return
    users = np.flatnonzero(joined.events.active).astype(np.int32)
    lists = made.top(users, 5, new_only=True)
    assert joined.events.users[-1] == "u039" and len(made.past) == len(joined.events)
    new = joined.events.users.index_of("new")
    assert new in users
    assert (lists.items[:, 0] >= 0).all() and np.isfinite(lists.scores[:, 0]).all()
    had = joined.events.counts
    assert not any(had[u, i] for u, line in zip(users, lists.items, strict=True) for i in line if i >= 0)


def test_newer_events_are_in_the_history_and_nothing_is_fitted(
    shop: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    bundle, before, since = shop
    whole = Counts(30)._count(coded(pl.concat([before, since])))
    expected = whole.top(np.array([3], np.int32), 7)
    got = score(bundle, ["u003"], tmp_path, events=since)
    assert got["item"].to_list() == [whole.past.items[int(i)] for i in expected.items[0]]
    np.testing.assert_allclose(got["score"], expected.scores[0], rtol=1e-6)
    assert not got.equals(score(bundle, ["u003"], tmp_path))
    with pytest.raises(DataError, match="counted twice"):
        score(bundle, ["u003"], tmp_path, events=before)


def test_only_items_in_stock_and_none_that_is_banned(
    shop: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    bundle, _, _ = shop
    users: list[object] = ["u000", "u001", "nobody"]
    stock, ban = pl.DataFrame({"item": list(range(0, 40))}), pl.DataFrame({"item": [0, 1, 2, 3]})
    got = score(bundle, users, tmp_path, among=stock, without=ban, k=12)
    assert got.group_by("user").len()["len"].to_list() == [12] * 3
    assert set(got["item"]) <= set(range(4, 40))
    own = pl.DataFrame({"user": ["u000", "u000", "nobody"], "item": [5, 77, 6]})
    got = score(bundle, users, tmp_path, among=own)
    assert {u: sorted(i) for u, i in got.group_by("user").agg("item").rows()} == {"u000": [5, 77], "nobody": [6]}
    plain = score(bundle, users, tmp_path)
    first = plain.filter(pl.col("rank") == 1).select("user", "item")
    got = score(bundle, users, tmp_path, without=first.filter(pl.col("user") != "u001"))
    lost = {user: set(items) for user, items in plain.group_by("user").agg("item").rows()}
    for user, items in got.group_by("user").agg("item").rows():
        assert (lost[user] == set(items)) == (user == "u001") and len(items) == 7


def test_a_table_of_items_that_does_not_fit_is_refused(
    shop: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    for given, said in (
        (pl.DataFrame({"product": [1]}), "expected a column 'item'"),
        (pl.DataFrame({"item": [9000, 9001]}), "no item of it is known"),
        (pl.DataFrame({"item": ["1", "milk"]}), "row 1: column 'item'"),
    ):
        with pytest.raises(DataError, match=said):
            score(shop[0], ["u000"], tmp_path, among=given)
    with pytest.raises(UsageError, match="at least 1"):
        score(shop[0], ["u000"], tmp_path, k=-1)


def test_similar_items_are_those_taken_by_the_same_users(
    shop: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    bundle, before, _ = shop
    got = score(bundle, [5, 30, 9999], tmp_path, similar=True, k=3)
    assert got.columns == ["item", "rank", "similar_item", "score"] and set(got["item"]) == {5, 30}
    counts = coded(before).counts.toarray()
    x = np.log1p(counts)
    cosine = x.T @ x / np.outer(*(2 * [np.maximum(np.linalg.norm(x, axis=0), 1e-12)]))
    np.fill_diagonal(cosine, -1)
    np.testing.assert_allclose(got.filter(pl.col("item") == 5)["score"], np.sort(cosine[5])[::-1][:3], rtol=1e-6)
    assert all(i // 20 == 0 for i in got.filter(pl.col("item") == 5)["similar_item"])
    with pytest.raises(UsageError, match="names users"):
        score(bundle, [5], tmp_path, similar=True, among=pl.DataFrame({"user": ["u000"], "item": [1]}))


def test_strangers_are_counted_and_another_spelling_is_named(
    shop: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    pl.DataFrame({"user": ["U-003", "U-004", "u005"]}).write_csv(tmp_path / "users.csv")
    done = tabkit.score(shop[0], tmp_path / "users.csv", tmp_path / "a.csv", chunk_rows=1)
    assert done.missing is not None
    assert (done.missing.cold, done.missing.unknown, done.missing.near) == (2, 2, ("U-003", "u003"))
    said = CliRunner().invoke(
        app, ["score", str(shop[0]), str(tmp_path / "users.csv"), "--out", str(tmp_path / "b.csv")]
    )
    said = " ".join(said.output.split())
    assert "2 of 3 (67%) without history are cold, 2 of them unknown" in said and "'U-003' was asked for" in said


def test_wishes_belong_to_lists_and_to_one_job(shop: tuple[Path, pl.DataFrame, pl.DataFrame], tmp_path: Path) -> None:
    pl.DataFrame({"user": [f"u{i:03d}" for i in range(20)]}).write_csv(tmp_path / "users.csv")

    def killed(rows: int, total: int) -> None:
        if rows > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tabkit.score(shop[0], tmp_path / "users.csv", tmp_path / "o.csv", chunk_rows=4, watch=killed, k=3)
    with pytest.raises(UsageError, match="another job"):
        tabkit.score(shop[0], tmp_path / "users.csv", tmp_path / "o.csv", chunk_rows=4, resume=True, k=4)
    tabkit.score(shop[0], tmp_path / "users.csv", tmp_path / "o.csv", chunk_rows=4, resume=True, k=3)
    assert pl.read_csv(tmp_path / "o.csv").height == 60
    assert lists_in(shop[0]).k is None
