"""What weighting for censoring does to probabilities: python benchmarks/censoring.py [--runs DIR] (about five minutes).

Runs healthcare/recurrence as it is, and once more without its weights: the same outcome, patients lost to follow-up left
out. Prints the three-year risk among patients with a label, by weight, and by Kaplan and Meier; then, for each candidate of
both runs, the mean probability of the patients held out, and how far probabilities are off, both by weight: what the
patients would be if none were lost. ``--runs`` keeps the run folders there, and takes those that are there already;
the first is named as ``benchmarks/verticals.py --runs`` names it. ``--rows`` takes so many patients, drawn at random, to try
this out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import tomlkit
from scipy.stats import CensoredData, ecdf

import tabkit
from tabkit.data.frames import values_of
from tabkit.evaluate.explain import calibration
from tabkit.recipe import load_recipe
from tabkit.samples import load_sample
from tabkit.workflow.reading import TableRows, read_rows

NAME = "healthcare/recurrence"
Floats = npt.NDArray[np.float64]


def main() -> None:
    """Run both, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--rows", type=int)
    options = parser.parse_args()
    plan = load_recipe(NAME)
    patients = load_sample(str(plan.recipe.sample))
    if options.rows:
        patients = patients.sample(min(options.rows, patients.height), seed=0)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TABKIT_LEDGER"] = str(Path(folder) / "ledger.jsonl")
        place = options.runs or Path(folder)
        runs = {
            "without": (place / "without-weights", without_weights(Path(folder))),
            "with": (place / NAME.replace("/", "-"), NAME),
        }
        for out, recipe in runs.values():
            if not (out / "result.json").is_file():
                tabkit.run(recipe, patients, out=out, budget="quick", jobs=options.jobs)
        rows = read_rows(plan, patients)
        weights = rows.weights
        assert weights is not None
        print_risks(rows, weights)
        print(
            "\n| weights | candidate | mean probability | off by, on average | calibration slope |\n|---|---|---|---|---|"
        )
        for which, (out, _) in runs.items():
            for line in calibrated(out, rows, weights):
                print(f"| {which} {line}")
        print(f"\nProbabilities that are right would be off by {by_chance(out):.1%} on average: bins are small.")


def without_weights(folder: Path) -> Path:
    """Write the recipe with its outcome in the place of ``[censoring]``."""
    plan = load_recipe(NAME)
    assert plan.recipe.censoring is not None
    keys = tomlkit.parse(plan.path.read_text(encoding="utf-8")).unwrap()
    del keys["censoring"]
    path = folder / "domains" / "healthcare" / "recurrence.toml"
    path.parent.mkdir(parents=True)
    path.write_text(tomlkit.dumps({"outcome": plan.recipe.censoring.outcome, **keys}), encoding="utf-8")
    return path


def print_risks(rows: TableRows, weights: Floats) -> None:
    """Print the risk at the horizon: of rows with a label, by weight, and by Kaplan and Meier over all rows."""
    weighing = rows.weighing
    assert weighing is not None and weighing.time is not None and weighing.event is not None
    y = values_of(rows.labelled.frame, "recurred") == "yes"
    survival = ecdf(CensoredData.right_censored(weighing.time, ~weighing.event)).sf
    print(f"{len(weighing.time)} patients, {weighing.n_labelled} with a label")
    print(f"risk of those with a label {y.mean():.1%}, by weight {np.average(y, weights=weights):.1%}, ", end="")
    print(f"by Kaplan and Meier {1 - survival.evaluate(weighing.horizon):.1%}")


def calibrated(run: Path, rows: TableRows, weights: Floats) -> list[str]:
    """Return a line of the table for each candidate of a run."""
    predictions = pl.read_parquet(run / "holdout_predictions.parquet")
    at = np.searchsorted(rows.labelled.rows, predictions["row"].to_numpy())
    y = (predictions["target"] == "yes").to_numpy().astype(np.int64)
    lines = []
    for c in tabkit.read_result(run).candidates:
        if c.name in predictions.columns:
            p = predictions[c.name].to_numpy()
            off = calibration(y, p, weights[at])
            slope = "-" if off.slope is None else f"{off.slope:.2f}"
            lines.append(f"| {c.title} | {np.average(p, weights=weights[at]):.1%} | {off.ece:.1%} | {slope} |")
    return lines


def by_chance(run: Path, draws: int = 200) -> float:
    """Return how far a run's linear model would be off if outcomes followed its probabilities."""
    p = pl.read_parquet(run / "holdout_predictions.parquet")["linear"].to_numpy()
    rng = np.random.default_rng(0)
    return float(np.mean([calibration((rng.random(len(p)) < p).astype(np.int64), p).ece for _ in range(draws)]))


if __name__ == "__main__":
    main()
