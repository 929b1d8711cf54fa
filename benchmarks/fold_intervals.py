"""Do intervals over outer folds hold the truth? Simulated tables, light models: python benchmarks/fold_intervals.py

The truth is what a model scores on fresh rows, the mean over all tables of a setting: what the procedure is worth at this
number of rows. Each of four intervals is asked how often it holds the truth (95% of tables should) and how wide it is, for
the scores of five models and for four gains of one over another. They are the bootstrap over rows as if they had been
predicted independently; the corrected resampled t of the folds' own scores (Nadeau & Bengio 2003); the wider of these two,
side by side; and the bootstrap widened for the training rows that folds share, which is what a run over folds reports.
``--halves 5`` adds the conservative z of the same paper, from cross-validations of that many random halves and their other
halves: it takes ten times as long.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from joblib import Parallel, delayed, parallel_config
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from tabkit.evaluate.intervals import Resampled, Resampler, corrected_t, interval, widening_over_folds
from tabkit.evaluate.metrics import METRICS, Metric
from tabkit.result import Interval

Floats = npt.NDArray[np.float64]
Table = tuple[Floats, Floats, npt.NDArray]
"""Columns, target and group codes."""

COLUMNS = 5
FRESH_ROWS = 2000
RESAMPLES = 400
METHODS = ("bootstrap", "corrected t", "wider of both", "widened bootstrap")


@dataclass(frozen=True)
class Setting:
    """How tables are drawn and cut."""

    task: str
    rows: int
    folds: int
    signal: float
    """Slope of the target on each column: 0 is noise."""
    heavy: bool = False
    """Errors are log-normal."""
    groups: int = 0
    """Rows of a group share an error and a shift of every column, and are held out together."""


SETTINGS = {
    "noise, classes": Setting("binary", 100, 5, 0.0),
    "noise, numbers": Setting("regression", 100, 5, 0.0),
    "noise, classes, ten folds": Setting("binary", 200, 10, 0.0),
    "signal, classes": Setting("binary", 100, 5, 0.5),
    "signal, numbers": Setting("regression", 100, 5, 0.5),
    "signal, 400 rows": Setting("regression", 400, 5, 0.5),
    "signal, 30 rows, ten folds": Setting("regression", 30, 10, 0.5),
    "signal, heavy tails": Setting("regression", 100, 10, 0.5, heavy=True),
    "signal, 40 groups": Setting("binary", 200, 5, 0.5, groups=40),
}
MODELS = ("line", "shrunk line", "neighbours", "forest", "lucky line")
"""The lucky line sees two columns, drawn by lot in every fold: a procedure that is good at times."""
GAINS = (("line", "shrunk line"), ("forest", "line"), ("lucky line", "line"), ("neighbours", "forest"))


def drawn(setting: Setting, n: int, groups: int, rng: np.random.Generator) -> tuple[Floats, Floats, npt.NDArray]:
    """Return columns (n, COLUMNS), target (n,) and group codes (n,)."""
    group = np.arange(n) % groups if groups else np.arange(n)
    x, error = rng.normal(size=(n, COLUMNS)), rng.normal(size=n)
    if groups:
        x, error = x + rng.normal(size=(groups, COLUMNS))[group], error + rng.normal(size=groups)[group]
    if setting.heavy:
        error = np.exp(error) - math.exp(0.5)
    y = setting.signal * x.sum(axis=1) + error
    return x, (y > 0).astype(float) if setting.task == "binary" else y, group


def fitted_predict(name: str, setting: Setting, x: Floats, y: Floats, luck: np.random.Generator):
    """Fit one model and return its prediction: of class 1, or the number."""
    classes, columns = setting.task == "binary", np.arange(COLUMNS)
    if name == "lucky line":
        columns = luck.permutation(COLUMNS)[:2]
    if name in ("line", "lucky line"):
        model = LogisticRegression() if classes else Ridge(1.0)
    elif name == "shrunk line":
        model = LogisticRegression(C=0.01) if classes else Ridge(30.0)
    elif name == "neighbours":
        model = (KNeighborsClassifier if classes else KNeighborsRegressor)(min(10, len(x) // 3))
    else:
        model = (ExtraTreesClassifier if classes else ExtraTreesRegressor)(30, min_samples_leaf=3, random_state=0)
    model.fit(x[:, columns], y)
    return lambda new: model.predict_proba(new[:, columns])[:, 1] if classes else model.predict(new[:, columns])


def answer(setting: Setting, p: Floats) -> Floats:
    """Return predictions as metrics want them: a column per class, or the numbers."""
    return np.c_[1 - p, p] if setting.task == "binary" else p


def splits(setting: Setting, table: Table, seed: int) -> list[npt.NDArray]:
    """Return the rows that each fold holds out."""
    x, y, group = table
    cut = KFold if setting.task == "regression" else StratifiedKFold
    splitter = GroupKFold(setting.folds) if setting.groups else cut(setting.folds, shuffle=True, random_state=seed)
    return [held for _, held in splitter.split(x, y, group if setting.groups else None)]


def in_halves(table: Table, rng: np.random.Generator) -> tuple[Table, Table]:
    """Return the table cut in two at random, groups whole."""
    names = rng.permutation(np.unique(table[2]))
    first = np.isin(table[2], names[: len(names) // 2])
    one, other = (tuple(part[rows] for part in table) for rows in (first, ~first))
    return one, other


def cross_validated(setting: Setting, table: Table, rng: np.random.Generator) -> dict[str, float]:
    """Return each model's mean score over folds; NaN if a fold has one class only."""
    x, y, _ = table
    metric, scores = metric_of(setting), defaultdict(list)
    for rows in splits(setting, table, 0):
        before = np.setdiff1d(np.arange(len(y)), rows)
        for name in MODELS:
            predict = fitted_predict(name, setting, x[before], y[before], rng)
            scores[name].append(metric.value(y[rows], answer(setting, predict(x[rows]))))
    return {name: float(np.mean(each)) for name, each in scores.items()}


def conservative_z(value: float, pairs: Floats) -> Interval:
    """Return the interval of Nadeau & Bengio's conservative z.

    Parameters
    ----------
    pairs
        The score, or gain, of each half and of its other half (n_pairs, 2).
    """
    half = NormalDist().inv_cdf(0.975) * math.sqrt(float(np.mean((pairs[:, 0] - pairs[:, 1]) ** 2)) / 2)
    return Interval(value, value - half, value + half)


def metric_of(setting: Setting) -> Metric:
    """Return what a setting is scored by."""
    return METRICS["roc_auc" if setting.task == "binary" else "r2"]


def one_table(setting: Setting, seed: int, halves: int = 0) -> dict[str, tuple[dict[str, Interval], float]]:
    """Return, by score and gain, the intervals of each method and the mean of the folds' scores on fresh rows."""
    rng = np.random.default_rng([seed, 11])
    metric = metric_of(setting)
    x, y, group = drawn(setting, setting.rows, setting.groups, rng)
    fresh_x, fresh_y, _ = drawn(setting, FRESH_ROWS, 10 * setting.groups, rng)
    held = splits(setting, (x, y, group), seed)
    shape = (len(y), 2) if setting.task == "binary" else (len(y),)
    predicted = {name: np.zeros(shape) for name in MODELS}
    by_fold: dict[str, list[float]] = defaultdict(list)
    truth: dict[str, list[float]] = defaultdict(list)

    for rows in held:
        before = np.setdiff1d(np.arange(len(y)), rows)
        for name in MODELS:
            predict = fitted_predict(name, setting, x[before], y[before], rng)
            predicted[name][rows] = answer(setting, predict(x[rows]))
            by_fold[name].append(metric.value(y[rows], predicted[name][rows]))
            truth[name].append(metric.value(fresh_y, answer(setting, predict(fresh_x))))
    test_to_train = 1 / (setting.folds - 1)
    plain = Resampler(len(y), group if setting.groups else None, RESAMPLES, seed)
    widened = replace(plain, widening=widening_over_folds(setting.folds, test_to_train))
    as_if, shared = ({n: r.score(metric, y, predicted[n]) for n in MODELS} for r in (plain, widened))
    table = (x, y, group)
    pairs = [tuple(cross_validated(setting, half, rng) for half in in_halves(table, rng)) for _ in range(halves)]
    out = {}
    for a, b in [(name, None) for name in MODELS] + list(GAINS):

        def of(values: dict, a: str = a, b: str | None = b) -> Floats:
            one = np.asarray(values[a])
            return one if b is None else one - np.asarray(values[b])

        v = float(of({n: score.value for n, score in as_if.items()}))
        intervals = {
            method: interval(Resampled(v, of({n: score.draws for n, score in scores.items()})))
            for method, scores in (("bootstrap", as_if), ("widened bootstrap", shared))
        }
        t = corrected_t(list(of(by_fold)), test_to_train)
        half = (t.high - t.low) / 2
        intervals["corrected t"] = t = Interval(v, v - half, v + half)
        boot = intervals["bootstrap"]
        intervals["wider of both"] = Interval(v, min(boot.low, t.low), max(boot.high, t.high))
        if halves:
            intervals["conservative z"] = conservative_z(v, np.array([[of(half) for half in pair] for pair in pairs]))
        out[a if b is None else f"{a} over {b}"] = intervals, float(of(truth).mean())
    return out


def main() -> None:
    """Draw the tables and print coverage and width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--only", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--each", action="store_true", help="a line for every score and gain")
    parser.add_argument("--halves", type=int, default=0, help="pairs of halves for the conservative z; none by default")
    options = parser.parse_args()
    methods = (*METHODS, "conservative z") if options.halves else METHODS
    started = time.perf_counter()
    print(f"{options.tables} tables a setting. Share of intervals that hold the truth (mean width)\n")
    print(f"| setting | of | {' | '.join(methods)} |\n|---|---|{'---|' * len(methods)}")
    for name in options.only:
        with parallel_config("loky", inner_max_num_threads=1):
            tables = Parallel(-1)(
                delayed(one_table)(SETTINGS[name], seed, options.halves) for seed in range(options.tables)
            )
        coverage: dict[str, dict[str, float]] = defaultdict(dict)
        width: dict[str, dict[str, float]] = defaultdict(dict)
        for what in tables[0]:
            truth = np.mean([t[what][1] for t in tables])
            for method in methods:
                found = [t[what][0][method] for t in tables]
                coverage[what][method] = float(np.mean([i.low <= truth <= i.high for i in found]))
                width[what][method] = float(np.nanmean([i.high - i.low for i in found]))
        parts = {"scores": [w for w in coverage if w in MODELS], "gains": [w for w in coverage if w not in MODELS]}
        for part, those in ({what: [what] for what in coverage} if options.each else parts).items():
            cells = []
            for method in methods:
                shares = [coverage[w][method] for w in those]
                span = f"{min(shares):.1%}" + (f" to {max(shares):.1%}" if len(those) > 1 else "")
                cells.append(f"{span} ({np.mean([width[w][method] for w in those]):.2f})")
            print(f"| {name} | {part} | {' | '.join(cells)} |", flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
