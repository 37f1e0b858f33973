"""Following plans: a batch of plans laid out step by step, each with a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Following:
    """The plans being followed, a row for each environment."""

    path: Tensor
    """(B, S + 1, observation_dim) normalised observations, one for each planned step; a plan's end repeats."""
    actions: Tensor | None
    """(B, S, action_dim) diffused actions, where there are any."""
    lengths: Tensor
    """(B,) tokens."""
    possible: Tensor
    """(B,) bool: whether the critic accepted the plan."""
    clock: Tensor
    """(B,) environment steps since the plan was made."""


def each_step(observations: Tensor, stride: int, steps: int) -> Tensor:
    """Planned observations (B, T, kept, D) as one for each environment step, (B, steps + 1, D), the end repeated.

    Where a token keeps only its last observation, the steps between are on the straight line.
    """
    B, T, kept, D = observations.shape
    if kept == 1:
        ends = observations[:, :, 0]
        share = torch.arange(stride, dtype=observations.dtype, device=observations.device) / stride
        body = ends[:, :-1, None] * (1 - share[:, None]) + ends[:, 1:, None] * share[:, None]
        path = torch.cat([body.reshape(B, (T - 1) * stride, D), ends[:, -1:]], dim=1)
    else:
        path = torch.cat([observations[:, :1, -1], observations[:, 1:].reshape(B, (T - 1) * kept, D)], dim=1)
    return padded(path, steps + 1)


def padded(x: Tensor, length: int) -> Tensor:
    """(B, S, D) to (B, length, D), the last entry repeated."""
    return torch.cat([x, x[:, -1:].expand(-1, length - x.shape[1], -1)], dim=1)
