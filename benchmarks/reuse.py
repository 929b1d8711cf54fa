"""An analyst who asks the same holdout again and again, on noise: python benchmarks/reuse.py --analysts 100 --recipes 200.

Each analyst has 250 rows of 20 columns that know nothing of the label, holds a quarter of them out, and tries one recipe
after the other: a logistic line of ten columns, against an untouched line of ten others and the prior. Rows are
recognised, questions counted and gains judged by the very functions of a run; only adapting itself is left out, so that
4,000 recipes take two minutes. Counted are the analysts who are told ``adapt`` at least once: by the rule, and if every
question stood at 95%. Who *plans* draws columns at random; who *looks* keeps the columns that scored best on the holdout so
far and exchanges two of them, which is what no bound holds for.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression

from tabkit.data.marks import Marks, hashed, marking
from tabkit.evaluate.choice import Terms
from tabkit.evaluate.comparison import MOST_QUESTIONS, carried_out
from tabkit.evaluate.intervals import Resampler
from tabkit.evaluate.ledger import LEDGER, Opening, Sealed, question_number, question_of
from tabkit.evaluate.metrics import METRICS

N_COLUMNS, IN_USE, RESAMPLES = 20, 10, 1000
METRIC = METRICS["roc_auc"]


def main() -> None:
    """Run the analysts and print who was told wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--analysts", type=int, default=100)
    parser.add_argument("--recipes", type=int, default=200)
    parser.add_argument("--rows", type=int, default=250)
    options = parser.parse_args()
    print("| analyst | best ROC AUC on the holdout, mean | told adapt at 95% each | by the rule |\n|---|---|---|---|")
    for looks in (False, True):
        tasks = (delayed(analyst)(seed, options.recipes, options.rows, looks) for seed in range(options.analysts))
        best, plain, ruled = np.array(Parallel(2)(tasks)).T
        name = "looks at the answers" if looks else "plans"
        print(f"| {name} | {best.mean():.3f} | {plain.mean():.1%} | {ruled.mean():.1%} |", flush=True)


def analyst(seed: int, n_recipes: int, n_rows: int, looks: bool) -> tuple[float, bool, bool]:
    """Return the best score of a day's recipes, and whether any was called worth adapting: at 95% each, and by the rule."""
    rng = np.random.default_rng([seed, looks])
    x, y = rng.normal(size=(n_rows, N_COLUMNS)), rng.integers(0, 2, n_rows)
    frame = pl.DataFrame(x, schema=[f"x{i}" for i in range(N_COLUMNS)]).with_columns(y=pl.Series(y))
    by = marking(frame)
    marks = Marks.of(by, [(np.arange(n_rows), np.column_stack([hashed(frame[c]) for c in by]))])
    held = np.sort(rng.permutation(n_rows)[: n_rows // 4])
    seen = np.setdiff1d(np.arange(n_rows), held)
    sketch, terms = marks.sketch(held, frame["y"][held]), Terms({"roc_auc": METRIC}, 0.0, RESAMPLES, seed)
    resampler = Resampler(len(held), None, RESAMPLES, seed)

    def scored(columns: np.ndarray) -> np.ndarray:
        line = LogisticRegression().fit(x[seen][:, columns], y[seen])
        return line.predict_proba(x[held][:, columns])

    best, best_columns, told = 0.0, rng.permutation(N_COLUMNS)[:IN_USE], [False, False]
    with tempfile.TemporaryDirectory() as folder:
        os.environ[LEDGER] = str(Path(folder) / "ledger.jsonl")
        for _ in range(n_recipes):
            order = rng.permutation(N_COLUMNS)
            columns = order[:IN_USE]
            if looks:
                columns = np.r_[
                    rng.permutation(best_columns)[2:], rng.permutation(np.setdiff1d(order, best_columns))[:2]
                ]
            rest = np.setdiff1d(order, columns)
            opening = Opening(question_of({"columns": sorted(columns.tolist())}), sketch)
            question = question_number(Sealed("rows", opening).open()[1])
            ours = resampler.score(METRIC, y[held], scored(columns))
            theirs = [
                ("base", "its own base", resampler.score(METRIC, y[held], scored(rest))),
                ("prior", "the best baseline", resampler.score(METRIC, y[held], np.full((len(held), 2), 0.5))),
            ]
            for i, number in enumerate((1, question)):
                states = [a.state for a in carried_out("adapted", ours, theirs, terms, number).against]
                told[i] |= number <= MOST_QUESTIONS and all(state == "worthwhile" for state in states)
            if ours.value > best:
                best, best_columns = ours.value, columns
    return best, told[0], told[1]


if __name__ == "__main__":
    main()
