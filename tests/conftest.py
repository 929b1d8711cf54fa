"""Shared fixtures. Every test has its own ledger, and two workers share the cores without fighting for them."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when OpenMP loads: the tests run two at a time
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")  # folds in the test's own process, unless it asks for more

import pickletools
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tabkit.data.encode import Features, Layout

SCHEMA = """
name = "{name}"
row = "one record"
{fields}
"""


@pytest.fixture(autouse=True)
def own_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv("TABKIT_LEDGER", str(path))
    return path


def make_features(
    task: str,
    n_rows: int = 400,
    n_num: int = 4,
    seed: int = 0,
    signal: float = 1.5,
    n_classes: int = 3,
    with_cat: bool = True,
) -> Features:
    """Rows with a known relation: the score is x0 + [category is 2], plus noise; x1 has missing values."""
    rng = np.random.default_rng(seed)
    x_num = rng.normal(size=(n_rows, n_num)).astype(np.float32)
    x_cat = rng.integers(2, 5, size=(n_rows, 1)) if with_cat else np.zeros((n_rows, 0), dtype=np.int64)
    score = signal * (x_num[:, 0] + ((x_cat[:, 0] == 2) if with_cat else 0.0)) + rng.normal(size=n_rows)
    if n_num > 1:
        x_num[rng.random(n_rows) < 0.1, 1] = np.nan
    if task == "regression":
        y, classes = score.astype(np.float64), ()
    elif task == "binary":
        y, classes = (score > 0.5).astype(np.int64), ("no", "yes")
    else:
        edges = np.quantile(score, np.linspace(0, 1, n_classes + 1)[1:-1])
        y, classes = np.searchsorted(edges, score).astype(np.int64), tuple(f"c{i}" for i in range(n_classes))
    names = tuple(f"x{i}" for i in range(n_num))
    cats = ("kind",) if with_cat else ()
    layout = Layout(task, classes, names, cats, (5,) * len(cats), names, cats)
    return Features(x_num, x_cat.astype(np.int64), y, layout)


def write_recipe(folder: Path, frame: pl.DataFrame, recipe: str, name: str = "case", vertical: str = "test") -> Path:
    """Write a schema that fits ``frame`` and a recipe around ``recipe``'s lines; return the recipe's path."""
    types = {pl.String: "string", pl.Int64: "integer", pl.Float64: "number", pl.Boolean: "boolean", pl.Date: "date"}
    fields = "\n".join(f'[fields.{c}]\ntype = "{types[t.base_type()]}"' for c, t in frame.schema.items())
    schema_file = folder / "data_schemas" / f"{name}.toml"
    recipe_file = folder / "domains" / vertical / f"{name}.toml"
    for path, text in (
        (schema_file, f'name = "{name}"\nrow = "one record"\n{fields}\n'),
        (recipe_file, f'name = "{vertical}/{name}"\ntitle = "A test"\nschema = "{name}"\n{recipe}\n'),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return recipe_file


def holds_pickle(content: bytes) -> bool:
    """Tell whether bytes are a pickle of any protocol, or an archive, in which torch and NumPy keep pickles."""
    if content.startswith((b"\x80", b"PK")):
        return True
    try:
        return bool(list(pickletools.genops(content)))
    except Exception:
        return False  # no stream of pickle operations


def noise_table(n_rows: int, seed: int) -> pl.DataFrame:
    """A table in which nothing predicts the target."""
    rng = np.random.default_rng(seed)
    columns = {f"x{i}": rng.normal(size=n_rows) for i in range(5)}
    return pl.DataFrame(
        {
            **columns,
            "kind": rng.choice(["a", "b", "c"], n_rows).tolist(),
            "y": rng.choice(["no", "yes"], n_rows).tolist(),
        }
    )


def signal_table(n_rows: int, seed: int = 0) -> pl.DataFrame:
    """A table in which x0, x1 and kind predict the target."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, 5))
    kind = rng.choice(["a", "b", "c"], n_rows)
    p = 1 / (1 + np.exp(-(1.5 * x[:, 0] - x[:, 1] + (kind == "a"))))
    y = np.where(rng.random(n_rows) < p, "yes", "no")
    return pl.DataFrame({**{f"x{i}": x[:, i] for i in range(5)}, "kind": kind.tolist(), "y": y.tolist()})


BINARY = (
    'task = "binary"\ntarget = "y"\npositive = "yes"\n[metrics]\nprimary = "roc_auc"\nreport = ["log_loss", "brier"]\n'
)


def hold_public_base(name: str, place: Path, task: str, folder: Path, licence: str) -> None:
    """Hold a public base to the contract: rows for themselves, nothing trained, bit-equal after a reload, no pickle."""
    from tabkit.evaluate.proof import contradiction
    from tabkit.learner import BUDGETS
    from tabkit.models.base import model_class

    base = model_class(name).open_weights(place, task)
    train, valid = make_features(task, 90, seed=1), make_features(task, 40, seed=2)
    adapted = base.adapt(train, valid, "as_is", np.random.default_rng(0), BUDGETS["quick"])
    predicted = adapted.model.predict(valid)
    assert np.isfinite(predicted).all() and predicted.dtype == np.float64
    if task != "regression":
        np.testing.assert_allclose(predicted.sum(axis=1), 1.0, atol=1e-9)
    assert len(np.unique(predicted.round(9))) > 10, "rows get answers of their own"
    assert contradiction(adapted, name) is None and adapted.proof.total_parameters > 0
    for rows in (np.array([5]), np.arange(10, 13), np.arange(len(valid))[::-1]):
        np.testing.assert_array_equal(adapted.model.predict(valid.take(rows)), predicted[rows])
    empty = valid.take(np.array([5]))
    assert np.isfinite(adapted.model.predict(replace(empty, x_num=np.full_like(empty.x_num, np.nan)))).all()
    (folder / "model").mkdir()
    adapted.model.save(folder / "model")
    restored = model_class(name).load(folder / "model")
    np.testing.assert_array_equal(restored.predict(valid), predicted)
    for file in (folder / "model").iterdir():
        assert not holds_pickle(file.read_bytes()), file
    assert base.opened_from is not None and licence in base.opened_from.licence


def hold_context_safe(name: str, place: Path) -> None:
    """Hold a public base to this: a train row's own label changes its own score by nothing, and others' by something."""
    from tabkit.learner import BUDGETS
    from tabkit.models.base import model_class

    base = model_class(name).open_weights(place, "binary")
    train = make_features("binary", 80)

    def on_train(rows: Features) -> np.ndarray:
        fitted = base.adapt(rows, None, "as_is", np.random.default_rng(0), BUDGETS["quick"])
        return fitted.model.predict_train(rows)

    flipped = train.labels.copy()
    flipped[7] = 1 - flipped[7]
    before, after = on_train(train), on_train(train.with_y(flipped))
    np.testing.assert_array_equal(after[7], before[7])
    assert (after != before).any()
