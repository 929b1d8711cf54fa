"""A small transformer over a user's last baskets that answers what he takes in the next window.

Sources: SASRec (Kang & McAuley, ICDM 2018) for self-attention over a history with tied item embeddings; the gated
blocks (LiGR) and the softmax of eSASRec (Tikhonovich et al., RecSys 2025, arXiv 2508.06450); all that is taken in the next four weeks as the target,
as PinnerFormer (Pancha et al., KDD 2022); a mode of its own for what is taken again, as RepeatNet (Ren et al., AAAI
2019). A basket is one token, and its age stands beside its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tabkit.rankers.parts.histories import AGES, LENGTH, OWN


@dataclass(frozen=True)
class Batch:
    """Users as of a day, in tensors.

    Attributes
    ----------
    item, start
        Rows of the item table of all baskets here (n,), and where each basket begins (n_baskets,).
    basket, age
        The baskets of each user (B, LENGTH), -1 where there are no more; their buckets of age.
    row, item_row, own
        For each pair of a user and an item that he took before: his place in the batch, the item's row, what is told.
    popular
        (B, n_rows): the logarithm of each item's share.
    """

    item: Tensor
    start: Tensor
    basket: Tensor
    age: Tensor
    row: Tensor
    item_row: Tensor
    own: Tensor
    popular: Tensor


class Gated(nn.Module):
    """A block of LiGR: pre-normalised attention and a feed-forward layer, each added through a gate.

    Shape
    -----
    (B, Q, dim) asks, (B, T, dim) is read -> (B, Q, dim)
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, nn.Dropout(dropout)
        self.norm, self.norm_ff = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value, self.out = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.gate, self.gate_ff = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, asks: Tensor, read: Tensor, hidden: Tensor) -> Tensor:
        """Let each position ask all that are not ``hidden`` (B, T)."""
        n, q, dim = asks.shape

        def split(x: Tensor) -> Tensor:
            return x.reshape(n, -1, self.heads, dim // self.heads).transpose(1, 2)

        normed = self.norm(asks)
        key, value = self.key_value(self.norm(read)).chunk(2, dim=-1)
        found = F.scaled_dot_product_attention(
            split(self.query(normed)), split(key), split(value), attn_mask=~hidden[:, None, None, :]
        )
        found = self.out(found.transpose(1, 2).reshape(n, q, dim))
        x = asks + self.dropout(torch.sigmoid(self.gate(normed)) * found)
        normed = self.norm_ff(x)
        out: Tensor = x + self.dropout(torch.sigmoid(self.gate_ff(normed)) * self.ff(normed))
        return out


class Body(nn.Module):
    """From the baskets' vectors to the user's.

    Shape
    -----
    (B, LENGTH, dim), ages (B, LENGTH), hidden (B, LENGTH) -> (B, dim)
    """

    def __init__(self, dim: int, heads: int, n_blocks: int, dropout: float) -> None:
        super().__init__()
        self.age, self.place, self.today = nn.Embedding(AGES, dim), nn.Embedding(LENGTH, dim), nn.Embedding(1, dim)
        self.norm, self.last = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(Gated(dim, heads, dropout) for _ in range(n_blocks))
        self.dropout = nn.Dropout(dropout)
        for table in (self.age, self.place, self.today):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, baskets: Tensor, age: Tensor, hidden: Tensor) -> Tensor:
        """Read the baskets; today's place stands first and sees all of them."""
        n, length, _ = baskets.shape
        tokens = self.norm(baskets) + self.age(age) + self.place.weight[:length]
        x = torch.cat([self.today.weight.expand(n, 1, -1), self.dropout(tokens)], dim=1)
        hidden = F.pad(hidden, (1, 0), value=False)
        for i, block in enumerate(self.blocks):
            # Of the last block, only today's place is asked for.
            x = block(x[:, :1] if i == len(self.blocks) - 1 else x, x, hidden)
        out: Tensor = self.last(x[:, 0])
        return out


class Head(nn.Module):
    """From the user's vector to what is compared with the items', and what else counts: popularity, and taking again."""

    def __init__(self, n_rows: int, dim: int, width: int = 16) -> None:
        super().__init__()
        self.out = nn.Linear(dim, dim)
        self.bias, self.again = nn.Embedding(n_rows, 1), nn.Embedding(n_rows, 1)
        self.popular, self.share = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        answer = nn.Linear(width, 1)
        self.own = nn.Sequential(nn.Linear(OWN, width), nn.GELU(), answer)
        self.habit = nn.Linear(dim, OWN)
        # What it starts from is popularity: all else has to be learned.
        for part in (self.out, self.bias, self.again, self.share, answer, self.habit):
            nn.init.zeros_(part.weight)
        nn.init.ones_(self.popular.weight)


class SequenceNet(nn.Module):
    """Scores of users as of a day: of the items of its table, and of each that the user took before.

    What he took before is told by how often and how lately, in a way that depends on his vector; an item's nearness to
    that vector is added only by a share that is learned, since there it mostly repeats the history.
    """

    def __init__(self, n_rows: int, dim: int, heads: int, n_blocks: int, dropout: float = 0.3) -> None:
        super().__init__()
        self.items = nn.Embedding(n_rows, dim)
        nn.init.normal_(self.items.weight, std=dim**-0.5)
        self.body = Body(dim, heads, n_blocks, dropout)
        self.head = Head(n_rows, dim)

    @property
    def blocks(self) -> dict[str, list[nn.Module]]:
        """Its parts from input to head, as the training loop wants them."""
        return {"items": [self.items], "body": [self.body], "head": [self.head]}

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the scores of the table's items, as if they were new to the user (B, n_rows), and of his own (n_pairs,)."""
        head, table = self.head, self.items.weight
        size = torch.diff(batch.start, append=batch.start.new_tensor([len(batch.item)]))
        weight = torch.repeat_interleave(size.clamp(min=1).to(table.dtype).rsqrt(), size)
        bags = F.embedding_bag(batch.item, table, batch.start, mode="sum", per_sample_weights=weight)
        user = self.body(bags[batch.basket.clamp(min=0)], batch.age, batch.basket < 0)
        near = head.out(user) @ table.T + head.bias.weight[:, 0]
        inside, row = batch.item_row >= 0, batch.item_row.clamp(min=0)
        told = head.own(batch.own)[:, 0] + (head.habit(user)[batch.row] * batch.own).sum(dim=1)
        shared = head.again.weight[row, 0] + head.share.weight[0, 0] * near[batch.row, row]
        return near + head.popular.weight[0, 0] * batch.popular, told + torch.where(inside, shared, 0.0)
