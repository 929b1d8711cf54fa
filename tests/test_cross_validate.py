"""Folds side by side, folds kept: the same numbers whichever process measured them, and nothing measured twice."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import BINARY, holds_pickle, signal_table, write_recipe

import tabkit
from tabkit import learner
from tabkit.adapt import tables
from tabkit.data.split import Split
from tabkit.errors import UsageError
from tabkit.evaluate.tables import TableFound
from tabkit.workflow.folds import FINDINGS, PREDICTIONS, kept, measure_folds
from tabkit.workflow.procedure import Procedure

LIGHT = BINARY + "[split]\nfolds = 3\n[candidates]\nwithout = ['catboost']\n[candidates.adapt]\ntabnet = ['full']\n"
RECIPE = LIGHT.replace("tabnet = ['full']", "icl = ['head']") + "[[ablations]]\nname = 'without x0'\ndrop = ['x0']\n"
TIMES = ("seconds", "cpu_seconds", "peak_mb", "created", "command", "holdout_opened", "cpu_hours", "energy", "cost")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, epochs=2, trees=20))


@pytest.fixture
def task(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., dict[str, Any]]:
    frame = signal_table(150)
    recipe = str(write_recipe(tmp_path, frame, getattr(request, "param", LIGHT)))
    frame.write_parquet(tmp_path / "d.parquet")

    def run(name: str, seed: int = 0, jobs: int = 1, **more: Any) -> dict[str, Any]:
        out = tmp_path / "runs" / name
        done = tabkit.run(recipe, data=tmp_path / "d.parquet", out=out, seed=seed, budget="quick", jobs=jobs, **more)
        return done.result.model_dump(mode="json")

    return run


def different(one: Any, other: Any, at: str = "") -> list[str]:
    """Return the places where two results differ, but for those that tell of time and memory."""
    if isinstance(one, dict) and one.keys() == other.keys():
        if one.get("code") == "holdout_reopened":
            return []
        keys = [k for k in one if not any(part in k for part in TIMES)]
        return [place for k in keys for place in different(one[k], other[k], f"{at}.{k}")]
    if isinstance(one, list) and len(one) == len(other):
        return [
            place for k, (a, b) in enumerate(zip(one, other, strict=True)) for place in different(a, b, f"{at}[{k}]")
        ]
    return [] if one == other else [f"{at}: {one} | {other}"]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the folds that are measured in this process."""
    done: list[int] = []
    find = Procedure.find

    def spy(self: Procedure, split: Split, *rest: Any) -> TableFound:
        done.append(split.fold)
        return find(self, split, *rest)

    monkeypatch.setattr(Procedure, "find", spy)
    return done


def stop_at_the_bundle(task: Callable[..., dict[str, Any]]) -> None:
    """Measure every fold, and leave them behind."""

    def stop(stage: str, fraction: float, note: str) -> None:
        if stage == "bundle":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task("stopped", watch=stop)


@pytest.mark.parametrize("task", [RECIPE], indirect=True)
def test_processes_give_the_numbers_of_one(task: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    one = task("one")
    two = task("two", jobs=2, watch=lambda stage, fraction, note: seen.append((stage, fraction)))
    assert different(one, two) == []
    predictions = [pl.read_parquet(tmp_path / "runs" / name / "holdout_predictions.parquet") for name in ("one", "two")]
    assert predictions[0].equals(predictions[1])
    assert [fraction for stage, fraction in seen if stage == "folds"] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert not list((tmp_path / "runs").glob(".folds-*"))  # the run is written: nothing more to keep


def test_what_is_bundled_is_chosen_on_all_rows(
    task: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with the settings that one fold happened to find."""
    seen: list[tuple[int, tuple[str, ...]]] = []
    make_all = tables.make_all

    def spy(todo: Any, origins: Any, train: Any, valid: Any) -> Any:
        seen.append((len(train) + len(valid), tuple(item.name for item in todo)))
        return make_all(todo, origins, train, valid)

    monkeypatch.setattr(tables, "make_all", spy)
    result = task("done")
    champion = next(c for c in result["candidates"] if c["name"] == result["champion"])
    assert [rows for rows, _ in seen] == [100, 100, 100, 150]
    assert sorted(seen[-1][1]) == sorted(champion["members"] or (champion["name"],))
    assert any("settings found on all rows" in note for note in champion["notes"])


def test_an_interrupted_run_goes_on_after_its_folds(
    task: Callable[..., dict[str, Any]], tmp_path: Path, measured: list[int]
) -> None:
    def stop_in_the_third(stage: str, fraction: float, note: str) -> None:
        if len(measured) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        task("cut", watch=stop_in_the_third)
    (place,) = (tmp_path / "runs").glob(".folds-*")
    assert measured == [0, 1, 2] and sorted(p.name for p in place.iterdir()) == ["fold-1", "fold-2"]
    assert not (tmp_path / "runs" / "cut").exists()
    (place / "fold-2" / PREDICTIONS).write_bytes(b"cut short")  # as a full disk may leave it

    said: list[str] = []
    resumed = task("cut", watch=lambda stage, fraction, note: said.append(note))
    assert measured[3:] == [1, 2] and any("1 of 3 are kept" in note for note in said)
    assert not place.exists()
    assert different(resumed, task("whole")) == []
    assert resumed["holdout_opened"] == 2  # the fold that was measured twice says so


def test_folds_of_another_run_are_not_taken(
    task: Callable[..., dict[str, Any]], tmp_path: Path, measured: list[int]
) -> None:
    stop_at_the_bundle(task)
    stop_at_the_bundle(task)
    assert measured == [0, 1, 2]
    task("other seed", seed=1)
    assert measured[3:] == [0, 1, 2]
    frame = signal_table(151)
    frame.write_parquet(tmp_path / "d.parquet")
    task("other rows")
    assert measured[6:] == [0, 1, 2]


@pytest.mark.parametrize("task", [RECIPE], indirect=True)
def test_what_is_kept_is_plain_and_makes_nothing_unforeseen(
    task: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    stop_at_the_bundle(task)
    (place,) = (tmp_path / "runs").glob(".folds-*")
    fold = place / "fold-1"
    assert {path.name for path in fold.iterdir()} == {FINDINGS, PREDICTIONS}
    assert not any(holds_pickle(path.read_bytes()) for path in fold.iterdir())
    found = kept(fold)
    assert found is not None and found.findings.candidate("icl_head").title.endswith("(head only)")
    assert found.findings.candidate("icl_head").weights["icl"].source == "shipped"
    document = json.loads((fold / FINDINGS).read_text(encoding="utf-8"))
    document["verdict"]["$"] = "Popen"  # whatever is no fact of the vocabulary is left unread
    (fold / FINDINGS).write_text(json.dumps(document), encoding="utf-8")
    again = kept(fold)
    assert again is not None and again.findings == found.findings
    document["verdict"]["decision"] = "Popen"
    (fold / FINDINGS).write_text(json.dumps(document), encoding="utf-8")
    assert kept(fold) is None and kept(place / "fold-9") is None


def test_the_measured_model_cannot_be_shipped_where_there_is_one_a_fold(tmp_path: Path) -> None:
    frame = signal_table(150)
    recipe = str(write_recipe(tmp_path, frame, LIGHT + '[bundle]\ntrain_on = "train"\n'))
    frame.write_parquet(tmp_path / "d.parquet")
    with pytest.raises(UsageError, match=r"one model\s+per fold"):
        tabkit.run(recipe, data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick")


def test_jobs_without_folds_are_refused(tmp_path: Path) -> None:
    frame = signal_table(150)
    recipe = str(write_recipe(tmp_path, frame, BINARY))
    frame.write_parquet(tmp_path / "d.parquet")
    with pytest.raises(UsageError, match="--jobs 2: folds are measured side by side, and this recipe has one holdout"):
        tabkit.run(recipe, data=tmp_path / "d.parquet", out=tmp_path / "out", budget="quick", jobs=2)


class EndsItsProcess:
    """Stands for a procedure whose process is ended from outside, as for want of memory."""

    budget = learner.BUDGETS["quick"]

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


def test_a_process_that_is_ended_is_told(tmp_path: Path) -> None:
    rows = np.arange(12)
    splits = tuple(Split("random", rows[rows % 2 != k], rows[:0], rows[rows % 2 == k], None, "", k, 2) for k in (0, 1))
    with pytest.raises(UsageError, match=r"(?s)memory.*kept in .*fewer --jobs than 2"):
        measure_folds(EndsItsProcess(), splits, tmp_path / "kept", 2, lambda *_: None)  # type: ignore[arg-type]
