from __future__ import annotations

import ir_measures as ir
import numpy as np
import pytest
from scipy import sparse

from tabkit.data.interactions import Truth
from tabkit.evaluate.metrics import METRICS, Case
from tabkit.evaluate.ranking import compare_lists
from tabkit.rankers.base import Lists


def case(n_users: int = 60, n_items: int = 50, seed: int = 0) -> tuple[Lists, Truth]:
    rng = np.random.default_rng(seed)
    items = np.stack([rng.permutation(n_items)[:20] for _ in range(n_users)]).astype(np.int32)
    taken = rng.random((n_users, n_items)) < rng.choice([0.02, 0.1, 0.7], n_users)[:, None]
    taken[np.arange(n_users), rng.integers(n_items, size=n_users)] = True
    truth = Truth(
        np.arange(n_users, dtype=np.int32),
        sparse.csr_matrix(taken),
        sparse.csr_matrix((rng.random((n_users, n_items)) < 0.3).astype(float)),
        0,
        28,
    )
    return Lists(items, -np.sort(-rng.random((n_users, 20)).astype(np.float32), axis=1)), truth


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("ndcg@10", "nDCG@10"),
        ("ndcg@20", "nDCG@20"),
        ("recall@10", "R@10"),
        ("recall@20", "R@20"),
        ("mrr@20", "RR@20"),
        ("hit_rate@10", "Success@10"),
    ],
)
def test_agrees_with_ir_measures(name: str, theirs: str) -> None:
    lists, truth = case()
    dense = truth.items.toarray()
    qrels = [ir.Qrel(str(u), str(i), int(dense[u, i])) for u in range(len(dense)) for i in range(dense.shape[1])]
    run = [
        ir.ScoredDoc(str(u), str(i), float(-rank)) for u, row in enumerate(lists.items) for rank, i in enumerate(row)
    ]
    expected = {int(m.query_id): m.value for m in ir.iter_calc([ir.parse_measure(theirs)], qrels, run)}
    ours = METRICS[name].of_users(compare_lists(lists, truth))
    np.testing.assert_allclose(ours, [expected[u] for u in range(len(dense))], atol=1e-12)


def test_average_precision_by_hand() -> None:
    # Taken: 3 items. Found at ranks 1 and 3: (1/1 + 2/3) / 3.
    truth = Truth(
        np.zeros(1, np.int32),
        sparse.csr_matrix(np.eye(1, 9, 4) + np.eye(1, 9, 2) + np.eye(1, 9, 8)),
        sparse.csr_matrix((1, 9)),
        0,
        1,
    )
    lists = Lists(np.array([[4, 0, 2, 1]], np.int32), np.array([[4, 3, 2, 1]], np.float32))
    assert METRICS["map@10"].of_users(compare_lists(lists, truth))[0] == pytest.approx((1 + 2 / 3) / 3)


def test_ideal_is_over_what_there_was_to_find_and_a_missing_item_is_no_hit() -> None:
    truth = Truth(np.zeros(1, np.int32), sparse.csr_matrix([[0, 0, 1]]), sparse.csr_matrix((1, 3)), 0, 1)
    perfect = Lists(np.array([[2, -1, -1]], np.int32), np.zeros((1, 3), np.float32))
    hits = compare_lists(perfect, truth)
    assert hits.ndcg(10)[0] == 1.0 and hits.recall(10)[0] == 1.0
    assert hits.hit.tolist() == [[True, False, False]]


def test_new_recall_counts_new_items_only_and_is_undefined_without_any() -> None:
    items = sparse.csr_matrix(np.array([[1, 1, 0], [1, 0, 0]], bool))
    seen = sparse.csr_matrix(np.array([[3.0, 0, 0], [2.0, 0, 0]]))
    truth = Truth(np.arange(2, dtype=np.int32), items, seen, 0, 1)
    lists = Lists(np.array([[1, 2], [1, 2]], np.int32), np.zeros((2, 2), np.float32))
    new = compare_lists(lists, truth, lists).new_recall(20)
    assert new[0] == 1.0 and np.isnan(new[1])
    both = METRICS["new_recall@20"].function(Case(np.zeros(2), new, np.array([[1.0, 5.0], [0.0, 1.0]])))
    assert both[0] == 1.0 and np.isnan(both[1])
