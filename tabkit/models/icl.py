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
- **Weights.** A row of the context counts once, whatever its weight. Weights reach the loss that is trained by, and all
  that valid chooses: there, whether probabilities are brought to the classes' weighted shares. That is right if weights
  hang on the class (cases and controls, censoring), and wrong if they hang on the columns alone.
- **Privacy.** A bundle of this base holds the context: rows of the training table. Its notes say so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from tabkit.data.encode import Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings, Step
from tabkit.models.base import Model, cells_of, loss
from tabkit.models.parts.icl_context import MAX_COLUMNS, Effort, Table
from tabkit.models.parts.icl_net import (
    Adapters,
    Context,
    IclConfig,
    IclNet,
    class_probabilities,
)
from tabkit.models.parts.icl_training import Lesson, tune
from tabkit.models.parts.icl_weights import adapters_of, build, merged, open_folder
from tabkit.torch_loop import in_parallel

PRETRAINED_COLUMNS, PRETRAINED_CLASSES = 30, 10

PREDICT_ROWS = 256
"""Rows per forward pass, padded to that number: a row's result cannot depend on how many stand beside it."""

FOLDS = 4
"""Folds by which train rows are scored: a row is answered from the other folds alone."""

CONTEXT_SEED = 1826701615
"""Of shares, column ids and class codes: one for all, so that a base and what was adapted from it read the same."""

SOURCE_MULTIPLES = (1, 4)
"""Source rows tried in the context, per row of the target; beside none and as many as there is room for."""

FLOOR = 1e-4
"""Least probability of a class: weights over a context can be zero, and a log loss must not be infinite."""

TEMPERATURES = tuple(float(t) for t in np.exp(np.linspace(math.log(0.5), math.log(2.0), 17)))


EFFORTS = {
    "quick": Effort(members=2, context_rows=768, epochs=5, episodes=3, episode_rows=256),
    "standard": Effort(members=4, context_rows=1024, epochs=24, episodes=6, episode_rows=512),
    "thorough": Effort(members=8, context_rows=2048, epochs=60, episodes=8, episode_rows=768),
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
    unweighted = "the rows of its context count once each"
    importance_rows = 300

    def __init__(
        self,
        net: IclNet,
        adapters: Adapters | None = None,
        table: Table | None = None,
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
        effort = EFFORTS[budget.effort]
        if how == "context":
            return self._beside_source(train, valid, effort, settings)
        table = Table.of(train, effort, CONTEXT_SEED)
        base = Icl(merged(self.net_, self.adapters_), None, table)
        notes: tuple[str, ...] = (f"answers from {table.describe()}; a bundle of it holds those rows",)
        if how == "as_is":
            model, _ = base._calibrated(valid, settings)
            return Adapted(model, how, _untouched(base.net_), model.table.chosen, (), notes)
        tuned = tune(Lesson(base.net_, table, train, valid), how, rng, budget, settings)
        model, after = Icl(tuned.net, tuned.adapters, table)._calibrated(valid, settings)
        proof, alpha = tuned.fitted.proof, tuned.fitted.settings["alpha"]
        if valid is not None and settings is None and alpha:
            untouched, before = base._calibrated(valid, None)
            if after > before:
                # The loop compared epochs on one member and a part of valid; all of both say the base was better.
                model, alpha = untouched, 0.0
                proof = Proof(tuple(replace(block, change=0.0) for block in proof.blocks))
                notes += ("on all of valid no epoch beat the untouched base, which is what returns",)
        found = {**tuned.fitted.settings, "alpha": alpha, **model.table.chosen}
        return Adapted(model, how, proof, found, tuned.fitted.history, (*tuned.fitted.notes, *notes))

    def _beside_source(
        self, train: Features, valid: Features | None, effort: Effort, settings: Settings | None
    ) -> Adapted[Model]:
        """Choose on valid how many rows of the source stand in the context beside the target's."""
        if self.source_ is None:
            raise ValueError("icl context needs a source table")
        net, source = merged(self.net_, self.adapters_), self.source_
        room = max(0, min(effort.context_rows - len(train), len(source)))
        wanted = [0, *(n * len(train) for n in SOURCE_MULTIPLES), room]
        options = sorted({min(n, room) for n in (wanted if settings is None else [int(settings["source_rows"])])})
        order = np.random.default_rng(CONTEXT_SEED).permutation(len(source))
        tried = []
        for n in options:
            part = source.take(order[:n]) if n else None
            known = train if part is None else part.stack(train)
            beside = Icl(net, None, Table.of(known, effort, CONTEXT_SEED), part)
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
        found = {"source_rows": kept, **model.table.chosen}
        return Adapted(model, "context", _untouched(net), found, history, notes)

    @property
    def table(self) -> Table:
        """The context and what it was made with."""
        assert self.table_ is not None, "this base has no context yet; call adapt first"
        return self.table_

    def _calibrated(self, valid: Features | None, settings: Settings | None) -> tuple[Icl, float]:
        """Return the model at the temperature of least loss on valid, and that loss; or at that of an earlier result.

        Regression knows no temperature: it stays 1. Of weighted rows, so is whether to lean to the classes' weighted shares.
        """
        if settings is not None or valid is None:
            earlier = {} if settings is None else settings
            return self._at(float(earlier.get("temperature", 1.0)), bool(earlier.get("weighted_classes"))), math.nan
        raw = self._answer(valid, self._members, self.table)
        if self.table.regression:
            return self._at(1.0), loss(valid, raw)
        answers = {False: raw} | ({True: raw * self.table.leaning} if self.table.leaning else {})
        least, _, t, leans = min(
            (loss(valid, _tempered(p, t)), abs(math.log(t)), t, leans)
            for leans, p in answers.items()
            for t in TEMPERATURES
        )
        return self._at(t, leans), least

    def _at(self, temperature: float, leans: bool = False) -> Icl:
        """Return this model at another temperature, leaning or not; contexts encoded already stay so."""
        table = replace(self.table, temperature=temperature, leans=leans and bool(self.table.leaning))
        other = Icl(self.net_, self.adapters_, table, self.source_)
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
            rest = Table.of(known, table.effort, table.seed)
            rest = replace(rest, leans=table.leans and bool(rest.leaning))
            predicted = self._finished(self._answer(train.take(inside), self._encode(rest), rest))
            out = np.zeros((len(train), *predicted.shape[1:])) if out is None else out
            out[inside] = predicted
        assert out is not None
        return out

    @cached_property
    def _members(self) -> list[_Member]:
        return self._encode(self.table)

    def _encode(self, table: Table) -> list[_Member]:
        def encode(number: int) -> _Member:
            columns, rows = table.columns(number), table.shares[number]
            draw = table.draw(number, len(columns), table.classes)
            x = torch.from_numpy(table.x[np.ix_(rows, columns)])[None]
            y = torch.from_numpy(table.y[rows])[None]
            flags = torch.from_numpy(table.categorical[columns])[None]
            return _Member(columns, flags, y, self.net_.encode(x, y, flags, table.regression, draw))

        return in_parallel(encode, range(table.effort.members))

    def _answer(self, features: Features, members: Sequence[_Member], table: Table) -> Predictions:
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
        total *= table.correction / len(members)
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
        net = build(IclConfig(**config["net"]))
        net.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
        adapters = None
        if (folder / "adapters.safetensors").exists():
            adapters = adapters_of(net)
            adapters.load_state_dict(load_file(folder / "adapters.safetensors"), strict=True)
        context = load_file(folder / "context.safetensors")
        facts = {**config["table"], "effort": Effort(**config["table"]["effort"])}
        flags = context["categorical"].numpy().astype(np.bool_)
        table = Table(context["x"].numpy(), context["y"].numpy(), flags, context["shares"].numpy(), **facts)
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
