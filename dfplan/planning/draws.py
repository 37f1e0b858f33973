"""Draws of noise levels for training, as they occur in planning: a known start, mostly a known goal, and tokens between.

These draws are this project's own. Those of the paper are in `dfplan.diffusion.levels`. A config names draws with weights, and
`Mixture` draws from all of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Generator, Tensor

from dfplan.diffusion.levels import (
    Draw,
    Drawn,
    independent,
    inpainted,
    next_token,
    no_goal,
    noisy,
    shared,
    teacher_forced,
    unknown,
)


def goal_ramp(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """A clean start, a clean goal h tokens ahead, a ramp of levels between: what occurs in planning.

    h is uniform on 1..T-1; tokens beyond it are unknown (pure noise, not counted). Between the ends the level is
    `offset + slope * t`, clipped to 0..K: slope 0, half of the draws, is full-sequence sampling; a positive slope is a
    row of the zig-zag matrix. Where the goal is unknown (`known_goals`), h only bounds the sequence.
    """
    horizon = draw_horizons(batch, tokens, generator, longest)
    k = _ramps(horizon, tokens, K, generator)
    return between(horizon, known_goals(horizon, tokens, generator), k, K)


def ramp(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """The levels of `goal_ramp` without its ends: what occurs while a sequence is sampled from its past alone."""
    k = _ramps(torch.full((batch, 1), tokens - 1, device=generator.device), tokens, K, generator)
    return Drawn(k, k > 0, no_goal(k))


def from_start(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """`independent` after a clean start, as in the paper, where the first latent encodes the clean observation."""
    drawn = independent(batch, tokens, K, generator)
    return inpainted(drawn, _position(drawn.k) == 0)


def futures(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """A clean start, the tokens up to a random one at one level, mostly clean, and all later ones at another: what occurs
    while futures of decided tokens are drawn (`dfplan.diffusion.monte_carlo`).
    """
    near = (2 * noisy(batch, K, generator) - K).clamp(min=0)
    far = noisy(batch, K, generator).expand(batch, tokens)
    k = torch.where(_position(far) < draw_horizons(batch, tokens, generator), near, far)
    return inpainted(Drawn(k, k > 0, no_goal(k)), _position(k) == 0)


def shared_to_goal(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """`shared` between a clean start and, mostly, a clean goal: full-sequence diffusion with inpainted ends (Janner et al.
    2022, sec. 3.2). An ablation of `goal_ramp`: the same is known, but all unknown tokens are equally uncertain.
    """
    horizon = draw_horizons(batch, tokens, generator, longest)
    known = known_goals(horizon, tokens, generator)
    return between(horizon, known, noisy(batch, K, generator).expand(batch, tokens), K)


def next_token_to_goal(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """`next_token` between a clean start and, mostly, a clean goal: the other ablation, by teacher forcing."""
    horizon = draw_horizons(batch, tokens, generator, longest)
    known = known_goals(horizon, tokens, generator)
    now = 1 + (_uniform(batch, generator) * horizon).long().clamp(max=horizon - 1)
    drawn = between(horizon, known, teacher_forced(now, tokens, K, generator), K)
    return drawn._replace(counted=drawn.counted & (_position(drawn.k) == now))


def draw_horizons(batch: int, tokens: int, generator: Generator, longest: Tensor | None = None) -> Tensor:
    """The token h at which each sequence ends, uniform on 1..longest: (B, 1) int64."""
    last = torch.tensor(tokens - 1, device=generator.device) if longest is None else longest
    return 1 + (_uniform(batch, generator) * last).long().clamp(max=(last - 1).clamp(min=0))


def known_goals(horizon: Tensor, tokens: int, generator: Generator) -> Tensor:
    """(B, T) bool: in three quarters of the sequences the token at `horizon` (B, 1) is known."""
    position = torch.arange(tokens, device=generator.device)
    return (position == horizon) & (_uniform(len(horizon), generator) < 0.75)


def between(horizon: Tensor, goal: Tensor, k: Tensor, K: int) -> Drawn:
    """Levels k (B, T), but the start is clean, and tokens beyond the horizon (B, 1) are unknown; `goal` (B, T) says which
    tokens stand for a goal.
    """
    start, beyond = _position(k) == 0, _position(k) > horizon
    k = torch.where(start, 0, k)
    return unknown(Drawn(k, k > 0, goal), beyond, K)


def whole_goals(drawn: Drawn) -> Drawn:
    """Goals are clean tokens, with all that they leave open filled in: one level for each token, as in the paper."""
    return inpainted(drawn, drawn.goal)


def partial_goals(drawn: Drawn, columns: Tensor) -> Drawn:
    """Of goals only the columns where `columns` (C,) is True are clean; the others are as uncertain as the tokens around them.

    Levels and counted become (B, T, C).
    """
    shape = (*drawn.k.shape, len(columns))
    k, counted = (part.unsqueeze(-1).expand(shape) for part in (drawn.k, drawn.counted))
    return inpainted(Drawn(k, counted, drawn.goal), drawn.goal.unsqueeze(-1) & columns)


def unknown_padding(drawn: Drawn, valid: Tensor, K: int) -> Drawn:
    """Tokens where `valid` (B, T) is False are unknown, and no goals."""
    return unknown(drawn, ~valid, K)._replace(goal=drawn.goal & valid)


def _ramps(horizon: Tensor, tokens: int, K: int, generator: Generator) -> Tensor:
    """Levels (B, T) that rise evenly: flat ones in half of the draws, else rows of a zig-zag matrix up to `horizon` (B, 1)."""
    slope = (2 * _uniform(len(horizon), generator) - 1).clamp(min=0) * 4 * K / tokens
    rise = slope * horizon
    offset = _uniform(len(horizon), generator) * (K + rise) - rise
    return (offset + slope * torch.arange(tokens, device=generator.device)).ceil().clamp(0, K).long()


def _position(k: Tensor) -> Tensor:
    return torch.arange(k.shape[1], device=k.device)


def _uniform(batch: int, generator: Generator) -> Tensor:
    """(batch, 1) numbers in [0, 1): float32, whatever torch's default is, because its draws are others."""
    return torch.rand((batch, 1), generator=generator, device=generator.device, dtype=torch.float32)


_TO_GOAL: tuple[Any, ...] = (goal_ramp, shared_to_goal, next_token_to_goal)
_ALL: tuple[Any, ...] = (independent, shared, next_token, ramp, from_start, futures, *_TO_GOAL)
DRAWS: Mapping[str, Draw] = {draw.__name__: draw for draw in _ALL}
"""The draws that a config can name."""
TO_GOAL = frozenset(draw.__name__ for draw in _TO_GOAL)
"""Draws with goal tokens: models trained by one of them have seen goals as planning gives them."""


@dataclass(frozen=True)
class Mixture:
    """A draw that splits each batch between named draws in proportion to their weights.

    The split is by position in the batch (batches are already random), the last name takes the rest. Raises ValueError
    for names that are not in `DRAWS`, and for weights that are not positive and finite.
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        foreign = sorted(set(self.weights) - set(DRAWS))
        if foreign or not self.weights:
            raise ValueError(f"unknown level draws {foreign}: expected some of {sorted(DRAWS)} with weights")
        if not all(0 < weight < math.inf for weight in self.weights.values()):
            raise ValueError(f"weights of level draws must be positive and finite, got {dict(self.weights)}")

    def __call__(self, batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
        """Draw levels as the functions of `DRAWS` do, each for its share of the batch."""
        total = sum(self.weights.values())
        ends = [round(batch * share / total) for share in accumulate(self.weights.values())]
        shares = zip(self.weights, pairwise([0, *ends]), strict=True)
        parts = [
            DRAWS[name](end - start, tokens, K, generator, None if longest is None else longest[start:end])
            for name, (start, end) in shares
            if end > start
        ]
        return Drawn(*(torch.cat(part) for part in zip(*parts, strict=True)))
