"""``report.html``: what the template shows, made ready in the order in which it shows it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from tabkit.report import charts, diagnose, numbers, rows
from tabkit.report.read import REPORT, read_predictions, read_result
from tabkit.report.svg import Figure
from tabkit.report.words import DECISIONS, Words

_HERE = Path(__file__).parent
_KINDS = {"adapted": "Adapted", "base": "Bases, untouched", "baseline": "Baselines", "student": "Student"}
_PARTS = ("train", "valid", "holdout")
_MOST_CURVES = 12


def write_report(run_folder: Path) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all, from the files there and nothing else.

    Raises
    ------
    UsageError
        The folder is no run folder, or a file in it is broken.
    """
    run_folder = Path(run_folder)
    result = read_result(run_folder)
    html = render(result, read_predictions(run_folder))
    path = run_folder / REPORT
    temporary = run_folder / f".{REPORT}.tmp"
    try:
        temporary.write_text(html, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def render(result: dict[str, Any], predictions: pl.DataFrame | None) -> str:
    """Return the page.

    Parameters
    ----------
    result
        The content of ``result.json``.
    predictions
        The holdout's predictions; without them the page has no curves.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,  # everything comes from data: column names, class names, messages
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(numbers, name) for name in ("number", "signed", "fixed", "share", "whole", "duration", "interval")
    }
    words = Words(result, predictions)
    return environment.get_template("report.html.j2").render(
        r=result,
        words=words,
        decision=DECISIONS.get(result["verdict"]["decision"], result["verdict"]["decision"]),
        champion=words.by_name[result["champion"]],
        facts=_facts(words),
        groups=_candidate_groups(words),
        metrics=_metric_table(words),
        checks={o: [c for c in result["checks"] if c["outcome"] == o] for o in ("fail", "pass", "not_applicable")},
        figures=_figures(words),
        confusion=_confusion(words),
        value=_value(words),
        lists=_lists(words) if result["task"] == "ranking" else None,
        units="users" if result["task"] == "ranking" else "rows",
        parameters=numbers.parameters,
        money=numbers.money,
    )


def _facts(words: Words) -> list[tuple[str, str, str]]:
    """Return the figures beside the verdict: name, number, explanation."""
    r = words.r
    champion = words.by_name[r["champion"]]
    score = words.score(r["champion"])
    decimals = numbers.decimals_for([score])
    unit = f" {words.metric['unit']}" if words.metric["unit"] else ""
    rows_used, folds = r["rows"], r["split"].get("folds", 1)
    made = [c for c in r["checks"] if c["outcome"] != "not_applicable"]
    failed = sum(c["outcome"] == "fail" for c in made)
    facts = [
        (
            "Champion",
            champion["title"],
            _KINDS[champion["kind"]].lower().removesuffix("s").replace("bases, ", "base, "),
        ),
        (
            f"{words.metric['title']} on holdout",
            numbers.fixed(score["value"], decimals) + unit if score else numbers.MISSING,
            f"95% interval {numbers.limits(score, decimals)}".replace(", ", ",\u00a0") if score else "",
        ),
        ("Overfit gap", numbers.signed(champion["overfit_gap"], 2), "train minus holdout; near 0 is good"),
        (
            "Holdout",
            f"{rows_used['holdout']:,} rows",
            f"each in one of {folds} folds"
            if folds > 1
            else f"of {rows_used['train'] + rows_used['valid'] + rows_used['holdout']:,}, read once",
        ),
        (
            "Checks",
            f"{len(made) - failed} of {len(made)}" if made else "none",
            f"passed; {failed} failed" if failed else "passed" if made else "made",
        ),
    ]
    if r["task"] == "ranking":
        lists = r["ranking"]
        facts[3] = (
            "Holdout",
            f"{lists['users']:,} users",
            f"in the {lists['days']} days from {lists['cutoff']}, read once",
        )
    if r["value"] and r["value"].get("net_gain_per_year") is not None:
        v = r["value"]
        shown = "worth it" if v["worth_it"] else "not shown to be worth it"
        facts[3] = (
            "Adapting, a year",
            numbers.money(v["net_gain_per_year"], v["unit"], sign=True),
            f"net, best estimate; {shown}",
        )
    return facts


def _candidate_groups(words: Words) -> list[dict[str, Any]]:
    """Return the candidates' table by kind, its cells as text."""
    decimals = numbers.decimals_for(words.score(c["name"], part) for c in words.scored for part in _PARTS)
    chosen = {name: role for role, name in words.r["chosen"].items() if name}
    groups = []
    for kind, title in _KINDS.items():
        members = []
        for c in (c for c in words.r["candidates"] if c["kind"] == kind):
            cells = []
            for part in _PARTS:
                s = words.score(c["name"], part)
                cells.append(
                    (numbers.fixed(s["value"], decimals) if s else numbers.MISSING, numbers.limits(s, decimals))
                )
            tags = ["champion"] if c["name"] == words.r["champion"] else []
            tags += [f"chosen {chosen[c['name']]}"] if c["name"] in chosen else []
            gaps = [
                numbers.fixed(c[k], decimals, sign=True) for k in ("overfit_gap", "excess_gap", "selection_optimism")
            ]
            members.append({"c": c, "cells": cells, "gaps": gaps, "tags": tags, "champion": "champion" in tags})
        if members:
            groups.append({"title": title, "members": members})
    return groups


def _metric_table(words: Words) -> dict[str, Any]:
    """Return every metric on the holdout, candidates in rows, the best of each column marked."""
    order = [c for kind in _KINDS for c in words.scored if c["kind"] == kind]
    columns, body = [], [{"c": c, "cells": []} for c in order]
    for name, metric in words.r["metrics"].items():
        sign = 1 if metric["greater_is_better"] else -1
        scores = [words.score(c["name"], "holdout", name) for c in order]
        decimals = numbers.decimals_for(scores)
        best = max((sign * s["value"] for s in scores if s), default=None)
        columns.append({"title": metric["title"], "unit": metric["unit"], "up": metric["greater_is_better"]})
        for row, s in zip(body, scores, strict=True):
            cell = {
                "value": numbers.fixed(s["value"], decimals) if s else numbers.MISSING,
                "best": s is not None and sign * s["value"] == best,
            }
            row["cells"].append(cell | {"limits": numbers.limits(s, decimals)})
    return {"columns": columns, "rows": body}


def _figures(words: Words) -> dict[str, list[Figure]]:
    """Return the figures of each section; a section without any has an empty list."""
    r, titles, metric = words.r, words.titles, words.metric
    styles = diagnose.shown(r)
    out: dict[str, list[Figure]] = {"gain": [], "gaps": [], "look": [], "importance": []}
    if r["planned"] and r["planned"]["against"]:
        out["gain"].append(rows.gains("gain", r["planned"], titles, metric, r["worthwhile"]))
    if words.scored:
        order = [c for kind in _KINDS for c in words.scored if c["kind"] == kind]
        out["gaps"].append(rows.gaps("gaps", order, words.primary, metric, r["champion"]))
    curves = [c for kind in _KINDS for c in words.scored if c["kind"] == kind and len(c["history"]) > 1]
    out["learning"] = [charts.learning(f"learning{i}", c) for i, c in enumerate(curves[:_MOST_CURVES])]
    if r["curve"] and r["curve"]["points"]:
        out["learning"].append(
            charts.by_rows("by-rows", r["curve"], titles, styles, r["metrics"].get(r["curve"]["metric"], metric))
        )
    if words.frame is not None:
        out["look"] = _look(words, words.frame, styles)
    if r["task"] == "binary" and (
        reliable := charts.reliability("reliability", r["candidates"], styles, r["champion"], r["positive"])
    ):
        out["look"].append(reliable)
    if r["importance"] and r["importance"]["columns"]:
        out["importance"].append(rows.importance("importance", r["importance"]["columns"], metric))
    return out


def _look(words: Words, frame: pl.DataFrame, styles: dict[str, str]) -> list[Figure]:
    champion, positive = words.r["champion"], words.r["positive"]
    if words.r["task"] == "binary":
        found = [
            make(key, frame, styles, words.titles, positive)
            for key, make in (("roc", charts.roc), ("pr", charts.precision_recall))
        ]
        return [f for f in found if f is not None]
    if words.r["task"] == "regression" and champion in frame.columns and frame.height:
        unit = words.r["metrics"].get("rmse", {"unit": ""})["unit"]
        return [
            charts.predicted_observed("observed", frame, champion, words.title(champion), unit),
            charts.residuals_predicted(
                "spread", frame, champion, words.title(champion), unit, words.r.get("prediction_interval")
            ),
            charts.residuals("residuals", frame, champion, words.title(champion), unit),
        ]
    return []


def _lists(words: Words) -> dict[str, Any]:
    """Return what there is to say of lists: lift where fitted and on the holdout, their character, every cutoff."""
    about = words.r["ranking"]
    order = [c for kind in _KINDS for c in words.scored if c["kind"] == kind]
    body = []
    for c in order:
        lift, looks = about["lifts"][c["name"]], about["lists"][c["name"]]
        cells = [numbers.share(lift[part], sign=True) for part in ("train", "holdout")]
        cells += [numbers.share(looks["coverage"]), numbers.number(looks["novelty"]), numbers.share(looks["diversity"])]
        body.append({"c": c, "cells": cells})
    cutoffs = []
    if about["cutoffs"] and words.r["planned"]:
        now = {"cutoff": about["cutoff"], "users": about["users"], "gains": words.r["planned"]["against"]}
        for each in (*reversed(about["cutoffs"]), now):
            gains = {g["name"]: numbers.interval(g, key="gain", sign=True) for g in each["gains"]}
            cutoffs.append((each["cutoff"], f"{each['users']:,}", gains))
    worth = []
    if (value := about["value"]) is not None:
        adapted, baseline = (words.title(words.r["chosen"][role]) for role in ("adapted", "baseline"))
        worth = [
            (f"Items listed and taken, {adapted} beyond {baseline}", numbers.interval(value["extra_items"], sign=True)),
            (
                f"Margin on them, at {numbers.share(value['margin'])} of the price",
                _amount(value["extra_margin"], value["currency"], True),
            ),
        ]
    return {"rows": body, "cutoffs": cutoffs, "worth": worth}


def _confusion(words: Words) -> dict[str, Any] | None:
    """Return the champion's confusion matrix with recall, precision and AUC per class; None for other tasks."""
    if words.r["task"] != "multiclass" or words.frame is None:
        return None
    matrix = diagnose.confusion(words.frame, words.r["champion"], words.r["classes"])
    if matrix is None:
        return None
    body = []
    for i, (name, recall, precision, auc) in enumerate(
        zip(matrix.classes, matrix.recall(), matrix.precision(), matrix.auc, strict=True)
    ):
        total = int(matrix.counts[i].sum())
        cells = [
            {"n": f"{n:,}", "part": round(100 * n / total) if total else 0, "right": i == j}
            for j, n in enumerate(matrix.counts[i].tolist())
        ]
        body.append(
            {
                "name": name,
                "cells": cells,
                "rows": f"{total:,}",
                "recall": numbers.share(recall),
                "precision": numbers.share(precision),
                "auc": numbers.fixed(auc, 3),
            }
        )
    return {"classes": matrix.classes, "rows": body, "wide": len(body) > 12}


def _value(words: Words) -> dict[str, Any] | None:
    """Return the money block as text; None where the recipe has none."""
    v = words.r["value"]
    if v is None:
        return None
    decided = f"{v['decisions_per_year']:,} decisions" if v.get("decisions_per_year") else "a year's decisions"
    terms = [
        (
            f"Gain of {words.title(v['gain']['candidate'])} over {words.title(v['gain']['against'])}, per {v['per']:,}",
            _amount(v["gain"], v["unit"], True),
        ),
        ("Computing to adapt, once", numbers.money(v["adapt_cost"], v["unit"])),
        ("Computing to score 1,000 records", numbers.money(v["score_cost_per_1000"], v["unit"])),
        (f"Net gain a year, {decided}", numbers.money(v["net_gain_per_year"], v["unit"], sign=True)),
        ("Worth it, even at the low end", "yes" if v["worth_it"] else "not shown"),
    ]
    body = [
        (
            words.title(c["name"]),
            _amount(c, v["unit"], False),
            numbers.share(c["acted_share"]),
            numbers.number(c.get("threshold", v["threshold"])),
        )
        for c in v["candidates"]
    ]
    return {"terms": terms, "rows": body, "acted": any(c["acted_share"] is not None for c in v["candidates"])}


def _amount(score: dict[str, Any], unit: str, sign: bool) -> str:
    show = numbers.money
    if score["low"] is None or score["high"] is None:
        return show(score["value"], unit, sign)
    return f"{show(score['value'], unit, sign)} [{show(score['low'], '', sign)}, {show(score['high'], '', sign)}]"
