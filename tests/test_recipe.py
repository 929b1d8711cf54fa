"""Schemas and recipes: strict, and every error names file, key, what was expected and the nearest name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tabkit.errors import UsageError
from tabkit.recipe import load_recipe
from tabkit.schema import Schema, read_schema
from tabkit.strict import parse_toml

SCHEMA = 'name = "s"\n[fields.y]\ntype = "string"\n[fields.x]\ntype = "number"\n[fields.t]\ntype = "date"\n'
RECIPE = 'name = "a/b"\ntitle = "T"\nschema = "s"\ntask = "binary"\ntarget = "y"\n'
METRICS = '[metrics]\nprimary = "roc_auc"\n'


def load(folder: Path, recipe: str, schema: str = SCHEMA) -> object:
    (folder / "data_schemas").mkdir(exist_ok=True)
    (folder / "domains" / "a").mkdir(parents=True, exist_ok=True)
    (folder / "data_schemas" / "s.toml").write_text(schema, encoding="utf-8")
    (folder / "domains" / "a" / "b.toml").write_text(recipe, encoding="utf-8")
    return load_recipe(str(folder / "domains" / "a" / "b.toml"))


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (RECIPE, ["metrics"]),
        (RECIPE.replace("target", "traget") + METRICS, ["traget", "Did you mean 'target'"]),
        (RECIPE.replace('"binary"', '"binry"') + METRICS, ["task", "Did you mean 'binary'"]),
        (RECIPE.replace('target = "y"', 'target = "z"') + METRICS, ["target names 'z'", "s.toml"]),
        (RECIPE + 'exclude = ["X"]\n' + METRICS, ["exclude names 'X'", "Did you mean 'x'"]),
        (RECIPE + METRICS + '[split]\nkind = "grouped"\n', ["group column"]),
        (RECIPE + METRICS + '[split]\nkind = "temporal"\n', ["time column"]),
        (RECIPE + METRICS + "[split]\nholdout = 1.5\n", ["[split]", "holdout"]),
        (RECIPE + METRICS.replace('"roc_auc"', "[1]"), ["[metrics]", "primary"]),
        (RECIPE + METRICS + 'worthwhile = "much"\n', ["[metrics]", "worthwhile"]),
        (RECIPE.replace('schema = "s"', 'schema = "loans"') + METRICS, ["schema 'loans'", "Did you mean 'loan'"]),
        (RECIPE + 'id = "prediction"\n' + METRICS, ["id = 'prediction'", "rename"]),
        ("name = a/b\n", ["line 1"]),
        (RECIPE + METRICS + '[[ablations]]\nname = "n"\ndrop = ["y"]\n', ["'y'", "no feature"]),
    ],
)
def test_a_recipe_that_does_not_fit_says_where(tmp_path: Path, recipe: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as problem:
        load(tmp_path, recipe)
    for word in ["b.toml", *words]:
        assert word in str(problem.value), str(problem.value)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ('type = "nmber"', ["[fields.x]", "type", "Did you mean 'number'"]),
        ('type = "number"\nconstraints = { pattern = "a" }', ["pattern", "string"]),
        ('type = "number"\nconstraints = { minimum = 5, maximum = 1 }', ["swap"]),
        ('type = "number"\nconstraints = { minimum = "a" }', ["fields.x"]),
        ('type = "string"\nconstraints = { pattern = "[" }', ["regular expression"]),
        ('type = "string"\nconstraints = { enum = [1] }', ["1 is no string"]),
        ('type = "string"\nformat = "%Y"', ["dates"]),
        ('type = "number"\nunits = "USD"', ["units", "Did you mean 'unit'"]),
        (
            'type = "number"\nconstraints = { minimum = "low" }',
            ["[fields.x.constraints], key 'minimum': found 'low'. Expected a whole number or a number or a date."],
        ),
        ('type = "number"\nknown = "after"', ["[fields.x]", "known"]),
    ],
)
def test_a_schema_that_does_not_fit_says_where(tmp_path: Path, field: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as problem:
        load(tmp_path, RECIPE + METRICS, f'name = "s"\n[fields.y]\ntype = "string"\n[fields.x]\n{field}\n')
    for word in ["s.toml", *words]:
        assert word in str(problem.value), str(problem.value)


def test_a_field_known_at_the_outcome_is_never_a_feature(tmp_path: Path) -> None:
    plan = load(tmp_path, RECIPE + METRICS, SCHEMA + '[fields.after]\ntype = "number"\nknown = "at_outcome"\n')
    assert plan.is_feature("x") and not plan.is_feature("after")  # type: ignore[attr-defined]
    assert not plan.is_feature("y")  # type: ignore[attr-defined]


def test_patterns_describe_many_columns() -> None:
    schema = parse_toml('name = "s"\n[patterns."wl_*"]\ntype = "number"\nunit = "absorbance"\n', Schema, "s.toml")
    found = schema.field("wl_400")
    assert found is not None and found.unit == "absorbance" and schema.field("w_400") is None


def test_toml_keeps_no_as_text() -> None:
    schema = parse_toml('name = "s"\n[fields.c]\ntype = "string"\nconstraints = { enum = ["NO", "SE"] }\n', Schema, "s")
    assert schema.fields["c"].constraints.enum == ["NO", "SE"]


def test_frictionless_export_is_json_with_types_constraints_and_missing_values(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'name = "s"\ntitle = "T"\n[fields.n]\ntype = "integer"\nmissing = [-9]\nconstraints = { minimum = 0 }\n'
        '[patterns."wl_*"]\ntype = "number"\n'
    )
    out = json.loads(json.dumps(read_schema(path).to_frictionless(["n", "wl_1", "other"])))
    assert out["fields"] == [
        {"name": "n", "type": "integer", "missingValues": [*out["missingValues"], "-9"], "constraints": {"minimum": 0}},
        {"name": "wl_1", "type": "number"},
    ]
    assert "NA" in out["missingValues"] and out["title"] == "T"


def test_frictionless_export_says_how_numbers_and_booleans_are_written(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('name = "s"\n[dialect]\ndecimal = ","\n[fields.x]\ntype = "number"\n[fields.b]\ntype = "boolean"\n')
    x, b = read_schema(path).to_frictionless()["fields"]
    assert x == {"name": "x", "type": "number", "decimalChar": ",", "groupChar": "."}
    assert {"yes", "Yes", "YES", "1"} <= set(b["trueValues"]) and {"no", "FALSE", "0"} <= set(b["falseValues"])


def test_unknown_recipes_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'finance/loan_default'"):
        load_recipe("finance/loan_defaults")
    with pytest.raises(UsageError, match="does not exist"):
        load_recipe(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"bytes\.toml"):
        load_recipe(str(tmp_path / "bytes.toml"))
