"""What every making of a candidate needs: seed, budget, a watch, and a measure of what it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tabkit.learner import Budget, Cost, Kind, Settings, candidate_name
from tabkit.seed import stream

Watch = Callable[[str, float, str], None]
"""Progress: (stage, fraction done, note)."""


def silent(stage: str, fraction: float, note: str) -> None:
    """Watch nothing."""


@dataclass(frozen=True)
class Wanted:
    """One candidate to be made; with ``settings``, if what an earlier run found is taken over and nothing is searched."""

    base: str
    how: str
    kind: Kind
    settings: Settings | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The candidate's name in tables and files."""
        return candidate_name(self.base, self.how)


@dataclass(frozen=True)
class Runtime:
    """Seed, budget and watch of a run. Each candidate has its own stream of random numbers: none depends on the others."""

    seed: int
    budget: Budget
    watch: Watch = silent

    def stream(self, *names: str) -> np.random.Generator:
        """Return the random numbers of one purpose."""
        return stream(self.seed, *names)

    def budget_of(self, stage: str) -> Budget:
        """Return the budget, its progress told to the watch as that of ``stage``."""
        return replace(self.budget, progress=lambda fraction, note: self.watch(stage, fraction, note))


@contextmanager
def measured() -> Iterator[list[Cost]]:
    """Measure wall seconds, CPU seconds (all threads) and peak resident memory of a block.

    The peak is that of the block on Linux, where it can be reset; elsewhere that of the process so far.
    """
    out: list[Cost] = []
    with suppress(OSError):  # not Linux, or not allowed: the peak is then the process's own
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    start, cpu = time.perf_counter(), time.process_time()
    yield out
    out.append(Cost(time.perf_counter() - start, time.process_time() - cpu, _peak_mb()))


def _peak_mb() -> float:
    with suppress(OSError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    if sys.platform == "win32":
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
