"""``tabkit new --task ranking``: from anyone's log of events to lists, with no edits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events import habits

import tabkit
from tabkit.catalogue import show
from tabkit.data.validate import needed_columns
from tabkit.draft import Draft, new
from tabkit.errors import DataError, UsageError
from tabkit.recipe import Recipe, load_recipe
from tabkit.shipped import recipe_names


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    """Events of 40 users with habits, named as shops name them."""
    names = {"user": "customer_id", "item": "sku", "day": "bought_at", "basket": "order_no", "store": "store_id"}
    return habits(40, days=260).rename(names)


@pytest.fixture
def draft(tmp_path: Path) -> Callable[..., tuple[Recipe, Draft]]:
    def write(frame: pl.DataFrame, **options: str) -> tuple[Recipe, Draft]:
        frame.write_csv(tmp_path / "log.csv")
        made = new("t/log", tmp_path / "log.csv", task="ranking", folder=tmp_path, **options)  # type: ignore[arg-type]
        return load_recipe(str(made.recipe_path)).recipe, made

    return write


def alternating(period: int, n_periods: int) -> pl.DataFrame:
    """Each user comes once a period and takes five items of his in even ones, five others in odd ones."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        own = rng.choice(60, 10, replace=False)
        for k in range(n_periods):
            at = datetime(2023, 1, 1, 12) + timedelta(days=k * period + user % 7)
            rows += [(f"u{user}", f"i{item}", at) for item in (own[:5] if k % 2 else own[5:])]
    return pl.DataFrame(rows, schema=["user", "item", "when"], orient="row")


def test_roles_and_keys_are_found_by_name_and_by_what_follows_from_the_item(
    log: pl.DataFrame, draft: Callable[..., tuple[Recipe, Draft]]
) -> None:
    recipe, _ = draft(log.with_columns(rowname=pl.int_range(pl.len())))
    ranking = recipe.ranking
    assert ranking is not None and (recipe.id, recipe.target, recipe.time) == ("customer_id", "sku", "bought_at")
    assert (ranking.basket, ranking.store, ranking.price) == ("order_no", "store_id", "price")
    assert ranking.attributes == ["maker", "kind"] and not ranking.new_only and ranking.quantity is None
    assert ranking.days == 14 and ranking.base_days is None


@pytest.mark.parametrize(("period", "n_periods"), [pytest.param(7, 40, marks=pytest.mark.slow), (28, 20)])
def test_a_steady_round_is_the_window_and_what_alternates_is_listed_right(
    period: int, n_periods: int, draft: Callable[..., tuple[Recipe, Draft]], tmp_path: Path
) -> None:
    recipe, made = draft(alternating(period, n_periods))
    assert recipe.ranking is not None and recipe.ranking.days == period
    done = tabkit.run(made.recipe_path, tmp_path / "log.csv", budget="quick", out=tmp_path / "run")
    champion = next(c for c in done.result.candidates if c.name == done.result.champion)
    assert champion.scores["holdout"]["ndcg@10"].value >= 0.99
    plain = next(c for c in done.result.candidates if c.name == "counts_decay")
    assert plain.scores["holdout"]["ndcg@10"].value < 0.7


@pytest.mark.slow
def test_of_noise_nothing_is_adapted(draft: Callable[..., tuple[Recipe, Draft]], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    at = [datetime(2023, 1, 1) + timedelta(days=float(d)) for d in np.sort(rng.random(6000)) * 300]
    _, made = draft(pl.DataFrame({"user": rng.integers(0, 80, 6000), "item": rng.integers(0, 50, 6000), "when": at}))
    done = tabkit.run(made.recipe_path, tmp_path / "log.csv", budget="quick", out=tmp_path / "run")
    assert done.decision != "adapt"


def epoch(factor: int) -> pl.Expr:
    return (pl.col("bought_at").cast(pl.Datetime("us")).dt.epoch("s") * factor).alias("bought_at")


ODD: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "milliseconds": (lambda f: f.with_columns(epoch(1000)), "taken for milliseconds since 1970-01-01"),
    "microseconds": (lambda f: f.with_columns(epoch(10**6)), "taken for microseconds"),
    "offset": (lambda f: f.with_columns(pl.format("{}T10:00:00+02:00", "bought_at").alias("bought_at")), "read in UTC"),
    "no user": (lambda f: f.with_columns(customer_id=pl.when(pl.int_range(pl.len()) % 3 > 0).then("customer_id")), "without 'customer_id'"),
    "export": (lambda f: pl.concat([f, f.tail(200), f.tail(200)]), "400 copies of other lines"),
    "2099": (lambda f: pl.concat([f, f.head(1).with_columns(bought_at=pl.lit(date(2099, 1, 1)))]), "1 line lies far from all others (2099-01-01)"),
    "1970": (lambda f: pl.concat([f, f.head(1).with_columns(bought_at=pl.lit(date(1970, 1, 1)))]), "1 line lies far from all others (1970-01-01)"),
    "restart": (lambda f: f.with_columns(order_no=pl.col("order_no").rank("dense").over("customer_id").cast(pl.Int64)), "numbers come back for other users"),
    "returns": (lambda f: f.with_columns(qty=pl.when(pl.int_range(pl.len()) % 4 > 0).then(1).otherwise(-1)), "with qty not above 0"),
    "prices": (lambda f: f.with_columns(price=pl.format("{} EUR", "price")), "amounts of money"),
    "colon": (lambda f: f.rename({"kind": "cat:main", "maker": "by [all]"}), "'by [all]', 'cat:main'"),
    "dates": (lambda f: f.with_columns(sku=pl.lit(date(2000, 1, 1)) + pl.duration(days="sku")), "the item is 'sku'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_what_is_odd_is_said_and_the_recipe_reads_the_log_all_the_same(
    kind: str, log: pl.DataFrame, draft: Callable[..., tuple[Recipe, Draft]], tmp_path: Path
) -> None:
    change, words = ODD[kind]
    recipe, made = draft(change(log))
    assert words in " | ".join(made.notes)
    assert recipe.ranking is not None and recipe.ranking.days == 14
    text = made.recipe_path.read_text() + made.schema_path.read_text()
    assert words in text or kind in ("colon", "dates")
    lean = made.recipe_path.read_text().split("[candidates.adapt]")[0]
    made.recipe_path.write_text(
        lean + '[candidates]\nwithout = ["als", "bpr", "ease", "itemknn", "tifu"]\n[candidates.adapt]\n'
    )
    done = tabkit.run(made.recipe_path, tmp_path / "log.csv", budget="quick", out=tmp_path / "run")
    assert done.result.ranking.users >= 10


def test_films_are_listed_once_and_a_short_log_gets_short_windows(
    draft: Callable[..., tuple[Recipe, Draft]],
) -> None:
    rng = np.random.default_rng(0)
    rows = [
        (user, int(item), 1_700_000_000 + int(s))
        for user in range(90)
        for item, s in zip(rng.permutation(400)[:60], np.sort(rng.integers(0, 3 * 86_400, 60)), strict=True)
    ]
    recipe, _ = draft(pl.DataFrame(rows, schema=["viewer", "movieId", "timestamp"], orient="row"), user="viewer")
    assert recipe.ranking is not None and recipe.ranking.new_only and recipe.ranking.days == 0.25


@pytest.mark.parametrize(
    ("change", "options", "error", "words"),
    [
        ({"customer_id": "a"}, {}, UsageError, "which column is the user. Add --user COLUMN .candidates: 'a'"),
        ({"customer_id": "a", "sku": "b"}, {}, UsageError, "is the user and which the item"),
        ({"sku": "rank"}, {"item": "rank"}, UsageError, "'rank' is a column that scoring writes itself"),
        ({}, {"user": "sku", "item": "sku"}, UsageError, "both name 'sku'"),
        ({}, {"user": "custmer_id"}, UsageError, "Did you mean 'customer_id'"),
        ({}, {"target": "sku"}, UsageError, "takes --user, --item and --time"),
    ],
)
def test_what_cannot_be_told_is_asked_for_by_its_option(
    change: dict[str, str],
    options: dict[str, str],
    error: type[Exception],
    words: str,
    log: pl.DataFrame,
    draft: Callable[..., tuple[Recipe, Draft]],
) -> None:
    with pytest.raises(error, match=words):
        draft(log.rename(change), **options)


def test_a_log_too_short_says_how_long_one_must_be(
    log: pl.DataFrame, draft: Callable[..., tuple[Recipe, Draft]]
) -> None:
    with pytest.raises(DataError, match=r"span 4.0 days, too few for lists.*Expected at least 6 windows"):
        draft(log.filter(pl.col("bought_at") < date(2020, 1, 6)))


def test_a_log_without_a_target_is_proposed_as_lists(log: pl.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="add --task ranking --user 'customer_id' --item 'sku' --time 'bought_at'"):
        new("t/log", log, folder=tmp_path)
    with pytest.raises(UsageError, match=r"name the column to predict\.$"):
        new("t/log", pl.DataFrame({"x": range(40), "y": [0, 1] * 20}), folder=tmp_path)


@pytest.mark.parametrize("name", recipe_names())
def test_columns_that_show_calls_unused_are_not_demanded(name: str) -> None:
    unused = {c.column for c in show(name).columns if c.role.startswith("not used")}
    assert not unused & set(needed_columns(load_recipe(name), for_target=True))


@pytest.mark.slow
def test_a_shipped_recipe_cuts_events_of_ones_own_at_their_end(tmp_path: Path) -> None:
    plan = load_recipe("retail/next_purchases")
    unused = {c.column for c in show(plan.recipe.name).columns if c.role == "not used"}
    frame = habits(40, days=200).select(
        household_id=pl.col("user").str.slice(1).cast(pl.Int64),
        store_id="store",
        basket_id="basket",
        product_id="item",
        quantity=pl.lit(1.0),
        sales_value="price",
        transaction_timestamp=pl.col("day").cast(pl.Datetime("us")),
        manufacturer_id="maker",
        department=pl.lit("GROCERY"),
        product_category="kind",
        product_type="kind",
    )
    assert unused.isdisjoint(frame.columns)
    done = tabkit.run("retail/next_purchases", frame, budget="quick", out=tmp_path / "run")
    last = frame["transaction_timestamp"].max()
    assert isinstance(last, datetime)
    assert done.result.ranking.cutoff == str(last.date() - timedelta(27))
    assert plan.recipe.ranking is not None and plan.recipe.ranking.cutoff_of(sample=True) == date(2017, 12, 4)
