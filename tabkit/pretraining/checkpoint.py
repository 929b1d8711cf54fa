"""A network in training, saved and resumed: a kill costs the steps since the last checkpoint, nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tabkit.errors import UsageError
from tabkit.files import whole_file, write_text
from tabkit.models.parts.icl_net import IclConfig, IclNet
from tabkit.models.parts.icl_weights import open_folder
from tabkit.pretraining.muon import Muon
from tabkit.pretraining.schedule import Schedule

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"


@dataclass
class Learner:
    """The network with its optimisers, and how many steps and tables it has seen; ``out`` holds its checkpoints."""

    out: Path
    schedule: Schedule
    net: IclNet
    optimisers: list[torch.optim.Optimizer]
    step: int = 0
    tables: int = 0

    @classmethod
    def open(cls, out: Path, schedule: Schedule, config: IclConfig, start: Path | None) -> Learner:
        """Return the learner of ``out``'s checkpoint; without one, a new network or that of the folder ``start``."""
        with _seeded(schedule.seed):
            net = IclNet(config)
        if schedule.start:
            net, weights = open_folder(start)
            if weights.sha256 != schedule.start:
                raise UsageError(
                    f"{weights.source}: the weights are not those of the plan. Expected SHA-256 {schedule.start}."
                )
        learner = cls(out, schedule, net, _optimisers(net, schedule))
        learner._resume()
        return learner

    def apply(self) -> None:
        """Take one step with the gradients that the network holds."""
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self.schedule.rate(self.step)
            optimiser.step()
        self.step += 1

    def save(self, line: dict[str, Any]) -> None:
        """Write the checkpoint, a line of the log, and the weights as they stand."""
        tensors = {f"net.{name}": t.detach().cpu().contiguous() for name, t in self.net.state_dict().items()}
        for number, optimiser in enumerate(self.optimisers):
            for index, state in optimiser.state_dict()["state"].items():
                tensors |= {f"{number}.{index}.{k}": torch.as_tensor(v).cpu().contiguous() for k, v in state.items()}
        # The numbers go in with the tensors: one rename, and a kill leaves the old pair or the new one.
        header = {
            "step": str(self.step),
            "tables": str(self.tables),
            "plan": json.dumps(asdict(self.schedule)),
            "net": json.dumps(self.net.config.as_dict()),
        }
        with whole_file(self.out / CHECKPOINT) as temporary:
            save_file(tensors, temporary, metadata=header)
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self.write_weights()

    def write_weights(self) -> Path:
        """Write the weights as the kit loads them."""
        origin = {"steps": self.step, "tables": self.tables, "plan": asdict(self.schedule)}
        return write_weights(self.out / "weights", self.net, origin)

    def _resume(self) -> None:
        path, log = self.out / CHECKPOINT, self.out / LOG
        if not path.exists():
            log.unlink(missing_ok=True)
            return
        with safe_open(path, "pt") as file:
            header = file.metadata()
        self._same_job(path, json.loads(header["plan"]), json.loads(header["net"]))
        stored = load_file(path)
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in stored.items():
            owner, _, rest = name.partition(".")
            parts.setdefault(owner, {})[rest] = tensor
        self.net.load_state_dict(parts["net"])
        for number, optimiser in enumerate(self.optimisers):
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in parts.get(str(number), {}).items():
                index, _, key = name.partition(".")
                state.setdefault(int(index), {})[key] = tensor
            optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        self.step, self.tables = int(header["step"]), int(header["tables"])
        if log.exists():  # lines after the checkpoint are those of steps that will be taken again
            lines = log.read_text(encoding="utf-8").splitlines()
            write_text(log, "".join(f"{line}\n" for line in lines if json.loads(line)["step"] <= self.step))

    def _same_job(self, path: Path, before: dict[str, Any], net: dict[str, Any]) -> None:
        """Refuse a checkpoint of another schedule (more steps are welcome) or network."""
        now = json.loads(json.dumps(asdict(self.schedule)))
        other = {k: v for k, v in now.items() if k not in ("steps", "long_from") and before.get(k, "") != v}
        if other or net != self.net.config.as_dict():
            raise UsageError(
                f"{path} was made with another plan, however: {other or 'network'}. Choose another --out, or the same plan."
            )


def write_weights(folder: Path, net: IclNet, origin: dict[str, Any], licence: str = "Apache-2.0") -> Path:
    """Write the weights as the kit ships them: bfloat16 safetensors, and the sizes with how they were made."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in net.state_dict().items()}
    with whole_file(folder / "weights.safetensors") as temporary:
        save_file(state, temporary)
    facts = {"licence": licence, "net": net.config.as_dict(), "made": origin}
    write_text(folder / "config.json", json.dumps(facts, indent=1) + "\n")
    return folder


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _optimisers(net: IclNet, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        inner = name.startswith(("cell_layers", "row_layers")) and name.endswith("weight") and parameter.ndim == 2
        (matrices if inner else others).append(parameter)
    return [
        Muon(matrices, lr=schedule.learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
