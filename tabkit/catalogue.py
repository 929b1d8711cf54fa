"""What there is to know before anything runs: what a recipe asks, and which recipes, models, metrics and checks exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tabkit.data.split import default_kind
from tabkit.data.validate import needed_columns
from tabkit.errors import UsageError, nearest
from tabkit.ranking import Ranking
from tabkit.recipe import Plan, Recipe, load_recipe
from tabkit.shipped import measured, recipe_names


@dataclass(frozen=True)
class ColumnFacts:
    """One column of a recipe's table."""

    column: str
    type: str
    unit: str
    role: str
    title: str


@dataclass(frozen=True)
class RecipeFacts:
    """A recipe for people (``str`` gives it as text), and its two files as plain data.

    ``recipe`` and ``schema`` hold what the files set, without defaults.
    """

    name: str
    title: str
    facts: dict[str, str]
    columns: tuple[ColumnFacts, ...]
    recipe: dict[str, Any]
    schema: dict[str, Any]

    def __str__(self) -> str:
        console = Console(highlight=False, width=200, color_system=None)
        with console.capture() as text:
            console.print(self)
        return "\n".join(line.rstrip() for line in text.get().splitlines())

    def __rich__(self) -> Group:
        facts = Table(box=None, show_header=False, pad_edge=False)
        for key, value in self.facts.items():
            facts.add_row(Text(key, style="dim"), Text(value))
        columns = Table("column", "type", "unit", "role", "what it is", box=None, pad_edge=False)
        for c in self.columns:
            columns.add_row(*map(Text, (c.column, c.type, c.unit, c.role, c.title)))
        return Group(Text.assemble((self.name, "bold"), f"  {self.title}"), facts, Text(), columns)


def show(recipe: str) -> RecipeFacts:
    """Return what a recipe asks, of which data, and how it decides.

    Raises
    ------
    UsageError
        The recipe or its schema is unknown, or does not fit.
    """
    plan = load_recipe(recipe)
    return RecipeFacts(
        plan.recipe.name,
        plan.recipe.title,
        _facts(plan),
        _columns(plan),
        plan.recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True),
        plan.schema.model_dump(mode="json", exclude_defaults=True),
    )


def listing(what: str = "recipes") -> list[dict[str, str]]:
    """Return recipes, models, metrics or checks as rows of a table.

    Raises
    ------
    UsageError
        There is no such list.
    """
    if what not in _LISTS:
        raise UsageError(f"There is no list of '{what}'.{nearest(what, _LISTS)}")
    return _LISTS[what]()


def _facts(plan: Plan) -> dict[str, str]:
    r = plan.recipe
    split = f"{r.split.kind or default_kind(r)}, {r.split.holdout:.0%} held out"
    if r.ranking is not None:
        days = f"{r.ranking.days:g}"
        from_day = str(r.ranking.cutoff or f"{days} days before the end")
        if r.ranking.sample_cutoff is not None:
            from_day += f" ({r.ranking.sample_cutoff} on the sample)"
        split = f"global clock: {days} days from {from_day} held out, the {days} before them to choose on"
    return {
        "question": r.question,
        "a row is": plan.schema.row,
        "task": r.task + (f", positive class {r.positive}" if r.positive is not None else ""),
        "target": r.target,
        "rows": r.where or "all",
        "split": split,
        **_weights(r),
        **({"lists": _lists(r.ranking)} if r.ranking is not None else {}),
        "decides by": f"{r.metrics.primary}, a gain counts from {r.metrics.worthwhile:g}",
        "adapts": "; ".join(f"{base}: {', '.join(hows)}" for base, hows in r.candidates.adapt.items()) or "nothing",
        "source": " ".join(s.description or s.title for s in r.sources) or "none",
        "sample": r.sample or "none: give --data FILE",
        "recipe file": str(plan.path),
        "schema file": str(plan.schema_path),
    }


def _weights(recipe: Recipe) -> dict[str, str]:
    """Say how rows weigh, if they do not all count once."""
    if recipe.weight is not None:
        return {"weights": f"column {recipe.weight}, in fitting and in every figure"}
    if (rule := recipe.censoring) is None:
        return {}
    asked = f"yes if {rule.event} by {rule.time} = {rule.horizon:g}"
    return {"weights": f"{asked}; rows lost to follow-up before have no label, and the others stand for them"}


def _columns(plan: Plan) -> tuple[ColumnFacts, ...]:
    columns = []
    needed = set(needed_columns(plan, for_target=True))
    for name, field in [*plan.schema.fields.items(), *plan.schema.patterns.items()]:
        feature = plan.recipe.ranking is None and plan.is_feature(name)
        # What where, derived columns, slices and values are made of is needed too.
        role = plan.roles.get(name) or ("feature" if feature else "in SQL" if name in needed else "not used")
        role += ", sensitive" if field.sensitive else ""
        columns.append(ColumnFacts(name, field.type, field.unit, role, field.title))
    derived = (ColumnFacts(name, "derived", "", "feature", sql) for name, sql in plan.recipe.derived.items())
    return (*columns, *derived)


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


def _recipes() -> list[dict[str, str]]:
    known = measured()
    rows = []
    for name in recipe_names():
        r = load_recipe(name).recipe
        facts = known.get(r.name)
        rows.append(
            {
                "recipe": r.name,
                "task": r.task,
                "rows": f"{facts['rows']:,}" if facts else "-",
                "source": ", ".join(s.title for s in r.sources) or "-",
                "last verdict": facts.get("verdict", "-") if facts else "-",
                "question": r.question,
                "sample": r.sample or "-",
            }
        )
    return rows


def _models() -> list[dict[str, str]]:
    from tabkit.models.base import model_class, model_names
    from tabkit.rankers.base import ranker_class, ranker_names

    def row(name: str, title: str, hows: Mapping[str, str], missing: str) -> dict[str, str]:
        ways = ", ".join(f"{how} ({kind})" for how, kind in hows.items())
        return {"model": name, "title": title, "how (kind)": ways, "missing": missing or "-"}

    models = [(name, model_class(name)) for name in model_names()]
    rankers = [(name, ranker_class(name)) for name in ranker_names()]
    return [
        *(row(name, model.title, model.hows, model.lacks() or "") for name, model in models),
        *(row(name, f"{ranker.title} (ranking)", ranker.hows, "") for name, ranker in rankers),
    ]


def _metrics() -> list[dict[str, str]]:
    from tabkit.evaluate.metrics import METRICS

    return [
        {
            "metric": name,
            "title": metric.title,
            "better": "higher" if metric.greater_is_better else "lower",
            "tasks": ", ".join(sorted(metric.tasks)),
        }
        for name, metric in METRICS.items()
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


_LISTS: dict[str, Callable[[], list[dict[str, str]]]] = {
    "recipes": _recipes,
    "models": _models,
    "metrics": _metrics,
    "checks": _checks,
}
