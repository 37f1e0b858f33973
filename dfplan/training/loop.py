"""The training loop: knows nothing of mazes or of diffusion, and loses nothing when it is killed.

The data and the noise of a step are pure functions of (seed, step, rank) and the learning rate is one of the step, so a
checkpoint of weights, averaged weights and optimizer state is the whole state of a run. The same call after Ctrl-C,
after ``kill -9`` or after a power failure goes on from the last checkpoint and, on a CPU with the same number of threads,
ends with the same weights bit for bit as a run that nobody disturbed.
"""

import dataclasses
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from dfplan.data.windows import BatchSource
from dfplan.fields import NotNegative, Whole, check_fields
from dfplan.training.average import MovingAverage, ema_decay
from dfplan.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_header,
    load_into,
    require_finite,
    require_tensors,
    save_checkpoint,
)
from dfplan.training.config import TrainConfig, learning_rate
from dfplan.training.log import RunLog
from dfplan.training.run_folder import CHECKPOINT, another_run, claimed, differences, require_free, require_own
from dfplan.whole_files import remove_partial_files

__all__ = ["TrainConfig", "TrainResult", "TrainingInterrupted", "train"]

# Ctrl-C reaches the processes of a multi-device run at different steps; every so many steps they agree to stop.
AGREE_EVERY = 10
FREE = ("config.checkpoint_every", "config.log_every")
"""What may change when a run continues: it does not decide about the weights. With a constant learning rate, so may the
number of steps, to one that is not yet done."""

Probe = Callable[[], Mapping[str, float]]
"""A measurement on the module while it holds the averaged weights."""


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves."""

    ema_state: dict[str, Tensor]
    """State dict of the module on the CPU, parameters replaced by their moving average: the weights to use."""
    steps: int
    """Number of optimizer steps done, over all resumptions."""
    seconds: float
    """Seconds of training, over all resumptions, without the work that a kill threw away."""
    curve: list[dict[str, float]]
    """What the probe measured, each with its 'step'."""
    metrics: dict[str, float]
    """The last record of the log: mean loss and other scalars of the last steps (empty on ranks other than 0)."""
    rank: int
    """Index of this process among those of the run; only rank 0 should write files."""


@dataclass(frozen=True)
class Progress:
    """How far a run has come: what the header of its checkpoint says beside what the run is."""

    step: Whole
    """Number of optimizer steps done."""
    seconds: NotNegative
    """Seconds of training."""
    metrics: dict[str, float]
    """The last record of the log."""
    curve: tuple[dict[str, float], ...] = ()
    """What the probe measured."""

    def __post_init__(self) -> None:
        check_fields(self)


class TrainingInterrupted(SystemExit):
    """SIGINT or SIGTERM arrived and the checkpoint is written; uncaught, the process exits with status 130 or 143."""


def train(
    module: nn.Module,
    batch: BatchSource,
    config: TrainConfig,
    run_dir: str | Path,
    *,
    header: Mapping[str, Any] | None = None,
    probe: Probe | None = None,
    probe_every: int = 0,
    accelerator: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    quiet: bool = False,
) -> TrainResult:
    """Train a module, or continue or return the run that ``run_dir`` already holds.

    Args:
        module: ``module(batch, generator) -> dict[str, Tensor]``: scalars, with the one to minimise under 'loss'. All
            its randomness must come from ``generator`` (on the device of the batch). Trained in place. If it has
            ``learning_rate_factor(name) -> float``, the learning rate of the parameter of that name is multiplied by it.
        batch: ``batch(rng, batch_size)`` returns a tuple of arrays or tensors, drawn with ``rng`` and nothing else.
        config: How to train.
        run_dir: Folder for ``last.safetensors`` (weights under ``weights/``, their average under ``ema/``, optimizer),
            ``log.jsonl`` and TensorBoard events. It must be such a folder, or empty, or not there yet.
        header: JSON object that names what else decides about the weights (model, data fingerprint); a run whose
            header differs is not continued. A run whose learning rate is constant may be continued with more steps.
        probe: Called after every ``probe_every`` steps and after the last one, while the module holds the averaged
            weights: a learning curve. Its time does not count as training.
        accelerator, devices, strategy: As of ``lightning_fabric.Fabric``; several devices average their gradients.
        quiet: Show nothing.

    Raises:
        ValueError: ``run_dir`` holds another run, and the message names the fields that differ, or files that are no
            run's; or the machine lacks what ``accelerator``, ``devices`` and ``strategy`` ask for.
        InUseError: Another process trains in ``run_dir``; the message names it.
        CheckpointError: The checkpoint cannot be read, or something in it has another type, shape or dtype.
        FloatingPointError: Loss or gradient stopped being finite; the checkpoint before that is kept.
        TrainingInterrupted: Ctrl-C or SIGTERM; the same call continues the run.
    """
    fabric, run_dir = _fabric(accelerator, devices, strategy), Path(run_dir)
    first = getattr(rank_zero_only, "rank", 0) == 0  # further devices have processes of their own, in the same folder
    with claimed(run_dir, "offline") if first else nullcontext():
        fabric.launch()
        run = _Run(fabric, module, config, run_dir, dict(header or {}))
        if probe is not None:
            run.probe, run.probe_every = probe, probe_every
        if run.step < config.steps:
            with stop_signals() as stop, run.open_log(quiet) as log:
                run.loop(batch, log, stop)
        return run.result()


def require_trainable(run_dir: str | Path, config: TrainConfig, header: Mapping[str, Any], devices: int = 1) -> None:
    """Refuse before any work what `train` would refuse; nothing is written.

    ``header`` may lack what is not known yet, such as the data. Raises what `train` raises for a folder that holds
    something else, or that another process trains in.
    """
    run_dir = Path(run_dir)
    require_own(run_dir, "offline")
    require_free(run_dir)
    path = run_dir / CHECKPOINT
    if path.exists():
        there = load_header(path)
        _progress(there, path)
        if isinstance(known := there.get("header"), dict):
            there = there | {"header": {name: value for name, value in known.items() if name in header}}
        _require_same_run(run_dir, there, _identity(config, devices, header))


class _Run:
    """One training run: its state (module, average, optimizer, step, seconds, open means) and the loop over it."""

    def __init__(
        self, fabric: Fabric, module: nn.Module, config: TrainConfig, run_dir: Path, header: dict[str, Any]
    ) -> None:
        self.fabric, self.module, self.config, self.run_dir = fabric, module, config, run_dir
        self.identity = _identity(config, fabric.world_size, header)
        self.path = run_dir / CHECKPOINT
        self.step, self.seconds = 0, 0.0
        self.metrics: dict[str, float] = {}
        self.curve: list[dict[str, float]] = []
        self.probe: Probe | None = None
        self.probe_every = 0
        groups = _groups(module, config.weight_decay)
        self.names = [name for group in groups for name in group.pop("names")]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            fused=fabric.device.type in ("cpu", "cuda"),
        )
        self.wrapped, self.wrapped_optimizer = fabric.setup(module, self.optimizer)
        self.average = MovingAverage(module)
        self.window: dict[str, Tensor] = {}
        self.bad_step = torch.full((), -1.0, device=fabric.device)
        if fabric.is_global_zero:
            remove_partial_files(self.path)
        if self.path.exists():
            self.restore()
        fabric.barrier()
        if self.step == 0:
            self.save()  # finds a folder that cannot be written now, and holds the first weights

    def open_log(self, quiet: bool) -> RunLog:
        return RunLog(self.run_dir, self.step, self.config.steps, quiet, self.fabric.is_global_zero)

    def loop(self, batch: BatchSource, log: RunLog, stop: list[int]) -> None:
        config, seconds_before, began = self.config, self.seconds, time.perf_counter()
        if self.step > 0:
            log.say(f"continuing {self.run_dir} at step {self.step} of {config.steps}")
        self.wrapped.train()
        marked_step, marked = self.step, began
        while self.step < config.steps:
            self.take_step(batch)
            log.advance(self.step)
            last = self.step == config.steps
            stopping = self.agree_to_stop(stop)
            probing = self.probe is not None and (last or (self.probe_every and self.step % self.probe_every == 0))
            logging = last or self.step % config.log_every == 0
            saving = last or stopping or probing or self.step % config.checkpoint_every == 0
            if logging or saving:
                self.check_finite()
                now = time.perf_counter()
                self.seconds = seconds_before + now - began
            if logging:
                rate = (self.step - marked_step) / (now - marked)
                marked_step, marked = self.step, now
                log.write(self.record(rate))
            if probing:
                probe_began = time.perf_counter()
                self.measure()
                pause = time.perf_counter() - probe_began
                began, marked = began + pause, marked + pause
            if saving:
                self.save()
            if stopping and not last:
                self.interrupted(stop)

    def take_step(self, batch: BatchSource) -> None:
        """One optimizer step; a pure function of the state of the run and (seed, step, rank)."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.step, self.fabric.global_rank))
        generator = torch.Generator(self.fabric.device).manual_seed(int(rng.integers(2**63)))
        inputs = tuple(self.to_device(x) for x in batch(rng, config.batch_size))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config) * group["factor"]
        metrics = self.forward(inputs, generator)
        if "loss" not in metrics:
            raise ValueError(f"{type(self.module).__name__} must return a dictionary with the key 'loss'")
        self.fabric.backward(metrics["loss"])
        norm = self.fabric.clip_gradients(
            self.wrapped, self.wrapped_optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False
        )
        assert norm is not None  # only strategies that shard the weights give none
        self.wrapped_optimizer.step()
        self.wrapped_optimizer.zero_grad(set_to_none=True)
        self.average.update(ema_decay(self.step, config.ema_decay))
        self.collect({**{name: value.detach() for name, value in metrics.items()}, "gradient_norm": norm})
        self.step += 1

    def to_device(self, x: Any) -> Tensor:
        """A part of a batch on the device, numbers with a point as float32."""
        tensor = torch.as_tensor(x)
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.fabric.device, dtype, non_blocking=True)

    def forward(self, inputs: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """What the module makes of a batch. Mixed precision begins inside it: the precision plugin of fabric would round
        the batch before the module can normalise it.
        """
        mixed = self.config.precision == "bf16-mixed"
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=mixed):
            return self.wrapped(inputs, generator)

    def measure(self) -> None:
        """Let the probe see the averaged weights, and note what it says; only the first process does."""
        assert self.probe is not None
        if self.fabric.is_global_zero:
            with self.average.lent():
                self.curve.append({"step": self.step, **self.probe()})
            self.wrapped.train()
        self.fabric.barrier()

    def collect(self, metrics: dict[str, Tensor]) -> None:
        """Add to the sums of the open record, on the device: a number read back each step would make a GPU wait."""
        bad = ~torch.isfinite(metrics["loss"] + metrics["gradient_norm"]) & (self.bad_step < 0)
        self.bad_step.masked_fill_(bad, self.step)
        metrics["count"] = torch.ones((), device=self.fabric.device)
        if not self.window:
            self.window = {name: torch.zeros((), device=self.fabric.device) for name in sorted(metrics)}
        if self.window.keys() != metrics.keys():
            raise ValueError(f"the scalars must keep their names, but {sorted(self.window)} became {sorted(metrics)}")
        torch._foreach_add_(list(self.window.values()), [metrics[name].float() for name in self.window])

    def record(self, rate: float) -> dict[str, Any]:
        """Close the open record: means over its steps and over the processes."""
        names = list(self.window)
        sums = self.over_processes(torch.stack([self.window[name] for name in names]), "mean").tolist()
        totals = dict(zip(names, sums, strict=True))
        count = totals.pop("count")
        self.window = {}
        self.metrics = {name: total / count for name, total in totals.items()}
        rates = {"learning_rate": learning_rate(self.step - 1, self.config), "steps_per_second": rate}
        return {"step": self.step, "time": time.time(), "seconds": self.seconds, **rates, **self.metrics}

    def check_finite(self) -> None:
        bad = int(self.over_processes(self.bad_step.clone(), "max").item())
        if bad >= 0:
            _, kept = load_checkpoint(self.path)
            raise FloatingPointError(
                f"loss or gradient is not finite at step {bad}; the checkpoint of step {kept['step']} in "
                f"{self.run_dir} is kept (try a lower learning rate in another folder)"
            )

    def over_processes(self, tensor: Tensor, operation: str) -> Tensor:
        reduced = self.fabric.all_reduce(tensor, reduce_op=operation)
        assert isinstance(reduced, Tensor)  # fabric reduces collections too
        return reduced

    def agree_to_stop(self, stop: list[int]) -> bool:
        if self.fabric.world_size == 1:
            return bool(stop)
        if self.step % AGREE_EVERY:
            return False
        flag = torch.tensor(float(bool(stop)), device=self.fabric.device)
        return bool(self.over_processes(flag, "max").item())

    def interrupted(self, stop: list[int]) -> None:
        self.fabric.barrier()  # nobody leaves before the checkpoint is written
        if not self.fabric.is_global_zero:
            raise TrainingInterrupted(0)
        print(
            f"\ninterrupted after step {self.step} of {self.config.steps}; {self.path} is written: "
            "run the same command to continue",
            file=sys.stderr,
        )
        raise TrainingInterrupted(128 + (stop[0] if stop else signal.SIGINT))

    def save(self) -> None:
        """Write the whole state of the run; only the first process does."""
        if not self.fabric.is_global_zero:
            return
        tensors = {f"weights/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"ema/{name}": value for name, value in self.average.state.items()}
        tensors |= {f"record/{name}": value for name, value in self.window.items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{self.names[index]}/{key}": value for key, value in entries.items()}
        progress = Progress(self.step, self.seconds, self.metrics, tuple(self.curve))
        save_checkpoint(self.path, tensors, {"kind": "training", **dataclasses.asdict(progress), **self.identity})

    def restore(self) -> None:
        """Take the state of the run from its checkpoint, after a check of everything in it: nothing is taken in part."""
        tensors, header = load_checkpoint(self.path)
        progress = _progress(header, self.path)
        _require_same_run(self.run_dir, header, self.identity)
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "ema": {}, "record": {}, "optimizer": {}}
        for name, value in tensors.items():
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = value
        complaint = f"the tensors of {self.path} do not fit {type(self.module).__name__}"
        require_tensors(self.expected(parts, progress.step), tensors, complaint)
        require_finite(tensors, f"{self.path} is damaged")
        load_into(self.module, parts["weights"], self.path)
        for name, value in self.average.state.items():
            value.copy_(parts["ema"][name])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            parameter, _, key = name.rpartition("/")
            state.setdefault(self.names.index(parameter), {})[key] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.window = {name: value.to(self.fabric.device) for name, value in parts["record"].items()}
        self.step, self.seconds = progress.step, progress.seconds
        self.metrics, self.curve = progress.metrics, list(progress.curve)

    def expected(self, parts: Mapping[str, Mapping[str, Tensor]], step: int) -> dict[str, Tensor]:
        """Names of a checkpoint's tensors with ones of the same shapes and dtypes. ``parts``: those that are there."""
        number = torch.zeros(())
        tensors = {f"weights/{name}": value for name, value in self.module.state_dict().items()}
        tensors |= {f"ema/{name}": value for name, value in self.average.state.items()}
        tensors |= {f"record/{name}": number for name in parts["record"]}
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        stepped = {name.rpartition("/")[0] for name in parts["optimizer"]}
        for name, parameter in zip(self.names, parameters, strict=True):
            if name in stepped or (step > 0 and not stepped):  # a parameter that never had a gradient has no state
                moments = {"step": number, "exp_avg": parameter, "exp_avg_sq": parameter}
                tensors |= {f"optimizer/{name}/{key}": value for key, value in moments.items()}
        return tensors

    def result(self) -> TrainResult:
        state = {**self.module.state_dict(), **self.average.state}
        ema_state = {name: value.detach().cpu().clone() for name, value in state.items()}
        return TrainResult(ema_state, self.step, self.seconds, self.curve, self.metrics, self.fabric.global_rank)


def _fabric(accelerator: str, devices: int | str, strategy: str) -> Fabric:
    try:
        return Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision="32-true")
    except (ValueError, TypeError, RuntimeError, ImportError) as error:  # what it raises for what the machine lacks
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no training with accelerator {accelerator!r}, devices {devices!r} and strategy {strategy!r} here: "
            f"{reason[:160]}"
        ) from error


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: those with two or more axes decay; of each kind, one for each learning rate factor."""
    factor = getattr(module, "learning_rate_factor", lambda name: 1.0)
    groups: dict[tuple[bool, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((parameter.ndim < 2, factor(name)), []).append((name, parameter))
    return [
        {
            "names": [name for name, _ in group],
            "params": [parameter for _, parameter in group],
            "weight_decay": 0.0 if flat else weight_decay,
            "factor": rate,
        }
        for (flat, rate), group in sorted(groups.items(), key=lambda item: item[0])
    ]


def _identity(config: TrainConfig, devices: int, header: Mapping[str, Any]) -> dict[str, Any]:
    """What decides about the weights, as plain JSON."""
    identity = {"config": dataclasses.asdict(config), "devices": devices, "header": header}
    return dict(json.loads(json.dumps(identity, allow_nan=False)))


def _progress(header: Mapping[str, Any], path: Path) -> Progress:
    """The progress in a checkpoint's header. CheckpointError for the header of something else, or of wrong types."""
    if header.get("kind") != "training":
        raise CheckpointError(f"{path} is not the checkpoint of a training run")
    try:
        return Progress(
            **{part.name: header[part.name] for part in dataclasses.fields(Progress) if part.name in header}
        )
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the header of {path} is damaged: {error}") from error


def _require_same_run(run_dir: Path, there: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise ValueError if the header of a checkpoint is of another run than what is asked for."""
    differing = differences({key: there.get(key) for key in asked}, asked)
    for name in FREE:
        differing.pop(name, None)
    config, step = asked["config"], there["step"]
    constant = config["schedule"] == "constant"
    if constant and config["steps"] >= step:
        differing.pop("config.steps", None)
    if differing:
        reason = ""
        if list(differing) == ["config.steps"]:
            reason = (
                f" ({step} are done)"
                if constant
                else " (a cosine learning rate ends at a step that is set at the start)"
            )
        raise another_run(run_dir, differing, reason)


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second Ctrl-C is obeyed at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may install handlers
        return

    def handler(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
