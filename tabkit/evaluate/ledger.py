"""The holdout is opened once per run, and every question asked of its rows is remembered on this machine.

Rows are recognised by what they hold (:mod:`tabkit.data.marks`): renaming, reordering, cutting or splitting a table anew
makes no new holdout of rows that were looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from tabkit.data.marks import Sketch
from tabkit.errors import UsageError

LEDGER = "TABKIT_LEDGER"
"""Environment variable that names the ledger's file."""
LEAST_SHARED = 0.05
"""Share of the rows held out from which an earlier opening counts as one of these rows."""

Rows = TypeVar("Rows")
"""What is sealed: encoded rows of a table, or what users took in a window."""


def ledger_path() -> Path:
    """Return where openings are remembered: ``TABKIT_LEDGER``, else the user's state folder.

    Raises
    ------
    UsageError
        What is named keeps nothing, such as ``/dev/null``.
    """
    if stated := os.environ.get(LEDGER):
        path = Path(stated)
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(
                f"{LEDGER} is {path}, which is no file: how often a holdout was opened has to be kept. Name a file, or unset {LEDGER}."
            )
        return path
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "tabkit" / "holdouts.jsonl"


def question_of(facts: Mapping[str, Any]) -> str:
    """Return a hash of what an answer depends on."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Opening:
    """What is asked of which rows.

    Attributes
    ----------
    question
        The same for runs that cannot differ in their answer: a hash of recipe, data, seed and options.
    rows
        What the rows are recognised by.
    """

    question: str
    rows: Sketch


@dataclass(frozen=True)
class Looks:
    """How often rows were looked at on this machine.

    Attributes
    ----------
    openings
        Openings of these rows, or of a part of them, this one included.
    question
        The number of the question among all that were asked of them; asked again, a question keeps its number.
    """

    openings: int
    question: int


def question_number(looks: Looks | None) -> int:
    """Return the number of a question; the first where no ledger could be kept, which a check says."""
    return 1 if looks is None else looks.question


class Sealed(Generic[Rows]):
    """Holdout rows behind a seal: :meth:`open` works once, after every choice has been made."""

    def __init__(self, rows: Rows, opening: Opening) -> None:
        self._rows: Rows | None = rows
        self._opening = opening

    def open(self) -> tuple[Rows, Looks | None]:
        """Break the seal.

        Returns
        -------
        tuple
            The rows, and how often they were looked at; None where the ledger could not be written.

        Raises
        ------
        RuntimeError
            It was opened before in this run.
        """
        if self._rows is None:
            raise RuntimeError("the holdout was opened twice in one run; every choice must be made before it is opened")
        rows, self._rows = self._rows, None
        return rows, _remember(self._opening)


def _remember(opening: Opening) -> Looks | None:
    path = ledger_path()
    entry = {
        "opened": datetime.now(UTC).isoformat(timespec="microseconds"),
        "process": os.getpid(),
        "question": opening.question,
        "whole": opening.rows.whole,
        "rows": opening.rows.to_text(),
    }
    line = json.dumps(entry)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as ledger:  # one write: lines of runs side by side do not mix
            ledger.write(f"\n{line}\n".encode())  # a line of its own, even after one that was cut short
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    if line not in lines:  # a full disk takes a part of it
        return None
    before = lines[: lines.index(line)]  # what others asked since does not count
    earlier = [question for question, rows in map(_read, before) if opening.rows.share_in(rows) >= LEAST_SHARED]
    asked = list(dict.fromkeys([*earlier, opening.question]))
    return Looks(openings=len(earlier) + 1, question=asked.index(opening.question) + 1)


def _read(line: str) -> tuple[str, Sketch]:
    """Return an entry; one cut short by a crash, or of another version, has no rows and hides no other."""
    try:
        entry: dict[str, Any] = json.loads(line)
        return str(entry["question"]), Sketch.from_text(entry["rows"], whole=bool(entry["whole"]))
    except (ValueError, KeyError, TypeError):
        return "", Sketch((), whole=True)
