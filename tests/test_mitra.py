"""Mitra through AutoGluon's network, with tiny weights made here. Skipped where AutoGluon is not installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import hold_context_safe, hold_public_base, make_features

from tabkit.errors import UsageError
from tabkit.learner import BUDGETS
from tabkit.models.base import model_class

pytest.importorskip("autogluon.tabular", reason="AutoGluon is not installed (extra mitra)")
pytest.importorskip("einx", reason="AutoGluon is installed without its extra mitra")
pytestmark = pytest.mark.filterwarnings("ignore")


def weights(folder: Path, task: str, dim_output: int | None = None) -> Path:
    import torch
    from autogluon.tabular.models.mitra._internal.models.tab2d import Tab2D

    torch.manual_seed(0)
    outputs = dim_output or (1 if task == "REGRESSION" else 10)
    net = Tab2D(16, outputs, 1, 2, task, use_pretrained_weights=False, path_to_weights="", device="cpu")
    place = folder / f"{task}{outputs}"
    net.save_pretrained(str(place))
    return place


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_contract(task: str, tmp_path: Path) -> None:
    hold_public_base(
        "mitra", weights(tmp_path, "REGRESSION" if task == "regression" else "CLASSIFICATION"), task, tmp_path, "Apache"
    )


def test_a_row_never_sees_its_own_label(tmp_path: Path) -> None:
    hold_context_safe("mitra", weights(tmp_path, "CLASSIFICATION"))


def test_weights_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_class("mitra")
    monkeypatch.delenv("TABKIT_MITRA_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    with pytest.raises(UsageError, match="downloads none"):
        model.open_weights(None, "binary")
    assert "weights" in str(model.lacks())
    with pytest.raises(UsageError, match=r"config.json and model.safetensors not there"):
        model.open_weights(tmp_path / "nowhere", "binary")
    bad = weights(tmp_path, "CLASSIFICATION", 5)
    (bad / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError, match="cannot be read"):
        model.open_weights(bad, "binary")
    other = weights(tmp_path, "CLASSIFICATION", 4)
    (other / "config.json").write_text(json.dumps({**json.loads((other / "config.json").read_text()), "dim": 32}))
    with pytest.raises(UsageError, match="cannot be read"):
        model.open_weights(other, "binary")
    few = model.open_weights(weights(tmp_path, "CLASSIFICATION", 2), "multiclass")
    with pytest.raises(UsageError, match="2 classes at most, and the target has 3"):
        few.adapt(make_features("multiclass", 60), None, "as_is", np.random.default_rng(0), BUDGETS["quick"])
    with pytest.raises(UsageError, match="answer classification"):
        model.open_weights(weights(tmp_path, "CLASSIFICATION"), "regression")
    monkeypatch.setenv("TABKIT_MITRA_WEIGHTS", str(weights(tmp_path, "CLASSIFICATION")))
    assert model.open_weights(None, "binary").opened_from is not None
    assert model.lacks() is None
