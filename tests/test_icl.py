"""The in-context base: what does not matter to it, what it may not see, and that adapting is what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_features

from tabkit.data.encode import Features
from tabkit.learner import BUDGETS
from tabkit.models import icl
from tabkit.models.base import loss
from tabkit.models.parts.icl_net import Draw, IclConfig, IclNet

SMALL = icl.Effort(members=2, context_rows=200, epochs=3, episodes=3, episode_rows=128)
QUICK = BUDGETS["quick"]


@pytest.fixture(autouse=True)
def small_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(icl.EFFORTS, "quick", SMALL)


def base() -> icl.Icl:
    made = icl.Icl.pretrain(None, make_features("binary", 10), np.random.default_rng(0), QUICK)
    assert made is not None
    return made


def as_is(train: Features, valid: Features | None) -> icl.Icl:
    settings = None if valid is not None else {"temperature": 1.0}
    model = base().adapt(train, valid, "as_is", np.random.default_rng(0), QUICK, settings).model
    assert isinstance(model, icl.Icl)
    return model


class TestNetwork:
    """Orders that do not matter, on random weights and tables with missing cells."""

    @staticmethod
    def table(regression: bool) -> tuple[IclNet, torch.Tensor, torch.Tensor, torch.Tensor, Draw]:
        torch.manual_seed(0)
        net = IclNet(IclConfig(cell_layers=2, row_layers=2)).eval()
        x = torch.randn(1, 70, 5)
        x[torch.rand(x.shape) < 0.1] = torch.nan
        y = torch.randn(1, 50) if regression else torch.randint(0, 3, (1, 50)).float()
        draw = Draw(torch.randn(1, 5, 16), torch.randn(1, 3, 32))
        return net, x, y, torch.zeros(1, 5, dtype=torch.bool), draw

    @pytest.mark.parametrize("regression", [False, True])
    @torch.inference_mode()
    def test_queries_are_strangers(self, regression: bool) -> None:
        net, x, y, flags, draw = self.table(regression)
        whole = net(x, y, flags, regression, draw)
        fewer = net(x[:, :53], y, flags, regression, draw)
        torch.testing.assert_close(whole[:, :3], fewer)

    @pytest.mark.parametrize("regression", [False, True])
    @torch.inference_mode()
    def test_the_order_of_context_rows_does_not_matter(self, regression: bool) -> None:
        net, x, y, flags, draw = self.table(regression)
        order = torch.randperm(50)
        turned = net(torch.cat([x[:, order], x[:, 50:]], dim=1), y[:, order], flags, regression, draw)
        torch.testing.assert_close(turned, net(x, y, flags, regression, draw)[:, :, order], atol=1e-5, rtol=1e-4)

    @torch.inference_mode()
    def test_the_order_of_columns_does_not_matter_given_their_ids(self) -> None:
        net, x, y, flags, draw = self.table(False)
        order = torch.randperm(5)
        turned = net(x[:, :, order], y, flags, False, Draw(draw.ids[:, order], draw.codes))
        torch.testing.assert_close(turned, net(x, y, flags, False, draw), atol=1e-5, rtol=1e-4)

    @torch.inference_mode()
    def test_the_names_of_classes_do_not_matter_given_their_codes(self) -> None:
        net, x, y, flags, draw = self.table(False)
        order = torch.tensor([2, 0, 1])
        turned = net(x, order[y.long()].float(), flags, False, Draw(draw.ids, draw.codes[:, order.argsort()]))
        torch.testing.assert_close(turned, net(x, y, flags, False, draw), atol=1e-6, rtol=1e-5)

    @pytest.mark.parametrize("regression", [False, True])
    @torch.inference_mode()
    def test_the_cached_context_is_exact(self, regression: bool) -> None:
        net, x, y, flags, draw = self.table(regression)
        context = net.encode(x[:, :50], y, flags, regression, draw)
        torch.testing.assert_close(
            net.answer(context, x[:, 50:], flags, regression), net(x, y, flags, regression, draw), atol=1e-6, rtol=1e-5
        )

    @torch.inference_mode()
    def test_weights_sum_to_one_and_strange_cells_are_borne(self) -> None:
        net, x, y, flags, draw = self.table(False)
        x[:, :, 0], x[:, :, 1], x[:, 60:, 2] = torch.nan, 3.0, 1e9
        weights = net(x, y, flags, False, draw)
        assert weights.isfinite().all()
        torch.testing.assert_close(weights.sum(dim=2), torch.ones(1, 20))


def test_untouched_it_knows_a_table_it_never_saw() -> None:
    train, valid = make_features("binary", 400, seed=1, signal=4.0), make_features("binary", 300, seed=2, signal=4.0)
    p = as_is(train, valid).predict(valid)
    assert valid.y is not None
    assert ((p[:, 1] > 0.5) == valid.y).mean() > 0.8
    numbers, more = (
        make_features("regression", 400, seed=1, signal=4.0),
        make_features("regression", 300, seed=2, signal=4.0),
    )
    assert more.y is not None
    assert loss(more, as_is(numbers, more).predict(more)) < 0.5 * more.y.var()


def test_more_classes_than_it_was_pretrained_with() -> None:
    train = make_features("multiclass", 600, n_classes=14, signal=6.0)
    valid = make_features("multiclass", 200, n_classes=14, signal=6.0, seed=1)
    model = as_is(train, valid)
    p = model.predict(valid)
    assert p.shape == (200, 14) and loss(valid, p) < np.log(14)
    assert "14 classes" in str(model.envelope(train))


def test_wide_tables_are_read_in_parts_and_it_says_so() -> None:
    train, valid = make_features("binary", 150, n_num=90), make_features("binary", 60, n_num=90, seed=1)
    model = as_is(train, valid)
    assert np.isfinite(model.predict(valid)).all()
    assert "91 columns" in str(model.envelope(train)) and "60 of them" in str(model.envelope(train))


def test_large_tables_are_shared_out_among_the_members() -> None:
    train = make_features("binary", 900)
    table = as_is(train, None).table
    shares = table.shares
    assert shares.shape == (2, 200) and not set(shares[0]) & set(shares[1])
    assert train.y is not None and np.allclose(table.ratios, 1.0, atol=0.02)
    for share in shares:  # stratified: each has the classes in train's proportions
        assert abs(table.y[share].mean() - train.y.mean()) < 0.01
    assert "400 of 900 train rows" in table.describe()


def test_a_rare_class_has_its_part_of_a_context_and_no_more_of_the_answers() -> None:
    both = make_features("binary", 3000)
    rare, common = (np.flatnonzero(both.labels == k) for k in (1, 0))
    train = both.take(np.sort(np.concatenate([rare[:60], common[:1140]])))  # 5%
    model = as_is(train, None)
    assert model.table.y[model.table.shares].mean(axis=1).tolist() == [0.25, 0.25]
    assert model.predict_train(train)[:, 1].mean() == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_overfit_gap_is_context_safe(task: str) -> None:
    """Labels that are noise: a context that held a row's own label would seem to know it; ours agrees with fresh rows."""
    train, fresh = make_features(task, 200, seed=1), make_features(task, 1000, seed=2)
    noise = np.random.default_rng(0)
    train, fresh = (rows.with_y(noise.permutation(rows.labels)) for rows in (train, fresh))
    model = as_is(train, None)
    seen = model.predict_train(train)
    safe, new = loss(train, seen), loss(fresh, model.predict(fresh))
    naive = model.predict(train)
    each = np.array([[loss(train.take(np.array([i])), p[[i]]) for p in (seen, naive)] for i in range(len(train))])

    def half(values: np.ndarray) -> float:
        return float(2 * values.std() / np.sqrt(len(values)))

    assert abs(safe - new) < half(each[:, 0]), "context-safe train loss agrees with fresh data"
    told = each[:, 0] - each[:, 1]
    assert told.mean() > half(told), "the naive one is told the labels: the test could not fail otherwise"


def test_a_row_never_sees_its_own_label() -> None:
    train = make_features("binary", 120)
    model = as_is(train, None)
    before = model.predict_train(train)
    flipped = train.labels.copy()
    flipped[7] = 1 - flipped[7]
    changed = train.with_y(flipped)
    # The order of strata follows the labels, so compare within one fixed context order.
    fold = np.random.default_rng(model.table.seed).permutation(120) % icl.FOLDS
    others = np.flatnonzero(fold == fold[7])
    np.testing.assert_array_equal(as_is(changed, None).predict_train(changed)[others], before[others])


@pytest.mark.parametrize("how", ["head", "gradual", "lora", "full"])
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_never_worse_than_the_base_on_valid(how: str, task: str) -> None:
    train, valid = make_features(task, 150), make_features(task, 80, seed=50)
    for rows in (train, train.with_y(np.random.default_rng(0).permutation(train.labels))):
        tuned = base().adapt(rows, valid, how, np.random.default_rng(0), QUICK).model
        assert loss(valid, tuned.predict(valid)) <= loss(valid, as_is(rows, valid).predict(valid)) + 1e-12


@pytest.mark.parametrize("how", ["head", "lora", "full"])
def test_blocks_that_were_not_asked_for_stay_bit_equal(how: str) -> None:
    train, valid = make_features("binary", 200, seed=1, signal=4.0), make_features("binary", 100, seed=2, signal=4.0)
    start = base()
    adapted = start.adapt(train, valid, how, np.random.default_rng(0), QUICK)
    assert isinstance(adapted.model, icl.Icl)
    moved = {
        name
        for name, tensor in adapted.model.net_.state_dict().items()
        if not torch.equal(tensor, start.net_.state_dict()[name])
    }
    trained = {block.name: block.trained for block in adapted.proof.blocks}
    if how == "head":
        assert (
            all(name.startswith("head.") for name in moved)
            and trained["cells"] == trained["rows"] == 0 < trained["head"]
        )
    elif how == "lora":
        assert not moved and trained["lora"] > 0 == sum(n for name, n in trained.items() if name != "lora")
    else:
        assert all(trained.values())


def test_low_rank_adapters_are_merged_before_adapting_again() -> None:
    train, valid = make_features("binary", 200, seed=1), make_features("binary", 100, seed=2)
    first = base().adapt(train, valid, "lora", np.random.default_rng(0), QUICK).model
    assert isinstance(first, icl.Icl)
    if first.adapters_ is not None:
        with torch.no_grad():
            for up in first.adapters_.up:  # whatever valid chose, something to merge
                up.normal_(std=0.02)
        first = icl.Icl(first.net_, first.adapters_, replace(first.table, temperature=1.0))
    again = first.adapt(train, valid, "as_is", np.random.default_rng(0), QUICK, {"temperature": 1.0}).model
    np.testing.assert_allclose(again.predict(valid), first.predict(valid), atol=1e-5)
