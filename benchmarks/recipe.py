"""What a recipe is: what to train for one maze, how, and the agent that acts with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import BatchSource
from dfplan.envs.registry import Task
from dfplan.training.config import TrainConfig


class Learner(Protocol):
    """What is trained: a `torch.nn.Module` with these methods."""

    config: Any
    """A frozen dataclass: all of its configuration that decides about the weights."""

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalisers and limits from the data, before training."""

    def batches(self, data: Trajectories) -> BatchSource:
        """Where batches come from, as `dfplan.training.loop.train` asks for them."""

    def __call__(self, batch: Any, generator: torch.Generator) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class Recipe:
    """What to train for one maze under one name."""

    weights: str
    """Name of the trained weights, such as 'maze2d-large' or 'maze2d-large-iql'."""
    agent: type[Any]
    """The agent's class: ``agent(learner, config, card)``, with `save` and `load`."""
    config: Any
    """The agent's configuration."""
    learner: Callable[..., Any]
    """Makes the untrained `Learner`; of stacked training seeds, from ``seeds=(0, 1, 2)``."""
    train: TrainConfig
    stacked: int = 1
    """Training seeds that are trained together in one run and kept in one file: ``agent.load(path, member)``."""
    prepare: Callable[[Any, Task], Any] = field(default=lambda agent, task: agent)
    """Gives a loaded agent what of a task it needs beyond its weights."""
    curve: int = 0
    """Times that the score on tuning seeds is measured while training, evenly spread: the card's learning curve."""
