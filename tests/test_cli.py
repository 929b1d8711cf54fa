"""The command line as a user meets it: one clear message, the right exit code, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import BINARY, signal_table, write_recipe
from pydantic import TypeAdapter
from run_folders import make_result
from typer.testing import CliRunner

from tabkit import catalogue
from tabkit.cli import app
from tabkit.errors import UsageError
from tabkit.result import Result


def tabkit(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tabkit", *map(str, words)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    """A recipe that adapts nothing, and its table as CSV."""
    frame = signal_table(200)
    recipe = write_recipe(tmp_path, frame, BINARY + "[candidates]\nadapt = {}\nwithout = ['catboost']\n")
    frame.write_csv(tmp_path / "data.csv")
    return recipe, tmp_path / "data.csv"


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    for word in words:
        assert word in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["does not exist"]),
        (b"", ["empty"]),
        (b"x0,x1,x2,x3,x4,kind,y\n", ["no rows"]),
        (b"x0,x1,x2,x3,x4,kind\n1,1,1,1,1,a\n", ["'y'"]),
        ("x0,x1,x2,x3,x4,kind,y\n1,1,1,1,1,caf\xe9,yes\n".encode("cp1252"), ["UTF-8", "encoding"]),
    ],
)
def test_bad_files(case: tuple[Path, Path], tmp_path: Path, content: bytes | None, words: list[str]) -> None:
    recipe, _ = case
    bad = tmp_path / "bad.csv"
    if content is not None:
        bad.write_bytes(content)
    refused(tabkit("run", recipe, "--data", bad, "--out", tmp_path / "out"), 3, *words)
    assert not (tmp_path / "out").exists()


def test_zero_byte_parquet(case: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"")
    refused(tabkit("run", case[0], "--data", tmp_path / "bad.parquet", "--out", tmp_path / "out"), 3, "empty")


def test_wrong_type_everywhere_loses_nothing(case: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = case
    lines = data.read_text().splitlines()
    broken = [lines[0], *("oops," + line.split(",", 1)[1] for line in lines[1:])]
    (tmp_path / "bad.csv").write_text("\n".join(broken))
    refused(tabkit("run", recipe, "--data", tmp_path / "bad.csv", "--out", tmp_path / "out"), 3, "x0", "rejects.csv")
    assert (tmp_path / "out" / "rejects.csv").read_text().count("oops") >= 200


def test_a_full_disk_is_noticed_before_the_work(
    case: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from tabkit.workflow import run

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3 * 2**20))
    with pytest.raises(UsageError, match="3 MB are free"):
        run(str(case[0]), data=case[1], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_names_and_typos(case: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = case
    refused(tabkit("run", "finance/loan_defalt"), 2, "Did you mean 'finance/loan_default'")
    refused(tabkit("run", recipe, "--dta", data), 2, "--data")
    refused(tabkit("run", recipe, "--budget", "fast"), 2, "quick")
    refused(tabkit("scor"), 2, "score")
    recipe.write_text(recipe.read_text().replace("target =", "taget ="))
    refused(tabkit("run", recipe, "--data", data), 2, "taget", "target", recipe.name)
    recipe.write_text("name = [")
    refused(tabkit("run", recipe, "--data", data), 2, "TOML")


def test_unwritable_output(case: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = case
    refused(tabkit("run", recipe, "--data", data, "--out", "/proc/nowhere/out"), 2, "cannot be written")
    (tmp_path / "file").write_text("")
    refused(tabkit("run", recipe, "--data", data, "--out", tmp_path / "file" / "out"), 2, "cannot be written")


def test_broken_bundle_is_exit_4(case: tuple[Path, Path], tmp_path: Path) -> None:
    refused(tabkit("score", tmp_path, case[1], "--out", tmp_path / "s.csv"), 4, "manifest.json")


def test_run_score_compare_report_check_show_list(case: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = case
    done = tabkit("run", recipe, "--data", data, "--out", tmp_path / "one", "--budget", "quick")
    assert done.returncode == 0, done.stderr
    assert "use_baseline" in done.stdout and "lgbm_tuned" in done.stdout and "report.html" in done.stdout
    as_json = tabkit(
        "run", recipe, "--data", data, "--out", tmp_path / "two", "--budget", "quick", "--seed", 1, "--json"
    )
    assert json.loads(as_json.stdout)["verdict"]["decision"] == "use_baseline"
    scored = tabkit("score", tmp_path / "one" / "bundle", data, "--out", tmp_path / "s.csv", "--json")
    assert json.loads(scored.stdout)["rows_scored"] == 200
    compared = tabkit("compare", tmp_path / "one", tmp_path / "two")
    assert compared.returncode == 0 and "one" in compared.stdout, compared.stderr
    assert tabkit("report", tmp_path / "one").returncode == 0
    checked = tabkit("check", recipe, data)
    assert checked.returncode == 0 and "200 rows fit" in checked.stdout, checked.stdout + checked.stderr
    shown = tabkit("show", recipe)
    assert shown.returncode == 0 and "feature" in shown.stdout
    assert json.loads(tabkit("show", recipe, "--frictionless").stdout)["fields"][0]["name"] == "x0"
    for things in ("recipes", "models", "metrics", "checks"):
        assert isinstance(json.loads(tabkit("list", things, "--json").stdout), list)
    assert tabkit("--version").stdout.startswith("tabkit ")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command line asks of a workflow that finds the same every time."""
    calls: list[dict[str, Any]] = []

    def run(*words: object, **settings: object) -> SimpleNamespace:
        calls.append(settings)
        return SimpleNamespace(
            folder=Path("runs/one"), result=TypeAdapter(Result).validate_python(make_result("binary"))
        )

    monkeypatch.setitem(sys.modules, "tabkit.workflow", SimpleNamespace(run=run))
    return calls


def test_only_settings_that_were_given_are_passed_on(asked: list[dict[str, Any]]) -> None:
    always = {"out", "seed", "budget", "device", "watch", "command"}
    verbs = CliRunner()
    assert verbs.invoke(app, ["run", "finance/loan_default"]).exit_code == 0
    assert asked[0].keys() == always
    given = ["--weights", "icl=a", "--weights", "tabpfn=b=c", "--jobs", "2", "--distill", "--cutoffs", "1"]
    assert verbs.invoke(app, ["run", "finance/loan_default", *given]).exit_code == 0
    assert {k: v for k, v in asked[1].items() if k not in always} == {
        "weights": {"icl": "a", "tabpfn": "b=c"}, "jobs": 2, "distill": True, "cutoffs": 1,
    }  # fmt: skip
    refusal = verbs.invoke(app, ["run", "finance/loan_default", "--weights", "icl"]).exception
    assert isinstance(refusal, UsageError) and "expected BASE=PATH" in str(refusal)


def test_a_result_is_printed_and_given_as_json(asked: list[dict[str, Any]]) -> None:
    verbs = CliRunner()
    text = verbs.invoke(app, ["run", "finance/loan_default"]).output
    assert "* lgbm_tuned" in text and "refused: tabnet" in text and "Checks: 2 passed, 2 failed." in text
    assert "not_enough_evidence: " in text and "runs/one/report.html" in text.replace("\\", "/")
    document = json.loads(verbs.invoke(app, ["run", "finance/loan_default", "--json"]).output)
    assert document.pop("folder") == str(Path("runs/one"))
    assert document == TypeAdapter(Result).validate_python(make_result("binary")).model_dump(mode="json")


def test_twins_return_what_the_verbs_print() -> None:
    printed = tabkit("show", "healthcare/recurrence").stdout
    facts = catalogue.show("healthcare/recurrence")
    assert str(facts).splitlines() == [line.rstrip() for line in printed.splitlines()]
    assert json.loads(json.dumps(asdict(facts)))["facts"]["target"] == "recurred"
    assert catalogue.listing("metrics") == json.loads(tabkit("list", "metrics", "--json").stdout)
    with pytest.raises(UsageError, match="Did you mean 'models'"):
        catalogue.listing("model")


def test_check_lists_failures_and_exits_3(case: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = case
    bad = data.read_text().splitlines()
    bad[4] = "oops," + bad[4].split(",", 1)[1]
    (tmp_path / "bad.csv").write_text("\n".join(bad))
    done = tabkit("check", recipe, tmp_path / "bad.csv")
    assert done.returncode == 3
    assert "x0" in done.stdout and "3" in done.stdout and "oops" in done.stdout


def test_ctrl_c_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = "import sys; from tabkit.cli import main; sys.argv[1:] = sys.argv[1:]; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "finance/loan_default", "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error and "Interrupted" in error
    assert not out.exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.skipif(os.name == "nt", reason="pipes differ on Windows")
def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m tabkit list metrics | head -1", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr
