"""TabPFN through its own library, with a tiny checkpoint made here. Skipped where the library is not installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import holds_pickle, make_features

from tabkit.errors import UsageError
from tabkit.evaluate.proof import contradiction
from tabkit.models.base import BUDGETS, model_class

pytest.importorskip("tabpfn", reason="the tabpfn library is not installed (extra tabpfn)")
pytestmark = pytest.mark.filterwarnings("ignore")


def checkpoint(folder: Path, max_classes: int) -> Path:
    import torch
    from tabpfn.architectures import tabpfn_v2

    config = {
        "emsize": 24, "nlayers": 1, "nhead": 2, "features_per_group": 2, "max_num_classes": max_classes,
        "num_buckets": 20,
    }  # fmt: skip
    torch.manual_seed(0)
    net = tabpfn_v2.get_architecture(tabpfn_v2.parse_config(config)[0])
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = dict(net.state_dict())
    if not max_classes:
        state["criterion.borders"] = torch.linspace(-4, 4, 21)
        state["criterion.losses_per_bucket"] = torch.zeros(20)
    path = folder / f"tiny{max_classes}.ckpt"
    torch.save({"config": config, "state_dict": state}, path)
    return path


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_contract(task: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 0 if task == "regression" else 10)
    base = model_class("tabpfn").open_weights(path, task)
    train, valid = make_features(task, 90, seed=1), make_features(task, 40, seed=2)
    adapted = base.adapt(train, valid, "as_is", np.random.default_rng(0), BUDGETS["quick"])
    predicted = adapted.model.predict(valid)
    assert np.isfinite(predicted).all() and predicted.dtype == np.float64
    if task != "regression":
        np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-9)
    assert len(np.unique(predicted.round(9))) > 10, "rows get answers of their own"
    assert contradiction(adapted, "tabpfn") is None and adapted.proof.total_parameters > 0
    for rows in (np.array([5]), np.arange(10, 13), np.arange(len(valid))[::-1]):
        np.testing.assert_array_equal(adapted.model.predict(valid.take(rows)), predicted[rows])
    empty = valid.take(np.array([5]))
    assert np.isfinite(adapted.model.predict(replace(empty, x_num=np.full_like(empty.x_num, np.nan)))).all()
    (tmp_path / "model").mkdir()
    adapted.model.save(tmp_path / "model")
    restored = model_class("tabpfn").load(tmp_path / "model")
    np.testing.assert_array_equal(restored.predict(valid), predicted)
    for file in (tmp_path / "model").iterdir():
        assert not holds_pickle(file.read_bytes()), file
    assert base.opened_from is not None and "attribution" in base.opened_from.licence


def test_a_row_never_sees_its_own_label(tmp_path: Path) -> None:
    base = model_class("tabpfn").open_weights(checkpoint(tmp_path, 10), "binary")
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
    model = model_class("tabpfn")
    monkeypatch.delenv("TABKIT_TABPFN_WEIGHTS", raising=False)
    with pytest.raises(UsageError, match="downloads none"):
        model.open_weights(None, "binary")
    assert "weights" in str(model.lacks())
    with pytest.raises(UsageError, match="do not exist"):
        model.open_weights(tmp_path / "nowhere.ckpt", "binary")
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="cannot be read by the tabpfn library"):
        model.open_weights(tmp_path / "bad.ckpt", "binary")
    with pytest.raises(UsageError, match="regression"):
        model.open_weights(checkpoint(tmp_path, 10), "regression")
    monkeypatch.setenv("TABKIT_TABPFN_WEIGHTS", str(checkpoint(tmp_path, 10)))
    assert model.open_weights(None, "binary").opened_from is not None
    assert model.lacks() is None
