"""All 31 LimeSoDa fields and their three targets, on the given ten folds, beside the published figures.

python benchmarks/soil.py --out soil.csv [--published limesoda_published.csv] [--targets SOC_target ...] [--jobs 2]
python benchmarks/soil.py --out soil.csv --beside [tabnet icl_full "random forest" PLS]

In every fold, as ``tabkit run agriculture/soil`` does: the encoder (spectra to principal components) is fitted on what is
not held out, each candidate is adapted to it in four inner folds, and the champion is chosen on the predictions of the
inner folds, blends included. ``--beside`` measures what takes no part in the choice: TabNet, the in-context base with all
weights trained, and scikit-learn's random forest and PLS. Finished tasks are in the file and not run again; tasks run
side by side, one thread each.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import time
from collections.abc import Collection
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import polars as pl
from joblib import Parallel, delayed, parallel_config
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GridSearchCV

from tabkit.adapt import Wanted
from tabkit.adapt.tables import blend_all
from tabkit.data.encode import Features, fit_encoder
from tabkit.data.spectra import fit_compression
from tabkit.data.split import split_rows
from tabkit.evaluate.choice import picked_on_valid
from tabkit.evaluate.metrics import METRICS
from tabkit.learner import BUDGETS, Budget, Cost
from tabkit.models.base import TableCandidate, cells_of, model_class
from tabkit.models.blend import Blend
from tabkit.models.parts.bagged import Bagged
from tabkit.recipe import Recipe, load_recipe
from tabkit.samples import load_sample
from tabkit.seed import stream

CHOSEN_FROM = (
    Wanted("linear", "scratch", "baseline"),
    Wanted("lgbm", "scratch", "baseline"),
    Wanted("svm", "scratch", "baseline"),
    Wanted("catboost", "scratch", "baseline"),
    Wanted("icl", "as_is", "base"),
)
BESIDE = {w.name: w for w in (Wanted("tabnet", "scratch", "baseline"), Wanted("icl", "full", "adapted"))}
"""Measured with ``--beside``, and not chosen from: they take several times as long as all the others together."""
ELSEWHERE = ("random forest", "PLS")
"""Algorithms that tabkit does not have: scikit-learn's, on the same columns."""
CHAMPION = "champion"


def task(field: str, target: str, seed: int, which: Collection[str], folds: int | None = None) -> dict[str, np.ndarray]:
    """Return the truth and out-of-fold predictions of one task: the kit's candidates and champion, or of ``which`` beside."""
    plan = load_recipe("agriculture/soil")
    recipe = Recipe.model_validate({**plan.recipe.model_dump(by_alias=True), "target": target})
    plan = replace(plan, recipe=recipe)
    frame = load_sample(f"limesoda:{field}")
    columns = [c for c in frame.columns if plan.is_feature(c)]
    truth = frame[target].to_numpy()
    out: dict[str, np.ndarray] = {"truth": truth}
    budget = replace(BUDGETS["quick"], trees=300)
    splits = split_rows(frame, recipe, seed)[:folds]
    for split in splits:
        before = frame[split.before]
        spectra = []
        for spectrum in recipe.spectra:
            bands = tuple(c for c in columns if fnmatchcase(c, spectrum.columns))
            if bands:
                spectra.append(fit_compression(before, spectrum.name, bands, spectrum.components, spectrum.normalise))
        encoder = fit_encoder(before, columns, "regression", target, (), tuple(spectra))
        rows, held = encoder.encode(before), encoder.encode(frame[split.holdout])
        if CHAMPION in which:
            candidates = tuple(candidate(wanted, rows, recipe, seed, budget) for wanted in CHOSEN_FROM)
            predictions = chosen_among(candidates, rows, held, seed)
        else:
            candidates = tuple(candidate(w, rows, recipe, seed, budget) for name, w in BESIDE.items() if name in which)
            predictions = {c.name: c.adapted.model.predict(held) for c in candidates}
            predictions |= {name: elsewhere(name, rows, held, seed) for name in ELSEWHERE if name in which}
        for name, predicted in predictions.items():
            out.setdefault(name, np.full(len(truth), np.nan))[split.holdout] = predicted
    held_rows = np.concatenate([split.holdout for split in splits])
    return {name: values[held_rows] for name, values in out.items()}


def chosen_among(
    candidates: tuple[TableCandidate, ...], rows: Features, held: Features, seed: int
) -> dict[str, np.ndarray]:
    """Return the predictions of every candidate, of their blend, and of what the rows before the holdout choose."""
    blends = {c.name: c for c in blend_all(candidates, rows, seed)}
    blend = blends.get("blend_bases", blends.get("blend_baselines"))
    metric = METRICS["rmse"]
    best = min(candidates, key=lambda c: metric.value(rows.labels, c.valid))
    picking = metric.value(rows.labels, picked_on_valid(candidates, rows, metric))
    if blend is not None and metric.value(rows.labels, blend.valid) < picking:
        best = blend
    predictions = {c.name: c.adapted.model.predict(held) for c in candidates}
    if blend is not None and isinstance(blend.adapted.model, Blend):
        predictions["blend"] = blend.adapted.model.combine(predictions)
    predictions[CHAMPION] = predictions["blend" if best is blend else best.name]
    return predictions


def candidate(wanted: Wanted, rows: Features, recipe: Recipe, seed: int, budget: Budget) -> TableCandidate:
    """Adapt as a run would; what a run measures beside it (train scores, costs) is left out."""
    model = model_class(wanted.base)
    inner = model() if wanted.kind == "baseline" else model.open_weights(None, "regression")
    assert recipe.split.inner is not None
    origin = Bagged(inner, recipe.split.inner, seed)
    adapted = origin.adapt(rows, rows, wanted.how, stream(seed, "adapt", wanted.name), budget)
    valid = adapted.predict_valid(rows)
    return TableCandidate(
        wanted.name, wanted.base, wanted.how, wanted.kind, origin, adapted, Cost(0, 0, 0), np.zeros(0), valid
    )


def elsewhere(name: str, rows: Features, held: Features, seed: int) -> np.ndarray:
    """Return the predictions of one of ``ELSEWHERE``."""
    x, new = np.nan_to_num(cells_of(rows)[0]), np.nan_to_num(cells_of(held)[0])
    if name == "random forest":
        return RandomForestRegressor(500, min_samples_leaf=2, random_state=seed).fit(x, rows.labels).predict(new)
    grid = {"n_components": list(range(1, 1 + min(10, x.shape[1])))}
    pls = GridSearchCV(PLSRegression(), grid, cv=4, scoring="neg_mean_squared_error").fit(x, rows.labels)
    return np.ravel(pls.predict(new))


def main() -> None:
    """Run what is not in the file yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--targets", nargs="+", default=["SOC_target", "pH_target", "Clay_target"])
    parser.add_argument("--fields", nargs="+", help="names of fields; all by default")
    parser.add_argument("--folds", type=int, help="only the first folds of each field, to try this out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--beside",
        nargs="*",
        choices=[*BESIDE, *ELSEWHERE],
        help="measure what takes no part in the choice: all of it, or what is named",
    )
    parser.add_argument("--jobs", type=int, default=2, help="tasks side by side")
    options = parser.parse_args()
    import LimeSoDa  # type: ignore[import-not-found]

    fields = options.fields or [name for name in LimeSoDa.list_datasets() if name != "Overview_Datasets"]
    wanted = [CHAMPION] if options.beside is None else options.beside or [*BESIDE, *ELSEWHERE]
    done = set()
    if options.out.is_file():
        done = {(r["field"], r["target"], r["candidate"]) for r in csv.DictReader(options.out.open())}
    todo = []
    for target, field in itertools.product(options.targets, fields):
        target = target if target in load_sample(f"limesoda:{field}").columns else "SOM_target"
        if left := [name for name in wanted if (field, target, name) not in done]:
            todo.append((field, target, left))
    with options.out.open("a", newline="") as file, parallel_config("loky", inner_max_num_threads=1):
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(["field", "target", "candidate", "r2", "rmse", "rpiq", "seconds"])
        measured = (delayed(measure)(field, target, options.seed, left, options.folds) for field, target, left in todo)
        for rows in Parallel(options.jobs, return_as="generator_unordered", batch_size=1)(measured):
            writer.writerows(rows)
            file.flush()
            print(*rows[0][:2], f"{float(rows[0][-1]):.0f} s", file=sys.stderr)
    report(pl.read_csv(options.out), options.published)


def measure(field: str, target: str, seed: int, which: Collection[str], folds: int | None) -> list[list[str]]:
    """Return the lines of one task: field, target, candidate, R2, RMSE, RPIQ, seconds of all of them together."""
    started = time.perf_counter()
    predicted = task(field, target, seed, which, folds)
    truth, seconds = predicted.pop("truth"), time.perf_counter() - started
    out = []
    for name, p in predicted.items():
        scores = [METRICS[m].value(truth, p) for m in ("r2", "rmse", "rpiq")]
        out.append([field, target, name, *(f"{s:.6f}" for s in scores), f"{seconds:.1f}"])
    return out


def report(ours: pl.DataFrame, published: Path | None) -> None:
    """Print mean R2 and mean rank: of the candidates, and of the champion among the published algorithms."""
    n = ours.select("field", "target").unique().height
    seconds = ours.filter(pl.col("candidate") == CHAMPION)["seconds"].sum()
    print(f"\n{n} tasks; the champions and what they were chosen from took {seconds:.0f} s of a core")
    whole = ours.group_by("field", "target").agg(pl.len()).filter(pl.col("len") == pl.col("len").max())
    for what, those in (
        ("all", ours),
        ("measured for every candidate", ours.join(whole, on=["field", "target"], how="semi")),
    ):
        means = those.group_by("candidate").agg(pl.len(), pl.col("r2").mean(), pl.col("r2").median().alias("median"))
        if what == "all" or means["len"].sum() < len(ours):
            print(f"\n| tasks: {what} | tasks | mean R2 | median R2 |\n|---|---|---|---|")
            for row in means.sort("len", "r2", descending=True).iter_rows():
                print(f"| {row[0]} | {row[1]} | {row[2]:.4f} | {row[3]:.4f} |")
    both = ours.filter(pl.col("candidate").is_in(["icl_full", "icl_as_is"])).pivot(
        "candidate", index=["field", "target"], values="r2"
    )
    if "icl_full" in both.columns:
        gains = (both["icl_full"] - both["icl_as_is"]).drop_nulls()
        span = f"mean {gains.mean():+.3f}, from {gains.min():+.2f} to {gains.max():+.2f}"
        print(f"\nicl_full is above icl_as_is on {(gains > 0).sum()} of {len(gains)}: {span}")
    if published is None:
        return
    theirs = pl.read_csv(published).with_columns(
        pl.when(pl.col("target").is_in(["SOC", "SOM"])).then(pl.lit("S")).otherwise("target").alias("t")
    )
    mine = ours.filter(pl.col("candidate") == CHAMPION).with_columns(
        pl.col("target").str.strip_suffix("_target").alias("t")
    )
    mine = mine.with_columns(pl.when(pl.col("t").is_in(["SOC", "SOM"])).then(pl.lit("S")).otherwise("t").alias("t"))
    both = pl.concat(
        [
            theirs.select(pl.col("dataset").alias("field"), "t", pl.col("algorithm").alias("candidate"), "r2"),
            mine.select("field", "t", pl.lit("tabkit champion").alias("candidate"), "r2"),
        ]
    ).join(mine.select("field", "t"), on=["field", "t"], how="semi")
    ranked = both.with_columns(pl.col("r2").rank("average", descending=True).over("field", "t").alias("rank"))
    print("\n| on the same tasks | mean R2 | mean rank of five |\n|---|---|---|")
    for row in ranked.group_by("candidate").agg(pl.col("r2").mean(), pl.col("rank").mean()).sort("rank").iter_rows():
        print(f"| {row[0]} | {row[1]:.4f} | {row[2]:.2f} |")
    print("\n| mean R2 | " + " | ".join(names := ("S", "pH", "Clay")) + " |\n" + "|---" * 4 + "|")
    for who in ranked["candidate"].unique().sort():
        own = ranked.filter(pl.col("candidate") == who)
        print(f"| {who} | " + " | ".join(f"{own.filter(pl.col('t') == t)['r2'].mean():.4f}" for t in names) + " |")
    hindsight = theirs.join(mine.select(pl.col("field").alias("dataset"), "t"), on=["dataset", "t"], how="semi")
    best = hindsight.group_by(pl.col("dataset").alias("field"), "t").agg(pl.col("r2").max().alias("best"))
    print(f"\nbest of the published four in hindsight: {best['best'].mean():.4f}")
    for name, others in (
        ("that best", best),
        (
            "published CatBoost",
            hindsight.filter(pl.col("algorithm") == "CatBoost").select(field="dataset", t="t", best="r2"),
        ),
    ):
        above = mine.join(others, on=["field", "t"]).filter(pl.col("r2") > pl.col("best")).height
        print(f"our champion is above {name} on {above} of {n}")


if __name__ == "__main__":
    main()
