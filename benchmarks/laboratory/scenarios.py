"""What is asked in the laboratory: a kind of world, how many rows, which split, which metric."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from .worlds import Kind, Later

FAULTY = 0.1
"""Share of rows that a planted fault touches."""

WORTHWHILE = {"roc_auc": 0.01, "log_loss": 0.01, "rmse": 0.02}
"""The gain that counts, by metric."""


@dataclass(frozen=True)
class Scenario:
    """One question, asked of many worlds of a kind.

    Attributes
    ----------
    rows
        From how many labelled rows to how many, drawn evenly on a logarithmic scale.
    held_out
        Share of the rows held out; rows of later begin there.
    folds
        Outer folds; 0 for one holdout.
    blends
        Whether candidates are blended.
    fault
        What is planted in the table. Fresh rows are without it, so only checks are asked.
    every
        In one of how many rounds it is drawn: more where a draw takes long.
    """

    title: str
    kind: Kind
    rows: tuple[int, int] = (200, 600)
    source_rows: int = 1000
    metric: Literal["roc_auc", "log_loss", "rmse"] = "roc_auc"
    held_out: float = 0.25
    folds: int = 0
    blends: bool = True
    fault: Literal["", "leak", "duplicates"] = ""
    every: int = 1

    @property
    def worthwhile(self) -> float:
        """The gain that counts."""
        return WORTHWHILE[self.metric]

    @property
    def grows(self) -> bool:
        """Whether rows can be added that change nothing else."""
        return not self.fault and not self.folds and self.kind.later == Later()

    def recipe(self, columns: list[str]) -> str:
        """Return the recipe of a table with these columns."""
        roles = [f'{role} = "{name}"' for role, name in (("time", "day"), ("group", "team")) if name in columns]
        positive = ['positive = "c1"'] if self.kind.task == "binary" else []
        without = ["catboost"] if self.blends else ["catboost", "blend"]
        split = [f"folds = {self.folds}"] if self.folds else [f"holdout = {self.held_out}"]
        return "\n".join(
            [
                'name = "laboratory/table"',
                'title = "Laboratory"',
                'schema = "table"',
                f'task = "{self.kind.task}"',
                'target = "y"',
                *positive,
                *roles,
                "[split]",
                *split,
                "[metrics]",
                f'primary = "{self.metric}"',
                f"worthwhile = {self.worthwhile}",
                "[candidates]",
                f"without = {json.dumps(without)}",
                "[candidates.adapt]",
                'linear = ["pool"]',
                'lgbm = ["refit", "continue"]',
            ]
        )

    def schema(self, table: pl.DataFrame) -> str:
        """Return the schema of a table."""
        types = {pl.String: "string", pl.Int64: "integer"}
        fields = [f'[fields.{name}]\ntype = "{types.get(kind, "number")}"' for name, kind in table.schema.items()]
        return "\n".join(['name = "table"', 'row = "one record"', *fields])

    def planted(self, table: pl.DataFrame, number: int, rng: np.random.Generator) -> pl.DataFrame:
        """Return the table with this scenario's fault; kinds of leak take turns by the number of the draw."""
        if self.fault == "duplicates":
            again = rng.choice(table.height, round(FAULTY * table.height), replace=False)
            return pl.concat([table, table[np.sort(again)]])
        if self.fault == "leak":
            return LEAKS[number % len(LEAKS)](table, rng)
        return table


def _noisy_copy(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    return table.with_columns(leak=pl.Series(_positive(table) + 0.3 * rng.normal(size=table.height)))


def _difference(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    before = 10.0 * rng.normal(size=table.height)
    after = before + _positive(table) + 0.3 * rng.normal(size=table.height)
    return table.with_columns(before=pl.Series(before), after=pl.Series(after))


def _missing(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    absent = rng.random(table.height) < np.where(_positive(table) > 0, 0.95, 0.05)
    return table.with_columns(leak=pl.Series(rng.normal(size=table.height)).set(pl.Series(absent), None))


def _category(table: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Add a code whose values are each of one class, as of a clerk who handles nothing else."""
    code = rng.integers(0, max(2, table.height // 20), table.height)
    sides = np.where(_positive(table) > 0, "q", "p")
    return table.with_columns(leak=pl.Series([f"{side}{c}" for side, c in zip(sides, code, strict=True)]))


def _positive(table: pl.DataFrame) -> np.ndarray:
    return (table["y"] == "c1").cast(pl.Float64).to_numpy()


LEAKS = (_noisy_copy, _difference, _missing, _category)

_TRANSFER = Kind(distance=(0.0, 0.4), novelty=(0.0, 1.5))
_SEEN = Kind(distance=(0.0, 0.2), novelty=(0.0, 2.5))
_PLAIN = Kind(distance=(0.0, 0.1), novelty=(1.0, 2.5))

SCENARIOS = {
    "noise": Scenario("Nothing predicts the target", Kind(signal=(0, 0))),
    "noise, numbers": Scenario("The same, of a number", Kind("regression", signal=(0, 0)), metric="rmse"),
    "same": Scenario("The source is the same population", Kind()),
    "transfer": Scenario("Useful transfer of graded strength", _TRANSFER),
    "transfer, log loss": Scenario("The same, by log loss", _TRANSFER, metric="log_loss"),
    "transfer, numbers": Scenario(
        "The same, of a number", Kind("regression", distance=(0.0, 0.6), novelty=(0.0, 2.0)), metric="rmse"
    ),
    "transfer, seen": Scenario(
        "Few rows to learn from, many held out, no blends", _SEEN, rows=(500, 900), held_out=0.85, blends=False
    ),
    "transfer, seen, numbers": Scenario(
        "The same, of a number",
        replace(_SEEN, task="regression"),
        rows=(500, 900),
        held_out=0.85,
        blends=False,
        metric="rmse",
    ),
    "transfer, plain": Scenario(
        "Twice the rows held out, and more that only the target knows",
        _PLAIN,
        rows=(1200, 2000),
        held_out=0.93,
        blends=False,
    ),
    "transfer, plain, numbers": Scenario(
        "The same, of a number",
        replace(_PLAIN, task="regression"),
        rows=(1200, 2000),
        held_out=0.93,
        blends=False,
        metric="rmse",
    ),
    "harmful": Scenario("A source that misleads", Kind(distance=(0.8, 2.0))),
    "blind spot": Scenario("A sort of row that the source has none of, and where it is wrong", Kind(blind=0.3)),
    "covariates shift": Scenario(
        "Columns move between source and train, and train and future",
        Kind(distance=(0.0, 0.3), moved=0.7, in_time=True, later=Later(moved=0.7)),
    ),
    "labels shift": Scenario(
        "More positives in the future", Kind(novelty=(0, 2), in_time=True, later=Later(offset=1.2))
    ),
    "concept shifts": Scenario(
        "The relation turns in the future", Kind(distance=(0.0, 0.5), in_time=True, later=Later(turned=0.4))
    ),
    "groups, few": Scenario(
        "20 groups, 5 of them held out", Kind(novelty=(0, 2), shared=0.7, of_group=20), rows=(400, 400)
    ),
    "groups, many": Scenario("120 groups, 30 held out", Kind(novelty=(0, 2), shared=0.7, of_group=6), rows=(720, 720)),
    "days": Scenario(
        "60 days with a common shock, 15 held out",
        Kind("regression", distance=(0.0, 0.6), novelty=(0, 1.5), shared=0.4, of_group=12, in_time=True),
        rows=(720, 720),
        metric="rmse",
    ),
    "days, few": Scenario(
        "24 days with a common shock, 6 held out",
        Kind("regression", distance=(0.0, 0.6), novelty=(0, 1.5), shared=0.4, of_group=30, in_time=True),
        rows=(720, 720),
        metric="rmse",
    ),
    "tiny": Scenario("100 rows, 25 held out", _TRANSFER, rows=(100, 100)),
    "rare": Scenario(
        "Positives 1 in 200", Kind(novelty=(0, 2), rate=0.005), rows=(3000, 5000), source_rows=4000, every=2
    ),
    "heavy tails": Scenario(
        "Log-normal errors",
        Kind("regression", distance=(0.0, 0.6), novelty=(0, 2), heavy=True),
        metric="rmse",
    ),
    "classes": Scenario(
        "Six classes",
        Kind("multiclass", distance=(0.0, 0.6), novelty=(0, 0), n_classes=6),
        rows=(400, 800),
        metric="log_loss",
        every=3,
    ),
    "folds": Scenario("150 rows over five folds", _TRANSFER, rows=(150, 150), folds=5, every=3),
    "leak": Scenario("A leaky column", _TRANSFER, fault="leak"),
    "duplicates": Scenario("A tenth of the rows twice", _TRANSFER, fault="duplicates"),
}
