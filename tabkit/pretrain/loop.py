"""The pretraining loop of the in-context base: draw tables, sum gradients, step, validate, checkpoint.

Every table is drawn from (seed, step, micro-batch) and gradients are summed in a fixed order, so a run gives the
same weights after any number of kills, and with any number of workers.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tabkit.errors import UsageError
from tabkit.models.parts.icl_net import Draw, IclConfig, IclNet, class_probabilities, crps, random_draw
from tabkit.models.parts.icl_prior import MAX_CLASSES, draw, draw_easy
from tabkit.models.parts.icl_weights import open_folder
from tabkit.models.parts.torch_loop import one_thread
from tabkit.pretrain.muon import Muon

VALID_TABLES = 192
_VALID_SEED = 10_007


@dataclass(frozen=True)
class Plan:
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
    """SHA-256 of the weights that are learned further; empty where the network is drawn afresh."""

    @classmethod
    def further(cls, steps: int, seed: int, start: Path | None) -> Plan:
        """Return how the weights in ``start`` are learned further: at a third of the rate, on contexts twice as long."""
        known = open_folder(start)[1].sha256
        return cls(
            steps, seed, context=(24, 2048), learning_rate=7e-4, decay=0.6, easy_steps=0, long_from=0.0, start=known
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, constant, linear to zero over the last share.

        >>> plan = Plan(steps=1000, learning_rate=1.0)
        >>> plan.rate(0), plan.rate(500), plan.rate(850)
        (0.01, 1.0, 0.5)
        """
        left = (self.steps - step) / (self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warm_up, left)


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


def pretrain_icl(
    out: Path,
    plan: Plan,
    config: IclConfig | None = None,
    workers: int = 1,
    device: str = "cpu",
    seconds: float = math.inf,
    every: int = 50,
    start: Path | None = None,
    progress: Callable[[int, str], None] = lambda step, note: None,
) -> Path:
    """Pretrain until ``plan.steps`` or the clock; resume where ``out`` holds a checkpoint.

    With ``plan.start``, the network begins as that of the folder ``start`` (None: the shipped one), whose weights must
    have that hash.

    Writes ``checkpoint.safetensors`` (weights and optimiser), ``checkpoint.json``, ``log.jsonl`` (one line per
    ``every`` steps: losses, validation, throughput) and ``weights/`` (what the kit loads).

    Raises
    ------
    UsageError
        ``out`` holds a checkpoint of another plan or network, or ``start`` holds other weights than the plan's.
    """
    out.mkdir(parents=True, exist_ok=True)
    config = config or IclConfig()
    with _seeded(plan.seed):
        net = IclNet(config)
    if plan.start:
        net, weights = open_folder(start)
        config = net.config
        if weights.sha256 != plan.start:
            raise UsageError(f"{weights.source}: the weights are not those of the plan. Expected SHA-256 {plan.start}.")
    optimisers = _optimisers(net, plan)
    step, tables = _resume(out, plan, config, net, optimisers)
    net.to(device)
    deadline, started, tables_before = time.monotonic() + seconds, time.monotonic(), tables
    losses: list[float] = []
    # One thread, so that a sum is taken in the same order on any machine; the work is in the workers.
    with one_thread(), _gradients(net, plan, workers, device) as gradients:
        while step < plan.steps and time.monotonic() < deadline:
            loss, n_tables = gradients(step)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = plan.rate(step)
                optimiser.step()
            step, tables = step + 1, tables + n_tables
            losses.append(loss)
            progress(step, f"step {step:,} of {plan.steps:,}, loss {np.mean(losses[-50:]):.4f}")
            if step % every == 0 or step == plan.steps or time.monotonic() >= deadline:
                rate = (tables - tables_before) / (time.monotonic() - started)
                line = {
                    "step": step,
                    "tables": tables,
                    "loss": round(float(np.mean(losses)), 5),
                    "learning_rate": plan.rate(step - 1),
                    "tables_per_second": round(rate, 2),
                    **validate(net, plan, device),
                }
                losses = []
                _checkpoint(out, plan, config, net, optimisers, step, tables, line)
    return write_weights(out / "weights", net, config, {"steps": step, "tables": tables, "plan": asdict(plan)})


def write_weights(
    folder: Path, net: IclNet, config: IclConfig, made: dict[str, Any], licence: str = "Apache-2.0"
) -> Path:
    """Write the weights as the kit ships them: bfloat16 safetensors, and the sizes with how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in net.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    facts = {"licence": licence, "net": config.as_dict(), "made": made}
    (folder / "config.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Shape:
    """Sizes of a micro-batch: tables, context and query rows, columns; and the generator that draws its cells."""

    n_tables: int
    n: int
    q: int
    c: int
    easy: bool
    rng: np.random.Generator

    @property
    def cells(self) -> int:
        """What it costs, roughly: cells of all rows, with the target's and the row's own."""
        return self.n_tables * (self.n + self.q) * (self.c + 2)


def shape_of(plan: Plan, step: int, micro: int) -> Shape:
    """Draw the sizes of the micro-batch ``micro`` of ``step``."""
    rng = np.random.default_rng([plan.seed, step, micro])
    longest, widest, cells = plan.context[1], plan.columns[1], plan.cells
    easy = step < plan.easy_steps
    if easy:
        longest, widest, cells = min(96, longest), min(6, widest), cells // 2
    elif step < plan.long_from * plan.steps:
        longest = min(384, longest)
    n = _log_uniform(rng, plan.context[0], longest)
    c = _log_uniform(rng, plan.columns[0], widest)
    q = max(32, n // 4)
    return Shape(max(1, min(16, cells // ((n + q) * (c + 2)))), n, q, c, easy, rng)


def episodes(plan: Plan, step: int, micro: int) -> Episodes:
    """Draw the micro-batch ``micro`` of ``step``."""
    shape = shape_of(plan, step, micro)
    regression = bool(shape.rng.random() < plan.regression)
    return draw_episodes(shape.rng, shape.n_tables, shape.n, shape.q, shape.c, regression, shape.easy)


def draw_episodes(
    rng: np.random.Generator, n_tables: int, n: int, q: int, c: int, regression: bool, easy: bool = False
) -> Episodes:
    """Draw tables with ``n`` context rows, ``q`` query rows and ``c`` columns; ``easy`` ones are plain and linear."""
    one = draw_easy if easy else draw
    drawn = [one(rng, n + q, n, c, regression) for _ in range(n_tables)]
    return Episodes(
        torch.from_numpy(np.stack([table.x for table in drawn])),
        torch.from_numpy(np.stack([table.y for table in drawn])),
        torch.from_numpy(np.stack([table.categorical for table in drawn])),
        torch.tensor([table.n_classes for table in drawn]),
        random_draw(rng, n_tables, c, MAX_CLASSES),
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


def validate(net: IclNet, plan: Plan, device: str) -> dict[str, float]:
    """Return mean losses on fixed synthetic tables that no step draws: small, medium, and regression."""
    groups: dict[str, list[float]] = {"valid_small": [], "valid_medium": [], "valid_regression": []}
    shapes = {"valid_small": (100, 6), "valid_medium": (256, 12), "valid_regression": (160, 8)}
    was_training = net.training
    net.eval()
    with torch.inference_mode():
        for number, (name, (n, c)) in enumerate(shapes.items()):
            for k in range(VALID_TABLES // 3 // 8):
                rng = np.random.default_rng([_VALID_SEED, number, k])
                batch = draw_episodes(rng, 8, n, 64, c, name == "valid_regression").to(device)
                groups[name].append(float(episode_loss(net, batch)))
    net.train(was_training)
    return {name: round(float(np.mean(values)), 5) for name, values in groups.items()}


def _log_uniform(rng: np.random.Generator, low: int, high: int) -> int:
    return int(np.exp(rng.uniform(math.log(low), math.log(high + 1))))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _optimisers(net: IclNet, plan: Plan) -> list[torch.optim.Optimizer]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        inner = name.startswith(("cell_layers", "row_layers")) and name.endswith("weight") and parameter.ndim == 2
        (matrices if inner else others).append(parameter)
    return [
        Muon(matrices, lr=plan.learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@contextmanager
def _gradients(net: IclNet, plan: Plan, workers: int, device: str) -> Iterator[Callable[[int], tuple[float, int]]]:
    """Give a function that leaves a step's summed gradients in ``net``; returns mean loss and number of tables."""
    if device == "cpu":
        net.share_memory()
        size = sum(p.numel() for p in net.parameters())
        room = torch.zeros(plan.micro_batches, size).share_memory_()  # type: ignore[no-untyped-call]
        with ProcessPoolExecutor(workers, get_context("fork"), _start_worker, (net, plan, room)) as pool:

            def on_cpu(step: int) -> tuple[float, int]:
                # The largest first, so that no worker is left alone with it at the end of a step.
                order = sorted(range(plan.micro_batches), key=lambda micro: -shape_of(plan, step, micro).cells)
                futures = {micro: pool.submit(_gradient, (step, micro)) for micro in order}
                done = [futures[micro].result() for micro in range(plan.micro_batches)]
                _put_gradient(net, room.mean(dim=0))
                return float(np.mean([loss for loss, _ in done])), sum(n for _, n in done)

            yield on_cpu
        return
    # A GPU outruns a processor that draws tables: draw ahead in all workers, and learn in this process.
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_drawer, (plan,)) as pool:
        ahead: dict[int, list[Any]] = {}

        def on_gpu(step: int) -> tuple[float, int]:
            for later in range(step, min(step + 4, plan.steps)):
                if later not in ahead:
                    ahead[later] = [pool.submit(_draw, later, micro) for micro in range(plan.micro_batches)]
            net.zero_grad(set_to_none=True)
            losses, n_tables = [], 0
            for future in ahead.pop(step):
                batch = future.result().to(device)
                loss = episode_loss(net, batch, plan.precision) / plan.micro_batches
                loss.backward()  # type: ignore[no-untyped-call]
                losses.append(loss.detach())
                n_tables += len(batch.x)
            return float(torch.stack(losses).sum()), n_tables

        yield on_gpu


_worker: dict[str, Any] = {}


def _start_worker(net: IclNet, plan: Plan, room: Tensor) -> None:
    torch.set_num_threads(1)
    _worker.update(net=net, plan=plan, room=room)


def _start_drawer(plan: Plan) -> None:
    torch.set_num_threads(1)
    _worker.update(plan=plan)


def _draw(step: int, micro: int) -> Episodes:
    return episodes(_worker["plan"], step, micro)


def _gradient(place: tuple[int, int]) -> tuple[float, int]:
    net, room, plan = _worker["net"], _worker["room"], _worker["plan"]
    batch = _draw(*place)
    net.zero_grad(set_to_none=True)
    loss = episode_loss(net, batch, plan.precision)
    loss.backward()  # type: ignore[no-untyped-call]
    flat = [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in net.parameters()]
    room[place[1]] = torch.cat(flat)
    return float(loss.detach()), len(batch.x)


def _put_gradient(net: IclNet, flat: Tensor) -> None:
    for parameter, part in zip(net.parameters(), torch.split(flat, [p.numel() for p in net.parameters()]), strict=True):
        parameter.grad = part.view_as(parameter)


def _checkpoint(
    out: Path,
    plan: Plan,
    config: IclConfig,
    net: IclNet,
    optimisers: list[torch.optim.Optimizer],
    step: int,
    tables: int,
    line: dict[str, Any],
) -> None:
    tensors = {f"net.{name}": t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{number}.{index}.{k}": torch.as_tensor(v).cpu().contiguous() for k, v in state.items()}
    # The numbers go in with the tensors: one rename, and a kill leaves the old pair or the new one.
    header = {
        "step": str(step),
        "tables": str(tables),
        "plan": json.dumps(asdict(plan)),
        "net": json.dumps(config.as_dict()),
    }
    save_file(tensors, out / "checkpoint.part", metadata=header)
    os.replace(out / "checkpoint.part", out / "checkpoint.safetensors")
    with (out / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    write_weights(out / "weights", net, config, {"steps": step, "tables": tables, "plan": asdict(plan)})


def _resume(
    out: Path, plan: Plan, config: IclConfig, net: IclNet, optimisers: list[torch.optim.Optimizer]
) -> tuple[int, int]:
    from safetensors import safe_open

    path = out / "checkpoint.safetensors"
    if not path.exists():
        (out / "log.jsonl").unlink(missing_ok=True)
        return 0, 0
    with safe_open(path, "pt") as file:
        header = file.metadata()
    step, before = int(header["step"]), json.loads(header["plan"])
    same = {
        k: list(v) if isinstance(v, tuple) else v for k, v in asdict(plan).items() if k not in ("steps", "long_from")
    }
    other = {k: v for k, v in same.items() if before.get(k, "") != v}
    if other or json.loads(header["net"]) != config.as_dict():
        raise UsageError(
            f"{path} was made with another plan, however: {other or 'network'}. Choose another --out, or the same plan."
        )
    stored = load_file(path)
    net.load_state_dict({name.removeprefix("net."): t for name, t in stored.items() if name.startswith("net.")})
    for number, optimiser in enumerate(optimisers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in stored.items():
            owner, _, rest = name.partition(".")
            if owner == str(number):
                index, _, key = rest.partition(".")
                state.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    log = out / "log.jsonl"
    if log.exists():  # lines after the checkpoint are those of steps that will be taken again
        kept = [line for line in log.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    return step, int(header["tables"])
