"""TabPFN through its own library, with a tiny checkpoint made here. Skipped where the library is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import hold_context_safe, hold_public_base

from tabkit.errors import UsageError
from tabkit.models.base import model_class

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
    hold_public_base("tabpfn", checkpoint(tmp_path, 0 if task == "regression" else 10), task, tmp_path, "attribution")


def test_a_row_never_sees_its_own_label(tmp_path: Path) -> None:
    hold_context_safe("tabpfn", checkpoint(tmp_path, 10))


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
