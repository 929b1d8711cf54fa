"""The encoder: known answers, the same rows alone or together, and an exact JSON round trip."""

from __future__ import annotations

from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tabkit.data.encode import MAX_CATEGORIES, MISSING, UNKNOWN, Encoder, fit_encoder
from tabkit.errors import DataError


def fit(frame: pl.DataFrame, **changes: object) -> Encoder:
    columns = [c for c in frame.columns if c != "y"]
    return fit_encoder(frame, columns, **{"task": "binary", "target": "y", "classes": ("no", "yes"), **changes})  # type: ignore[arg-type]


def test_known_answer() -> None:
    frame = pl.DataFrame({"n": [1.0, 3.0, None, 5.0], "c": ["a", "a", "b", None], "y": ["no", "yes", "no", "yes"]})
    encoder = fit(frame)
    rows = encoder.encode(frame)
    np.testing.assert_array_equal(rows.x_num[:, 0], np.array([1, 3, np.nan, 5], dtype=np.float32))
    np.testing.assert_allclose(rows.x_std[:, 0], np.array([-1.2247449, 0, np.nan, 1.2247449]), rtol=1e-6)
    # 'b' was seen once: too rare to be known
    assert rows.x_cat[:, 0].tolist() == [2, 2, UNKNOWN, MISSING]
    assert rows.y is not None and rows.y.tolist() == [0, 1, 0, 1]
    assert encoder.encode(frame.drop("y")).y is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=64)),
            st.one_of(st.none(), st.sampled_from(["a", "b", "", "é", "new"])),
            st.one_of(st.none(), st.dates(date(1950, 1, 1), date(2050, 1, 1))),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_a_row_alone_is_the_row_among_others(rows: list[tuple[float | None, str | None, date | None]]) -> None:
    train = pl.DataFrame(
        {
            "n": [1.0, 2.0, 3.5, None],
            "c": ["a", "a", "b", "b"],
            "d": [date(2020, 1, 1), date(2021, 5, 3), None, date(2022, 2, 2)],
        }
    )
    encoder = fit(train)
    frame = pl.DataFrame(rows, schema=train.schema, orient="row")
    together = encoder.encode(frame)
    for i in range(frame.height):
        alone = encoder.encode(frame[i : i + 1])
        np.testing.assert_array_equal(alone.x_num[0], together.x_num[i])
        np.testing.assert_array_equal(alone.x_cat[0], together.x_cat[i])


def test_json_round_trip_is_exact() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "n": rng.normal(size=50) * 1e9,
            "when": [datetime(2024, 1, 1 + i % 28, i % 24) for i in range(50)],
            "c": ["x", 'quo"te'] * 25,
        }
    )
    encoder = fit(frame)
    restored = Encoder.from_json(encoder.to_json())
    assert restored == encoder
    np.testing.assert_array_equal(restored.encode(frame).x_num, encoder.encode(frame).x_num)
    assert [c.name for c in encoder.columns] == ["n", "when.days", "when.month", "when.weekday", "when.hour", "c"]


def test_columns_that_carry_nothing_are_dropped_with_the_reason() -> None:
    n = 100
    frame = pl.DataFrame(
        {
            "good": np.arange(n, dtype=float),
            "constant": [3] * n,
            "empty": pl.Series([None] * n, dtype=pl.Float64),
            "text": [f"note {i}" for i in range(n)],
            "only_missing_varies": [1.0, None] * (n // 2),
        }
    )
    encoder = fit(frame)
    assert set(encoder.dropped) == {"constant", "empty", "text"}
    assert "constant (3)" in encoder.dropped["constant"]
    assert {c.source for c in encoder.columns} == {"good", "only_missing_varies"}
    with pytest.raises(DataError, match=r"No feature column is left.*constant"):
        fit(frame.select("constant", "empty"))


def test_values_far_from_zero_keep_their_differences() -> None:
    frame = pl.DataFrame({"n": [1.7e9 + i for i in range(10)]})
    encoder = fit(frame)
    np.testing.assert_allclose(np.diff(encoder.encode(frame).x_num[:, 0]), 1.0)
    assert encoder.encode(frame).x_std.std() == pytest.approx(1.0, rel=1e-5)


def test_infinities_are_counted_and_missing() -> None:
    frame = pl.DataFrame({"n": [1.0, float("inf"), 2.0, float("-inf"), 4.0]})
    encoder = fit(frame)
    assert encoder.infinite == 2
    assert np.isnan(encoder.encode(frame).x_num[:, 0]).tolist() == [False, True, False, True, False]


def test_high_cardinality_keeps_the_frequent_and_adds_frequency() -> None:
    values = [f"v{i:04d}" for i in range(500) for _ in range(2 + (i < 5) * 10)]
    encoder = fit(pl.DataFrame({"c": values}))
    assert encoder.layout.cat_sizes == (2 + MAX_CATEGORIES,)
    assert encoder.layout.num_names == ("c.frequency",)
    rows = encoder.encode(pl.DataFrame({"c": ["v0000", "v0499", "never", None]}))
    assert rows.x_cat[:, 0].tolist()[1:] == [UNKNOWN, UNKNOWN, MISSING]
    assert rows.x_num[0, 0] > rows.x_num[1, 0] and np.isnan(rows.x_num[3, 0])


def test_unknown_class_is_refused() -> None:
    frame = pl.DataFrame({"n": [1.0, 2.0, 3.0], "y": ["no", "yes", "maybe"]})
    with pytest.raises(DataError, match="maybe"):
        fit(frame).encode(frame)


def test_without_removes_all_that_came_from_a_column() -> None:
    frame = pl.DataFrame({"d": [date(2020, 1, 1), date(2021, 5, 3), date(2022, 2, 2)], "n": [1.0, 2.0, 3.0]})
    rows = fit(frame).encode(frame).without(["d"])
    assert rows.layout.columns == ("n",)
    assert rows.x_num.shape == (3, 1)
