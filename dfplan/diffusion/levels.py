"""How training draws the noise level of every token.

Diffusion Forcing is the choice of levels, not of network: independent levels for each token (Chen et al. 2024,
Algorithm 1). The paper's baselines are the same network and loss with other draws. Every draw has one face,
``draw(batch, tokens, levels, generator) -> Levels``, so that a mixture of them is again a draw.
Not to be confused with `dfplan.diffusion.matrices`, which moves levels down while sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Levels(NamedTuple):
    """What a draw says of each token."""

    k: Tensor
    """(B, T) int64: noise levels in 0..K."""
    counted: Tensor
    """(B, T) bool: the tokens that the loss counts."""
    goal: Tensor
    """(B, T) bool: clean tokens that stand for a goal. Of these only the closing observation is known, as in a plan."""


Draw = Callable[[int, int, int, torch.Generator], Levels]


def independent(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """Each token's level uniform on 0..K, independently: Algorithm 1."""
    k = torch.randint(0, levels + 1, (batch, tokens), generator=generator, device=generator.device)
    return Levels(k, k > 0, no_goal(k))


def shared(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """One level for the whole sequence: the full-sequence diffusion baseline."""
    k = torch.randint(1, levels + 1, (batch, 1), generator=generator, device=generator.device).expand(batch, tokens)
    return Levels(k.contiguous(), torch.ones_like(k, dtype=torch.bool), no_goal(k))


def shared_from_start(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """One level for all tokens but the first, which is clean: full-sequence diffusion that knows where it starts and
    nothing of where it ends, as planners that choose among samples need it.
    """
    drawn = shared(batch, tokens, levels, generator)
    drawn.k[:, 0], drawn.counted[:, 0] = 0, False
    return drawn


def next_token(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """Clean past, one noisy token, and a future that is unknown: teacher-forced next-token diffusion, the baseline.

    Unknown tokens are pure noise, so that a bidirectional network cannot look at them, and are not counted.
    """
    position = torch.arange(tokens, device=generator.device)
    now = torch.randint(0, tokens, (batch, 1), generator=generator, device=generator.device)
    noisy = torch.randint(1, levels + 1, (batch, 1), generator=generator, device=generator.device)
    k = torch.where(position < now, 0, torch.where(position == now, noisy, levels))
    return Levels(k, position == now, no_goal(k))


def goal_ramp(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """The levels that planning to a goal meets: a clean start, a clean goal h tokens ahead, a ramp of levels between.

    h is uniform on 1..T-1; tokens beyond it are unknown (pure noise, not counted). Between the ends the level is
    ``offset + slope * t``, clipped to 0..K: slope 0, half of the draws, is full-sequence sampling; a positive slope is
    a row of the zig-zag matrix. In a quarter of the sequences the goal is unknown and h only bounds the sequence.
    """
    position = torch.arange(tokens, device=generator.device)
    horizon = 1 + (_uniform(batch, generator) * (tokens - 1)).long().clamp(max=max(tokens - 2, 0))
    slope = (2 * _uniform(batch, generator) - 1).clamp(min=0) * 4 * levels / tokens
    rise = slope * horizon
    offset = _uniform(batch, generator) * (levels + rise) - rise
    k = (offset + slope * position).ceil().clamp(0, levels).long()
    known = (position == 0) | ((position == horizon) & (_uniform(batch, generator) < 0.75))
    return between(Ends(horizon, known), k, levels)


def shared_to_goal(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """One level for all unknown tokens between a clean start and, mostly, a clean goal: full-sequence diffusion with
    inpainted ends (Janner et al. 2022, sec. 3.2). The ablation of `goal_ramp` and `independent`: the same knowledge,
    but no token may be surer than another.
    """
    ends = known_ends(batch, tokens, generator)
    k = torch.randint(1, levels + 1, (batch, 1), generator=generator, device=generator.device).expand(batch, tokens)
    return between(ends, k, levels)


def next_token_to_goal(batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
    """`next_token` between a clean start and, mostly, a clean goal: a clean past, one noisy token, an unknown future.

    Teacher-forced next-token diffusion that is told the goal, the ablation of `goal_ramp` and `independent`.
    """
    ends = known_ends(batch, tokens, generator)
    position = torch.arange(tokens, device=generator.device)
    share = _uniform(batch, generator)
    now = 1 + (share * ends.horizon).long().clamp(max=ends.horizon - 1)
    noisy = torch.randint(1, levels + 1, (batch, 1), generator=generator, device=generator.device)
    k = torch.where(position < now, 0, torch.where(position == now, noisy, levels))
    drawn = between(ends, k, levels)
    return drawn._replace(counted=drawn.counted & (position == now))


def _uniform(batch: int, generator: torch.Generator) -> Tensor:
    """(batch, 1) numbers in [0, 1): float32, whatever torch's default is, because its draws are others."""
    return torch.rand((batch, 1), generator=generator, device=generator.device, dtype=torch.float32)


class Ends(NamedTuple):
    """What a plan to a goal knows: horizon (B, 1), the goal's token, and known (B, T) bool, start and given goals."""

    horizon: Tensor
    known: Tensor


def known_ends(batch: int, tokens: int, generator: torch.Generator) -> Ends:
    """Horizons uniform on 1..T-1; the start is known, and in three quarters of the sequences so is the goal."""
    position = torch.arange(tokens, device=generator.device)
    horizon = 1 + (_uniform(batch, generator) * (tokens - 1)).long().clamp(max=max(tokens - 2, 0))
    return Ends(horizon, (position == 0) | ((position == horizon) & (_uniform(batch, generator) < 0.75)))


def between(ends: Ends, k: Tensor, levels: int) -> Levels:
    """Levels k (B, T) where tokens between the ends take theirs, known tokens are clean, and those beyond the horizon
    are unknown (pure noise, not counted)."""
    k = torch.where(ends.known, 0, k)
    beyond = torch.arange(k.shape[1], device=k.device) > ends.horizon
    k = torch.where(beyond, levels, k)
    return Levels(k, (k > 0) & ~beyond, ends.known & (torch.arange(k.shape[1], device=k.device) > 0))


def no_goal(k: Tensor) -> Tensor:
    """(B, T) False: none of these tokens stands for a goal."""
    return torch.zeros_like(k, dtype=torch.bool)


TO_GOAL = frozenset({"goal_ramp", "shared_to_goal", "next_token_to_goal"})
"""Draws with goal tokens: a model trained by one of them has been shown goals as planning shows them."""

DRAWS: Mapping[str, Draw] = {
    "independent": independent,
    "shared": shared,
    "shared_from_start": shared_from_start,
    "next_token": next_token,
    "goal_ramp": goal_ramp,
    "shared_to_goal": shared_to_goal,
    "next_token_to_goal": next_token_to_goal,
}


@dataclass(frozen=True)
class Mixture:
    """A draw that splits each batch between named draws in proportion to their weights.

    The split is by position in the batch (batches are already random), the last name takes the rest. Raises ValueError
    for names that are not in `DRAWS`, and for weights that are not positive and finite.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(DRAWS))
        if unknown or not self.weights:
            raise ValueError(f"unknown level draws {unknown}: expected some of {sorted(DRAWS)} with weights")
        if not all(0 < weight < math.inf for weight in self.weights.values()):
            raise ValueError(f"weights of level draws must be positive and finite, got {dict(self.weights)}")

    def __call__(self, batch: int, tokens: int, levels: int, generator: torch.Generator) -> Levels:
        total = sum(self.weights.values())
        parts, start, share = [], 0, 0.0
        for name, weight in self.weights.items():
            share += weight
            end = round(batch * share / total)
            if end > start:
                parts.append(DRAWS[name](end - start, tokens, levels, generator))
            start = max(start, end)
        return Levels(*(torch.cat(part) for part in zip(*parts, strict=True)))


def unknown_padding(drawn: Levels, valid: Tensor, levels: int) -> Levels:
    """Tokens where ``valid (B, T)`` is False become pure noise and are not counted: padding carries no information."""
    return Levels(torch.where(valid, drawn.k, levels), drawn.counted & valid, drawn.goal & valid)


def inpainted(drawn: Levels, known: Tensor) -> Levels:
    """Tokens where ``known`` (T,) or (B, T) is True become clean and are not counted: a plan is drawn around them
    (Janner et al. 2022, sec. 3.2). The others keep their levels; with `shared`, this is how Diffuser is trained."""
    return drawn._replace(k=torch.where(known, 0, drawn.k), counted=drawn.counted & ~known)
