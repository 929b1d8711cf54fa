"""One seed for a run, many independent streams of random numbers, none of them global."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of one purpose: the same for the same seed and names, independent of all others.

    >>> a, b = stream(0, "split"), stream(0, "adapt", "tabnet")
    >>> bool(a.random() == stream(0, "split").random()), bool(b.random() == stream(0, "split").random())
    (True, False)
    """
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])
