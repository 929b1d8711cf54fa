"""Gradient-boosted trees on LightGBM: two baselines, and three ways to adapt trees grown on a source table.

``refit`` keeps every split and re-estimates the leaf values on the target's rows; ``continue`` keeps every
tree and grows more on what they leave unexplained (``init_model``). Source: Ke et al., *LightGBM: A Highly
Efficient Gradient Boosting Decision Tree*, NeurIPS 2017; the refit decay is LightGBM's own.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt

from tabkit.data.encode import MISSING, Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings, Step, n_threads
from tabkit.models.base import Model, loss

PATIENCE = 50
"""Rounds without a better valid loss before growing stops."""

DECAYS = (0.99, 0.95, 0.9, 0.8, 0.6, 0.3, 0.0)
"""How much of each source leaf value ``refit`` may keep, from nearly all to none; valid chooses."""

CONTINUE_RATES = (0.01, 0.05)
"""Learning rates tried by ``continue``; small ones first, since .05 has been measured to hurt on small targets."""

DEFAULTS: Settings = {"learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 20}

LEAF_SHARE = 8
"""No leaf needs more than this part of the rows: with 20 of 24 rows to a leaf no tree could split at all."""

_OBJECTIVE = {
    "binary": {"objective": "binary", "metric": "binary_logloss"},
    "multiclass": {"objective": "multiclass", "metric": "multi_logloss"},
    "regression": {"objective": "regression", "metric": "l2"},
}


STUDENT: Settings = {"learning_rate": 0.1, "num_leaves": 31, "min_child_samples": 20}
"""A teacher's answers have no noise to fit, so a student may take larger steps than its own baseline."""


class LightGBM(Model):
    """LightGBM with native categories and missing values, early stopping on valid, deterministic per seed.

    As a ``student`` it learns a teacher's answers instead of labels: ``y`` is then probabilities (n_rows, n_classes), or
    means (n_rows,) for regression. Source: Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015.
    """

    title = "LightGBM"
    hows = {
        "scratch": "baseline",
        "tuned": "baseline",
        "as_is": "base",
        "refit": "adapted",
        "continue": "adapted",
        "student": "student",
    }
    needs_source = frozenset({"as_is", "refit", "continue"})
    baselines = {"scratch": 30, "tuned": 40}
    unweighted = ""

    def __init__(self, booster: lgb.Booster | None = None, task: str = "binary") -> None:
        self.booster_ = booster
        self.task = task

    @classmethod
    def pretrain(cls, source: Features | None, rows: Features, rng: np.random.Generator, budget: Budget) -> Self | None:
        """Grow the base on the source table, its size chosen on a fifth of the source kept apart."""
        if source is None or source.y is None:
            return None
        order = rng.permutation(len(source))
        cut = max(1, len(source) // 5)
        part, rest = source.take(order[:cut]), source.take(order[cut:])
        grown = _grow(_Lesson(rest, part, budget, _seed(rng)), DEFAULTS)
        trees = max(1, round(grown.trees * 1.25))
        full = _grow(_Lesson(source, None, budget, _seed(rng)), {**DEFAULTS, "trees": trees})
        return cls(full.booster, source.layout.task)

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Grow, tune, keep, refit or continue. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"lgbm knows {sorted(self.hows)}, not {how!r}")
        if how in self.needs_source and self.booster_ is None:
            raise ValueError(f"lgbm {how} needs trees grown on a source table")
        assert valid is not None or settings is not None, "without valid rows, settings must say what was chosen"
        if how == "as_is":
            return self._as_is()
        if how == "refit":
            return self._refit(train, valid, settings)
        lesson = _Lesson(train, valid, budget, _seed(rng))
        if how == "continue":
            return self._continue(lesson, settings)
        if how == "tuned" and settings is None:
            best, notes = _search(lesson)
            return replace(_whole(best, train, how), notes=notes)
        return _whole(_grow(lesson, settings or (STUDENT if how == "student" else DEFAULTS)), train, how)

    def _as_is(self) -> Adapted[Model]:
        assert self.booster_ is not None
        _, leaves, n_splits = _anatomy(self.booster_)
        return Adapted(self, "as_is", Proof((Block("trees", leaves.size + n_splits, 0, 0.0),)))

    def _refit(self, train: Features, valid: Features | None, settings: Settings | None) -> Adapted[Model]:
        base = self.booster_
        assert base is not None and train.y is not None
        matrix = _matrix(train)
        options = DECAYS if settings is None else [d for d in (settings["decay"],) if d is not None]
        tried = {decay: base.refit(matrix, train.y, decay_rate=decay, weight=train.w, **_quiet()) for decay in options}
        contest: dict[float | None, lgb.Booster] = {None: base, **tried}
        if settings is None:
            assert valid is not None
            losses = {decay: loss(valid, _raw_predict(b, valid)) for decay, b in contest.items()}
            chosen = min(losses, key=lambda decay: losses[decay])
            history = tuple(
                Step(i, None, losses[d], "untouched base" if d is None else f"decay {d:g}")
                for i, d in enumerate(contest)
            )
        else:
            chosen, history = settings["decay"], ()
        kept = contest[chosen]
        splits_before, leaves_before, n_splits = _anatomy(base)
        moved = np.zeros(leaves_before.size, dtype=bool)
        for booster in tried.values():
            splits, leaves, _ = _anatomy(booster)
            if splits != splits_before:
                raise RuntimeError("LightGBM's refit changed a split; it must only change leaf values")
            moved |= leaves != leaves_before
        change = float(np.linalg.norm(_anatomy(kept)[1] - leaves_before))
        blocks = (Block("splits", n_splits, 0, 0.0), Block("leaves", leaves_before.size, int(moved.sum()), change))
        return Adapted(LightGBM(kept, self.task), "refit", Proof(blocks), {"decay": chosen}, history)

    def _continue(self, lesson: _Lesson, settings: Settings | None) -> Adapted[Model]:
        base = self.booster_
        assert base is not None
        n_base = base.num_trees()
        if settings is None:
            assert lesson.valid is not None
            grown = [_grow(lesson, {**DEFAULTS, "learning_rate": rate}, base) for rate in CONTINUE_RATES]
            best = min(grown, key=lambda g: g.loss)
            untouched = loss(lesson.valid, _raw_predict(base, lesson.valid))
            history: tuple[Step, ...] = (Step(0, None, untouched, "untouched base"), *best.history)
            trees = best.trees if best.loss < untouched else 0
            notes = best.notes
        else:
            trees, history, notes = int(settings["trees"]), (), ()
            best = _grow(lesson, {**settings, "trees": max(1, trees)}, base)
        per_round = base.num_model_per_iteration()
        # The trees grown count as trained even where valid kept none of them: that is what was tried.
        _, tried_leaves, tried_splits = _anatomy(best.booster, first=n_base)
        kept = best.booster if trees else base
        before, leaves_before, n_splits = _anatomy(base)
        after, leaves_after, _ = _anatomy(kept, last=n_base)
        if before != after:
            raise RuntimeError("LightGBM's continued training changed a split of the base's trees")
        _, new_leaves, _ = _anatomy(kept, first=n_base)
        change = float(np.linalg.norm(leaves_after - leaves_before))
        blocks = (
            Block("base_trees", leaves_before.size + n_splits, 0 if change == 0.0 else leaves_before.size, change),
            Block("new_trees", tried_leaves.size + tried_splits, tried_leaves.size + tried_splits, _norm(new_leaves)),
        )
        assert kept.num_trees() == n_base + trees * per_round
        kept_settings = {**best.params, "trees": trees}
        return Adapted(LightGBM(kept, self.task), "continue", Proof(blocks), kept_settings, history, notes)

    def predict(self, features: Features) -> Predictions:
        """Predict row by row."""
        assert self.booster_ is not None
        return _raw_predict(self.booster_, features)

    def save(self, folder: Path) -> None:
        """Write ``model.txt`` (LightGBM's own text format) and ``config.json``."""
        assert self.booster_ is not None
        (folder / "model.txt").write_text(self.booster_.model_to_string(num_iteration=-1), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps({"task": self.task}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote."""
        task = json.loads((folder / "config.json").read_text(encoding="utf-8"))["task"]
        booster = lgb.Booster(model_str=(folder / "model.txt").read_text(encoding="utf-8"))
        return cls(booster, task)


@dataclass(frozen=True)
class _Lesson:
    """Rows to grow trees on, rows to stop by (not read if the number of trees is given), and what may be spent."""

    train: Features
    valid: Features | None
    budget: Budget
    seed: int


@dataclass(frozen=True)
class _Grown:
    booster: lgb.Booster
    params: Settings
    trees: int
    loss: float
    history: tuple[Step, ...]
    notes: tuple[str, ...]


def _whole(grown: _Grown, train: Features, how: str) -> Adapted[Model]:
    _, leaves, n_splits = _anatomy(grown.booster)
    total = leaves.size + n_splits
    proof = Proof((Block("trees", total, total, float(np.linalg.norm(leaves))),))
    settings = {**grown.params, "trees": grown.trees}
    return Adapted(LightGBM(grown.booster, train.layout.task), how, proof, settings, grown.history, grown.notes)


class _Clock:
    """Ends growing at the deadline, even after the first tree; ``struck`` tells whether it did."""

    def __init__(self, deadline: float) -> None:
        # After the recording (20): the first tree may be late already. LightGBM reads it from the object itself.
        self.order = 25
        self.deadline = deadline
        self.struck = False

    def __call__(self, env: Any) -> None:
        if time.monotonic() > self.deadline and not self.struck:
            self.struck = True
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list)


def _grow(lesson: _Lesson, params: Settings, base: lgb.Booster | None = None, deadline: float | None = None) -> _Grown:
    """Grow trees until valid stops improving; ``params["trees"]`` fixes their number instead."""
    params = dict(params)
    fixed = params.pop("trees", None)
    options, dataset = _prepared(lesson, params)
    if fixed is not None:
        booster = lgb.train(options, dataset, int(fixed), init_model=base)
        return _Grown(booster, params, int(fixed), float("nan"), (), ())
    assert lesson.valid is not None
    apart, weights, _ = _targets(lesson.valid)
    curve: dict[str, dict[str, list[float]]] = {}
    clock = _Clock(lesson.budget.deadline() if deadline is None else deadline)
    booster = lgb.train(
        options,
        dataset,
        lesson.budget.trees,
        valid_sets=[dataset, dataset.create_valid(_matrix(apart), apart.y, weight=weights, params=options)],
        valid_names=["train", "valid"],
        init_model=base,
        callbacks=[lgb.record_evaluation(curve), lgb.early_stopping(PATIENCE, verbose=False), clock],
    )
    on_train, losses = curve["train"][options["metric"]], np.array(curve["valid"][options["metric"]])
    best = int(np.argmin(losses)) + 1
    n_base = 0 if base is None else base.current_iteration()
    # If no split is left, LightGBM goes on without adding trees: what it counted is then more than what it grew.
    best = min(best, booster.current_iteration() - n_base)
    # Only the best trees stay: what is saved, proved and predicted with is one and the same booster.
    booster = lgb.Booster(model_str=booster.model_to_string(num_iteration=n_base + best))
    stride = max(1, len(losses) // 60)
    shown = sorted({*range(0, len(losses), stride), best - 1, len(losses) - 1})
    history = tuple(Step(i + 1, float(on_train[i]), float(losses[i])) for i in shown)
    notes: tuple[str, ...] = ()
    if clock.struck:
        notes = (f"stopped by the clock after {len(losses)} trees: another machine may grow more",)
    elif len(losses) == lesson.budget.trees and best > lesson.budget.trees - PATIENCE:
        notes = (f"valid was still improving at the budget of {lesson.budget.trees} trees",)
    return _Grown(booster, params, best, float(losses.min()), history, notes)


def _prepared(lesson: _Lesson, params: Settings) -> tuple[dict[str, Any], lgb.Dataset]:
    """Return LightGBM's options, and the train rows as it wants them."""
    layout = lesson.train.layout
    train, weights, objective = _targets(lesson.train)
    options = {**_quiet(), **objective, **params, "seed": lesson.seed}
    options["min_child_samples"] = min(options["min_child_samples"], max(1, len(train) // LEAF_SHARE))
    if layout.task == "multiclass":
        options["num_class"] = len(layout.classes)
    categories = list(range(len(layout.num_names), layout.n_features))
    dataset = lgb.Dataset(
        _matrix(train), train.y, weight=weights, categorical_feature=categories, params=options, free_raw_data=False
    )
    return options, dataset


def _search(lesson: _Lesson) -> tuple[_Grown, tuple[str, ...]]:
    """Return the best of as many trials as the budget has, and what there is to say of the search."""
    import optuna  # a second to import: only a search pays it

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    budget = lesson.budget
    until = budget.deadline()
    trials = [_grow(lesson, DEFAULTS, deadline=until)]

    def objective(trial: optuna.Trial) -> float:
        params = {
            "learning_rate": trial.suggest_float("learning_rate", 0.01, 0.2, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 3, 127, log=True),
            "min_child_samples": trial.suggest_int("min_child_samples", 2, 200, log=True),
            "feature_fraction": trial.suggest_float("feature_fraction", 0.3, 1.0),
            "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
            "bagging_freq": 1,
            "lambda_l1": trial.suggest_float("lambda_l1", 1e-3, 10.0, log=True),
            "lambda_l2": trial.suggest_float("lambda_l2", 1e-3, 100.0, log=True),
            "cat_smooth": trial.suggest_float("cat_smooth", 1.0, 100.0, log=True),
        }
        trials.append(_grow(lesson, params, deadline=until))
        budget.progress(len(trials) / budget.trials, f"trial {len(trials)} of {budget.trials}")
        return trials[-1].loss

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=lesson.seed % 2**32))
    while len(trials) < budget.trials and time.monotonic() < until:
        study.optimize(objective, n_trials=1)
    notes = [f"{len(trials)} trials (Optuna TPE), the first of them the untuned defaults"]
    if len(trials) < budget.trials:
        notes.append(f"stopped by the clock after {len(trials)} of {budget.trials} trials")
    return min(trials, key=lambda grown: grown.loss), tuple(notes)


def _targets(rows: Features) -> tuple[Features, npt.NDArray[np.float64] | None, dict[str, str]]:
    """Return rows with the targets LightGBM wants, their weights, and the objective.

    Soft labels (n_rows, n_classes) of two classes are learned as they are; of more, as one row per class, weighted by it.
    """
    y = rows.labels
    task = rows.layout.task
    if y.ndim == 1:
        return rows, rows.w, _OBJECTIVE[task]
    if task == "binary":
        return rows.with_y(y[:, 1]), rows.w, {"objective": "cross_entropy", "metric": "cross_entropy"}
    n_rows, n_classes = y.shape
    repeated = rows.take(np.tile(np.arange(n_rows), n_classes))
    return repeated.with_y(np.repeat(np.arange(n_classes), n_rows)), y.T.ravel() * repeated.weights, _OBJECTIVE[task]


def _matrix(features: Features) -> npt.NDArray[np.float32]:
    codes = features.x_cat.astype(np.float32)
    return np.hstack([features.x_num, np.where(features.x_cat == MISSING, np.float32(np.nan), codes)])


def _raw_predict(booster: lgb.Booster, features: Features) -> Predictions:
    raw = np.asarray(booster.predict(_matrix(features)), dtype=np.float64)
    return np.column_stack([1.0 - raw, raw]) if features.layout.task == "binary" else raw


def _anatomy(
    booster: lgb.Booster, first: int = 0, last: int | None = None
) -> tuple[list[str], npt.NDArray[np.float64], int]:
    """Return (split structure per tree, all leaf values, number of splits) of trees ``first`` to ``last``."""
    trees = re.split(r"\nTree=\d+\n", booster.model_to_string(num_iteration=-1).split("\nend of trees")[0])[1:]
    structure, leaves, n_splits = [], [], 0
    for tree in trees[first:last]:
        entries = dict(line.split("=", 1) for line in tree.splitlines() if "=" in line)
        keys = ("split_feature", "threshold", "decision_type", "left_child", "right_child", "cat_threshold")
        structure.append("|".join(entries.get(key, "") for key in keys))
        leaves.append(np.array(entries["leaf_value"].split(), dtype=np.float64))
        n_splits += len(entries.get("split_feature", "").split())
    return structure, np.concatenate(leaves) if leaves else np.zeros(0), n_splits


def _norm(values: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(values)) if values.size else 0.0


def _quiet() -> dict[str, Any]:
    # deterministic + force_row_wise: the same trees whatever the machine's threads and load.
    return {"verbosity": -1, "num_threads": n_threads(), "deterministic": True, "force_row_wise": True}


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31 - 1))
