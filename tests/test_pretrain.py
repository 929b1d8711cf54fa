"""Pretraining: the prior is sane, a step teaches, and a kill changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tabkit
from tabkit.errors import UsageError
from tabkit.models.parts.icl_net import IclConfig, IclNet, class_probabilities, crps
from tabkit.models.parts.icl_prior import draw
from tabkit.pretraining import Schedule, Stint, bases, checkpoint, loop, pretrain_icl
from tabkit.pretraining.loop import VALID_TABLES
from tabkit.pretraining.muon import orthogonal

TINY = IclConfig(
    cell_width=16, cell_heads=2, cell_layers=1, n_summary=4, row_width=24, row_heads=2, row_layers=1, head_heads=2
)
SCHEDULE = Schedule(
    steps=200, micro_batches=2, cells=600, context=(16, 48), columns=(2, 4), warm_up=10, easy_steps=200,
    precision="float32",
)  # fmt: skip


@pytest.mark.parametrize("regression", [False, True])
def test_tables_of_the_prior_are_varied_and_finite(regression: bool) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng, 80, 60, int(rng.integers(2, 20)), regression) for _ in range(60)]
    for table in drawn:
        assert table.x.dtype == np.float32 and not np.isinf(table.x).any() and np.isfinite(table.y).all()
        assert len(np.unique(table.y[:60])) >= 2
        assert (table.n_classes == 0) == regression
    assert any(np.isnan(t.x).any() for t in drawn) and any(t.categorical.any() for t in drawn)
    assert not all(np.isnan(t.x).any() for t in drawn)
    if not regression:
        assert {2} < {t.n_classes for t in drawn}


def test_200_steps_teach(tmp_path: Path) -> None:
    pretrain_icl(tmp_path, SCHEDULE, TINY, stint=Stint(every=50))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [50, 100, 150, 200]
    assert lines[-1]["loss"] < 0.95 * lines[0]["loss"]
    assert lines[-1]["tables_per_second"] > 0 and VALID_TABLES >= 192


def test_a_kill_changes_nothing(tmp_path: Path) -> None:
    short = Schedule(**{**vars(SCHEDULE), "steps": 12})
    whole = pretrain_icl(tmp_path / "whole", short, TINY, stint=Stint(every=4))
    pretrain_icl(
        tmp_path / "cut", short, TINY, stint=Stint(every=4, seconds=0.0)
    )  # the clock is up after the first step
    cut = pretrain_icl(tmp_path / "cut", short, TINY, stint=Stint(workers=2, every=4))
    a, b = (load_file(folder.parent / "checkpoint.safetensors") for folder in (whole, cut))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_spawned_processes_give_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and macOS cannot fork."""
    short = Schedule(**{**vars(SCHEDULE), "steps": 2})
    forked = pretrain_icl(tmp_path / "forked", short, TINY)
    monkeypatch.setattr(loop, "_START", "spawn")
    spawned = pretrain_icl(tmp_path / "spawned", short, TINY)
    a, b = (load_file(folder / "weights.safetensors") for folder in (forked, spawned))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_twin_of_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for settings, message in (
        ({"epochs": 2}, "--epochs needs --continue-on"),
        ({"start": "shipped", "continue_on": ["a"]}, "--from has no meaning with --continue-on"),
        ({"steps": 3, "epochs": None, "continue_on": ["a"]}, "--steps has no meaning with --continue-on"),
    ):
        with pytest.raises(UsageError, match=message):
            tabkit.pretrain("icl", tmp_path, **settings)
    with pytest.raises(UsageError, match="no base 'icm'"):
        tabkit.pretrain("icm", tmp_path)
    monkeypatch.setattr(bases, "Schedule", lambda steps, seed: Schedule(**{**vars(SCHEDULE), "steps": steps}))
    monkeypatch.setattr(checkpoint, "IclNet", lambda config: IclNet(TINY))
    stages = []
    outcome = tabkit.pretrain("icl", tmp_path, steps=2, watch=lambda stage, share, note: stages.append((stage, share)))
    assert outcome.weights == tmp_path / "weights" and outcome.step == 2 and outcome.tables > 0
    assert list(outcome.valid) == ["valid_small", "valid_medium", "valid_regression"]
    assert stages == [("icl (pretraining)", 0.5), ("icl (pretraining)", 1.0)]


def test_another_plan_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    short = Schedule(**{**vars(SCHEDULE), "steps": 2})
    pretrain_icl(tmp_path, short, TINY, stint=Stint(every=1))
    with pytest.raises(UsageError, match="another plan"):
        pretrain_icl(tmp_path, Schedule(**{**vars(short), "seed": 1}), TINY)


def test_newton_schulz_is_nearly_orthogonal() -> None:
    torch.manual_seed(0)
    for shape in ((8, 24), (24, 8)):
        singular = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert singular.min() > 0.6 and singular.max() < 1.3


def test_crps_equals_its_definition() -> None:
    """Against the integral of the squared difference of distribution functions, on the scale of normal scores."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    y, truth, weights = rng.normal(size=9), 0.3, rng.dirichlet(np.ones(9))
    order = np.argsort(y)
    scores = norm.ppf(np.arange(1, 10) / 10)
    expected = sum(
        (weights[order][: i + 1].sum() - (truth <= y[order][i])) ** 2 * (scores[i + 1] - scores[i]) for i in range(8)
    )
    found = crps(torch.tensor(weights)[None, None], torch.tensor(y)[None], torch.tensor([[truth]], dtype=torch.float64))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_class_probabilities_are_summed_weights() -> None:
    weights = torch.tensor([[[0.2, 0.3, 0.5]]])
    torch.testing.assert_close(
        class_probabilities(weights, torch.tensor([[1.0, 0.0, 1.0]]), 2), torch.tensor([[[0.3, 0.7]]])
    )


def test_weights_are_learned_further_from_where_they_are(tmp_path: Path) -> None:
    first = pretrain_icl(tmp_path / "first", Schedule(**{**vars(SCHEDULE), "steps": 4}), TINY, stint=Stint(every=2))
    plan = Schedule.further(6, 0, first)
    assert plan.context[1] > Schedule.context[1] and plan.rate(200) < Schedule.learning_rate / 2
    small = Schedule(**{**vars(SCHEDULE), "steps": 6, "start": plan.start, "easy_steps": 0, "learning_rate": 1e-6})
    further = pretrain_icl(tmp_path / "further", small, start=first, stint=Stint(every=2))
    before, after = (load_file(folder / "weights.safetensors") for folder in (first, further))
    assert before.keys() == after.keys() and any(not torch.equal(before[n], after[n]) for n in before)
    for name in before:  # at such a rate it is still where it began, and far from any other draw
        torch.testing.assert_close(after[name].float(), before[name].float(), atol=2e-3, rtol=2e-2)
    made = json.loads((further / "config.json").read_text())["made"]
    assert made["plan"]["start"] == plan.start and made["steps"] == 6

    pretrain_icl(tmp_path / "cut", small, start=first, stint=Stint(every=2, seconds=0.0))
    cut = pretrain_icl(tmp_path / "cut", small, start=first, stint=Stint(workers=2, every=2))
    a, b = (load_file(folder.parent / "checkpoint.safetensors") for folder in (further, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(UsageError, match="not those of the plan"):
        pretrain_icl(tmp_path / "other", small, start=further, stint=Stint(every=2))
