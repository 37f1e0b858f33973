"""The training loop: it trains any module on any batches, and loses nothing when it is killed.

The data and the noise of a step are pure functions of (seed, step, rank) and the learning rate is one of the step, so a
checkpoint of weights, averaged weights and optimizer state is the whole state of a run. The same call after Ctrl-C,
after `kill -9` or after a power failure goes on from the last checkpoint and, on a CPU with the same number of threads,
ends with the same weights bit for bit as a run that nobody disturbed.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from dfplan.data.windows import BatchSource
from dfplan.training.average import ema_decay
from dfplan.training.checkpoint import load_header
from dfplan.training.config import TrainConfig, learning_rate
from dfplan.training.interrupt import TrainingInterrupted, interrupted, stop_signals
from dfplan.training.log import RunLog
from dfplan.training.run_folder import CHECKPOINT, claimed, require_free, require_own
from dfplan.training.state import Progress, RunState, identity_of, make_optimizer, read_progress, require_same_run
from dfplan.training.stopwatch import Stopwatch
from dfplan.whole_files import remove_partial_files

# Ctrl-C reaches the processes of a multi-device run at different steps; every so many steps they agree to stop.
AGREE_EVERY = 10

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
    """Train a module, or continue or return the run that `run_dir` already holds.

    Args:
        module: `module(batch, generator) -> dict[str, Tensor]`: scalars, with the one to minimize under 'loss'. All
            its randomness must come from `generator` (on the device of the batch). Trained in place. If it has
            `learning_rate_factor(name) -> float`, the learning rate of the parameter of that name is multiplied by it.
        batch: `batch(rng, batch_size)` returns a tuple of arrays or tensors, drawn with `rng` and nothing else.
        config: How to train.
        run_dir: Folder for `last.safetensors` (the checkpoint, see `dfplan.training.state`), `log.jsonl` and TensorBoard
            events. It must be such a folder, or empty, or not there yet.
        header: JSON object that names what else the weights depend on (model, data fingerprint); a run whose
            header differs is not continued. A run whose learning rate is constant may be continued with more steps.
        probe: Called after every `probe_every` steps and after the last one, while the module holds the averaged
            weights: a learning curve. Its time does not count as training.
        accelerator, devices, strategy: As of `lightning_fabric.Fabric`; several devices average their gradients.
        quiet: Show nothing.

    Raises:
        ValueError: `run_dir` holds another run, and the message names the fields that differ, or files that are no
            run's; or the machine lacks what `accelerator`, `devices` and `strategy` ask for.
        InUseError: Another process trains in `run_dir`; the message names it.
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
            log = RunLog(run_dir, run.step, config.steps, quiet, fabric.is_global_zero)
            with stop_signals() as stop, log:
                run.loop(batch, log, stop)
        return run.result()


def require_trainable(run_dir: str | Path, config: TrainConfig, header: Mapping[str, Any], devices: int = 1) -> None:
    """Refuse before any work what `train` would refuse; nothing is written.

    `header` may lack what is not known yet, such as the data. Raises what `train` raises for a folder that holds
    something else, or that another process trains in.
    """
    run_dir = Path(run_dir)
    require_own(run_dir, "offline")
    require_free(run_dir)
    path = run_dir / CHECKPOINT
    if path.exists():
        there = load_header(path)
        read_progress(there, path)
        if isinstance(known := there.get("header"), dict):
            there = there | {"header": {name: value for name, value in known.items() if name in header}}
        require_same_run(run_dir, there, identity_of(config, devices, header))


class _Run:
    """One training run: its state, how far it has come, and the loop."""

    def __init__(
        self, fabric: Fabric, module: nn.Module, config: TrainConfig, run_dir: Path, header: dict[str, Any]
    ) -> None:
        self.fabric, self.module, self.config, self.run_dir = fabric, module, config, run_dir
        self.identity = identity_of(config, fabric.world_size, header)
        self.path = run_dir / CHECKPOINT
        self.probe: Probe | None = None
        self.probe_every = 0
        optimizer, names = make_optimizer(module, config, fused=fabric.device.type in ("cpu", "cuda"))
        self.wrapped, self.optimizer = fabric.setup(module, optimizer)
        self.state = RunState(module, optimizer, names)
        self.bad_step = torch.full((), -1.0, device=fabric.device)
        if fabric.is_global_zero:
            remove_partial_files(self.path)
        there = self.path.exists()
        progress = self.state.restore(self.path, self.identity) if there else Progress()
        self.step, self.seconds = progress.step, progress.seconds
        self.metrics, self.curve = progress.metrics, list(progress.curve)
        fabric.barrier()
        if self.step == 0:
            self.save()  # finds a folder that cannot be written now, and holds the first weights

    def loop(self, batch: BatchSource, log: RunLog, stop: list[int]) -> None:
        """Step by step to the end of the run; now and then a record, a point of the curve, a checkpoint."""
        config, watch = self.config, Stopwatch(self.seconds, self.step)
        if self.step > 0:
            log.say(f"continuing {self.run_dir} at step {self.step} of {config.steps}")
        self.wrapped.train()
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
                self.seconds = watch.seconds
            if logging:
                log.write(self.record(watch.rate(self.step)))
            if probing:
                with watch.paused():
                    self.measure()
            if saving:
                self.save()
            if stopping and not last:
                self.end_early(stop)

    def take_step(self, batch: BatchSource) -> None:
        """One optimizer step; a pure function of the state of the run and (seed, step, rank)."""
        config = self.config
        rng = np.random.default_rng((config.seed, self.step, self.fabric.global_rank))
        generator = torch.Generator(self.fabric.device).manual_seed(int(rng.integers(2**63)))
        inputs = tuple(self.to_device(x) for x in batch(rng, config.batch_size))
        for group in self.state.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, config) * group["factor"]
        metrics = self.forward(inputs, generator)
        if "loss" not in metrics:
            raise ValueError(f"{type(self.module).__name__} must return a dictionary with the key 'loss'")
        self.fabric.backward(metrics["loss"])
        norm = self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=config.gradient_clip, error_if_nonfinite=False
        )
        assert norm is not None  # only strategies that shard the weights give none
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.average.update(ema_decay(self.step, config.ema_decay))
        self.collect({**{name: value.detach() for name, value in metrics.items()}, "gradient_norm": norm})
        self.step += 1

    def to_device(self, x: Any) -> Tensor:
        """A part of a batch on the device, numbers with a point as float32."""
        tensor = torch.as_tensor(x)
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self.fabric.device, dtype, non_blocking=True)

    def forward(self, inputs: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """What the module makes of a batch. Mixed precision begins inside it: the precision plugin of fabric would round
        the batch before the module can normalize it.
        """
        mixed = self.config.precision == "bf16-mixed"
        with torch.autocast(self.fabric.device.type, torch.bfloat16, enabled=mixed):
            return self.wrapped(inputs, generator)

    def measure(self) -> None:
        """A point of the curve: what the probe measures on the averaged weights, in the first process alone."""
        assert self.probe is not None
        if self.fabric.is_global_zero:
            with self.state.average.lent():
                self.curve.append({"step": self.step, **self.probe()})
            self.wrapped.train()
        self.fabric.barrier()

    def collect(self, metrics: dict[str, Tensor]) -> None:
        """Add to the sums of the open record, on the device: a number read back each step would make a GPU wait."""
        bad = ~torch.isfinite(metrics["loss"] + metrics["gradient_norm"]) & (self.bad_step < 0)
        self.bad_step.masked_fill_(bad, self.step)
        metrics["count"] = torch.ones((), device=self.fabric.device)
        if not self.state.sums:
            self.state.sums = {name: torch.zeros((), device=self.fabric.device) for name in sorted(metrics)}
        sums = self.state.sums
        if sums.keys() != metrics.keys():
            raise ValueError(f"the scalars must keep their names, but {sorted(sums)} became {sorted(metrics)}")
        torch._foreach_add_(list(sums.values()), [metrics[name].float() for name in sums])

    def record(self, rate: float) -> dict[str, Any]:
        """Close the open record: means over its steps and over the processes."""
        names = list(self.state.sums)
        sums = self.over_processes(torch.stack([self.state.sums[name] for name in names]), "mean").tolist()
        totals = dict(zip(names, sums, strict=True))
        count = totals.pop("count")
        self.state.sums = {}
        self.metrics = {name: total / count for name, total in totals.items()}
        rates = {"learning_rate": learning_rate(self.step - 1, self.config), "steps_per_second": rate}
        return {"step": self.step, "time": time.time(), "seconds": self.seconds, **rates, **self.metrics}

    def check_finite(self) -> None:
        """Raise FloatingPointError if loss or gradient were not finite in a step since the last checkpoint."""
        bad = int(self.over_processes(self.bad_step.clone(), "max").item())
        if bad >= 0:
            raise FloatingPointError(
                f"loss or gradient is not finite at step {bad}; the checkpoint of step {load_header(self.path)['step']} in "
                f"{self.run_dir} is kept (try a lower learning rate in another folder)"
            )

    def over_processes(self, tensor: Tensor, operation: str) -> Tensor:
        """Mean or maximum of a tensor over the processes of the run."""
        reduced = self.fabric.all_reduce(tensor, reduce_op=operation)
        assert isinstance(reduced, Tensor)  # fabric reduces collections too
        return reduced

    def agree_to_stop(self, stop: list[int]) -> bool:
        """Whether a signal has reached one of the processes; of several, all find the same at the same step."""
        if self.fabric.world_size == 1:
            return bool(stop)
        if self.step % AGREE_EVERY:
            return False
        flag = torch.tensor(float(bool(stop)), device=self.fabric.device)
        return bool(self.over_processes(flag, "max").item())

    def end_early(self, stop: list[int]) -> None:
        """Raise TrainingInterrupted once the checkpoint is written; further processes end without a word."""
        self.fabric.barrier()
        if not self.fabric.is_global_zero:
            raise TrainingInterrupted(0)
        raise interrupted(stop, self.step, self.config.steps, self.path)

    def save(self) -> None:
        """Write the checkpoint; only the first process does."""
        if self.fabric.is_global_zero:
            progress = Progress(self.step, self.seconds, self.metrics, tuple(self.curve))
            self.state.save(self.path, progress, self.identity)

    def result(self) -> TrainResult:
        """What the run leaves, as it stands now."""
        averaged, rank = self.state.averaged(), self.fabric.global_rank
        return TrainResult(averaged, self.step, self.seconds, self.curve, self.metrics, rank)


def _fabric(accelerator: str, devices: int | str, strategy: str) -> Fabric:
    try:
        return Fabric(accelerator=accelerator, devices=devices, strategy=strategy, precision="32-true")
    except (ValueError, TypeError, RuntimeError, ImportError) as error:  # what it raises for what the machine lacks
        reason = " ".join(str(error).split())
        raise ValueError(
            f"no training with accelerator {accelerator!r}, devices {devices!r} and strategy {strategy!r} here: "
            f"{reason[:160]}"
        ) from error
