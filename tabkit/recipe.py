"""A domain recipe says what we do with the rows of a schema: target, roles, split, candidates, metrics, value.

A recipe is one TOML file, ``domains/<vertical>/<name>.toml``. It names its schema; the schema never names it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, model_validator
from pydantic import Field as Key

from tabkit import shipped
from tabkit.censoring import Censoring
from tabkit.errors import UsageError, nearest
from tabkit.ranking import Ranking
from tabkit.result.facts import SplitKind, Task
from tabkit.schema import Schema, read_schema
from tabkit.strict import Strict, read_toml


class Source(Strict):
    """Related rows to pretrain a base on: another product, period, site.

    ``columns`` aligns a table whose columns are named, coded or measured otherwise: a column of the schema -> SQL
    over the source's own columns. A column that is not named there is taken as it is; a feature that the source lacks
    is missing in all of its rows, and the run says so.
    """

    name: str | None = None
    sample: str | None = None
    where: str | None = None
    columns: dict[str, str] = {}
    description: str = ""

    @property
    def title(self) -> str:
        """What the source is called where its rows are counted."""
        return self.name or self.sample or self.where or "source"


class SplitRule(Strict):
    """How rows become train, valid and holdout. Without ``kind``, the time and group columns decide.

    ``column`` is for ``kind = "given"``: a column with the values train, valid (optional) and holdout.

    ``folds`` asks for an outer cross-validation, for tables whose holdout would be too small: every row is held out
    once (temporal: every row but those of the first moments), and ``repeats`` times over with other folds. With
    ``folds = "given"``, ``column`` holds the fold of each row.

    ``embargo`` is for a split in time whose outcomes take a while to be known: "30d" (or "12h", "4w"; a number if times are
    numbers). Rows less than that before a cut are left out of what is learned from and chosen on: at the cut, nobody knew
    how they would come out.

    ``inner`` cuts what is not held out into that many inner folds, in place of a valid part: every row is learned from
    and chosen on, and each candidate is the mean of a model per inner fold. For tables of a few hundred rows; it takes
    ``inner`` times as long.
    """

    kind: SplitKind | None = None
    holdout: float = Key(default=0.25, gt=0, lt=1)
    valid: float = Key(default=0.2, gt=0, lt=1)
    column: str | None = None
    folds: int | Literal["given"] | None = None
    repeats: int = Key(default=1, ge=1, le=50)
    inner: int | None = Key(default=None, ge=3, le=20)
    embargo: str | float | None = None

    @model_validator(mode="after")
    def _folds_fit(self) -> SplitRule:
        if isinstance(self.embargo, str) and not re.fullmatch(r"\d+(\.\d+)?[hdw]", self.embargo):
            raise ValueError(f"embargo = '{self.embargo}'; expected hours, days or weeks such as '12h', '30d' or '4w'.")
        if isinstance(self.embargo, float | int) and not 0 < self.embargo < math.inf:
            raise ValueError(f"embargo = {self.embargo}; expected a number above 0, in the unit of the time column.")
        if self.embargo is not None and self.kind not in (None, "temporal"):
            raise ValueError(f"embargo is for a split in time; kind is '{self.kind}'. Remove one.")
        if isinstance(self.folds, int) and not 2 <= self.folds <= 50:
            raise ValueError(f"folds = {self.folds}; expected 2 to 50, or 'given' with the column that holds them.")
        if (self.folds == "given") != (self.kind == "given" and self.folds is not None):
            raise ValueError("folds = 'given' goes with kind = 'given' and a column that holds the fold of each row.")
        if self.repeats > 1 and (not isinstance(self.folds, int) or self.kind == "temporal"):
            raise ValueError(
                "repeats needs a number of folds to draw anew; given and temporal folds are always the same."
            )
        return self


class Metrics(Strict):
    """``primary`` decides; ``report`` is shown beside it; ``worthwhile`` is the gain that would change a decision."""

    primary: str
    report: list[str] = []
    worthwhile: float = Key(default=0.0, ge=0)


class Candidates(Strict):
    """Which bases to adapt, and how. The baselines are always in the table, but for those in ``without``."""

    adapt: dict[str, list[str]] = {"tabnet": ["head", "gradual", "full"]}
    without: list[str] = []


class Value(Strict):
    """What a decision is worth, by Polars SQL over the row's columns (the target among them).

    With ``act_when``, a decision is taken when the probability of the positive class is above or below a
    threshold chosen on valid: ``acted`` is its payoff, ``not_acted`` that of leaving it. For regression,
    ``payoff`` is an expression over ``prediction`` and the target.
    """

    unit: str
    action: str = ""
    act_when: Literal["above", "below"] | None = None
    acted: str | None = None
    not_acted: str = "0"
    payoff: str | None = None
    per: int = Key(default=1000, gt=0)
    decisions_per_year: int = Key(default=100_000, gt=0)
    cpu_hour_cost: float = Key(default=0.05, ge=0)
    assumptions: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> Value:
        if (self.payoff is None) == (self.act_when is None or self.acted is None):
            raise ValueError("give either act_when and acted (a decision at a threshold), or payoff (regression).")
        return self


class Slice(Strict):
    """Rows that are scored apart, by a Polars SQL condition over the table's columns."""

    name: str
    where: str


class Ablation(Strict):
    """What the baselines score when these columns are taken away."""

    name: str
    drop: list[str] = Key(min_length=1)


class Spectrum(Strict):
    """Many like columns (the bands of a spectrum) that reach the models as their principal components.

    ``normalise`` centres and scales each row's bands first (standard normal variate).
    """

    name: str = Key(pattern=r"^[a-z][a-z0-9_]*$")
    columns: str
    components: int = Key(default=15, ge=1, le=200)
    normalise: bool = True


class TargetScale(Strict):
    """The scale on which a skewed target is learned; predictions and scores are in the target's own unit.

    ``predicts`` says what a prediction stands for: the mean, corrected for what a logarithm loses of it (Duan 1983),
    or the median.
    """

    kind: Literal["log", "log1p"]
    predicts: Literal["mean", "median"] = "mean"


class BundleRule(Strict):
    """Whether the bundle holds the champion's procedure run again on all rows, or the very model measured."""

    train_on: Literal["all", "train"] = "all"


def _listed(tables: Any) -> Any:
    """Return the list of source tables: ``[source]`` is one of them, ``[[source]]`` are many."""
    return [tables] if isinstance(tables, (dict, Source)) else [] if tables is None else tables


class Recipe(Strict):
    """One question on one kind of row. See the module's text and ``tabkit show RECIPE``.

    ``outcome`` makes the target where no column holds it: Polars SQL over what is known at the outcome (``CASE WHEN
    days <= 365 THEN 'yes' ... ELSE NULL END``). A row whose outcome is NULL has no label: it is neither learned from
    by its label nor scored. ``censoring`` makes it of a time of follow-up.

    ``weight`` is a column that says for how many rows a row stands: models are fitted, and everything is measured, with
    these weights. It is no feature, and scoring does not need it.
    """

    name: str = Key(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$")
    title: str
    question: str = ""
    schema_name: str = Key(alias="schema")
    task: Task
    target: str
    positive: str | int | float | bool | None = None
    id: str | None = None
    time: str | None = None
    group: str | None = None
    weight: str | None = None
    sample: str | None = None
    where: str | None = None
    exclude: list[str] = []
    derived: dict[str, str] = {}
    outcome: str | None = None
    censoring: Censoring | None = None
    target_scale: TargetScale | None = None
    spectra: list[Spectrum] = []
    max_rejected: float = Key(default=0.05, ge=0, le=1)
    sources: Annotated[list[Source], BeforeValidator(_listed)] = Key(alias="source", default=[])
    split: SplitRule = SplitRule()
    metrics: Metrics
    candidates: Candidates = Candidates()
    ranking: Ranking | None = None
    value: Value | None = None
    slices: list[Slice] = []
    ablations: list[Ablation] = []
    bundle: BundleRule = BundleRule()

    @property
    def target_from(self) -> tuple[str, str] | None:
        """The key of the recipe that makes the target, and its SQL; None if a column holds it."""
        if self.censoring is not None:
            return "[censoring]", self.censoring.outcome
        return None if self.outcome is None else ("key 'outcome'", self.outcome)

    @property
    def scale(self) -> str | None:
        """The scale the target is learned on; None for its own."""
        return None if self.target_scale is None else self.target_scale.kind

    @model_validator(mode="after")
    def _agrees(self) -> Recipe:
        if self.positive is not None and self.task != "binary":
            raise ValueError(f"positive is for binary tasks; task is '{self.task}'. Remove it.")
        if self.split.kind == "grouped" and self.group is None:
            raise ValueError("split.kind = 'grouped' needs a group column; add group = \"COLUMN\".")
        if self.split.kind == "temporal" and self.time is None:
            raise ValueError("split.kind = 'temporal' needs a time column; add time = \"COLUMN\".")
        if self.split.embargo is not None and (self.time is None or self.task == "ranking"):
            raise ValueError('split.embargo is for tables with a time column; add time = "COLUMN", or remove it.')
        if (self.split.kind == "given") != (self.split.column is not None):
            raise ValueError("split.kind = 'given' and split.column go together; give both or neither.")
        if self.split.kind == "stratified" and self.task == "regression":
            raise ValueError("split.kind = 'stratified' needs classes; use 'random' for regression.")
        if self.value is not None and (self.value.payoff is None) == (self.task == "regression"):
            raise ValueError("value: regression takes payoff; classification takes act_when and acted.")
        if self.value is not None and self.task == "multiclass":
            raise ValueError("value needs a binary or a regression task.")
        if self.split.inner is not None and (self.group is not None or self.time is not None):
            raise ValueError(
                "split.inner cuts rows at random, and rows of one group or time belong together. Remove it."
            )
        if self.split.repeats > 1 and self.time is not None and self.split.kind is None:
            raise ValueError("repeats needs folds to draw anew, and the time column makes them temporal. Remove one.")
        if self.id is not None and re.match(r"prediction(_low|_high)?$|probability_", self.id):
            raise ValueError(f"id = '{self.id}' is a column that scoring writes itself; rename the column.")
        if self.target_scale is not None and self.task != "regression":
            raise ValueError(f"target_scale is for regression; task is '{self.task}'. Remove it.")
        if (self.task == "ranking") != (self.ranking is not None):
            raise ValueError("task = 'ranking' and the table [ranking] go together; give both or neither.")
        if self.task == "ranking" and (self.id is None or self.time is None):
            raise ValueError("ranking needs id (whom to list for) and time (when it was taken); target is the item.")
        if self.task == "ranking" and (self.value is not None or self.slices or self.ablations or self.sources):
            raise ValueError(
                "[value], [[slices]], [[ablations]] and [source] are for tables; ranking has its own: see [ranking]."
            )
        if self.ranking is not None:
            self._check_event_columns(self.ranking)
        names = {
            "source tables": [s.title for s in self.sources],
            "spectra": [s.name for s in self.spectra],
            "slices": [s.name for s in self.slices],
            "ablations": [a.name for a in self.ablations],
        }
        for what, of in names.items():
            if len(set(of)) < len(of):
                raise ValueError(f"{what} need names that differ, and these are {of}; give each a name.")
        for name in self.derived:
            if name in (self.target, self.id, self.time, self.group):
                raise ValueError(f"derived column '{name}' would replace a column with a role; rename it.")
        return self

    @model_validator(mode="after")
    def _weights_agree(self) -> Recipe:
        follow_up = self.censoring
        if self.task == "ranking" and (self.weight is not None or follow_up is not None):
            raise ValueError("weight and [censoring] are for tables; events have none. Remove it.")
        if follow_up is not None and (self.task != "binary" or self.positive not in (None, "yes")):
            raise ValueError(
                "[censoring] makes the target 'yes' or 'no': set task = \"binary\" and leave positive out."
            )
        if follow_up is not None and (self.outcome is not None or self.weight is not None):
            raise ValueError("[censoring] makes the target and the rows' weights. Remove outcome and weight, or it.")
        taken = (self.target, self.id, self.time, self.group, self.split.column, *self.derived)
        for key, column in (("weight", self.weight), ("censoring.time", follow_up and follow_up.time)):
            if column is not None and column in taken:
                raise ValueError(f"{key} = '{column}' has another role, or is derived. Expected a column of its own.")
        return self

    def _check_event_columns(self, ranking: Ranking) -> None:
        """Check that no column of an event table has two roles, or a name that lists need for themselves."""
        named = [("id", self.id), ("target", self.target), ("time", self.time)]
        named += [(role, getattr(ranking, role)) for role in ("basket", "store", "price", "quantity")]
        named += [("attributes", column) for column in ranking.attributes]
        seen: dict[str, str] = {}
        for key, column in named:
            if column is None:
                continue
            if column in seen:
                raise ValueError(
                    f"{seen[column]} and {key} both name '{column}'. Expected one role a column; give another, or leave {key} out."
                )
            seen[column] = key
        for key, column in (("id", self.id), ("target", self.target)):
            if column in LIST_COLUMNS:
                raise ValueError(f"{key} = '{column}' is a column that scoring writes itself; rename the column.")


LIST_COLUMNS = ("rank", "score", "cold", "taken")
"""What is written beside user and item in lists."""


@dataclass(frozen=True)
class Plan:
    """A recipe together with the schema it names and the files both came from."""

    recipe: Recipe
    schema: Schema
    path: Path
    schema_path: Path

    @cached_property
    def roles(self) -> dict[str, str]:
        """Columns that have a role and are therefore no features: column -> role."""
        recipe = self.recipe
        named = [
            (recipe.target, "target"),
            (recipe.id, "id"),
            (recipe.time, "time"),
            (recipe.group, "group"),
            (recipe.split.column, "split"),
            (recipe.weight, "weight"),
            (recipe.censoring.time if recipe.censoring is not None else None, "follow-up"),
        ]
        if recipe.ranking is not None:
            named += [(getattr(recipe.ranking, role), role) for role in ("basket", "store", "price", "quantity")]
            named += [(column, "attribute") for column in (*recipe.ranking.attributes, *recipe.ranking.text)]
        return {column: role for column, role in named if column is not None}

    def is_feature(self, column: str) -> bool:
        """Tell whether ``column`` may be a feature: described or derived, no role, not excluded, known before."""
        if column in self.roles or column in self.recipe.exclude:
            return False
        if column in self.recipe.derived:
            return True
        field = self.schema.field(column)
        return field is not None and field.known == "before"


def load_recipe(name: str) -> Plan:
    """Load a recipe by shipped name (``finance/loan_default``) or by path, with its schema.

    A recipe file finds its schema in the ``data_schemas/`` beside its ``domains/`` before the shipped ones.

    Raises
    ------
    UsageError
        Unknown recipe or schema, or a file that does not fit; the message names file, table and key.
    """
    path = _find(name)
    recipe = read_toml(path, Recipe)
    schema_path = _find_schema(recipe.schema_name, path)
    plan = Plan(recipe, read_schema(schema_path), path, schema_path)
    check_names(plan)
    return plan


def check_names(plan: Plan) -> None:
    """Check that every column the recipe names is described by its schema.

    Raises
    ------
    UsageError
        A role, exclusion or ablation names an unknown column, or a field known at the outcome only.
    """
    recipe, schema = plan.recipe, plan.schema
    known = [*schema.fields, *recipe.derived]

    def known_or_raise(column: str, key: str) -> None:
        if column not in recipe.derived and schema.field(column) is None:
            raise UsageError(
                f"{plan.path}: {key} names '{column}', which {plan.schema_path} does not describe.{nearest(column, known)}"
            )

    for column, role in plan.roles.items():
        known_or_raise(column, "split.column" if role == "split" else role)
    types = _AMOUNT_TYPES if recipe.ranking is None else _EVENT_TYPES
    for column, role in plan.roles.items():
        spec, expected = schema.field(column), types.get(role)
        if spec is not None and expected is not None and spec.type not in expected:
            raise UsageError(
                f"{plan.path}: {role} names '{column}', which {plan.schema_path} calls a {spec.type}. Expected "
                f"{' or '.join(expected)}: give it that type there, or leave {role} out."
            )
    time = schema.field(recipe.time) if recipe.time is not None else None
    if time is not None and time.type in ("string", "boolean"):
        raise UsageError(
            f"{plan.path}: time names '{recipe.time}', which is {time.type} in {plan.schema_path}. Expected a date, a "
            "datetime or a number, which order the rows; set its type (and, if it needs one, its format)."
        )
    for column in recipe.exclude:
        known_or_raise(column, "exclude")
    for ablation in recipe.ablations:
        for column in ablation.drop:
            known_or_raise(column, f"ablation '{ablation.name}'")
            if not plan.is_feature(column):
                raise UsageError(f"{plan.path}: ablation '{ablation.name}' drops '{column}', which is no feature.")


_AMOUNT_TYPES: dict[str, tuple[str, ...]] = {"weight": ("number", "integer"), "follow-up": ("number", "integer")}
_EVENT_TYPES: dict[str, tuple[str, ...]] = {
    "time": ("date", "datetime", "integer", "number"),
    "price": ("number", "integer"),
    "quantity": ("number", "integer"),
}
"""Types that a column with a role may have, in a table and in events; any if not named."""


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise UsageError(
                f"Recipe file {name} does not exist. Expected a .toml file, or a shipped recipe (tabkit list recipes)."
            )
        return path
    names = shipped.recipe_names()
    if name not in names:
        raise UsageError(f"Unknown recipe '{name}'.{nearest(name, names)} See: tabkit list recipes.")
    return shipped.domains() / f"{name}.toml"


def _find_schema(name: str, recipe_path: Path) -> Path:
    # Beside the recipe: DIR/domains/VERTICAL/x.toml -> DIR/data_schemas; a bundle keeps both in one folder.
    local = recipe_path.resolve().parent.parent.parent / "data_schemas"
    for folder in (local, shipped.data_schemas()):
        if (found := folder / f"{name}.toml").is_file():
            return found
    shipped_names = [p.stem for p in shipped.data_schemas().glob("*.toml")]
    raise UsageError(
        f"{recipe_path}: schema '{name}' was found neither in {local} nor among the shipped schemas.{nearest(name, shipped_names)}"
    )
