"""The search for what gives the target away: six kinds are found, and what is honest is not called a leak."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tabkit.data.copies import copies
from tabkit.data.leaks import hidden_leaks

N = 1200


def honest(seed: int = 0, strength: float = 1.0) -> tuple[pl.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, 6))
    y = (strength * x[:, 0] + 0.5 * x[:, 1] + rng.logistic(size=N) > 0.5).astype(np.int64)
    kinds = pl.Series([f"v{k}" for k in rng.integers(0, 30, N)])
    return pl.DataFrame(x, schema=[f"x{i}" for i in range(6)]).with_columns(kind=kinds), y


def names(frame: pl.DataFrame, y: np.ndarray) -> list[str]:
    return [trace.says for trace in hidden_leaks(frame, frame.columns, y, 0)]


def planted(kind: str, y: np.ndarray, rng: np.random.Generator) -> dict[str, pl.Series]:
    noise = rng.normal(size=N)
    match kind:
        case "'leak'":
            return {"leak": pl.Series(np.where(rng.random(N) < 0.03, 1 - y, y))}
        case "whether 'closed' is missing":
            filled = rng.random(N) < np.where(y == 1, 0.98, 0.02)
            return {"closed": pl.Series([v if has else None for v, has in zip(noise, filled, strict=True)])}
        case "'office'":
            return {"office": pl.Series([f"o{k}" for k in 7 * (2 * rng.integers(0, 150, N) + y) % 300])}
        case "'a' - 'b'":
            return {"b": pl.Series(1e6 + 1e4 * noise), "a": pl.Series(1e6 + 1e4 * noise + y)}
        case "'a' + 'b'":
            return {"b": pl.Series(1e4 * noise), "a": pl.Series(y - 1e4 * noise)}
        case _:
            price = np.exp(3 + noise)
            return {"a": pl.Series(price * np.where(y == 1, 1.0, 0.97)), "b": pl.Series(price)}


PAIRS = ("'a' - 'b'", "'a' + 'b'", "'a' / 'b'")
KINDS = ("'leak'", "whether 'closed' is missing", "'office'", *PAIRS)


@pytest.mark.parametrize(
    ("task", "kind"), [*(("binary", kind) for kind in KINDS), *(("regression", k) for k in ("'office'", *PAIRS))]
)
def test_what_gives_the_target_away_is_found_by_name(task: str, kind: str) -> None:
    rng = np.random.default_rng(1)
    frame, y = honest()
    shown = planted(kind, y, rng)
    if task == "regression":
        y = y + rng.normal(size=N) * 0.05
    (found,) = names(frame.with_columns(**shown), y)
    assert found == kind or ("a" in shown and {"'a'", "'b'"} == {found[:3], found[-3:]}), found


def test_a_copy_of_three_classes_is_found() -> None:
    rng = np.random.default_rng(1)
    frame, y = honest()
    y = y + (rng.random(N) < 0.3)
    wrong = rng.random(N) < 0.03
    leak = pl.Series([f"k{k}" for k in np.where(wrong, rng.integers(0, 3, N), y)])
    assert names(frame.with_columns(leak=leak), y) == ["'leak'"]


def test_an_honest_column_is_no_leak_however_strong() -> None:
    frame, y = honest(strength=3.5)
    assert names(frame, y) == []
    frame, y = honest()
    told = y + np.random.default_rng(0).normal(size=N) * 0.4  # ROC AUC .96, and another column knows as much
    both = frame.with_columns(a=pl.Series(told), b=pl.Series(told + np.random.default_rng(1).normal(size=N) * 0.02))
    assert set(names(both, y)) == {"'a'", "'b'"}, "two copies do not excuse each other"


def rows_twice(changed: str | None) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.normal(size=400), "b": rng.normal(size=400), "c": rng.integers(0, 3, 400)})
    frame = frame.with_columns(d=pl.Series(rng.normal(size=400)), e=pl.Series(rng.normal(size=400)))
    again = frame.head(20)
    if changed:
        again = again.with_columns(pl.col(changed) + 1)
    return pl.concat([frame, again])


@pytest.mark.parametrize(("changed", "exact", "near"), [(None, 20, 0), ("a", 0, 20), ("c", 0, 20)])
def test_copies_are_found_whole_or_but_for_one_cell(changed: str | None, exact: int, near: int) -> None:
    found = copies(rows_twice(changed), np.arange(400), np.arange(400, 420), np.random.default_rng(0))
    assert found == (20, exact, near, 0)


def test_coarse_rows_repeat_by_chance() -> None:
    rng = np.random.default_rng(0)
    coarse = pl.DataFrame({f"c{i}": rng.integers(0, 3, 600) for i in range(4)})
    found = copies(coarse, np.arange(400), np.arange(400, 600), rng)
    assert found.exact == found.near == 0 and found.by_chance > 150
