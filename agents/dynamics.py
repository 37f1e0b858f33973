"""A model of the dynamics, learned from recorded transitions: what a planner without a simulator plans with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dfplan.data.statistics import Normalizer
from dfplan.data.trajectories import Steps, Trajectories, next_observations
from dfplan.data.windows import Batch
from dfplan.fields import Octaves, Size, check_fields
from dfplan.models.dynamics import Dynamics
from dfplan.training.loop import BatchSource


@dataclass(frozen=True)
class DynamicsConfig:
    observation_dim: Size = 4
    """Columns of an observation."""
    action_dim: Size = 2
    """Columns of an action."""
    width: Size = 128
    """Features of each hidden layer."""
    octaves: Octaves = 6
    """Sines and cosines of each observed column at 1, 2, 4, ... radians per deviation that the network sees beside it."""

    def __post_init__(self) -> None:
        check_fields(self)


class DynamicsModel(nn.Module):
    """One network, no ensemble: it predicts the mean change of one step, and says nothing of how sure it is."""

    action_low: Tensor
    action_high: Tensor

    def __init__(self, config: DynamicsConfig | None = None):
        super().__init__()
        self.config = config = config or DynamicsConfig()
        D, A = config.observation_dim, config.action_dim
        self.observation = Normalizer(torch.zeros(D), torch.ones(D))
        self.action = Normalizer(torch.zeros(A), torch.ones(A))
        self.change = Normalizer(torch.zeros(D), torch.ones(D))
        self.network = Dynamics(D, A, config.width, config.octaves)
        self.register_buffer("action_low", -torch.ones(A))
        self.register_buffer("action_high", torch.ones(A))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalisers and action limits from the data, before training."""
        i = Steps(data, observed=True).indices
        self.observation = Normalizer.fit(data.observations)
        self.action = Normalizer.fit(data.actions)
        self.change = Normalizer.fit(next_observations(data, i) - data.observations[i])
        self.action_low = torch.from_numpy(data.actions.min(axis=0))
        self.action_high = torch.from_numpy(data.actions.max(axis=0))

    def batches(self, data: Trajectories) -> BatchSource:
        """Transitions drawn uniformly: observations (B, 2, observation_dim) and actions (B, 2, action_dim).

        The step into an episode's last observation is one of them. Only the first action is read: the second is 0.
        """
        steps = Steps(data, observed=True)

        def batch(rng: np.random.Generator, batch_size: int) -> Batch:
            i = steps.indices[rng.integers(len(steps), size=batch_size)]
            actions = np.stack([data.actions[i], np.zeros_like(data.actions[i])], axis=1)
            return np.stack([data.observations[i], next_observations(data, i)], axis=1), actions

        return batch

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the normalised change, under 'loss'; ``generator`` is not needed."""
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
