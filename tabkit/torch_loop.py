"""The one training loop, for every base that is trained by gradients. It knows no model.

Early stopping on valid with the untouched base as epoch 0; discriminative learning rates by block (Howard &
Ruder, *ULMFiT*, ACL 2018); gradual unfreezing from the head down (same source); an L2 pull to the base weights
(Li et al., *L2-SP*, ICML 2018); and interpolation between base and tuned weights (Wortsman et al., *WiSE-FT*,
CVPR 2022), its share chosen on valid. What it did is measured on the weights and returned as a proof.

Epochs draw their random numbers from (seed, stage, epoch), so that a replay of the epochs that counted, without
valid, retraces the very same steps. torch's global generator is left as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tabkit.learner import Block, Budget, Proof, Settings, Step

ALPHAS = (0.25, 0.5, 0.75)
"""Shares of the way from base to tuned that are tried, beside all of it and none."""

Job = TypeVar("Job")
Result = TypeVar("Result")

State = dict[str, Tensor]
BatchLoss = Callable[[Tensor, bool], Tensor]
"""(row positions of a batch (B,), whether to augment) -> loss ()."""


@dataclass(frozen=True)
class Pace:
    """How fast to learn, and when to stop.

    Attributes
    ----------
    learning_rate
        That of the head; each block below it learns ``decay`` times slower than the one above.
    pull
        Weight of the squared distance to the base; 0 for none.
    patience
        Epochs without a better valid loss before a stage ends.
    """

    learning_rate: float
    decay: float
    pull: float
    batch_rows: int
    patience: int
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Fitted:
    """What training did; the module passed in holds the weights that ``settings`` describe."""

    history: tuple[Step, ...]
    settings: Settings
    proof: Proof
    notes: tuple[str, ...]
    valid_loss: float


def stages(how: str, blocks: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the stages of a strategy: (name, blocks trained), ``blocks`` ordered from input to head.

    >>> stages("gradual", ["embedding", "body", "head"])
    (('head', ('head',)), ('from body', ('body', 'head')), ('from embedding', ('embedding', 'body', 'head')))
    """
    everything = tuple(blocks)
    if how == "head":
        return (("head", everything[-1:]),)
    if how == "gradual":
        depths = range(len(blocks) - 1, -1, -1)
        return tuple(("head" if d == len(blocks) - 1 else f"from {blocks[d]}", everything[d:]) for d in depths)
    if how == "lora":
        return (("adapters", tuple(name for name in blocks if name.startswith("lora"))),)
    if how in ("full", "scratch"):
        return (("all", everything),)
    raise ValueError(f"no stages are known for {how!r}")


@dataclass(frozen=True)
class Course:
    """What is trained, on what, and how fast.

    Attributes
    ----------
    blocks
        Modules by block name, ordered from input to head. Together they hold every parameter, once.
    batch_loss
        The training loss of a batch of row positions.
    valid_loss
        The loss on valid of the module as it is; not read if settings are replayed.
    """

    module: nn.Module
    blocks: Mapping[str, Sequence[nn.Module]]
    n_rows: int
    batch_loss: BatchLoss
    valid_loss: Callable[[], float]
    pace: Pace


def fit(course: Course, how: str, rng: np.random.Generator, budget: Budget, settings: Settings | None = None) -> Fitted:
    """Train the module of a course in place by the strategy ``how``.

    Parameters
    ----------
    settings
        Those of an earlier fit: its epochs, augmentation and interpolation are replayed, nothing is chosen.

    Raises
    ------
    ValueError
        A parameter belongs to no block, or to two.
    """
    _check_blocks(course.module, course.blocks)
    seed = int(rng.integers(2**31))
    with one_thread():
        job = _Job(course, stages(how, list(course.blocks)), seed, _state(course.module), budget)
        return job.chosen(how) if settings is None else job.replayed(settings)


@dataclass(frozen=True)
class _Found:
    state: State
    valid_loss: float
    epochs: tuple[int, ...]
    history: tuple[Step, ...]
    moved: frozenset[str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    course: Course
    plan: tuple[tuple[str, tuple[str, ...]], ...]
    seed: int
    base: State
    budget: Budget

    def chosen(self, how: str) -> Fitted:
        """Train, and choose on valid: augmentation, epochs, and how far to go from the base."""
        augment = self.budget.effort != "quick" and how != "scratch" and self._augmentation_helps()
        best = self._run(augment=augment)
        if how == "scratch":
            alpha, loss = 1.0, best.valid_loss
            self.course.module.load_state_dict(best.state)
        else:
            alpha, loss = self._interpolate(best.state, best.valid_loss)
        settings = {"epochs": list(best.epochs), "alpha": alpha, "augment": augment}
        return Fitted(best.history, settings, self._proof(best.moved), best.notes, loss)

    def replayed(self, settings: Settings) -> Fitted:
        """Train the epochs that counted in an earlier fit, and mix as it did."""
        module = self.course.module
        moved: set[str] = set()
        for stage, epochs in zip(range(len(self.plan)), settings["epochs"], strict=True):
            optimiser = self._optimiser(stage)
            for epoch in range(int(epochs)):
                self._epoch(optimiser, stage, epoch, augment=bool(settings["augment"]))
                moved |= _moved(self.base, _state(module))
        if settings["alpha"] != 1.0:
            module.load_state_dict(_mix(self.base, _state(module), float(settings["alpha"])))
        return Fitted((), dict(settings), self._proof(frozenset(moved)), (), float("nan"))

    def _run(self, *, augment: bool) -> _Found:
        """Run every stage, each from the best weights so far; every stage trains at least one epoch."""
        module = self.course.module
        module.load_state_dict(self.base)
        best, best_state = self._measure(), self.base
        history = [Step(0, None, best, "untouched base")]
        epochs: list[int] = []
        moved: set[str] = set()
        notes: tuple[str, ...] = ()
        done = 0
        deadline = self.budget.deadline()
        most = max(1, self.budget.epochs // len(self.plan))
        for stage, (name, _) in enumerate(self.plan):
            module.load_state_dict(best_state)
            optimiser, kept = self._optimiser(stage), 0
            for epoch in range(most):
                loss = self._epoch(optimiser, stage, epoch, augment=augment)
                done += 1
                now = self._measure()
                history.append(Step(done, loss, now, name))
                moved |= _moved(best_state if epoch == 0 else self.base, _state(module))
                if now < best:
                    best, best_state, kept = now, _state(module), epoch + 1
                self.budget.progress(done / (most * len(self.plan)), f"{name}, epoch {epoch + 1}")
                if epoch + 1 - kept >= self.course.pace.patience:
                    break
                if time.monotonic() > deadline:
                    notes = (f"stopped by the clock in stage '{name}': another machine may train longer",)
                    break
            epochs.append(kept)
        return _Found(best_state, best, tuple(epochs), tuple(history), frozenset(moved), notes)

    def _epoch(self, optimiser: torch.optim.Optimizer, stage: int, epoch: int, *, augment: bool) -> float:
        """Train one epoch; return the mean batch loss without the pull."""
        module, pace = self.course.module, self.course.pace
        self._freeze(stage)
        pulled = [(p, self.base[n]) for n, p in module.named_parameters() if p.requires_grad] if pace.pull else []
        losses = []
        with seeded(_epoch_seed(self.seed, stage, epoch)):
            for rows in _batches(self.course.n_rows, pace.batch_rows):
                loss = self.course.batch_loss(rows, augment)
                losses.append(loss.detach())
                for parameter, start in pulled:
                    loss = loss + pace.pull * ((parameter - start) ** 2).sum()
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_([p for p in module.parameters() if p.requires_grad], 1.0)
                optimiser.step()
        return float(torch.stack(losses).mean())

    def _freeze(self, stage: int) -> None:
        """Give gradients to the trained blocks only, and keep frozen ones' batch statistics where they are."""
        _, trained = self.plan[stage]
        self.course.module.eval()
        for name, parts in self.course.blocks.items():
            for part in parts:
                part.train(name in trained)
                part.requires_grad_(name in trained)

    def _optimiser(self, stage: int) -> torch.optim.Optimizer:
        self._freeze(stage)
        blocks, pace = self.course.blocks, self.course.pace
        names = list(blocks)
        groups = []
        for name in self.plan[stage][1]:
            depth = len(names) - 1 - names.index(name)
            parameters = [p for part in blocks[name] for p in part.parameters()]
            groups.append({"params": parameters, "lr": pace.learning_rate * pace.decay**depth})
        return torch.optim.AdamW(groups, weight_decay=pace.weight_decay)

    def _measure(self) -> float:
        self.course.module.eval()
        with torch.inference_mode():
            loss = self.course.valid_loss()
        return loss if np.isfinite(loss) else float("inf")

    def _interpolate(self, tuned: State, tuned_loss: float) -> tuple[float, float]:
        """Load the best mixture of base and tuned weights on valid; return its share and its loss."""
        contest = {1.0: (tuned_loss, tuned)}
        for alpha in (0.0, *ALPHAS):
            state = _mix(self.base, tuned, alpha)
            self.course.module.load_state_dict(state)
            contest[alpha] = (self._measure(), state)
        # A tie goes to the smaller step away from the base.
        alpha = min(contest, key=lambda a: (contest[a][0], a))
        self.course.module.load_state_dict(contest[alpha][1])
        return alpha, contest[alpha][0]

    def _augmentation_helps(self) -> bool:
        """Run a short contest with and without augmentation; it must win on valid to be used."""
        short = replace(
            self,
            budget=replace(
                self.budget, epochs=max(len(self.plan), self.budget.epochs // 6), seconds=self.budget.seconds / 6
            ),
        )
        return short._run(augment=True).valid_loss < short._run(augment=False).valid_loss

    def _proof(self, moved: frozenset[str]) -> Proof:
        return _proof(self.course, self.base, moved)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block and put it back after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: small networks are faster so, and the same seed gives the same bits on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_parallel(work: Callable[[Job], Result], jobs: Sequence[Job]) -> list[Result]:
    """Return the results of inference jobs in order, run beside one another on as many threads as torch may use.

    Each job runs on one thread, so its bits do not depend on how many run at once.
    """

    def run(job: Job) -> Result:
        with torch.inference_mode():  # a setting of the thread, not of the process
            return work(job)

    workers = max(1, min(torch.get_num_threads(), len(jobs)))
    with one_thread(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(run, jobs))


def _epoch_seed(seed: int, stage: int, epoch: int) -> int:
    return int(np.random.default_rng([seed, stage, epoch]).integers(2**62))


def _batches(n_rows: int, batch_rows: int) -> Iterator[Tensor]:
    order = torch.randperm(n_rows)
    n_batches = max(1, round(n_rows / batch_rows))
    # Batches of nearly equal size: a last one of a single row would break batch normalisation.
    yield from torch.tensor_split(order, n_batches)


def _state(module: nn.Module) -> State:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def _mix(base: State, tuned: State, alpha: float) -> State:
    mixed = {}
    for name, tensor in tuned.items():
        if alpha == 0.0 or not tensor.is_floating_point():
            mixed[name] = base[name] if alpha == 0.0 else tensor
        else:
            # Frozen tensors stay bit-equal: mixing a tensor with itself could round.
            mixed[name] = tensor if torch.equal(tensor, base[name]) else torch.lerp(base[name], tensor, alpha)
    return mixed


def _moved(before: State, after: State) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def _check_blocks(module: nn.Module, blocks: Mapping[str, Sequence[nn.Module]]) -> None:
    owners: dict[int, list[str]] = {id(p): [] for p in module.parameters()}
    for name, parts in blocks.items():
        for identity in {id(p) for part in parts for p in part.parameters()}:
            owners[identity].append(name)
    wrong = {n: owners[id(p)] for n, p in module.named_parameters() if len(owners[id(p)]) != 1}
    if wrong:
        raise ValueError(f"every parameter belongs to exactly one block, however: {wrong}")


def _proof(course: Course, base: State, moved: frozenset[str]) -> Proof:
    """Measure each block on the weights themselves; buffers count for the change, parameters for the numbers."""
    module, final = course.module, _state(course.module)
    # Shared layers stand under several names; each tensor is counted under its first.
    kept = module.state_dict(keep_vars=True)
    first = {id(tensor): name for name, tensor in reversed(list(kept.items()))}
    prefix = {id(part): name for name, part in module.named_modules(remove_duplicate=False)}
    parameters = {name for name, _ in module.named_parameters()}
    proofs = []
    for block, parts in course.blocks.items():
        roots = [prefix[id(part)] for part in parts]
        own = [
            n for n in final if first[id(kept[n])] == n and any(n == root or n.startswith(f"{root}.") for root in roots)
        ]
        inside = [n for n in own if n in parameters]
        squared = sum(
            float(((final[n].double() - base[n].double()) ** 2).sum()) for n in own if final[n].is_floating_point()
        )
        proofs.append(
            Block(
                block,
                sum(final[n].numel() for n in inside),
                sum(final[n].numel() for n in inside if n in moved),
                float(np.sqrt(squared)),
            )
        )
    return Proof(tuple(proofs))
