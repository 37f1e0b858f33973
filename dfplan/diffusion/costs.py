"""Costs that steer sampling: functions of predicted clean tokens, and the check of what they return.

A cost is a function `(x0 (B, T, C)) -> (B,)`: one number for each sequence, lower is better, finite and differentiable
in x0. It gets a copy of the tokens, which it may change in place. Costs here are of normalised tokens, and in their units;
`in_units` wraps one that is written in recorded units. A cost is not a constraint: a token that must have a value is a
known token (`dfplan.diffusion.sampler.Known`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.fields import NotNegative, Positive, check_fields

Cost = Callable[[Tensor], Tensor]
APART = 1e15
"""A sequence with larger numbers is lost: squares in float32 overflow soon, so that no finite cost can be expected."""


class CostError(ValueError):
    """A cost function that does not give one finite, differentiable number for each sequence."""


def cost_of(cost: Cost, x0: Tensor) -> Tensor:
    """The cost (B,) of tokens x0 (B, T, C).

    Raises CostError for a function that raises, that returns anything but floats (B,), or NaN or infinity for a sequence
    whose numbers are finite and below `APART`; and, where x0 asks for a gradient, for a result that does not depend on
    x0: a constant or detached cost would steer nothing.
    """
    try:
        value = cost(x0.clone())
    except (CostError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _refusal(x0, f"this one raised {type(error).__name__}: {error}") from error
    if not isinstance(value, Tensor):
        raise _refusal(x0, f"this one returned {type(value).__name__}")
    if value.shape != (len(x0),) or not value.is_floating_point():
        raise _refusal(x0, f"this one returned shape {tuple(value.shape)}, {value.dtype}")
    if torch.is_grad_enabled() and x0.requires_grad and not value.requires_grad:
        raise _refusal(x0, "the cost of this one does not depend on the sequence: it is constant or detached")
    whole = x0.detach().abs().flatten(1).amax(1) < APART  # False for NaN
    wrong = ~value.detach().isfinite() & whole
    if bool(wrong.any()):
        raise _refusal(x0, f"this one returned {value[wrong][0].item()} for a finite sequence")
    return value


def cost_gradient(cost: Cost, x0: Tensor, weight: float = 1.0) -> Tensor:
    """Gradient (B, T, C) of weight times the cost of each sequence with respect to x0 (B, T, C).

    Not finite where the cost has no finite gradient: the sequence is lost then, and the planner leaves it out. Raises
    CostError as `cost_of`, and for a cost through which no gradient flows.
    """
    with torch.enable_grad():
        x0 = x0.detach().requires_grad_()
        value = cost_of(cost, x0)
        try:
            (gradient,) = torch.autograd.grad(value, x0, torch.full_like(value, weight), allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise CostError(f"this cost cannot be differentiated: {error}") from error
    if gradient is None:
        raise _refusal(x0, "the cost of this one does not depend on the sequence: it is detached")
    return gradient


def _refusal(x0: Tensor, found: str) -> CostError:
    return CostError(
        "a cost function returns one finite, differentiable cost for each sequence, a float tensor of shape (B,), "
        f"here ({len(x0)},); {found}"
    )


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
class ReachAny(Reach):
    """Be at the goal at some token: a soft minimum of the distances, `softness` in their units. This project's own."""

    softness: Positive = 0.2

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        return -self.softness * torch.logsumexp(-self.distance(x0) / self.softness, dim=-1)


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
class LearnedReturn:
    """Seek a high return: minus what a learned value `(x0 (B, T, C)) -> (B,)` gives (Janner et al. 2022, sec. 3.1)."""

    value: Callable[[Tensor], Tensor]

    def __call__(self, x0: Tensor) -> Tensor:
        """The cost (B,) of clean tokens (B, T, C)."""
        return -self.value(x0)


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
    """A cost of tokens in recorded units as a cost of normalised ones: `denormalize` leads from these to those."""
    return lambda x0: cost(denormalize(x0))
