"""Typing, constraints, rejects, derived columns: what fits goes on typed, what does not is named and kept."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tabkit.data.source import from_frame, open_input
from tabkit.data.validate import RejectedRows, check, needed_columns, read_table
from tabkit.errors import DataError, UsageError
from tabkit.recipe import Plan, load_recipe
from tabkit.schema import Dialect

SCHEMA = """
name = "case"
row = "one record"
[fields.y]
type = "string"
[fields.n]
type = "integer"
unit = "items"
missing = [-9]
constraints = { minimum = 0, maximum = 99 }
[fields.x]
type = "number"
[fields.flag]
type = "boolean"
[fields.day]
type = "date"
format = "%d/%m/%Y"
[fields.code]
type = "string"
constraints = { required = true, unique = true, pattern = "^[A-Z]\\\\d+$" }
[fields.kind]
type = "string"
constraints = { enum = ["a", "b"] }
[fields.later]
type = "number"
known = "at_outcome"
"""
RECIPE = """
name = "test/case"
title = "A test"
schema = "case"
task = "binary"
target = "y"
max_rejected = {max_rejected}
[metrics]
primary = "roc_auc"
{more}
"""
GOOD = "y,n,x,flag,day,code,kind,later\nyes,1,1.5,true,31/01/2024,A1,a,0\nno,2,-2e3,No,01/02/2024,A2,b,1\n"


def plan(folder: Path, more: str = "", max_rejected: float = 1.0) -> Plan:
    for path, text in (
        (folder / "data_schemas" / "case.toml", SCHEMA),
        (folder / "domains" / "test" / "case.toml", RECIPE.format(max_rejected=max_rejected, more=more)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return load_recipe(str(folder / "domains" / "test" / "case.toml"))


def read(folder: Path, text: str, **options: object) -> tuple[pl.DataFrame, pl.DataFrame]:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    table = read_table(plan(folder, **options), open_input(folder / "t.csv", Dialect()), None)
    assert table.n_input == table.frame.height + table.rejects["row"].n_unique()
    return table.frame, table.rejects


def test_cells_are_typed_by_the_schema(tmp_path: Path) -> None:
    frame, rejects = read(tmp_path, GOOD)
    assert rejects.is_empty()
    assert frame["n"].to_list() == [1, 2] and frame["x"].to_list() == [1.5, -2000.0]
    assert frame["flag"].to_list() == [True, False]
    assert [str(d) for d in frame["day"]] == ["2024-01-31", "2024-02-01"]


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("yes,1.5,1,true,31/01/2024,A3,a,0", "n", "whole number"),
        ("yes,abc,1,true,31/01/2024,A3,a,0", "n", "whole number"),
        ("yes,100,1,true,31/01/2024,A3,a,0", "n", "at most 99 items"),
        ("yes,-1,1,true,31/01/2024,A3,a,0", "n", "at least 0 items"),
        ("yes,1,1;5,true,31/01/2024,A3,a,0", "x", "a number"),
        ("yes,1,1,perhaps,31/01/2024,A3,a,0", "flag", "true or false"),
        ("yes,1,1,true,2024-01-31,A3,a,0", "day", "%d/%m/%Y"),
        ("yes,1,1,true,31/02/2024,A3,a,0", "day", "a date"),
        ("yes,1,1,true,31/01/2024,,a,0", "code", "required"),
        ("yes,1,1,true,31/01/2024,a3,a,0", "code", "matching"),
        ("yes,1,1,true,31/01/2024,A3,c,0", "kind", "one of a, b"),
    ],
)
def test_a_cell_that_does_not_fit_is_rejected_with_its_reason(
    tmp_path: Path, row: str, column: str, words: str
) -> None:
    frame, rejects = read(tmp_path, GOOD + row + "\n")
    assert frame.height == 2
    (line,) = rejects.to_dicts()
    assert (line["row"], line["column"]) == (2, column) and words in line["reason"]
    assert line["file"].endswith("t.csv")


def test_a_row_with_two_faults_is_one_row_and_two_lines(tmp_path: Path) -> None:
    frame, rejects = read(tmp_path, GOOD + "yes,100,1,perhaps,31/01/2024,A3,a,0\n")
    assert frame.height == 2 and rejects["column"].to_list() == ["n", "flag"]


def test_missing_codes_of_schema_and_field(tmp_path: Path) -> None:
    frame, rejects = read(tmp_path, GOOD + "yes,-9,NA,,,A3,a,0\n")
    assert rejects.is_empty()
    assert frame.row(2, named=True) | {"later": None} == {
        "y": "yes", "n": None, "x": None, "flag": None, "day": None, "code": "A3", "kind": "a", "later": None,
    }  # fmt: skip


def test_long_integers_are_exact(tmp_path: Path) -> None:
    big = 2**53 + 1
    schema = SCHEMA.replace("constraints = { minimum = 0, maximum = 99 }", "")
    case = plan(tmp_path)
    (tmp_path / "data_schemas" / "case.toml").write_text(schema)
    case = load_recipe(str(case.path))
    (tmp_path / "t.csv").write_text(GOOD.replace("yes,1,", f"yes,{big},"))
    table = read_table(case, open_input(tmp_path / "t.csv", Dialect()), None)
    assert table.frame["n"][0] == big


def test_decimal_commas_group_thousands_with_points(tmp_path: Path) -> None:
    text = GOOD.replace(",", ";").replace("1.5", "1.234,5").replace("-2e3", "-2000,25")
    frame, rejects = read(tmp_path, text)
    assert frame.is_empty() and "state decimal = ','" in rejects["reason"][0]
    for stated in (
        SCHEMA + '[dialect]\ndecimal = ","\n',
        SCHEMA.replace('[fields.x]\ntype = "number"', '[fields.x]\ntype = "number"\ndecimal = ","'),
    ):
        case = plan(tmp_path)
        case.schema_path.write_text(stated)
        case = load_recipe(str(case.path))
        frame = read_table(case, open_input(tmp_path / "t.csv", case.schema.dialect), None).frame
        assert frame["x"].to_list() == [1234.5, -2000.25]


def test_typed_files_need_no_text(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"y": ["a", "b"], "n": [1.0, -9.0], "x": [float("nan"), 2.0], "flag": [1, 0], "code": ["A1", "A2"]}
    )
    frame = frame.with_columns(day=pl.lit(None, pl.Date), kind=pl.lit("a"), later=0.0)
    table = read_table(plan(tmp_path), from_frame(frame, "memory"), None)
    assert table.rejects.is_empty()
    assert table.frame["n"].to_list() == [1, None] and table.frame["x"].to_list() == [None, 2.0]
    assert table.frame["flag"].to_list() == [True, False]


def test_more_rejects_than_allowed_stop_the_run_and_are_not_lost(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD + "yes,abc,1,true,31/01/2024,A3,a,0\n")
    with pytest.raises(RejectedRows, match="1 of 3 rows") as problem:
        read_table(plan(tmp_path, max_rejected=0.1), open_input(tmp_path / "t.csv", Dialect()), None)
    assert problem.value.rejects["value"].to_list() == ["abc"]


def test_missing_and_misspelt_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD.replace("kind", "knid"))
    with pytest.raises(DataError, match=r"'kind' is missing.*Did you mean 'knid'"):
        read_table(plan(tmp_path), open_input(tmp_path / "t.csv", Dialect()), None)


def test_the_fingerprint_ignores_order_and_format_and_sees_every_cell(tmp_path: Path) -> None:
    case = plan(tmp_path)
    lines = GOOD.splitlines()
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "b.csv").write_text("\n".join([lines[0], lines[2], lines[1]]) + "\n")
    (tmp_path / "c.csv").write_text(GOOD.replace("A2", "A9"))
    prints = [read_table(case, open_input(tmp_path / f"{n}.csv", Dialect()), None).fingerprint for n in "abc"]
    first = read_table(case, open_input(tmp_path / "a.csv", Dialect()), None)
    first.frame.with_columns(pl.col("day").cast(pl.String)).drop("day").with_columns(
        day=first.frame["day"]
    ).write_parquet(tmp_path / "d.parquet")
    prints.append(read_table(case, open_input(tmp_path / "d.parquet", Dialect()), None).fingerprint)
    assert prints[0] == prints[1] == prints[3] != prints[2]


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("x / later", "only known at the outcome"),
        ("x / AVG(x)", "depends on other rows"),
        ("x - LAG(x)", "LAG"),
        ("SUM(x) OVER (PARTITION BY kind)", "depends on other rows"),
        ("x / nn", "Did you mean 'n'"),
        ("x +", "not an SQL expression"),
    ],
)
def test_derived_columns_that_would_cheat(tmp_path: Path, sql: str, words: str) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    case = plan(tmp_path, f'[derived]\nratio = "{sql}"')
    with pytest.raises(UsageError, match=words):
        read_table(case, open_input(tmp_path / "t.csv", Dialect()), None)


def test_derived_columns_of_the_target_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    with pytest.raises(UsageError, match="only known at the outcome"):
        read_table(
            plan(tmp_path, "[derived]\nleak = \"CASE WHEN y = 'yes' THEN 1 ELSE 0 END\""),
            open_input(tmp_path / "t.csv", Dialect()),
            None,
        )


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ('[derived]\nhalf = "xx / 2"', "[derived] key 'half' uses 'xx'"),
        ('[derived]\nhalf = "x /"', "[derived] key 'half': 'x /' is not an SQL expression"),
        ('[[slices]]\nname = "few"\nwhere = "nn < 3"', "[[slices]] 'few' key 'where' uses 'nn'"),
        ('[source]\nwhere = "nn < 3"', "[source] key 'where' uses 'nn'"),
        ('[value]\nunit = "USD"\nact_when = "above"\nacted = "xx"', "[value] key 'acted' uses 'xx'"),
    ],
)
def test_an_expression_that_does_not_fit_says_where_it_stands(tmp_path: Path, more: str, place: str) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    source = open_input(tmp_path / "t.csv", Dialect())
    for verb in (lambda case: read_table(case, source, None), lambda case: check(case, source)):
        with pytest.raises(UsageError) as problem:
            verb(plan(tmp_path, more))
        assert "case.toml" in str(problem.value) and place in str(problem.value)
        assert "uses" not in place or "Did you mean" in str(problem.value)


def test_derived_columns_may_build_on_one_another(tmp_path: Path) -> None:
    frame, _ = read(tmp_path, GOOD, more='[derived]\nhalf = "x / 2"\nquarter = "half / 2"')
    assert frame["quarter"].to_list() == [0.375, -500.0]


def test_scoring_needs_no_target_and_only_the_features_in_use(tmp_path: Path) -> None:
    case = plan(tmp_path, '[derived]\nhalf = "x / 2"')
    assert needed_columns(case, False, ["half", "kind"]) == ["x", "kind"]
    assert "y" not in needed_columns(case, False) and "later" not in needed_columns(case, False)
    assert "y" in needed_columns(case, True)


def test_check_lists_every_kind_of_failure_with_count_and_rows(tmp_path: Path) -> None:
    bad = "yes,100,1,true,31/01/2024,A2,c,0\n" * 7 + "yes,1\n"
    (tmp_path / "t.csv").write_text(GOOD + bad)
    report = check(plan(tmp_path), open_input(tmp_path / "t.csv", Dialect()))
    assert report.n_rows == 10 and not report.ok
    found = {(f.column, f.message.split(",")[0].split(" (")[0]): f for f in report.failures}
    high = found["n", "expected at most 99 items"]
    assert high.count == 7 and high.first_rows == (2, 3, 4, 5, 6) and high.example == "100"
    assert found["kind", "expected one of a"].count == 7
    assert found["code", "expected every value once"].count == 8
    assert any(f.column == "" and "found 2" in f.message for f in report.failures)


def test_check_numbers_repeated_values_by_their_rows_in_the_input(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD + "too,short\n" + "yes,1,1,true,31/01/2024,A2,a,0\n")
    report = check(plan(tmp_path), open_input(tmp_path / "t.csv", Dialect()))
    (repeated,) = [f for f in report.failures if "once" in f.message]
    assert repeated.first_rows == (1, 3) and repeated.count == 2


def test_check_passes_what_fits_and_names_one_class(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(GOOD)
    assert check(plan(tmp_path), open_input(tmp_path / "t.csv", Dialect())).ok
    (tmp_path / "t.csv").write_text(GOOD.replace("no,2", "yes,2"))
    report = check(plan(tmp_path), open_input(tmp_path / "t.csv", Dialect()))
    assert any("one value only" in f.message for f in report.failures)
