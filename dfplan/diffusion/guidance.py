"""Guides: costs on the predicted clean tokens that steer sampling, and Monte Carlo guidance.

A guide is a function ``(x0 (B, T, C)) -> cost (B,)``, lower is better, finite and differentiable in x0; `cost_of` checks
that. It gets a copy of the tokens, which it may change in place. Guidance moves the noise that the network predicts by
``scale * sqrt(1 - alpha_bar_k) * grad cost`` (Dhariwal & Nichol 2021, Algorithm 2): the step scales with the noise of
the level at which it is applied. A guide is not a constraint: a token that must have a value is a known token
(`dfplan.diffusion.sampler.Known`).
Guides here see normalised tokens; `in_units` wraps one written in recorded units.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.fields import Size, SizeOrZero, check_fields

Guide = Callable[[Tensor], Tensor]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Noisy tokens (B, T, C) and levels (B, T) to predicted clean tokens (B, T, C)."""
Renoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(x0, x, k, k_next) -> x_next``: one deterministic denoising step."""
APART = 1e15
"""A sequence with larger numbers is lost: squares in float32 overflow soon, so that no finite cost can be expected."""


class GuideError(ValueError):
    """A guide that does not give one finite, differentiable cost for each sequence."""


def cost_of(guide: Guide, x0: Tensor) -> Tensor:
    """The costs (B,) that a guide gives to tokens x0 (B, T, C); it gets a copy, which it may change in place.

    Raises GuideError for a guide that raises, that returns anything but float costs (B,), NaN or infinity for a sequence
    whose numbers are finite and below `APART`, or, where x0 asks for a gradient, costs that do not depend on x0: a
    constant or detached cost would steer nothing.
    """
    B = len(x0)

    def refuse(found: str) -> GuideError:
        return GuideError(
            "a guide returns one finite, differentiable cost for each sequence, a float tensor of shape (B,), "
            f"here ({B},); {found}"
        )

    try:
        cost = guide(x0.clone())
    except (GuideError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise refuse(f"this one raised {type(error).__name__}: {error}") from error
    if not isinstance(cost, Tensor):
        raise refuse(f"this one returned {type(cost).__name__}")
    if cost.shape != (B,) or not cost.is_floating_point():
        raise refuse(f"this one returned shape {tuple(cost.shape)}, {cost.dtype}")
    if torch.is_grad_enabled() and x0.requires_grad and not cost.requires_grad:
        raise refuse("the cost of this one does not depend on the sequence: it is constant or detached")
    whole = x0.detach().abs().flatten(1).amax(1) < APART  # False for NaN
    wrong = ~cost.detach().isfinite() & whole
    if bool(wrong.any()):
        raise refuse(f"this one returned {cost[wrong][0].item()} for a finite sequence")
    return cost


def cost_gradient(guide: Guide, x0: Tensor, weight: float = 1.0) -> Tensor:
    """Gradient (B, T, C) of weight times the cost of each sequence with respect to x0 (B, T, C).

    Not finite where the cost has no finite gradient: the sequence is lost then, and the planner leaves it out. Raises
    GuideError as `cost_of`, and for a cost through which no gradient flows.
    """
    with torch.enable_grad():
        x0 = x0.detach().requires_grad_()
        cost = cost_of(guide, x0)
        try:
            (gradient,) = torch.autograd.grad(cost, x0, torch.full_like(cost, weight), allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise GuideError(f"the cost of this guide cannot be differentiated: {error}") from error
    if gradient is None:
        raise GuideError("the cost of this guide does not depend on the sequence: it is detached, and would steer nothing")
    return gradient


def _check_goal(goal: Tensor, columns: Sequence[int]) -> None:
    """Raise ValueError unless a goal is finite and has one number for each column."""
    G = len(columns)
    if goal.ndim not in (1, 2) or goal.shape[-1] != G or not G:
        raise ValueError(f"a goal in columns {tuple(columns)} must be ({G},) or (B, {G}), got {tuple(goal.shape)}")
    if not bool(goal.isfinite().all()):
        raise ValueError(f"a goal must be finite, got {goal.tolist()}")


def distance(x0: Tensor, goal: Tensor, columns: Sequence[int]) -> Tensor:
    """Euclidean distance of each token's columns from the goal (len(columns),) or (B, len(columns)): (B, T)."""
    goal = goal.unsqueeze(-2) if goal.ndim == 2 else goal
    return (x0[..., list(columns)] - goal).square().sum(-1).add(1e-12).sqrt()


@dataclass(frozen=True)
class ReachAt:
    """Be at the goal at one token: the distance there."""

    goal: Tensor
    columns: Sequence[int]
    token: int

    def __post_init__(self) -> None:
        _check_goal(self.goal, self.columns)

    def __call__(self, x0: Tensor) -> Tensor:
        return distance(x0, self.goal, self.columns)[:, self.token]


@dataclass(frozen=True)
class ReachThroughout:
    """Be near the goal at every token: the mean distance, the paper's maze guidance.

    Greedy: it can stick in dead ends.
    """

    goal: Tensor
    columns: Sequence[int]

    def __post_init__(self) -> None:
        _check_goal(self.goal, self.columns)

    def __call__(self, x0: Tensor) -> Tensor:
        return distance(x0, self.goal, self.columns).mean(-1)


@dataclass(frozen=True)
class ReachAny:
    """Be at the goal at some token, no matter which: a soft minimum of the distance, ``softness`` in its units."""

    goal: Tensor
    columns: Sequence[int]
    softness: float = 0.2

    def __post_init__(self) -> None:
        _check_goal(self.goal, self.columns)
        if not 0 < self.softness < math.inf:
            raise ValueError(f"softness must be a finite number above 0, got {self.softness}")

    def __call__(self, x0: Tensor) -> Tensor:
        d = distance(x0, self.goal, self.columns)
        return -self.softness * torch.logsumexp(-d / self.softness, dim=-1)


@dataclass(frozen=True)
class ReachSoonest:
    """Be at the goal as early as possible: the expected number of tokens before the first arrival, as a share of T.

    A token within about ``radius`` of the goal has arrived; ``softness`` blurs the border so that a gradient exists.
    """

    goal: Tensor
    columns: Sequence[int]
    radius: float = 0.3
    softness: float = 0.3

    def __post_init__(self) -> None:
        _check_goal(self.goal, self.columns)
        if not (0 <= self.radius < math.inf and 0 < self.softness < math.inf):
            raise ValueError(
                f"radius must be finite and not negative, softness finite and above 0, got {self.radius} and {self.softness}"
            )

    def __call__(self, x0: Tensor) -> Tensor:
        d = distance(x0, self.goal, self.columns)
        away = torch.sigmoid((d - self.radius) / self.softness)
        return torch.cumprod(away, dim=-1).mean(-1)


@dataclass(frozen=True)
class StayIn:
    """Keep columns between ``low`` and ``high`` (len(columns),): the mean squared excess over the box."""

    low: Tensor
    high: Tensor
    columns: Sequence[int]

    def __post_init__(self) -> None:
        if not self.low.shape == self.high.shape == (len(self.columns),) or not bool((self.low <= self.high).all()):
            raise ValueError(
                f"low and high are ({len(self.columns)},) numbers, one for each column, low <= high, "
                f"got {self.low.tolist()} and {self.high.tolist()}"
            )

    def __call__(self, x0: Tensor) -> Tensor:
        x = x0[..., list(self.columns)]
        outside = (self.low - x).clamp(min=0) + (x - self.high).clamp(min=0)
        return outside.square().sum(-1).mean(-1)


@dataclass(frozen=True)
class LearnedReturn:
    """Seek a high return: minus what a learned value ``(x0 (B, T, C)) -> (B,)`` says of the tokens."""

    value: Callable[[Tensor], Tensor]

    def __call__(self, x0: Tensor) -> Tensor:
        return -self.value(x0)


@dataclass(frozen=True)
class WeightedSum:
    """Several guides at once: the sum of weight times cost."""

    terms: Sequence[tuple[float, Guide]]

    def __post_init__(self) -> None:
        weights = [weight for weight, _ in self.terms]
        if not weights or not all(map(math.isfinite, weights)):
            raise ValueError(f"a weighted sum needs one or more guides with finite weights, got the weights {weights}")

    def __call__(self, x0: Tensor) -> Tensor:
        return torch.stack([weight * cost_of(guide, x0) for weight, guide in self.terms]).sum(0)


def in_units(guide: Guide, denormalize: Callable[[Tensor], Tensor]) -> Guide:
    """A guide on tokens in recorded units, from tokens as the model sees them."""
    return lambda x0: guide(denormalize(x0))


@dataclass(frozen=True)
class Guidance:
    """A guide with its strength, and how the future that it judges is drawn.

    ``futures = 0`` is plain guidance: the cost of the one prediction from the tokens as they are. ``futures = N >= 1``
    is Monte Carlo guidance (Chen et al. 2024, sec. 3.3): the gradient of the mean cost over N sampled futures of the
    tokens that are still undecided (pure noise), so that a token is led by what may follow it and not by one draw. With
    ``future_steps = 1`` nothing is sampled: one step from pure noise is the network's mean, and a warning says so.

    Either is exact for a linear cost: it samples p(x) exp(-scale * cost). For a curved cost it is an approximation that
    takes a prediction for certain, and so pulls too hard while much is undecided.
    """

    guide: Guide
    scale: float = 1.0
    """Strength: how many times the cost's gradient is added to the score."""
    futures: SizeOrZero = 0
    """Number N of sampled futures, or 0 for plain guidance."""
    future_steps: Size = 1
    """Denoising steps that draw a future; 1 gives the network's mean, and only more give samples."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scale and self.futures and self.future_steps == 1:
            warnings.warn(
                f"guidance with futures={self.futures} and future_steps=1 draws no futures, because one step from pure noise "
                "gives the network's mean: set future_steps to 8 or so, or futures to 0",
                UserWarning,
                stacklevel=3,
            )

    def gradient(
        self,
        denoise: Denoiser,
        renoise: Renoiser,
        x: Tensor,
        k: Tensor,
        undecided: Tensor,
        levels: int,
        generator: torch.Generator,
    ) -> Tensor:
        """Gradient of the (mean) cost with respect to the noisy tokens x (B, T, C) at levels k (B, T): (B, T, C).

        ``undecided (B, T)`` marks the tokens whose noise is drawn afresh for each future. Where there are none, every
        future is the one prediction, and guidance is plain.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            if self.futures == 0 or not bool(undecided.any()):
                drawn = denoise(x, k).unsqueeze(0)
            else:
                drawn = sample_futures(
                    denoise, renoise, x, k, undecided, levels, self.futures, self.future_steps, generator
                )
        # One future at a time: a guide may hold a goal for each of the B sequences.
        leads = torch.stack([cost_gradient(self.guide, future, 1 / len(drawn)) for future in drawn])
        return torch.autograd.grad(drawn, x, leads)[0]


def sample_futures(
    denoise: Denoiser,
    renoise: Renoiser,
    x: Tensor,
    k: Tensor,
    undecided: Tensor,
    levels: int,
    futures: int,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Predicted clean tokens of N sampled futures, (N, B, T, C), differentiable in x.

    Decided tokens stay as they are, at their own levels; undecided ones start from fresh noise and fall from K to 0 in
    ``steps``.
    """
    N, B = futures, x.shape[0]
    x, k, undecided = (v.repeat(N, *(1,) * (v.ndim - 1)) for v in (x, k, undecided))
    fresh = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    x = torch.where(undecided.unsqueeze(-1), fresh, x)
    x0 = denoise(x, k)
    for step in range(1, steps):
        level = round(levels * (1 - step / steps))
        k_next = torch.where(undecided, level, k)
        x = renoise(x0, x, k, k_next)
        k = k_next
        x0 = denoise(x, k)
    return x0.unflatten(0, (N, B))
