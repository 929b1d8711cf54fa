"""How often intervals hold the truth where one class is rare: python benchmarks/rare.py --draws 400.

Scores of two models on simulated rows: normal, a distance apart between classes, correlated between the models, so that ROC
AUC, KS and the gain of one model over the other are known. Rows are drawn, resampled and turned to intervals by the very
functions of a run; beside them are a plain percentile interval, its reflection (the basic bootstrap), a stretch by the t of
the rarer class's rows, the same on the logit scale, and DeLong's on the logit scale. Shown is the share of draws whose interval
holds the truth, and the share of gains whose lower bound is above 0 though the truth is 0 (2.5% is wanted).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
from joblib import Parallel, delayed
from scipy import stats

from tabkit.evaluate.intervals import Resampled, Resampler, difference, interval
from tabkit.evaluate.metrics import METRICS

RESAMPLES, ALIKE = 400, 0.8
NAMES = ("roc_auc", "ks", "pr_auc", "log_loss")
Bounds = tuple[float, float]


def main() -> None:
    """Print coverage by positives, metric and kind of interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--positives", type=int, nargs="+", default=[6, 12, 25, 50, 100])
    parser.add_argument("--one-in", type=int, default=10)
    parser.add_argument("--metrics", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    rows: dict[tuple[str, str], list[str]] = {}
    for n_positive in options.positives:
        made = Parallel(options.jobs)(
            delayed(draw)(n_positive, options.one_in, seed, options.metrics) for seed in range(options.draws)
        )
        for key in made[0]:
            rows.setdefault(key, []).append(f"{np.mean([m[key] for m in made]):.1%}")
    print(f"| of | interval | {' | '.join(f'{n} positives' for n in options.positives)} |")
    print("|---|---|" + "---|" * len(options.positives))
    for (of, kind), cells in rows.items():
        print(f"| {of} | {kind} | {' | '.join(cells)} |")


def draw(n_positive: int, one_in: int, seed: int, names: list[str]) -> dict[tuple[str, str], bool]:
    """Return whether each interval of one draw holds the truth, and whether a gain of nought is said to be one."""
    rng = np.random.default_rng([n_positive, one_in, seed])
    n, apart = n_positive * one_in, (0.8, 1.6, 2.4)[seed % 3]
    y = (np.arange(n) < n_positive).astype(np.int64)
    common = rng.normal(size=n)
    scores = [math.sqrt(ALIKE) * common + math.sqrt(1 - ALIKE) * rng.normal(size=n) + apart * y for _ in range(2)]
    predicted = [_probabilities(s, apart, one_in) for s in scores]
    truth = {"roc_auc": stats.norm.cdf(apart / math.sqrt(2)), "ks": 2 * stats.norm.cdf(apart / 2) - 1}
    resampler = Resampler(n, None, RESAMPLES, seed)
    metrics = {name: METRICS[name] for name in names}
    both = [resampler.scored(metrics, y, p) for p in predicted]
    out: dict[tuple[str, str], bool] = {}
    for name, metric in metrics.items():
        if name in truth:
            found = interval(both[0][name], metric.within)
            out[name, "**of a run**"] = found.low <= truth[name] <= found.high
            plain = Resampled(both[0][name].value, _unstretched(both[0][name]))
            for kind, (low, high) in _others(plain, n_positive, n - n_positive, name, y, scores[0]):
                out[name, kind] = low <= truth[name] <= high
        gain = difference(metric, both[0][name], both[1][name])
        found = interval(gain)  # as it were without a floor of positives
        out[f"gain in {name}", "**of a run**, holds 0"] = found.low <= 0 <= found.high
        out[f"gain in {name}", "**of a run**, wrongly above 0"] = found.low > 0
        plain = gain.value + (gain.draws - gain.value) / both[0][name].stretch
        low, high = np.nanquantile(plain, [0.025, 0.975])
        out[f"gain in {name}", "percentile, holds 0"] = bool(low <= 0 <= high)
        out[f"gain in {name}", "percentile, wrongly above 0"] = bool(low > 0)
    return out


def _probabilities(score: np.ndarray, apart: float, one_in: int) -> np.ndarray:
    p = 1 / (1 + np.exp(-(apart * (score - apart / 2) - math.log(one_in - 1))))
    return np.column_stack([1 - p, p])


def _unstretched(of: Resampled) -> np.ndarray:
    return of.value + (of.draws - of.value) / of.stretch


def _others(
    plain: Resampled, n_positive: int, n_negative: int, name: str, y: np.ndarray, score: np.ndarray
) -> Iterator[tuple[str, Bounds]]:
    value, draws = plain.value, plain.draws
    few = min(n_positive, n_negative)
    times = math.sqrt(few / (few - 1)) * stats.t.ppf(0.975, few - 1) / stats.norm.ppf(0.975)
    least = 1 / (2 * n_positive * n_negative)

    def logit(v: np.ndarray | float) -> np.ndarray:
        inside = np.clip(v, least, 1 - least)
        return np.log(inside / (1 - inside))

    def ends(low_high: np.ndarray) -> Bounds:
        return float(low_high[0]), float(low_high[1])

    tails = [0.025, 0.975]
    yield "percentile", ends(np.nanquantile(draws, tails))
    yield "basic", ends(2 * value - np.nanquantile(draws, tails)[::-1])
    yield "percentile, t of the rarer", ends(np.nanquantile(value + times * (draws - value), tails))
    yield "basic, t of the rarer", ends(2 * value - np.nanquantile(value + times * (draws - value), tails)[::-1])
    yield (
        "shifted by twice the bias, t",
        ends(np.nanquantile(value + times * (draws - value), tails) - 2 * (np.nanmean(draws) - value)),
    )
    at = float(logit(value))
    stretched = at + times * (logit(draws) - at)
    yield "logit, t of the rarer", ends(1 / (1 + np.exp(-np.nanquantile(stretched, tails))))
    yield "basic on the logit, t", ends(1 / (1 + np.exp(-(2 * at - np.nanquantile(stretched, tails)[::-1]))))
    bias, spread = float(np.nanmean(draws) - value), float(np.nanstd(draws))
    for shown, often in (("", 0), ("less the bias, ", 1), ("less twice the bias, ", 2)):
        centre = float(np.clip(value - often * bias, least, 1 - least))
        half = stats.t.ppf(0.975, few - 1) * math.sqrt(few / (few - 1)) * spread / (centre * (1 - centre))
        middle = float(logit(centre))
        yield f"spread on the logit, {shown}t", (1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle)))
    if name == "roc_auc":
        ranks = stats.rankdata(score)
        within = [stats.rankdata(score[y == k]) for k in (1, 0)]
        placed = [(ranks[y == 1] - within[0]) / n_negative, 1 - (ranks[y == 0] - within[1]) / n_positive]
        error = math.sqrt(sum(p.var(ddof=1) / len(p) for p in placed)) / max(value * (1 - value), least)
        half = stats.t.ppf(0.975, few - 1) * error
        yield "DeLong on the logit, t", (1 / (1 + math.exp(-(at - half))), 1 / (1 + math.exp(-(at + half))))


if __name__ == "__main__":
    main()
