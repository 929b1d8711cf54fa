"""The in-context network: a transformer that reads a whole table and answers for its query rows.

The family of TabPFN (Hollmann et al., ICLR 2023; Nature 2025) and TabICL (Qu et al., ICML 2025): cells attend
along columns and rows, each row is then pooled to one vector, and query rows attend to context rows.

Order, by construction: query rows never see one another; the order of context rows does not matter (up to the
rounding of sums); the order of columns does not matter given the columns' ids, which are drawn from a generator, so
predictions are averaged over draws. Everything a cell knows of its column comes from context rows alone.

Axes: ``B`` tables, ``R`` rows (context ``N``, query ``Q``), ``C`` columns, ``E`` width, ``H`` heads.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

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
    """Sizes of the network. ``n_bins`` quantile bins of the context's target carry a regression's distribution."""

    cell_width: int = 64
    cell_heads: int = 4
    cell_layers: int = 3
    n_summary: int = 32
    row_width: int = 192
    row_heads: int = 6
    row_layers: int = 6
    n_thinking: int = 8
    n_classes: int = 10
    n_bins: int = 32
    id_width: int = 16

    def as_dict(self) -> dict[str, Any]:
        """Return the sizes as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Context:
    """Encoded context rows: all that query rows need of them, computed once.

    ``columns`` describe each column (sorted values and moments); ``cells`` and ``rows`` hold keys and values of
    every attention layer: (B, C, H, n_summary, E/H) and (B, H, N, E/H).
    """

    columns: ColumnStatistics
    ids: Tensor
    cells: tuple[Keys, ...]
    rows: tuple[Keys, ...]


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
    """Table in, one score per class (or target bin) and query row out.

    Parameters of ``forward``
    -------------------------
    x : (B, R, C) float
        Cells, context rows first; NaN where missing; category codes as numbers.
    y : (B, N) float
        Targets of the context rows: class codes, or numbers for regression.
    categorical : (B, C) bool
    regression : bool
    ids : (B, C, id_width)
        Random column ids: what tells columns of equal content apart.

    Returns scores (B, Q, n_classes), or (B, Q, n_bins) for regression.
    """

    def __init__(self, config: IclConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or IclConfig()
        self.cell = nn.Linear(CELL_INPUTS, c.cell_width)
        self.column_id = nn.Linear(c.id_width, c.cell_width, bias=False)
        self.class_code = nn.Embedding(c.n_classes, c.cell_width)
        self.number = nn.Linear(CELL_INPUTS, c.cell_width)
        # Rows that hold no data: the unknown target of a query row and the pooling cell, one each per task.
        self.unknown = nn.Parameter(torch.randn(2, c.cell_width) * 0.02)
        self.pool = nn.Parameter(torch.randn(2, c.cell_width) * 0.02)
        self.cell_layers = nn.ModuleList(
            CellLayer(c.cell_width, c.cell_heads, c.n_summary) for _ in range(c.cell_layers)
        )
        self.to_row = nn.Sequential(nn.LayerNorm(2 * c.cell_width), nn.Linear(2 * c.cell_width, c.row_width))
        self.thinking = nn.Parameter(torch.randn(c.n_thinking, c.row_width) * 0.02)
        self.row_layers = nn.ModuleList(RowLayer(c.row_width, c.row_heads) for _ in range(c.row_layers))
        self.normal = nn.LayerNorm(c.row_width)
        self.to_class = nn.Linear(c.row_width, c.n_classes)
        self.to_bin = nn.Linear(c.row_width, c.n_bins)

    def forward(self, x: Tensor, y: Tensor, categorical: Tensor, regression: bool, ids: Tensor) -> Tensor:
        """Encode the context, then answer for the rows after it. See the class."""
        n = y.shape[1]
        context = self.encode(x[:, :n], y, categorical, regression, ids)
        return self.answer(context, x[:, n:], categorical, regression)

    def encode(self, x: Tensor, y: Tensor, categorical: Tensor, regression: bool, ids: Tensor) -> Context:
        """Encode context rows: cells ``x`` (B, N, C) with targets ``y`` (B, N)."""
        columns = ColumnStatistics.of(x)
        cells = self._cells(columns, x, categorical, regression, ids, self._target(y, regression))
        kept = []
        for layer in self._cell_layers():
            keys = layer.keys(cells)
            kept.append(keys)
            cells = layer(cells, keys)
        rows = self._rows(cells)
        rows = torch.cat([self.thinking.to(rows.dtype).expand(len(rows), -1, -1), rows], dim=1)
        kept_rows = []
        for row_layer in self._row_layers():
            row_keys = row_layer.keys(rows)
            kept_rows.append(row_keys)
            rows = row_layer(rows, row_keys)
        return Context(columns, ids, tuple(kept), tuple(kept_rows))

    def answer(self, context: Context, x: Tensor, categorical: Tensor, regression: bool) -> Tensor:
        """Return the scores of query rows ``x`` (B, Q, C)."""
        target = self.unknown[int(regression)].expand(x.shape[0], x.shape[1], -1)
        cells = self._cells(context.columns, x, categorical, regression, context.ids, target)
        for layer, keys in zip(self._cell_layers(), context.cells, strict=True):
            cells = layer(cells, keys)
        rows = self._rows(cells)
        for row_layer, row_keys in zip(self._row_layers(), context.rows, strict=True):
            rows = row_layer(rows, row_keys)
        head = self.to_bin if regression else self.to_class
        scores: Tensor = head(self.normal(rows))
        return scores

    def _cell_layers(self) -> list[CellLayer]:
        return [layer for layer in self.cell_layers if isinstance(layer, CellLayer)]

    def _row_layers(self) -> list[RowLayer]:
        return [layer for layer in self.row_layers if isinstance(layer, RowLayer)]

    def _target(self, y: Tensor, regression: bool) -> Tensor:
        if not regression:
            embedded: Tensor = self.class_code(y.long())
            return embedded
        numbers = y[..., None]
        flag = torch.zeros(len(y), 1, dtype=torch.bool, device=y.device)
        told: Tensor = self.number(ColumnStatistics.of(numbers).encode(numbers, flag)[:, 0])
        return told

    def _cells(
        self, columns: ColumnStatistics, x: Tensor, categorical: Tensor, regression: bool, ids: Tensor, target: Tensor
    ) -> Tensor:
        """Return cells (B, C + 2, R, E): the columns, the target, and the pooling cell."""
        told = self.cell(columns.encode(x, categorical)) + self.column_id(ids)[:, :, None]
        pool = self.pool[int(regression)].expand(x.shape[0], 1, x.shape[1], -1)
        return torch.cat([told, target[:, None].to(told.dtype), pool.to(told.dtype)], dim=1)

    def _rows(self, cells: Tensor) -> Tensor:
        rows: Tensor = self.to_row(torch.cat([cells[:, -2], cells[:, -1]], dim=-1))
        return rows


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

    def forward(self, cells: Tensor, keys: Keys) -> Tensor:
        """Update cells (B, C, R, E), which attend to ``keys``."""
        cells = cells + self.column(self.norm_column(cells), keys)
        across = self.norm_row(cells).transpose(1, 2)
        cells = cells + self.row(across, self.row.keys(across)).transpose(1, 2)
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
        nn.init.zeros_(self.out.weight)

    def keys(self, context: Tensor) -> Keys:
        """Return keys and values (..., H, N, E/H) of ``context`` (..., N, E)."""
        key, value = self._split(self.key_value(context), 2 * self.heads).chunk(2, dim=-3)
        return key, value

    def forward(self, x: Tensor, keys: Keys) -> Tensor:
        """Return what ``x`` (..., R, E) finds at ``keys``."""
        key, value = keys
        query = self._split(self.query(x), self.heads)
        if self.sharpness is not None:
            sharp = 1.0 + self.sharpness * (math.log(key.shape[-2]) / math.log(256.0) - 1.0)
            query = query * sharp[:, None, None].to(query.dtype)
        lead = query.shape[:-3]
        found = functional.scaled_dot_product_attention(
            query.flatten(0, -4), key.flatten(0, -4), value.flatten(0, -4)
        ).reshape(*lead, *query.shape[-3:])
        out: Tensor = self.out(found.transpose(-3, -2).flatten(-2))
        return out

    def _split(self, x: Tensor, parts: int) -> Tensor:
        return x.reshape(*x.shape[:-1], parts, -1).transpose(-3, -2)


def _mlp(width: int) -> nn.Sequential:
    last = nn.Linear(2 * width, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), last)


def bin_targets(y_context: Tensor, y_query: Tensor, n_bins: int) -> Tensor:
    """Return soft bin shares (B, Q, n_bins) of query targets: the two bins whose centres surround their rank.

    Bins are equal shares of the context's targets (B, N); a query's place among them is its rank, interpolated.
    """
    ordered = y_context.sort(dim=1).values.contiguous()
    n = ordered.shape[1]
    upto = torch.searchsorted(ordered, y_query.contiguous(), right=True)
    below = torch.searchsorted(ordered, y_query.contiguous(), right=False)
    left = ordered.gather(1, (below - 1).clamp(0, n - 1))
    right = ordered.gather(1, upto.clamp(0, n - 1))
    between = ((y_query - left) / (right - left).clamp_min(1e-30)).clamp(0.0, 1.0)
    place = torch.where(upto > below, (below + upto).to(between.dtype) / 2, below + between - 0.5)
    position = (place / n * n_bins - 0.5).clamp(0.0, n_bins - 1.0)
    low = position.floor().long().clamp_max(n_bins - 2)
    share = position - low
    out = torch.zeros(*position.shape, n_bins, dtype=position.dtype, device=position.device)
    out.scatter_(2, low[..., None], (1 - share)[..., None])
    out.scatter_(2, low[..., None] + 1, share[..., None])
    return out


def bin_values(y_context: Tensor, n_bins: int) -> Tensor:
    """Return the mean target of each bin (B, n_bins), from the context's targets (B, N)."""
    ordered = y_context.sort(dim=1).values
    # Each bin averages the quantile function over its share, which is defined for fewer rows than bins too.
    fine = 8
    at = (torch.arange(n_bins * fine, device=ordered.device, dtype=ordered.dtype) + 0.5) / (n_bins * fine)
    place = (at * ordered.shape[1] - 0.5).clamp(0, ordered.shape[1] - 1)
    low = place.floor().long()
    high = (low + 1).clamp_max(ordered.shape[1] - 1)
    values = torch.lerp(ordered[:, low], ordered[:, high], (place - low).expand(len(ordered), -1))
    return values.reshape(len(ordered), n_bins, fine).mean(dim=2)
