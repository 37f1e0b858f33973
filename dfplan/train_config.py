"""How a module is trained, as plain data, and the learning rate that follows from it."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainConfig:
    """How a module is trained. Every field but the last two decides about the weights."""

    steps: int = 10_000
    """Number of optimizer steps of the whole run."""
    batch_size: int = 64
    """Sequences per step on each device; D devices see D times as many."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, or falling to zero at the last step along half a cosine."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises linearly from zero."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of AdamW, on parameters with two or more axes only."""
    gradient_clip: float = 1.0
    """Largest norm of the whole gradient; longer gradients are scaled down to it."""
    ema_decay: float = 0.999
    """Decay of the exponential moving average of the weights (see :func:`ema_decay`)."""
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    """Arithmetic of the forward pass: float32, or bfloat16 where autocast allows; weights and averages stay float32."""
    seed: int = 0
    """Decides, with the step and the rank of the process, about every batch and all noise."""
    checkpoint_every: int = 500
    """Steps between checkpoints; may change when a run continues."""
    log_every: int = 50
    """Steps between records, each the mean of the steps since the one before; may change when a run continues."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "seed"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, but is {getattr(self, name)}")
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"{name} must be positive and finite, not {value}")
        _require(0 <= self.ema_decay < 1, f"ema_decay must lie in [0, 1), not {self.ema_decay}")
        _require(self.schedule in ("constant", "cosine"), f"unknown schedule '{self.schedule}': constant or cosine")
        _require(
            self.precision in ("32-true", "bf16-mixed"), f"unknown precision '{self.precision}': 32-true or bf16-mixed"
        )


def learning_rate(step: int, config: TrainConfig) -> float:
    """Learning rate of a step (counted from 0): linear warm-up, then constant or half a cosine down to zero."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)
