"""A recurrent policy: behavior cloning with a memory (GRU), whole in this file.

A gated recurrent unit sums up all that an episode has shown so far, and a perceptron reads the action out of it: a regression
of the recorded actions over whole episodes. It reads no reward, and a goal that it is given changes nothing. It is the baseline
for tasks in which the present does not say what to do (as BC-RNN in Mandlekar et al. 2021, but for one action in place of a
mixture).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dfplan.agents.base import LearningAgent
from dfplan.arrays import Shape
from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.statistics import Statistics, Widths
from dfplan.data.trajectories import Trajectories
from dfplan.data.windows import Batch, BatchSource
from dfplan.fields import CheckedFields, Depth, Size
from dfplan.training.losses import total


@dataclass(frozen=True)
class RecurrentPolicyConfig(Widths):
    """What is learned, and how large."""

    width: Size = 128
    """Features of the memory, and of the perceptron."""
    depth: Depth = 2
    """Layers of the recurrent unit."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes the observations of the data."""


@dataclass(frozen=True)
class RecurrentActing(CheckedFields):
    """How a recurrent policy acts: there is nothing to choose."""


class RecurrentPolicyModel(Statistics):
    """a_t = pi(o_0, ..., o_t), actions scaled to [-1, 1]."""

    def __init__(self, config: RecurrentPolicyConfig):
        super().__init__(config.observation_dim, config.action_dim, scale_actions=True)
        self.config, width = config, config.width
        self.memory = nn.GRU(config.observation_dim, width, config.depth, batch_first=True)
        self.read = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, config.action_dim), nn.Tanh())

    def act(self, observations: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled actions (B, S, A) for observations (B, S, D) in recorded units, and the memory (depth, B, W) after them."""
        summed, memory = self.memory(self.observation.normalize(observations), memory)
        return self.read(summed), memory

    def empty(self, rows: int) -> Tensor:
        """The memory (depth, rows, width) of nothing."""
        return self.action_low.new_zeros(self.config.depth, rows, self.config.width)

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """(pi(o_0, ..., o_t) - a_t)^2, mean over the steps that were recorded."""
        observations, actions, valid = batch
        guess, _ = self.act(observations, self.empty(len(observations)))
        error = F.mse_loss(guess.float(), self.scale_action(actions), reduction="none").mean(-1)
        return total({"cloning": (error * valid).sum() / valid.sum()})


class RecurrentPolicyAgent(LearningAgent):
    """Plays the cloned action; each row of a batch has a memory of its own."""

    kind = "recurrent_policy"
    learner_class, learner_config_class = RecurrentPolicyModel, RecurrentPolicyConfig
    config_class = RecurrentActing
    learner: RecurrentPolicyModel
    execution = "cloned actions"

    def _begin(self) -> None:
        self._memory: Tensor | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        if self._memory is not None:
            self._memory[:, torch.as_tensor(rows, device=self.device)] = 0.0

    def _act(self, batch: NDArray[Any], goals: NDArray[Any] | None) -> NDArray[Any]:
        if self._memory is None:
            self._memory = self.learner.empty(len(batch))
        action, self._memory = self.learner.act(self._tensor(batch).unsqueeze(1), self._memory)
        return self.learner.unscale_action(action[:, 0]).cpu().numpy()

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """As `episodes` draws them."""
        made = self.learner.config
        observations, actions = ("B", "S", made.observation_dim), ("B", "S", made.action_dim)
        return {"observations": observations, "actions": actions, "valid": ("B", "S")}


def episodes(data: Trajectories) -> BatchSource:
    """Whole episodes from their starts on: observations (B, S, D), actions (B, S, A) and which of them were recorded (B, S);
    S is the longest episode, and padding repeats the last step of another."""
    steps = np.arange((data.episode_ends - data.episode_starts).max())

    def batch(rng: np.random.Generator, batch_size: int) -> Batch:
        drawn = rng.integers(len(data.episode_starts), size=(batch_size, 1))
        rows, last = data.episode_starts[drawn] + steps, data.episode_ends[drawn] - 1
        taken = np.minimum(rows, last)
        return data.observations[taken], data.actions[taken], (rows <= last).astype(np.float32)

    return batch
