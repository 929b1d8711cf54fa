"""The training loop: frozen blocks stay bit-equal, the base is epoch 0, chance is seeded and local."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_features
from torch import nn

from tabkit.data.encode import Features
from tabkit.learner import BUDGETS, Adapted
from tabkit.models.base import loss
from tabkit.models.tabnet import TabNet
from tabkit.torch_loop import Course, Pace, fit, in_parallel, one_thread, stages

BUDGET = replace(BUDGETS["quick"], epochs=6)
PACE = Pace(learning_rate=0.05, decay=0.5, pull=0.0, batch_rows=32, patience=3)


def small() -> tuple[nn.Sequential, dict[str, list[nn.Module]]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 1))
    return net, {"input": [net[0], net[1]], "body": [net[2]], "head": [net[3]]}


def train(how: str, noise: bool = False, seed: int = 0, **more: object) -> tuple[nn.Sequential, object]:
    net, blocks = small()
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(200, 4)).astype(np.float32))
    y = torch.from_numpy(rng.normal(size=200).astype(np.float32)) if noise else x[:, 0] * 2 + x[:, 1]
    xv, yv = x[150:], y[150:]
    course = Course(
        net,
        blocks,
        150,
        lambda rows, augment: ((net(x[rows])[:, 0] - y[rows]) ** 2).mean(),
        lambda: float(((net(xv)[:, 0] - yv) ** 2).mean()),
        more.pop("pace", PACE),  # type: ignore[arg-type]
    )
    fitted = fit(course, how, np.random.default_rng(seed), BUDGET, **more)  # type: ignore[arg-type]
    return net, fitted


def states(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_head_leaves_everything_below_bit_equal_statistics_included() -> None:
    before = states(small()[0])
    net, fitted = train("head")
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {"3.weight", "3.bias"}
    changes = {block.name: (block.trained, block.change) for block in fitted.proof.blocks}  # type: ignore[attr-defined]
    assert changes["input"] == (0, 0.0) and changes["body"] == (0, 0.0)
    assert changes["head"][0] == 7 and changes["head"][1] > 0


def test_gradual_unfreezes_from_the_head_down() -> None:
    assert [trained for _, trained in stages("gradual", ["a", "b", "c"])] == [("c",), ("b", "c"), ("a", "b", "c")]
    _, fitted = train("gradual")
    assert [b.trained for b in fitted.proof.blocks] == [42, 42, 7]  # type: ignore[attr-defined]
    order = list(dict.fromkeys(step.stage for step in fitted.history if step.stage and step.step))  # type: ignore[attr-defined]
    assert order == ["head", "from body", "from input"]


@pytest.mark.parametrize("how", ["head", "gradual", "full"])
@pytest.mark.parametrize("noise", [False, True])
def test_what_returns_is_never_worse_than_the_base_on_valid(how: str, noise: bool) -> None:
    _, fitted = train(how, noise)
    base = fitted.history[0]  # type: ignore[attr-defined]
    assert base.step == 0 and fitted.valid_loss <= base.valid_loss  # type: ignore[attr-defined]


def test_a_ruinous_learning_rate_returns_the_base_bit_for_bit() -> None:
    before = states(small()[0])
    net, fitted = train("full", noise=True, pace=replace(PACE, learning_rate=50.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert sum(block.trained for block in fitted.proof.blocks) > 0  # type: ignore[attr-defined]


def test_a_pull_keeps_weights_near_the_base() -> None:
    far = train("full")[1].proof  # type: ignore[attr-defined]
    near = train("full", pace=replace(PACE, pull=10.0))[1].proof  # type: ignore[attr-defined]
    # The input block's change counts its batch statistics too, which no pull holds.
    assert near.blocks[1].change + near.blocks[2].change < 0.5 * (far.blocks[1].change + far.blocks[2].change)


def test_layers_below_learn_slower() -> None:
    def change(decay: float) -> float:
        return {b.name: b.change for b in train("full", pace=replace(PACE, decay=decay))[1].proof.blocks}["body"]  # type: ignore[attr-defined]

    assert change(0.05) < 0.5 * change(1.0)


def test_the_global_generator_and_threads_are_left_alone() -> None:
    torch.manual_seed(123)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train("full")
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads


def test_a_seed_repeats_and_settings_retrace_the_same_steps() -> None:
    first, fitted = train("gradual", seed=3)
    again, _ = train("gradual", seed=3)
    replayed, _ = train("gradual", seed=3, settings=fitted.settings)  # type: ignore[attr-defined]
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]) and torch.equal(tensor, replayed.state_dict()[name])


def test_a_parameter_outside_all_blocks_is_an_error() -> None:
    net, blocks = small()
    del blocks["body"]
    with pytest.raises(ValueError, match="exactly one block"):
        course = Course(net, blocks, 9, lambda r, a: torch.zeros(()), lambda: 0.0, PACE)
        fit(course, "full", np.random.default_rng(0), BUDGET)


# TabNet on the loop


def pretrained(train: Features, source: Features | None = None) -> TabNet:
    base = TabNet.pretrain(source, train.with_y(None), np.random.default_rng(0), BUDGET)
    assert base is not None
    return base


def adapt(base: TabNet, train: Features, valid: Features, how: str) -> Adapted:
    return base.adapt(train, valid, how, np.random.default_rng(7), BUDGET)


def test_tabnet_head_moves_no_tensor_of_the_encoder() -> None:
    train, valid = make_features("binary", 300, seed=1), make_features("binary", 150, seed=2)
    base = pretrained(train)
    model = adapt(base, train, valid, "head").model
    assert isinstance(model, TabNet) and model.net_ is not None and base.net_ is not None
    start, end = base.net_.state_dict(), model.net_.state_dict()
    assert all(torch.equal(end[n], start[n]) for n in start if not n.startswith("head."))
    assert not torch.equal(end["head.weight"], start["head.weight"])


def test_tabnet_copies_every_pretrained_tensor_and_pretraining_never_reads_labels() -> None:
    train, valid = make_features("binary", 300, seed=1), make_features("binary", 150, seed=2)
    base = pretrained(train)
    untouched = adapt(base, train, valid, "as_is").model
    assert isinstance(untouched, TabNet) and untouched.net_ is not None and base.net_ is not None
    for name, tensor in base.net_.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(untouched.net_.state_dict()[name], tensor), name
    # a base that knows no target says the prior of train, to every row alike
    predicted = untouched.predict(valid)
    assert np.ptp(predicted[:, 1]) < 1e-6 and train.y is not None
    assert abs(predicted[0, 1] - (train.y.sum() + 0.5) / (len(train) + 1)) < 1e-6


def test_tabnet_refuses_a_base_of_other_columns() -> None:
    train = make_features("binary", 200, seed=1)
    other = make_features("binary", 200, n_num=3, seed=1)
    with pytest.raises(ValueError, match="other columns"):
        adapt(pretrained(train), other, other, "full")
    with pytest.raises(ValueError, match="pretrained base"):
        adapt(TabNet(), train, train, "full")


def test_tabnet_refuses_weights_with_a_tensor_missing(tmp_path: object) -> None:
    from pathlib import Path

    from safetensors.torch import load_file, save_file

    folder = Path(str(tmp_path))
    train = make_features("binary", 200, seed=1)
    pretrained(train).save(folder)
    stored = load_file(folder / "weights.safetensors")
    stored.pop(next(name for name in stored if name.startswith("encoder")))
    save_file(stored, folder / "weights.safetensors")
    with pytest.raises(ValueError, match="does not fit this TabNet"):
        TabNet.load(folder)


def test_a_source_with_the_same_relation_helps_few_rows() -> None:
    source = make_features("binary", 3000, seed=3, signal=4.0)
    train, valid = make_features("binary", 60, seed=1, signal=4.0), make_features("binary", 800, seed=2, signal=4.0)
    budget = replace(BUDGETS["quick"], epochs=24)
    base = TabNet.pretrain(source, train.with_y(None), np.random.default_rng(0), budget)
    assert base is not None
    own = TabNet().adapt(train, valid, "scratch", np.random.default_rng(0), budget).model
    assert loss(valid, base.predict(valid)) < loss(valid, own.predict(valid))


def test_jobs_beside_one_another_give_the_same_bits_in_order() -> None:
    weights = torch.randn(64, 64)
    jobs = [torch.randn(32, 64) for _ in range(9)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        beside = in_parallel(lambda x: (x @ weights).softmax(dim=1), jobs)
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    with one_thread():
        alone = [(x @ weights).softmax(dim=1) for x in jobs]
    assert all(torch.equal(a, b) for a, b in zip(alone, beside, strict=True))
    assert all(out.is_inference() for out in beside)
