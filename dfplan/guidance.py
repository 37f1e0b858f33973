"""Guides: costs on the predicted clean tokens that steer sampling, and Monte Carlo guidance.

A guide is a function ``(x0 (B, T, C)) -> cost (B,)``, lower is better, differentiable in x0. Guidance moves the noise
that the network predicts by ``scale * sqrt(1 - alpha_bar_k) * grad cost`` (Dhariwal & Nichol 2021, Algorithm 2): the
step scales with the noise of the level at which it is applied. A guide is not a constraint: a token that must have a
value is a known token (`dfplan.sampler.Known`).
Guides here see normalised tokens; `in_units` wraps one written in recorded units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Guide = Callable[[Tensor], Tensor]
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""Noisy tokens (B, T, C) and levels (B, T) to predicted clean tokens (B, T, C)."""
Renoiser = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""``(x0, x, k, k_next) -> x_next``: one deterministic denoising step."""


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

    def __call__(self, x0: Tensor) -> Tensor:
        return distance(x0, self.goal, self.columns)[:, self.token]


@dataclass(frozen=True)
class ReachThroughout:
    """Be near the goal at every token: the mean distance, the paper's maze guidance.

    Greedy: it can stick in dead ends.
    """

    goal: Tensor
    columns: Sequence[int]

    def __call__(self, x0: Tensor) -> Tensor:
        return distance(x0, self.goal, self.columns).mean(-1)


@dataclass(frozen=True)
class ReachAny:
    """Be at the goal at some token, no matter which: a soft minimum of the distance, ``softness`` in its units."""

    goal: Tensor
    columns: Sequence[int]
    softness: float = 0.2

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

    def __call__(self, x0: Tensor) -> Tensor:
        return torch.stack([weight * guide(x0) for weight, guide in self.terms]).sum(0)


def in_units(guide: Guide, denormalize: Callable[[Tensor], Tensor]) -> Guide:
    """A guide on tokens in recorded units, from tokens as the model sees them."""
    return lambda x0: guide(denormalize(x0))


@dataclass(frozen=True)
class Guidance:
    """A guide with its strength, and how the future that it judges is drawn.

    ``futures = 0`` is plain guidance: the cost of the one prediction from the tokens as they are. ``futures = N >= 1``
    is Monte Carlo guidance (Chen et al. 2024, sec. 3.3): the gradient of the mean cost over N sampled futures of the
    tokens that are still undecided (pure noise), so that a token is led by what may follow it and not by one draw.

    Either is exact for a linear cost: it samples p(x) exp(-scale * cost). For a curved cost it is an approximation that
    takes a prediction for certain, and so pulls too hard while much is undecided.
    """

    guide: Guide
    scale: float = 1.0
    """Strength: how many times the cost's gradient is added to the score."""
    futures: int = 0
    """Number N of sampled futures, or 0 for plain guidance."""
    future_steps: int = 1
    """Denoising steps that draw a future; 1 is the network's mean given fresh noise, more give sharper samples."""

    def __post_init__(self) -> None:
        if self.futures < 0 or self.future_steps < 1:
            raise ValueError(f"futures must be >= 0 and future_steps >= 1, got {self.futures} and {self.future_steps}")

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
                cost = self.guide(denoise(x, k)).sum()
            else:
                drawn = sample_futures(
                    denoise, renoise, x, k, undecided, levels, self.futures, self.future_steps, generator
                )
                # One future at a time: a guide may hold a goal for each of the B sequences.
                cost = torch.stack([self.guide(future).sum() for future in drawn]).mean()
            return torch.autograd.grad(cost, x)[0]


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
