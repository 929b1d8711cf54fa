"""The run folder: ``result.json`` (documented by ``result.schema.json``), two Parquet tables, the model card."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tabkit.adapt_rankers import Clock
from tabkit.data.align import SourceTable
from tabkit.data.encode import Encoder
from tabkit.data.interactions import as_date
from tabkit.data.split import Split
from tabkit.data.validate import Table
from tabkit.errors import inside
from tabkit.evaluate.comparison import Exploratory, Planned
from tabkit.evaluate.harness import INTERVAL_LEVEL, PARTS, WATTS_PER_CORE, Fidelity, Score, Scorecard
from tabkit.evaluate.lists import ListCard, ListScore
from tabkit.models.base import Predictions
from tabkit.recipe import Plan

FORMAT = 1
DISTRIBUTION = "tabkit-ml"
PACKAGES = (
    "torch",
    "lightgbm",
    "implicit",
    "pytorch-tabnet",
    "scikit-learn",
    "catboost",
    "tabicl",
    "tabpfn",
    "autogluon.tabular",
    "polars",
    "numpy",
)
_BOOTSTRAP = "percentile bootstrap, paired on common resamples"
CPU_HOUR_COST = 0.05
"""Price assumed for a CPU hour where the recipe states none."""


def assemble(
    plan: Plan,
    table: Table,
    n_unlabelled: int,
    sources: tuple[SourceTable, ...],
    split: Split,
    encoder: Encoder,
    scorecard: Scorecard,
    budget: str,
    seed: int,
    seconds: float,
    command: str,
) -> dict[str, Any]:
    """Return the content of ``result.json``."""
    recipe = plan.recipe
    price = recipe.value.cpu_hour_cost if recipe.value else CPU_HOUR_COST
    importance_of, columns = scorecard.importance
    layout = encoder.layout
    champion = scorecard.score(scorecard.verdict.champion).candidate
    document: dict[str, Any] = {
        "format": FORMAT,
        "tabkit": version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.name,
        "vertical": recipe.name.split("/")[0],
        "title": recipe.title,
        "question": recipe.question,
        "row": plan.schema.row,
        "task": recipe.task,
        "target": recipe.target,
        "classes": list(encoder.classes),
        "positive": encoder.classes[-1] if recipe.task == "binary" else None,
        "primary": scorecard.primary,
        "worthwhile": recipe.metrics.worthwhile,
        "metrics": {
            name: {"title": m.title, "greater_is_better": m.greater_is_better, "unit": _unit(m.unit, plan)}
            for name, m in scorecard.metrics.items()
        },
        "rows": {
            "input": table.n_input,
            "rejected": table.n_input - table.n_out_of_scope - table.frame.height,
            "out_of_scope": table.n_out_of_scope,
            "unlabelled": n_unlabelled,
            **split.sizes(),
            "source": sum(source.frame.height for source in sources),
        },
        "sources": [{"name": s.name, "rows": s.frame.height, "lacking": list(s.lacking)} for s in sources],
        "split": {
            "kind": split.kind,
            "holdout": recipe.split.holdout,
            "valid": recipe.split.valid,
            "column": recipe.split.column,
            "folds": split.n_folds,
            "inner": split.inner,
            "seed": seed,
            "text": split.text,
        },
        "features": {
            "columns": list(layout.columns),
            "numeric": len(layout.num_names),
            "categorical": len(layout.cat_names),
            "dropped": encoder.dropped,
            "ignored": list(table.ignored),
            "infinite": encoder.infinite,
        },
        "candidates": [_candidate(score, price) for score in scorecard.scores],
        "chosen": asdict(scorecard.chosen),
        "planned": _planned(scorecard.planned),
        "exploratory": _exploratory(scorecard.exploratory),
        "verdict": {
            "decision": scorecard.verdict.decision,
            "sentence": scorecard.verdict.sentence,
            "reason": scorecard.verdict.reason,
            "rows_needed": scorecard.verdict.rows_needed,
        },
        "champion": scorecard.verdict.champion,
        "curve": {"metric": scorecard.primary, "points": [{"rows": n, "scores": by} for n, by in scorecard.curve]}
        if scorecard.curve
        else None,
        "value": scorecard.value,
        "importance": {
            "candidate": importance_of,
            "metric": scorecard.primary,
            "columns": [{"name": name, "drop": i.value, "low": i.low, "high": i.high} for name, i in columns],
        },
        "slices": scorecard.slices,
        "ablations": scorecard.ablations,
        "checks": [check.model_dump() for check in scorecard.checks],
        "intervals": {
            "method": _BOOTSTRAP
            if split.n_folds == 1
            else f"{_BOOTSTRAP}, {scorecard.widening:.2f} times as wide since folds share training rows (train and valid: "
            "corrected resampled t)",
            "resamples": scorecard.resamples,
            "widening": scorecard.widening,
            "level": 0.95,
            "unit": "row" if split.groups is None else "group",
        },
        "interval_coverage": scorecard.interval_coverage,
        "prediction_interval": None
        if scorecard.half_width is None
        else {"level": INTERVAL_LEVEL, "half_width": scorecard.half_width, "scale": recipe.scale},
        "bundle": {
            "train_on": recipe.bundle.train_on,
            "rows": table.frame.height - n_unlabelled if recipe.bundle.train_on == "all" else len(split.train),
            "members": [m.name for m in champion.members] or [champion.name],
        },
        "holdout_opened": scorecard.opened,
        "seed": seed,
        "budget": budget,
        "seconds_total": seconds,
        "command": command,
        "data_fingerprint": table.fingerprint,
        "versions": {"python": platform.python_version(), "tabkit": version(), **_versions()},
        "machine": {"cpus": os.cpu_count() or 1, "system": f"{platform.system()} {platform.machine()}"},
    }
    document["student"] = _student(scorecard, n_unlabelled, document)
    plain: dict[str, Any] = _plain(document)
    return plain


def _candidate(score: Score, price: float) -> dict[str, Any]:
    candidate = score.candidate
    adapted, cost = candidate.adapted, candidate.cost
    per_million = score.score_cpu_seconds_per_row * 1e6
    return {
        "name": candidate.name,
        "base": candidate.base,
        "how": candidate.how,
        "kind": candidate.kind,
        "title": candidate.title,
        "trained_parameters": adapted.proof.trained_parameters,
        "total_parameters": adapted.proof.total_parameters,
        "proof": adapted.proof.blocks,
        "refused": score.refused,
        "scores": score.scores,
        "overfit_gap": score.overfit_gap,
        "excess_gap": score.excess_gap,
        "selection_optimism": score.selection_optimism,
        "calibration": score.calibration,
        "history": adapted.history,
        "settings": adapted.settings,
        "notes": adapted.notes,
        "weights": candidate.weights,
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_mb": cost.peak_mb,
        "energy_wh": cost.cpu_seconds * WATTS_PER_CORE / 3600,
        "score_cpu_seconds_per_million": per_million,
        "cost_per_million": per_million / 3600 * price,
    }


def _student(scorecard: Scorecard, n_unlabelled: int, document: dict[str, Any]) -> dict[str, Any] | None:
    found = scorecard.fidelity
    if found is None:
        return None
    return {
        "candidate": found.student,
        "teacher": found.teacher,
        "unlabelled": n_unlabelled,
        "agreement": found.agreement,
        "mean_difference": found.mean_difference,
        "r2": found.r2,
        "speedup": found.speedup,
        "gain": found.gain,
        "sentence": _fidelity_sentence(found, document["task"], document["metrics"], document["primary"]),
    }


def _fidelity_sentence(found: Fidelity, task: str, metrics: dict[str, Any], primary: str) -> str:
    """Say how well a student stands in for its teacher."""
    parts = []
    if found.agreement is not None:
        parts.append(f"decides as the champion does for {found.agreement:.1%} of holdout rows")
    if found.r2 is not None:
        parts.append(f"explains {found.r2:.1%} of the variance of the champion's predictions on the holdout")
    if task == "regression":
        unit = metrics.get("rmse", metrics[primary])["unit"]
        parts.append(f"is {found.mean_difference:.3g}{f' {unit}' if unit else ''} off them on average")
    else:
        parts.append(f"gives probabilities that differ from its by {found.mean_difference:.4f} on average")
    if found.speedup is not None:
        parts.append(f"scores {found.speedup:.3g} times as many rows per CPU second")
    if math.isfinite(found.gain.value):
        limits = f" [{found.gain.low:+.4f}, {found.gain.high:+.4f}]" if math.isfinite(found.gain.low) else ""
        parts.append(f"gains {found.gain.value:+.4f}{limits} over it in {inside(metrics[primary]['title'])}")
    return f"The student {', '.join(parts[:-1])} and {parts[-1]}."


def assemble_lists(
    plan: Plan, table: Table, clock: Clock, card: ListCard, budget: str, seed: int, seconds: float, command: str
) -> dict[str, Any]:
    """Return the content of ``result.json`` of a ranking run; rows of the parts are events, those evaluated users."""
    recipe = plan.recipe
    ranking = recipe.ranking
    assert ranking is not None
    days = clock.events.day
    start = clock.cutoff - clock.days
    sizes = {
        "train": int((days < start).sum()),
        "valid": int(((days >= start) & (days < clock.cutoff)).sum()),
        "holdout": int(((days >= clock.cutoff) & (days < clock.cutoff + clock.days)).sum()),
    }
    whom = ""
    if len(clock.cold):
        whom = f" Lists are for {len(clock.cold):,} users with {ranking.cold_weeks} weeks of history."
    elif clock.whom is not None:
        stores = ", ".join(map(str, ranking.home_stores))
        whom = f" Lists are for {len(clock.whom):,} users who went most to the stores {stores} before the bases' end; bases know everyone."
    if ranking.cold_items:
        whom += " Lists are of items first taken in the window, among themselves."
    parent = card.facts["parent"]
    bases = f"Bases end on {as_date(clock.base_end)}."
    if parent is not None:
        bases = (
            f"The base is the champion of a bundle made on {parent['created'][:10]}, {parent['champion']}, whose "
            f"{parent['events']:,} events end on {parent['events_end']}; {parent['new_events']:,} new ones follow, with "
            f"{parent['new_users']:,} new users and {parent['new_items']:,} new items."
        )
    text = (
        f"A global clock: choices on the {clock.days} days from {as_date(start)}, by what was known before; the verdict on those from "
        f"{as_date(clock.cutoff)}, by what was known then. {bases}{whom}"
    )
    verdict = card.verdict
    document: dict[str, Any] = {
        "format": FORMAT,
        "tabkit": version(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": recipe.name,
        "vertical": recipe.name.split("/")[0],
        "title": recipe.title,
        "question": recipe.question,
        "row": plan.schema.row,
        "task": "ranking",
        "target": recipe.target,
        "classes": [],
        "positive": None,
        "primary": card.primary,
        "worthwhile": recipe.metrics.worthwhile,
        "metrics": {
            name: {"title": m.title, "greater_is_better": m.greater_is_better, "unit": m.unit}
            for name, m in card.metrics.items()
        },
        "rows": {
            "input": table.n_input,
            "rejected": table.n_input - table.n_out_of_scope - table.frame.height,
            "out_of_scope": table.n_out_of_scope,
            "unlabelled": 0,
            **sizes,
            "source": int((days < clock.base_end).sum()),
        },
        "split": {
            "kind": "clock",
            "holdout": sizes["holdout"] / max(1, sum(sizes.values())),
            "valid": sizes["valid"] / max(1, sizes["train"] + sizes["valid"]),
            "column": recipe.time,
            "seed": seed,
            "text": text,
        },
        "features": {
            "columns": [c for c, role in plan.roles.items() if role != "target"],
            "numeric": 0,
            "categorical": 0,
            "dropped": {},
            "ignored": list(table.ignored),
            "infinite": 0,
        },
        "candidates": [_list_candidate(score) for score in card.scores],
        "chosen": asdict(card.chosen),
        "planned": _planned(card.planned),
        "exploratory": _exploratory(card.exploratory),
        "verdict": {
            "decision": verdict.decision,
            "sentence": verdict.sentence,
            "reason": verdict.reason,
            "rows_needed": verdict.rows_needed,
        },
        "champion": verdict.champion,
        "curve": None,
        "value": None,
        "importance": None,
        "slices": card.slices,
        "ablations": [],
        "checks": [check.model_dump() for check in card.checks],
        "intervals": {
            "method": _BOOTSTRAP,
            "resamples": card.resamples,
            "level": 0.95,
            "unit": "user",
        },
        "interval_coverage": None,
        "bundle": {
            "train_on": recipe.bundle.train_on,
            "rows": len(clock.events) if recipe.bundle.train_on == "all" else sizes["train"] + sizes["valid"],
            "members": [verdict.champion],
        },
        "student": None,
        "ranking": card.facts,
        "holdout_opened": card.opened,
        "seed": seed,
        "budget": budget,
        "seconds_total": seconds,
        "command": command,
        "data_fingerprint": table.fingerprint,
        "versions": {"python": platform.python_version(), "tabkit": version(), **_versions()},
        "machine": {"cpus": os.cpu_count() or 1, "system": f"{platform.system()} {platform.machine()}"},
    }
    plain: dict[str, Any] = _plain(document)
    return plain


def _list_candidate(score: ListScore) -> dict[str, Any]:
    c = score.contestant
    per_million = score.score_cpu_seconds_per_row * 1e6
    return {
        "name": c.name,
        "base": c.base,
        "how": c.how,
        "kind": c.kind,
        "title": c.title,
        "trained_parameters": c.adapted.proof.trained_parameters,
        "total_parameters": c.adapted.proof.total_parameters,
        "proof": c.adapted.proof.blocks,
        "refused": score.refused,
        "scores": score.scores,
        "overfit_gap": score.overfit_gap,
        "excess_gap": score.excess_gap,
        "selection_optimism": score.selection_optimism,
        "calibration": None,
        "history": c.adapted.history,
        "settings": c.adapted.settings,
        "notes": c.adapted.notes,
        "weights": {},
        "seconds": c.cost.seconds,
        "cpu_seconds": c.cost.cpu_seconds,
        "peak_mb": c.cost.peak_mb,
        "energy_wh": c.cost.cpu_seconds * WATTS_PER_CORE / 3600,
        "score_cpu_seconds_per_million": per_million,
        "cost_per_million": per_million / 3600 * CPU_HOUR_COST,
    }


def _planned(planned: Planned | None) -> dict[str, Any] | None:
    if planned is None:
        return None
    return {
        "candidate": planned.candidate,
        "metric": planned.metric,
        "against": [
            {"name": a.name, "role": a.role, "gain": a.gain.value, "low": a.gain.low, "high": a.gain.high}
            for a in planned.against
        ],
    }


def _exploratory(found: tuple[Exploratory, ...]) -> list[dict[str, Any]]:
    return [
        {
            "candidate": e.candidate,
            "against": e.against,
            "gain": e.gain.value,
            "low": e.gain.low,
            "high": e.gain.high,
            "p": e.p,
            "p_holm": e.p_holm,
        }
        for e in found
    ]


def list_card(result: dict[str, Any]) -> str:
    """Return the model card of a ranker: intended use, data, results, limits."""
    champion = next(c for c in result["candidates"] if c["name"] == result["champion"])
    failed = [c for c in result["checks"] if c["outcome"] == "fail"]
    scores = "\n".join(
        f"| {result['metrics'][m]['title']} | {_range(champion['scores']['valid'][m])} | {_range(s)} |"
        for m, s in champion["scores"]["holdout"].items()
    )
    facts = result["ranking"]
    trained = (
        "The ranker here is that procedure run again on all events, with the settings found."
        if result["bundle"]["train_on"] == "all"
        else "The ranker here is the very one that was measured."
    )
    return f"""# {result["title"]}: {champion["title"]}

{result["verdict"]["sentence"]}

## Intended use
{result["question"] or result["title"]} It lists `{result["target"]}` for users whose history it holds. A user it has never seen gets what is popular
now, marked `cold`. The bundle holds the users' histories: treat it as the personal data it is.

## Data
{result["split"]["text"]} Fingerprint `{result["data_fingerprint"][:16]}`. {facts["users"]:,} users were evaluated, who took {facts["truth_mean"]:.1f} items each
on average, {facts["repeat_share"]:.1%} of them not for the first time; {facts["catalogue"]:,} items are in the catalogue.

## Results
{result["verdict"]["reason"]}

| metric | valid | holdout (95% interval) |
|---|---|---|
{scores}

{trained}

## Limits
{chr(10).join(f"- {c['title']}: {c['message']}" for c in failed) or "- none"}

## How to repeat it
`{result["command"]}` with tabkit {result["tabkit"]}, seed {result["seed"]}, Python {result["versions"]["python"]}.
"""


def scorecard_table(result: dict[str, Any]) -> pl.DataFrame:
    """Return every score in long form: candidate, base, how, kind, part, metric, value, low, high."""
    rows = [
        {
            "candidate": c["name"],
            "base": c["base"],
            "how": c["how"],
            "kind": c["kind"],
            "part": part,
            "metric": metric,
            **score,
        }
        for c in result["candidates"]
        for part in PARTS
        for metric, score in c["scores"].get(part, {}).items()
    ]
    text, number = pl.String(), pl.Float64()
    schema = {n: text for n in ("candidate", "base", "how", "kind", "part", "metric")} | {
        n: number for n in ("value", "low", "high")
    }
    return pl.DataFrame(rows, schema=schema)


def prediction_table(
    plan: Plan, table: Table, split: Split, encoder: Encoder, predictions: dict[str, Predictions]
) -> pl.DataFrame:
    """Return the holdout's predictions: input row, id, target, and a column per candidate (per class if multiclass)."""
    rows = split.holdout
    frame = table.frame[rows]
    columns: list[pl.Series] = [pl.Series("row", table.rows[rows], dtype=pl.Int64)]
    target = frame[plan.recipe.target]
    columns.append(
        (target.cast(pl.Float64) if plan.recipe.task == "regression" else target.cast(pl.String)).alias("target")
    )
    for name, predicted in predictions.items():
        match plan.recipe.task:
            case "binary":
                columns.append(pl.Series(name, predicted[:, 1]))
            case "multiclass":
                columns += [pl.Series(f"{name}:{c}", predicted[:, k]) for k, c in enumerate(encoder.classes)]
            case _:
                columns.append(pl.Series(name, predicted))
    if (id := plan.recipe.id) is not None:
        taken = {column.name for column in columns}  # a key may well be called row
        columns.insert(1, frame[id].alias(f"{id} (id)" if id in taken else id))
    return pl.DataFrame(columns)


def card(result: dict[str, Any], plan: Plan, name: str) -> str:
    """Return a bundled candidate's model card: intended use, data, results, limits, biases (Mitchell et al. 2019)."""
    champion = next(c for c in result["candidates"] if c["name"] == name)
    failed = [c for c in result["checks"] if c["outcome"] == "fail"]
    scores = "\n".join(
        f"| {result['metrics'][m]['title']} | {_range(champion['scores']['train'][m])} | {_range(champion['scores']['valid'][m])} | {_range(s)} |"
        for m, s in champion["scores"]["holdout"].items()
    )
    sensitive = [name for name, field in plan.schema.fields.items() if field.sensitive]
    sliced = "\n".join(
        f"- {s['name']} ({s['rows']:,} rows): {_range(s['scores'][name])}"
        for s in result["slices"]
        if name in s["scores"]
    )
    trained = (
        f"The model here is that procedure run again on all {result['bundle']['rows']:,} labelled rows, with the settings found. "
        "The figures above are those of held-out rows under the same procedure."
        if result["bundle"]["train_on"] == "all"
        else "The model here is the very one that was measured."
    )
    nothing = "- none"
    taught = result["student"]
    told = ""
    if taught and name == taught["candidate"]:
        told = (
            f"\n\nThis is a student: LightGBM that learned the answers of {taught['teacher']}, the champion, not the labels. "
            f"{taught['sentence']}"
        )
    return f"""# {result["title"]}: {champion["title"]}

{result["verdict"]["sentence"]}{told}

## Intended use
{result["question"] or result["title"]} One row is {result["row"] or "a record"}. Recipe `{result["recipe"]}`, task {result["task"]},
target `{result["target"]}`{f" (positive: {result['positive']})" if result["positive"] else ""}. It is meant for rows like those it was trained on, and supports a
decision; it does not replace the person who answers for it.

{_weights_text(champion)}## Data
{result["split"]["text"]} Fingerprint `{result["data_fingerprint"][:16]}`. Features: {", ".join(result["features"]["columns"][:40])}.

## Results
{result["verdict"]["reason"]}

| metric | train | valid | holdout (95% interval) |
|---|---|---|---|
{scores}

{trained}

## Limits
{chr(10).join(f"- {c['title']}: {c['message']}" for c in failed) or nothing}

## Biases
Sensitive fields in the schema: {", ".join(sensitive) or "none marked"}. {result["metrics"][result["primary"]]["title"]} by slice:
{sliced or nothing}

## How to repeat it
`{result["command"]}` with tabkit {result["tabkit"]}, seed {result["seed"]}, Python {result["versions"]["python"]}.
"""


def _weights_text(champion: dict[str, Any]) -> str:
    lines = []
    for base, weights in champion["weights"].items():
        where = "shipped with tabkit" if weights["source"] == "shipped" else f"from {weights['source']}"
        lines.append(f"- `{base}`: weights {where}, sha256 `{weights['sha256']}`, licence: {weights['licence']}\n")
    return "## Base\n" + "".join(lines) + "\n" if lines else ""


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON without NaN, in place of what was there, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(document, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(temporary, path)


def version() -> str:
    """Return tabkit's version."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0.0.0"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _unit(unit: str, plan: Plan) -> str:
    if unit != "target":
        return unit
    field = plan.schema.field(plan.recipe.target)
    return field.unit if field else ""


def _range(score: dict[str, Any]) -> str:
    if score["low"] is None or score["value"] is None:
        return "undefined"
    return f"{score['value']:.4g} [{score['low']:.4g}, {score['high']:.4g}]"


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON types; a number that is not finite becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {k: _plain(getattr(value, k)) for k in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
