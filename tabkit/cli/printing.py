"""What the verbs print: tables for a person, JSON for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tabkit.errors import count
from tabkit.recipe import Plan, Ranking

Watch = Callable[[str, float, str], None]


def _console() -> Console:
    # A pipe or a file has no width: wide enough for every table, so that no line is folded.
    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, indent=1, default=_jsonable) + "\n")


def _jsonable(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    return str(value)


@contextmanager
def progress(quiet: bool) -> Iterator[Watch]:
    """Show a bar per stage on a terminal; stay silent elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda stage, fraction, note: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def watch(stage: str, fraction: float, note: str) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=1.0, note=note)
            bars.update(tasks[stage], completed=fraction, note=note)

        yield watch


def listing(what: str, as_json: bool) -> None:
    """List recipes, models, metrics or checks."""
    rows = {"recipes": _recipes, "models": _models, "metrics": _metrics, "checks": _checks}[what]()
    if as_json:
        _print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    _console().print(table)


def _recipes() -> list[dict[str, str]]:
    from tabkit.recipe import load_recipe
    from tabkit.shipped import measured, recipe_names

    plans, known = [load_recipe(name) for name in recipe_names()], measured()
    return [
        {
            "recipe": p.recipe.name,
            "task": p.recipe.task,
            "rows": f"{known[p.recipe.name]['rows']:,}" if p.recipe.name in known else "-",
            "source": ", ".join(s.title for s in p.recipe.sources) or "-",
            "last verdict": known.get(p.recipe.name, {}).get("verdict", "-"),
            "question": p.recipe.question,
            "sample": p.recipe.sample or "-",
        }
        for p in plans
    ]


def _models() -> list[dict[str, str]]:
    from tabkit.models.base import model_class, model_names

    out = []
    for name in model_names():
        model = model_class(name)
        ways = ", ".join(f"{how} ({kind})" for how, kind in model.hows.items())
        out.append({"model": name, "title": model.title, "how (kind)": ways, "missing": model.lacks() or "-"})
    from tabkit.rankers.base import ranker_class, ranker_names

    for name in ranker_names():
        ranker = ranker_class(name)
        ways = ", ".join(f"{how} ({kind})" for how, kind in ranker.hows.items())
        out.append({"model": name, "title": f"{ranker.title} (ranking)", "how (kind)": ways, "missing": "-"})
    return out


def _metrics() -> list[dict[str, str]]:
    from tabkit.evaluate.metrics import METRICS

    return [
        {
            "metric": n,
            "title": m.title,
            "better": "higher" if m.greater_is_better else "lower",
            "tasks": ", ".join(sorted(m.tasks)),
        }
        for n, m in METRICS.items()
    ]


def _checks() -> list[dict[str, str]]:
    from tabkit.evaluate.checks import ListCheck, all_checks

    lists_last = sorted(all_checks(), key=lambda check: issubclass(check, ListCheck))
    return [
        {
            "check": c.code,
            "severity": c.severity,
            "title": f"{c.title} (ranking)" if issubclass(c, ListCheck) else c.title,
            "question": c.question,
        }
        for c in lists_last
    ]


def recipe(plan: Plan, as_json: bool, frictionless: bool) -> None:
    """Show a recipe and its schema."""
    if frictionless:
        _print_json(plan.schema.to_frictionless())
        return
    if as_json:
        dumped = plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        _print_json({"recipe": dumped, "schema": plan.schema.model_dump(mode="json", exclude_defaults=True)})
        return
    from tabkit.data.split import default_kind

    r, console = plan.recipe, _console()
    console.print(f"[bold]{r.name}[/bold]  {r.title}", markup=True)
    split = f"{r.split.kind or default_kind(r)}, {r.split.holdout:.0%} held out"
    if r.ranking is not None:
        from_day = r.ranking.cutoff or f"{r.ranking.days} days before the end"
        split = f"global clock: {r.ranking.days} days from {from_day} held out, the {r.ranking.days} before them to choose on"
    facts = {
        "question": r.question,
        "a row is": plan.schema.row,
        "task": r.task + (f", positive class {r.positive}" if r.positive is not None else ""),
        "target": r.target,
        "rows": r.where or "all",
        "split": split,
        **({"lists": _lists(r.ranking)} if r.ranking is not None else {}),
        "decides by": f"{r.metrics.primary}, a gain counts from {r.metrics.worthwhile:g}",
        "adapts": "; ".join(f"{base}: {', '.join(hows)}" for base, hows in r.candidates.adapt.items()) or "nothing",
        "source": " ".join(s.description or s.title for s in r.sources) or "none",
        "sample": r.sample or "none: give --data FILE",
        "recipe file": str(plan.path),
        "schema file": str(plan.schema_path),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in facts.items():
        table.add_row(Text(key, style="dim"), Text(value))
    console.print(table)
    columns = Table("column", "type", "unit", "role", "what it is", box=None, pad_edge=False)
    for name, field in [*plan.schema.fields.items(), *plan.schema.patterns.items()]:
        role = plan.roles.get(name) or ("feature" if r.ranking is None and plan.is_feature(name) else "not used")
        columns.add_row(
            *map(Text, (name, field.type, field.unit, role + (", sensitive" if field.sensitive else ""), field.title))
        )
    for name, sql in r.derived.items():
        columns.add_row(*map(Text, (name, "derived", "", "feature", sql)))
    console.print()
    console.print(columns)


def _lists(ranking: Ranking) -> str:
    """Say what is listed, and for whom."""
    what = "items first taken in the window" if ranking.cold_items else "items"
    what += " that the user never took" if ranking.new_only else ""
    whom = "everyone"
    if ranking.cold_users:
        whom = f"{ranking.cold_users:.0%} of the users, with {ranking.cold_weeks} weeks of history"
    elif ranking.home_stores:
        whom = f"those who went most to the stores {', '.join(map(str, ranking.home_stores))}"
    return f"{ranking.length} {what}, for {whom}"


def verdict(result: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Print the candidates' table and the verdict."""
    if as_json:
        _print_json({"folder": str(folder), **result})
        return
    console = _console()
    primary = result["primary"]
    title = result["metrics"][primary]["title"]
    table = Table(box=None, pad_edge=False, title=f"{result['recipe']}: {title} by part", title_justify="left")
    for name in (
        "candidate",
        "kind",
        "train",
        "valid",
        "holdout (95%)",
        "overfit gap",
        "trained parameters",
        "seconds",
    ):
        table.add_column(
            name, justify="left" if name in ("candidate", "kind") else "right", no_wrap=name == "candidate"
        )
    for c in result["candidates"]:
        champion = c["name"] == result["champion"]
        if c["refused"]:
            table.add_row(Text(c["name"]), c["kind"], Text(f"refused: {c['refused']}", style="red"))
            continue
        at = {part: c["scores"][part][primary] for part in ("train", "valid", "holdout")}
        row = [
            ("* " if champion else "  ") + c["name"],
            c["kind"],
            _number(at["train"]["value"]),
            _number(at["valid"]["value"]),
            f"{_number(at['holdout']['value'])} [{_number(at['holdout']['low'])}, {_number(at['holdout']['high'])}]",
            _number(c["overfit_gap"]),
            f"{c['trained_parameters']:,} of {c['total_parameters']:,}",
            f"{c['seconds']:.1f}",
        ]
        table.add_row(*(Text(cell, style="bold" if champion else "") for cell in row))
    console.print(table)
    failed = [c for c in result["checks"] if c["outcome"] == "fail"]
    passed = sum(c["outcome"] == "pass" for c in result["checks"])
    console.print(Text(f"\nChecks: {passed} passed, {len(failed)} failed."))
    for found in failed:
        console.print(
            Text(
                f"  {found['severity']}: {found['code']}: {found['message']}",
                style="red" if found["severity"] == "error" else "yellow",
            )
        )
    if result["value"]:
        console.print(Text(f"\nValue: {result['value']['sentence']}"))
    console.print(Text(f"\n{result['verdict']['decision']}: {result['verdict']['sentence']}", style="bold"))
    if result["student"]:
        console.print(Text(f"\n{result['student']['sentence']}"))
    console.print(Text(f"\nReport: {folder / 'report.html'}\nBundle: {folder / 'bundle'}"))
    if result["student"]:
        console.print(Text(f"Student: {folder / 'student'}"))


def scored(done: Any, as_json: bool) -> None:
    """Print what scoring did."""
    if as_json:
        _print_json(done)
        return
    text = (
        f"{count(done.rows_scored, 'row')} scored to {done.out}, {done.rows_rejected:,} rejected, of {done.rows_in:,}."
    )
    if done.rejects:
        text += f" Reasons: {done.rejects}"
    if done.ignored:
        text += (
            f"\nIgnored {count(len(done.ignored), 'column')} the model does not need: {', '.join(done.ignored[:8])}."
        )
    _console().print(Text(text))


def checked(found: Any, as_json: bool) -> None:
    """Print what ``tabkit check`` found."""
    if as_json:
        _print_json(found)
        return
    console = _console()
    if found.ok:
        console.print(Text(f"{count(found.n_rows, 'row')} fit the schema."))
    if found.failures:
        table = Table("column", "what", "rows", "first rows", "for instance", box=None, pad_edge=False)
        for f in found.failures:
            first = ", ".join(map(str, f.first_rows))
            table.add_row(*map(Text, (f.column, f.message, f"{f.count:,}", first, f.example)))
        console.print(table)
    for note in found.notes:
        console.print(Text(note, style="dim"))


def drafted(draft: Any, data: Path, as_json: bool) -> None:
    """Print what ``tabkit new`` wrote and noticed."""
    if as_json:
        _print_json(draft)
        return
    console = _console()
    console.print(Text(f"Wrote {draft.recipe_path}\nWrote {draft.schema_path}"))
    for note in draft.notes:
        console.print(Text(f"- {note}"))
    console.print(Text(f"\nNow: tabkit run {draft.recipe_path} --data {data}"))


def pretrained(weights: Path) -> None:
    """Say where a base went, and what its last line of the log says."""
    print_ = _console().print
    last = json.loads((weights.parent / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    print_(f"Weights: {weights}")
    print_(f"Step {last['step']:,}, {last['tables']:,} tables; on synthetic tables that no step draws:")
    for name in ("valid_small", "valid_medium", "valid_regression"):
        print_(f"  {name:<17} {last[name]:.4f}")
    print_(f"Log: {weights.parent / 'log.jsonl'}. The same command goes on where a run stopped.")


def continued(done: Any) -> None:
    """Print each table left out, and whether continuing paid."""
    console = _console()
    table = Table(box=None, pad_edge=False, title="Each table left out once", title_justify="left")
    for name in ("table", "holdout rows", "metric", "shipped base", "continued", "gain (95%)", "loss fell by"):
        table.add_column(name, justify="left" if name in ("table", "metric") else "right")
    for one in done.left_out:
        gain = f"{one.gain:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"
        cells = (one.table, f"{one.rows:,}", one.metric, _number(one.base), _number(one.continued), gain)
        table.add_row(*map(Text, (*cells, f"{one.loss_gain:+.2%}")))
    console.print(table)
    console.print(Text(f"\n{done.sentence}", style="bold"))
    console.print(Text(f"\nWeights of all tables: {done.weights}\nUse: tabkit run RECIPE --weights icl={done.weights}"))


def comparison(compared: Any, as_json: bool) -> None:
    """Print runs side by side."""
    if as_json:
        _print_json(compared)
        return
    console = _console()
    table = Table(box=None, pad_edge=False)
    rows = [asdict(row) for row in compared.rows]
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_number(v) if isinstance(v, float) else str(v)) for v in row.values()))
    console.print(table)
    for warning in compared.warnings:
        console.print(Text(f"Careful: {warning}", style="yellow"))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}"
