"""By how much random folds flatter a field: python benchmarks/spatial.py [--target SOC_target].

Each LimeSoDa field with coordinates is measured three ways by the same models: on the authors' ten random folds, on
eight blocks of places that lie together, and, where other fields have the same columns, by a model of those fields
alone. Printed is the R squared over all rows of the field, of the linear model and of LightGBM.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import polars as pl

from tabkit.data.encode import Features, fit_encoder
from tabkit.data.spectra import fit_compression
from tabkit.data.split import split_rows
from tabkit.evaluate.metrics import METRICS
from tabkit.learner import BUDGETS
from tabkit.models.base import model_class
from tabkit.recipe import Plan, Recipe, load_recipe
from tabkit.samples import load_sample
from tabkit.seed import stream

MODELS = ("linear", "lgbm")
BUDGET = replace(BUDGETS["quick"], trees=300)


def main() -> None:
    """Measure every field with coordinates, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="SOC_target")
    parser.add_argument("--fields", nargs="+", help="names of fields; all by default")
    options = parser.parse_args()
    import LimeSoDa  # type: ignore[import-not-found]

    names = options.fields or [name for name in LimeSoDa.list_datasets() if name != "Overview_Datasets"]
    fields = {name: load_sample(f"limesoda:{name}") for name in names}
    fields = {n: f for n, f in fields.items() if options.target in f.columns and "block" in f.columns}
    ways = ("random folds", "blocks", "other fields")
    print("| field | rows | " + " | ".join(f"{model}, {way}" for model in MODELS for way in ways) + " |")
    print("|---|---|" + "---|" * (len(MODELS) * len(ways)))
    found = []
    for name, frame in fields.items():
        plan = plan_of(options.target)
        columns = features(plan, frame)
        others = [f for n, f in fields.items() if n != name and features(plan, f) == columns]
        row = [r2 for model in MODELS for r2 in measured(plan, frame, others, model)]
        found.append(row)
        print(f"| {name} | {frame.height} | " + " | ".join("-" if r is None else f"{r:.2f}" for r in row) + " |")
    for i, model in enumerate(MODELS):
        lost = [row[len(ways) * i] - row[len(ways) * i + 1] for row in found]
        print(
            f"\n{model}: random folds flatter by {np.median(lost):.3f} R squared in the middle of {len(lost)} fields,"
        )
        print(f"by {np.mean(lost):.3f} on average, and in {sum(one > 0 for one in lost)} of them.")


def plan_of(target: str, column: str = "fold") -> Plan:
    """Return the recipe of soil for another target, with the folds of ``column``."""
    plan = load_recipe("agriculture/soil")
    rule = {"kind": "given", "column": column, "folds": "given"}
    changes = {"target": target, "split": rule}
    return replace(plan, recipe=Recipe.model_validate({**plan.recipe.model_dump(by_alias=True), **changes}))


def features(plan: Plan, frame: pl.DataFrame) -> list[str]:
    """Return the columns that may be features."""
    return [c for c in frame.columns if plan.is_feature(c)]


def measured(plan: Plan, frame: pl.DataFrame, others: list[pl.DataFrame], model: str) -> Iterator[float | None]:
    """Yield R squared over all rows by random folds, by blocks, and of what other fields taught (None without any)."""
    target = plan.recipe.target
    columns = features(plan, frame)
    truth = frame[target].to_numpy()
    for column in ("fold", "block"):
        out = np.full(frame.height, np.nan)
        for split in split_rows(frame, plan_of(target, column).recipe, seed=0):
            parts = [frame[rows] for rows in (split.train, split.valid, split.holdout)]
            out[split.holdout] = predicted(plan, columns, parts, model)
        yield METRICS["r2"].value(truth, out)
    if not others:
        yield None
        return
    known = pl.concat([other.select([*columns, target]) for other in others])
    order = np.random.default_rng(0).permutation(known.height)
    cut = known.height // 5
    yield METRICS["r2"].value(truth, predicted(plan, columns, [known[order[cut:]], known[order[:cut]], frame], model))


def predicted(plan: Plan, columns: list[str], parts: list[pl.DataFrame], model: str) -> np.ndarray:
    """Return what a model learned from the first part, chosen on the second, says of the third."""
    train, *_ = parts
    spectra = []
    for spectrum in plan.recipe.spectra:
        bands = tuple(c for c in columns if fnmatchcase(c, spectrum.columns))
        if bands:
            spectra.append(fit_compression(train, spectrum.name, bands, spectrum.components, spectrum.normalise))
    encoder = fit_encoder(train, columns, "regression", plan.recipe.target, (), tuple(spectra))
    rows: list[Features] = [encoder.encode(part) for part in parts]
    fitted = model_class(model)().adapt(rows[0], rows[1], "scratch", stream(0, "adapt", model), BUDGET)
    return fitted.model.predict(rows[2])


if __name__ == "__main__":
    main()
