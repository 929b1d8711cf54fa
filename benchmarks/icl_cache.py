"""What caching the encoded context is worth: python benchmarks/icl_cache.py.

The shipped network answers query rows in batches of 256, once with the context encoded one time, once with the context
encoded anew for each batch; both in one run, each in its own process, on one thread. The weights must agree.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from tabkit.models.icl import PREDICT_ROWS
from tabkit.models.parts.icl_net import class_probabilities, random_draw
from tabkit.models.parts.icl_weights import open_folder


def answer(cached: bool, n_context: int, n_queries: int, n_columns: int) -> tuple[float, float, np.ndarray]:
    """Return seconds, the process's peak megabytes beyond those before, and probabilities (n_queries,)."""
    torch.set_num_threads(1)
    net = open_folder(None)[0].eval()
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((1, n_context + n_queries, n_columns), np.float32))
    y = (x[:, :n_context, 0] + x[:, :n_context, 1] > 0).float()
    flags = torch.zeros(1, n_columns, dtype=torch.bool)
    draw = random_draw(rng, 1, n_columns, 2)
    context, before = x[:, :n_context], peak_mb()
    out = []
    started = time.perf_counter()
    with torch.inference_mode():
        encoded = net.encode(context, y, flags, False, draw)
        for batch in x[:, n_context:].split(PREDICT_ROWS, dim=1):
            if not cached and out:
                encoded = net.encode(context, y, flags, False, draw)
            out.append(class_probabilities(net.answer(encoded, batch, flags, False), y, 2)[0, :, 1])
    return time.perf_counter() - started, peak_mb() - before, torch.cat(out).numpy()


def peak_mb() -> float:
    """Return the process's peak resident memory, as Linux tells it."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Measure both ways at each size of the context; print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context", type=int, nargs="+", default=[1000, 4000])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--columns", type=int, default=20)
    options = parser.parse_args()
    print(f"{options.queries:,} query rows, {options.columns} columns, one thread\n")
    print("| context rows | cached, s | not cached, s | times faster | rows/s cached | peak MB cached | peak MB not |")
    print("|---|---|---|---|---|---|---|")
    for n in options.context:
        sizes = (n, options.queries, options.columns)
        ways = []
        for cached in (True, False):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                ways.append(pool.submit(answer, cached, *sizes).result())
        (s, mb, p), (s_not, mb_not, p_not) = ways
        assert np.allclose(p, p_not, atol=1e-6)
        print(
            f"| {n:,} | {s:.1f} | {s_not:.1f} | {s_not / s:.1f} | {options.queries / s:,.0f} | {mb:,.0f} | {mb_not:,.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
