"""Scoring: every row accounted for, nothing half-written, the same result however it is cut; bundles refuse change."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from conftest import BINARY, holds_pickle, signal_table, write_recipe
from polars.testing import assert_frame_equal

import tabkit
from tabkit import learner
from tabkit.errors import BundleError, DataError, UsageError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    frame = signal_table(500).with_columns(key=pl.Series(range(1000, 1500)))
    recipe = 'id = "key"\n' + BINARY.replace("[metrics]", '[derived]\nsum01 = "x0 + x1"\n[metrics]')
    path = write_recipe(folder, frame, recipe + "[candidates]\nadapt = {}\nwithout = ['catboost']\n")
    schema = folder / "data_schemas" / "case.toml"
    text = schema.read_text().replace("[fields.x0]\n", "[fields.x0]\nconstraints = { required = true, maximum = 50 }\n")
    schema.write_text(text)
    frame.write_parquet(folder / "data.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TABKIT_LEDGER", str(folder / "ledger.jsonl"))
        patch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=3, trees=60))
        return tabkit.run(str(path), data=folder / "data.parquet", out=folder / "run", budget="quick").folder / "bundle"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    frame = signal_table(230, seed=9).with_columns(key=pl.Series(range(230)), extra=pl.lit("ignored"))
    frame.drop("y").write_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_every_row_is_scored_or_rejected_with_its_reason(bundle: Path, tmp_path: Path) -> None:
    frame = signal_table(50, seed=9).with_columns(key=pl.Series(range(50)))
    lines = frame.write_csv().splitlines()
    x0 = lines[0].split(",").index("x0")

    def with_x0(line: str, value: str) -> str:
        cells = line.split(",")
        return ",".join([*cells[:x0], value, *cells[x0 + 1 :]])

    lines[3], lines[5], lines[7] = with_x0(lines[3], "abc"), with_x0(lines[5], "99"), with_x0(lines[7], "")
    lines[10] += ",one too many"
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    done = tabkit.score(bundle, tmp_path / "rows.csv", tmp_path / "out.csv", rejects=tmp_path / "bad.csv", chunk_rows=7)
    assert (done.rows_in, done.rows_scored, done.rows_rejected) == (50, 46, 4)
    out = pl.read_csv(tmp_path / "out.csv")
    assert out.columns == ["key", "prediction", "probability_no", "probability_yes"]
    assert out["key"].to_list() == [i for i in range(50) if i not in (2, 4, 6, 9)]
    bad = pl.read_csv(tmp_path / "bad.csv", infer_schema=False)
    assert bad["row"].to_list() == ["2", "4", "6", "9"]
    assert bad["column"].to_list()[:3] == ["x0"] * 3
    assert "abc" in bad["value"][0] or "abc" in bad["reason"][0]
    assert all(reason for reason in bad["reason"])


@pytest.mark.parametrize("chunk_rows", [1, 7, 64, 10_000])
def test_chunks_and_formats_do_not_change_a_bit(bundle: Path, rows: Path, tmp_path: Path, chunk_rows: int) -> None:
    tabkit.score(bundle, rows, tmp_path / "whole.parquet")
    tabkit.score(bundle, rows, tmp_path / "cut.parquet", chunk_rows=chunk_rows)
    assert_frame_equal(
        pl.read_parquet(tmp_path / "whole.parquet"), pl.read_parquet(tmp_path / "cut.parquet"), check_exact=True
    )
    pl.read_parquet(rows).write_csv(tmp_path / "rows.csv")
    tabkit.score(bundle, tmp_path / "rows.csv", tmp_path / "from_csv.parquet", chunk_rows=chunk_rows)
    assert_frame_equal(
        pl.read_parquet(tmp_path / "whole.parquet"), pl.read_parquet(tmp_path / "from_csv.parquet"), check_exact=True
    )


def test_order_of_rows_only_orders_the_output(bundle: Path, rows: Path, tmp_path: Path) -> None:
    pl.read_parquet(rows).reverse().write_parquet(tmp_path / "reversed.parquet")
    tabkit.score(bundle, rows, tmp_path / "a.parquet")
    tabkit.score(bundle, tmp_path / "reversed.parquet", tmp_path / "b.parquet")
    assert_frame_equal(
        pl.read_parquet(tmp_path / "a.parquet"), pl.read_parquet(tmp_path / "b.parquet").reverse(), check_exact=True
    )


def test_moved_bundle_in_another_process_is_bit_equal(bundle: Path, rows: Path, tmp_path: Path) -> None:
    tabkit.score(bundle, rows, tmp_path / "here.parquet")
    moved = tmp_path / "elsewhere" / "b"
    shutil.copytree(bundle, moved)
    subprocess.run(
        [sys.executable, "-m", "tabkit", "score", str(moved), str(rows), "--out", str(tmp_path / "there.parquet")],
        check=True,
    )
    assert_frame_equal(
        pl.read_parquet(tmp_path / "here.parquet"), pl.read_parquet(tmp_path / "there.parquet"), check_exact=True
    )


def test_the_bundle_scores_like_the_measured_model_when_it_is_that_model(tmp_path: Path) -> None:
    frame = signal_table(400)
    recipe = BINARY + "[candidates]\nadapt = {}\nwithout = ['catboost']\n[bundle]\ntrain_on = 'train'\n"
    path = write_recipe(tmp_path, frame, recipe)
    frame.write_parquet(tmp_path / "d.parquet")
    done = tabkit.run(str(path), data=tmp_path / "d.parquet", out=tmp_path / "run", budget="quick")
    measured = pl.read_parquet(done.folder / "holdout_predictions.parquet").sort("row")
    tabkit.score(done.folder / "bundle", tmp_path / "d.parquet", tmp_path / "s.parquet")
    scored = pl.read_parquet(tmp_path / "s.parquet").filter(pl.col("row").is_in(measured["row"].to_list()))
    assert scored["probability_yes"].to_list() == measured[done.result.champion].to_list()


def test_resume_goes_on_without_loss_or_repeats(bundle: Path, rows: Path, tmp_path: Path) -> None:
    tabkit.score(bundle, rows, tmp_path / "whole.parquet")
    out = tmp_path / "out.parquet"

    def stop(done: int, total: int) -> None:
        if done >= 90:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tabkit.score(bundle, rows, out, chunk_rows=30, watch=stop)
    assert not out.exists()
    with pytest.raises(UsageError, match="another job"):
        tabkit.score(bundle, rows, out, chunk_rows=31, resume=True)
    done = tabkit.score(bundle, rows, out, chunk_rows=30, resume=True)
    assert done.rows_scored == 230
    assert_frame_equal(pl.read_parquet(tmp_path / "whole.parquet"), pl.read_parquet(out), check_exact=True)
    assert not list(tmp_path.glob(".out*"))
    with pytest.raises(UsageError, match="nothing to resume"):
        tabkit.score(bundle, rows, out, resume=True)


def test_an_interruption_while_the_parts_are_joined_leaves_parts_alone(
    bundle: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = pl.read_parquet

    def interrupted(path: Path) -> pl.DataFrame:
        if path.name == "000002.scored.parquet":
            raise KeyboardInterrupt
        return read(path)

    for out in (tmp_path / "out.parquet", tmp_path / "out.csv"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pl, "read_parquet", interrupted)
            tabkit.score(bundle, rows, out, chunk_rows=30)
        assert {p.name for p in tmp_path.glob("*out*")} == {f".{out.name}.parts"}
        assert tabkit.score(bundle, rows, out, chunk_rows=30, resume=True).rows_scored == 230
        out.unlink()


def test_all_rows_rejected_still_writes_the_header(bundle: Path, rows: Path, tmp_path: Path) -> None:
    pl.read_parquet(rows).with_columns(x0=pl.lit(1e6)).write_parquet(tmp_path / "bad.parquet")
    for name in ("out.csv", "out.parquet"):
        done = tabkit.score(bundle, tmp_path / "bad.parquet", tmp_path / name)
        assert (done.rows_scored, done.rows_rejected) == (0, 230)
    assert pl.read_csv(tmp_path / "out.csv").columns == pl.read_parquet(tmp_path / "out.parquet").columns


def test_a_missing_column_is_named_with_its_neighbour(bundle: Path, rows: Path, tmp_path: Path) -> None:
    pl.read_parquet(rows).rename({"kind": "knd"}).write_parquet(tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"'kind' is missing.*Did you mean 'knd'"):
        tabkit.score(bundle, tmp_path / "bad.parquet", tmp_path / "out.csv")
    assert not list(tmp_path.glob("*out*"))


def test_one_flipped_byte_in_any_file_is_refused(bundle: Path, tmp_path: Path) -> None:
    files = sorted(p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file())
    assert {"manifest.json", "manifest.sha256", "recipe.toml", "schema.toml", "encoder.json", "CARD.md"} <= {
        str(f) for f in files
    }
    for name in files:
        copy = tmp_path / "copy"
        shutil.copytree(bundle, copy)
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(BundleError):
            tabkit.load_bundle(copy)
        (copy / name).write_bytes(bytes(content[:-1]))
        with pytest.raises(BundleError):
            tabkit.load_bundle(copy)
        (copy / name).unlink()
        with pytest.raises(BundleError):
            tabkit.load_bundle(copy)
        shutil.rmtree(copy)


def test_no_file_of_a_bundle_is_a_pickle(bundle: Path) -> None:
    for path in (p for p in bundle.rglob("*") if p.is_file()):
        assert not holds_pickle(path.read_bytes()), path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_seen_for_what_it_is(protocol: int) -> None:
    assert holds_pickle(pickle.dumps({"weights": [0.5, print]}, protocol))


def test_manifest_names_what_is_inside(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    inside = {p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == inside - {"manifest.json", "manifest.sha256"}
    assert manifest["format"] == 1 and manifest["classes"] == ["no", "yes"]


def test_a_run_folder_instead_of_its_bundle_is_explained(bundle: Path) -> None:
    with pytest.raises(BundleError, match="is a run folder; its bundle is"):
        tabkit.load_bundle(bundle.parent)


def test_output_that_cannot_be_written(bundle: Path, rows: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected \.csv or \.parquet"):
        tabkit.score(bundle, rows, tmp_path / "out.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        tabkit.score(bundle, rows, tmp_path / "file" / "out.csv")
    with pytest.raises(UsageError, match=r"--rejects .* cannot be written"):
        tabkit.score(bundle, rows, tmp_path / "out.csv", rejects=tmp_path / "file" / "bad.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        tabkit.score(bundle, rows, tmp_path / "folder.csv")
    assert {p.name for p in tmp_path.iterdir()} == {"rows.parquet", "file", "folder.csv"}


def test_no_output_is_written_over_what_is_read(bundle: Path, rows: Path, tmp_path: Path) -> None:
    before = rows.read_bytes()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match=r"--out .* is the input .* would be lost"):
        tabkit.score(bundle, rows, tmp_path / "link" / rows.name)
    with pytest.raises(UsageError, match=r"--rejects .* is the input"):
        tabkit.score(bundle, rows, tmp_path / "out.csv", rejects=rows)
    with pytest.raises(UsageError, match=r"--rejects .* is --out"):
        tabkit.score(bundle, rows, tmp_path / "out.csv", rejects=tmp_path / "out.csv")
    with pytest.raises(UsageError, match="inside the bundle"):
        tabkit.score(bundle, rows, bundle / "out.csv")
    assert rows.read_bytes() == before and tabkit.load_bundle(bundle)


def test_input_that_breaks_leaves_no_parts(bundle: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "header.csv").write_text(",".join(pl.read_parquet(rows).columns) + "\n")
    with pytest.raises(DataError, match="no rows"):
        tabkit.score(bundle, tmp_path / "header.csv", tmp_path / "out.csv")
    assert {p.name for p in tmp_path.iterdir()} == {"rows.parquet", "header.csv"}


def test_rejects_of_an_earlier_scoring_do_not_stay(bundle: Path, rows: Path, tmp_path: Path) -> None:
    pl.read_parquet(rows).with_columns(x0=pl.lit(1e6)).write_parquet(tmp_path / "bad.parquet")
    wrote = tabkit.score(bundle, tmp_path / "bad.parquet", tmp_path / "out.csv").rejects
    assert wrote is not None and wrote.exists()
    assert tabkit.score(bundle, rows, tmp_path / "out.csv", force=True).rejects is None and not wrote.exists()
