"""Large logs: what is found block by block is what is found at once, and what does not fit is named before it is tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from events import coded, habits, shop_recipe
from scipy import sparse

import tabkit
import tabkit.data.interactions as interactions
import tabkit.learner.need as need
from tabkit.adapt.candidates import fitting, wanted_rankers
from tabkit.data.interactions import Events, truth_of
from tabkit.data.windows import features
from tabkit.learner.need import Size
from tabkit.rankers.base import Allowed, Ranker, best_of
from tabkit.rankers.counts import Counts
from tabkit.rankers.ease import Ease
from tabkit.rankers.itemknn import ItemKnn
from tabkit.rankers.parts.neighbours import Neighbours
from tabkit.rankers.rerank import Rerank, Sources
from tabkit.rankers.tifu import Tifu
from tabkit.recipe import load_recipe
from tabkit.result import ListResult

GOAL = Size(n_users=200_000, n_items=50_000, n_events=10_000_000, n_listed=20_000, shared=1e12)


@pytest.fixture(scope="module")
def events() -> Events:
    return coded(habits())


@pytest.mark.parametrize("block_bytes", [1, 2**14, 2**26])
def test_neighbours_found_in_blocks_are_those_of_all_distances(
    block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interactions, "BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(0)
    dense = rng.integers(3, size=(120, 15)) * (rng.random((120, 15)) < 0.3) / 2  # many ties, and users without history
    active = dense.any(axis=1)
    vectors, k = sparse.csr_matrix(dense), 7
    products = np.asarray((vectors @ vectors.T).toarray())
    squared = np.asarray(vectors.power(2).sum(axis=1)).ravel()
    distance = squared[:, None] + squared[None, :] - 2 * products
    np.fill_diagonal(distance, np.inf)
    distance[:, ~active] = np.inf
    expected = np.sort(np.argsort(distance, axis=1, kind="stable")[:, :k], axis=1)
    found = Neighbours(vectors, active, k)
    found.find(np.arange(60, 120, dtype=np.int32))
    means = found.means_of(rng.permutation(120).astype(np.int32))
    assert (means.sum(axis=1) > 1 - 1e-12).all()
    np.testing.assert_array_equal(found.found, expected)


def test_distances_of_all_users_at_once_are_never_made(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []
    monkeypatch.setattr(interactions, "BLOCK_BYTES", 24 * events.n_users * 5)
    monkeypatch.setattr(
        "tabkit.rankers.parts.neighbours.best_of", lambda scored, k: largest.append(len(scored)) or best_of(scored, k)
    )
    Tifu()._fit(events).near.find(np.arange(events.n_users, dtype=np.int32))
    assert max(largest) == 5 and sum(largest) == events.n_users


@pytest.mark.parametrize("name", ["popular", "decay", "tifu", "itemknn"])
def test_lists_of_few_scores_are_those_of_all(name: str, events: Events) -> None:
    makers = {"popular": lambda: Counts(None, False)._count(events), "decay": lambda: Counts(30)._count(events)}
    makers |= {"tifu": lambda: Tifu()._fit(events), "itemknn": lambda: ItemKnn(3).fit(events)}
    ranker: Ranker = makers[name]()
    users = np.arange(events.n_users, dtype=np.int32)[::-1].copy()
    everyone = events.known & (np.arange(events.n_items) % 9 != 0)
    barred = (sparse.random(len(users), events.n_items, 0.3, random_state=0, format="csr") > 0).astype(float).tocsr()
    for allowed in (
        Allowed(everyone),
        Allowed(everyone, barred=barred),
        Allowed(everyone).without(events.counts[users]),
    ):
        for k in (1, 10, 200):
            dense = ranker.scores(users)
            allowed.mark(dense)
            items, values = best_of(dense, k)
            rows = ranker.sparse_scores(users)
            assert rows is not None
            lists = rows.best(k, allowed)
            np.testing.assert_array_equal(lists[0], items)
            np.testing.assert_array_equal(lists[1], values)


def test_features_of_a_user_do_not_depend_on_who_else_is_asked_about(events: Events) -> None:
    users, items = (np.tile(np.arange(60, dtype=np.int32), 3), np.repeat(np.arange(3, dtype=np.int32), 60))
    whole = features(events, events.end - 28, users, items)
    for user in (0, 17):
        mine = users == user
        assert features(events, events.end - 28, users[mine], items[mine]).equals(whole.filter(mine))


def test_what_does_not_fit_is_named_with_its_reason(tmp_path: Path) -> None:
    recipe = load_recipe(str(shop_recipe(tmp_path, adapt='rerank = ["full"]'))).recipe
    todo = wanted_rankers(recipe, "quick", "")
    kept, left, barred = fitting(todo, GOAL, "quick", recipe.candidates.without)
    assert {each.name: each.reason.split("about ")[1].split(";")[0] for each in left} == {
        "tifu": "15 minutes of a core",
        "ease": "50.0 GB of memory",
    }
    assert [item.name for item in todo if item not in kept] == [each.name for each in left]
    assert {"tifu", "ease", "bpr"} <= set(barred)
    assert fitting(todo, GOAL, "thorough", ())[1][0].name == "ease"
    small = Size.of(coded(habits()), 60)
    assert fitting(todo, small, "quick", ("bpr",)) == (todo, (), ("bpr",))


def test_ease_has_a_limit_on_either_side() -> None:
    for n_users, n_items in ((200_000, 40_000), (40_000, 200_000)):
        size = Size(n_users, n_items, 10**6, 10**4, 0.0)
        assert "GB" in Ease.need(size, "scratch", "thorough").too_much("thorough")


def test_a_run_leaves_out_what_does_not_fit_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(need.MOST_SECONDS, "quick", 0.02)
    tried: list[str] = []

    def fit(self: object, *past: object) -> None:
        tried.append(type(self).__name__)

    monkeypatch.setattr("tabkit.rankers.als.Als.fit", fit)
    habits().write_parquet(tmp_path / "events.parquet")
    done = tabkit.run(str(shop_recipe(tmp_path)), tmp_path / "events.parquet", out=tmp_path / "run", budget="quick")
    assert isinstance(done.result, ListResult) and not tried
    left = {each.name: each for each in done.result.ranking.left_out}
    assert {"als", "als_as_is", "als_fold_in", "als_warm"} <= set(left) and "als" not in {
        c.base for c in done.result.candidates
    }
    page = (done.folder / "report.html").read_text(encoding="utf-8")
    assert f"{left['als_warm'].title} (als_warm) was not tried: it would take about" in page


def test_the_reranker_asks_nobody_whom_the_recipe_leaves_out(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    from tabkit.learner import BUDGETS

    def never(self: object, past: Events) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(Ease, "fit", never)
    monkeypatch.setattr(Tifu, "_fit", never)
    made = Rerank.pretrain(events, np.random.default_rng(0), BUDGETS["quick"], without=["ease", "tifu"])
    assert made is not None and made.sources == ()
    users = np.arange(20, dtype=np.int32)
    assert (made.top(users, 5).items >= 0).all()
    assert not {"ease", "tifu_own", "tifu_near"} & set(made.pairs(users, events.end).names)


def test_the_reranker_finds_its_sources_once_per_scoring(
    events: Events, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tabkit.learner import BUDGETS

    made = Rerank.pretrain(events, np.random.default_rng(0), BUDGETS["quick"])
    assert made is not None
    users = np.arange(events.n_users, dtype=np.int32)
    lists = made.top(users, 5)
    made.save(tmp_path)

    def never(self: object, *rest: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(Sources, "__init__", never)
    monkeypatch.setattr(Ease, "fit", never)
    monkeypatch.setattr(Neighbours, "find", lambda self, users: None)
    monkeypatch.setattr("tabkit.rankers.rerank.MOST_USERS", 7)
    loaded = Rerank.load(tmp_path, events)
    np.testing.assert_array_equal(loaded.top(users, 5).items, lists.items)


def test_a_sample_of_users_is_the_same_whenever_it_is_drawn(events: Events) -> None:
    truth = truth_of(events, events.end - 28, events.end)
    few = truth.sample(10)
    assert len(few.users) == 10 and (np.diff(few.users) > 0).all()
    np.testing.assert_array_equal(few.users, truth.sample(10).users)
    assert truth.sample(10**6) is truth
