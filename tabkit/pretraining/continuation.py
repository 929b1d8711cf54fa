"""Continue the in-context base on several tables of a domain: ``tabkit pretrain icl --continue-on RECIPE ...``.

The base learns from episodes: rows drawn from one of the tables, part of them context and part queries, mixed with
synthetic episodes of its pretraining so that it does not forget. The one training loop does it, by its rules: a pull
towards the base, layers below learning slower, the untouched base as epoch 0 of the contest on valid rows, and what
returns interpolated between base and tuned.

Whether it paid is measured **leave-one-table-out**: for each table the base is continued on all the others, and both
bases, untouched (``as_is``), answer the holdout rows of the table left out, paired. The weights that are written at
last were continued on all tables by the same procedure; no table is left to measure them on.

Every table left out is a piece of work of its own, a function of the plan alone, and is kept once done: after a kill
the same command does what is missing, and the outcome is the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor

from tabkit.data.encode import Features
from tabkit.errors import UsageError
from tabkit.evaluate.intervals import Resampler, paired
from tabkit.files import write_text
from tabkit.learner import BUDGETS, Predictions
from tabkit.models.base import cells_of, loss
from tabkit.models.icl import Icl
from tabkit.models.parts.icl_context import MAX_COLUMNS
from tabkit.models.parts.icl_net import IclNet, random_draw
from tabkit.models.parts.icl_prior import MAX_CLASSES
from tabkit.models.parts.icl_weights import open_folder
from tabkit.pretraining.checkpoint import write_weights
from tabkit.pretraining.domain import DomainTable, read_table_of
from tabkit.pretraining.loop import Episodes, Shape, draw_episodes, episode_loss
from tabkit.seed import stream
from tabkit.torch_loop import Course, Pace, fit, one_thread

FEWEST_TABLES = 3
"""Fewer tables left out give no interval over tables that says anything."""

VALID_ROWS = 200
RESAMPLES = 1000
LICENCE = "Apache-2.0 (the shipped base), continued on your tables: their terms apply too"

Paid = Literal["yes", "no", "not shown"]
Watch = Callable[[float, str], None]


@dataclass(frozen=True)
class Continuation:
    """What is learned, and how long. ``synthetic`` is the share of episodes drawn from the prior."""

    seed: int = 0
    epochs: int = 12
    episodes: int = 16
    batch: int = 2
    context: tuple[int, int] = (64, 384)
    synthetic: float = 0.5
    learning_rate: float = 1e-4
    decay: float = 0.7
    pull: float = 1e-3
    patience: int = 4

    @property
    def steps(self) -> int:
        """Steps of the optimiser at most, for each table left out and once more for all."""
        return self.epochs * (self.episodes // self.batch)


@dataclass(frozen=True)
class LeftOut:
    """What continuing on the others did for one table: both bases' scores on its holdout, and the paired gain.

    ``gain`` (95% interval ``low`` to ``high``) is positive if the continued base is better, in the recipe's primary
    metric; ``loss_gain`` is the relative fall of log loss (mean squared error for regression). ``alpha`` is the share
    of the way from base to tuned that valid chose: 0 says that nothing beat the base there.
    """

    table: str
    rows: int
    metric: str
    base: float
    continued: float
    gain: float
    low: float
    high: float
    loss_gain: float
    alpha: float


class _Outcome(TypedDict):
    """What the tables left out say together: fields of :class:`Continued`."""

    loss_gain: float
    low: float
    high: float
    paid: Paid
    sentence: str


@dataclass(frozen=True)
class Continued:
    """The outcome: the weights of all tables, each table left out, and whether it paid.

    ``loss_gain`` is the mean over tables of their relative fall in loss, with a 95% t-interval over tables. ``notes``
    name the tables that were cut otherwise than a run cuts them.
    """

    weights: Path
    left_out: tuple[LeftOut, ...]
    loss_gain: float
    low: float
    high: float
    paid: Paid
    sentence: str
    notes: tuple[str, ...] = ()


def continue_icl(
    sources: Sequence[str],
    out: Path,
    rules: Continuation | None = None,
    device: str = "cpu",
    progress: Watch = lambda fraction, note: None,
) -> Continued:
    """Continue the shipped base on ``sources`` and measure it leave-one-table-out.

    Parameters
    ----------
    sources
        Three or more recipes, each ``RECIPE`` (its sample) or ``RECIPE=DATA``.
    out
        Folder of ``left_out/`` (a file per table), ``continuation.json`` (the outcome) and ``weights/`` (what
        ``tabkit run --weights icl=OUT/weights`` takes). What it holds of the same job is not done again.

    Raises
    ------
    UsageError, DataError
        Too few sources, the same table twice, a ranking recipe, a table that cannot be used; or ``out`` holds another job.
    """
    rules = rules or Continuation()
    tables = _read_tables(sources, rules.seed, out, progress)
    base, weights = open_folder(None)
    job = {
        "base": weights.sha256,
        "plan": asdict(rules),
        "tables": [{"recipe": t.name, "fingerprint": t.fingerprint} for t in tables],
    }
    _open_job(out, job)
    left_out = []
    for number, table in enumerate(tables):
        path = out / "left_out" / f"{number:02d}.json"
        if not path.exists():
            others = [t for t in tables if t is not table]
            rng = stream(rules.seed, "left out", str(number))
            watch = _part(progress, number, len(tables), f"without {table.name}")
            tuned, alpha = continued(base, others, rules, rng, device, watch)
            _write_json(path, asdict(measured(base, tuned, table, alpha, rules.seed)))
        left_out.append(LeftOut(**json.loads(path.read_text(encoding="utf-8"))))
    outcome = _outcome(left_out)
    folder = out / "weights"
    if not (folder / "config.json").exists():
        watch = _part(progress, len(tables), len(tables), "on all tables")
        final, alpha = continued(base, tables, rules, stream(rules.seed, "all"), device, watch)
        origin = {
            "continued_from": weights.sha256,
            "continued_on": job["tables"],
            "plan": asdict(rules),
            "alpha": alpha,
            "leave_one_table_out": outcome,
        }
        write_weights(folder, final, origin, LICENCE)
    notes = tuple(table.note for table in tables if table.note)
    _write_json(
        out / "continuation.json", {**job, **outcome, "notes": notes, "left_out": [asdict(one) for one in left_out]}
    )
    progress(1.0, "")
    return Continued(folder, tuple(left_out), notes=notes, **outcome)


def _read_tables(sources: Sequence[str], seed: int, out: Path, progress: Watch) -> list[DomainTable]:
    if len(sources) < FEWEST_TABLES:
        raise UsageError(
            f"--continue-on names {len(sources)} tables. Expected at least {FEWEST_TABLES}, so that each can be left "
            "out and the others still be a domain; give --continue-on once per table."
        )
    tables: dict[str, DomainTable] = {}
    named: dict[str, str] = {}
    for source in sources:
        progress(0.0, f"reading {source}")
        table = read_table_of(source, seed, out)
        if table.fingerprint in tables:
            raise UsageError(f"{named[table.fingerprint]} and {source} are the same table. Name each table once.")
        tables[table.fingerprint], named[table.fingerprint] = table, source
    return list(tables.values())


def continued(
    base: IclNet,
    tables: Sequence[DomainTable],
    rules: Continuation,
    rng: np.random.Generator,
    device: str = "cpu",
    progress: Watch = lambda fraction, note: None,
) -> tuple[IclNet, float]:
    """Continue a copy of ``base`` on tables; return it, rounded as it will be written, and the share of the way gone."""
    net = IclNet(base.config)
    net.load_state_dict(base.state_dict())
    net.to(device)
    watched = [_valid_episode(table, rules) for table in tables]

    def batch_loss(rows: Tensor, augment: bool) -> Tensor:
        """Mean loss of as many episodes as the batch has rows (torch's generator is seeded by the loop)."""
        losses = []
        for _ in rows:
            own = np.random.default_rng(int(torch.randint(2**62, (1,))))
            episode = (
                synthetic_episode(own, rules)
                if own.random() < rules.synthetic
                else real_episode(own, tables[int(own.integers(len(tables)))].train, rules)
            )
            losses.append(episode_loss(net, episode.to(device)))
        return torch.stack(losses).mean()

    def valid_loss() -> float:
        return float(np.mean([float(episode_loss(net, episode.to(device))) for episode in watched]))

    budget = replace(
        BUDGETS["quick"], seconds=math.inf, epochs=rules.epochs, progress=progress
    )  # no clock: a seed gives the same weights everywhere
    pace = Pace(rules.learning_rate, rules.decay, rules.pull, rules.batch, rules.patience)
    course = Course(net, net.blocks(), rules.episodes, batch_loss, valid_loss, pace)
    fitted = fit(course, "full", rng, budget)
    net.to("cpu").eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    return net, float(fitted.settings["alpha"])


def real_episode(rng: np.random.Generator, train: Features, rules: Continuation) -> Episodes:
    """Draw rows of a table, a fifth of them queries, and all or most of its columns."""
    low, high = rules.context
    n = int(np.exp(rng.uniform(math.log(low), math.log(high + 1))))
    n_rows = min(len(train), n + max(16, n // 4))
    n = n_rows - max(1, n_rows // 5)
    most = min(MAX_COLUMNS, train.layout.n_features)
    n_columns = most if rng.random() < 0.5 else int(rng.integers(math.ceil(0.6 * most), most + 1))
    for _ in range(20):  # a context of one class teaches nothing
        rows = rng.choice(len(train), n_rows, replace=False)
        if len(np.unique(train.labels[rows[:n]])) > 1:
            break
    columns = np.sort(rng.choice(train.layout.n_features, n_columns, replace=False))
    return _episode(rng, train.take(rows), n, columns)


def synthetic_episode(rng: np.random.Generator, rules: Continuation) -> Episodes:
    """Draw a table of the prior, of the size of the real ones."""
    low, high = rules.context
    n = int(np.exp(rng.uniform(math.log(low), math.log(high + 1))))
    shape = Shape(1, n, max(16, n // 4), int(rng.integers(3, 21)), rng)
    return draw_episodes(shape, regression=bool(rng.random() < 0.25))


def _valid_episode(table: DomainTable, rules: Continuation) -> Episodes:
    """Valid rows asked of train rows: what epochs are compared on, always the same."""
    rng = stream(rules.seed, "valid", table.name)
    context = rng.permutation(len(table.train))[: rules.context[1]]
    asked = rng.permutation(len(table.valid))[:VALID_ROWS]
    rows = table.train.take(context).stack(table.valid.take(asked))
    most = min(MAX_COLUMNS, rows.layout.n_features)
    return _episode(rng, rows, len(context), np.sort(rng.choice(rows.layout.n_features, most, replace=False)))


def _episode(rng: np.random.Generator, rows: Features, n: int, columns: np.ndarray[Any, Any]) -> Episodes:
    x, categorical = cells_of(rows)
    regression = rows.layout.task == "regression"
    y = rows.labels.astype(np.float64)
    if regression:  # the loss is that of normal scores: any monotone scale gives the same
        y = (y - y[:n].mean()) / (y[:n].std() or 1.0)
    return Episodes(
        torch.from_numpy(np.ascontiguousarray(x[:, columns]))[None],
        torch.from_numpy(y.astype(np.float32))[None],
        torch.from_numpy(categorical[columns])[None],
        torch.tensor([max(1, len(rows.layout.classes))]),
        random_draw(rng, 1, len(columns), MAX_CLASSES),
        n,
        regression,
    )


def measured(base: IclNet, tuned: IclNet, table: DomainTable, alpha: float, seed: int) -> LeftOut:
    """Let both bases, untouched, answer the holdout of a table that neither has seen; compare them row by row."""
    answers = [_as_is(net, table, seed) for net in (base, tuned)]
    truth = table.holdout.labels
    resampler = Resampler(len(truth), table.groups, RESAMPLES, seed)
    before, after = (resampler.score(table.metric, truth, answer) for answer in answers)
    gain, _ = paired(table.metric, after, before)
    losses = [loss(table.holdout, answer) for answer in answers]
    return LeftOut(
        table.name, len(truth), table.metric_name, before.value, after.value, gain.value, gain.low, gain.high,
        1.0 - losses[1] / losses[0], alpha,
    )  # fmt: skip


def _as_is(net: IclNet, table: DomainTable, seed: int) -> Predictions:
    with one_thread():
        adapted = Icl(net).adapt(table.train, table.valid, "as_is", stream(seed, "as_is"), BUDGETS["quick"])
        return adapted.model.predict(table.holdout)


def _outcome(left_out: Sequence[LeftOut]) -> _Outcome:
    """Judge over tables: the mean relative fall in loss and its t-interval decide, and are said in words."""
    from scipy import stats

    gains = np.array([one.loss_gain for one in left_out])
    mean, half = float(gains.mean()), 0.0
    if gains.std() > 0:
        half = float(stats.t.ppf(0.975, len(gains) - 1) * gains.std(ddof=1) / math.sqrt(len(gains)))
    low, high = mean - half, mean + half
    paid: Paid = "yes" if low > 0 else "no" if high < 0 else "not shown"
    better, worse = sum(one.low > 0 for one in left_out), sum(one.high < 0 for one in left_out)
    verdict = {
        "yes": "It paid: use these weights for further tables of this domain, and compare there again.",
        "no": "It did harm: keep the shipped base.",
        "not shown": "That it pays is not shown: keep the shipped base.",
    }[paid]
    sentence = (
        f"Of {len(left_out)} tables left out, the base continued on the others was better on {better} and worse on "
        f"{worse} (95% intervals of the paired gain), and no different on {len(left_out) - better - worse}. "
        f"The loss changed by {-mean:+.1%} on average [{-high:+.1%}, {-low:+.1%}]; less is better. {verdict}"
    )
    return {"loss_gain": mean, "low": low, "high": high, "paid": paid, "sentence": sentence}


def _part(progress: Watch, number: int, n_tables: int, what: str) -> Watch:
    return lambda fraction, note: progress((number + fraction) / (n_tables + 1), f"{what}: {note}")


def _open_job(out: Path, job: dict[str, Any]) -> None:
    (out / "left_out").mkdir(parents=True, exist_ok=True)
    path = out / "job.json"
    plain = json.loads(json.dumps(job))
    if not path.exists():
        if (out / "checkpoint.safetensors").exists():
            raise UsageError(f"{out} holds a pretraining, not a continuation. Choose another --out.")
        _write_json(path, job)
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    other = [key for key in plain if before.get(key) != plain[key]]
    if other:
        raise UsageError(f"{path} is of another job: its {', '.join(other)} differ. Choose another --out.")


def _write_json(path: Path, document: dict[str, Any]) -> None:
    write_text(path, json.dumps(document, indent=1) + "\n")
