"""The verdict: every decision is reached from intervals that call for it, and from no others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import make_features

from tabkit.evaluate.choice import Choice, Terms, choose, picked_on_valid
from tabkit.evaluate.comparison import Forecast, _signed, carried_out, decide, may_not_stay, over_cutoffs, plan_of
from tabkit.evaluate.intervals import Resampled, level_of
from tabkit.evaluate.metrics import METRICS
from tabkit.learner import Proof
from tabkit.result import Against, Block, Chosen, Interval, Planned, Verdict
from tabkit.result.lists import Cutoff, CutoffGain

AUC, LOSS = METRICS["roc_auc"], METRICS["log_loss"]
CHOSEN = Chosen(adapted="net_full", base="net_as_is", baseline="lgbm")
TITLES = {"net_full": "Net (all weights)", "net_as_is": "Net (untouched base)", "lgbm": "LightGBM"}
ROWS = {"train": 600, "valid": 150, "holdout": 250}
TERMS = Terms({"roc_auc": AUC}, 0.0, 1000, 0)


def against(name: str, gain: tuple[float, float, float], role: str = "", worthwhile: float = 0.0) -> Against:
    return Against.of(name, role, Interval(*gain), worthwhile)


def choice(valid_base: float = 0.6) -> Choice:
    return Choice(CHOSEN, {"net_full": 0.8, "net_as_is": valid_base, "lgbm": 0.7}, TITLES, {})


def verdict(
    base: tuple[float, float, float],
    baseline: tuple[float, float, float],
    worthwhile: float = 0.0,
    valid_base: float = 0.6,
) -> tuple[Verdict, str]:
    """Return the verdict, and the champion that follows it."""
    opponents = (against("net_as_is", base, "base", worthwhile), against("lgbm", baseline, "baseline", worthwhile))
    planned = Planned(candidate="net_full", metric="roc_auc", against=opponents)
    return decide(planned, choice(valid_base), replace(TERMS, worthwhile=worthwhile), ROWS, {})


def decision(*gains: tuple[float, float, float], worthwhile: float = 0.0) -> str:
    return verdict(*gains, worthwhile=worthwhile)[0].decision


def test_adapt_needs_both_lower_bounds_above_the_worthwhile_gain() -> None:
    found, champion = verdict((0.05, 0.02, 0.08), (0.03, 0.01, 0.05))
    assert (found.decision, champion) == ("adapt", "net_full")
    assert decision((0.05, 0.02, 0.08), (0.03, 0.01, 0.05), worthwhile=0.015) == "not_enough_evidence"
    assert decision((0.05, -0.01, 0.08), (0.03, 0.01, 0.05)) == "not_enough_evidence"
    assert decision((0.05, 0.02, 0.08), (0.03, -0.01, 0.05)) == "not_enough_evidence"


def test_did_not_pay_is_said_only_if_an_upper_bound_shows_it() -> None:
    worse, champion = verdict((0.05, 0.02, 0.08), (-0.03, -0.05, -0.01))
    assert (worse.decision, champion) == ("use_baseline", "lgbm")
    assert (
        "did not pay" in worse.sentence
        and "0.03 ROC AUC worse than LightGBM (at least 0.01 worse at 95% confidence)" in worse.sentence
    )
    keep, champion = verdict((-0.02, -0.03, -0.01), (0.02, -0.05, 0.06), valid_base=0.75)
    assert (keep.decision, champion) == ("keep_base", "net_as_is") and "did not pay" in keep.sentence
    small, _ = verdict((0.004, 0.001, 0.007), (0.02, 0.01, 0.03), worthwhile=0.01)
    assert small.decision == "use_baseline" and "below the 0.01 that would matter" in small.sentence


def test_a_negative_estimate_is_no_proof() -> None:
    """The sign of a noisy estimate decides nothing: the interval still holds what would be worthwhile."""
    for baseline in ((-0.03, -0.05, 0.02), (0.0001, -0.028, 0.027)):
        found, champion = verdict((0.05, 0.02, 0.08), baseline, worthwhile=0.01)
        assert (found.decision, champion) == ("not_enough_evidence", "lgbm")
        assert "did not pay" not in found.sentence and "cannot be told from these rows" in found.sentence
        assert "LightGBM (baseline): " in found.reason and "not settled" in found.reason


@pytest.mark.parametrize(
    ("gain", "worthwhile", "state"),
    [
        ((0.02, 0.01, 0.03), 0.0, "worthwhile"),
        ((0.02, 0.01, 0.03), 0.01, "not_settled"),  # the bar itself is not above the bar
        ((0.02, 0.01, 0.03), 0.031, "not_worthwhile"),
        ((-0.02, -0.03, 0.0), 0.0, "not_settled"),
        ((0.02, float("nan"), float("nan")), 0.0, "not_settled"),
    ],
)
def test_a_gain_is_in_one_of_three_states(gain: tuple[float, float, float], worthwhile: float, state: str) -> None:
    assert against("lgbm", gain, worthwhile=worthwhile).state == state


def test_not_enough_evidence_names_the_rows() -> None:
    found, _ = verdict((0.02, -0.02, 0.06), (0.03, 0.01, 0.05))
    assert found.decision == "not_enough_evidence" and "looks better" in found.sentence
    assert found.rows_even_odds is not None and found.rows_needed is not None
    assert 1000 < found.rows_even_odds < found.rows_needed
    assert f"{found.rows_needed:,} in four of five cases" in found.sentence


def test_did_not_pay_is_seldom_said_however_many_opponents_could_say_it() -> None:
    """Truly worthwhile by a hair against each of four independent opponents: one upper end of four errs in 2.5% in all."""
    rng, wrong = np.random.default_rng(0), 0
    common = rng.normal(0, 0.01, 400)
    for _ in range(2000):
        seen = rng.normal(TERMS.worthwhile, 0.01, 4)
        rivals = [(f"rival{k}", "rival", Resampled(-gain, common - gain)) for k, gain in enumerate(seen)]
        planned = carried_out("net_full", Resampled(0.0, np.zeros(400)), rivals, TERMS, 1)
        wrong += any(a.state == "not_worthwhile" for a in planned.against)
    assert 0.01 < wrong / 2000 < 0.04


def test_every_question_asked_of_the_same_rows_costs_confidence() -> None:
    draws = np.random.default_rng(0).normal(0.03, 0.012, 4000)
    gained, nothing = Resampled(0.83, 0.8 + draws), Resampled(0.8, np.full(4000, 0.8))
    opponents = [(name, "rival", nothing) for name in ("net_as_is", "lgbm")]
    found = {k: carried_out("net_full", gained, opponents, TERMS, k) for k in (1, 2, 60)}
    assert [found[k].against[0].state for k in found] == ["worthwhile", "not_settled", "not_settled"]
    first, second = found[1].against[0], found[2].against[0]
    assert (second.gain - second.low) / (first.gain - first.low) == pytest.approx(2.671 / 1.96, abs=1e-3)
    assert "with 99.2% intervals" in decide(found[2], choice(), TERMS, ROWS, {})[0].reason
    spent, _ = decide(found[60], choice(), TERMS, ROWS, {})
    assert spent.decision == "not_enough_evidence" and "Hold out rows that nobody has looked at" in spent.sentence
    assert sum((1 - level_of(k)) / 2 for k in range(1, 100_000)) < 0.035


def test_the_best_untouched_base_of_all_is_a_rival_and_may_stay() -> None:
    chosen = Chosen(adapted="net_full", base="net_as_is", baseline="lgbm", best_base="line_as_is")
    roles = dict(plan_of(chosen, TITLES))
    assert list(roles) == ["net_as_is", "lgbm", "line_as_is"] and "untouched base" in roles["line_as_is"]
    values = {"net_full": 0.8, "net_as_is": 0.6, "lgbm": 0.7, "line_as_is": 0.75}
    rivals = Choice(chosen, values, {**TITLES, "line_as_is": "Line"}, {})
    opponents = tuple(against(name, (-0.02, -0.03, -0.01)) for name in roles)
    planned = Planned(candidate="net_full", metric="roc_auc", against=opponents)
    found, champion = decide(planned, rivals, TERMS, ROWS, {})
    assert (found.decision, champion) == ("keep_base", "line_as_is")
    assert decide(planned, rivals, TERMS, ROWS, {}, {"line_as_is"})[1] == "lgbm"  # proven worse on the holdout


def test_the_holdout_keeps_the_worse_from_staying() -> None:
    """Valid of a few rows takes either; a base is as little forced on anyone as a baseline."""
    chosen = Chosen(adapted="adapted", base="base", baseline="baseline", best_base="base")
    noise = np.random.default_rng(0).normal(scale=0.01, size=400)

    def barred(base: float, other: float = 0.7) -> set[str]:
        values = {"baseline": 0.7, "base": base, "adapted": 0.7, "other": other}
        scores = {name: Resampled(v, v + noise * (name != "baseline")) for name, v in values.items()}
        return set(may_not_stay(chosen, METRICS["roc_auc"], scores))

    assert barred(base=0.65) == {"base"} and barred(base=0.71) == barred(base=0.69) == set()
    assert barred(base=0.71, other=0.65) == {"other"}
    assert barred(base=0.75) == {"baseline", "adapted", "other"}  # what is as good as the baseline goes with it
    assert barred(base=0.75, other=0.74) == {"baseline", "adapted"}


def test_nothing_adapted_leaves_the_best_on_valid_base_or_baseline() -> None:
    alone = Chosen(adapted=None, base=None, baseline="lgbm", best_base="line_as_is")
    titles = {**TITLES, "line_as_is": "Line"}
    for value, wanted in ((0.75, ("keep_base", "line_as_is")), (0.65, ("use_baseline", "lgbm"))):
        found, champion = decide(None, Choice(alone, {"lgbm": 0.7, "line_as_is": value}, titles, {}), TERMS, ROWS, {})
        assert (found.decision, champion) == wanted


def test_the_reason_has_one_number_of_decimals_for_a_gain_and_its_interval() -> None:
    assert _signed(against("lgbm", (0.1506, 0.09888, 0.1996))) == "+0.151 [+0.099, +0.200]"
    assert _signed(against("lgbm", (-12345.6, -20000.0, -5000.0))) == "-12346 [-20000, -5000]"
    assert _signed(against("lgbm", (0.0, 0.0, 0.0))) == "+0.0000 [+0.0000, +0.0000]"


def test_a_shrinking_gain_takes_longer_or_never_comes() -> None:
    gains = [against("lgbm", (0.02, -0.02, 0.06))]

    def needed(curve: dict[str, list[tuple[int, float]]]) -> int | None:
        return Forecast(gains, 0.0, 1000, curve).rows_needed()

    flat = needed({})
    growing = needed({"lgbm": [(250, 0.0), (500, 0.01), (1000, 0.02)]})
    assert flat is not None and growing == flat
    assert Forecast(gains, 0.0, 1000, {}).rows_needed(0.5) < flat  # type: ignore[operator]
    wide = [against("lgbm", (0.0, -0.06, 0.06))]
    assert Forecast(wide, 0.0, 1000, {}).rows_needed(0.99) is None


def test_rows_needed_settle_it_in_about_four_of_five_cases() -> None:
    """Draw gains and estimates; where one is not settled, draw again with as many rows as told."""
    rng = np.random.default_rng(0)
    settled = []
    while len(settled) < 300:
        truth = rng.normal(0, 1.0)
        estimate = truth + rng.normal()
        gain = against("lgbm", (estimate, estimate - 1.96, estimate + 1.96), worthwhile=0.5)
        more = Forecast([gain], 0.5, 1_000_000, {}).rows_needed()
        if gain.state != "not_settled" or more is None:
            continue
        half = 1.96 / np.sqrt(1 + more / 1_000_000)
        again = truth + rng.normal() * half / 1.96
        settled.append(abs(again - 0.5) > half)
    assert 0.6 < np.mean(settled) < 0.9


def candidate(name: str, base: str, kind: str, trained: int = 1) -> SimpleNamespace:
    how = {"base": "as_is", "adapted": "full"}.get(kind, "scratch")
    # As choosing looks at it: an untouched base trains nothing, and a blend is the sum of its members.
    blocks = (Block("lgbm/x" if base == "blend" else "x", trained, 0 if kind == "base" else trained, 0.0),)
    settings = {"weights": {"lgbm": 1.0}}
    adapted = SimpleNamespace(
        how="baselines" if base == "blend" else how, proof=Proof(blocks), settings=settings, model=None
    )
    return SimpleNamespace(name=name, base=base, kind=kind, title=name, adapted=adapted)


def test_choice_is_by_valid_and_direction() -> None:
    table = (
        candidate("prior", "prior", "baseline"),
        candidate("lgbm", "lgbm", "baseline"),
        candidate("net_as_is", "net", "base"),
        candidate("net_head", "net", "adapted", 5),
        candidate("net_full", "net", "adapted", 50),
    )
    values = {"prior": 0.6, "lgbm": 0.3, "net_as_is": 0.5, "net_head": 0.4, "net_full": 0.4}
    found = choose(table, values, LOSS)  # type: ignore[arg-type]
    # A tie goes to the smaller change.
    expected = Chosen(adapted="net_head", base="net_as_is", baseline="lgbm", best_base="net_as_is")
    assert found.chosen == expected and not found.refused
    assert choose(table, values, AUC).chosen.baseline == "prior"  # type: ignore[arg-type]
    undefined = {**values, "net_head": float("nan")}
    assert choose(table, undefined, LOSS).chosen.adapted == "net_full"  # type: ignore[arg-type]


def test_a_blend_is_compared_with_what_picking_is_worth() -> None:
    table = (
        candidate("lgbm", "lgbm", "baseline"),
        candidate("linear", "linear", "baseline"),
        candidate("blend_baselines", "blend", "baseline", 9),
    )
    values = {"lgbm": 0.80, "linear": 0.78, "blend_baselines": 0.79}
    assert choose(table, values, AUC, {"baseline": 0.77}).chosen.baseline == "blend_baselines"  # type: ignore[arg-type]
    assert choose(table, values, AUC, {"baseline": 0.80}).chosen.baseline == "lgbm"  # type: ignore[arg-type]


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
    earlier = [cutoff() if low is None else cutoff(0.02, low) for low in lows]
    found, stays = over_cutoffs(*now, earlier, choice(), TERMS)
    assert (found.decision, stays) == (decision, champion)
    assert not lows or f"Of {len(lows) + 1} cutoffs" in found.reason
    # If the last cutoff showed nothing, earlier ones do not make up for it.
    nothing = verdict((-0.05, -0.08, -0.02), (0.03, 0.01, 0.05))
    assert over_cutoffs(*nothing, [cutoff(0.1)] * 3, choice(), TERMS)[0].decision == nothing[0].decision


def cutoff(*lows: float) -> Cutoff:
    gains = tuple(CutoffGain(name="lgbm", gain=low + 0.1, low=low, high=low + 0.2) for low in lows)
    return Cutoff(cutoff="2024-01-01", users=100, gains=gains)
