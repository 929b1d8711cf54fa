"""What may be asked of a run: one set of options for tables, one for lists; what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from tabkit.adapt import Watch
from tabkit.adapt.runtime import silent
from tabkit.data.source import DataLike
from tabkit.errors import UsageError, nearest
from tabkit.evaluate.checks import all_checks
from tabkit.evaluate.choice import Terms
from tabkit.evaluate.metrics import resolve
from tabkit.learner import Budget, Device
from tabkit.recipe import Plan, Recipe

CPU_HOUR_COST = 0.05
"""Price assumed for a CPU hour if the recipe states none."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What any run may be asked.

    Attributes
    ----------
    out
        Folder to make; ``runs/NAME-TIMESTAMP`` if None.
    seed
        The same seed gives the same split and models.
    budget
        ``quick``, ``standard`` or ``thorough``.
    watch
        Called with (stage, fraction, note) as the run goes on.
    command
        The command that is written into the result; made up from the options if None.
    """

    out: str | Path | None = None
    seed: int = 0
    budget: str = "standard"
    device: Device = "auto"
    watch: Watch = field(default=silent, repr=False, compare=False)
    command: str | None = None

    def command_of(self, recipe: str) -> str:
        """Return the command that repeats the run."""
        return self.command or f"tabkit run {recipe} --budget {self.budget} --seed {self.seed}{self._flags()}"

    def _flags(self) -> str:
        return ""


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """What a run on a table may be asked.

    Attributes
    ----------
    source
        Rows of a source table to pretrain on; the recipe's if None.
    distill
        Also teach LightGBM the champion's answers, measure how far it stands in for it, and bundle it in ``student/``.
    weights
        Your own weights of a base: base -> the folder or file that holds them.
    jobs
        Recipes with folds only: processes that measure folds side by side; None for one per core.
    """

    source: DataLike | None = None
    distill: bool = False
    weights: Mapping[str, str | Path] | None = None
    jobs: int | None = None

    def _flags(self) -> str:
        return " --distill" if self.distill else ""


@dataclass(frozen=True, kw_only=True)
class ListOptions(Options):
    """What a run on events may be asked.

    Attributes
    ----------
    cutoffs
        At how many cutoffs, a window apart, the planned comparison is carried out.
    base
        A bundle of this recipe, to be refreshed with the events given, which begin where its own end.
    """

    cutoffs: int = 1
    base: str | Path | None = None

    def _flags(self) -> str:
        return "" if self.base is None else f" --base {self.base}"


class Settings(TypedDict, total=False):
    """The options as keywords; those of the other kind of recipe are refused."""

    out: str | Path | None
    seed: int
    budget: str
    device: Device
    watch: Watch
    command: str | None
    source: DataLike | None
    distill: bool
    weights: Mapping[str, str | Path] | None
    jobs: int | None
    cutoffs: int
    base: str | Path | None


_REFUSED = {
    "source": "--source is for tables; a ranking recipe makes its bases from its own past. Leave it out.",
    "distill": "--distill is for tables; a ranking recipe makes its bases from its own past. Leave it out.",
    "weights": "--weights is for tables; a ranking recipe makes its bases from its own past. Leave it out.",
    "jobs": "--jobs {value}: folds are measured side by side, and this recipe has one holdout. Leave --jobs out.",
    "cutoffs": "--cutoffs is for ranking recipes, and {recipe} is a {task} task. Leave it out.",
    "base": (
        "--base is for ranking recipes, and {recipe} is a {task} task: its champion is fitted again by running the "
        "recipe on all rows. Leave --base out."
    ),
}


def terms_of(plan: Plan, options: Options, budget: Budget) -> Terms:
    """Return by what the candidates of a run are judged.

    Raises
    ------
    UsageError
        An unknown metric, one of another task, or a check that cannot be loaded.
    """
    recipe = plan.recipe
    names = list(dict.fromkeys([recipe.metrics.primary, *recipe.metrics.report]))
    metrics = resolve(names, recipe.task, str(plan.path))
    all_checks()  # one that cannot be loaded is refused now, not when the holdout is open
    price = CPU_HOUR_COST if recipe.value is None else recipe.value.cpu_hour_cost
    unit: Literal["row", "user"] = "user" if recipe.task == "ranking" else "row"
    return Terms(metrics, recipe.metrics.worthwhile, budget.resamples, options.seed, unit, price)


def asked_by(plan: Plan) -> dict[str, Any]:
    """Return what a recipe and its schema ask; a key that a later version adds asks nothing until it is set."""
    return {
        "recipe": plan.recipe.model_dump(mode="json", exclude_defaults=True),
        "schema": plan.schema.model_dump(mode="json", exclude_defaults=True),
    }


def options_for(recipe: Recipe, settings: Mapping[str, Any]) -> TableOptions | ListOptions:
    """Return the options of a recipe's kind.

    Raises
    ------
    UsageError
        An option that nobody knows, or one of the other kind that asks for something.
    """
    kind: type[TableOptions] | type[ListOptions]
    kind, other = (ListOptions, TableOptions) if recipe.task == "ranking" else (TableOptions, ListOptions)
    own, theirs = {f.name for f in fields(kind)}, {f.name: f.default for f in fields(other)}
    chosen = {}
    for name, value in settings.items():
        if name in own:
            chosen[name] = value
        elif name not in theirs:
            raise UsageError(f"run() knows no option '{name}'.{nearest(name, [*own, *theirs])}")
        elif _asks(value, theirs[name]):
            raise UsageError(_REFUSED[name].format(value=value, recipe=recipe.name, task=recipe.task))
    return kind(**chosen)


def _asks(value: Any, default: Any) -> bool:
    """Tell whether an option asks for something; a frame is not to be compared with anything."""
    nothing = value is None or (isinstance(value, Mapping) and not value)
    return not nothing and (default is None or value != default)
