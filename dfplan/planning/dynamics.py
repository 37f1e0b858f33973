"""A model of the dynamics, learned from recorded transitions, for planners without a simulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.data.statistics import Normalizer, Statistics, Widths
from dfplan.data.trajectories import Steps, Trajectories, next_observations
from dfplan.fields import Octaves, Size, check_columns
from dfplan.models.dynamics import Dynamics


@dataclass(frozen=True)
class DynamicsConfig(Widths):
    """The size of a dynamics model."""

    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal stands."""
    width: Size = 128
    """Features of each hidden layer."""
    octaves: Octaves = 6
    """How many sines and cosines of each observed column are inputs beside it, at 1, 2, 4, ... radians per deviation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")


class DynamicsModel(Statistics):
    """One network, no ensemble: it predicts the mean change of one step, without a measure of its uncertainty."""

    def __init__(self, config: DynamicsConfig):
        super().__init__(config.observation_dim, config.action_dim)
        self.config = config
        self.change = Normalizer.standard(config.observation_dim)
        self.network = Dynamics(config.observation_dim, config.action_dim, config.width, config.octaves)

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers and action limits from the data, before training: the change's of steps within an episode."""
        super().fit_statistics(data)
        i = Steps(data, observed=True).indices
        self.change = Normalizer.fit(next_observations(data, i) - data.observations[i])

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the normalized change, under 'loss'; `generator` is not needed."""
        observations, actions = batch[0], batch[1]
        change = self.change.normalize(observations[:, 1] - observations[:, 0])
        guess = self.network(self.observation.normalize(observations[:, 0]), self.action.normalize(actions[:, 0]))
        return {"loss": (guess - change).square().mean()}

    @torch.no_grad()
    def rollout(self, states: ArrayLike, actions: ArrayLike) -> NDArray[np.float64]:
        """Predicted states (N, S, D) after each of the actions (N, S, A), from states (N, D), D = observation_dim.

        In recorded units; actions are clipped to those of the data, beyond which nothing was learned.
        """
        device = self.action_low.device
        state = torch.from_numpy(np.array(states, dtype=np.float32)).to(device)
        action = torch.from_numpy(np.array(actions, dtype=np.float32)).to(device)
        D, A = self.config.observation_dim, self.config.action_dim
        if state.ndim != 2 or state.shape[1] != D or action.shape != (len(state), *action.shape[1:2], A):
            raise ValueError(
                f"rollouts need states (N, {D}) and actions (N, S, {A}), got {tuple(state.shape)} and {tuple(action.shape)}"
            )
        action = self.action.normalize(action.clamp(self.action_low, self.action_high))
        path = state.new_empty(*action.shape[:2], D)
        for s in range(action.shape[1]):
            state = state + self.change.denormalize(self.network(self.observation.normalize(state), action[:, s]))
            path[:, s] = state
        return path.cpu().numpy().astype(np.float64)
