"""TabNet (Arik & Pfister, AAAI 2021) on pytorch-tabnet's own network, driven by our loop.

The base is pretrained by masked reconstruction on the source's rows and the target's unlabelled ones, then on
the source's labels where there are any. Without them the untouched base knows no target: ``as_is`` then has a
head of zero weights whose bias says the prior, and adaptation starts from there.

pytorch-tabnet's loader copies pretrained layers whose names match and skips the rest silently; here every tensor
of the encoder must be there (``strict``), or loading fails.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pytorch_tabnet.tab_network import EmbeddingGenerator, RandomObfuscator, TabNetDecoder, TabNetEncoder
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from tabkit.data.encode import MISSING, Features
from tabkit.learner import Adapted, Block, Budget, Predictions, Proof, Settings
from tabkit.models.base import Model, prior_of
from tabkit.torch_loop import Course, Pace, fit, one_thread, seeded

Z_CLIP = 5.0
"""Standardised numbers beyond this are clipped: a network is led astray by tails that trees do not mind."""

GHOST_ROWS = 256
"""Rows per ghost batch of batch normalisation."""

PREDICT_ROWS = 1024
"""Rows per forward pass, padded to that number: a row's result cannot depend on how many stand beside it."""

MASKED_SHARE = 0.3
"""Share of columns hidden in self-supervised pretraining."""

MIN_ROWS = 200

_PACES = {
    "scratch": Pace(learning_rate=0.02, decay=1.0, pull=0.0, batch_rows=1024, patience=10, weight_decay=1e-4),
    "head": Pace(learning_rate=0.02, decay=1.0, pull=0.0, batch_rows=1024, patience=6),
    "gradual": Pace(learning_rate=0.02, decay=0.8, pull=1e-5, batch_rows=1024, patience=4),
    "full": Pace(learning_rate=0.01, decay=0.8, pull=1e-5, batch_rows=1024, patience=10),
}


Columns = tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]
"""Names of the numbers, names of the categories, and how many codes each of those has."""


@dataclass(frozen=True)
class Size:
    """Width, steps and relaxation of the network: the paper's small setting."""

    n_d: int = 8
    n_a: int = 8
    n_steps: int = 3
    gamma: float = 1.3
    n_independent: int = 2
    n_shared: int = 2


@dataclass(frozen=True)
class Config:
    """What a network is built from, and how its inputs and its answer are read.

    Attributes
    ----------
    indicated
        Numbers that have an indicator of being missing, by position.
    y_mean, y_std
        The scale that a regression is trained in.
    knows_target
        Whether the head was trained on the labels of a source.
    """

    columns: Columns
    task: str
    n_outputs: int
    indicated: tuple[int, ...]
    n_inputs: int
    cat_sizes: tuple[int, ...]
    cat_widths: tuple[int, ...]
    size: Size = Size()
    y_mean: float = 0.0
    y_std: float = 1.0
    knows_target: bool = False

    @classmethod
    def of(cls, features: Features) -> Self:
        """Return the config for the columns of a table."""
        layout = features.layout
        indicated = tuple(np.flatnonzero(np.isnan(features.x_num).any(axis=0)).tolist())
        sizes = tuple(layout.cat_sizes)
        return cls(
            columns=_columns(features),
            task=layout.task,
            n_outputs=1 if layout.task == "regression" else len(layout.classes),
            indicated=indicated,
            n_inputs=len(layout.num_names) + len(indicated) + len(sizes),
            cat_sizes=sizes,
            cat_widths=tuple(min(8, max(1, math.ceil(math.log2(size)))) for size in sizes),
        )

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Return the config that :meth:`as_dict` told."""
        numbers, categories, sizes = map(tuple, facts["columns"])
        lists = {name: tuple(facts[name]) for name in ("indicated", "cat_sizes", "cat_widths")}
        return cls(**{**facts, **lists, "columns": (numbers, categories, sizes), "size": Size(**facts["size"])})

    def as_dict(self) -> dict[str, Any]:
        """Return the config as JSON values."""
        return asdict(self)

    def scaled(self, train: Features) -> Self:
        """Return the config with the scale of the target of train."""
        assert train.y is not None
        if self.task != "regression":
            return self
        return replace(self, y_mean=train.mean(train.y), y_std=float(train.y.std()) or 1.0)


class TabNet(Model):
    """TabNet with embeddings for categories, missing indicators, and an own head per task."""

    title = "TabNet"
    hows = {"as_is": "base", "scratch": "baseline", "head": "adapted", "gradual": "adapted", "full": "adapted"}
    unweighted = ""

    def __init__(self, config: Config | None = None, net: _Net | None = None) -> None:
        self.config = config
        self.net_ = net

    @classmethod
    def pretrain(cls, source: Features | None, rows: Features, rng: np.random.Generator, budget: Budget) -> Self | None:
        """Pretrain by masked reconstruction on all rows, then on the source's labels. See :meth:`Model.pretrain`."""
        everything = rows if source is None else source.with_y(None).stack(rows.with_y(None))
        config = Config.of(everything)
        net = _make(config, rng)
        half = replace(budget, epochs=max(3, budget.epochs // 2), seconds=budget.seconds / 2)
        _reconstruct(net, config.size, _inputs(everything, config), rng, half)
        base = cls(config, net)
        if source is None or source.y is None:
            return base
        order = rng.permutation(len(source))
        cut = max(1, len(source) // 5)
        part, rest = source.take(np.sort(order[:cut])), source.take(np.sort(order[cut:]))
        taught = base.adapt(rest, part, "full", rng, half).model
        assert isinstance(taught, cls) and taught.config is not None
        return cls(replace(taught.config, knows_target=True), taught.net_)

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
            raise ValueError(f"tabnet knows {sorted(self.hows)}, not {how!r}")
        if how != "scratch" and self.config is None:
            raise ValueError(f"tabnet {how} needs a pretrained base; call pretrain first")
        assert train.y is not None
        model = self._fresh(train, rng) if how == "scratch" else self._copy(train)
        net, config = model.net_, model.config
        assert net is not None and config is not None
        if how == "as_is":
            sizes = {n: sum(p.numel() for part in b for p in part.parameters()) for n, b in net.blocks().items()}
            return Adapted(model, how, Proof(tuple(Block(n, size, 0, 0.0) for n, size in sizes.items())))
        device = _device(budget)
        net.to(device)
        x, y, w = _on_device(train, config, device)
        xv, yv, wv = (None, None, None) if valid is None else _on_device(valid, config, device)

        def batch_loss(rows: Tensor, augment: bool) -> Tensor:
            here = x[rows.to(device)]
            out, sparsity = net(_augment(here, config) if augment else here)
            own = None if w is None else w[rows.to(device)]
            loss: Tensor = _loss(out, y[rows.to(device)], config, own) - 1e-3 * sparsity
            return loss

        def valid_loss() -> float:
            assert xv is not None and yv is not None
            out = torch.cat([net(part)[0] for part in torch.split(xv, 4096)])
            return float(_loss(out, yv, config, wv))

        # About eight steps an epoch at least, so that small tables are learned from too.
        batch_rows = max(32, 2 ** math.floor(math.log2(max(1, len(train) / 8))))
        pace = replace(_PACES[how], batch_rows=int(min(_PACES[how].batch_rows, batch_rows)))
        course = Course(net, net.blocks(), len(train), batch_loss, valid_loss, pace)
        fitted = fit(course, how, rng, budget, settings)
        net.to("cpu").eval()
        return Adapted(model, how, fitted.proof, fitted.settings, fitted.history, fitted.notes)

    def _fresh(self, train: Features, rng: np.random.Generator) -> TabNet:
        config = Config.of(train).scaled(train)
        net = _make(config, rng)
        return TabNet(config, net)

    def _copy(self, train: Features) -> TabNet:
        """Copy the base; one that knows no target gets a head that says the prior of train."""
        assert self.config is not None and self.net_ is not None
        if self.config.columns != _columns(train):
            raise ValueError(
                f"this TabNet base was pretrained on other columns, however: {list(map(list, _columns(train)))}"
            )
        config = self.config if self.config.knows_target else self.config.scaled(train)
        net = _build(config)
        copied = net.load_state_dict(self.net_.state_dict(), strict=True)
        assert not copied.missing_keys and not copied.unexpected_keys
        if not config.knows_target:
            with torch.no_grad():
                net.head.weight.zero_()
                net.head.bias.copy_(_prior_bias(train, config))
        return TabNet(config, net.eval())

    def predict(self, features: Features) -> Predictions:
        """Predict row by row, in padded batches of a fixed size."""
        assert self.net_ is not None and self.config is not None
        net, config = self.net_.eval(), self.config
        x = _inputs(features, config)
        outs = []
        with torch.inference_mode(), one_thread():
            for part in torch.split(x, PREDICT_ROWS):
                padded = functional.pad(part, (0, 0, 0, PREDICT_ROWS - len(part)))
                outs.append(net(padded)[0][: len(part)].double())
        out = torch.cat(outs) if outs else torch.zeros((0, config.n_outputs), dtype=torch.float64)
        if config.task == "regression":
            return np.asarray(out[:, 0].numpy() * config.y_std + config.y_mean)
        return np.asarray(torch.softmax(out, dim=1).numpy())

    def save(self, folder: Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        assert self.net_ is not None and self.config is not None
        # Shared layers stand under several names; one copy of each tensor is written.
        state = {n: t.contiguous().clone() for n, t in self.net_.state_dict().items() if n in _unique_names(self.net_)}
        save_file(state, folder / "weights.safetensors")
        (folder / "config.json").write_text(json.dumps(self.config.as_dict()), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` wrote; a tensor too few or too many is an error."""
        config = Config.from_dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        net = _build(config)
        stored = load_file(folder / "weights.safetensors")
        if set(stored) != _unique_names(net):
            odd = sorted(set(stored) ^ _unique_names(net))[:5]
            raise ValueError(f"{folder / 'weights.safetensors'} does not fit this TabNet, however: {odd}")
        net.load_state_dict(stored, strict=False)
        return cls(config, net.eval())

    def envelope(self, train: Features) -> str | None:
        """Say so when there are fewer rows than TabNet's many parameters can be tuned on."""
        if len(train) < MIN_ROWS:
            return f"TabNet was made for thousands of rows, and {len(train)} are there to adapt it to (at least {MIN_ROWS} are advised)"
        return None


class _Net(nn.Module):
    """Embedder, encoder and head: (B, C) inputs -> ((B, n_outputs) scores, mask sparsity)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        n_inputs, cat_sizes, widths = config.n_inputs, list(config.cat_sizes), list(config.cat_widths)
        cat_at = list(range(n_inputs - len(cat_sizes), n_inputs))
        self.embedder = EmbeddingGenerator(n_inputs, cat_sizes, cat_at, widths, torch.eye(n_inputs))
        width = self.embedder.post_embed_dim
        self.groups = self.embedder.embedding_group_matrix
        self.encoder = TabNetEncoder(
            input_dim=width,
            output_dim=config.n_outputs,
            group_attention_matrix=self.groups,
            momentum=0.02,
            virtual_batch_size=GHOST_ROWS,
            **asdict(config.size),
        )
        self.head = nn.Linear(config.size.n_d, config.n_outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps, sparsity = self.encoder(self.embedder(x))
        return self.head(torch.stack(steps, dim=0).sum(dim=0)), sparsity

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # The library keeps its group matrices as plain attributes, which .to(device) would leave behind.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.encoder.group_attention_matrix = fn(self.encoder.group_attention_matrix)
        return self

    def blocks(self) -> dict[str, Sequence[nn.Module]]:
        """Return the blocks from input to head. Shared layers belong to the block ``shared`` alone."""
        encoder = self.encoder
        out: dict[str, Sequence[nn.Module]] = {
            "embedding": [self.embedder, encoder.initial_bn],
            "shared": [encoder.initial_splitter],
        }
        for i, (features, attention) in enumerate(
            zip(encoder.feat_transformers, encoder.att_transformers, strict=True)
        ):
            own = [attention, features.specifics, *(layer.bn for layer in features.shared.glu_layers)]
            out[f"step_{i + 1}"] = own
        out["head"] = [self.head]
        return out


class _Pretraining(nn.Module):
    """The network with a decoder in place of its head, for masked reconstruction."""

    def __init__(self, net: _Net, size: Size) -> None:
        super().__init__()
        self.net = net
        self.masker = RandomObfuscator(MASKED_SHARE, group_matrix=net.groups)
        self.decoder = TabNetDecoder(net.embedder.post_embed_dim, n_d=size.n_d, n_steps=size.n_steps)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.net.embedder(x)
        masked, groups, hidden = self.masker(embedded)
        steps, _ = self.net.encoder(masked, prior=1 - groups)
        error = (self.decoder(steps) - embedded) * hidden
        # Scaled by each column's spread and the number hidden (the paper's loss, independent of both).
        spread = embedded.detach().var(dim=0).clamp_min(1e-2)
        loss: Tensor = (error**2 / spread).sum() / hidden.sum().clamp_min(1.0)
        return loss


def _reconstruct(net: _Net, size: Size, x: Tensor, rng: np.random.Generator, budget: Budget) -> None:
    device = _device(budget)
    with seeded(int(rng.integers(2**31))):
        task = _Pretraining(net, size)
    task.masker.group_matrix = task.masker.group_matrix.to(device)
    task.to(device)
    x = x.to(device)
    n_valid = max(1, len(x) // 10)
    valid, train = x[:n_valid], x[n_valid:] if len(x) > n_valid else x

    def batch_loss(rows: Tensor, augment: bool) -> Tensor:
        loss: Tensor = task(train[rows.to(device)])
        return loss

    def valid_loss() -> float:
        with seeded(0):  # the same columns are hidden every time, or the losses could not be compared
            return float(task(valid))

    batch_rows = int(min(1024, max(32, len(train) // 8)))
    pace = Pace(learning_rate=0.02, decay=1.0, pull=0.0, batch_rows=batch_rows, patience=5)
    # The head takes no part: it is trained by adaptation alone.
    blocks = {"all": [net.embedder, net.encoder, task.decoder]}
    head = {name: tensor.clone() for name, tensor in net.head.state_dict().items()}
    net.head.requires_grad_(False)
    fit(Course(_WithoutHead(task), blocks, len(train), batch_loss, valid_loss, pace), "scratch", rng, budget)
    net.head.load_state_dict(head)
    net.to("cpu").eval()


class _WithoutHead(nn.Module):
    """The parts of a pretraining task that it trains."""

    def __init__(self, task: _Pretraining) -> None:
        super().__init__()
        self.embedder, self.encoder, self.decoder = task.net.embedder, task.net.encoder, task.decoder


def _columns(features: Features) -> Columns:
    layout = features.layout
    return tuple(layout.num_names), tuple(layout.cat_names), tuple(layout.cat_sizes)


def _prior_bias(train: Features, config: Config) -> Tensor:
    if config.task == "regression":
        return torch.zeros(1)  # the mean, in the scale the network is trained in
    return torch.log(torch.from_numpy(prior_of(train)).float())


def _build(config: Config) -> _Net:
    with seeded(0):  # overwritten by whoever loads weights; the global generator must not notice
        return _Net(config)


def _make(config: Config, rng: np.random.Generator) -> _Net:
    with seeded(int(rng.integers(2**31))):
        return _Net(config)


def _unique_names(net: _Net) -> set[str]:
    seen: set[int] = set()
    names = set()
    for name, tensor in net.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            names.add(name)
    return names


def _inputs(features: Features, config: Config) -> Tensor:
    """Return numbers, missing indicators and category codes side by side (B, C), as the library wants them."""
    x_num = features.x_std
    missing = np.isnan(x_num)
    numbers = np.clip(np.where(missing, 0.0, x_num), -Z_CLIP, Z_CLIP)
    parts = [numbers, missing[:, list(config.indicated)], features.x_cat]
    return torch.from_numpy(np.hstack([part.astype(np.float32) for part in parts]))


def _targets(features: Features, config: Config) -> Tensor:
    assert features.y is not None
    if config.task == "regression":
        return torch.from_numpy(((features.y - config.y_mean) / config.y_std).astype(np.float32))
    return torch.from_numpy(features.y.astype(np.int64))


def _on_device(features: Features, config: Config, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return inputs, targets, and the rows' weights, 1 on average."""
    w = None if features.w is None else torch.from_numpy((features.w / features.w.mean()).astype(np.float32)).to(device)
    return _inputs(features, config).to(device), _targets(features, config).to(device), w


def _loss(out: Tensor, y: Tensor, config: Config, w: Tensor | None) -> Tensor:
    if w is None:
        return functional.mse_loss(out[:, 0], y) if config.task == "regression" else functional.cross_entropy(out, y)
    each = (out[:, 0] - y) ** 2 if config.task == "regression" else functional.cross_entropy(out, y, reduction="none")
    return (w * each).mean()


def _augment(x: Tensor, config: Config) -> Tensor:
    """Hide one column in ten (its mean, or the missing code) and shake the numbers by a twentieth of their spread."""
    n_num = len(config.columns[0])
    n_cat = len(config.cat_sizes)
    shaken = x.clone()
    shaken[:, :n_num] += 0.05 * torch.randn_like(shaken[:, :n_num])
    hide = torch.rand(x.shape, device=x.device) < 0.1
    hide[:, n_num : x.shape[1] - n_cat] = False
    blank = torch.zeros_like(x)
    blank[:, x.shape[1] - n_cat :] = float(MISSING)
    return torch.where(hide, blank, shaken)


def _device(budget: Budget) -> torch.device:
    if budget.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(budget.device)
