"""The holdout's seal and the memory of openings."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_features

from tabkit.evaluate.ledger import Sealed


def test_opened_once_per_run_and_remembered_across_runs() -> None:
    rows = make_features("binary", 10)
    sealed = Sealed(rows, "a")
    assert sealed.open() == (rows, 1)
    with pytest.raises(RuntimeError, match="opened twice"):
        sealed.open()
    assert Sealed(rows, "a").open()[1] == 2
    assert Sealed(rows, "b").open()[1] == 1


def test_a_broken_line_hides_no_other(own_ledger: Path) -> None:
    rows = make_features("binary", 10)
    Sealed(rows, "a").open()
    with own_ledger.open("a") as ledger:
        ledger.write('{"holdout": "a"')
        ledger.write("\n")
    assert Sealed(rows, "a").open()[1] == 2


def test_an_unwritable_ledger_is_said_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("TABKIT_LEDGER", str(blocked / "ledger.jsonl"))
    assert Sealed(make_features("binary", 10), "a").open()[1] is None
