"""What blending brings on real tables: python benchmarks/blend.py --rows 512 --seeds 2

The tables and draws of ``benchmarks/icl.py``. ``picked`` is the single candidate that is best on valid; ``blend`` blends
the same candidates (``blend_bases``: baselines and the in-context base, untouched); ``kit`` takes the blend where its
log loss on valid, by cross-fitted weights, is below that of picking, cross-fitted too. ROC AUC / log loss on the holdout.
"""

from __future__ import annotations

import argparse
import warnings

import icl
import numpy as np
from sklearn.metrics import roc_auc_score

from tabkit.adapt import Runtime, Wanted
from tabkit.adapt.candidates import open_weights
from tabkit.adapt.tables import Lessons, Origins, blend_all, make_all
from tabkit.data.encode import Features, fit_encoder
from tabkit.evaluate.choice import picked_on_valid
from tabkit.evaluate.metrics import METRICS
from tabkit.learner import BUDGETS, Predictions, candidate_parts
from tabkit.models.base import installed, loss, model_class
from tabkit.models.blend import Blend

CANDIDATES = ("prior", "linear", "lgbm", "lgbm_tuned", "catboost", "icl_as_is")
SHOWN = ("lgbm_tuned", "icl_as_is", "picked", "blend", "kit")


def main() -> None:
    """Draw, fit, blend, print the table and the wins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tables", nargs="+", help="names of tables; all by default")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"{options.rows} training rows, {options.seeds} seeds\n\n| table | " + " | ".join(SHOWN) + " |")
    print("|---" * (1 + len(SHOWN)) + "|")
    cells = []
    for package, table, target, without in icl.TABLES:
        if options.tables and table not in options.tables:
            continue
        frame, classes = icl.read(package, table, target, without)
        if frame.height < 1.25 * options.rows + 200:
            continue
        drawn = []
        for seed in range(options.seeds):
            order = np.random.default_rng(seed).permutation(frame.height)
            n_valid = max(60, options.rows // 4)
            held = order[-min(icl.HOLDOUT_ROWS, frame.height - options.rows - n_valid) :]
            columns = [c for c in frame.columns if c != target]
            encoder = fit_encoder(frame[order[: options.rows]], columns, "binary", target, classes)
            parts = (order[: options.rows], order[options.rows : options.rows + n_valid], held)
            drawn.append(scores(*(encoder.encode(frame[rows]) for rows in parts), seed))
        cells.append(np.mean([[d[name] for name in SHOWN] for d in drawn], axis=0))
        print(f"| {package}/{table} | " + " | ".join(f"{a:.3f} / {b:.3f}" for a, b in cells[-1]) + " |", flush=True)
    mean = np.mean(cells, axis=0)
    print("| **mean** | " + " | ".join(f"{a:.4f} / {b:.4f}" for a, b in mean) + " |")
    for name in ("picked", "lgbm_tuned"):
        ours, theirs = (np.array([c[SHOWN.index(n)] for c in cells]) for n in ("kit", name))
        print(
            f"kit against {name}: ROC AUC {(ours > theirs)[:, 0].sum()} better, {(ours < theirs)[:, 0].sum()} worse; "
            f"log loss {(ours < theirs)[:, 1].sum()} better, {(ours > theirs)[:, 1].sum()} worse, of {len(cells)} tables."
        )


def scores(train: Features, valid: Features, holdout: Features, seed: int) -> dict[str, tuple[float, float]]:
    """Return (ROC AUC, log loss) on the holdout of each of ``SHOWN``."""
    names = [n for n in CANDIDATES if installed(model_class(candidate_parts(n)[0]))]
    todo = []
    for name in names:
        base, how = candidate_parts(name)
        todo.append(Wanted(base, how, model_class(base).hows[how]))
    opened = open_weights(todo, {}, train.layout.task)
    origins = Origins(Lessons(train), opened, Runtime(seed, BUDGETS["quick"]))
    candidates = make_all(tuple(todo), origins, train, valid)
    blends = {c.name: c for c in blend_all(candidates, valid, seed)}
    # Without weight on the base, the blend of the baselines is the same one.
    blend = blends.get("blend_bases", blends["blend_baselines"])
    by_name = {c.name: c.adapted.model.predict(holdout) for c in candidates}
    assert isinstance(blend.adapted.model, Blend)
    best = min(candidates, key=lambda c: loss(valid, c.valid))
    predicted: dict[str, Predictions] = {
        **by_name,
        "picked": by_name[best.name],
        "blend": blend.adapted.model.combine(by_name),
    }
    picking = loss(valid, picked_on_valid(candidates, valid, METRICS["log_loss"]))
    predicted["kit"] = predicted["blend" if loss(valid, blend.valid) < picking else "picked"]
    return {n: (float(roc_auc_score(holdout.labels, predicted[n][:, 1])), loss(holdout, predicted[n])) for n in SHOWN}


if __name__ == "__main__":
    main()
