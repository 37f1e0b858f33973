"""Constraints on plans: where they must not lead, and how fast they may be. None of them is used in training.

Each is a violation in the sense of `dfplan.planning.ask.Ask`, of closing observations in recorded units: 0 where it is kept.
Between two tokens a plan is the straight line, as it is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.fields import Positive, check_fields


@dataclass(frozen=True)
class KeepOut:
    """Keep out of balls: how deep each piece of a plan lies in each of them, summed, times a weight."""

    centers: Tensor
    """(N, len(columns)), in recorded units."""
    radius: Positive
    """Of all of them. Whoever tracks a plan is a little beside it: a margin belongs in here."""
    columns: Sequence[int]
    """Columns of an observation that hold the position."""
    weight: Positive = 1.0
    """Price of a unit of violation, in tokens, while plans are searched for."""

    def __post_init__(self) -> None:
        check_fields(self)
        shape = tuple(self.centers.shape)
        if len(shape) != 2 or shape[1] != len(self.columns) or not bool(self.centers.isfinite().all()):
            raise ValueError(f"centers are (N, {len(self.columns)}) finite numbers, got {self.centers.tolist()}")

    def __call__(self, observations: Tensor) -> Tensor:
        """The violation (B,) of observations (B, T, observation_dim)."""
        places = observations[..., list(self.columns)]
        start, way = places[:, :-1, None], places.diff(dim=1).unsqueeze(2)  # (B, T - 1, 1, D)
        to_center = self.centers.to(places) - start
        share = ((to_center * way).sum(-1) / way.square().sum(-1).clamp(min=1e-9)).clamp(0, 1)
        nearest = (to_center - share.unsqueeze(-1) * way).square().sum(-1).add(1e-12).sqrt()
        return self.weight * (self.radius - nearest).clamp(min=0).sum((1, 2))


@dataclass(frozen=True)
class StayBelow:
    """Stay below a speed: by how much each piece of a plan, and each planned velocity, is faster, summed, times a weight."""

    speed: Positive
    """The highest speed, in recorded units. A plan that is played faster than it was recorded must be so much slower."""
    positions: Sequence[int]
    """Columns of an observation that hold the position."""
    velocities: Sequence[int]
    """Columns of an observation that hold the velocity, as many."""
    seconds: Positive
    """Between two tokens."""
    weight: Positive = 1.0
    """Price of a unit of violation, in tokens, while plans are searched for."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < len(self.positions) == len(self.velocities):
            counts = f"{tuple(self.positions)} and {tuple(self.velocities)}"
            raise ValueError(f"positions and velocities are as many columns each, at least one, got {counts}")

    def __call__(self, observations: Tensor) -> Tensor:
        """The violation (B,) of observations (B, T, observation_dim)."""
        along = observations[..., list(self.positions)].diff(dim=1) / self.seconds
        velocities = torch.cat([along, observations[..., list(self.velocities)]], 1)
        speeds = velocities.square().sum(-1).add(1e-12).sqrt()
        return self.weight * (speeds - self.speed).clamp(min=0).sum(-1)
