"""The holdout's seal, the memory of openings, and what rows are recognised by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tabkit.data.marks import MOST_KEYS, Marks, Sketch, hashed, marking
from tabkit.errors import UsageError
from tabkit.evaluate import ledger
from tabkit.evaluate.ledger import Looks, Opening, Sealed


def table(n: int = 300, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    numbers = {f"x{i}": rng.normal(size=n) for i in range(8)}
    return pl.DataFrame({**numbers, "city": rng.choice(["Oslo", "Rome"], n), "y": rng.choice(["no", "yes"], n)})


def sketch_of(frame: pl.DataFrame, held: int | None = None) -> Sketch:
    """Sketch the first rows of a table, as a run does."""
    columns, rows = marking(frame), np.arange(frame.height)
    marks = Marks.of(columns, [(rows, np.column_stack([hashed(frame[c]) for c in columns]))])
    return marks.sketch(rows[:held], frame["y"][:held])


HELD = sketch_of(table(), 60)


@pytest.mark.parametrize(
    ("changed", "share"),
    [
        (table().sample(fraction=1, shuffle=True, seed=1), 1.0),
        (table().rename({f"x{i}": f"column {i}" for i in range(8)}), 1.0),
        (table().drop("x0", "x3"), 1.0),
        (table().select(pl.lit(1).alias("new"), pl.all()), 1.0),
        (table().with_columns(pl.col("x1") + 1e-12), 1.0),
        (table().with_columns(pl.col("x1") * 2, pl.col("x4").exp()), 1.0),
        (table().with_columns(pl.all().cast(pl.String)), 1.0),
        (table().sample(20, seed=2), 1.0),
        (table(seed=9), 0.0),
    ],
    ids=[
        "shuffled",
        "renamed",
        "columns dropped",
        "column added",
        "a hair",
        "two rewritten",
        "as text",
        "cut",
        "other",
    ],
)
def test_rows_are_recognised_whatever_is_done_to_their_table(changed: pl.DataFrame, share: float) -> None:
    seen = sketch_of(table())
    assert sketch_of(changed).share_in(seen) == share


def test_rows_split_anew_are_known_by_the_share_that_was_seen() -> None:
    again = sketch_of(table().sample(fraction=1, shuffle=True, seed=4), 60)
    expected = len(
        set(range(60)) & set(table().with_row_index().sample(fraction=1, shuffle=True, seed=4)["index"][:60])
    )
    assert again.share_in(HELD) == pytest.approx(expected / 60)


def test_large_sets_are_compared_by_their_least_hashes() -> None:
    large = table(40 * MOST_KEYS)
    half = sketch_of(large[: large.height // 2])
    assert not half.whole and all(len(key) == MOST_KEYS for key in half.keys)
    assert sketch_of(large).share_in(half) == pytest.approx(0.5, abs=0.08)
    assert Sketch.from_text(half.to_text(), whole=False).share_in(half) == 1.0


def test_coarse_columns_of_another_table_are_no_rows_seen() -> None:
    def flags(*names: str) -> pl.DataFrame:
        rng = np.random.default_rng(0)
        return pl.DataFrame({name: rng.integers(0, 2, 100) for name in (*names, "y")})

    assert sketch_of(flags("a", "b")).share_in(sketch_of(flags("c", "d"))) == 0.0
    assert sketch_of(flags("a", "b")).share_in(sketch_of(flags("a", "b"))) == 1.0


def test_opened_once_per_run_and_remembered_across_runs() -> None:
    sealed = Sealed("rows", Opening("a", HELD))
    assert sealed.open() == ("rows", Looks(1, 1))
    with pytest.raises(RuntimeError, match="opened twice"):
        sealed.open()
    assert Sealed("rows", Opening("b", HELD)).open()[1] == Looks(2, 2)
    assert Sealed("rows", Opening("a", HELD)).open()[1] == Looks(3, 1)  # the same question keeps its number
    assert Sealed("rows", Opening("c", sketch_of(table(seed=5)))).open()[1] == Looks(1, 1)


def test_a_broken_line_hides_no_other(own_ledger: Path) -> None:
    Sealed("rows", Opening("a", HELD)).open()
    with own_ledger.open("a") as ledger:
        ledger.write('{"holdout": "a"')
        ledger.write("\n")
    assert Sealed("rows", Opening("b", HELD)).open()[1] == Looks(2, 2)


def test_a_line_cut_short_by_a_full_disk_costs_no_later_one(own_ledger: Path) -> None:
    own_ledger.write_bytes(b'{"question": "a", "rows": ["\xff')  # no line end, and a byte that is no text
    assert Sealed("rows", Opening("a", HELD)).open()[1] == Looks(1, 1)
    assert Sealed("rows", Opening("b", HELD)).open()[1] == Looks(2, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_ledger_that_is_full_is_said_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "ledger_path", lambda: Path("/dev/full"))
    assert Sealed("rows", Opening("a", HELD)).open()[1] is None


def test_an_unwritable_ledger_is_said_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TABKIT_LEDGER", str(blocked / "ledger.jsonl"))
    assert Sealed("rows", Opening("a", HELD)).open()[1] is None


def test_a_ledger_that_keeps_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABKIT_LEDGER", "/dev/null")
    with pytest.raises(UsageError, match="is no file"):
        Sealed("rows", Opening("a", HELD)).open()


def test_cells_of_any_type_are_marks_and_nested_ones_are_none() -> None:
    frame = table().with_columns(
        pl.col("city").cast(pl.Categorical),
        flag=pl.col("x0") > 0,
        day=pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 1, 1) + pl.duration(days=299), "1d"),
        many=pl.concat_list("x0", "x1"),
        raw=pl.lit(b"x"),
    )
    assert not {"many", "raw"} & set(marking(frame))
    for name in ("city", "flag", "day", "x0"):
        assert (hashed(frame[name]) == hashed(frame[name].cast(pl.String))).all(), name
