"""The in-context base: tabkit's own pretrained transformer, which answers from the rows in its context.

Untouched, nothing is trained on the table: train rows become the context, and a row is answered by weights over them
(:mod:`tabkit.models.parts.icl_net`). Adapting trains on episodes: rows drawn from train, part of them context and part
queries, by the one training loop.

- **Context.** A forward pass reads at most ``context_rows`` rows. Where train has more, each member of the ensemble
  reads its own stratified share, so that together they read more than one could. The shares are the same in every run.
  A rare class gets at least half an even share of a context, and probabilities are brought back to train's class
  shares by Bayes' rule (Saerens et al., *Adjusting the outputs of a classifier to new a priori probabilities*, 2002).
- **Ensemble.** Members differ in what breaks symmetries (column ids, class codes) and in their share of the rows;
  their weights are averaged. Past ``MAX_COLUMNS`` columns each member reads a random subset of them.
- **Source.** ``context`` trains nothing: it puts rows of a source table beside the target's. How many, none among the
  choices, is decided on valid: rows of another population teach the weights what to look at, and may also mislead them.
- **Calibration.** Class probabilities are sharpened or softened by a temperature chosen on valid.
- **Privacy.** A bundle of this base holds the context: rows of the training table. Its notes say so.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tabkit.data.encode import Features
from tabkit.errors import UsageError
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings, Step, Weights
from tabkit.models.base import Model, cells_of, loss
from tabkit.models.parts.icl_net import (
    Adapters,
    Context,
    Draw,
    IclConfig,
    IclNet,
    class_probabilities,
    crps,
    random_draw,
)
from tabkit.models.parts.torch_loop import Fitted, Pace, fit, in_parallel, seeded

MAX_COLUMNS = 60
"""Columns a member reads; more than the base was pretrained with, and as far as it was found to carry."""

PRETRAINED_COLUMNS, PRETRAINED_CLASSES = 30, 10

PREDICT_ROWS = 256
"""Rows per forward pass, padded to that number: a row's result cannot depend on how many stand beside it."""

FOLDS = 4
"""Folds by which train rows are scored: a row is answered from the other folds alone."""

VALID_ROWS = 300
"""Rows of valid on which the loop compares epochs; the outcome is judged on all of valid."""

CONTEXT_SEED = 1826701615
"""Of shares, column ids and class codes: one for all, so that a base and what was adapted from it read the same."""

SOURCE_MULTIPLES = (1, 4)
"""Source rows tried in the context, per row of the target; beside none and as many as there is room for."""

CONFIG, WEIGHTS = "config.json", "weights.safetensors"

RANK = 8
FLOOR = 1e-4
"""Least probability of a class: weights over a context can be zero, and a log loss must not be infinite."""

TEMPERATURES = tuple(float(t) for t in np.exp(np.linspace(math.log(0.5), math.log(2.0), 17)))


@dataclass(frozen=True)
class Effort:
    """How much of the table is read and learned, by budget. ``episode_rows`` are context and query rows together."""

    members: int
    context_rows: int
    epochs: int
    episodes: int
    episode_rows: int


EFFORTS = {
    "quick": Effort(members=2, context_rows=768, epochs=5, episodes=3, episode_rows=256),
    "standard": Effort(members=4, context_rows=1024, epochs=24, episodes=6, episode_rows=512),
    "thorough": Effort(members=8, context_rows=2048, epochs=60, episodes=8, episode_rows=768),
}

_PACES = {
    "head": Pace(learning_rate=1e-3, decay=1.0, pull=0.0, batch_rows=1, patience=4),
    "gradual": Pace(learning_rate=3e-4, decay=0.7, pull=1e-4, batch_rows=1, patience=3),
    "full": Pace(learning_rate=3e-4, decay=0.7, pull=1e-4, batch_rows=1, patience=5),
    "lora": Pace(learning_rate=1e-3, decay=1.0, pull=0.0, batch_rows=1, patience=5),
}


class Icl(Model):
    """The in-context base with its context, ready to answer. See the module."""

    title = "In-context base"
    hows = {
        "as_is": "base",
        "head": "adapted",
        "gradual": "adapted",
        "lora": "adapted",
        "full": "adapted",
        "context": "adapted",
    }
    needs_source = frozenset({"context"})
    has_weights = True
    importance_rows = 300

    def __init__(
        self,
        net: IclNet,
        adapters: Adapters | None = None,
        table: _Table | None = None,
        source: Features | None = None,
    ) -> None:
        self.net_ = net.eval().requires_grad_(False)
        self.adapters_ = adapters
        self.table_ = table
        self.source_ = source

    def knowing(self, source: Features) -> Self:
        """Return this base with a source table's rows at hand. See :meth:`Model.knowing`."""
        other = copy(self)
        other.source_ = source
        return other

    @classmethod
    def open_weights(cls, place: Path | None, task: str) -> Self:
        """Open the shipped weights (one base for every task), or those of a folder that ``tabkit pretrain icl`` wrote."""
        net, weights = open_folder(place)
        base = cls(net)
        base.opened_from = weights
        return base

    @classmethod
    def pretrain(cls, source: Features | None, rows: Features, rng: np.random.Generator, budget: Budget) -> Self | None:
        """Return the shipped base; it was pretrained on synthetic tables, and reads neither ``source`` nor ``rows``."""
        return cls.open_weights(None, rows.layout.task)

    def adapt(
        self,
        train: Features,
        valid: Features | None,
        how: str,
        rng: np.random.Generator,
        budget: Budget,
        settings: Settings | None = None,
    ) -> Adapted[Model]:
        """Adapt a copy by one of ``hows``. See :meth:`Model.adapt`."""
        if how not in self.hows:
            raise ValueError(f"icl knows {sorted(self.hows)}, not {how!r}")
        effort = EFFORTS[budget.level]
        if how == "context":
            return self._beside_source(train, valid, effort, settings)
        table = _Table.of(train, effort, CONTEXT_SEED)
        base = Icl(_merged(self.net_, self.adapters_), None, table)
        notes: tuple[str, ...] = (f"answers from {table.describe()}; a bundle of it holds those rows",)
        if how == "as_is":
            model, _ = base._calibrated(valid, settings)
            return Adapted(model, how, _untouched(base.net_), {"temperature": model.table.temperature}, (), notes)
        tuned = _fit(base, train, valid, how, rng, budget, settings)
        model, after = tuned.model._calibrated(valid, settings)
        proof, alpha = tuned.fitted.proof, tuned.fitted.settings["alpha"]
        if valid is not None and settings is None and alpha:
            untouched, before = base._calibrated(valid, None)
            if after > before:
                # The loop compared epochs on one member and a part of valid; all of both say the base was better.
                model, alpha = untouched, 0.0
                proof = Proof(tuple(replace(block, change=0.0) for block in proof.blocks))
                notes += ("on all of valid no epoch beat the untouched base, which is what returns",)
        found = {**tuned.fitted.settings, "alpha": alpha, "temperature": model.table.temperature}
        return Adapted(model, how, proof, found, tuned.fitted.history, (*tuned.fitted.notes, *notes))

    def _beside_source(
        self, train: Features, valid: Features | None, effort: Effort, settings: Settings | None
    ) -> Adapted[Model]:
        """Choose on valid how many rows of the source stand in the context beside the target's."""
        if self.source_ is None:
            raise ValueError("icl context needs a source table")
        net, source = _merged(self.net_, self.adapters_), self.source_
        room = max(0, min(effort.context_rows - len(train), len(source)))
        wanted = [0, *(n * len(train) for n in SOURCE_MULTIPLES), room]
        options = sorted({min(n, room) for n in (wanted if settings is None else [int(settings["source_rows"])])})
        order = np.random.default_rng(CONTEXT_SEED).permutation(len(source))
        tried = []
        for n in options:
            part = source.take(order[:n]) if n else None
            known = train if part is None else part.stack(train)
            beside = Icl(net, None, _Table.of(known, effort, CONTEXT_SEED), part)
            tried.append((*beside._calibrated(valid, settings), n))
        model, _, kept = min(tried, key=lambda entry: (entry[1], entry[2]))
        history = tuple(
            Step(i, None, on_valid, f"{n:,} source rows" if n else "untouched base")
            for i, (_, on_valid, n) in enumerate(tried)
            if not math.isnan(on_valid)
        )
        notes: tuple[str, ...] = (
            f"answers from {len(train):,} rows of the target and {kept:,} of the source; a bundle of it holds those rows",
        )
        if not room:
            notes += ("the target's rows fill the context: there is no room for the source's",)
        found = {"source_rows": kept, "temperature": model.table.temperature}
        return Adapted(model, "context", _untouched(net), found, history, notes)

    @property
    def table(self) -> _Table:
        """The context and what it was made with."""
        assert self.table_ is not None, "this base has no context yet; call adapt first"
        return self.table_

    def _calibrated(self, valid: Features | None, settings: Settings | None) -> tuple[Icl, float]:
        """Return the model at the temperature of least loss on valid, and that loss; or at that of an earlier result.

        Regression knows no temperature: it stays 1.
        """
        if settings is not None or valid is None:
            earlier = 1.0 if settings is None else float(settings["temperature"])
            return self._at(earlier), math.nan
        raw = self._answer(valid, self._members, self.table)
        if self.table.regression:
            return self._at(1.0), loss(valid, raw)
        least, _, t = min((loss(valid, _tempered(raw, t)), abs(math.log(t)), t) for t in TEMPERATURES)
        return self._at(t), least

    def _at(self, temperature: float) -> Icl:
        """Return this model at another temperature; contexts encoded already stay so."""
        other = Icl(self.net_, self.adapters_, replace(self.table, temperature=temperature), self.source_)
        if "_members" in vars(self):
            vars(other)["_members"] = self._members
        return other

    def predict(self, features: Features) -> Predictions:
        """Predict each row from the cached context, in padded batches of a fixed size."""
        return self._finished(self._answer(features, self._members, self.table))

    def predict_train(self, train: Features) -> Predictions:
        """Predict train rows context-safe: a row is answered from contexts without its fold."""
        table = self.table
        fold = np.random.default_rng(table.seed).permutation(len(train)) % FOLDS
        out: Predictions | None = None
        for k in range(FOLDS):
            inside = np.flatnonzero(fold == k)
            others = train.take(np.flatnonzero(fold != k))
            known = others if self.source_ is None else self.source_.stack(others)
            rest = _Table.of(known, table.effort, table.seed)
            predicted = self._finished(self._answer(train.take(inside), self._encode(rest), rest))
            out = np.zeros((len(train), *predicted.shape[1:])) if out is None else out
            out[inside] = predicted
        assert out is not None
        return out

    @cached_property
    def _members(self) -> list[_Member]:
        return self._encode(self.table)

    def _encode(self, table: _Table) -> list[_Member]:
        def encode(number: int) -> _Member:
            columns, rows = table.columns(number), table.shares[number]
            draw = table.draw(number, len(columns), table.classes)
            x = torch.from_numpy(table.x[np.ix_(rows, columns)])[None]
            y = torch.from_numpy(table.y[rows])[None]
            flags = torch.from_numpy(table.categorical[columns])[None]
            return _Member(columns, flags, y, self.net_.encode(x, y, flags, table.regression, draw))

        return in_parallel(encode, range(table.effort.members))

    def _answer(self, features: Features, members: Sequence[_Member], table: _Table) -> Predictions:
        """Return the members' mean answer: probabilities (n_rows, n_classes) before any tempering, or numbers (n_rows,)."""
        cells, _ = cells_of(features)

        def answer(job: tuple[int, _Member]) -> Tensor:
            start, member = job
            part = torch.from_numpy(cells[start : start + PREDICT_ROWS, member.columns])
            padded = functional.pad(part, (0, 0, 0, PREDICT_ROWS - len(part)))[None]
            weights = self.net_.answer(member.context, padded, member.categorical, table.regression).double()
            if table.regression:
                out = weights @ member.y.double()[..., None]
            else:
                out = class_probabilities(weights, member.y, table.classes)
            return out[0, : len(part)]

        starts = range(0, len(features), PREDICT_ROWS)
        answers = in_parallel(answer, [(start, member) for start in starts for member in members])
        total = np.zeros((len(features), table.classes or 1))
        for job, out in enumerate(answers):  # in the order of members, so that a row's sum is always the same
            start = starts[job // len(members)]
            total[start : start + len(out)] += out.numpy()
        total *= np.asarray(table.ratios or 1.0) / len(members)
        if table.regression:
            return np.asarray(total[:, 0] * table.y_std + table.y_mean)
        return total

    def _finished(self, raw: Predictions) -> Predictions:
        return raw if self.table.regression else _tempered(raw, self.table.temperature)

    def save(self, folder: Path) -> None:
        """Write weights, adapters where there are any, context and config: safetensors and JSON."""
        save_file({n: t.contiguous() for n, t in self.net_.state_dict().items()}, folder / "weights.safetensors")
        if self.adapters_ is not None:
            save_file(
                {n: t.detach().contiguous() for n, t in self.adapters_.state_dict().items()},
                folder / "adapters.safetensors",
            )
        table = self.table
        context = {
            "x": table.x,
            "y": table.y,
            "categorical": table.categorical.astype(np.uint8),
            "shares": table.shares,
        }
        save_file({n: torch.from_numpy(a).contiguous() for n, a in context.items()}, folder / "context.safetensors")
        config = {"net": self.net_.config.as_dict(), "table": table.as_dict()}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a tensor too few or too many is an error."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        net = _build(IclConfig(**config["net"]))
        net.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
        adapters = None
        if (folder / "adapters.safetensors").exists():
            adapters = _adapters(net)
            adapters.load_state_dict(load_file(folder / "adapters.safetensors"), strict=True)
        context = load_file(folder / "context.safetensors")
        facts = {**config["table"], "effort": Effort(**config["table"]["effort"])}
        flags = context["categorical"].numpy().astype(np.bool_)
        table = _Table(context["x"].numpy(), context["y"].numpy(), flags, context["shares"].numpy(), **facts)
        return cls(net, adapters, table)

    def envelope(self, train: Features) -> str | None:
        """Name what lies beyond the tables this base was pretrained on."""
        layout, table = train.layout, self.table
        beyond = []
        if layout.n_features > PRETRAINED_COLUMNS:
            shown = f"{layout.n_features} columns (pretrained on {PRETRAINED_COLUMNS} at most"
            read = f"; each member reads {MAX_COLUMNS} of them)" if layout.n_features > MAX_COLUMNS else ")"
            beyond.append(shown + read)
        if len(layout.classes) > PRETRAINED_CLASSES:
            beyond.append(f"{len(layout.classes)} classes (pretrained on {PRETRAINED_CLASSES} at most)")
        if len(train) > len(table.y):
            beyond.append(f"{len(train):,} train rows, of which its contexts read {len(table.y):,}")
        return "; ".join(beyond) or None


@dataclass(frozen=True)
class _Member:
    columns: npt.NDArray[np.int64]
    categorical: Tensor
    y: Tensor
    context: Context


@dataclass(frozen=True)
class _Table:
    """The rows that contexts are cut from: cells (N, C), targets (N,) as class codes or standardised numbers.

    ``shares`` (members, rows) are the positions that each member reads. ``ratios`` are the classes' shares of train
    over their shares of a context; empty where contexts are as train is.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    categorical: npt.NDArray[np.bool_]
    shares: npt.NDArray[np.int64]
    classes: int
    regression: bool
    y_mean: float
    y_std: float
    effort: Effort
    seed: int
    train_rows: int
    ratios: Sequence[float] = ()
    temperature: float = 1.0

    @classmethod
    def of(cls, train: Features, effort: Effort, seed: int) -> _Table:
        """Take the rows of train that the members read."""
        assert train.y is not None
        regression = train.layout.task == "regression"
        mean, std = (float(train.y.mean()), float(train.y.std()) or 1.0) if regression else (0.0, 1.0)
        read = _shares(train, effort, seed)
        kept, positions = np.unique(read, return_inverse=True)
        x, categorical = cells_of(train.take(kept))
        return cls(
            x,
            ((train.y[kept] - mean) / std).astype(np.float32),
            categorical,
            positions.reshape(read.shape),
            len(train.layout.classes),
            regression,
            mean,
            std,
            effort,
            seed,
            len(train),
            () if regression or read.shape[1] == len(train) else _ratios(train, read[0]),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what is not an array, as JSON values."""
        names = ("classes", "regression", "y_mean", "y_std", "seed", "train_rows", "ratios", "temperature")
        return {**{n: getattr(self, n) for n in names}, "effort": vars(self.effort)}

    def describe(self) -> str:
        """Say what is read, in words."""
        n, each = self.shares.shape
        return f"{n} contexts of {each:,} rows ({len(self.y):,} of {self.train_rows:,} train rows)"

    def columns(self, member: int) -> npt.NDArray[np.int64]:
        """Return the columns a member reads."""
        n = self.x.shape[1]
        if n <= MAX_COLUMNS:
            return np.arange(n)
        return np.sort(np.random.default_rng([self.seed, member, 1]).choice(n, MAX_COLUMNS, replace=False))

    def draw(self, member: int, n_columns: int, n_classes: int) -> Draw:
        """Return a member's column ids and class codes."""
        return random_draw(np.random.default_rng([self.seed, member]), 1, n_columns, max(1, n_classes))


@dataclass(frozen=True)
class _Tuned:
    model: Icl
    fitted: Fitted


class _Task(nn.Module):
    """What the loop trains: the network, and adapters where the strategy is low-rank."""

    def __init__(self, net: IclNet, adapters: Adapters | None) -> None:
        super().__init__()
        self.net = net
        self.adapters = adapters

    def blocks(self) -> dict[str, Sequence[nn.Module]]:
        own = self.net.blocks()
        return own if self.adapters is None else {**own, "lora": [self.adapters]}


def _fit(
    base: Icl,
    train: Features,
    valid: Features | None,
    how: str,
    rng: np.random.Generator,
    budget: Budget,
    settings: Settings | None,
) -> _Tuned:
    """Train a copy of the base on episodes of train."""
    table, effort = base.table, EFFORTS[budget.level]
    net = _copied(base.net_)
    with seeded(int(rng.integers(2**31))):
        adapters = Adapters(net, RANK) if how == "lora" else None
    task = _Task(net, adapters)
    device = torch.device("cuda" if budget.device == "cuda" or _has_gpu(budget) else "cpu")
    task.to(device)
    cells, categorical = cells_of(train)
    assert train.y is not None
    x = torch.from_numpy(cells).to(device)
    y = torch.from_numpy(((train.y - table.y_mean) / table.y_std).astype(np.float32)).to(device)
    flags = torch.from_numpy(categorical).to(device)

    def answer(context: Tensor, asked: Tensor, columns: Tensor, draw: Draw) -> Tensor:
        """Weights (Q, n) of the asked cells over context rows of train."""
        both = torch.cat([x[context][:, columns], asked[:, columns]])[None]
        weights: Tensor = net(both, y[context][None], flags[columns][None], table.regression, draw)
        return weights

    def batch_loss(_: Tensor, augment: bool) -> Tensor:
        """One episode: rows drawn from train, a quarter of them queries (torch's generator is seeded by the loop)."""
        order = torch.randperm(len(train))[: effort.episode_rows].to(device)
        cut = max(1, len(order) // 4)
        query, context = order[:cut], order[cut:]
        most = x.shape[1] if not augment else max(1, int(x.shape[1] * 0.8))
        columns = torch.randperm(x.shape[1])[: min(most, MAX_COLUMNS)].sort().values.to(device)
        seed = int(torch.randint(2**31, (1,)))
        draw = _moved(random_draw(np.random.default_rng(seed), 1, len(columns), max(1, table.classes)), device)
        return _objective(answer(context, x[query], columns, draw), y[context], y[query], table)

    measured = None if valid is None else _part(valid, VALID_ROWS, table.seed)
    context = torch.from_numpy(_shares(train, effort, table.seed)[0]).to(device)
    ratios = torch.tensor(list(table.ratios) or [1.0]).to(device)

    def valid_loss() -> float:
        assert measured is not None and measured.y is not None
        asked, _ = cells_of(measured)
        truth = torch.from_numpy(((measured.y - table.y_mean) / table.y_std).astype(np.float32)).to(device)
        columns = torch.from_numpy(table.columns(0)).to(device)
        draw = _moved(table.draw(0, len(columns), table.classes), device)
        weights = answer(context, torch.from_numpy(asked).to(device), columns, draw)
        return float(_objective(weights, y[context], truth, table, ratios))

    fitted = fit(
        task,
        task.blocks(),
        how,
        effort.episodes,
        batch_loss,
        None if settings is not None else valid_loss,
        _PACES[how],
        rng,
        replace(budget, epochs=effort.epochs),
        settings,
    )
    task.to("cpu").eval()
    return _Tuned(Icl(net, adapters, table), fitted)


def _objective(weights: Tensor, context: Tensor, truth: Tensor, table: _Table, ratios: Tensor | None = None) -> Tensor:
    """Mean log loss, or CRPS for regression, of query rows given their weights over the context."""
    if table.regression:
        return 2.0 * crps(weights, context[None], truth[None]).mean()
    chances = class_probabilities(weights, context[None], table.classes)
    if ratios is not None:
        chances = chances * ratios
        chances = chances / chances.sum(dim=2, keepdim=True)
    floored = (1 - 1e-3) * chances + 1e-3 / table.classes
    return -floored.gather(2, truth.long()[None, :, None]).log().mean()


def _shares(train: Features, effort: Effort, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows (members, rows) of train that each member reads: all that fit, else its part, round and round."""
    n, most = len(train), effort.context_rows
    if n <= most:
        return np.tile(np.arange(n), (effort.members, 1))
    if train.layout.task == "regression":
        sources: list[tuple[npt.NDArray[np.int64], int]] = [(_stratified(train, seed), most)]
    else:
        labels = train.labels.astype(np.int64)
        quotas = _quotas(np.bincount(labels, minlength=len(train.layout.classes)), most)
        own = [np.random.default_rng([seed, k]).permutation(np.flatnonzero(labels == k)) for k in range(len(quotas))]
        sources = [(rows, int(quota)) for rows, quota in zip(own, quotas, strict=True) if quota]
    parts = [
        [rows[np.arange(member * quota, (member + 1) * quota) % len(rows)] for rows, quota in sources]
        for member in range(effort.members)
    ]
    return np.stack([np.sort(np.concatenate(part)) for part in parts])


def _quotas(counts: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Share ``most`` rows out among classes as their counts are, but none under half an even share while it has rows.

    >>> _quotas(np.array([950, 50]), 100).tolist(), _quotas(np.array([950, 10]), 100).tolist()
    ([75, 25], [90, 10])
    """
    least = np.minimum(counts, most // (2 * max(1, int((counts > 0).sum()))))
    rare = np.zeros(len(counts), np.bool_)
    while True:
        left = most - int(least[rare].sum())
        fair = left * counts / max(1, counts[~rare].sum())
        short = ~rare & (fair < least)
        if not short.any():
            break
        rare |= short
    quotas = np.where(rare, least, fair.astype(np.int64))
    order = np.argsort(np.where(rare, np.inf, np.floor(fair) - fair), kind="stable")
    quotas[order[: most - quotas.sum()]] += 1  # the largest remainders
    return np.asarray(quotas, np.int64)


def _ratios(train: Features, context: npt.NDArray[np.int64]) -> tuple[float, ...]:
    """Return each class's share of train over its share of a context; 1 for a class without rows."""
    k = len(train.layout.classes)
    labels = train.labels.astype(np.int64)
    whole, read = (np.bincount(part, minlength=k) / len(part) for part in (labels, labels[context]))
    return tuple(float(w / r) if r else 1.0 for w, r in zip(whole, read, strict=True))


def _stratified(train: Features, seed: int) -> npt.NDArray[np.int64]:
    """Order rows so that every stretch has the classes (or the target's range) in train's proportions."""
    assert train.y is not None
    order = np.random.default_rng(seed).permutation(len(train))
    ranked = order[np.argsort(train.y[order], kind="stable")]
    # Rows sorted by target, dealt out evenly: the k-th of a class with n rows comes at (k + 1/2) / n of the way.
    if train.layout.task == "regression":
        bins = np.arange(len(train)) * min(10, len(train)) // len(train)
        place = np.empty(len(train))
        for b in np.unique(bins):
            inside = np.flatnonzero(bins == b)
            place[np.random.default_rng([seed, int(b)]).permutation(inside)] = (np.arange(len(inside)) + 0.5) / len(
                inside
            )
    else:
        labels = train.y[ranked]
        _, start, count = np.unique(labels, return_index=True, return_counts=True)
        place = np.concatenate([(np.arange(n) + 0.5) / n for n in count[np.argsort(start)]])
    return np.asarray(ranked[np.argsort(place, kind="stable")], np.int64)


def _part(rows: Features, most: int, seed: int) -> Features:
    return rows if len(rows) <= most else rows.take(np.sort(_stratified(rows, seed)[:most]))


def _moved(draw: Draw, device: torch.device) -> Draw:
    return Draw(draw.ids.to(device), draw.codes.to(device))


def _tempered(p: Predictions, temperature: float) -> Predictions:
    """Return probabilities (n_rows, n_classes) raised to 1/temperature, none below the floor, rows summing to 1."""
    floored = (1 - FLOOR) * p / p.sum(axis=1, keepdims=True) + FLOOR / p.shape[1]
    sharp = floored ** (1.0 / temperature)
    return np.asarray(sharp / sharp.sum(axis=1, keepdims=True))


def _untouched(net: IclNet) -> Proof:
    return Proof(
        tuple(
            Block(name, sum(p.numel() for part in parts for p in part.parameters()), 0, 0.0)
            for name, parts in net.blocks().items()
        )
    )


def _has_gpu(budget: Budget) -> bool:
    return budget.device == "auto" and torch.cuda.is_available()


def _build(config: IclConfig) -> IclNet:
    with seeded(0):  # overwritten by whoever loads weights; the global generator must not notice
        return IclNet(config)


def _adapters(net: IclNet) -> Adapters:
    with seeded(0):
        return Adapters(net, RANK)


def _copied(net: IclNet) -> IclNet:
    """Copy a network's weights into a new one; hooks of adapters stay behind."""
    copy = _build(net.config)
    copy.load_state_dict(net.state_dict(), strict=True)
    return copy


def _merged(net: IclNet, adapters: Adapters | None) -> IclNet:
    """Return the network with its adapters added in: what a further adaptation starts from."""
    if adapters is None:
        return net
    merged = _copied(net)
    with torch.no_grad():
        for target, down, up in zip(Adapters.targets(merged), adapters.down, adapters.up, strict=True):
            target.weight += up @ down
    return merged


def read_weights(folder: Path | None = None) -> IclNet:
    """Read a pretrained network: the shipped one, or that of a folder that ``tabkit pretrain icl`` wrote."""
    return open_folder(folder)[0]


def open_folder(folder: Path | None) -> tuple[IclNet, Weights]:
    """Read a folder of weights, the shipped one where None: the network, and what is known of its weights.

    Raises
    ------
    UsageError
        The folder lacks a file, a file cannot be read, or the tensors are not those of the sizes it states.
    """
    place = resources.files("tabkit") / "weights" / "icl" if folder is None else folder
    if folder is not None:
        missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if missing:
            raise UsageError(
                f"icl weights {folder}: {' and '.join(missing)} not there. Expected a folder that 'tabkit pretrain icl' "
                f"wrote: its weights/, with {CONFIG} and {WEIGHTS}."
            )
    try:
        config: Mapping[str, Any] = json.loads((place / CONFIG).read_text(encoding="utf-8"))
        net = _build(IclConfig(**config["net"]))
        with resources.as_file(place / WEIGHTS) as path:
            content = path.read_bytes()
        stored = load(content)
        net.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, strict=True)
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as problem:
        reason = " ".join(str(problem).split())[:300]
        raise UsageError(
            f"icl weights {place} do not fit this version of tabkit's network: {reason}. "
            "Expected the weights/ folder of 'tabkit pretrain icl' made by this version; make it again."
        ) from None
    if not all(bool(tensor.isfinite().all()) for tensor in stored.values()):
        raise UsageError(f"icl weights {place} hold numbers that are not finite. Take another checkpoint.")
    made = config.get("made", {})
    weights = Weights(
        "shipped" if folder is None else str(folder),
        hashlib.sha256(content).hexdigest(),
        str(config.get("licence", "not stated")),
        tuple(table["fingerprint"] for table in made.get("continued_on", ())),
    )
    return net, weights
