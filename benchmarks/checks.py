"""How often each check is wrong: python benchmarks/checks.py --tables 200.

Clean tables of 150, 1,000 and 20,000 rows (5 to 40 columns: numbers, some of them heavy-tailed, rounded or strong; categories
of 2 to 300 values; missing values, some of which know something; a sensitive column with another base rate by group; two
classes, three, or a number; rows cut at random, by group, or in time) go through a run with the linear candidate alone, and
every alarm is a false one. Then one fault is planted at a time, and counted is how often the check that it is meant for finds
it. Not counted: ``too_few_holdout_cases``, which is true of small tables, ``holdout_reopened``, and ``ask_when_known``, which
reads names.

``--real`` prints, of real tables that no recipe uses, the strongest column, and what all others together reach.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
from icl import REGRESSION_TABLES, TABLES, read
from joblib import Parallel, delayed

from tabkit.data.encode import as_text
from tabkit.data.leaks import LeakSearch, hidden_leaks
from tabkit.evaluate.ledger import LEDGER
from tabkit.recipe import load_recipe
from tabkit.result import CheckOutcome
from tabkit.workflow.options import TableOptions
from tabkit.workflow.procedure import TableArm
from tabkit.workflow.spine import find
from tabkit.workflow.tables import TableRun

SIZES = (150, 1_000, 20_000)
NO_ALARM = {"too_few_holdout_cases", "holdout_reopened", "ask_when_known"}
TYPES = {pl.String: "string", pl.Int64: "integer", pl.Float64: "number"}
METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}


@dataclass
class Case:
    """A table, and what its recipe says beside the target."""

    frame: pl.DataFrame
    task: str
    roles: str = ""
    split: str = ""
    sensitive: set[str] = field(default_factory=lambda: {"sex"})


def main() -> None:
    """Count alarms on clean tables, then findings of planted faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--faults", nargs="*", default=list(FAULTS), help="which faults are planted")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--real", action="store_true", help="only the strongest columns of real tables")
    options = parser.parse_args()
    if options.real:
        return strongest()
    alarms: dict[int, Counter[str]] = {}
    for n in options.sizes:
        made = Parallel(options.jobs)(delayed(failing)(clean(n, seed), seed) for seed in range(options.tables))
        alarms[n] = Counter(code for failed in made for code in failed)
        alarms[n]["**any**"] = sum(bool(failed) for failed in made)
    codes = sorted({code for found in alarms.values() for code in found}, reverse=True)
    print(f"| false alarms on {options.tables} clean tables | {' | '.join(f'{n:,} rows' for n in options.sizes)} |")
    print("|---|" + "---|" * len(options.sizes))
    for code in codes:
        shares = " | ".join(f"{alarms[n][code] / options.tables:.1%}" for n in options.sizes)
        print(f"| {code if code.startswith('*') else f'`{code}`'} | {shares} |", flush=True)
    print(f"\n| planted fault | found by | {' | '.join(f'{n:,} rows' for n in options.sizes)} |")
    print("|---|---|" + "---|" * len(options.sizes))
    for name in options.faults:
        plant, meant = FAULTS[name]
        found = []
        for n in options.sizes:
            made = Parallel(options.jobs)(
                delayed(failing)(planted(plant, n, seed), seed) for seed in range(10_000, 10_000 + options.tables)
            )
            found.append(sum(bool(failed & meant) for failed in made) / options.tables)
        print(
            f"| {name} | {', '.join(sorted(f'`{c}`' for c in meant))} | {' | '.join(f'{s:.1%}' for s in found)} |",
            flush=True,
        )


def strongest() -> None:
    """Print the strongest column of each real table, what the others reach, and what the search for leaks says."""
    print("| table | strongest column | alone | all others | suspected |\n|---|---|---|---|---|")
    for regression, tables in ((False, TABLES), (True, REGRESSION_TABLES)):
        for package, name, target, without in tables:
            frame, _ = read(package, name, target, without, regression)
            columns = tuple(c for c in frame.columns if c != target)
            y = frame[target].cast(pl.Float64) if regression else as_text(frame[target]).rank("dense").cast(pl.Int64)
            search = LeakSearch.of(frame, columns, y.to_numpy(), 0)
            alone = [search.alone(column) for column in columns]
            best = max(alone, key=lambda s: s.score)
            others = search.together([s for s in alone if s is not best])
            leaks = ", ".join(t.says for t in hidden_leaks(frame, columns, y.to_numpy(), 0)) or "none"
            print(f"| {package}/{name} | {best.says} | {best.score:.3f} | {others:.3f} | {leaks} |")


def failing(case: Case, seed: int) -> set[str]:
    """Return the checks that fail."""
    return {c.code for c in checks_of(case, seed) if c.outcome == "fail"} - NO_ALARM


def checks_of(case: Case, seed: int) -> tuple[CheckOutcome, ...]:
    """Carry out a run with the linear candidate alone, up to its findings."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ[LEDGER] = str(folder / "ledger.jsonl")
        run = TableRun(load_recipe(str(written(folder, case))), TableOptions(budget="quick", seed=seed))
        run.todo = tuple(item for item in run.todo if item.base in ("prior", "linear"))
        run.budget = replace(run.budget, resamples=200, curve_shares=())
        run.terms = replace(run.terms, resamples=200)
        run.read(case.frame, folder / "run")
        (split,) = run.splits
        arm: TableArm = run.procedure.on(split, lambda *_: None)
        return find(arm).findings.checks


def written(folder: Path, case: Case) -> Path:
    """Write the case's schema and recipe; return the recipe's path."""
    fields = [
        f'[fields.{name}]\ntype = "{TYPES[kind.base_type()]}"'
        + ("\nsensitive = true" if name in case.sensitive else "")
        for name, kind in case.frame.schema.items()
    ]
    positive = 'positive = "yes"\n' if case.task == "binary" else ""
    recipe = (
        f'name = "test/case"\ntitle = "A case"\nschema = "case"\ntask = "{case.task}"\ntarget = "y"\n{positive}{case.roles}'
        f'[metrics]\nprimary = "{METRIC[case.task]}"\n{case.split}[candidates]\nadapt = {{}}\nwithout = ["blend", "catboost"]\n'
    )
    path = folder / "domains" / "test" / "case.toml"
    for at, text in (
        (folder / "data_schemas" / "case.toml", 'name = "case"\nrow = "one record"\n' + "\n".join(fields) + "\n"),
        (path, recipe),
    ):
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text, encoding="utf-8")
    return path


def clean(n_rows: int, seed: int, task: str | None = None, kind: str | None = None) -> Case:
    """Return a table without a fault."""
    rng = np.random.default_rng([n_rows, seed])
    task = task or rng.choice(["binary", "binary", "multiclass", "regression"])
    kind = kind or rng.choice(["random", "random", "grouped", "temporal"])
    columns: dict[str, pl.Series] = {}
    score = np.zeros(n_rows)
    for i in range(int(rng.integers(5, 41))):
        values, effect = category(n_rows, rng) if rng.random() < 0.3 else number(n_rows, rng)
        columns[f"c{i}"] = values
        if i < 3 or rng.random() < 0.3:
            score += effect * rng.normal()
    group = rng.random(n_rows) < 0.4
    columns["sex"] = pl.Series(np.where(group, "f", "m").tolist())
    score = (score - score.mean()) / max(score.std(), 1e-9) * rng.uniform(0.7, 2.0) + group * rng.uniform(0, 1.5)
    columns["y"] = pl.Series(outcome(score, task, rng))
    roles = ""
    if kind == "grouped":
        columns["who"] = pl.Series(rng.integers(0, max(12, n_rows // 8), n_rows))
        roles = 'group = "who"\n'
    elif kind == "temporal":
        columns["day"] = pl.Series(np.sort(rng.integers(0, max(40, n_rows // 100), n_rows)))
        roles = 'time = "day"\n'
    return Case(pl.DataFrame(columns), task, roles)


def number(n_rows: int, rng: np.random.Generator) -> tuple[pl.Series, np.ndarray]:
    """Return a column of numbers, and what it does to the outcome."""
    z = rng.normal(size=n_rows)
    match rng.integers(4):
        case 0:
            values = np.exp(z * rng.uniform(0.5, 1.5))
        case 1:
            values = np.round(z * 10)
        case 2:
            values = rng.standard_t(3, n_rows)
            z = np.clip(values, -3, 3)
        case _:
            values = z
    missing = np.zeros(n_rows, dtype=bool)
    if rng.random() < 0.4:
        missing = rng.random(n_rows) < rng.uniform(0.01, 0.3)
    effect = np.where(missing, rng.normal() * 0.5, z)
    return pl.Series([None if gone else float(v) for v, gone in zip(values, missing, strict=True)]), effect


def category(n_rows: int, rng: np.random.Generator) -> tuple[pl.Series, np.ndarray]:
    """Return a column of categories, few of them often, and what it does to the outcome."""
    k = int(rng.choice([2, 3, 5, 12, 30, 300]))
    codes = np.minimum((k * rng.random(n_rows) ** rng.uniform(1, 2)).astype(int), k - 1)
    effect = (rng.normal(size=k) * (1.0 if k <= 30 else 0.3))[codes]
    return pl.Series([f"v{c}" for c in codes]), effect


def outcome(score: np.ndarray, task: str, rng: np.random.Generator) -> list[str] | list[float]:
    """Draw the outcome from a score of about unit spread."""
    if task == "regression":
        return list(score + rng.normal(size=len(score)) * rng.uniform(0.3, 1.5))
    if task == "multiclass":
        utility = np.stack([score, -score, np.zeros(len(score))], axis=1) + rng.gumbel(size=(len(score), 3))
        return [("low", "high", "mid")[k] for k in utility.argmax(axis=1)]
    rate = rng.uniform(0.15, 0.5)
    shift = float(np.quantile(score + rng.logistic(size=len(score)), 1 - rate))
    return np.where(score + rng.logistic(size=len(score)) > shift, "yes", "no").tolist()


def planted(plant: Callable[[Case, np.random.Generator], Case], n_rows: int, seed: int) -> Case:
    """Return a table of two classes with a fault."""
    kind = "grouped" if plant is crossing else "random"
    return plant(clean(n_rows, seed, "binary", kind), np.random.default_rng(seed))


def _labels(case: Case) -> np.ndarray:
    return (case.frame["y"] == "yes").to_numpy()


def _with(case: Case, **columns: pl.Series) -> Case:
    return replace(case, frame=case.frame.with_columns(**columns))


def copy(case: Case, rng: np.random.Generator) -> Case:
    return _with(case, leak=pl.Series(_labels(case) * 7.0 + rng.normal(size=case.frame.height) * 0.1))


def noisy_copy(case: Case, rng: np.random.Generator) -> Case:
    """Three labels in a hundred were entered wrongly."""
    wrong = rng.random(case.frame.height) < 0.03
    return _with(case, leak=pl.Series(np.where(_labels(case) ^ wrong, "open", "closed").tolist()))


def noisy_number(case: Case, rng: np.random.Generator) -> Case:
    """A number that follows the label with noise: its ROC AUC is .97."""
    return _with(case, leak=pl.Series(_labels(case) + rng.normal(size=case.frame.height) * 0.375))


def difference(case: Case, rng: np.random.Generator) -> Case:
    before = rng.lognormal(3, 1, case.frame.height)
    return _with(case, before=pl.Series(before), after=pl.Series(before + _labels(case) * 1.0))


def ratio(case: Case, rng: np.random.Generator) -> Case:
    price = rng.lognormal(3, 1, case.frame.height)
    return _with(case, price=pl.Series(price), paid=pl.Series(price * np.where(_labels(case), 1.0, 0.97)))


def missingness(case: Case, rng: np.random.Generator) -> Case:
    """A date is filled in for 98 of 100 positives and 2 of 100 others."""
    filled = rng.random(case.frame.height) < np.where(_labels(case), 0.98, 0.02)
    values = rng.normal(size=case.frame.height)
    return _with(case, closed=pl.Series([float(v) if has else None for v, has in zip(values, filled, strict=True)]))


def many_values(case: Case, rng: np.random.Generator) -> Case:
    """One of 300 names, each of which is only used for one outcome."""
    names = 2 * rng.integers(0, 150, case.frame.height) + _labels(case)
    order = rng.permutation(300)
    return _with(case, office=pl.Series([f"o{order[name]}" for name in names]))


def copies(case: Case, rng: np.random.Generator) -> Case:
    """One row in ten is there twice."""
    return replace(case, frame=_repeated(case, rng))


def near_copies(case: Case, rng: np.random.Generator) -> Case:
    """One row in ten is there twice, the second time with another number in one cell."""
    n, again = case.frame.height, _repeated(case, rng)
    changed = "c0" if case.frame["c0"].dtype == pl.Float64 else "extra"
    if changed == "extra":
        values = rng.normal(size=n)
        again = again.with_columns(extra=pl.Series(np.r_[values, values[: again.height - n]]))
    late = np.arange(again.height) >= n
    cells = np.where(late, rng.normal(size=again.height), again[changed].fill_null(0).to_numpy())
    return replace(case, frame=again.with_columns(pl.Series(changed, cells)))


def _repeated(case: Case, rng: np.random.Generator) -> pl.DataFrame:
    rows = case.frame[rng.permutation(case.frame.height)]
    return pl.concat([rows, rows[: max(1, rows.height // 10)]])


def crossing(case: Case, rng: np.random.Generator) -> Case:
    """Rows of a group are in train and in the holdout."""
    part = np.where(rng.random(case.frame.height) < 0.3, "holdout", "train")
    return replace(_with(case, part=pl.Series(part.tolist())), split='[split]\nkind = "given"\ncolumn = "part"\n')


def shift(case: Case, rng: np.random.Generator) -> Case:
    """One number is a spread higher in the holdout."""
    held = rng.random(case.frame.height) < 0.3
    values = rng.normal(size=case.frame.height) + held
    given = _with(case, part=pl.Series(np.where(held, "holdout", "train").tolist()), moved=pl.Series(values))
    return replace(given, split='[split]\nkind = "given"\ncolumn = "part"\n')


def other_rate(case: Case, rng: np.random.Generator) -> Case:
    """Of the holdout's positives, four in ten come out otherwise: probabilities are too high."""
    held = rng.random(case.frame.height) < 0.3
    gone = held & _labels(case) & (rng.random(case.frame.height) < 0.4)
    y = pl.Series(np.where(_labels(case) & ~gone, "yes", "no").tolist())
    given = _with(case, part=pl.Series(np.where(held, "holdout", "train").tolist()), y=y)
    return replace(given, split='[split]\nkind = "given"\ncolumn = "part"\n')


def unfair(case: Case, rng: np.random.Generator) -> Case:
    """Half of one group's positives are recorded as negatives in the holdout."""
    held = rng.random(case.frame.height) < 0.5
    gone = held & _labels(case) & (case.frame["sex"] == "f").to_numpy() & (rng.random(case.frame.height) < 0.5)
    y = pl.Series(np.where(_labels(case) & ~gone, "yes", "no").tolist())
    given = _with(case, part=pl.Series(np.where(held, "holdout", "train").tolist()), y=y)
    return replace(given, split='[split]\nkind = "given"\ncolumn = "part"\n')


_LEAK = {"single_feature_leak", "hidden_leak"}
_TWICE = {"duplicate_rows"}
FAULTS: dict[str, tuple[Callable[[Case, np.random.Generator], Case], set[str]]] = {
    "a copy of the label": (copy, _LEAK),
    "a copy with 3% of labels wrong": (noisy_copy, _LEAK),
    "a noisy number, ROC AUC .97": (noisy_number, _LEAK),
    "the difference of two columns": (difference, _LEAK),
    "the ratio of two columns": (ratio, _LEAK),
    "missing values": (missingness, _LEAK),
    "a category of 300 values": (many_values, _LEAK),
    "copies of one row in ten": (copies, _TWICE),
    "copies that differ in one cell": (near_copies, _TWICE),
    "groups on both sides": (crossing, {"group_overlap"}),
    "a number moved by one spread": (shift, {"holdout_shift"}),
    "four in ten positives less": (other_rate, {"miscalibration"}),
    "half of a group's positives less": (unfair, {"fairness_gap"}),
}

if __name__ == "__main__":
    main()
