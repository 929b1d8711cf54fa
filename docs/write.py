"""Write ``docs/ranking.md`` from the keys of the model: ``python docs/write.py``; a test holds the page to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tomlkit
from pydantic.fields import FieldInfo

from tabkit.ranking import Ranking

PAGE = Path(__file__).with_name("ranking.md")

HEAD = """# Lists: every key of `[ranking]`

A recipe with `task = "ranking"` lists items for users. Its `id` is the user, its `target` the item, its `time` the moment;
the table `[ranking]` says the rest. `tabkit new VERTICAL/NAME --data events.csv --task ranking` writes it from a log of
events; `tabkit show RECIPE` explains what a recipe asks.

```toml
[ranking]
basket = "order_id"
attributes = ["product_type", "brand"]
days = 28
```

Times may be dates, times (with an offset they become UTC), or numbers: seconds, milliseconds, microseconds or nanoseconds
since 1970-01-01, or days. A log must span at least six windows: the holdout, the one that choices are made on, and
what bases and re-ranker learn from.

"""


def page() -> str:
    """Return the page."""
    lines = ["| key | type | default | example | meaning |", "|---|---|---|---|---|"]
    for name, field in Ranking.model_fields.items():
        default = "none" if field.default is None else f"`{_toml(field.default)}`"
        examples = ", ".join(f"`{_toml(value)}`" for value in field.examples or ())
        lines.append(f"| `{name}` | {_type(field)} | {default} | {examples} | {field.description} |")
    return HEAD + "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    return tomlkit.item(value).as_string()


def _type(field: FieldInfo) -> str:
    text = re.sub(r"<class '(?:datetime\.)?(\w+)'>|datetime\.", r"\1", str(field.annotation)).replace("typing.", "")
    words = {
        "list[str]": "list of columns", "list[int | str]": "list of values", "float": "number", "int": "whole number",
        "str": "text", "bool": "true or false", "date | datetime": "date or moment", "date": "date",
    }  # fmt: skip
    return words[text.removesuffix(" | None")]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
