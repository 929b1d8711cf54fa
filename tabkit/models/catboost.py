"""CatBoost (Prokhorenkova et al., NeurIPS 2018): often the strongest untuned model on real tables. Optional extra."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings, Step, n_threads
from tabkit.models.base import Model

PATIENCE = 50
"""Trees without a better valid loss before growing stops."""

MOST_STEPS = 60
"""Points of a learning curve that are kept."""


class CatBoost(Model):
    """CatBoost as it comes, with its own handling of categories; the number of trees is chosen on valid."""

    title = "CatBoost"
    hows = {"scratch": "baseline"}
    baselines = {"scratch": 50}
    optional = True
    unweighted = ""
    needs_package = "catboost"

    def __init__(self, text: str = "", task: str = "binary") -> None:
        # CatBoost writes its JSON with a last digit that wanders: the text is the model, here and in a bundle.
        self.text_ = text
        self.task = task
        self.trees_: Any = _parse(text, task) if text else None

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Grow trees until valid stops improving, or as many as ``settings`` say. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"catboost knows {sorted(self.hows)}, not {how!r}")
        import catboost

        options: dict[str, Any] = {
            "iterations": budget.trees if settings is None else int(settings["trees"]),
            "random_seed": int(rng.integers(2**31 - 1)),
            "thread_count": n_threads(),
            "allow_writing_files": False,
            "logging_level": "Silent",
        }
        if settings is not None:
            options["learning_rate"] = float(settings["learning_rate"])
        if train.layout.task == "regression":
            trees = catboost.CatBoostRegressor(**options)
        else:
            loss = "Logloss" if train.layout.task == "binary" else "MultiClass"
            # A class that a small train lacks still has its column.
            extra = {} if loss == "Logloss" else {"classes_count": len(train.layout.classes)}
            trees = catboost.CatBoostClassifier(loss_function=loss, **options, **extra)
        history: tuple[Step, ...] = ()
        notes: tuple[str, ...] = ()
        if settings is None:
            assert valid is not None
            clock = _Clock(budget.deadline())
            trees.fit(
                _pool(train),
                eval_set=_pool(valid),
                early_stopping_rounds=PATIENCE,
                use_best_model=True,
                callbacks=[clock],
            )
            history = _history(trees.get_evals_result(), squared=train.layout.task == "regression")
            if clock.grown:
                notes = (f"stopped by the clock after {clock.grown} trees: another machine may grow more",)
            elif trees.tree_count_ > budget.trees - PATIENCE:
                notes = (f"valid was still improving at the budget of {budget.trees} trees",)
        else:
            trees.fit(_pool(train))
        chosen = {"trees": int(trees.tree_count_), "learning_rate": float(trees.learning_rate_)}
        model = CatBoost(_text(trees), train.layout.task)
        trees = model.trees_
        n_leaves = int(np.sum(trees.get_tree_leaf_counts()))
        # Oblivious trees: one split per level, shared by all its nodes.
        n_splits = int(np.sum(np.log2(np.maximum(1, trees.get_tree_leaf_counts()))))
        block = Block("trees", n_leaves + n_splits, n_leaves + n_splits, float(np.linalg.norm(trees.get_leaf_values())))
        return Adapted(model, how, Proof((block,)), chosen, history, notes)

    def predict(self, features: Features) -> Predictions:
        """Predict row by row."""
        if len(features) == 0:
            return np.zeros((0,) if self.task == "regression" else (0, len(features.layout.classes)))
        pool = _pool(features.with_y(None))
        if self.task == "regression":
            return np.asarray(self.trees_.predict(pool), dtype=np.float64)
        return np.asarray(self.trees_.predict_proba(pool), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write ``model.json`` (CatBoost's own JSON) and ``config.json``."""
        (folder / "model.json").write_text(self.text_, encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({"task": self.task}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        task = json.loads((folder / "config.json").read_text(encoding="utf-8"))["task"]
        return cls((folder / "model.json").read_text(encoding="utf-8"), task)


def _text(trees: Any) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        trees.save_model(str(path), format="json")
        return path.read_text(encoding="utf-8")


def _parse(text: str, task: str) -> Any:
    import catboost

    trees = catboost.CatBoostRegressor() if task == "regression" else catboost.CatBoostClassifier()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(text, encoding="utf-8")
        trees.load_model(str(path), format="json")
    return trees


def _pool(features: Features) -> Any:
    import catboost

    layout = features.layout
    frame = pd.DataFrame(features.x_num, columns=[f"n{i}" for i in range(len(layout.num_names))])
    names = [f"c{i}" for i in range(len(layout.cat_names))]
    for i, name in enumerate(names):
        frame[name] = features.x_cat[:, i].astype(str)
    return catboost.Pool(frame, features.y, cat_features=names, weight=features.w)


class _Clock:
    """Ends growing at the deadline; ``grown`` is the number of trees then, 0 where the clock never struck."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.grown = 0

    def after_iteration(self, info: Any) -> bool:
        """Tell CatBoost whether to go on."""
        if time.monotonic() < self.deadline:
            return True
        self.grown = int(info.iteration)
        return False


def _history(evaluations: dict[str, dict[str, list[float]]], squared: bool) -> tuple[Step, ...]:
    """Thin the curves to :data:`MOST_STEPS` points; CatBoost gives the root of the squared error that others report."""
    (learn,), (valid,) = evaluations["learn"].values(), evaluations["validation"].values()
    train_loss, valid_loss = (np.asarray(curve) ** (2 if squared else 1) for curve in (learn, valid))
    n = len(valid_loss)
    spread = np.linspace(0, n - 1, min(n, MOST_STEPS - 1)).round().astype(int)
    shown = sorted({*spread.tolist(), int(np.argmin(valid_loss))})
    return tuple(Step(i + 1, float(train_loss[i]), float(valid_loss[i])) for i in shown)
