"""The twin of ``tabkit pretrain``: a base by its name, on synthetic tables or continued on real ones."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from tabkit.errors import UsageError, nearest
from tabkit.pretraining.checkpoint import LOG
from tabkit.pretraining.continuation import Continuation, Continued, continue_icl
from tabkit.pretraining.loop import Stint, pretrain_icl
from tabkit.pretraining.schedule import Schedule

BASES = ("icl",)


class Settings(TypedDict, total=False):
    """Settings of one kind of work only; None is as good as leaving one out.

    On synthetic tables: ``steps`` of the whole schedule, ``seconds`` after which to stop and checkpoint, ``workers``
    (processes), and ``start``, the weights to learn further (``"shipped"``, or a ``weights/`` folder).
    With ``continue_on``: ``epochs`` at most, per table left out.
    """

    steps: int | None
    seconds: float | None
    workers: int | None
    start: str | Path | None
    epochs: int | None


_ON_REAL_TABLES = ("epochs",)


@dataclass(frozen=True)
class Pretrained:
    """Where a base went, how far it came, and its mean losses on synthetic tables that no step draws."""

    weights: Path
    log: Path
    step: int
    tables: int
    valid: dict[str, float]


def pretrain(
    base: str,
    out: str | Path,
    *,
    continue_on: Sequence[str] = (),
    device: Literal["cpu", "cuda"] = "cpu",
    seed: int = 0,
    watch: Callable[[str, float, str], None] = lambda stage, fraction, note: None,
    **settings: Unpack[Settings],
) -> Pretrained | Continued:
    """Pretrain a base on synthetic tables, or continue it on real ones; call it again to go on where it stopped.

    Parameters
    ----------
    base
        ``icl``.
    out
        Folder of checkpoints, log and weights; resumed if it holds some.
    continue_on
        Continue the shipped base on these tables instead, each ``RECIPE`` (its sample) or ``RECIPE=DATA``.
    watch
        Called with (stage, fraction, note) as the work goes on.
    settings
        See :class:`Settings`.

    Raises
    ------
    UsageError, DataError
        The base is unknown, a setting has no meaning here, or ``out`` holds other work; or a table cannot be used.
    """
    if base not in BASES:
        raise UsageError(f"tabkit pretrains no base '{base}'.{nearest(base, BASES)}")
    for name, value in settings.items():
        if value is not None and (name in _ON_REAL_TABLES) != bool(continue_on):
            flag = "--from" if name == "start" else f"--{name}"
            relation = "has no meaning with" if continue_on else "needs"
            raise UsageError(f"{flag} {relation} --continue-on. Leave it out.")
    if continue_on:
        rules = Continuation(seed=seed, epochs=settings.get("epochs") or Continuation.epochs)
        stage = f"{base} (continuing)"
        return continue_icl(continue_on, Path(out), rules, device, lambda fraction, note: watch(stage, fraction, note))
    steps, start = settings.get("steps") or Schedule.steps, settings.get("start")
    folder = None if start in (None, "shipped") else Path(start)
    stint = Stint(
        workers=settings.get("workers") or 2,
        device=device,
        seconds=settings.get("seconds") or math.inf,
        progress=lambda step, note: watch(f"{base} (pretraining)", step / steps, note),
    )
    schedule = Schedule.further(steps, seed, folder) if start else Schedule(steps, seed)
    weights = pretrain_icl(Path(out), schedule, start=folder, stint=stint)
    log = Path(out) / LOG
    last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    valid = {name: loss for name, loss in last.items() if name.startswith("valid_")}
    return Pretrained(weights, log, last["step"], last["tables"], valid)
