"""Mitra through AutoGluon's network, with tiny weights made here. Skipped where AutoGluon is not installed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import holds_pickle, make_features

from tabkit.errors import UsageError
from tabkit.evaluate.proof import contradiction
from tabkit.models.base import BUDGETS, model_class

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
    path = weights(tmp_path, "REGRESSION" if task == "regression" else "CLASSIFICATION")
    base = model_class("mitra").open_weights(path, task)
    train, valid = make_features(task, 90, seed=1), make_features(task, 40, seed=2)
    adapted = base.adapt(train, valid, "as_is", np.random.default_rng(0), BUDGETS["quick"])
    predicted = adapted.model.predict(valid)
    assert np.isfinite(predicted).all() and predicted.dtype == np.float64
    if task != "regression":
        np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-9)
    assert len(np.unique(predicted.round(9))) > 10, "rows get answers of their own"
    assert contradiction(adapted, "mitra") is None and adapted.proof.total_parameters > 0
    for rows in (np.array([5]), np.arange(10, 13), np.arange(len(valid))[::-1]):
        np.testing.assert_array_equal(adapted.model.predict(valid.take(rows)), predicted[rows])
    empty = valid.take(np.array([5]))
    assert np.isfinite(adapted.model.predict(replace(empty, x_num=np.full_like(empty.x_num, np.nan)))).all()
    (tmp_path / "model").mkdir()
    adapted.model.save(tmp_path / "model")
    restored = model_class("mitra").load(tmp_path / "model")
    np.testing.assert_array_equal(restored.predict(valid), predicted)
    for file in (tmp_path / "model").iterdir():
        assert not holds_pickle(file.read_bytes()), file
    assert base.opened_from is not None and "Apache" in base.opened_from.licence


def test_a_row_never_sees_its_own_label(tmp_path: Path) -> None:
    base = model_class("mitra").open_weights(weights(tmp_path, "CLASSIFICATION"), "binary")
    train = make_features("binary", 80)

    def on_train(rows: object) -> np.ndarray:
        fitted = base.adapt(rows, None, "as_is", np.random.default_rng(0), BUDGETS["quick"])  # type: ignore[arg-type]
        return fitted.model.predict_train(rows)  # type: ignore[arg-type]

    flipped = train.labels.copy()
    flipped[7] = 1 - flipped[7]
    before, after = on_train(train), on_train(train.with_y(flipped))
    np.testing.assert_array_equal(after[7], before[7])
    assert (after != before).any()


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
