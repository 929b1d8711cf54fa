"""A data schema says what a row is: fields, types, units, constraints, missing codes, sensitivity.

The vocabulary is Frictionless Table Schema (https://datapackage.org/standard/table-schema/), written in
TOML, with three keys of our own: ``unit``, ``sensitive`` and ``known``. A schema never names a recipe.
"""

from __future__ import annotations

import re
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from pydantic import Field as Key
from pydantic import field_validator, model_validator

from tabkit.strict import Strict, read_toml

FieldType = Literal["number", "integer", "string", "boolean", "date", "datetime"]
Scalar = bool | int | float | str | date


class Constraints(Strict):
    """What a value must satisfy; the names and meanings of Frictionless."""

    required: bool = False
    unique: bool = False
    minimum: int | float | date | None = None
    maximum: int | float | date | None = None
    pattern: str | None = None
    enum: list[Scalar] | None = Key(default=None, min_length=1)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as problem:
                raise ValueError(f"{pattern!r} is not a regular expression ({problem}).") from None
        return pattern

    @model_validator(mode="after")
    def _ordered(self) -> Constraints:
        low, high = self.minimum, self.maximum
        if low is not None and high is not None:
            if isinstance(low, date) != isinstance(high, date):
                raise ValueError(f"minimum {low!r} and maximum {high!r} are of different types.")
            if low > high:  # type: ignore[operator]
                raise ValueError(f"minimum {low} is above maximum {high}; swap them.")
        return self


class Field(Strict):
    """One column: its type, meaning, unit and constraints.

    ``known = "at_outcome"`` marks a field that is only known once the outcome is: it may never be a feature.
    ``missing`` adds codes that mean "no value" in this field to those of the schema.

    How numbers in text are written is stated here and never guessed from the file: ``decimal`` is the decimal mark (by
    default the dialect's, else a point), ``group`` the mark between thousands (with a decimal comma a point, else none; a
    space stands for every kind of space, an apostrophe for both kinds). ``notation = "percent"`` reads 12.5% as 12.5,
    and only cells with the sign; ``notation = "currency"`` takes a currency's sign or code off, of ``unit`` only if that
    is stated, and reads (300) as -300.

    ``format`` is strptime's. Two-digit years (``%y``) are 1970 to 2069. Times with an offset (``%z``) become UTC.
    Without a format, dates and times are ISO 8601.
    """

    type: FieldType
    title: str = ""
    description: str = ""
    unit: str = ""
    format: str | None = Key(default=None, min_length=1)
    decimal: Literal[".", ","] | None = None
    group: Literal[",", ".", "'", " "] | None = None
    notation: Literal["percent", "currency"] | None = None
    missing: list[str | int | float] = []
    sensitive: bool = False
    known: Literal["before", "at_outcome"] = "before"
    constraints: Constraints = Constraints()

    @model_validator(mode="after")
    def _fits_its_type(self) -> Field:
        limits = self.constraints
        ordered = self.type in ("number", "integer", "date", "datetime")
        if (limits.minimum is not None or limits.maximum is not None) and not ordered:
            raise ValueError(f"minimum and maximum need an ordered type, and this field is a {self.type}.")
        if limits.pattern is not None and self.type != "string":
            raise ValueError(f"pattern needs type 'string', and this field is a {self.type}.")
        if self.format is not None and self.type not in ("date", "datetime"):
            raise ValueError(f"format is for dates ('%d/%m/%Y'), and this field is a {self.type}.")
        if self.type not in ("number", "integer") and (self.decimal or self.group or self.notation):
            raise ValueError(f"decimal, group and notation are for numbers, and this field is a {self.type}.")
        expected: dict[str, tuple[type, ...]] = {
            "number": (int, float),
            "integer": (int,),
            "string": (str,),
            "boolean": (bool,),
            "date": (date,),
            "datetime": (date,),
        }
        values = [v for v in (limits.minimum, limits.maximum, *(limits.enum or [])) if v is not None]
        for value in values:
            is_flag = isinstance(value, bool) and self.type != "boolean"
            if is_flag or not isinstance(value, expected[self.type]):
                raise ValueError(f"the constraint value {value!r} is no {self.type}; write it as one.")
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ValueError(
                    f"the constraint value {value} is beyond 64 bits; write it with a point, such as 1e20."
                )
        return self


TRUE, FALSE = ("true", "t", "yes", "y", "1", "1.0"), ("false", "f", "no", "n", "0", "0.0")
"""What a boolean may be written as, in any case."""


class Dialect(Strict):
    """How a CSV file is written. The delimiter is found from the file if it is not stated here; the encoding is that of
    its byte-order mark, else the one stated, else UTF-8: no other is guessed.

    ``decimal`` is the decimal mark of every field that states none itself; a point if neither does.
    """

    delimiter: str | None = Key(default=None, min_length=1, max_length=1)
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "".encode(encoding)
            except LookupError:
                raise ValueError(
                    f"{encoding!r} is no encoding Python knows; 'utf-8' and 'cp1252' are common."
                ) from None
        return encoding


class Schema(Strict):
    """What a row is. ``fields`` by column name; ``patterns`` describe many columns at once (``wl_*``)."""

    name: str = Key(pattern=r"^[a-z][a-z0-9_]*$")
    title: str = ""
    row: str = ""
    description: str = ""
    source: str = ""
    missing: list[str] = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]
    dialect: Dialect = Dialect()
    fields: dict[str, Field] = {}
    patterns: dict[str, Field] = {}

    @model_validator(mode="after")
    def _describes_something(self) -> Schema:
        if not self.fields and not self.patterns:
            raise ValueError("a schema needs at least one [fields.NAME] table.")
        for name, field in (*self.fields.items(), *self.patterns.items()):
            decimal, group = self.marks(field)
            if decimal == group:
                raise ValueError(f"field '{name}' has {group!r} as group and as decimal mark; state another decimal.")
        return self

    def marks(self, field: Field) -> tuple[str, str | None]:
        """Return the decimal mark of a field's numbers in text, and the mark between thousands."""
        decimal = field.decimal or self.dialect.decimal or "."
        return decimal, field.group or ("." if decimal == "," else None)

    def field(self, column: str) -> Field | None:
        """Return the field that describes ``column``: by name, else the first pattern that matches."""
        if column in self.fields:
            return self.fields[column]
        return next((f for glob, f in self.patterns.items() if fnmatchcase(column, glob)), None)

    def to_frictionless(self, columns: list[str] | None = None) -> dict[str, Any]:
        """Return the schema as a Frictionless Table Schema (a JSON-ready dict).

        ``columns`` expands field patterns, which Frictionless does not have, to the columns of a table.
        """
        names = [c for c in columns if self.field(c)] if columns is not None else list(self.fields)
        out: dict[str, Any] = {"name": self.name, "title": self.title, "description": self.description}
        out["fields"] = [_frictionless_field(name, self.field(name), self) for name in names]
        out["missingValues"] = self.missing
        return {k: v for k, v in out.items() if v not in ("", [])}


def _frictionless_field(name: str, field: Field | None, schema: Schema) -> dict[str, Any]:
    assert field is not None
    full = field.model_dump(mode="json", exclude_defaults=True)
    if "missing" in full:  # there, a field's codes replace those of the schema; here, they add to them
        full["missingValues"] = [*schema.missing, *(str(code) for code in full.pop("missing"))]
    if field.type == "boolean":
        for key, words in (("trueValues", TRUE), ("falseValues", FALSE)):
            full[key] = list(dict.fromkeys(case for word in words for case in (word, word.capitalize(), word.upper())))
    decimal, group = schema.marks(field)
    for key in ("decimal", "group", "notation"):
        full.pop(key, None)
    if field.type == "number" and decimal != ".":
        full["decimalChar"] = decimal
    if field.type in ("number", "integer") and group is not None and (field.type == "number" or field.group):
        full["groupChar"] = group
    if field.notation is not None:
        full["bareNumber"] = False
    return {"name": name, **full}


def read_schema(path: Path) -> Schema:
    """Read and check a schema file.

    Raises
    ------
    UsageError
        Naming file, table, key and what was expected.
    """
    return read_toml(path, Schema)
