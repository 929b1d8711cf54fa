"""Every metric against scikit-learn, with and without weights; intervals against a plain bootstrap."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from tabkit.errors import UsageError
from tabkit.evaluate.intervals import Resampler, holm, interval, paired
from tabkit.evaluate.metrics import METRICS, Case, Metric, _Metrics, resolve


def binary_case(seed: int, n: int = 300, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.int64)
    p = np.clip(0.3 + 0.2 * y + rng.normal(0, 0.2, n), 0.01, 0.99)
    if ties:
        p = p.round(1).clip(0.05, 0.95)
    return y, np.column_stack([1 - p, p])


def reference(name: str, y: np.ndarray, p: np.ndarray, w: np.ndarray) -> float:
    score = p[:, 1] if p.ndim == 2 and p.shape[1] == 2 else p
    if name in ("ks", "fpr_at_80_recall"):
        fpr, tpr, _ = sk.roc_curve(y, score, sample_weight=w, drop_intermediate=False)
        return float(np.abs(tpr - fpr).max() if name == "ks" else fpr[tpr >= 0.8 - 1e-9].min())
    if name == "sensitivity_at_90_specificity":
        fpr, tpr, _ = sk.roc_curve(y, score, sample_weight=w, drop_intermediate=False)
        return float(tpr[fpr <= 0.1 + 1e-9].max())
    if name == "net_benefit_at_30":
        tn, fp, fn, tp = sk.confusion_matrix(y, score >= 0.3, sample_weight=w).ravel()
        return float((tp - fp * 0.3 / 0.7) / (tn + fp + fn + tp))
    if name == "rpiq":
        low, high = np.quantile(np.repeat(y, w.astype(int)), [0.25, 0.75])
        return float((high - low) / sk.root_mean_squared_error(y, p, sample_weight=w))
    plain = {
        "roc_auc": lambda: sk.roc_auc_score(y, score, sample_weight=w),
        "gini": lambda: 2 * sk.roc_auc_score(y, score, sample_weight=w) - 1,
        "pr_auc": lambda: sk.average_precision_score(y, score, sample_weight=w),
        "brier": lambda: sk.brier_score_loss(y, score, sample_weight=w),
        "log_loss": lambda: sk.log_loss(y, p, sample_weight=w, labels=list(range(p.shape[1]))),
        "accuracy": lambda: sk.accuracy_score(y, p.argmax(axis=1), sample_weight=w),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, p.argmax(axis=1), sample_weight=w),
        "macro_roc_auc": lambda: np.mean(
            [sk.roc_auc_score(y == k, p[:, k], sample_weight=w) for k in range(p.shape[1])]
        ),
        "rmse": lambda: sk.root_mean_squared_error(y, p, sample_weight=w),
        "mae": lambda: sk.mean_absolute_error(y, p, sample_weight=w),
        "r2": lambda: sk.r2_score(y, p, sample_weight=w),
    }
    return float(plain[name]())


@pytest.mark.parametrize("name", sorted(n for n, m in METRICS.items() if "ranking" not in m.tasks))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metric_matches_scikit_learn_under_weights(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    metric = METRICS[name]
    if "regression" in metric.tasks:
        y = rng.normal(1000, 3, 200)
        p = y + rng.normal(0, 1, 200)
    elif "binary" in metric.tasks:
        y, p = binary_case(seed)
    else:
        raise AssertionError(name)
    counts = np.stack([np.ones(len(y)), np.bincount(rng.integers(len(y), size=len(y)), minlength=len(y))])
    ours = metric.function(Case(y, p, counts.astype(float)))
    theirs = [reference(name, y, p, w) for w in counts]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["log_loss", "accuracy", "balanced_accuracy", "macro_roc_auc"])
def test_multiclass_metric_matches_scikit_learn(name: str) -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, 300)
    p = rng.dirichlet(np.ones(4), 300) + 0.5 * np.eye(4)[y]
    p /= p.sum(axis=1, keepdims=True)
    assert METRICS[name].value(y, p) == pytest.approx(reference(name, y, p, np.ones(300)), rel=1e-9)


def outside(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> Mapping[str, Metric]:
    """Return the metrics as they are with a package installed that registers one."""
    (folder / "outside_metrics.py").write_text(
        "import numpy as np\nfrom tabkit.evaluate.metrics import Metric\n"
        "bias = Metric('Bias', lambda c: (c.w @ (c.p - c.y)) / c.w.sum(axis=1), greater_is_better=False,\n"
        "              tasks=frozenset({'regression'}), within=(-np.inf, np.inf), unit='target')\n"
    )
    info = folder / "outside-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[tabkit.metrics]\n{name} = outside_metrics:{value}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "outside_metrics", raising=False)
    return _Metrics()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("rmse", "bias", "Two metrics are named 'rmse': tabkit's own, and outside_metrics:bias"),
        ("bias", "np", "expected a tabkit.evaluate.metrics.Metric, found <module"),
        ("bias", "bais", "cannot be loaded"),
    ],
)
def test_a_registered_metric_that_does_not_fit_says_so(
    name: str, value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=words):
        outside(tmp_path, monkeypatch, name, value)["rmse"]


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_states_a_range_that_holds_its_values(name: str) -> None:
    low, high = METRICS[name].within
    if "binary" in METRICS[name].tasks:
        cases = [binary_case(seed) for seed in range(5)]
        cases += [(y, p[:, ::-1]) for y, p in cases]  # worse than chance
    else:
        rng = np.random.default_rng(0)
        ranking = "ranking" in METRICS[name].tasks
        cases = [(rng.normal(size=9), rng.random(9) if ranking else scale * rng.normal(size=9)) for scale in (0.1, 9)]
    assert all(low <= METRICS[name].value(y, p) <= high for y, p in cases)


def test_interval_matches_a_plain_bootstrap() -> None:
    y, p = binary_case(5, n=400, ties=False)
    ours = interval(Resampler(400, None, 4000, seed=1).score(METRICS["roc_auc"], y, p))
    rng = np.random.default_rng(99)
    plain = []
    for _ in range(2000):
        rows = rng.integers(400, size=400)
        plain.append(sk.roc_auc_score(y[rows], p[rows, 1]))
    low, high = np.quantile(plain, [0.025, 0.975])
    assert ours.low == pytest.approx(low, abs=0.006)
    assert ours.high == pytest.approx(high, abs=0.006)


def test_groups_are_drawn_together() -> None:
    groups = np.repeat(np.arange(20), 5)
    for weights in Resampler(100, groups, 50, seed=0).weights():
        by_group = weights.reshape(len(weights), 20, 5)
        assert (by_group == by_group[:, :, :1]).all()
        assert (by_group[:, :, 0].sum(axis=1) == 20).all()


def test_resamples_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = binary_case(0)
    whole = Resampler(300, None, 64, 7).score(METRICS["roc_auc"], y, p).draws
    monkeypatch.setattr("tabkit.evaluate.intervals._CHUNK_BYTES", 8 * 300 * 5)
    np.testing.assert_array_equal(whole, Resampler(300, None, 64, 7).score(METRICS["roc_auc"], y, p).draws)


def test_pairing_cancels_what_both_share() -> None:
    y, p = binary_case(1, ties=False)
    metric, resampler = METRICS["log_loss"], Resampler(300, None, 1000, 0)
    better = np.clip(p + 0.01 * (np.eye(2)[y] - p), 1e-6, 1)
    scores = [resampler.score(metric, y, q) for q in (better, p)]
    assert [s.value for s in scores] == [metric.value(y, q) for q in (better, p)]
    gain, p_value = paired(metric, scores[0], scores[1])
    alone = interval(scores[0])
    assert 0 < gain.low < gain.value < gain.high
    assert gain.high - gain.low < 0.2 * (alone.high - alone.low)
    assert p_value < 0.01


@pytest.mark.parametrize(("positives", "ends"), [(1, False), (3, True)])
def test_one_class_resamples_are_undefined_not_wrong(positives: int, ends: bool) -> None:
    y = np.array([0] * (10 - positives) + [1] * positives)
    p = np.column_stack([1 - np.linspace(0, 1, 10), np.linspace(0, 1, 10)])
    score = Resampler(10, None, 500, 0).score(METRICS["roc_auc"], y, p)
    assert np.isnan(score.draws).any()
    found = interval(score)
    assert found.value == 1.0
    # Of one positive, a third of all resamples know nothing; of three, fewer than an interval leaves out anyway.
    assert (np.isfinite([found.low, found.high]) == ends).all()


def test_holm_is_monotone_and_in_order() -> None:
    assert holm([]) == []
    adjusted = holm([0.04, 0.001, 0.5])
    assert adjusted == pytest.approx([0.08, 0.003, 0.5])


def test_unknown_metric_suggests_near_names() -> None:
    with pytest.raises(UsageError, match="Did you mean 'roc_auc'"):
        resolve(["roc_auk"], "binary", "a.toml")
    with pytest.raises(UsageError, match="not for binary tasks"):
        resolve(["rmse"], "binary", "a.toml")
