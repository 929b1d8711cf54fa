"""How often `adapt` is declared where the truth says otherwise: python benchmarks/verdicts.py --seeds 8.

Each development table of benchmarks/icl.py is drawn ``--seeds`` times: rows to train on, to choose by and a holdout,
as an analyst with ``--rows`` labelled rows would have them. The kit adapts the in-context base and decides by its
planned comparison on the holdout. The truth is what the same models score on all remaining rows, which nothing saw.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace

import numpy as np
from icl import TABLES, read

from tabkit.adapt import Runtime, Wanted
from tabkit.adapt.candidates import open_weights
from tabkit.adapt.tables import Lessons, Origins, make_all
from tabkit.data.encode import fit_encoder
from tabkit.evaluate.choice import Terms, choose_on_valid
from tabkit.evaluate.comparison import compare_planned
from tabkit.evaluate.intervals import Resampler
from tabkit.evaluate.metrics import METRICS
from tabkit.learner import BUDGETS
from tabkit.models.base import loss

CANDIDATES = (
    Wanted("prior", "scratch", "baseline"),
    Wanted("linear", "scratch", "baseline"),
    Wanted("lgbm", "scratch", "baseline"),
    Wanted("icl", "as_is", "base"),
    Wanted("icl", "full", "adapted"),
)
PRIMARIES = ("roc_auc", "log_loss")
LEAST_TRUTH_ROWS = 500


def main() -> None:
    """Draw, adapt, decide, look at the truth; print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=750, help="labelled rows: 60% train, 20% valid, 20% holdout")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tables", nargs="+", help="names of tables; all by default")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    counts = {primary: np.zeros(4, int) for primary in PRIMARIES}
    runs = moved = worse_on_valid = 0
    for package, table, target, without in TABLES:
        frame, classes = read(package, table, target, without)
        if frame.height < options.rows + LEAST_TRUTH_ROWS or (options.tables and table not in options.tables):
            continue
        columns = [c for c in frame.columns if c != target]
        for seed in range(options.seeds):
            order = np.random.default_rng([seed, 9]).permutation(frame.height)
            cuts = [round(options.rows * share) for share in (0.6, 0.8, 1.0)]
            rows = np.split(order, cuts)
            encoder = fit_encoder(frame[rows[0]], columns, "binary", target, classes)
            train, valid, holdout, truth = (encoder.encode(frame[part]) for part in rows)
            budget = replace(BUDGETS["quick"], device="cpu")
            opened = open_weights(CANDIDATES, {}, "binary")
            origins = Origins(Lessons(train), opened, Runtime(seed, budget))
            candidates = make_all(CANDIDATES, origins, train, valid)
            by_name = {c.name: c for c in candidates}
            runs += 1
            moved += by_name["icl_full"].adapted.settings["alpha"] > 0
            worse_on_valid += loss(valid, by_name["icl_full"].valid) > loss(valid, by_name["icl_as_is"].valid)
            answers = {c.name: (c.adapted.model.predict(holdout), c.adapted.model.predict(truth)) for c in candidates}
            for primary in PRIMARIES:
                metric = METRICS[primary]
                chosen = choose_on_valid(candidates, valid, metric).chosen
                resampler = Resampler(len(holdout), None, 2000, seed)
                scores = {name: resampler.score(metric, holdout.y, p) for name, (p, _) in answers.items()}
                planned = compare_planned(chosen, Terms({primary: metric}, 0.0, "standard", seed), scores)
                assert planned is not None
                adopt = all(a.low > 0 for a in planned.against)
                true = {name: metric.sign * metric.value(truth.y, p) for name, (_, p) in answers.items()}
                gains = [true["icl_full"] - true[a.name] for a in planned.against]
                counts[primary] += [adopt, adopt and gains[0] < 0, adopt and min(gains) < 0, gains[0] < 0]
        print(
            f"{package}/{table}: {runs} runs, {moved} moved, " + str({p: c.tolist() for p, c in counts.items()}),
            flush=True,
        )
    print(f"\n{runs} runs of {options.rows} labelled rows; tuning moved the base in {moved}")
    print(f"worse than the base on valid (log loss): {worse_on_valid}\n")
    print(
        "| primary | adapt declared | of these truly worse than the base | or than the baseline | tuned truly worse than the base, in all runs |"
    )
    print("|---|---|---|---|---|")
    for primary, c in counts.items():
        print(f"| {primary} | " + " | ".join(str(n) for n in c) + " |")


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s")
