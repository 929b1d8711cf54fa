"""When does a source table pay? Learning curves over target rows, with and without the source.

python benchmarks/sources.py --out sources.csv [--only finance/new_product ...] [--rows 16 32 64 128] [--draws 20]

Half of a vertical's target rows are held out by its recipe's own rule, and stay the same. Of the others, some are
drawn at random (of each class its share, two rows at least), twenty times over. Every candidate is made on the same
draw: three times, each time with another third to choose on, and the three predictions are averaged. Target-only:
linear, LightGBM, the in-context base as it is, encoded by what the drawn rows know. Source-adapted: the source's rows
pooled into a line, its trees refitted or continued, its rows beside the target's in context, encoded by what the source
knows. Each side answers twice: with the mean of its candidates, which needs no choice, and with the candidate of least
loss on the thirds held out. Finished draws are in the file and not made again.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from tabkit.data.align import read_source
from tabkit.data.encode import Features, as_text, fit_encoder
from tabkit.data.source import from_frame
from tabkit.data.split import split_rows
from tabkit.data.validate import read_table
from tabkit.evaluate.checks import two_sample_auc
from tabkit.evaluate.metrics import METRICS, Metric
from tabkit.learner import BUDGETS, Predictions, candidate_name
from tabkit.models.base import Model, loss, model_class
from tabkit.recipe import Plan, Recipe, load_recipe
from tabkit.samples import load_sample
from tabkit.seed import stream

VERTICALS: dict[str, str | None] = {
    "finance/new_product": None,
    "healthcare/recurrence": None,
    "automotive/fuel_economy": None,
    "agriculture/soil": "limesoda:BB.72",  # the one other field with these sensors
}
"""Recipe -> its source where the recipe names none. telecom/churn and software/check_time have none to give."""

TARGET_ONLY = (("linear", "scratch"), ("lgbm", "scratch"), ("icl", "as_is"))
SOURCE_ADAPTED = (("linear", "pool"), ("lgbm", "refit"), ("lgbm", "continue"), ("icl", "context"))
UNTOUCHED = (("linear", "as_is"), ("lgbm", "as_is"))
MEAN = "mean of these"
THIRDS = 3
BUDGET = replace(BUDGETS["quick"], trees=200)
SIDES = ("target", "untouched", "source")
MOST_OF_POOL = 0.6
"""More of the rows to draw from, and the draws would be nearly the same."""
BOOTSTRAP = 10_000


@dataclass(frozen=True)
class Vertical:
    """A target and its source, with the rows held out and those to draw from."""

    plan: Plan
    metric: Metric
    frame: pl.DataFrame
    classes: tuple[str, ...]
    pool: npt.NDArray[np.int64]
    holdout: npt.NDArray[np.int64]
    source: Features
    rows: Features
    """The target's rows as the source's encoder sees them."""

    @classmethod
    def open(cls, name: str, source: str | None) -> Vertical:
        """Read both tables as a run does, and hold out half of the target."""
        plan = load_recipe(name)
        changes: dict[str, object] = {"split": {"holdout": 0.5}, "value": None}
        if source is not None:
            changes["source"] = {"sample": source}
        recipe = Recipe.model_validate({**plan.recipe.model_dump(by_alias=True), **changes})
        plan = replace(plan, recipe=recipe)
        (rule,) = recipe.sources
        sample = rule.sample or recipe.sample
        assert recipe.sample is not None and sample is not None
        table = read_table(plan, from_frame(load_sample(recipe.sample), recipe.sample), recipe.where)
        target = table.frame.filter(table.frame[recipe.target].is_not_null())
        known = read_source(plan, from_frame(load_sample(sample), sample), rule, table, rule.sample is None).frame
        names = () if recipe.task == "regression" else sorted(as_text(target[recipe.target]).unique())
        classes = tuple(sorted(names, key=lambda c: c == recipe.positive))
        (split,) = split_rows(target, recipe, seed=0)
        pool = np.sort(np.concatenate([split.train, split.valid]))
        source_rows, rows = encoded(plan, classes, known, known, target)
        return cls(plan, METRICS[recipe.metrics.primary], target, classes, pool, split.holdout, source_rows, rows)

    @cached_property
    def bases(self) -> dict[str, Model]:
        """What the source teaches before any row of the target is drawn."""
        made: dict[str, Model] = {
            "icl": model_class("icl").open_weights(None, self.rows.layout.task).knowing(self.source)
        }
        for name in ("linear", "lgbm"):
            rng = stream(0, "pretrain", name)
            base = model_class(name).pretrain(self.source, self.rows.with_y(None), rng, BUDGET)
            assert base is not None
            made[name] = base
        return made

    def draw(self, n_rows: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return rows drawn from the pool (n_rows,), and the third that each belongs to."""
        codes = np.zeros(len(self.frame), dtype=np.int64)
        if self.classes:
            codes = (as_text(self.frame[self.plan.recipe.target]) == self.classes[-1]).to_numpy().astype(np.int64)
        shares = np.bincount(codes[self.pool]) / len(self.pool)
        rare = max(2, round(n_rows * shares[-1])) if len(shares) > 1 else 0
        wanted = [n_rows - rare, rare] if rare else [n_rows]
        drawn = [rng.permutation(self.pool[codes[self.pool] == code])[:n] for code, n in enumerate(wanted)]
        # Dealt out class by class without starting over, so that thirds differ by one row at most.
        return np.concatenate(drawn), np.arange(n_rows) % THIRDS


def encoded(plan: Plan, classes: tuple[str, ...], fit_on: pl.DataFrame, *frames: pl.DataFrame) -> list[Features]:
    """Return frames as features, by an encoder that knows ``fit_on`` alone."""
    columns = [c for c in fit_on.columns if plan.is_feature(c)]
    encoder = fit_encoder(fit_on.select(columns), columns, plan.recipe.task, plan.recipe.target, classes)
    return [encoder.encode(frame) for frame in frames]


def measure(vertical: Vertical, n_rows: int, draw: int) -> Iterator[tuple[str, str, float, float]]:
    """Yield (side, candidate, score on the holdout, loss on the thirds held out) of one draw."""
    drawn, third = vertical.draw(n_rows, np.random.default_rng([n_rows, draw]))
    frames = vertical.frame[drawn], vertical.frame[vertical.holdout]
    alone = encoded(vertical.plan, vertical.classes, frames[0], *frames)
    with_source = [vertical.rows.take(drawn), vertical.rows.take(vertical.holdout)]
    for side, candidates in (("target", TARGET_ONLY), ("source", SOURCE_ADAPTED), ("untouched", UNTOUCHED)):
        here, held = alone if side == "target" else with_source
        answers = []
        for base, how in candidates:
            model = model_class(base)() if how == "scratch" else vertical.bases[base]
            predicted, on_thirds = averaged(model, how, here, held, third)
            answers.append((predicted, on_thirds))
            score = vertical.metric.value(held.labels, predicted)
            yield side, candidate_name(base, how), score, loss(here, on_thirds)
        predicted, on_thirds = (np.mean(parts, axis=0) for parts in zip(*answers, strict=True))
        yield side, MEAN, vertical.metric.value(held.labels, predicted), loss(here, on_thirds)


def averaged(
    model: Model, how: str, rows: Features, held: Features, third: npt.NDArray[np.int64]
) -> tuple[Predictions, Predictions]:
    """Return the mean prediction of the held-out rows, and that of each row by the model that did not learn from it."""
    predicted: list[Predictions] = []
    out: Predictions | None = None
    for k in range(THIRDS):
        learned, chosen_on = rows.take(np.flatnonzero(third != k)), rows.take(np.flatnonzero(third == k))
        fitted = model.adapt(learned, chosen_on, how, stream(0, "adapt", how), BUDGET).model
        on_third = fitted.predict(chosen_on)
        out = np.zeros((len(rows), *on_third.shape[1:])) if out is None else out
        out[third == k] = on_third
        predicted.append(fitted.predict(held))
    assert out is not None
    return np.mean(predicted, axis=0), out


def main() -> None:
    """Measure what is not in the file yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=VERTICALS, default=list(VERTICALS))
    parser.add_argument("--rows", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    opened: dict[str, Vertical] = {}
    done = set()
    if options.out.is_file():
        done = {(r["vertical"], int(r["rows"]), int(r["draw"])) for r in csv.DictReader(options.out.open())}
    with options.out.open("a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(["vertical", "rows", "draw", "side", "candidate", "score", "loss"])
        for n_rows in options.rows:
            for name in options.only:
                todo = [d for d in range(options.draws) if (name, n_rows, d) not in done]
                if not todo:
                    continue
                if name not in opened:
                    opened[name] = Vertical.open(name, VERTICALS[name])
                vertical = opened[name]
                for draw in todo if n_rows <= MOST_OF_POOL * len(vertical.pool) else []:
                    found = list(measure(vertical, n_rows, draw))
                    writer.writerows([name, n_rows, draw, *entry] for entry in found)
                    file.flush()
                    print(name, n_rows, draw, file=sys.stderr)
    report(pl.read_csv(options.out))


def gain(metric: Metric, by_side: dict[str, pl.DataFrame]) -> str:
    """Return the mean gain of the source's side over the target's, paired by draw, with its bootstrap interval."""
    target, source = (by_side[side].sort("draw")["score"].to_numpy() for side in ("target", "source"))
    gains = metric.sign * (source - target)
    means = np.random.default_rng(0).choice(gains, (BOOTSTRAP, len(gains))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{gains.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def report(scores: pl.DataFrame) -> None:
    """Print a table a vertical: what each side scores, and the paired gain of the source with its interval over draws."""
    for name in scores["vertical"].unique(maintain_order=True):
        own = scores.filter(pl.col("vertical") == name)
        vertical = Vertical.open(name, VERTICALS[name])
        metric, n_source = vertical.metric, len(vertical.source)
        auc = two_sample_auc(vertical.source, vertical.rows, seed=0)
        print(f"\n`{name}`, {metric.title} ({'higher' if metric.greater_is_better else 'lower'} is better).", end=" ")
        print(f"A classifier tells the source's {n_source:,} rows from the target's with ROC AUC {auc:.3f}.\n")
        print(
            "| target rows | target only | source untouched | source-adapted | gain [95%] | chosen by loss: gain [95%] |"
        )
        print("|---|---|---|---|---|---|")
        for n_rows in sorted(own["rows"].unique()):
            here = own.filter(pl.col("rows") == n_rows)
            mean = {side: here.filter(pl.col("side") == side, pl.col("candidate") == MEAN) for side in SIDES}
            single = here.filter(pl.col("candidate") != MEAN).sort("loss")
            best = {
                side: single.filter(pl.col("side") == side).unique("draw", keep="first", maintain_order=True)
                for side in SIDES
            }
            cells = [f"{mean[side]['score'].mean():.3f}" for side in SIDES]
            cells += [gain(metric, mean), gain(metric, best)]
            print(f"| {n_rows} | {' | '.join(cells)} |")
        means = own.group_by("rows", "side", "candidate", maintain_order=True).agg(pl.col("score").mean())
        print("\n| candidate | " + " | ".join(f"{n} rows" for n in sorted(own["rows"].unique())) + " |")
        print("|---|" + "---|" * own["rows"].n_unique())
        for (side, candidate), by in means.group_by("side", "candidate", maintain_order=True):
            print(f"| {candidate} ({side}) | " + " | ".join(f"{s:.3f}" for s in by.sort("rows")["score"]) + " |")


if __name__ == "__main__":
    main()
