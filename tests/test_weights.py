"""One's own weights: where they are named, what is refused, and what is said of them afterwards."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import torch
from conftest import BINARY, signal_table, write_recipe

import tabkit
from tabkit import learner
from tabkit.adapt.candidates import open_weights, wanted
from tabkit.errors import UsageError
from tabkit.models import icl
from tabkit.models.parts.icl_net import IclConfig, IclNet
from tabkit.pretraining.checkpoint import write_weights
from tabkit.recipe import load_recipe
from tabkit.result.document import SCHEMA

TINY = IclConfig(
    cell_width=16, cell_heads=2, cell_layers=1, n_summary=4, row_width=24, row_heads=2, row_layers=1, head_heads=2
)
ICL = "[candidates]\nadapt = { icl = [] }\nwithout = ['catboost']\n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(learner.BUDGETS, "quick", replace(learner.BUDGETS["quick"], trials=2, epochs=2, trees=30))
    monkeypatch.setitem(icl.EFFORTS, "quick", icl.Effort(1, 100, 1, 1, 64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write_weights(tmp_path / "weights", IclNet(TINY), {"steps": 0}, licence="mine alone")


def table(folder: Path, recipe: str = BINARY + ICL) -> tuple[str, Path]:
    frame = signal_table(240)
    path = write_recipe(folder, frame, recipe)
    frame.write_parquet(folder / "data.parquet")
    return str(path), folder / "data.parquet"


def test_a_run_with_ones_own_weights_says_so_everywhere(folder: Path, tmp_path: Path) -> None:
    recipe, data = table(tmp_path)
    told: list[str] = []
    done = tabkit.run(
        recipe, data=data, out=tmp_path / "run", budget="quick", weights={"icl": folder},
        watch=lambda stage, fraction, note: told.append(note),
    )  # fmt: skip
    sha = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    document = done.result.model_dump(mode="json")
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    by_name = {c["name"]: c for c in document["candidates"]}
    expected = {"source": str(folder), "sha256": sha, "licence": "mine alone", "tables": []}
    assert by_name["icl_as_is"]["weights"] == {"icl": expected} and by_name["linear"]["weights"] == {}
    assert any("mine alone" in note for note in by_name["icl_as_is"]["notes"])
    first = next(i for i, note in enumerate(told) if "mine alone" in note)
    assert told.index("reading") > first, "the licence is shown before anything is used"
    # Whatever won is in the manifest: the champion's base, or that it had none.
    manifest = json.loads((done.folder / "bundle" / "manifest.json").read_text())
    assert manifest["bases"] == by_name[done.result.champion]["weights"]


def test_a_bundle_of_a_base_names_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The champion is whatever won; here the base is made to win."""
    from tabkit.evaluate import harness

    real = harness.decide
    recipe, data = table(tmp_path)
    monkeypatch.setattr(harness, "decide", lambda *a, **k: (real(*a, **k)[0], "icl_as_is"))
    done = tabkit.run(recipe, data=data, out=tmp_path / "run", budget="quick")
    manifest = json.loads((done.folder / "bundle" / "manifest.json").read_text())
    assert manifest["champion"] == "icl_as_is"
    shipped = icl.Icl.open_weights(None, "binary").opened_from
    assert shipped is not None and shipped.licence == "Apache-2.0"
    told = manifest["bases"]["icl"]
    assert told["sha256"] == shipped.sha256 and told["licence"] == "Apache-2.0"
    assert shipped.sha256 in (done.folder / "bundle" / "CARD.md").read_text()


def test_weights_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    recipe, _ = table(tmp_path)
    todo = wanted(load_recipe(recipe).recipe, False)
    with pytest.raises(UsageError, match="adapts no base 'tabnet'"):
        open_weights(todo, {"tabnet": folder}, "binary")
    with pytest.raises(UsageError, match=r"config.json and weights.safetensors not there"):
        open_weights(todo, {"icl": tmp_path / "nowhere"}, "binary")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "net": {**config["net"], "row_layers": 2}}))
    with pytest.raises(UsageError, match="do not fit this version"):
        open_weights(todo, {"icl": folder}, "binary")
    (folder / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="do not fit this version"):
        open_weights(todo, {"icl": folder}, "binary")


def test_weights_that_saw_the_table_are_refused(folder: Path, tmp_path: Path) -> None:
    from tabkit.data.source import open_input
    from tabkit.data.validate import read_table

    recipe, data = table(tmp_path)
    plan = load_recipe(recipe)
    seen = read_table(plan, open_input(data, plan.schema.dialect), None).fingerprint
    config = json.loads((folder / "config.json").read_text())
    config["made"]["continued_on"] = [{"recipe": "test/case", "fingerprint": seen}]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="this very table"):
        tabkit.run(recipe, data=data, out=tmp_path / "run", budget="quick", weights={"icl": folder})
