"""Run shipped recipes and write their measured tables: python benchmarks/verticals.py --budget quick --write.

Without ``--write``, tables are printed. With it, each goes between the markers of its recipe in the vertical's
README, and rows, verdict and versions into ``measured.json`` beside it, which `tabkit list` shows. ``--runs`` keeps
the run folders there, and takes those that are there already instead of running again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tabkit.shipped import domains, recipe_names


def main() -> None:
    """Run, measure, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="default: all with a marker in their README")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names = options.recipes or [name for name in recipe_names() if marker(name) in readme(name).read_text()]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TABKIT_LEDGER"] = str(Path(folder) / "ledger.jsonl")
        for name in names:
            out = (options.runs or Path(folder)) / name.replace("/", "-")
            words = ["run", name, "--budget", options.budget, "--seed", options.seed, "--out", str(out)]
            if not (out / "result.json").is_file():
                subprocess.run([sys.executable, "-m", "tabkit", *words], check=True, capture_output=True)
            result = json.loads((out / "result.json").read_text())
            text = table(result)
            print(f"\n{name}\n{text}")
            if options.write:
                write(name, result, text)


def table(result: dict[str, Any]) -> str:
    """Return a recipe's table in Markdown: scores by candidate, verdict, what it was measured with."""
    metrics = list(result["metrics"])[:3]
    primary, versions = result["primary"], result["versions"]
    cpu = sum(c["cpu_seconds"] for c in result["candidates"])
    peak = max(c["peak_mb"] for c in result["candidates"])
    digits = 4 if result["task"] == "ranking" else 3  # a list in grocery is better by thousandths
    lifts = result.get("ranking", {}).get("lifts", {})
    titles = [result["metrics"][m]["title"] for m in metrics[1:]]
    if lifts:
        titles += ["lift over the best baseline, last window before", "holdout"]
    head = " | ".join(titles)
    lines = [
        f"`{re.sub(r' --(out|seed) [^ ]+', '', result['command'])}`, seed {result['seed']}: {result['seconds_total']:.0f} s in all on {os.cpu_count()} cores, {cpu:.0f} CPU seconds and {peak:,.0f} MB at most for the candidates; tabkit {result['tabkit']}, "
        f"torch {versions.get('torch', '-')}, LightGBM {versions.get('lightgbm', '-')}, CatBoost {versions.get('catboost', '-')}, "
        f"{result['created'][:10]}. {result['split']['text']} \\* marks the champion.",
        "",
        f"| candidate | {result['metrics'][primary]['title']}, valid | holdout [95% interval] | {head} |",
        "|---|---|---|" + "---|" * len(titles),
    ]
    for c in result["candidates"]:
        if c["refused"]:
            continue
        holdout = c["scores"]["holdout"]
        first = holdout[primary]
        star = " \\*" if c["name"] == result["champion"] else ""
        rest = [number(holdout[m]["value"], digits) for m in metrics[1:]]
        if lifts:
            rest += [percent(lifts[c["name"]][part]) for part in ("train", "holdout")]
        value, low, high = (number(first[key], digits) for key in ("value", "low", "high"))
        chosen_on = number(c["scores"]["valid"][primary]["value"], digits)
        lines.append(f"| {c['title']}{star} | {chosen_on} | {value} [{low}, {high}] | {' | '.join(rest)} |")
    verdict = result["verdict"]
    lines += ["", f"**{verdict['decision']}**: {verdict['sentence']} {verdict['reason']}"]
    distance = next((c for c in result["checks"] if c["code"] == "source_distance"), None)
    if distance is not None and distance["outcome"] != "not_applicable":
        lines += ["", f"Distance of the source: {distance['message']}"]
    return "\n".join(lines)


def number(value: float | None, digits: int = 3) -> str:
    """Return some decimals, or one for large numbers."""
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}"


def percent(lift: float | None) -> str:
    """Return a lift in per cent, with its sign."""
    return "-" if lift is None else f"{lift:+.1%}"


def readme(name: str) -> Path:
    """Return the README of a recipe's vertical."""
    return domains() / name.split("/")[0] / "README.md"


def marker(name: str) -> str:
    """Return the line after which a recipe's table stands."""
    return f"<!-- measured: {name} -->"


def write(name: str, result: dict[str, Any], text: str) -> None:
    """Put the table between its markers, and the verdict into measured.json."""
    path, start = readme(name), marker(name)
    whole = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(start) + r".*?<!-- /measured -->", re.DOTALL)
    if not pattern.search(whole):
        raise SystemExit(f"{path}: no '{start} ... <!-- /measured -->' to write into; add both lines.")
    path.write_text(pattern.sub(lambda _: f"{start}\n{text}\n<!-- /measured -->", whole), encoding="utf-8")
    beside = path.with_name("measured.json")
    known = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    rows = result["rows"]
    known[name] = {
        "rows": rows["input"] - rows["rejected"] - rows["out_of_scope"],
        "source_rows": rows["source"],
        "verdict": result["verdict"]["decision"],
        "champion": result["champion"],
        "metric": result["primary"],
        "score": next(c for c in result["candidates"] if c["name"] == result["champion"])["scores"]["holdout"][
            result["primary"]
        ]["value"],
        "budget": result["budget"],
        "seed": result["seed"],
        "tabkit": result["tabkit"],
        "date": result["created"][:10],
    }
    beside.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
