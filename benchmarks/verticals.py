"""Run shipped recipes and write their measured tables: python benchmarks/verticals.py --budget quick --write.

Without ``--write``, tables are printed. With it, each goes between the markers of its recipe in the vertical's
README, and rows, verdict and versions into ``measured.json`` beside it, which `tabkit list` shows. ``--runs`` keeps
the run folders there, and takes those that are there already instead of running again. ``--rows`` runs on so many rows
of the sample, drawn at random, to try this out; nothing is written then.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tabkit.recipe import load_recipe
from tabkit.result import Interval, ListResult, Result, read_result
from tabkit.samples import load_sample
from tabkit.shipped import domains, recipe_names


def main() -> None:
    """Run, measure, print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="default: all with a marker in their README")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--seed", default="0")
    parser.add_argument("--runs", type=Path)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--rows", type=int)
    only.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names = options.recipes or [name for name in recipe_names() if marker(name) in readme(name).read_text()]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            # Recipes of one sample share rows; each table is that of who asks its question first.
            os.environ["TABKIT_LEDGER"] = str(Path(folder) / f"{name.replace('/', '-')}.jsonl")
            out = (options.runs or Path(folder)) / name.replace("/", "-")
            words = ["run", name, "--budget", options.budget, "--seed", options.seed, "--out", str(out)]
            if options.rows:
                words += ["--data", str(draw(name, options.rows, Path(folder)))]
            if not (out / "result.json").is_file():
                subprocess.run([sys.executable, "-m", "tabkit", *words], check=True, stdout=subprocess.DEVNULL)
            result = read_result(out)
            text = table(result)
            print(f"\n{name}\n{text}")
            if options.write:
                write(name, result, text)


def draw(name: str, n_rows: int, folder: Path) -> Path:
    """Write some rows of a recipe's sample, in their order, and return the file."""
    sample = load_recipe(name).recipe.sample
    assert sample is not None, f"{name} has no sample"
    frame, path = load_sample(sample).with_row_index("drawn row"), folder / f"{name.replace('/', '-')}.parquet"
    frame.sample(min(n_rows, frame.height), seed=0).sort("drawn row").drop("drawn row").write_parquet(path)
    return path


def table(result: Result) -> str:
    """Return a recipe's table in Markdown: scores by candidate, verdict, what it was measured with."""
    first, *others = list(result.metrics)[:3]
    assert first == result.primary
    digits = 4 if result.task == "ranking" else 3  # a list in grocery is better by thousandths
    lifts = result.ranking.lifts if isinstance(result, ListResult) else {}
    titles = [result.metrics[m].title for m in others]
    if lifts:
        titles += ["lift over the best baseline, last window before", "holdout"]
    lines = [
        f"{made_with(result)} {result.split.text} \\* marks the champion.",
        "",
        f"| candidate | {result.metrics[first].title}, valid | holdout [95% interval] | {' | '.join(titles)} |",
        "|---|---|---|" + "---|" * len(titles),
    ]
    for c in result.candidates:
        if c.refused:
            continue
        holdout, valid = c.scores["holdout"], c.scores["valid"]
        star = " \\*" if c.name == result.champion else ""
        cells = [number(holdout[m].value, digits) for m in others]
        if lifts:
            cells += [percent(lifts[c.name].train), percent(lifts[c.name].holdout)]
        lines.append(
            f"| {c.title}{star} | {number(valid[first].value, digits)} | {with_ends(holdout[first], digits)} | {' | '.join(cells)} |"
        )
    lines += ["", f"**{result.verdict.decision}**: {result.verdict.sentence} {result.verdict.reason}"]
    distance = next((c for c in result.checks if c.code == "source_distance"), None)
    if distance is not None and distance.outcome != "not_applicable":
        lines += ["", f"Distance of the source: {distance.message}"]
    return "\n".join(lines)


def made_with(result: Result) -> str:
    """Return command, seconds, memory and versions in one sentence."""
    cpu = sum(c.cpu_seconds for c in result.candidates)
    peak = max(c.peak_mb or 0.0 for c in result.candidates)
    torch, lightgbm, catboost = (result.versions.get(name, "-") for name in ("torch", "lightgbm", "catboost"))
    return (
        f"`{re.sub(r' --(out|seed) [^ ]+', '', result.command)}`, seed {result.seed}: {result.seconds_total:.0f} s in all on "
        f"{os.cpu_count()} cores, {cpu:.0f} CPU seconds and {peak:,.0f} MB at most for the candidates; tabkit {result.tabkit}, "
        f"torch {torch}, LightGBM {lightgbm}, CatBoost {catboost}, {result.created[:10]}."
    )


def number(value: float, digits: int = 3) -> str:
    """Return some decimals, or one for large numbers."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 10 else f"{value:.1f}"


def with_ends(score: Interval, digits: int) -> str:
    """Return a score and its interval."""
    value, low, high = (number(part, digits) for part in (score.value, score.low, score.high))
    return f"{value} [{low}, {high}]"


def percent(lift: float) -> str:
    """Return a lift in per cent, with its sign."""
    return f"{lift:+.1%}" if math.isfinite(lift) else "-"


def readme(name: str) -> Path:
    """Return the README of a recipe's vertical."""
    return domains() / name.split("/")[0] / "README.md"


def marker(name: str) -> str:
    """Return the line after which a recipe's table stands."""
    return f"<!-- measured: {name} -->"


def write(name: str, result: Result, text: str) -> None:
    """Put the table between its markers, and the verdict into measured.json."""
    path, start = readme(name), marker(name)
    whole = path.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(start) + r".*?<!-- /measured -->", re.DOTALL)
    if not pattern.search(whole):
        raise SystemExit(f"{path}: no '{start} ... <!-- /measured -->' to write into; add both lines.")
    path.write_text(pattern.sub(lambda _: f"{start}\n{text}\n<!-- /measured -->", whole), encoding="utf-8")
    beside = path.with_name("measured.json")
    known = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    rows, score = result.rows, result.candidate(result.champion).score(result.primary)
    assert score is not None
    known[name] = {
        "rows": rows.input - rows.rejected - rows.out_of_scope,
        "source_rows": rows.source,
        "verdict": result.verdict.decision,
        "champion": result.champion,
        "metric": result.primary,
        "score": score.value,
        "budget": result.budget,
        "seed": result.seed,
        "tabkit": result.tabkit,
        "date": result.created[:10],
    }
    beside.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
