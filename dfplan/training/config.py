"""How a module is trained, as plain data, and the learning rate that follows from it."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from dfplan.fields import Count, NotNegative, Positive, Whole, check_fields


@dataclass(frozen=True)
class TrainConfig:
    """How a module is trained. Every field but the last two decides about the weights."""

    steps: Count = 10_000
    """Number of optimizer steps of the whole run."""
    batch_size: Count = 64
    """Sequences per step on each device; D devices see D times as many."""
    learning_rate: Positive = 1e-3
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, or falling to zero at the last step along half a cosine."""
    warmup_steps: Whole = 200
    """Steps over which the learning rate rises linearly from zero."""
    weight_decay: NotNegative = 1e-4
    """Decoupled weight decay of AdamW, on parameters with two or more axes only."""
    gradient_clip: Positive = 1.0
    """Largest norm of the whole gradient; longer gradients are scaled down to it."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the exponential moving average of the weights (see `dfplan.training.average.ema_decay`)."""
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    """Arithmetic inside the module: float32, or bfloat16 where autocast allows. Batches reach the module in float32 and are
    normalized in float32; weights and averages stay float32."""
    seed: Whole = 0
    """Decides, with the step and the rank of the process, about every batch and all noise."""
    checkpoint_every: Count = 500
    """Steps between checkpoints; may change when a run continues."""
    log_every: Count = 50
    """Steps between records, each the mean of the steps since the one before; may change when a run continues."""

    def __post_init__(self) -> None:
        check_fields(self)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, then constant or half a cosine down to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
