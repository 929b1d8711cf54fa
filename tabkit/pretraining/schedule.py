"""What the in-context base learns from, and how fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabkit.models.parts.icl_weights import open_folder


@dataclass(frozen=True)
class Schedule:
    """What is drawn and how it is learned. ``steps`` may grow on resuming, as long as the decay has not begun."""

    steps: int = 3000
    seed: int = 0
    micro_batches: int = 4
    cells: int = 12_000
    context: tuple[int, int] = (24, 1024)
    columns: tuple[int, int] = (2, 30)
    regression: float = 0.25
    learning_rate: float = 2e-3
    warm_up: int = 100
    decay: float = 0.3
    easy_steps: int = 80
    """Steps on small tables with linear targets first: there it is learned in seconds to look a target up in the
    context, which the prior's mixture takes hundreds of steps to teach [measured: no gain in the first 150]."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """Of matrix products while learning; on a CPU without bfloat16 units, single precision is faster."""
    long_from: float = 0.5
    """Share of the steps after which contexts beyond 384 rows are drawn: short ones teach most per second."""
    start: str = ""
    """SHA-256 of the weights that are learned further; empty if the network is drawn afresh."""

    @classmethod
    def further(cls, steps: int, seed: int, start: Path | None) -> Schedule:
        """Return how the weights in ``start`` are learned further: at a third of the rate, on contexts twice as long."""
        known = open_folder(start)[1].sha256
        return cls(
            steps, seed, context=(24, 2048), learning_rate=7e-4, decay=0.6, easy_steps=0, long_from=0.0, start=known
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, constant, linear to zero over the last share.

        >>> schedule = Schedule(steps=1000, learning_rate=1.0)
        >>> schedule.rate(0), schedule.rate(500), schedule.rate(850)
        (0.01, 1.0, 0.5)
        """
        left = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, left)
