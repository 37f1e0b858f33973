"""Constraints while sampling: each prediction of clean tokens is moved out of what it violates, before its noise falls.

Not to be confused with guidance, which moves a prediction a little towards a low cost, by a gradient through the network. Here
a prediction is moved as far as the constraint asks for, and the network is not differentiated: in the next step it
denoises the rest given what was moved. Christopher et al. 2024 do so with exact projections.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.diffusion.costs import Cost, cost_of
from dfplan.diffusion.noise import per_column
from dfplan.fields import Size, check_fields


@dataclass(frozen=True)
class Projection:
    """Moves out of violations. Raises ValueError for fields out of range."""

    violation: Cost
    """Clean tokens (B, T, C) to how much each sequence violates, (B,), at least 0, where 0 is kept."""
    moves: Size = 4
    """Moves at most. One is enough for a single violation that falls evenly, as the depth in a ball does."""

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, x0: Tensor, movable: Tensor) -> Tensor:
        """The same tokens x0 (B, T, C), moved where `movable`, (B, T) or (B, T, C), is True.

        Each move is as long as a violation that falls evenly asks for (Polyak's step). Raises CostError for a violation that is
        none.
        """
        free = per_column(movable, x0)
        for _ in range(self.moves):
            with torch.enable_grad():
                x = x0.detach().requires_grad_()
                violated = cost_of(self.violation, x)
                (slope,) = torch.autograd.grad(violated.sum(), x)
            violated = violated.detach().clamp(min=0)
            if not bool((violated > 0).any()):
                break
            slope = torch.where(free, slope, 0.0)
            size = slope.square().sum((1, 2)).clamp(min=1e-9)
            x0 = x0 - slope * (violated / size).view(-1, 1, 1)
        return x0
