"""The in-context network: a transformer that reads a whole table and answers for its query rows.

The family of TabPFN (Hollmann et al., ICLR 2023; Nature 2025) and TabICL (Qu et al., ICML 2025): cells attend
along columns and rows, each row is then pooled to one vector, and query rows attend to context rows.

An answer is a set of weights over the context rows, as in a Nadaraya-Watson head (Wang & Sabuncu, 2022) over learned
features: a class's probability is the weight of its rows, and a number's predictive distribution is the weighted
distribution of the context's numbers. So one head serves both, any number of classes is native, the names of
classes do not matter, and intervals come free; what lies outside the context's range is never predicted.

Order, by construction: query rows never see one another; the order of context rows does not matter (up to the
rounding of sums); the order of columns does not matter given the columns' ids, which are drawn from a generator, so
predictions are averaged over draws. Everything a cell knows of its column comes from context rows alone.

Axes: ``B`` tables, ``R`` rows (context ``N``, query ``Q``), ``C`` columns, ``E`` width, ``H`` heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

N_WAVES = 6
CELL_INPUTS = 6 + N_WAVES
"""What the network is told of a cell: z-score, signed log of it, normal score, rank, missing, categorical, waves."""

Z_CLIP = 10.0


Keys = tuple[Tensor, Tensor]
"""Keys and values of an attention layer, each (..., H, N, E/H)."""


@dataclass(frozen=True)
class IclConfig:
    """Sizes of the network."""

    cell_width: int = 64
    cell_heads: int = 4
    cell_layers: int = 3
    n_summary: int = 32
    row_width: int = 192
    row_heads: int = 6
    row_layers: int = 6
    n_thinking: int = 8
    head_heads: int = 6
    id_width: int = 16
    code_width: int = 32

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """Encoded context rows: all that query rows need of them, computed once.

    ``columns`` describe each column (sorted values and moments); ``cells`` and ``rows`` hold keys and values of
    every attention layer: (B, C, H, n_summary, E/H) and (B, H, N, E/H); ``answers`` (B, N, E) are the keys of the
    weights.
    """

    columns: ColumnStatistics
    ids: Tensor
    cells: tuple[Keys, ...]
    rows: tuple[Keys, ...]
    answers: Tensor


@dataclass(frozen=True)
class Draw:
    """What breaks symmetries at random: an id per column (B, C, id_width) and a code per class (B, K, code_width)."""

    ids: Tensor
    codes: Tensor


def random_draw(rng: np.random.Generator, n_tables: int, n_columns: int, n_classes: int) -> Draw:
    """Draw standard normal ids and codes for tables of the default sizes."""
    sizes = IclConfig()
    ids = rng.standard_normal((n_tables, n_columns, sizes.id_width), np.float32)
    codes = rng.standard_normal((n_tables, n_classes, sizes.code_width), np.float32)
    return Draw(torch.from_numpy(ids), torch.from_numpy(codes))


@dataclass(frozen=True)
class ColumnStatistics:
    """What the context rows say of each column: present values in order (B, C, N), their number, mean and spread."""

    ordered: Tensor
    n: Tensor
    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, x: Tensor) -> ColumnStatistics:
        """Describe context cells (B, N, C); missing ones are NaN."""
        missing = x.isnan()
        n = (~missing).sum(dim=1).clamp_min(1)
        known = x.nan_to_num(nan=0.0)
        mean = known.sum(dim=1) / n
        centred = (known - mean[:, None]).masked_fill(missing, 0.0)
        std = (centred.square().sum(dim=1) / n).sqrt()
        ordered = x.nan_to_num(nan=math.inf).transpose(1, 2).contiguous().sort(dim=2).values
        return cls(ordered, n, mean, std)

    def encode(self, x: Tensor, categorical: Tensor) -> Tensor:
        """Return the inputs (B, C, R, CELL_INPUTS) of cells ``x`` (B, R, C); ``categorical`` is (B, C)."""
        missing = x.isnan().transpose(1, 2)
        known = x.nan_to_num(nan=0.0).transpose(1, 2).contiguous()
        std = torch.where(self.std > 1e-6 * self.mean.abs(), self.std, torch.ones_like(self.std)).clamp_min(1e-30)
        z = (known - self.mean[..., None]) / std[..., None]
        below = torch.searchsorted(self.ordered, known, right=False)
        upto = torch.searchsorted(self.ordered, known, right=True)
        n = self.n[..., None]
        rank = ((below.minimum(n) + upto.minimum(n)).to(x.dtype) / 2 + 0.5) / (n + 1).to(x.dtype)
        normal = math.sqrt(2.0) * torch.erfinv((2 * rank - 1).clamp(-0.9999, 0.9999))
        waves = [torch.cos(k * math.pi * rank) for k in range(1, N_WAVES + 1)]
        told = [z.clamp(-Z_CLIP, Z_CLIP), z.sign() * z.abs().log1p(), normal, 2 * rank - 1, *waves]
        told = [feature.masked_fill(missing, 0.0) for feature in told]
        flags = [missing.to(x.dtype), categorical[..., None].expand_as(missing).to(x.dtype)]
        return torch.stack(told + flags, dim=-1)


class IclNet(nn.Module):
    """Table in; for every query row, weights over the context rows out.

    Parameters of ``forward``
    -------------------------
    x : (B, R, C) float
        Cells, context rows first; NaN where missing; category codes as numbers.
    y : (B, N) float
        Targets of the context rows: class codes, or numbers for regression.
    categorical : (B, C) bool
    regression : bool
    draw : Draw
        Random column ids, which tell columns of equal content apart, and class codes.

    Returns weights (B, Q, N), which sum to 1 over the context.
    """

    def __init__(self, config: IclConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or IclConfig()
        self.inputs = Inputs(c)
        self.cell_layers = nn.ModuleList(
            CellLayer(c.cell_width, c.cell_heads, c.n_summary) for _ in range(c.cell_layers)
        )
        self.rows = RowInputs(c)
        self.row_layers = nn.ModuleList(RowLayer(c.row_width, c.row_heads) for _ in range(c.row_layers))
        self.head = Head(c)

    def blocks(self) -> dict[str, Sequence[nn.Module]]:
        """Return the blocks from input to head; together they hold every parameter once."""
        return {
            "inputs": [self.inputs],
            "cells": [*self.cell_layers],
            "rows": [self.rows, *self.row_layers],
            "head": [self.head],
        }

    def forward(self, x: Tensor, y: Tensor, categorical: Tensor, regression: bool, draw: Draw) -> Tensor:
        """Encode the context, then answer for the rows after it. See the class."""
        n = y.shape[1]
        context = self.encode(x[:, :n], y, categorical, regression, draw)
        return self.answer(context, x[:, n:], categorical, regression)

    def encode(self, x: Tensor, y: Tensor, categorical: Tensor, regression: bool, draw: Draw) -> Context:
        """Encode context rows: cells ``x`` (B, N, C) with targets ``y`` (B, N)."""
        columns = ColumnStatistics.of(x)
        target = self.inputs.target(y, regression, draw.codes)
        cells = self.inputs(columns, x, categorical, regression, draw.ids, target)
        kept = []
        for layer, wanted in self._cell_layers(cells.shape[1]):
            keys = layer.keys(cells)
            kept.append(keys)
            cells = layer(cells, keys, wanted)
        rows = self.rows(cells)
        rows = torch.cat([self.rows.thinking.to(rows.dtype).expand(len(rows), -1, -1), rows], dim=1)
        kept_rows = []
        for row_layer in self._row_layers():
            row_keys = row_layer.keys(rows)
            kept_rows.append(row_keys)
            rows = row_layer(rows, row_keys)
        answers = self.head.keys(rows[:, self.config.n_thinking :])
        return Context(columns, draw.ids, tuple(kept), tuple(kept_rows), answers)

    def answer(self, context: Context, x: Tensor, categorical: Tensor, regression: bool) -> Tensor:
        """Return the weights over the context of query rows ``x`` (B, Q, C)."""
        target = self.inputs.unknown[int(regression)].expand(x.shape[0], x.shape[1], -1)
        cells = self.inputs(context.columns, x, categorical, regression, context.ids, target)
        for (layer, wanted), keys in zip(self._cell_layers(cells.shape[1]), context.cells, strict=True):
            cells = layer(cells, keys, wanted)
        rows = self.rows(cells)
        for row_layer, row_keys in zip(self._row_layers(), context.rows, strict=True):
            rows = row_layer(rows, row_keys)
        out: Tensor = self.head(rows, context.answers)
        return out

    def _cell_layers(self, n_cells: int) -> list[tuple[CellLayer, int]]:
        """Return the layers, each with the number of a row's cells that what follows reads."""
        layers = [layer for layer in self.cell_layers if isinstance(layer, CellLayer)]
        return [(layer, 2 if layer is layers[-1] else n_cells) for layer in layers]

    def _row_layers(self) -> list[RowLayer]:
        return [layer for layer in self.row_layers if isinstance(layer, RowLayer)]


class Inputs(nn.Module):
    """What enters: an embedding per cell, per column id, and per target."""

    def __init__(self, c: IclConfig) -> None:
        super().__init__()
        self.cell = nn.Linear(CELL_INPUTS, c.cell_width)
        self.column_id = nn.Linear(c.id_width, c.cell_width, bias=False)
        self.class_code = nn.Linear(c.code_width, c.cell_width, bias=False)
        self.number = nn.Linear(CELL_INPUTS, c.cell_width)
        # Cells that hold no data, one each per task: the unknown target of a query row, and the pooling cell.
        self.unknown = nn.Parameter(torch.randn(2, c.cell_width) * 0.02)
        self.pool = nn.Parameter(torch.randn(2, c.cell_width) * 0.02)

    def target(self, y: Tensor, regression: bool, codes: Tensor) -> Tensor:
        """Return embedded targets (B, N, E) of ``y`` (B, N): a class by its code, a number by its place."""
        if not regression:
            own = codes.gather(1, y.long()[..., None].expand(-1, -1, codes.shape[-1]))
            embedded: Tensor = self.class_code(own)
            return embedded
        numbers = y[..., None]
        flag = torch.zeros(len(y), 1, dtype=torch.bool, device=y.device)
        told: Tensor = self.number(ColumnStatistics.of(numbers).encode(numbers, flag)[:, 0])
        return told

    def forward(
        self, columns: ColumnStatistics, x: Tensor, categorical: Tensor, regression: bool, ids: Tensor, target: Tensor
    ) -> Tensor:
        """Return cells (B, C + 2, R, E): the columns, the target, and the pooling cell."""
        # Every cell hears its row's target, so that one look at a column says what its values go with (TabICLv2).
        told = self.cell(columns.encode(x, categorical)) + self.column_id(ids)[:, :, None] + target[:, None]
        pool = self.pool[int(regression)].expand(x.shape[0], 1, x.shape[1], -1)
        return torch.cat([told, target[:, None].to(told.dtype), pool.to(told.dtype)], dim=1)


class RowInputs(nn.Module):
    """Cells (B, C + 2, R, E) to rows (B, R, E'), from a row's target and pooling cells; and rows to think with."""

    def __init__(self, c: IclConfig) -> None:
        super().__init__()
        self.to_row = nn.Sequential(nn.LayerNorm(2 * c.cell_width), nn.Linear(2 * c.cell_width, c.row_width))
        self.thinking = nn.Parameter(torch.randn(c.n_thinking, c.row_width) * 0.02)

    def forward(self, cells: Tensor) -> Tensor:
        """Pool each row."""
        rows: Tensor = self.to_row(torch.cat([cells[:, -2], cells[:, -1]], dim=-1))
        return rows


class Head(nn.Module):
    """Weights over the context, the mean of several heads' attention."""

    def __init__(self, c: IclConfig) -> None:
        super().__init__()
        self.heads = c.head_heads
        self.normal = nn.LayerNorm(c.row_width)
        self.query, self.key = (nn.Linear(c.row_width, c.row_width, bias=False) for _ in range(2))
        with torch.no_grad():  # alike at first: rows that look alike answer each other before anything is learned
            self.key.weight.copy_(self.query.weight)
        self.sharpness = nn.Parameter(torch.ones(c.head_heads))

    def keys(self, rows: Tensor) -> Tensor:
        """Return the keys (B, N, E) of context rows (B, N, E)."""
        out: Tensor = self.key(self.normal(rows))
        return out

    def forward(self, rows: Tensor, keys: Tensor) -> Tensor:
        """Return the weights (B, Q, N) of query rows (B, Q, E), in single precision."""
        query = split_heads(self.query(self.normal(rows)), self.heads) * self.sharpness.exp()[:, None, None]
        scores = (query @ split_heads(keys, self.heads).transpose(-1, -2)) * query.shape[-1] ** -0.5
        out: Tensor = scores.float().softmax(dim=-1).mean(dim=1)
        return out


class CellLayer(nn.Module):
    """Cells read a summary of their column, then their row's other cells, then pass an MLP; all pre-norm.

    A column's summary is ``n_summary`` vectors that attend to its context cells (the induced set attention of Lee et
    al., *Set Transformer*, ICML 2019): work grows with the number of rows, not with its square.
    """

    def __init__(self, width: int, heads: int, n_summary: int) -> None:
        super().__init__()
        self.norm_column, self.norm_summary, self.norm_row, self.norm_mlp = (nn.LayerNorm(width) for _ in range(4))
        self.summary = nn.Parameter(torch.randn(n_summary, width))
        self.summarise = Attention(width, heads, scaled=True)
        self.column = Attention(width, heads)
        self.row = Attention(width, heads)
        self.mlp = _mlp(width)

    def keys(self, cells: Tensor) -> Keys:
        """Return keys and values (B, C, H, S, E/H) that summarise context cells (B, C, N, E)."""
        start = self.summary.to(cells.dtype).expand(*cells.shape[:2], -1, -1)
        summary = start + self.summarise(start, self.summarise.keys(self.norm_column(cells)))
        return self.column.keys(self.norm_summary(summary))

    def forward(self, cells: Tensor, keys: Keys, wanted: int) -> Tensor:
        """Update cells (B, C, R, E), which attend to ``keys``; return the last ``wanted`` of each row's C."""
        cells = cells + self.column(self.norm_column(cells), keys)
        across = self.norm_row(cells).transpose(1, 2)
        cells = cells[:, -wanted:] + self.row(across[:, :, -wanted:], self.row.keys(across)).transpose(1, 2)
        out: Tensor = cells + self.mlp(self.norm_mlp(cells))
        return out


class RowLayer(nn.Module):
    """Rows attend to the context rows, then pass an MLP; pre-norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, scaled=True)
        self.mlp = _mlp(width)

    def keys(self, rows: Tensor) -> Keys:
        """Return keys and values of context rows (B, N, E)."""
        return self.attention.keys(self.norm_attention(rows))

    def forward(self, rows: Tensor, keys: Keys) -> Tensor:
        """Update rows (B, R, E), which attend to ``keys``."""
        rows = rows + self.attention(self.norm_attention(rows), keys)
        out: Tensor = rows + self.mlp(self.norm_mlp(rows))
        return out


class Attention(nn.Module):
    """Multi-head attention over the second last axis, to keys computed beforehand.

    ``scaled`` sharpens queries with the logarithm of the context's length (Nakanishi, *Scalable-Softmax*, 2025), so
    that attention does not thin out over contexts longer than those of pretraining.
    """

    def __init__(self, width: int, heads: int, scaled: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.sharpness = nn.Parameter(torch.zeros(heads)) if scaled else None
        nn.init.normal_(self.out.weight, std=0.5 * width**-0.5)

    def keys(self, context: Tensor) -> Keys:
        """Return keys and values (..., H, N, E/H) of ``context`` (..., N, E)."""
        key, value = split_heads(self.key_value(context), 2 * self.heads).chunk(2, dim=-3)
        return key, value

    def forward(self, x: Tensor, keys: Keys) -> Tensor:
        """Return what ``x`` (..., R, E) finds at ``keys``."""
        key, value = keys
        query = split_heads(self.query(x), self.heads)
        if self.sharpness is not None:
            sharp = 1.0 + self.sharpness * (math.log(key.shape[-2]) / math.log(256.0) - 1.0)
            query = query * sharp[:, None, None].to(query.dtype)
        found = _attend(query.flatten(0, -4), key.flatten(0, -4), value.flatten(0, -4)).reshape(query.shape)
        out: Tensor = self.out(found.transpose(-3, -2).flatten(-2))
        return out


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention.

    torch's fused kernel for bfloat16 on a CPU has a backward pass several times slower than the plain products
    [measured on torch 2.13: 1.9 times for cells, 2.4 for rows].
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        weights = ((query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5).softmax(dim=-1)
        return torch.matmul(weights, value)
    return functional.scaled_dot_product_attention(query, key, value)


class Adapters(nn.Module):
    """Low-rank additions to the query, key and value maps of every layer of a network, outside of it.

    After LoRA (Hu et al., ICLR 2022): each map W gains B A, of rank ``rank``; B is zero at first, so nothing changes
    until it is trained. The network's own parameters stay what they are.
    """

    def __init__(self, net: IclNet, rank: int) -> None:
        super().__init__()
        targets = self.targets(net)
        self.down = nn.ParameterList(torch.randn(rank, t.in_features) * t.in_features**-0.5 for t in targets)
        self.up = nn.ParameterList(torch.zeros(t.out_features, rank) for t in targets)
        for target, down, up in zip(targets, self.down, self.up, strict=True):
            target.register_forward_hook(
                lambda _, given, out, down=down, up=up: out + functional.linear(functional.linear(given[0], down), up)
            )

    @staticmethod
    def targets(net: IclNet) -> list[nn.Linear]:
        """Return the maps of a network that adapters add to, in their order."""
        return [
            part
            for layers in (net.cell_layers, net.row_layers)
            for name, part in layers.named_modules()
            if isinstance(part, nn.Linear) and name.endswith(("query", "key_value"))
        ]


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Cut (..., R, E) into (..., H, R, E/H)."""
    return x.reshape(*x.shape[:-1], heads, -1).transpose(-3, -2)


def _mlp(width: int) -> nn.Sequential:
    last = nn.Linear(2 * width, width)
    nn.init.normal_(last.weight, std=0.5 * (2 * width) ** -0.5)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)


def class_probabilities(weights: Tensor, y: Tensor, n_classes: int) -> Tensor:
    """Return class probabilities (B, Q, n_classes) from weights (B, Q, N) over context classes ``y`` (B, N)."""
    return weights @ functional.one_hot(y.long(), n_classes).to(weights.dtype)


def crps(weights: Tensor, y: Tensor, truth: Tensor) -> Tensor:
    """Return the continuous ranked probability score (B, Q) of weighted context numbers ``y`` (B, N).

    It is taken on the scale of the context's normal scores, where every table has the same units and no tail rules
    (a proper score on any monotone scale; Gneiting & Raftery, JASA 2007). ``truth`` is (B, Q).
    """
    n = y.shape[1]
    ordered, order = y.sort(dim=1)
    below = weights.gather(2, order[:, None].expand_as(weights)).cumsum(dim=2)[..., :-1]
    rank = (torch.arange(1, n + 1, device=y.device, dtype=y.dtype)) / (n + 1)
    scores = math.sqrt(2.0) * torch.erfinv(2 * rank - 1)
    reached = truth[..., None] <= ordered[:, None, :-1]
    return ((below - reached.to(below.dtype)).square() * scores.diff()).sum(dim=2)
