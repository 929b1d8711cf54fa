"""Event logs as people bring them: each is read rightly, or what is odd is said by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events import NAMES, habits

import tabkit
from tabkit.data.event_table import events_of, moments, stray
from tabkit.data.interactions import Calendar
from tabkit.errors import DataError, UsageError
from tabkit.workflow.run import Run

TYPES = {pl.String: "string", pl.Int64: "integer", pl.Float64: "number", pl.Date: "date", pl.Datetime: "datetime"}
PRIMARY = "ndcg@10"


@pytest.fixture(scope="module")
def log() -> pl.DataFrame:
    """A log of 40 users with habits: user, item, day, basket, store, price, kind, maker."""
    return habits(40, days=260)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Run]:
    def start(frame: pl.DataFrame, ranking: str = 'basket = "basket"', adapt: str = "", **roles: str) -> Run:
        named = {"id": "user", "target": "item", "time": "day", **roles}
        fields = "\n".join(f'[fields."{c}"]\ntype = "{TYPES[t.base_type()]}"' for c, t in frame.schema.items())
        texts = {
            "data_schemas/log.toml": f'name = "log"\nrow = "one line"\n{fields}\n',
            "domains/t/log.toml": 'name = "t/log"\ntitle = "A log"\nschema = "log"\ntask = "ranking"\n'
            + "".join(f'{key} = "{column}"\n' for key, column in named.items())
            + f'[ranking]\n{ranking}\n[metrics]\nprimary = "{PRIMARY}"\n[candidates]\nwithout = ["als", "ease", "itemknn", "tifu"]\n'
            + f"[candidates.adapt]\n{adapt}\n",
        }
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        out = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        return tabkit.run(tmp_path / "domains" / "t" / "log.toml", frame, budget="quick", out=out)

    return start


def scores(done: Run) -> dict[str, float]:
    return {c.name: c.scores["holdout"][PRIMARY].value for c in done.result.candidates}


def seconds(frame: pl.DataFrame) -> pl.Expr:
    return (pl.col("day").cast(pl.Datetime("us")).dt.epoch("s") + 3600).alias("day")


@pytest.mark.parametrize("unit", ["milliseconds", "microseconds", "nanoseconds", "seconds", "days"])
def test_a_number_is_read_in_the_unit_that_makes_it_a_time(
    unit: str, log: pl.DataFrame, run: Callable[..., Run]
) -> None:
    factor = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9, "seconds": 1, "days": 0}[unit]
    number = seconds(log) * factor if factor else pl.col("day").cast(pl.Int32).cast(pl.Int64)
    done, plain = run(log.with_columns(number.alias("day"))), run(log)
    assert scores(done) == scores(plain)
    assert (unit in done.result.split.text) == (unit != "seconds")


def test_seconds_with_a_fraction_are_seconds(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    assert scores(run(log.with_columns(seconds(log) + 0.25))) == scores(run(log))


def test_a_number_that_is_no_time_is_refused_by_its_column() -> None:
    with pytest.raises(DataError, match="'day' holds numbers up to 5,000,000, which are neither"):
        moments(pl.Series("day", [1, 5_000_000]))


def test_an_answer_does_not_depend_on_the_unit_of_the_clock(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    """A log four times as fast, asked about a window four times as short, is the same log."""
    start = datetime(2020, 1, 1)
    fast = log.with_columns(day=pl.lit(start) + (pl.col("day") - pl.col("day").min()) / 4)
    asked = 'basket = "basket"\ndays = 7\nbase_days = 21\ncutoff = 2020-02-27'
    slow = 'basket = "basket"\ndays = 28\nbase_days = 84\ncutoff = 2020-08-16'
    adapt = 'rerank = ["full"]'
    quick, plain = run(fast, asked, adapt), run(log, slow, adapt)
    assert scores(quick) == pytest.approx(scores(plain), abs=1e-12)
    assert quick.result.ranking.days == 7 and plain.result.ranking.days == 28
    assert "choices on the 7 days from 2020-02-20" in quick.result.split.text


def test_lines_without_a_user_are_left_out_and_counted(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    gone = log.with_columns(user=pl.when(pl.int_range(pl.len()) % 7 > 0).then("user"))
    rows = run(gone).result.rows
    lost = gone["user"].null_count()
    assert rows.out_of_scope == lost and rows.input == log.height
    assert rows.train + rows.valid + rows.holdout + lost <= log.height


def test_repeated_lines_count_once_and_are_named(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    late = log.filter(pl.col("day") > date(2020, 8, 1))
    plain = run(log, "")
    twice = run(pl.concat([log, *[late] * 9]), "")
    assert scores(twice) == scores(plain)
    assert (
        f"{9 * late.height:,} lines that repeat user, item and time of another were counted once"
        in twice.result.split.text
    )


def test_a_line_without_a_basket_is_a_basket_of_its_own(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    some = log.with_columns(basket=pl.when(pl.int_range(pl.len()) % 5 > 0).then("basket"))
    assert run(some).result.rows.out_of_scope == 0
    events = events_of(some, NAMES)
    assert len(np.unique(events.basket)) == some["basket"].n_unique() - 1 + some["basket"].null_count()


def test_returns_are_named_by_run_and_check_and_can_be_left_out(
    log: pl.DataFrame, run: Callable[..., Run], tmp_path: Path
) -> None:
    back = log.with_columns(qty=pl.when(pl.int_range(pl.len()) % 4 > 0).then(1).otherwise(-1).cast(pl.Int64))
    recipe, named = tmp_path / "domains" / "t" / "log.toml", "qty has values below 0: name it as quantity"
    assert named in run(back).result.split.text
    assert any(named in note for note in tabkit.check(recipe, back).notes)
    out = run(back, 'basket = "basket"\nquantity = "qty"')
    assert out.result.rows.out_of_scope == (back["qty"] < 0).sum()
    assert "whose qty is not above 0 were left out" in out.result.split.text
    assert any("whose qty is not above 0 were left out" in note for note in tabkit.check(recipe, back).notes)


def test_one_line_in_2099_is_named(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    late = pl.concat([log, log.head(1).with_columns(day=pl.lit(date(2099, 1, 1)))])
    with pytest.raises(DataError, match=r"1 of [\d,]+ events lies far after all others: on 2099-01-01"):
        run(late)
    assert stray(log, "day") == ""


def test_a_window_that_the_events_do_not_fill_is_said_to_be_short(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    last = log["day"].max()
    assert isinstance(last, date)
    found = run(log, f'basket = "basket"\ncutoff = {last - timedelta(2)}').result
    assert found.ranking.days == 3
    (short,) = [c for c in found.checks if c.code == "short_window"]
    assert short.outcome == "fail" and "end 3 days after the cutoff" in short.message


def test_items_may_be_dates_and_attributes_have_any_name(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    days = log.with_columns(item=pl.lit(date(2000, 1, 1)) + pl.duration(days="item"))
    plain = scores(run(log))
    assert scores(run(days)) == plain
    odd = log.rename({"kind": "cat:main", "maker": "by [all]"})
    done = run(odd, 'basket = "basket"\nattributes = ["cat:main", "by [all]"]', 'rerank = ["full"]')
    assert {n: v for n, v in scores(done).items() if n in plain} == plain
    users = pl.DataFrame({"user": odd["user"].unique().sort().head(3)})
    assert done.bundle.predict(users)["user"].n_unique() == 3


@pytest.mark.parametrize(
    ("change", "ranking", "words"),
    [
        ({"target": "user"}, "", "id and target both name 'user'"),
        ({}, 'attributes = ["item"]', "target and attributes both name 'item'"),
        ({}, 'price = "user"', "id and price both name 'user'"),
        ({}, 'price = "kind"', "calls a string. Expected number or integer"),
        ({"time": "kind"}, "", "time names 'kind'"),
        ({"target": "rank"}, "", "'rank' is a column that scoring writes itself"),
        ({"id": "cold"}, "", "'cold' is a column that scoring writes itself"),
    ],
)
def test_roles_that_cannot_be_are_refused_by_key(
    change: dict[str, str], ranking: str, words: str, log: pl.DataFrame, run: Callable[..., Run]
) -> None:
    frame = log.with_columns(rank=pl.col("item"), cold=pl.col("user"))
    with pytest.raises(UsageError, match=words):
        run(frame, ranking, **change)


def test_cold_users_can_be_listed_for_by_a_re_ranker(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    frame = pl.concat([log, *(log.with_columns(user=pl.col("user") + tail) for tail in "xy")])
    done = run(frame, 'basket = "basket"\ncold_users = 0.3', 'rerank = ["full"]')
    assert "rerank_full" in scores(done)


def test_cutoffs_asked_for_are_made_or_refused(log: pl.DataFrame, run: Callable[..., Run], tmp_path: Path) -> None:
    run(log, adapt='counts = ["refresh"]')
    recipe = tmp_path / "domains" / "t" / "log.toml"
    found = tabkit.run(recipe, log, budget="quick", out=tmp_path / "three", cutoffs=3).result
    (first, second), last = found.ranking.cutoffs, date.fromisoformat(found.ranking.cutoff)
    # The window just before the cutoff is the one that choices were made on.
    assert [first.cutoff, second.cutoff] == [str(last - timedelta(56)), str(last - timedelta(84))]
    with pytest.raises(UsageError, match="--cutoffs 4: there can be 3"):
        tabkit.run(recipe, log, budget="quick", out=tmp_path / "four", cutoffs=4)


def test_days_of_the_clock_follow_the_window() -> None:
    cutoff = 1_582_761_600  # 2020-02-27
    calendar = Calendar.of(7, cutoff)
    day = calendar.day_at(cutoff)
    assert (
        calendar.window == 7 * 86_400
        and calendar.date(day) == "2020-02-27"
        and calendar.date(day + 1) == "2020-02-27 06:00"
    )
    assert (
        calendar.length(28) == "7 days"
        and Calendar.of(365, cutoff).date(Calendar.of(365, cutoff).day_at(cutoff)) == "2020-02-27"
    )


def test_windows_may_be_shorter_than_a_day(log: pl.DataFrame, run: Callable[..., Run]) -> None:
    """A log that is 112 times as fast, asked about six hours in the place of 28 days, is the same log."""
    start = datetime(2020, 1, 1)
    fast = log.with_columns(day=pl.lit(start) + (pl.col("day") - pl.col("day").min()) / 112)
    plain = run(log, 'basket = "basket"\ncutoff = 2020-08-12')
    quick = run(fast, 'basket = "basket"\ndays = 0.25\ncutoff = 2020-01-03T00:00:00')
    assert scores(quick) == pytest.approx(scores(plain), abs=1e-12)
    assert (
        quick.result.ranking.days == 0.25 and "choices on the 6 hours from 2020-01-02 18:00" in quick.result.split.text
    )
    page = quick.report.read_text(encoding="utf-8")
    assert "in the 6 hours from" in page and "0.25 days" not in page
    at_end = run(fast, 'basket = "basket"\ndays = 0.25').result
    last = fast["day"].max()
    assert isinstance(last, datetime)
    assert at_end.ranking.cutoff == str(last.replace(minute=0, second=0) + timedelta(hours=1 - 6))[:16]


def test_order_numbers_that_restart_per_user_are_different_baskets(log: pl.DataFrame) -> None:
    per_user = log.with_columns(basket=pl.col("basket").rank("dense").over("user").cast(pl.Int64))
    plain, again = events_of(log, NAMES), events_of(per_user, NAMES)
    assert len(np.unique(again.basket)) == len(np.unique(plain.basket))
