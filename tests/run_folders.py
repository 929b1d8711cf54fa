"""Realistic contents of run folders, made without running anything: what the tests of the report read."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from pydantic import TypeAdapter

from tabkit.result import Result

NASTY = "<script>alert('x')</script> & \"quoted\" {{ 7*7 }} https://example.org/x.js"
CANDIDATES = (
    ("prior", "prior", "scratch", "baseline", "Prior"),
    ("linear", "linear", "scratch", "baseline", "Linear"),
    ("lgbm_tuned", "lgbm", "tuned", "baseline", "LightGBM (tuned)"),
    ("tabnet_as_is", "tabnet", "as_is", "base", "TabNet (untouched base)"),
    ("tabnet_head", "tabnet", "head", "adapted", "TabNet (new head)"),
    ("tabnet_gradual", "tabnet", "gradual", "adapted", "TabNet, unfrozen step by step"),
    ("tabnet_full", "tabnet", "full", "adapted", "TabNet (all layers)"),
)
METRICS: dict[str, dict[str, dict[str, Any]]] = {
    "binary": {
        "roc_auc": {"title": "ROC AUC", "greater_is_better": True, "unit": ""},
        "brier": {"title": "Brier score", "greater_is_better": False, "unit": ""},
        "log_loss": {"title": "Log loss", "greater_is_better": False, "unit": "nats"},
    },
    "multiclass": {
        "log_loss": {"title": "Log loss", "greater_is_better": False, "unit": "nats"},
        "accuracy": {"title": "Accuracy", "greater_is_better": True, "unit": ""},
    },
    "regression": {
        "rmse": {"title": "Root mean squared error", "greater_is_better": False, "unit": "g/kg"},
        "r2": {"title": "R squared", "greater_is_better": True, "unit": ""},
    },
}
CLASSES = {"binary": ["good", "bad"], "multiclass": ["oak", "ash", "elm", "fir"], "regression": []}
TASKS = tuple(METRICS)


def typed(content: dict[str, Any]) -> Result:
    """Return the content of a ``result.json`` as ``read_result`` reads it."""
    result: Result = TypeAdapter(Result).validate_python(content)
    return result


def interval_of(value: float, half: float) -> dict[str, float]:
    """Return a value with an interval of that half-width."""
    return {"value": value, "low": value - half, "high": value + half}


def _history(how: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    if how in ("as_is", "scratch"):
        return []
    steps = 40 if how != "tuned" else 300
    valid = (
        0.3 + 0.1 * np.exp(-np.arange(steps + 1) / 10) + 0.0003 * np.arange(steps + 1) + rng.normal(0, 0.002, steps + 1)
    )

    def stage(i: int) -> str:
        return (
            ""
            if how == "tuned"
            else "untouched base"
            if i == 0
            else "head"
            if i < 15
            else "head, last block"
            if i < 28
            else "all"
        )

    return [
        {
            "step": i,
            "train_loss": None if i == 0 else float(0.4 - 0.004 * min(i, 80)),
            "valid_loss": float(valid[i]),
            "stage": stage(i),
        }
        for i in range(how == "tuned", steps + 1)
    ]


def _proof(base: str, how: str) -> list[dict[str, Any]]:
    if base != "tabnet":
        return [{"name": "trees" if base == "lgbm" else base, "total": 512, "trained": 512, "change": 3.2}]
    moved = {
        "as_is": [],
        "head": ["head"],
        "gradual": ["head", "step2"],
        "full": ["encoder", "step1", "step2", "head"],
    }[how]
    sizes = {"encoder": 900, "step1": 2400, "step2": 2400, "head": 34}
    return [
        {"name": n, "total": size, "trained": size if n in moved else 0, "change": 0.31 if n in moved else 0.0}
        for n, size in sizes.items()
    ]


def make_result(task: str, *, full: bool = True) -> dict[str, Any]:
    """Make a realistic ``result.json``; not ``full`` is the least that a run may write."""
    rng = np.random.default_rng(0)
    names = METRICS[task] if full else dict(list(METRICS[task].items())[:1])
    candidates = []
    for i, (name, base, how, kind, title) in enumerate(CANDIDATES):
        if not full and kind != "baseline":
            continue
        refused = (
            "tabnet was asked for 'head', but blocks below the head moved: ['step2']" if name == "tabnet_head" else None
        )
        proof = _proof(base, how)
        scores = {
            part: {
                m: interval_of(
                    (0.6 if d["greater_is_better"] else 0.9)
                    + (1 if d["greater_is_better"] else -1) * (0.02 * i + shift),
                    0.021,
                )
                for m, d in names.items()
            }
            for part, shift in (("train", 0.08), ("valid", 0.02), ("holdout", 0.0))
        }
        bins = [
            {"predicted": p, "observed": p * 0.9, "low": p * 0.7, "high": min(1.0, p * 1.3), "rows": 60}
            for p in np.linspace(0.02, 0.5, 10).tolist()
        ]
        candidates.append(
            {
                "name": name,
                "base": base,
                "how": how,
                "kind": kind,
                "title": title,
                "trained_parameters": sum(b["trained"] for b in proof),
                "total_parameters": sum(b["total"] for b in proof),
                "proof": proof,
                "refused": refused,
                "scores": {} if refused else scores,
                "overfit_gap": None if refused else 0.08,
                "excess_gap": None if refused else 0.0,
                "selection_optimism": None if refused else 0.02,
                "calibration": {"bins": bins, "ece": 0.0123, "slope": 0.93, "intercept": None}
                if task == "binary" and not refused and full
                else None,
                "history": _history(how, rng),
                "settings": {"learning_rate": 0.02, "layers": [1, 2]} if how == "tuned" else {},
                "notes": ["20 trials"] if how == "tuned" else [],
                "weights": {},
                "seconds": 0.00048 if name == "prior" else 12.3,
                "cpu_seconds": 20.1,
                "peak_mb": 611.7,
                "energy_wh": 0.00002,
                "score_cpu_seconds_per_million": 12.0,
                "cost_per_million": 0.000167,
            }
        )
    primary = next(iter(names))
    adapted = full
    result: dict[str, Any] = {
        "format": 1,
        "tabkit": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "recipe": "finance/example",
        "vertical": "finance",
        "title": "Loans: an example" if full else "",
        "question": "Which loans will go bad?" if full else "",
        "row": "one loan" if full else "",
        "task": task,
        "target": "outcome",
        "classes": CLASSES[task],
        "positive": "bad" if task == "binary" else None,
        "primary": primary,
        "worthwhile": 0.005 if full else 0.0,
        "metrics": names,
        "rows": {
            "input": 2400,
            "rejected": 3,
            "out_of_scope": 0,
            "unlabelled": 1,
            "train": 1437,
            "valid": 359,
            "holdout": 600,
            "source": 7047,
        },
        "split": {
            "kind": "stratified",
            "holdout": 0.25,
            "valid": 0.2,
            "column": None,
            "seed": 0,
            "text": "Rows were split at random.",
        },
        "features": {
            "columns": ["int_rate", NASTY],
            "numeric": 1,
            "categorical": 1,
            "dropped": {"blank": "constant (3)"},
            "ignored": [],
            "infinite": 2,
        },
        "candidates": candidates,
        "chosen": {
            "adapted": "tabnet_gradual" if adapted else None,
            "base": "tabnet_as_is" if adapted else None,
            "baseline": "lgbm_tuned",
        },
        "planned": None,
        "exploratory": [],
        "verdict": {
            "decision": "use_baseline",
            "sentence": "Nothing was adapted: use LightGBM (tuned).",
            "reason": "No strategy.",
            "rows_needed": None,
        },
        "champion": "lgbm_tuned",
        "curve": None,
        "value": None,
        "importance": None,
        "slices": [],
        "ablations": [],
        "checks": [],
        "intervals": {"method": "percentile bootstrap", "resamples": 1000, "level": 0.95, "unit": "row"},
        "interval_coverage": 0.912 if task == "regression" else None,
        "prediction_interval": {"level": 0.9, "half_width": 9.5, "scale": None} if task == "regression" else None,
        "sources": [{"name": "36 months", "rows": 7047, "lacking": ["purpose"]}],
        "bundle": {"train_on": "all", "rows": 2396, "members": ["lgbm_tuned"]},
        "student": None,
        "holdout_opened": 1 if full else None,
        "seed": 0,
        "budget": "quick",
        "seconds_total": 63.0,
        "command": "tabkit run finance/example --seed 0",
        "data_fingerprint": "ab" * 32,
        "versions": {"python": "3.11.7", "tabkit": "0.1.0"},
        "machine": {"cpus": 2, "system": "Linux x86_64"},
    }
    return result | (_extras(primary) if full else {})


def _extras(primary: str) -> dict[str, Any]:
    gains = [
        {"name": "tabnet_as_is", "role": "its own base, untouched", "gain": 0.0412, "low": 0.012, "high": 0.071},
        {"name": "lgbm_tuned", "role": "the best baseline on valid", "gain": 0.00004, "low": -0.021, "high": 0.022},
    ]
    worth = {"value": 412345.6, "low": 380000.0, "high": 440000.0}
    slices = [
        {
            "name": NASTY,
            "rows": 120,
            "too_few": False,
            "scores": {n: interval_of(0.61, 0.05) for n in ("lgbm_tuned", "tabnet_gradual")},
        },
        {"name": "tiny", "rows": 4, "too_few": True, "scores": {}},
    ]
    outcomes = ("fail", "fail", "pass", "pass", "not_applicable")
    return {
        "planned": {"candidate": "tabnet_gradual", "metric": primary, "against": gains},
        "exploratory": [
            {
                "candidate": "linear",
                "against": "lgbm_tuned",
                "gain": -0.02,
                "low": -0.04,
                "high": -0.001,
                "p": 0.0004,
                "p_holm": 0.0012,
            }
        ],
        "verdict": {
            "decision": "not_enough_evidence",
            "sentence": f"Not enough evidence: {NASTY}.",
            "reason": "Gain +0.00004.",
            "rows_needed": 12000,
        },
        "curve": {
            "metric": primary,
            "points": [
                {"rows": n, "scores": {"tabnet_gradual": 0.6 + n / 1e4, "lgbm_tuned": 0.65}} for n in (359, 718, 1437)
            ],
        },
        "importance": {
            "candidate": "lgbm_tuned",
            "metric": primary,
            "columns": [
                {"name": n, "drop": d, "low": d - 0.01, "high": d + 0.01}
                for n, d in ((NASTY, 0.08), *((f"column_{i}", 0.02 - i / 1000) for i in range(30)))
            ],
        },
        "value": {
            "unit": "USD",
            "per": 1000,
            "action": "approve the loan",
            "threshold": 0.18,
            "assumptions": "A bad loan loses 60%.",
            "candidates": [
                {"name": "lgbm_tuned", **worth, "acted_share": 0.83, "threshold": 0.17},
                {"name": "prior", **worth, "acted_share": None},
            ],
            "gain": {
                "candidate": "tabnet_gradual",
                "against": "lgbm_tuned",
                "value": 31.4,
                "low": -800.0,
                "high": 900.0,
            },
            "adapt_cost": 0.000018,
            "score_cost_per_1000": 5.5e-8,
            "decisions_per_year": 20000,
            "net_gain_per_year": 628.0,
            "worth_it": False,
            "sentence": "It changes the result by +31 USD per 1,000 decisions.",
        },
        "slices": slices,
        "ablations": [
            {
                "name": "without the lender's own grade",
                "drop": ["int_rate"],
                "candidate": "lgbm_tuned",
                "score": interval_of(0.6, 0.02),
                "gain": interval_of(-0.04, 0.01),
            }
        ],
        "checks": [
            {
                "code": f"check_{i}",
                "title": f"Check {i}",
                "severity": ("error", "warning", "info")[i % 3],
                "outcome": o,
                "message": f"Number {i}: {NASTY}",
            }
            for i, o in enumerate(outcomes)
        ],
    }


def make_lists() -> dict[str, Any]:
    """Make a realistic ``result.json`` of lists, from that of a table."""
    table = make_result("binary")
    only_tables = ("curve", "importance", "ablations", "interval_coverage", "prediction_interval", "student")
    names = [c["name"] for c in table["candidates"]]
    gains = [{k: v for k, v in a.items() if k != "role"} for a in table["planned"]["against"]]
    facts = {
        "cutoff": "2017-12-04",
        "days": 28,
        "users": 1994,
        "truth_mean": 49.8,
        "repeat_share": 0.42,
        "catalogue": 65153,
        "lifts": {n: {"train": 0.01 * i, "holdout": -0.01 * i} for i, n in enumerate(names)},
        "lists": {n: {"coverage": 0.1, "novelty": 9.5, "diversity": None} for n in names},
        "cutoffs": [{"cutoff": "2017-11-06", "users": 1900, "gains": gains}],
        "value": {
            "currency": "USD",
            "margin": 0.25,
            "extra_items": interval_of(0.2, 0.05),
            "extra_margin": interval_of(0.11, 0.03),
        },
    }
    rest = {key: value for key, value in table.items() if key not in only_tables}
    return rest | {"task": "ranking", "classes": [], "positive": None, "value": None, "ranking": facts}


def make_predictions(result: dict[str, Any]) -> pl.DataFrame:
    """Make the ``holdout_predictions.parquet`` of such a result."""
    rng = np.random.default_rng(1)
    n, classes, task = result["rows"]["holdout"], result["classes"], result["task"]
    names = [c["name"] for c in result["candidates"] if not c["refused"]]
    columns: dict[str, Any] = {"row": np.arange(n)}
    if task == "regression":
        y = rng.gamma(3, 8, n)
        return pl.DataFrame(columns | {"target": y} | {c: y + rng.normal(0, 4 + i, n) for i, c in enumerate(names)})
    code = rng.integers(0, len(classes), n) if task == "multiclass" else (rng.random(n) < 0.15).astype(int)
    columns["target"] = [classes[k] for k in code]
    for c in names:
        logits = rng.normal(0, 1, (n, len(classes))) + 1.5 * np.eye(len(classes))[code]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        columns |= {c: p[:, 1]} if task == "binary" else {f"{c}:{k}": p[:, j] for j, k in enumerate(classes)}
    return pl.DataFrame(columns)
