"""Packed CSV files and workbooks: the same rows as the plain file, and one sentence where that cannot be."""

from __future__ import annotations

import gzip
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from conftest import signal_table

import tabkit
from tabkit import learner
from tabkit.data.source import open_input
from tabkit.data.validate import check
from tabkit.draft import new
from tabkit.errors import DataError, UsageError
from tabkit.recipe import load_recipe
from tabkit.schema import Dialect

N = 300
NO_ADAPTATION = '[candidates]\nadapt = {}\nwithout = ["catboost"]\n'


def pack(path: Path, ending: str) -> Path:
    """Pack a file beside it."""
    packed = path.with_name(path.name + ending)
    with gzip.open(packed, "wb") if ending.lower() == ".gz" else pa.output_stream(packed, compression="zstd") as out:
        out.write(path.read_bytes())
    return packed


def rows_of(data: Path | str) -> pl.DataFrame:
    return pl.concat([batch.frame for batch in open_input(data, Dialect()).batches(100)])


@pytest.mark.parametrize("ending", [".gz", ".zst", ".GZ"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_packed_file_has_the_rows_of_the_plain_one(tmp_path: Path, ending: str, encoding: str) -> None:
    text = pl.DataFrame({"city": ["Köln", "Łódź"] * N, "n": range(2 * N)}).write_csv(separator=";")
    (tmp_path / "t.csv").write_text(text, encoding=encoding)
    packed = pack(tmp_path / "t.csv", ending)
    assert rows_of(packed).equals(rows_of(tmp_path / "t.csv"))
    assert open_input(packed, Dialect()).count_rows() >= 2 * N - 1


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_packed_file_cut_short_is_refused_before_any_row_is_used(tmp_path: Path, ending: str) -> None:
    signal_table(N).write_csv(tmp_path / "t.csv")
    packed = pack(tmp_path / "t.csv", ending)
    packed.write_bytes(packed.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"t\.csv\.\w+ cannot be unpacked .*cut short"):
        open_input(packed, Dialect())


def test_what_is_packed_must_be_csv(tmp_path: Path) -> None:
    signal_table(N).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="only CSV is read from a packed file"):
        open_input(pack(tmp_path / "t.parquet", ".gz"), Dialect())


def test_a_sheet_has_the_types_that_excel_gave_it(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "amount": [1.5, None, 3.25],
            "n": [1, 2, 3],
            "paid": [True, False, None],
            "day": [date(2024, 1, 31), None, date(2023, 2, 28)],
            "at": [datetime(2024, 1, 31, 12, 30), datetime(2024, 2, 1), None],
            "code": ["0012", "7", None],
        }
    )
    frame.write_excel(tmp_path / "t.xlsx")
    read = rows_of(tmp_path / "t.xlsx")
    for name in ("amount", "n", "paid", "code"):
        assert read[name].to_list() == frame[name].to_list(), name
    assert read["day"].cast(pl.Date).to_list() == frame["day"].to_list()
    assert read["at"].cast(pl.Datetime).to_list() == frame["at"].to_list()


def test_a_workbook_of_several_sheets_is_asked_which(tmp_path: Path) -> None:
    import xlsxwriter

    path = tmp_path / "t.xlsx"
    with xlsxwriter.Workbook(path) as book:
        signal_table(3).write_excel(book, worksheet="Loans")
        signal_table(4).write_excel(book, worksheet="Old loans")
    with pytest.raises(UsageError, match=r"2 sheets \('Loans', 'Old loans'\).*t\.xlsx#Loans"):
        open_input(path, Dialect())
    assert rows_of(f"{path}#Old loans").height == 4
    with pytest.raises(DataError, match=r"no sheet 'Loan'.*Loans"):
        open_input(f"{path}#Loan", Dialect())
    with pytest.raises(DataError, match=r"u\.xlsx does not exist.*t\.xlsx"):
        open_input(tmp_path / "u.xlsx", Dialect())
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match="cannot be read as a workbook"):
        open_input(path, Dialect())


def test_a_title_above_the_column_names_of_a_sheet_is_named(tmp_path: Path) -> None:
    import xlsxwriter

    with xlsxwriter.Workbook(tmp_path / "t.xlsx") as book:
        sheet = book.add_worksheet()
        sheet.write(0, 0, "Loans of 2024")
        for i, row in enumerate(signal_table(5).rows()):
            sheet.write_row(i + 1, 0, row)
    with pytest.raises(DataError, match="the first row names 1 column of 7"):
        open_input(tmp_path / "t.xlsx", Dialect())


@pytest.mark.slow
@pytest.mark.parametrize("ending", [".csv.gz", ".csv.zst", ".xlsx"])
def test_every_verb_takes_them_and_answers_the_same(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, trees=20))
    frame = signal_table(N).with_columns(id=pl.Series([f"r{i}" for i in range(N)]))
    frame.write_csv(tmp_path / "t.csv")
    frame.write_excel(tmp_path / "t.xlsx")
    path = tmp_path / "t.xlsx" if ending == ".xlsx" else pack(tmp_path / "t.csv", ending[4:])
    draft = new("test/case", path, "y", folder=tmp_path)
    recipe = load_recipe(str(draft.recipe_path))
    assert check(recipe, open_input(path, recipe.schema.dialect)).ok
    text = draft.recipe_path.read_text()
    draft.recipe_path.write_text(text.split("[candidates")[0] + NO_ADAPTATION)
    done = tabkit.run(str(draft.recipe_path), data=path, out=tmp_path / "run", budget="quick")
    scored = {}
    for name, data in (("plain", tmp_path / "t.csv"), ("packed", path)):
        out = tmp_path / f"{name}.parquet"
        assert tabkit.score(done.folder / "bundle", data, out).rows_scored == N
        scored[name] = pl.read_parquet(out)
    assert scored["plain"].columns == scored["packed"].columns
    for column in scored["plain"].columns:
        ours, theirs = (scored[name][column].to_numpy() for name in scored)
        assert np.allclose(ours, theirs) if ours.dtype.kind == "f" else (ours == theirs).all()
