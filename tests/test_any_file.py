"""Whatever table pandas or Polars writes goes through every verb: no traceback, no row lost, the same answers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import tabkit
from tabkit import learner
from tabkit.data.source import open_input
from tabkit.data.validate import check
from tabkit.draft import new
from tabkit.recipe import load_recipe

N = 120
NO_ADAPTATION = '[candidates]\nadapt = {}\nwithout = ["catboost", "blend"]\n'
NAMES = [
    "size",
    "Größe (m²)",
    "a b",
    "x,y",
    'q"q',
    "*",
    "^x.*$",
    "count",
    "prediction",
    "row",
    "été",
    "1st",
    "select",
    " pad",
]


def _numbers(rng: np.random.Generator) -> pl.Series:
    return pl.Series(rng.normal(size=N).round(4) * 10.0 ** rng.integers(-6, 7))


COLUMNS: dict[str, Callable[[np.random.Generator], pl.Series]] = {
    "numbers": _numbers,
    "whole numbers": lambda rng: pl.Series(rng.integers(-500, 10_000, N)),
    "small integers": lambda rng: pl.Series(rng.integers(0, 5, N), dtype=pl.Int8),
    "float32": lambda rng: pl.Series(rng.normal(size=N).astype(np.float32)),
    "booleans": lambda rng: pl.Series(rng.random(N) < 0.4),
    "words": lambda rng: pl.Series(rng.choice(["red", "grün", "blå", "a;b", "x,y", 'q"q', "None", "0012"], N).tolist()),
    "categories": lambda rng: pl.Series(rng.choice(["s", "m", "l"], N).tolist(), dtype=pl.Categorical),
    "names": lambda rng: pl.Series([f"W-{i:04d}" for i in rng.permutation(N)]),
    "dates": lambda rng: pl.Series(
        [datetime(2020, 1, 1) + timedelta(days=int(d)) for d in rng.integers(0, 900, N)]
    ).cast(pl.Date),
    "times": lambda rng: pl.Series(
        [datetime(2020, 1, 1) + timedelta(seconds=int(s)) for s in rng.integers(0, 9**8, N)], dtype=pl.Datetime("us")
    ),
    "times in UTC": lambda rng: pl.Series(
        [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=int(s)) for s in rng.integers(0, 9**8, N)]
    ),
    "one value": lambda rng: pl.Series(["same"] * N),
    "nothing": lambda rng: pl.Series([None] * N, dtype=pl.String),
}
TARGETS: dict[str, Callable[[np.random.Generator, np.ndarray], list[object]]] = {
    "words": lambda rng, signal: np.where(signal > 0, "yes", "no").tolist(),
    "booleans": lambda rng, signal: (signal > 0).tolist(),
    "numbers": lambda rng, signal: (100 + 7 * signal).round(3).tolist(),
    "classes": lambda rng, signal: np.array(["low", "mid", "high"])[np.digitize(signal, [-0.5, 0.5])].tolist(),
}


@dataclass(frozen=True)
class Way:
    """How a table is written."""

    ending: str
    delimiter: str = ","
    encoding: str = "utf-8"
    by: str = "polars"
    parts: int = 1


WAYS = st.one_of(
    st.builds(
        Way,
        ending=st.sampled_from([".csv", ".csv.gz"]),
        delimiter=st.sampled_from([",", ";", "\t", "|"]),
        encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
        by=st.sampled_from(["polars", "pandas", "pandas with its index"]),
        parts=st.sampled_from([1, 1, 3]),
    ),
    st.builds(
        Way,
        ending=st.sampled_from([".parquet", ".arrow"]),
        by=st.sampled_from(["polars", "pandas"]),
        parts=st.sampled_from([1, 1, 3]),
    ),
    st.just(Way(".xlsx")),
)


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """A table of any columns with a target that its first column knows something of."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    kinds = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=5))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=len(kinds), max_size=len(kinds), unique=True))
    signal = rng.normal(size=N)
    columns = {"known": pl.Series(signal.round(3))}
    for name, kind in zip(names, kinds, strict=True):
        values = COLUMNS[kind](rng)
        missing = pl.Series(rng.random(N) < draw(st.sampled_from([0.0, 0.2])))
        columns[name] = pl.select(pl.when(missing).then(None).otherwise(pl.lit(values))).to_series()
    target = TARGETS[draw(st.sampled_from(list(TARGETS)))](rng, signal + rng.normal(size=N) / 2)
    return pl.DataFrame(columns).with_columns(pl.Series("the target", target))


def write(frame: pl.DataFrame, way: Way, place: Path) -> Path:
    """Write a table, in parts in a folder if there are several; return what to give as data."""
    place.mkdir()
    size = -(-frame.height // way.parts)
    for part in range(way.parts):
        write_file(frame[part * size : (part + 1) * size], way, place / f"part-{part}{way.ending}")
    return place if way.parts > 1 else place / f"part-0{way.ending}"


def write_file(frame: pl.DataFrame, way: Way, path: Path) -> None:
    if way.ending == ".xlsx":
        # Excel knows no zones, and no cell holds nothing in a column of times.
        frame.with_columns(pl.col(pl.Datetime("us", "UTC")).dt.replace_time_zone(None)).write_excel(path)
    elif way.ending == ".parquet":
        frame.write_parquet(path, row_group_size=50) if way.by == "polars" else frame.to_pandas().to_parquet(path)
    elif way.ending == ".arrow":
        frame.write_ipc(path)
    else:
        if way.by == "polars":
            text = frame.write_csv(separator=way.delimiter)
        else:
            text = frame.to_pandas().to_csv(sep=way.delimiter, index=way.by.endswith("index"))
        content = text.encode(way.encoding)
        path.write_bytes(gzip.compress(content) if way.ending.endswith(".gz") else content)


@pytest.mark.slow
@given(frame=tables(), way=WAYS)
@settings(
    max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
def test_any_table_goes_through_every_verb(frame: pl.DataFrame, way: Way) -> None:
    few = replace(learner.BUDGETS["quick"], trials=2, trees=10, resamples=100)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        here = Path(folder)
        patch.setitem(learner.BUDGETS, "quick", few)
        patch.setenv("TABKIT_LEDGER", str(here / "ledger.jsonl"))
        data = write(frame, way, here / "data")
        draft = new("test/case", data, "the target", folder=here)
        text = draft.recipe_path.read_text(encoding="utf-8")
        draft.recipe_path.write_text(text.split("[candidates")[0] + NO_ADAPTATION, encoding="utf-8")
        plan = load_recipe(str(draft.recipe_path))
        report = check(plan, open_input(data, plan.schema.dialect))
        assert report.ok, report.failures
        done = tabkit.run(str(draft.recipe_path), data=data, out=here / "run", budget="quick")
        told = done.result.rows
        labelled = told.holdout if done.result.split.folds > 1 else told.train + told.valid + told.holdout
        assert told.input == labelled + told.unlabelled + told.rejected + told.out_of_scope
        scored = []
        for name, rows in (("same", data), ("typed", write(frame, Way(".parquet"), here / "typed"))):
            out = here / f"{name}.parquet"
            outcome = tabkit.score(done.folder / "bundle", rows, out)
            assert outcome.rows_scored + outcome.rows_rejected == N and outcome.rows_rejected == 0
            scored.append(pl.read_parquet(out))
        answers = [c for c in scored[0].columns if c.startswith(("prediction", "probability"))]
        assert answers and scored[0].height == scored[1].height == N
        for column in answers:
            ours, theirs = (table[column].to_list() for table in scored)
            assert ours == pytest.approx(theirs, rel=1e-6) if isinstance(ours[0], float) else ours == theirs
