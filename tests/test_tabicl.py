"""TabICL through its own library, with a tiny checkpoint made here. Skipped where the library is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import hold_context_safe, hold_public_base

from tabkit.errors import UsageError
from tabkit.models.base import model_class

pytest.importorskip("tabicl", reason="the tabicl library is not installed (extra tabicl)")
pytestmark = pytest.mark.filterwarnings("ignore")

TINY = {
    "embed_dim": 16, "col_num_blocks": 1, "col_nhead": 2, "col_num_inds": 4, "row_num_blocks": 1, "row_nhead": 2,
    "row_num_cls": 2, "icl_num_blocks": 1, "icl_nhead": 2, "num_quantiles": 9, "zero_init": False,
}  # fmt: skip


def checkpoint(folder: Path, max_classes: int) -> Path:
    import torch
    from tabicl._model.tabicl import TabICL

    torch.manual_seed(0)
    config = {**TINY, "max_classes": max_classes}
    path = folder / f"tiny{max_classes}.ckpt"
    torch.save({"config": config, "state_dict": TabICL(**config).state_dict()}, path)
    return path


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_contract(task: str, tmp_path: Path) -> None:
    hold_public_base("tabicl", checkpoint(tmp_path, 0 if task == "regression" else 10), task, tmp_path, "BSD")


def test_a_row_never_sees_its_own_label(tmp_path: Path) -> None:
    hold_context_safe("tabicl", checkpoint(tmp_path, 10))


def test_weights_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_class("tabicl")
    monkeypatch.delenv("TABKIT_TABICL_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a, **k: None)
    with pytest.raises(UsageError, match="downloads none"):
        model.open_weights(None, "binary")
    assert "weights" in str(model.lacks())
    with pytest.raises(UsageError, match="do not exist"):
        model.open_weights(tmp_path / "nowhere.ckpt", "binary")
    (tmp_path / "bad.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(UsageError, match="cannot be read by the tabicl library"):
        model.open_weights(tmp_path / "bad.ckpt", "binary")
    with pytest.raises(UsageError, match="answer classification"):
        model.open_weights(checkpoint(tmp_path, 10), "regression")
    monkeypatch.setenv("TABKIT_TABICL_WEIGHTS", str(checkpoint(tmp_path, 10)))
    assert model.open_weights(None, "binary").opened_from is not None
    assert model.lacks() is None
