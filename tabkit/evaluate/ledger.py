"""The holdout is opened once per run, and every opening of the same rows is remembered on this machine."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

LEDGER = "TABKIT_LEDGER"
"""Environment variable that names the ledger's file."""

Rows = TypeVar("Rows")
"""What is sealed: encoded rows of a table, or what users took in a window."""


def ledger_path() -> Path:
    """Return where openings are remembered: ``TABKIT_LEDGER``, else the user's state folder."""
    if stated := os.environ.get(LEDGER):
        return Path(stated)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "tabkit" / "holdouts.jsonl"


class Sealed(Generic[Rows]):
    """Holdout rows behind a seal: :meth:`open` works once, after every choice has been made."""

    def __init__(self, rows: Rows, key: str) -> None:
        """``key`` names the very rows held out: data fingerprint, split rule and seed."""
        self._rows: Rows | None = rows
        self._key = key

    def open(self) -> tuple[Rows, int | None]:
        """Break the seal.

        Returns
        -------
        tuple
            The rows, and how often these rows have been opened on this machine, this time included; None
            where the ledger could not be written.

        Raises
        ------
        RuntimeError
            It was opened before in this run.
        """
        if self._rows is None:
            raise RuntimeError("the holdout was opened twice in one run; every choice must be made before it is opened")
        rows, self._rows = self._rows, None
        return rows, _remember(self._key)


def _remember(key: str) -> int | None:
    path = ledger_path()
    entry = json.dumps({"holdout": key, "opened": datetime.now(UTC).isoformat(timespec="seconds")}) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as ledger:
            ledger.write(entry)
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return sum(_key_of(line) == key for line in lines)


def _key_of(line: str) -> str | None:
    try:
        return str(json.loads(line)["holdout"])
    except (ValueError, KeyError, TypeError):
        return None  # a line cut short by a crash must not hide the others
