"""Inverse dynamics: the action that leads from an observation towards a target."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfplan.models.mlp import mlp


class InverseDynamics(nn.Module):
    """a = f(o, o', gap): the data's mean action at o when the target o' was observed `gap` steps later.

    Observations and actions are normalized, (B, observation_dim) and (B, action_dim); gap (B,) in steps, at most
    `longest_gap` in training. A linear path beside the network extrapolates to targets that are farther away than any in
    the data. Not to be confused with a controller that is written by hand: all of it is regressed from the data (Agrawal
    et al. 2016; Ajay et al. 2023, sec. 3.2).
    """

    def __init__(self, observation_dim: int, action_dim: int, longest_gap: int, width: int = 256):
        super().__init__()
        self.longest_gap = longest_gap
        self.linear = nn.Linear(2 * observation_dim, action_dim)
        self.mlp = mlp(2 * observation_dim + 2, width, width, action_dim)

    def forward(self, observation: Tensor, target: Tensor, gap: Tensor) -> Tensor:
        """Normalized actions (B, action_dim), in float32."""
        change = target - observation
        g = gap.unsqueeze(-1).to(observation.dtype)
        pair = torch.cat([observation, change], dim=-1)
        hidden = torch.cat([pair, g / self.longest_gap, 1 / g], dim=-1)
        return (self.linear(pair) + self.mlp(hidden)).float()
