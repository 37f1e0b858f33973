"""Costs of plans: how far they are from a goal, whether they stay within limits, and sums of costs.

Each is a cost in the sense of `dfplan.diffusion.costs`, of tokens or observations in any units. `in_units` wraps a cost that is
written in recorded units. The paper's guidance in mazes is `ReachThroughout`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.diffusion.costs import Cost, cost_of
from dfplan.fields import NotNegative, Positive, check_fields


@dataclass(frozen=True)
class Reach:
    """A goal (G,), or one of each sequence (B, G), in G columns of the tokens: row r of n * B tokens has the goal of r % B.
    ValueError for fields that do not fit."""

    goal: Tensor
    columns: Sequence[int]

    def __post_init__(self) -> None:
        check_fields(self)
        shape, G = tuple(self.goal.shape), len(self.columns)
        if G not in shape[-1:] or len(shape) > 2 or not G or not bool(self.goal.isfinite().all()):
            raise ValueError(f"a goal in {G} columns is ({G},) or (B, {G}) finite numbers, got {self.goal.tolist()}")

    def distance(self, x0: Tensor) -> Tensor:
        """Euclidean distance (B, T) of each token from the goal, with a finite gradient at the goal too."""
        goal = self.goal
        if goal.ndim == 2:
            goal = goal.repeat(len(x0) // len(goal), 1).unsqueeze(-2)
        return (x0[..., list(self.columns)] - goal).square().sum(-1).add(1e-12).sqrt()


@dataclass(frozen=True)
class ReachAt(Reach):
    """Be at the goal at one token, counted from the end where it is negative: the distance there."""

    token: int

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        return self.distance(x0)[:, self.token]


class ReachThroughout(Reach):
    """Be near the goal at every token: the mean distance, the paper's guidance in mazes (Chen et al. 2024, sec. 4.2).
    Greedy: it can stick in dead ends.
    """

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        return self.distance(x0).mean(-1)


@dataclass(frozen=True)
class ReachSoonest(Reach):
    """Be at the goal as early as possible: the share of tokens before the first arrival, in 0..1. This project's own.
    A token at the distance `radius` has arrived with probability 1/2, which falls over a distance of about `softness`.
    """

    radius: NotNegative = 0.3
    softness: Positive = 0.3

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        away = torch.sigmoid((self.distance(x0) - self.radius) / self.softness)
        return torch.cumprod(away, dim=-1).mean(-1)


@dataclass(frozen=True)
class StayIn:
    """Keep columns between low and high (len(columns),): the squared excess, summed over columns, averaged over tokens."""

    low: Tensor
    high: Tensor
    columns: Sequence[int]

    def __post_init__(self) -> None:
        if not self.low.shape == self.high.shape == (len(self.columns),) or not bool((self.low <= self.high).all()):
            found = f"{self.low.tolist()} and {self.high.tolist()}"
            raise ValueError(f"low and high are ({len(self.columns)},) numbers, low <= high everywhere, got {found}")

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        x = x0[..., list(self.columns)]
        outside = (self.low - x).clamp(min=0) + (x - self.high).clamp(min=0)
        return outside.square().sum(-1).mean(-1)


@dataclass(frozen=True)
class WeightedSum:
    """Several costs at once: the sum of weight times cost. Raises ValueError unless there are some, of finite weights."""

    terms: Sequence[tuple[float, Cost]]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.terms]
        if not weights or not all(map(math.isfinite, weights)):
            raise ValueError(f"a weighted sum needs one or more costs with finite weights, got the weights {weights}")

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        return torch.stack([weight * cost_of(cost, x0) for weight, cost in self.terms]).sum(0)


def in_units(cost: Cost, denormalize: Callable[[Tensor], Tensor]) -> Cost:
    """A cost of tokens in recorded units as a cost of normalized ones: `denormalize` leads from these to those."""
    return lambda x0: cost(denormalize(x0))
