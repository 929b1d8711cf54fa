"""Continuing on tables of a domain: what it finds, what it leaves alone, and that a kill changes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import BINARY, write_recipe
from safetensors.torch import load_file

import tabkit
from tabkit.errors import UsageError
from tabkit.learner import Weights
from tabkit.models import icl
from tabkit.models.parts.icl_net import IclConfig, IclNet
from tabkit.models.parts.icl_weights import open_folder
from tabkit.pretrain import Continuation, continue_icl
from tabkit.pretrain import continuation as module

TINY = Continuation(epochs=2, episodes=4, context=(24, 48))
TINY_NET = IclConfig(
    cell_width=16, cell_heads=2, cell_layers=1, n_summary=4, row_width=24, row_heads=2, row_layers=1, head_heads=2
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny base in place of the shipped one."""
    torch.manual_seed(0)
    net, weights = IclNet(TINY_NET), Weights("shipped", "0" * 64, "Apache-2.0")
    monkeypatch.setattr(module, "open_folder", lambda _: (net, weights))
    monkeypatch.setattr(module, "RESAMPLES", 100)
    monkeypatch.setitem(icl.EFFORTS, "quick", icl.Effort(1, 100, 1, 1, 64))


def sources(folder: Path, n_rows: int = 160) -> list[str]:
    """Three tables of one domain: the sign of a product of the first two columns, which no line can follow."""
    out = []
    for number in range(3):
        rng = np.random.default_rng(number)
        x = rng.normal(size=(n_rows, 4))
        y = np.where(x[:, 0] * x[:, 1] + 0.1 * rng.normal(size=n_rows) > 0, "yes", "no")
        frame = pl.DataFrame({**{f"x{i}": x[:, i] for i in range(4)}, "y": y.tolist()})
        recipe = write_recipe(folder, frame, BINARY, name=f"table{number}")
        frame.write_parquet(folder / f"{number}.parquet")
        out.append(f"{recipe}={folder / f'{number}.parquet'}")
    return out


def test_each_table_is_left_out_and_the_weights_can_be_used(tmp_path: Path) -> None:
    given = sources(tmp_path)
    done = continue_icl(given, tmp_path / "out", TINY)
    assert [one.table for one in done.left_out] == ["test/table0", "test/table1", "test/table2"]
    assert all(one.low <= one.gain <= one.high and 0 <= one.alpha <= 1 for one in done.left_out)
    assert done.low <= done.loss_gain <= done.high
    assert "3 tables left out" in done.sentence and done.paid in ("yes", "no", "not shown")
    _, weights = open_folder(done.weights)
    assert len(weights.tables) == 3 and "Apache-2.0" in weights.licence
    assert json.loads((tmp_path / "out" / "continuation.json").read_text())["sentence"] == done.sentence
    # They are refused on a table that taught them, whose holdout would not be untouched.
    recipe, data = given[0].split("=")
    text = Path(recipe).read_text() + "[candidates]\nadapt = { icl = [] }\nwithout = ['catboost']\n"
    Path(recipe).write_text(text)
    with pytest.raises(UsageError, match="this very table"):
        tabkit.run(recipe, data=data, out=tmp_path / "run", budget="quick", weights={"icl": done.weights})


def test_a_kill_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = sources(tmp_path)
    whole = continue_icl(given, tmp_path / "whole", TINY)
    real, calls = module.continued, []

    def killed(*args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "continued", killed)
    with pytest.raises(KeyboardInterrupt):
        continue_icl(given, tmp_path / "cut", TINY)
    assert len(list((tmp_path / "cut" / "left_out").glob("*.json"))) == 1
    calls[:] = [1, 1]
    cut = continue_icl(given, tmp_path / "cut", TINY)
    assert len(calls) == 2 + 3, "what was done is not done again"
    assert [asdict(a) for a in cut.left_out] == [asdict(b) for b in whole.left_out]
    a, b = (load_file(done.weights / "weights.safetensors") for done in (cut, whole))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_table_left_out_teaches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its labels say, the base that is measured on it is the same."""
    given = sources(tmp_path)
    nets: list[dict[str, torch.Tensor]] = []
    real = module.measured

    def kept(base: object, tuned: torch.nn.Module, *rest: object) -> object:
        nets.append(tuned.state_dict())
        return real(base, tuned, *rest)  # type: ignore[arg-type]

    taught: list[set[str]] = []
    teach = module.continued

    def noted(base: object, tables: list[module.DomainTable], *rest: object) -> object:
        taught.append({table.name for table in tables})
        return teach(base, tables, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "measured", kept)
    monkeypatch.setattr(module, "continued", noted)
    continue_icl(given, tmp_path / "one", TINY)
    names = {f"test/table{number}" for number in range(3)}
    assert taught == [names - {f"test/table{number}"} for number in range(3)] + [names]
    frame = pl.read_parquet(tmp_path / "0.parquet")
    frame.with_columns(pl.col("y").shuffle(seed=1)).write_parquet(tmp_path / "0.parquet")
    continue_icl(given, tmp_path / "two", TINY)
    without_first = [nets[0], nets[3]]
    assert all(torch.equal(without_first[0][name], without_first[1][name]) for name in nets[0])
    assert any(not torch.equal(nets[1][name], nets[4][name]) for name in nets[1]), "the others did learn from it"


def test_what_is_refused(tmp_path: Path) -> None:
    given = sources(tmp_path)
    with pytest.raises(UsageError, match="at least 3"):
        continue_icl(given[:2], tmp_path / "out", TINY)
    with pytest.raises(UsageError, match="are the same table"):
        continue_icl([*given[:2], given[0]], tmp_path / "out", TINY)
    with pytest.raises(UsageError, match="no sample of its own"):
        continue_icl([given[0].split("=")[0], *given[1:]], tmp_path / "out", TINY)
    module._open_job(tmp_path / "out", {"plan": asdict(TINY)})
    with pytest.raises(UsageError, match="another job: its plan"):
        module._open_job(tmp_path / "out", {"plan": asdict(replace(TINY, seed=1))})


def left(loss_gain: float, low: float, high: float) -> module.LeftOut:
    return module.LeftOut("t", 100, "ROC AUC", 0.7, 0.7, (low + high) / 2, low, high, loss_gain, 1.0)


def test_the_verdict_over_tables_follows_the_interval() -> None:
    assert module._outcome([left(g, 0.01, 0.02) for g in (0.02, 0.021, 0.019)])["paid"] == "yes"
    assert module._outcome([left(-g, -0.02, -0.01) for g in (0.02, 0.021, 0.019)])["paid"] == "no"
    unclear = module._outcome([left(0.05, 0.01, 0.02), left(-0.04, -0.02, -0.01), left(0.01, -0.01, 0.01)])
    assert unclear["paid"] == "not shown" and "better on 1 and worse on 1" in unclear["sentence"]
    assert module._outcome([left(0.0, 0.0, 0.0)] * 3)["paid"] == "not shown"
