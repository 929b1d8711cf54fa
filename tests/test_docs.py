"""Pages of the docs that are written from the code say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tabkit.ranking import Ranking

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_page_of_ranking_is_the_one_that_its_keys_make() -> None:
    spec = importlib.util.spec_from_file_location("docs_write", DOCS / "write.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (DOCS / "ranking.md").read_text(encoding="utf-8")
    assert text == module.page(), "run: python docs/write.py"
    for name, field in Ranking.model_fields.items():
        assert f"| `{name}` |" in text and field.description and field.examples, name
