"""The draws that were made, a line of JSON each; a run that was killed goes on after the last whole line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .draws import Draw
from .scenarios import SCENARIOS


def read(path: Path) -> list[Draw]:
    """Return the draws of a file."""
    return [Draw.model_validate_json(line) for line in path.read_text(encoding="utf-8").splitlines()]


def mend(path: Path) -> None:
    """Cut off a last line that a kill left unfinished."""
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def append(path: Path, draw: Draw) -> None:
    """Add a draw."""
    with path.open("a", encoding="utf-8") as file:
        file.write(draw.model_dump_json() + "\n")


def to_do(rounds: int, only: Sequence[str], done: set[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yield scenario and number of each draw that is left, round by round, so that a part of them is a fair one."""
    for number in range(rounds):
        for name in only:
            if number % SCENARIOS[name].every == 0 and (name, number) not in done:
                yield name, number
