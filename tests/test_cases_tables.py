"""Tables as users bring them: how numbers, dates, ids and names are written. Each case has its right value."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import tabkit
from tabkit import learner
from tabkit.data.cells import read_cells
from tabkit.data.source import open_input
from tabkit.data.split import split_rows
from tabkit.data.validate import Table, check, read_table
from tabkit.draft import Draft, new
from tabkit.errors import DataError, UsageError
from tabkit.recipe import Plan, load_recipe
from tabkit.schema import Dialect, Field

ROWS = 300


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def drafted(folder: Path, data: Path | pl.DataFrame, target: str = "y", **options: str) -> tuple[Draft, Plan]:
    draft = new("test/case", data, target, folder=folder, **options)  # type: ignore[arg-type]
    return draft, load_recipe(str(draft.recipe_path))


def written(folder: Path, columns: dict[str, Any], name: str = "t.csv", delimiter: str = ",") -> Path:
    path = folder / name
    pl.DataFrame(columns).write_csv(path, separator=delimiter)
    return path


def texts(folder: Path, cells: list[str], delimiter: str = ",", **more: str) -> tuple[Field, list[Any], str]:
    """Draft a column of text beside a target; return its field, its values as a run reads them, and the notes on it."""
    n = len(cells)
    y = ["yes" if i % 3 else "no" for i in range(n)]
    path = written(folder, {"v": cells, "x": rng().normal(size=n).round(3), "y": y, **more}, delimiter=delimiter)
    draft, plan = drafted(folder, path)
    source = open_input(path, plan.schema.dialect)
    assert check(plan, source).ok
    column = "v" if plan.recipe.id != "v" else plan.recipe.id
    notes = " | ".join(note for note in draft.notes if note.startswith("v:"))
    return plan.schema.fields["v"], read_table(plan, source, None).frame[column].to_list(), notes


@pytest.mark.parametrize(
    ("cells", "delimiter", "stated", "first"),
    [
        ([f"{i % 90 + 1}.{i + 100}" for i in range(60)], ",", {}, 1.1),
        ([f"{i + 4},311" if i % 2 else str(410 + i) for i in range(60)], ",", {"group": ","}, 410),
        ([f"1,{i + 100},500.25" for i in range(60)], ",", {"group": ","}, 1_100_500.25),
        ([f"1.{i + 100},5" for i in range(60)], ";", {"decimal": ","}, 1100.5),
        ([f"{i},{i:02d}" for i in range(60)], ";", {"decimal": ","}, 0.0),
        ([f"{i + 10}\u00a0886,44" for i in range(60)], ";", {"decimal": ",", "group": " "}, 10_886.44),
        ([f"{i + 10}\u202f886" for i in range(60)], ";", {"decimal": ",", "group": " "}, 10_886),
        ([f"{i + 1}'200.50" for i in range(60)], ",", {"group": "'"}, 1200.5),
        ([f"{i + 1}\u2019200" for i in range(60)], ",", {"group": "'"}, 1200),
        ([f"{i}.5%" for i in range(60)], ",", {"notation": "percent", "unit": "%"}, 0.5),
        ([f"{i},5 %" for i in range(60)], ";", {"notation": "percent", "decimal": ",", "unit": "%"}, 0.5),
        ([f"$1,{i + 200}.07" for i in range(60)], ",", {"notation": "currency", "group": ",", "unit": "$"}, 1200.07),
        ([f"({i + 300})" if i % 2 == 0 else f"{i}.5" for i in range(60)], ",", {"notation": "currency"}, -300),
        ([f"{i + 1},20 EUR" for i in range(60)], ";", {"notation": "currency", "decimal": ",", "unit": "EUR"}, 1.2),
        ([f"€ {i + 1}" for i in range(60)], ",", {"notation": "currency", "unit": "€"}, 1),
    ],
)  # fmt: skip
def test_a_number_is_read_by_its_own_columns_notation(
    cells: list[str], delimiter: str, stated: dict[str, str], first: float, tmp_path: Path
) -> None:
    field, values, notes = texts(tmp_path, cells, delimiter, other=["59,91"] * len(cells))
    found = field.model_dump(include={"decimal", "group", "notation"}, exclude_none=True)
    assert found == {key: value for key, value in stated.items() if key != "unit"}
    assert field.unit == stated.get("unit", "") and values[0] == first and None not in values
    assert not stated or "read as" in notes or "groups thousands" in notes


@pytest.mark.parametrize(
    ("cells", "delimiter", "words", "first"),
    [
        ([f"{i + 1},{i + 311}" for i in range(60)], ",", "ambiguous: '1,311' is read as 1311, but could be 1.311", 1311),
        ([f"{i + 1},{i + 311}" for i in range(60)], ";", "ambiguous: '1,311' is read as 1.311, but could be 1311", 1.311),
        ([f"{i + 1},311" if i % 2 else str(4000 + i) for i in range(60)], ",", "ambiguous: '2,311' is read as 2.311", 4000),
        ([f"5.{i + 601}" for i in range(60)], ",", "'5.601' is read as 5.601, with a decimal point", 5.601),
    ],
)  # fmt: skip
def test_what_could_be_read_twice_is_named(
    cells: list[str], delimiter: str, words: str, first: float, tmp_path: Path
) -> None:
    _, values, notes = texts(tmp_path, cells, delimiter)
    assert words in notes and values[0] == first
    assert words in (tmp_path / "data_schemas" / "case.toml").read_text()


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["2,4", "1,2", "2,3", "1,3"] * 20, "'2,4' and others could be a list or a number: kept as text"),
        ([f"{i} kg" for i in range(60)], "look like numbers with 'kg'"),
        ([f"{'$' if i % 2 else '€'}{i}" for i in range(60)], "amounts in several currencies ('$', '€')"),
        ([f"{i}.5" for i in range(58)] + ["1.2.3", "see note"], "but not '1.2.3', 'see note' (2 in all)"),
    ],
)
def test_text_that_is_nearly_a_number_says_what_to_do(cells: list[str], words: str, tmp_path: Path) -> None:
    field, _, notes = texts(tmp_path, cells)
    assert field.type == "string" and words in notes


def test_scoring_never_guesses_a_notation(tmp_path: Path) -> None:
    """A text column with decimal commas in the new file turns no 12.345 into 12345."""
    frame = {"price": [f"{i}.345" for i in range(60)], "x": rng().normal(size=60), "y": ["a", "b"] * 30}
    path = written(tmp_path, {**frame, "note": ["plain"] * 60}, delimiter=";")
    _, plan = drafted(tmp_path, path)
    later = written(tmp_path, {**frame, "note": ["59,91"] * 60}, "later.csv", delimiter=";")
    table = read_table(plan, open_input(later, plan.schema.dialect), None)
    assert table.frame["price"][12] == 12.345


def test_a_cell_in_another_notation_is_rejected_with_what_to_state(tmp_path: Path) -> None:
    path = written(tmp_path, {"v": [f"{i}.5" for i in range(60)], "y": ["a", "b"] * 30})
    _, plan = drafted(tmp_path, path)
    rows = written(tmp_path, {"v": ["1,5", "many", *["2.5"] * 58], "y": ["a", "b"] * 30}, "later.csv")
    rejects = read_table(plan, open_input(rows, Dialect()), None).rejects
    assert "state decimal = ','" in rejects["reason"][0] and rejects["reason"][1] == "expected a number"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ('type = "number"\ngroup = ","\ndecimal = ","', "as group and as decimal mark"),
        ('type = "string"\nnotation = "percent"', "are for numbers"),
        ('type = "number"\ndecimal = ";"', "decimal"),
    ],
)
def test_a_notation_that_says_nothing_is_refused(field: str, words: str, tmp_path: Path) -> None:
    _, plan = drafted(tmp_path, pl.DataFrame({"v": range(60), "x": rng().normal(size=60), "y": ["a", "b"] * 30}))
    plan.schema_path.write_text(
        f'name = "case"\n[fields.v]\n{field}\n[fields.x]\ntype = "number"\n[fields.y]\ntype = "string"\n'
    )
    with pytest.raises(UsageError, match=words):
        load_recipe(str(plan.path))


def test_a_stated_currency_is_the_only_one() -> None:
    dollars = Field(type="number", notation="currency", unit="$")
    assert read_cells(pl.Series(["$5", "€5", "5", "-$5", "($5)", "(-5)"]), dollars).to_list() == [
        5,
        None,
        5,
        -5,
        -5,
        None,
    ]
    assert read_cells(pl.Series(["5%", "5"]), Field(type="number", notation="percent")).to_list() == [5, None]


DAY = date(2023, 3, 14)


@pytest.mark.parametrize(
    ("write", "kind", "form", "first"),
    [
        ("%d/%m/%y", "date", "%d/%m/%y", date(1996, 3, 14)),
        ("%m/%d/%Y", "date", "%m/%d/%Y", date(1996, 3, 14)),
        ("%d-%b-%Y", "date", "%d-%b-%Y", date(1996, 3, 14)),
        ("%Y-%m-%dT%H:%M:%SZ", "datetime", None, datetime(1996, 3, 14, 15, 4, 5)),
        ("%Y-%m-%d %H:%M:%S.%f", "datetime", None, datetime(1996, 3, 14, 15, 4, 5)),
        ("%Y-%m-%dT%H:%M:%S+02:00", "datetime", None, datetime(1996, 3, 14, 13, 4, 5)),
        ("%m/%d/%Y %I:%M %p", "datetime", "%m/%d/%Y %I:%M %p", datetime(1996, 3, 14, 15, 4)),
        ("%d.%m.%Y %H:%M:%S", "datetime", "%d.%m.%Y %H:%M:%S%.f", datetime(1996, 3, 14, 15, 4, 5)),
    ],
)
def test_dates_and_times_are_recognised(write: str, kind: str, form: str | None, first: Any, tmp_path: Path) -> None:
    start = datetime(1996, 3, 14, 15, 4, 5)
    cells = [(start + timedelta(days=101 * i)).strftime(write) for i in range(90)]
    field, values, notes = texts(tmp_path, cells)
    assert (field.type, field.format) == (kind, form) and values[0] == first
    assert all(later > earlier for earlier, later in itertools.pairwise(values))
    assert ("70 to 99 are taken as 1970 to 1999" in notes) == ("%y" in write)


@pytest.mark.parametrize("form", ["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S%#z", "%Y-%m-%dT%H:%M:%S%:z"])
def test_a_stated_offset_becomes_utc(form: str) -> None:
    cells = pl.Series(["2023-03-14T15:00:00+02:00", "2023-03-14T15:00:00Z", "yesterday"])
    values = read_cells(cells, Field(type="datetime", format=form)).to_list()
    assert values == [datetime(2023, 3, 14, 13), datetime(2023, 3, 14, 15), None]


@pytest.mark.parametrize("form", [None, "%d/%m/%Y"])
def test_midnight_is_a_day_in_csv_as_in_parquet(form: str | None) -> None:
    write = form or "%Y-%m-%d"
    cells = pl.Series([DAY.strftime(write) + clock for clock in ("", " 00:00", " 00:00:00", " 00:00:01")])
    assert read_cells(cells, Field(type="date", format=form)).to_list() == [DAY, DAY, DAY, None]


def test_four_digits_of_a_year_are_no_two() -> None:
    days = pl.Series(["31/12/96", "31/12/1996"])
    assert read_cells(days, Field(type="date", format="%d/%m/%Y")).to_list() == [None, date(1996, 12, 31)]


def moments(counts: dict[str, int], undated: int = 0) -> pl.DataFrame:
    t = [day for day, n in counts.items() for _ in range(n)] + [None] * undated
    x = rng().normal(size=len(t))
    y = np.where(x + 0.3 * rng().normal(size=len(t)) > 0, "yes", "no")
    return pl.DataFrame({"t": t, "x": x.round(4), "y": y}).sample(fraction=1.0, shuffle=True, seed=1)


def timed(folder: Path, frame: pl.DataFrame) -> tuple[Plan, Table]:
    from tabkit.workflow.reading import read_rows

    frame.write_csv(folder / "t.csv")
    _, plan = drafted(folder, folder / "t.csv", time="t")
    return plan, read_rows(plan, folder / "t.csv").labelled


@pytest.mark.parametrize("counts", [(300, 150, 50), (40, 40, 40), (10, 20, 300)])
def test_of_three_dates_the_latest_is_held_out(counts: tuple[int, int, int], tmp_path: Path) -> None:
    days = ("2023-01-01", "2023-02-01", "2023-03-01")
    plan, table = timed(tmp_path, moments(dict(zip(days, counts, strict=True))))
    (split,) = split_rows(table.frame, plan.recipe, 0)
    parts = {
        name: set(table.frame["t"][getattr(split, name)].cast(pl.String)) for name in ("train", "valid", "holdout")
    }
    assert parts == {"train": {days[0]}, "valid": {days[1]}, "holdout": {days[2]}}


def test_two_dates_are_too_few_and_say_so(tmp_path: Path) -> None:
    plan, table = timed(tmp_path, moments({"2023-01-01": 60, "2023-02-01": 60}))
    with pytest.raises(DataError, match=r"2 moments in 120 rows .* Expected three moments or more"):
        split_rows(table.frame, plan.recipe, 0)


def test_rows_without_a_time_are_set_apart_and_counted(tmp_path: Path) -> None:
    days = {str(date(2023, 1, 1) + timedelta(days=i)): 2 for i in range(100)}
    plan, table = timed(tmp_path, moments(days, undated=300))
    (split,) = split_rows(table.frame, plan.recipe, 0)
    assert table.frame.height == 200 and len(split.holdout) == 50
    assert table.rejects.height == 300 and "split is by time: left out" in table.rejects["reason"][0]
    report = check(plan, open_input(tmp_path / "t.csv", Dialect()))
    assert report.ok and any("300 rows without a value in 't'" in note for note in report.notes)


def test_a_time_of_text_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    frame = moments({"2023-01-01": 600, "2023-02-01": 600})
    _, plan = drafted(tmp_path, frame.with_columns(t=pl.lit("early")))
    plan.path.write_text(plan.path.read_text().replace('target = "y"', 'target = "y"\ntime = "t"'))
    for verb in (tabkit.check, tabkit.run):
        with pytest.raises(UsageError, match="time names 't', which is string"):
            verb(str(plan.path), frame)  # type: ignore[operator]


def test_none_is_a_class(tmp_path: Path) -> None:
    damage = rng().choice(["None", "Mild", "Severe", "NA"], 900, p=[0.3, 0.3, 0.3, 0.1])
    path = written(tmp_path, {"x": rng().normal(size=900).round(3), "y": damage})
    draft, plan = drafted(tmp_path, path)
    table = read_table(plan, open_input(path, Dialect()), None)
    assert set(table.frame["y"].drop_nulls()) == {"None", "Mild", "Severe"}
    assert table.frame["y"].null_count() == (damage == "NA").sum()
    assert any("'None'" in note and "is taken as a class" in note for note in draft.notes)


def test_a_hand_written_schema_takes_no_class_away(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": ["1", "None", "2"] * 30, "y": ["None", "Mild", "Severe"] * 30})
    _, plan = drafted(tmp_path, path)
    head, fields = plan.schema_path.read_text().split("[fields.x]")
    plan.schema_path.write_text(head + "[fields.x]" + fields)
    assert read_table(plan, open_input(path, Dialect()), None).frame.null_count().row(0) == (30, 0)
    plan.schema_path.write_text(head.replace('row = "', 'missing = ["", "None"]\nrow = "') + "[fields.x]" + fields)
    stated = load_recipe(str(plan.path))
    assert read_table(stated, open_input(path, Dialect()), None).frame["y"].null_count() == 30


def test_a_header_in_the_middle_is_a_rejected_row(tmp_path: Path) -> None:
    one = "x,y\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(60))
    (tmp_path / "t.csv").write_text(one + one.replace("\n", "\r\n") + one)
    draft, plan = drafted(tmp_path, tmp_path / "t.csv")
    assert plan.schema.fields["x"].type == "integer" and any("repeated the header" in note for note in draft.notes)
    for chunk_rows in (7, 1000):
        batches = list(open_input(tmp_path / "t.csv", Dialect()).batches(chunk_rows))
        malformed = pl.concat([b.malformed for b in batches])
        assert malformed["row"].to_list() == [60, 121] and "repeats the header" in malformed["reason"][0]
        assert np.concatenate([b.rows for b in batches]).tolist() == [i for i in range(182) if i not in (60, 121)]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([f"${i}.00" for i in range(200)], "200 of 200 values are so written"),
        ([*map(str, range(198)), "n/k*", "see note"], "2 of 200 values are no numbers ('n/k*', 'see note')"),
    ],
)
def test_a_target_that_is_a_number_but_for_its_spelling_is_one(cells: list[str], words: str, tmp_path: Path) -> None:
    path = written(tmp_path, {"x": rng().normal(size=200), "y": cells})
    for task in (None, "regression"):
        (folder := tmp_path / str(task)).mkdir()
        draft = new("test/case", path, "y", task=task, folder=folder)
        assert load_recipe(str(draft.recipe_path)).recipe.task == "regression"
        assert any(words in note for note in draft.notes) and "multiclass" not in " ".join(draft.notes)


def test_a_target_with_many_bad_cells_is_refused_with_their_count(tmp_path: Path) -> None:
    cells = [*map(str, range(170)), *(f"about {i}" for i in range(30))]
    path = written(tmp_path, {"x": rng().normal(size=200), "y": cells})
    with pytest.raises(DataError, match=r"not 'about 0', 'about 1', 'about 2' \(30 in all\)") as problem:
        drafted(tmp_path, path)
    assert "multiclass" not in str(problem.value)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", "__index_level_0__"])
@pytest.mark.parametrize("values", ["counted", "repeating"])
def test_an_index_is_neither_feature_nor_id(name: str, values: str, tmp_path: Path) -> None:
    index = np.arange(ROWS) if values == "counted" else np.arange(ROWS) % 100
    path = written(tmp_path, {name: index, "x": rng().normal(size=ROWS), "y": ["a", "b", "b"] * 100})
    _, plan = drafted(tmp_path, path)
    assert plan.recipe.exclude == [name] and plan.recipe.id is None


HEADER, LINES = "a,b,y\n", [f"{i},{i * 2}.5,{'ja' if i % 3 else 'nein'}" for i in range(60)]


@pytest.mark.parametrize(
    ("content", "encoding", "words"),
    [
        (HEADER + "\n".join(LINES), "utf-16-le", 'encoding = "utf-16-le"'),
        (HEADER + "\n".join(LINES), "utf-16-be", 'encoding = "utf-16-be"'),
        ("名前,b,y\n" + "\n".join(f"カナ{line}" for line in LINES), "cp932", 'encoding = "cp932"'),
        ("Größe,b,y\n" + "\n".join(LINES), "cp1252", 'encoding = "cp1252"'),
        ("A report\n" + HEADER + "\n".join(LINES), "utf-8", "('A report') has 1 cell, and those below have 3"),
        ("A report\nof 2024\n\n" + HEADER + "\n".join(LINES), "utf-8", "remove the lines above the column names"),
        ("# by x, today\n" + HEADER + "\n".join(LINES), "utf-8", "it is a comment: remove the lines"),
        (HEADER + ",\n".join(LINES) + ",", "utf-8", "every other line ends in ','"),
        (HEADER + "\n".join(f"r{line},1" for line in LINES), "utf-8", "row names"),
    ],
)
def test_a_file_that_cannot_be_read_as_it_is_says_what_to_do(
    content: str, encoding: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode(encoding))
    with pytest.raises(DataError, match=re.escape(words)):
        open_input(tmp_path / "t.csv", Dialect())
    if encoding != "utf-8":
        _, plan = drafted(tmp_path, tmp_path / "t.csv")
        assert plan.schema.dialect.encoding == encoding
        assert check(plan, open_input(tmp_path / "t.csv", plan.schema.dialect)).ok


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_excels_delimiter_line_is_read(end: str, tmp_path: Path) -> None:
    text = end.join(["sep=;", HEADER.strip(), *LINES, "1;2", "3,3,ja"]).replace(",", ";")
    (tmp_path / "t.csv").write_bytes(text.encode())
    source = open_input(tmp_path / "t.csv", Dialect())
    (batch,) = source.batches(1000)
    assert source.delimiter == ";" and source.columns == ("a", "b", "y")
    assert batch.malformed["row"].to_list() == [60] and batch.rows.tolist() == [*range(60), 61]


def test_lines_and_cells_may_be_of_any_length(tmp_path: Path) -> None:
    names = [f"a_name_that_is_long_enough_to_fill_the_head_of_the_file_soon_{i:04d}" for i in range(5001)]
    (tmp_path / "wide.csv").write_text(",".join(names) + "\n" + ",".join(["1.5"] * 5001) + "\n")
    assert len(open_input(tmp_path / "wide.csv", Dialect()).columns) == 5001
    cells = ["x" * 200_000, "k", "x" * 9_000_000, "k"]
    (tmp_path / "long.csv").write_text("a,b\n" + "".join(f"{c},1\n" for c in cells) + "1\n" + "k,2\n")
    batches = list(open_input(tmp_path / "long.csv", Dialect()).batches(3))
    lengths = pl.concat([b.frame for b in batches])["a"].str.len_chars().to_list()
    assert lengths == [200_000, 1, 9_000_000, 1, 1]
    assert pl.concat([b.malformed for b in batches])["row"].to_list() == [4]
    assert np.concatenate([b.rows for b in batches]).tolist() == [0, 1, 2, 3, 5]


# What follows runs through every verb, with few and cheap candidates.

Verbs = Callable[..., tuple[Any, list[pl.DataFrame]]]


@pytest.fixture
def verbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verbs:
    """Return a function that drafts, checks, runs (one holdout), and scores each file given."""
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, epochs=3, trees=30))

    def through(data: Path, target: str, *to_score: Path, **options: str) -> tuple[Any, list[pl.DataFrame]]:
        draft, _ = drafted(tmp_path, data, target, **options)
        text = re.sub(r"(#.*\n)*\[split\]\n(.+\n)+", "", draft.recipe_path.read_text()).split("[candidates")[0]
        text += '[candidates]\nwithout = ["catboost", "blend"]\n[candidates.adapt]\n'
        draft.recipe_path.write_text(text)
        assert tabkit.check(str(draft.recipe_path), data).ok
        result = tabkit.run(str(draft.recipe_path), data, out=tmp_path / "run", budget="quick").result
        answers = []
        for i, file in enumerate(to_score):
            scored = tabkit.score(tmp_path / "run" / "bundle", file, tmp_path / f"out{i}.csv")
            assert scored.rows_in == scored.rows_scored
            answers.append(pl.read_csv(tmp_path / f"out{i}.csv", infer_schema=False))
        return result, answers

    return through


def best(result: Any) -> float:
    scores = [c.score(result.primary, "holdout") for c in result.candidates]
    return max(score.value for score in scores if score is not None)


def signal(columns: dict[str, Any], score: np.ndarray) -> dict[str, Any]:
    noise = rng().normal(size=len(score))
    return {**columns, "y": np.where(score / score.std() + 0.4 * noise > 0, "yes", "no")}


@pytest.mark.slow
def test_amounts_and_shares_carry_what_they_say(verbs: Verbs, tmp_path: Path) -> None:
    one = rng()
    rate, fee, sales = (one.permutation(ROWS * 3) for _ in range(3))
    rate, fee, sales = rate / 30, fee * 1.7 + 5, (sales + 300).astype(int)
    columns = {
        "rate": [f"{v:.2f}%" for v in rate],
        "fee": [f"${v:,.2f}" for v in fee],
        "sales": [f"{v:,}" for v in sales],
    }
    score = (rate - rate.mean()) / rate.std() - (fee - fee.mean()) / fee.std()
    result, _ = verbs(written(tmp_path, signal(columns, score)), "y")
    assert best(result) > 0.9 and set(result.features.columns) == {"rate", "fee", "sales"}


@pytest.mark.slow
def test_three_classes_one_of_them_none(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=900)
    damage = np.array(["None", "Mild", "Severe"])[np.digitize(x + 0.2 * rng().normal(size=900), [-0.4, 0.4])]
    result, (answers,) = verbs(written(tmp_path, {"x": x, "y": damage}), "y", tmp_path / "t.csv")
    assert result.classes == ("Mild", "None", "Severe") and result.rows.unlabelled == 0
    assert "probability_None" in answers.columns


@pytest.mark.slow
def test_half_grades_are_the_same_classes_in_every_part(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=600)
    grades = np.array(["1", "1.5", "2"])[np.digitize(x, [-0.5, 0.5])]
    grades[:20] = "1.0"
    result, _ = verbs(written(tmp_path, {"x": x + 0.2 * rng().normal(size=600), "y": grades}), "y", task="multiclass")
    assert result.classes == ("1", "1.5", "2")


@pytest.mark.slow
def test_pandas_index_and_spellings_of_the_same_row_do_not_change_a_prediction(verbs: Verbs, tmp_path: Path) -> None:
    n = ROWS
    x, member = rng().normal(size=n).round(3), rng().random(n) < 0.5
    days = [DAY + timedelta(days=int(i)) for i in rng().integers(0, 300, n)]
    columns = {"": np.arange(n), "x": x, "member": member, "day": days}
    train = written(tmp_path, signal(columns, x + member))
    plain = pl.DataFrame(columns).drop("").head(40)
    spellings = [
        plain,
        plain.with_columns(member=pl.col("member").cast(pl.Float64)),
        plain.with_columns(day=pl.col("day").cast(pl.String) + " 00:00:00"),
        pl.DataFrame(columns).head(40),
    ]
    files = [tmp_path / f"s{i}.csv" for i in range(len(spellings))]
    for file, frame in zip(files, spellings, strict=True):
        frame.write_csv(file)
    plain.write_parquet(tmp_path / "s.parquet")
    result, answers = verbs(train, "y", *files, tmp_path / "s.parquet")
    assert set(result.features.columns) == {"x", "member", "day"}
    assert all(answer.equals(answers[0]) for answer in answers)


@pytest.mark.slow
def test_ids_come_back_as_they_were(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=ROWS)
    train = written(tmp_path, signal({"customer_id": np.arange(ROWS) * 7 + 100_000, "x": x}, x))
    ids = ["W-17", "000123", " 5 ", "100007"]
    texts_ = written(tmp_path, {"customer_id": ids, "x": x[:4]}, "texts.csv")
    numbers, none = tmp_path / "numbers.parquet", written(tmp_path, {"x": x[:4]}, "none.csv")
    pl.DataFrame({"customer_id": [1, 2, 3, 4], "x": x[:4]}).write_parquet(numbers)
    _, (of_texts, of_numbers, of_none) = verbs(train, "y", texts_, numbers, none)
    assert of_texts["customer_id"].to_list() == ids and of_numbers["customer_id"].to_list() == ["1", "2", "3", "4"]
    assert of_none["row"].to_list() == ["0", "1", "2", "3"]
    assert of_none["prediction"].equals(of_texts["prediction"])
    scored = tabkit.score(tmp_path / "run" / "bundle", none, tmp_path / "out.parquet")
    assert scored.without_id == "customer_id"
    tabkit.score(tmp_path / "run" / "bundle", numbers, tmp_path / "out.parquet", force=True)
    assert pl.read_parquet(tmp_path / "out.parquet")["customer_id"].dtype == pl.Int64
    for file, dtype in ((texts_, pl.String), (train, pl.Int64)):  # text becomes numbers only if all of it may
        tabkit.score(tmp_path / "run" / "bundle", file, tmp_path / "out.parquet", chunk_rows=1, force=True)
        assert pl.read_parquet(tmp_path / "out.parquet")["customer_id"].dtype == dtype
    from tabkit.bundle import load_bundle

    predicted = load_bundle(tmp_path / "run" / "bundle").predict(pl.read_csv(texts_, infer_schema=False))
    assert predicted["customer_id"].to_list() == ids


HOSTILE = [
    "", "*", "^x.*$", "xy", "count", "prediction", "prediction_low", "probability_yes", "probability_x", "row", "target",
    "index", "len", "literal", "typed:a", "raw:a", "n", "name", "a b", 'q"uote', "{json}", "[x]", "a,b", "a:b", "match", "linear",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("target", ["y", "", "*", "^x.*$", "count", "prediction", "target"])
def test_any_column_name_goes_through_every_verb(target: str, verbs: Verbs, tmp_path: Path) -> None:
    names = [name for name in HOSTILE if name != target]
    columns = {name: rng().permutation(200) / 50 for name in names[:-1]} | {names[-1]: np.arange(200) / 50}
    score = columns[names[0]] - columns[names[-1]]
    named = signal(columns, score)
    path = written(tmp_path, {**columns, target: named["y"]})
    pl.DataFrame(columns).write_parquet(tmp_path / "new.parquet")
    result, (with_target, without) = verbs(path, target, path, tmp_path / "new.parquet")
    assert set(result.features.columns) == set(names) and best(result) > 0.7
    assert with_target["probability_yes"].equals(without["probability_yes"])


@pytest.mark.slow
def test_a_target_of_numbers_may_be_called_prediction(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=ROWS)
    path = written(tmp_path, {"prediction_low": x, "count": rng().normal(size=ROWS), "prediction": 2 * x + 1})
    pl.read_csv(path).drop("prediction").write_csv(tmp_path / "new.csv")
    draft_text = (tmp_path / "new.csv").read_text()
    assert "prediction_low" in draft_text
    result, (answers,) = verbs(path, "prediction", tmp_path / "new.csv")
    assert result.features.columns == ("count",) or "prediction_low" in result.features.columns
    assert answers.columns == ["row", "prediction", "prediction_low", "prediction_high"]


@pytest.mark.slow
def test_a_trailing_delimiter_is_an_empty_column(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=ROWS).round(3)
    frame = pl.DataFrame(signal({"x": x}, x))
    (tmp_path / "t.csv").write_text(frame.write_csv().replace("\n", ",\n"))
    result, _ = verbs(tmp_path / "t.csv", "y", tmp_path / "t.csv")
    assert result.features.columns == ("x",) and best(result) > 0.8


@pytest.mark.slow
def test_lines_longer_than_131072_characters_run(verbs: Verbs, tmp_path: Path) -> None:
    values = rng().normal(size=(100, 150))
    columns = {f"v{i}": [f"{v:.900f}" for v in values[:, i]] for i in range(150)}
    path = written(tmp_path, signal(columns, values[:, 0]))
    assert max(map(len, path.read_text().splitlines())) > 131_072
    result, _ = verbs(path, "y", path)
    assert len(result.features.columns) == 150


def trend(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers (n,) in a random order, and what they decide (n,)."""
    values = rng().permutation(n).astype(float)
    return values, values - values.mean()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["grouped thousands", "a price beside a list", "no-break spaces", "called prediction"])
def test_a_number_decides_whatever_its_writing_and_its_name(case: str, verbs: Verbs, tmp_path: Path) -> None:
    values, score = trend(600)
    columns: dict[str, Any] = {
        "grouped thousands": {"v": [f"{int(x * 9) + 300:,}" for x in values]},  # "4,311" beside 410
        "a price beside a list": {"v": [f"{x / 40:.3f}" for x in values], "slots": ["2,4", "1,3"] * 300},
        "no-break spaces": {"v": [f"{x * 90 + 10_000:,.2f}".replace(",", "\u00a0").replace(".", ",") for x in values]},
        "called prediction": {"prediction": values},
    }[case]
    path = written(tmp_path, signal(columns, score), delimiter=";" if case == "no-break spaces" else ",")
    if case == "no-break spaces":
        path.write_text(path.read_text(encoding="utf-8"), encoding="cp1252")
    result, (answers,) = verbs(path, "y", path)
    assert best(result) > 0.9 and answers.height == 600


@pytest.mark.slow
@pytest.mark.parametrize("write", ["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d"])
def test_a_run_by_time_holds_out_the_latest(write: str, verbs: Verbs, tmp_path: Path) -> None:
    n, three = 300, write == "%Y-%m-%d"  # of rows on three dates only, the last is held out
    x = rng().normal(size=n)
    start = datetime(2023, 1, 2, 0, 40, 50, 547776)
    times = [start + (timedelta(days=40 * (i // 100)) if three else timedelta(hours=7 * i)) for i in range(n)]
    path = written(tmp_path, signal({"seen_at": [t.strftime(write) for t in times], "x": x}, x))
    result, _ = verbs(path, "y", path, time="seen_at")
    held = pl.read_parquet(tmp_path / "run" / "holdout_predictions.parquet")["row"]
    assert result.split.kind == "temporal" and held.min() == n - len(held) and (len(held) == 100 or not three)


@pytest.mark.slow
def test_epochs_and_tiny_units_get_the_same_verdict(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=(400, 2))
    y = (20 * x[:, 0] - 5 * x[:, 1] + 4 * rng().normal(size=400)).round(3)
    found = []
    for i, target in enumerate((y, y + 1.7e9, y * 1e-11)):
        (folder := tmp_path / str(i)).mkdir()
        path = written(folder, {"a": x[:, 0], "b": x[:, 1], "y": target})
        result, _ = verbs(path, "y", task="regression")
        scores = [c.score("r2", "holdout") for c in result.candidates]
        found.append((result.verdict.decision, [round(s.value, 3) for s in scores if s is not None]))
        for part in ("run", "domains", "data_schemas"):
            (tmp_path / part).rename(folder / part)
    assert found[0] == found[1] == found[2] and max(found[0][1]) > 0.9


@pytest.mark.slow
def test_of_two_scorings_to_one_output_the_second_is_refused(verbs: Verbs, tmp_path: Path) -> None:
    x = rng().normal(size=ROWS)
    path = written(tmp_path, signal({"x": x}, x))
    other = tmp_path / "other.csv"
    pl.read_csv(path).reverse().write_csv(other)
    verbs(path, "y")
    bundle, out, refused = tmp_path / "run" / "bundle", tmp_path / "out.csv", []

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(UsageError, match="being written by another scoring"):
            tabkit.score(bundle, other, out)
        refused.append(done)

    tabkit.score(bundle, path, out, chunk_rows=100, watch=meanwhile)
    tabkit.score(bundle, path, tmp_path / "alone.csv")
    assert len(refused) == 3 and out.read_bytes() == (tmp_path / "alone.csv").read_bytes()
