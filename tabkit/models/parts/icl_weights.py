"""The weights of the in-context base: where they are read, and how networks and adapters are copied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from tabkit.errors import UsageError
from tabkit.learner import Weights
from tabkit.models.parts.icl_net import Adapters, IclConfig, IclNet
from tabkit.torch_loop import seeded

CONFIG, WEIGHTS = "config.json", "weights.safetensors"

RANK = 8


def build(config: IclConfig) -> IclNet:
    """Return a network whose weights are still to be loaded."""
    with seeded(0):  # overwritten by whoever loads weights; the global generator must not notice
        return IclNet(config)


def adapters_of(net: IclNet) -> Adapters:
    """Return adapters of a network whose weights are still to be loaded."""
    with seeded(0):
        return Adapters(net, RANK)


def copied(net: IclNet) -> IclNet:
    """Copy a network's weights into a new one; hooks of adapters stay behind."""
    copy = build(net.config)
    copy.load_state_dict(net.state_dict(), strict=True)
    return copy


def merged(net: IclNet, adapters: Adapters | None) -> IclNet:
    """Return the network with its adapters added in: what a further adaptation starts from."""
    if adapters is None:
        return net
    merged = copied(net)
    with torch.no_grad():
        for target, down, up in zip(Adapters.targets(merged), adapters.down, adapters.up, strict=True):
            target.weight += up @ down
    return merged


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
        net = build(IclConfig(**config["net"]))
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
