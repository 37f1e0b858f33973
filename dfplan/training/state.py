"""The state of a training run, and the checkpoint that is all of it.

A checkpoint holds the weights under `weights/`, their moving average under `ema/`, the optimizer's moments under `optimizer/`
and the sums of the open record under `record/`. Its header says how far the run has come, and what run it is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfplan.fields import NotNegative, Whole, check_fields
from dfplan.training.average import MovingAverage
from dfplan.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_into,
    require_finite,
    require_tensors,
    save_checkpoint,
)
from dfplan.training.config import TrainConfig
from dfplan.training.run_folder import another_run, differences

KIND = "training"
FREE = ("config.checkpoint_every", "config.log_every")
"""What may change when a run continues: it has no effect on the weights. With a constant learning rate, so may the number
of steps, to one that is not yet done."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come."""

    step: Whole = 0
    """Number of optimizer steps done."""
    seconds: NotNegative = 0.0
    """Seconds of training."""
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    """The last record of the log."""
    curve: tuple[dict[str, float], ...] = ()
    """The points of the learning curve, each with its 'step'."""

    def __post_init__(self) -> None:
        check_fields(self)


class RunState:
    """Module, moving average, optimizer, and the sums of the open record, as they change from step to step."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, names: list[str]) -> None:
        """`names`: those of the optimizer's parameters, in its order (see `make_optimizer`)."""
        self.module, self.optimizer, self.names = module, optimizer, names
        self.average = MovingAverage(module)
        self.sums: dict[str, Tensor] = {}

    def save(self, path: Path, progress: Progress, identity: Mapping[str, Any]) -> None:
        """Write the checkpoint, whole or not at all. OSError if it cannot be written."""
        moments = {
            f"optimizer/{self.names[index]}/{key}": value
            for index, entries in self.optimizer.state_dict()["state"].items()
            for key, value in entries.items()
        }
        tensors = self._weights() | _under("record", self.sums) | moments
        save_checkpoint(path, tensors, {"kind": KIND, **dataclasses.asdict(progress), **identity})

    def restore(self, path: Path, identity: Mapping[str, Any]) -> Progress:
        """Take the state from a checkpoint, after a check of everything in it: nothing is taken in part.

        Raises ValueError for the checkpoint of another run, CheckpointError for one that is damaged or does not fit.
        """
        tensors, header = load_checkpoint(path)
        progress = read_progress(header, path)
        require_same_run(path.parent, header, identity)
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "record": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        complaint = f"the tensors of {path} do not fit {type(self.module).__name__}"
        require_tensors(self._expected(parts, progress.step), tensors, complaint)
        require_finite(tensors, f"{path} is damaged")
        load_into(self.module, parts["weights"], path)
        for name, value in self.average.state.items():
            value.copy_(parts["ema"][name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            parameter, _, key = name.rpartition("/")
            moments.setdefault(self.names.index(parameter), {})[key] = value
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        device = next(iter(self.average.state.values())).device
        self.sums = {name: value.to(device) for name, value in parts["record"].items()}
        return progress

    def averaged(self) -> dict[str, Tensor]:
        """State dict of the module on the CPU, its parameters replaced by their moving average."""
        state = {**self.module.state_dict(), **self.average.state}
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def _weights(self) -> dict[str, Tensor]:
        return _under("weights", self.module.state_dict()) | _under("ema", self.average.state)

    def _expected(self, parts: Mapping[str, Mapping[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Names of a checkpoint's tensors with ones of the same shapes and dtypes. `parts`: those that are there."""
        number = torch.zeros(())
        tensors = self._weights() | _under("record", dict.fromkeys(parts["record"], number))
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        stepped = {name.rpartition("/")[0] for name in parts["optimizer"]}
        for name, parameter in zip(self.names, parameters, strict=True):
            if name in stepped or (step > 0 and not stepped):  # a parameter that never had a gradient has no moments
                moments = {"step": number, "exp_avg": parameter, "exp_avg_sq": parameter}
                tensors |= _under(f"optimizer/{name}", moments)
        return tensors


def _under(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}/{name}": value for name, value in tensors.items()}


def make_optimizer(module: nn.Module, config: TrainConfig, fused: bool) -> tuple[torch.optim.AdamW, list[str]]:
    """AdamW and the names of its parameters, in its order.

    Parameters with two or more axes decay. Of both kinds there is one group for each learning rate factor.
    """
    factor = getattr(module, "learning_rate_factor", lambda name: 1.0)
    groups: dict[tuple[bool, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim < 2, factor(name)), []).append((name, parameter))
    ordered = sorted(groups.items(), key=lambda item: item[0])
    arguments = [
        {"params": [p for _, p in group], "weight_decay": 0.0 if flat else config.weight_decay, "factor": rate}
        for (flat, rate), group in ordered
    ]
    names = [name for _, group in ordered for name, _ in group]
    return torch.optim.AdamW(arguments, lr=config.learning_rate, fused=fused), names


def identity_of(config: TrainConfig, devices: int, header: Mapping[str, Any]) -> dict[str, Any]:
    """What the weights depend on, as plain JSON: it tells one run from another."""
    identity = {"config": dataclasses.asdict(config), "devices": devices, "header": header}
    return dict(json.loads(json.dumps(identity, allow_nan=False)))


def read_progress(header: Mapping[str, Any], path: Path) -> Progress:
    """The progress in a checkpoint's header. CheckpointError for the header of something else, or of wrong types."""
    if header.get("kind") != KIND:
        raise CheckpointError(f"{path} is not the checkpoint of a training run")
    try:
        named = {name: header[name] for name in ("step", "seconds", "metrics")}
        return Progress(**named, curve=header.get("curve", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the header of {path} is damaged: {error}") from error


def require_same_run(run_dir: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise ValueError if the header of a checkpoint is of another run than what is asked for."""
    differing = differences({key: there.get(key) for key in asked}, asked)
    for name in FREE:
        differing.pop(name, None)
    config, step = asked["config"], there["step"]
    constant = config["schedule"] == "constant"
    if constant and config["steps"] >= step:
        differing.pop("config.steps", None)
    if not differing:
        return
    reason = ""
    if list(differing) == ["config.steps"]:
        reason = (
            f" ({step} are done)" if constant else " (a cosine learning rate ends at a step that is set at the start)"
        )
    raise another_run(run_dir, differing, reason)
