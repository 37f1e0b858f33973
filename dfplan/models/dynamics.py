"""Forward dynamics: how an observation changes under an action in one step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfplan.models.embeddings import Waves
from dfplan.models.mlp import mlp


class Dynamics(nn.Module):
    """f(o, a): the mean change of the observation in one step.

    Observations (B, observation_dim), actions (B, action_dim) and changes (B, observation_dim) are normalized, each by its
    own statistics. A linear path beside the network carries what is linear, such as free flight; the waves let the
    network find the walls. Not to be confused with inverse dynamics, whose output is the action.
    """

    def __init__(self, observation_dim: int, action_dim: int, width: int = 128, octaves: int = 6):
        super().__init__()
        self.waves = Waves(octaves)
        self.linear = nn.Linear(observation_dim + action_dim, observation_dim)
        self.mlp = mlp(self.waves.width(observation_dim) + action_dim, width, width, width, observation_dim)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """Changes (..., observation_dim) of observations (..., observation_dim) under actions (..., action_dim), in float32."""
        pair = torch.cat([observation, action], dim=-1)
        seen = torch.cat([self.waves(observation), action], dim=-1)
        return (self.linear(pair) + self.mlp(seen)).float()
