"""Train the in-context base on episodes: rows drawn from train, part of them context and part queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from tabkit.data.encode import Features
from tabkit.learner import Budget, Settings
from tabkit.models.base import cells_of
from tabkit.models.parts.icl_context import MAX_COLUMNS, Table, part_of, shares_of
from tabkit.models.parts.icl_net import Adapters, Draw, IclNet, class_probabilities, crps, random_draw
from tabkit.models.parts.icl_weights import RANK, copied
from tabkit.torch_loop import Course, Fitted, Pace, fit, seeded

VALID_ROWS = 300
"""Rows of valid on which the loop compares epochs; the outcome is judged on all of valid."""

_PACES = {
    "head": Pace(learning_rate=1e-3, decay=1.0, pull=0.0, batch_rows=1, patience=4),
    "gradual": Pace(learning_rate=3e-4, decay=0.7, pull=1e-4, batch_rows=1, patience=3),
    "full": Pace(learning_rate=3e-4, decay=0.7, pull=1e-4, batch_rows=1, patience=5),
    "lora": Pace(learning_rate=1e-3, decay=1.0, pull=0.0, batch_rows=1, patience=5),
}


class _Task(nn.Module):
    """What the loop trains: the network, and adapters where the strategy is low-rank."""

    def __init__(self, net: IclNet, adapters: Adapters | None) -> None:
        super().__init__()
        self.net = net
        self.adapters = adapters

    def blocks(self) -> dict[str, Sequence[nn.Module]]:
        own = self.net.blocks()
        return own if self.adapters is None else {**own, "lora": [self.adapters]}


@dataclass(frozen=True)
class Lesson:
    """A network to be tuned, the context it will answer from, and the rows to learn from and to compare epochs on."""

    net: IclNet
    table: Table
    train: Features
    valid: Features | None


@dataclass(frozen=True)
class Tuned:
    """A tuned copy of the network, its adapters if the strategy is low-rank, and what training did."""

    net: IclNet
    adapters: Adapters | None
    fitted: Fitted


def tune(lesson: Lesson, how: str, rng: np.random.Generator, budget: Budget, settings: Settings | None) -> Tuned:
    """Train a copy of the network on episodes of train. See :func:`tabkit.torch_loop.fit`."""
    net, effort = copied(lesson.net), lesson.table.effort
    with seeded(int(rng.integers(2**31))):
        adapters = Adapters(net, RANK) if how == "lora" else None
    task = _Task(net, adapters)
    device = torch.device("cuda" if budget.device == "cuda" or _has_gpu(budget) else "cpu")
    task.to(device)
    episodes = _Episodes(net, lesson, device)
    course = Course(task, task.blocks(), effort.episodes, episodes.batch_loss, episodes.valid_loss, _PACES[how])
    fitted = fit(course, how, rng, replace(budget, epochs=effort.epochs), settings)
    task.to("cpu").eval()
    return Tuned(net, adapters, fitted)


class _Episodes:
    """The rows of a lesson on a device, and the losses on them."""

    def __init__(self, net: IclNet, lesson: Lesson, device: torch.device) -> None:
        self.net, self.table, self.device = net, lesson.table, device
        self.x, self.y, self.w = self._tensors(lesson.train)
        self.flags = torch.from_numpy(self.table.categorical).to(device)
        self.context = torch.from_numpy(shares_of(lesson.train, self.table.effort, self.table.seed)[0]).to(device)
        self.ratios = torch.tensor(list(self.table.ratios) or [1.0]).to(device)
        valid = None if lesson.valid is None else part_of(lesson.valid, VALID_ROWS, self.table.seed)
        self.valid = None if valid is None else self._tensors(valid)

    def batch_loss(self, _: Tensor, augment: bool) -> Tensor:
        """One episode: rows drawn from train, a quarter of them queries (torch's generator is seeded by the loop)."""
        n_rows, n_columns = self.x.shape
        order = torch.randperm(n_rows)[: self.table.effort.episode_rows].to(self.device)
        cut = max(1, len(order) // 4)
        query, context = order[:cut], order[cut:]
        most = n_columns if not augment else max(1, int(n_columns * 0.8))
        columns = torch.randperm(n_columns)[: min(most, MAX_COLUMNS)].sort().values.to(self.device)
        seed = int(torch.randint(2**31, (1,)))
        draw = random_draw(np.random.default_rng(seed), 1, len(columns), max(1, self.table.classes))
        answer, own = self._answer(context, self.x[query], columns, draw), None if self.w is None else self.w[query]
        return _objective(answer, self.y[context], (self.y[query], own), self.table)

    def valid_loss(self) -> float:
        """The first member's loss on a part of valid."""
        assert self.valid is not None
        asked, truth, own = self.valid
        columns = torch.from_numpy(self.table.columns(0)).to(self.device)
        draw = self.table.draw(0, len(columns), self.table.classes)
        weights = self._answer(self.context, asked, columns, draw)
        return float(_objective(weights, self.y[self.context], (truth, own), self.table, self.ratios))

    def _tensors(self, rows: Features) -> tuple[Tensor, Tensor, Tensor | None]:
        """Cells (N, C), targets (N,), and weights (N,), 1 on average, if rows have some."""
        scaled = ((rows.labels - self.table.y_mean) / self.table.y_std).astype(np.float32)
        w = None if rows.w is None else torch.from_numpy((rows.w / rows.w.mean()).astype(np.float32)).to(self.device)
        return torch.from_numpy(cells_of(rows)[0]).to(self.device), torch.from_numpy(scaled).to(self.device), w

    def _answer(self, context: Tensor, asked: Tensor, columns: Tensor, draw: Draw) -> Tensor:
        """Weights (Q, n) of the asked cells over context rows of train."""
        both = torch.cat([self.x[context][:, columns], asked[:, columns]])[None]
        here = Draw(draw.ids.to(self.device), draw.codes.to(self.device))
        weights: Tensor = self.net(both, self.y[context][None], self.flags[columns][None], self.table.regression, here)
        return weights


def _objective(
    weights: Tensor, context: Tensor, asked: tuple[Tensor, Tensor | None], table: Table, ratios: Tensor | None = None
) -> Tensor:
    """Mean log loss, or CRPS for regression, of query rows given their weights over the context.

    ``asked`` are the queries' targets (Q,), and for how many rows each stands (Q,).
    """
    truth, own = asked
    if table.regression:
        losses = 2.0 * crps(weights, context[None], truth[None])
        return losses.mean() if own is None else (own * losses).mean()
    chances = class_probabilities(weights, context[None], table.classes)
    if ratios is not None:
        chances = chances * ratios
        chances = chances / chances.sum(dim=2, keepdim=True)
    floored = (1 - 1e-3) * chances + 1e-3 / table.classes
    logs = floored.gather(2, truth.long()[None, :, None]).log()
    return -(logs if own is None else own[None, :, None] * logs).mean()


def _has_gpu(budget: Budget) -> bool:
    return budget.device == "auto" and torch.cuda.is_available()
