"""The verdict: every decision is reached from intervals that call for it, and from no others."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_features

from tabkit.evaluate.comparison import (
    Against,
    Chosen,
    Planned,
    _signed,
    choose,
    decide,
    over_cutoffs,
    picked_on_valid,
    rows_needed,
)
from tabkit.evaluate.intervals import Interval
from tabkit.evaluate.metrics import METRICS

AUC, LOSS = METRICS["roc_auc"], METRICS["log_loss"]
CHOSEN = Chosen("net_full", "net_as_is", "lgbm")
TITLES = {"net_full": "Net (all weights)", "net_as_is": "Net (untouched base)", "lgbm": "LightGBM"}
ROWS = {"train": 600, "valid": 150, "holdout": 250}


def verdict(
    base: tuple[float, float, float],
    baseline: tuple[float, float, float],
    worthwhile: float = 0.0,
    valid_base: float = 0.6,
):
    planned = Planned(
        "net_full",
        "roc_auc",
        (Against("net_as_is", "base", Interval(*base)), Against("lgbm", "baseline", Interval(*baseline))),
    )
    on_valid = {"net_full": 0.8, "net_as_is": valid_base, "lgbm": 0.7}
    return decide(planned, CHOSEN, on_valid, AUC, worthwhile, ROWS, {}, TITLES)


def test_adapt_needs_both_lower_bounds_above_the_worthwhile_gain() -> None:
    assert verdict((0.05, 0.02, 0.08), (0.03, 0.01, 0.05)).decision == "adapt"
    assert verdict((0.05, 0.02, 0.08), (0.03, 0.01, 0.05)).champion == "net_full"
    assert verdict((0.05, 0.02, 0.08), (0.03, 0.01, 0.05), worthwhile=0.015).decision == "not_enough_evidence"
    assert verdict((0.05, -0.01, 0.08), (0.03, 0.01, 0.05)).decision == "not_enough_evidence"
    assert verdict((0.05, 0.02, 0.08), (0.03, -0.01, 0.05)).decision == "not_enough_evidence"


def test_no_gain_is_no_adaptation_and_valid_says_what_stays() -> None:
    worse = verdict((0.05, 0.02, 0.08), (-0.03, -0.05, 0.01))
    assert (worse.decision, worse.champion) == ("use_baseline", "lgbm")
    assert "0.03 ROC AUC worse than LightGBM" in worse.sentence
    keep = verdict((0.0, -0.01, 0.01), (0.02, -0.05, 0.06), valid_base=0.75)
    assert (keep.decision, keep.champion) == ("keep_base", "net_as_is")
    small = verdict((0.004, 0.001, 0.007), (0.02, 0.01, 0.03), worthwhile=0.01)
    assert small.decision == "use_baseline" and "below the 0.01 that would matter" in small.sentence


def test_not_enough_evidence_names_the_rows() -> None:
    found = verdict((0.02, -0.02, 0.06), (0.03, 0.01, 0.05))
    assert found.decision == "not_enough_evidence"
    assert found.rows_needed == pytest.approx(3100, rel=0.05)  # four times the rows halve the interval
    assert "collect about 3,1" in found.sentence


def test_the_reason_has_one_number_of_decimals_for_a_gain_and_its_interval() -> None:
    assert _signed(Interval(0.1506, 0.09888, 0.1996)) == "+0.151 [+0.099, +0.200]"
    assert _signed(Interval(-12345.6, -20000.0, -5000.0)) == "-12346 [-20000, -5000]"
    assert _signed(Interval(0.0, 0.0, 0.0)) == "+0.0000 [+0.0000, +0.0000]"


def test_nothing_adapted() -> None:
    found = decide(None, Chosen(None, None, "lgbm"), {"lgbm": 0.7}, AUC, 0.0, ROWS, {}, TITLES)
    assert (found.decision, found.champion) == ("use_baseline", "lgbm")


def test_a_shrinking_gain_takes_longer_or_never_comes() -> None:
    gains = {"lgbm": Interval(0.02, -0.02, 0.06)}
    flat = rows_needed(gains, 0.0, 1000, {})
    growing = rows_needed(gains, 0.0, 1000, {"lgbm": [(250, 0.0), (500, 0.01), (1000, 0.02)]})
    shrinking = rows_needed(gains, 0.0, 1000, {"lgbm": [(250, 0.022), (500, 0.021), (1000, 0.02)]})
    vanishing = rows_needed(gains, 0.0, 1000, {"lgbm": [(250, 0.06), (500, 0.04), (1000, 0.02)]})
    assert flat is not None and shrinking is not None
    assert growing == flat
    assert shrinking > flat
    assert vanishing is None


def candidate(name: str, base: str, kind: str, trained: int = 1) -> SimpleNamespace:
    proof = SimpleNamespace(trained_parameters=trained)
    return SimpleNamespace(name=name, base=base, kind=kind, adapted=SimpleNamespace(proof=proof))


def test_choice_is_by_valid_and_direction() -> None:
    table = (
        candidate("prior", "prior", "baseline"),
        candidate("lgbm", "lgbm", "baseline"),
        candidate("net_as_is", "net", "base"),
        candidate("net_head", "net", "adapted", 5),
        candidate("net_full", "net", "adapted", 50),
    )
    values = {"prior": 0.6, "lgbm": 0.3, "net_as_is": 0.5, "net_head": 0.4, "net_full": 0.4}
    chosen = choose(table, values, LOSS, {})  # type: ignore[arg-type]
    assert chosen == Chosen("net_head", "net_as_is", "lgbm")  # a tie goes to the smaller change
    assert choose(table, values, AUC, {}).baseline == "prior"  # type: ignore[arg-type]
    assert choose(table, {**values, "net_head": float("nan")}, LOSS, {}).adapted == "net_full"  # type: ignore[arg-type]


def test_a_blend_is_compared_with_what_picking_is_worth() -> None:
    table = (
        candidate("lgbm", "lgbm", "baseline"),
        candidate("linear", "linear", "baseline"),
        candidate("blend_baselines", "blend", "baseline", 9),
    )
    values = {"lgbm": 0.80, "linear": 0.78, "blend_baselines": 0.79}
    assert choose(table, values, AUC, {"baseline": 0.77}).baseline == "blend_baselines"  # type: ignore[arg-type]
    assert choose(table, values, AUC, {"baseline": 0.80}).baseline == "lgbm"  # type: ignore[arg-type]


def test_picking_among_coins_is_worth_a_coin() -> None:
    """Thirty candidates that know nothing: the best of them looks good on valid, and picking it is worth nothing."""
    rng = np.random.default_rng(0)
    valid = make_features("binary", 200)
    metric = METRICS["roc_auc"]
    best, picked = [], []
    for _ in range(20):
        chances = rng.random((30, len(valid)))
        coins = [SimpleNamespace(valid=np.column_stack([1 - p, p])) for p in chances]
        best.append(max(metric.value(valid.labels, c.valid) for c in coins))
        picked.append(metric.value(valid.labels, picked_on_valid(coins, valid, metric)))  # type: ignore[arg-type]
    assert np.mean(best) > 0.56
    assert np.mean(picked) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("lows", "decision", "champion"),
    [
        ([], "adapt", "net_full"),
        ([0.01, -0.1], "adapt", "net_full"),
        ([-0.1], "not_enough_evidence", "lgbm"),
        ([None], "not_enough_evidence", "lgbm"),
    ],
)
def test_adapt_stands_where_most_cutoffs_agree(lows: list[float | None], decision: str, champion: str) -> None:
    now = verdict((0.05, 0.02, 0.08), (0.03, 0.01, 0.05))
    earlier = [{"gains": [] if low is None else [{"low": 0.02}, {"low": low}]} for low in lows]
    found = over_cutoffs(now, earlier, 0.0, "lgbm", "LightGBM")
    assert (found.decision, found.champion) == (decision, champion)
    assert not lows or f"Of {len(lows) + 1} cutoffs" in found.reason
    # Where the last cutoff showed nothing, earlier ones do not make up for it.
    kept = verdict((-0.05, -0.08, -0.02), (0.03, 0.01, 0.05))
    assert over_cutoffs(kept, [{"gains": [{"low": 0.1}]}] * 3, 0.0, "lgbm", "LightGBM").decision == kept.decision
