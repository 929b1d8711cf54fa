"""The pretraining loop of the in-context base: draw tables, sum gradients, step, validate, checkpoint.

Every table is drawn from (seed, step, micro-batch) and gradients are summed in a fixed order, so a run gives the
same weights after any number of kills, and with any number of workers.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing import get_context

from tabkit.models.parts.icl_net import Draw, IclConfig, IclNet, class_probabilities, crps, random_draw
from tabkit.models.parts.icl_prior import MAX_CLASSES, draw, draw_easy
from tabkit.pretraining.checkpoint import Learner
from tabkit.pretraining.schedule import Schedule
from tabkit.torch_loop import one_thread

_START = "fork" if sys.platform == "linux" else "spawn"
"""Forking begins at once, but Windows cannot fork, and on macOS a fork of a process with threads may hang."""

VALID_TABLES = 192
_VALID_SEED = 10_007


@dataclass(frozen=True)
class Episodes:
    """A micro-batch of tables of one shape: ``x`` (B, R, C), ``y`` (B, R), of which ``n`` rows are context."""

    x: Tensor
    y: Tensor
    categorical: Tensor
    n_classes: Tensor
    draw: Draw
    n: int
    regression: bool

    def to(self, device: str) -> Episodes:
        """Return the same tables on a device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        draw = Draw(self.draw.ids.to(device), self.draw.codes.to(device))
        return Episodes(**{**vars(self), **moved, "draw": draw})


@dataclass(frozen=True)
class Stint:
    """One stretch of the work, by one command: the weights do not depend on it.

    ``workers`` are processes; it ends after ``seconds``; every ``every`` steps it validates and checkpoints, and it
    tells ``progress`` of each step.
    """

    workers: int = 1
    device: str = "cpu"
    seconds: float = math.inf
    every: int = 50
    progress: Callable[[int, str], None] = lambda step, note: None


def pretrain_icl(
    out: Path,
    schedule: Schedule,
    config: IclConfig | None = None,
    *,
    start: Path | None = None,
    stint: Stint | None = None,
) -> Path:
    """Pretrain until ``schedule.steps`` or the clock; resume if ``out`` holds a checkpoint.

    With ``schedule.start``, the network begins as that of the folder ``start`` (None: the shipped one), whose weights
    must have that hash.

    Writes ``checkpoint.safetensors`` (weights and optimiser), ``log.jsonl`` (a line per checkpoint: losses,
    validation, throughput) and ``weights/`` (what the kit loads).

    Raises
    ------
    UsageError
        ``out`` holds a checkpoint of another schedule or network, or ``start`` holds other weights than the schedule's.
    """
    stint = stint or Stint()
    out.mkdir(parents=True, exist_ok=True)
    learner = Learner.open(out, schedule, config or IclConfig(), start)
    net = learner.net.to(stint.device)
    started, tables_before = time.monotonic(), learner.tables
    losses: list[float] = []
    # One thread, so that a sum is taken in the same order on any machine; the work is in the workers.
    with one_thread(), _gradients(net, schedule, stint) as gradients:
        while learner.step < schedule.steps and time.monotonic() < started + stint.seconds:
            loss, n_tables = gradients(learner.step)
            learner.apply()
            learner.tables += n_tables
            losses.append(loss)
            step = learner.step
            stint.progress(step, f"step {step:,} of {schedule.steps:,}, loss {np.mean(losses[-50:]):.4f}")
            seconds = time.monotonic() - started
            if step % stint.every == 0 or step == schedule.steps or seconds >= stint.seconds:
                line = {
                    "step": step,
                    "tables": learner.tables,
                    "loss": round(float(np.mean(losses)), 5),
                    "learning_rate": schedule.rate(step - 1),
                    "tables_per_second": round((learner.tables - tables_before) / seconds, 2),
                    **validate(net, stint.device),
                }
                losses = []
                learner.save(line)
    return learner.write_weights()


@dataclass(frozen=True)
class Shape:
    """Sizes of a micro-batch: tables, context and query rows, columns; and the generator that draws its cells.

    ``easy`` tables are plain and linear.
    """

    n_tables: int
    n: int
    q: int
    c: int
    rng: np.random.Generator
    easy: bool = False

    @property
    def cells(self) -> int:
        """What it costs, roughly: cells of all rows, with the target's and the row's own."""
        return self.n_tables * (self.n + self.q) * (self.c + 2)


def shape_of(schedule: Schedule, step: int, micro: int) -> Shape:
    """Draw the sizes of the micro-batch ``micro`` of ``step``."""
    rng = np.random.default_rng([schedule.seed, step, micro])
    longest, widest, cells = schedule.context[1], schedule.columns[1], schedule.cells
    easy = step < schedule.easy_steps
    if easy:
        longest, widest, cells = min(96, longest), min(6, widest), cells // 2
    elif step < schedule.long_from * schedule.steps:
        longest = min(384, longest)
    n = _log_uniform(rng, schedule.context[0], longest)
    c = _log_uniform(rng, schedule.columns[0], widest)
    q = max(32, n // 4)
    return Shape(max(1, min(16, cells // ((n + q) * (c + 2)))), n, q, c, rng, easy)


def episodes(schedule: Schedule, step: int, micro: int) -> Episodes:
    """Draw the micro-batch ``micro`` of ``step``."""
    shape = shape_of(schedule, step, micro)
    regression = bool(shape.rng.random() < schedule.regression)
    return draw_episodes(shape, regression=regression)


def draw_episodes(shape: Shape, *, regression: bool) -> Episodes:
    """Draw the tables of a micro-batch."""
    rng, n, c = shape.rng, shape.n, shape.c
    one = draw_easy if shape.easy else draw
    tables = [one(rng, n + shape.q, n, c, regression) for _ in range(shape.n_tables)]
    return Episodes(
        torch.from_numpy(np.stack([table.x for table in tables])),
        torch.from_numpy(np.stack([table.y for table in tables])),
        torch.from_numpy(np.stack([table.categorical for table in tables])),
        torch.tensor([table.n_classes for table in tables]),
        random_draw(rng, shape.n_tables, c, MAX_CLASSES),
        n,
        regression,
    )


def episode_loss(net: IclNet, batch: Episodes, precision: str = "float32") -> Tensor:
    """Return the mean log loss of the query rows; twice their mean CRPS for regression, which is of like size."""
    n = batch.n
    context, truth = batch.y[:, :n], batch.y[:, n:]
    # The network alone runs in low precision: a probability near one has no digits to lose.
    with torch.autocast(batch.x.device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        weights = net(batch.x, context, batch.categorical, batch.regression, batch.draw)
    if batch.regression:
        return 2.0 * crps(weights, context, truth).mean()
    chances = class_probabilities(weights, context, MAX_CLASSES)
    # A class that no context row has is beyond any answer here; the floor keeps it from ruling the loss.
    share = 1e-3 / batch.n_classes[:, None, None]
    return -((1 - 1e-3) * chances + share).gather(2, truth.long()[..., None]).log().mean()


def validate(net: IclNet, device: str) -> dict[str, float]:
    """Return mean losses on fixed synthetic tables that no step draws: small, medium, and regression."""
    groups: dict[str, list[float]] = {"valid_small": [], "valid_medium": [], "valid_regression": []}
    shapes = {"valid_small": (100, 6), "valid_medium": (256, 12), "valid_regression": (160, 8)}
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        for number, (name, (n, c)) in enumerate(shapes.items()):
            for k in range(VALID_TABLES // 3 // 8):
                shape = Shape(8, n, 64, c, np.random.default_rng([_VALID_SEED, number, k]))
                batch = draw_episodes(shape, regression=name == "valid_regression").to(device)
                groups[name].append(float(episode_loss(net, batch)))
    net.train(was_training)
    return {name: round(float(np.mean(values)), 5) for name, values in groups.items()}


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    return int(np.exp(rng.uniform(math.log(low), math.log(high + 1))))


@contextmanager
def _gradients(net: IclNet, schedule: Schedule, stint: Stint) -> Iterator[Callable[[int], tuple[float, int]]]:
    """Give a function that leaves a step's summed gradients in ``net``; returns mean loss and number of tables."""
    if stint.device == "cpu":
        net.share_memory()
        size = sum(p.numel() for p in net.parameters())
        room = torch.zeros(schedule.micro_batches, size).share_memory_()  # type: ignore[no-untyped-call]
        with ProcessPoolExecutor(stint.workers, get_context(_START), _start_worker, (net, schedule, room)) as pool:

            def on_cpu(step: int) -> tuple[float, int]:
                # The largest first, so that no worker is left alone with it at the end of a step.
                order = sorted(range(schedule.micro_batches), key=lambda micro: -shape_of(schedule, step, micro).cells)
                futures = {micro: pool.submit(_gradient, (step, micro)) for micro in order}
                results = [futures[micro].result() for micro in range(schedule.micro_batches)]
                _put_gradient(net, room.mean(dim=0))
                return float(np.mean([loss for loss, _ in results])), sum(n for _, n in results)

            yield on_cpu
        return
    # A GPU outruns a processor that draws tables: draw ahead in all workers, and learn in this process.
    with ProcessPoolExecutor(stint.workers, get_context("spawn"), _start_drawer, (schedule,)) as pool:
        ahead: dict[int, list[Any]] = {}

        def on_gpu(step: int) -> tuple[float, int]:
            for later in range(step, min(step + 4, schedule.steps)):
                if later not in ahead:
                    ahead[later] = [pool.submit(_draw, later, micro) for micro in range(schedule.micro_batches)]
            net.zero_grad(set_to_none=True)
            losses, n_tables = [], 0
            for future in ahead.pop(step):
                batch = future.result().to(stint.device)
                loss = episode_loss(net, batch, schedule.precision) / schedule.micro_batches
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
                n_tables += len(batch.x)
            return float(torch.stack(losses).sum()), n_tables

        yield on_gpu


class _Worker(TypedDict, total=False):
    """What a process was given when it began; one that only draws has no network."""

    net: IclNet
    schedule: Schedule
    room: Tensor


_worker: _Worker = {}


def _start_worker(net: IclNet, schedule: Schedule, room: Tensor) -> None:
    torch.set_num_threads(1)
    _worker.update({"net": net, "schedule": schedule, "room": room})


def _start_drawer(schedule: Schedule) -> None:
    torch.set_num_threads(1)
    _worker.update({"schedule": schedule})


def _draw(step: int, micro: int) -> Episodes:
    return episodes(_worker["schedule"], step, micro)


def _gradient(place: tuple[int, int]) -> tuple[float, int]:
    net, room, schedule = _worker["net"], _worker["room"], _worker["schedule"]
    batch = _draw(*place)
    net.zero_grad(set_to_none=True)
    loss = episode_loss(net, batch, schedule.precision)
    loss.backward()  # type: ignore[no-untyped-call]
    flat = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in net.parameters()]
    room[place[1]] = torch.cat(flat)
    return float(loss.detach()), len(batch.x)


def _put_gradient(net: IclNet, flat: Tensor) -> None:
    for parameter, part in zip(net.parameters(), torch.split(flat, [p.numel() for p in net.parameters()]), strict=True):
        parameter.grad = part.view_as(parameter)
