"""How training draws the noise level of every token.

Diffusion Forcing is a choice of levels, not of a network: independent levels for each token (Chen et al. 2024,
Algorithm 1). The paper's baselines are the same network and loss with other draws. A draw is a function
`draw(batch, tokens, K, generator, longest) -> Drawn`, and a mixture of draws is again one; `longest` (B, 1) is the last token
of each sequence that may be a goal, T - 1 without it. Not to be confused with scheduling matrices
(`dfplan.diffusion.matrices`), which lower the levels while sampling.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor


class Drawn(NamedTuple):
    """Levels k in 0..K, int64, and `counted`, what of it the loss counts: (B, T), or (B, T, C) where columns have their own.

    `goal` (B, T) marks the tokens that stand for a goal, as in a plan; their k is the level of what the goal leaves open, until
    `whole_goals` or `partial_goals` makes the goal known.
    """

    k: Tensor
    counted: Tensor
    goal: Tensor


class Draw(Protocol):
    """Draws levels of `batch` sequences of `tokens` tokens."""

    def __call__(self, batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
        """Levels in 0..K."""


def independent(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """Each token's level uniform on 0..K, independently: Algorithm 1."""
    k = torch.randint(0, K + 1, (batch, tokens), generator=generator, device=generator.device)
    return Drawn(k, k > 0, no_goal(k))


def shared(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """One level, uniform on 1..K, for the whole sequence: full-sequence diffusion, the paper's baseline."""
    k = _noisy(batch, K, generator).expand(batch, tokens).contiguous()
    return Drawn(k, torch.ones_like(k, dtype=torch.bool), no_goal(k))


def shared_from_start(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """`shared` beyond a clean start, for planners that choose among samples (Ajay et al. 2023; Lu et al. 2025)."""
    drawn = shared(batch, tokens, K, generator)
    return inpainted(drawn, _position(drawn.k) == 0)


def next_token(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """A clean past, one noisy token, and an unknown future: teacher-forced next-token diffusion, the paper's baseline.
    Unknown tokens are pure noise, so that a bidirectional network cannot see them, and are not counted.
    """
    now = torch.randint(0, tokens, (batch, 1), generator=generator, device=generator.device)
    k = _teacher_forced(now, tokens, K, generator)
    return Drawn(k, _position(k) == now, no_goal(k))


def goal_ramp(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """A clean start, a clean goal h tokens ahead, a ramp of levels between: what occurs in planning. This project's own.

    h is uniform on 1..T-1; tokens beyond it are unknown (pure noise, not counted). Between the ends the level is
    `offset + slope * t`, clipped to 0..K: slope 0, half of the draws, is full-sequence sampling; a positive slope is a
    row of the zig-zag matrix. Where the goal is unknown (`known_ends`), h only bounds the sequence.
    """
    horizon = draw_horizons(batch, tokens, generator, longest)
    k = _ramps(horizon, tokens, K, generator)
    return between(horizon, known_ends(horizon, tokens, generator), k, K)


def ramp(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """The levels of `goal_ramp` without its ends: what occurs while a sequence is sampled from its past alone. Our own."""
    k = _ramps(torch.full((batch, 1), tokens - 1, device=generator.device), tokens, K, generator)
    return Drawn(k, k > 0, no_goal(k))


def futures(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """A clean start, the tokens up to a random one at one level, mostly clean, and all later ones at another: what occurs
    while futures of decided tokens are drawn (`dfplan.diffusion.monte_carlo`). This project's own.
    """
    near = (2 * _noisy(batch, K, generator) - K).clamp(min=0)
    far = _noisy(batch, K, generator).expand(batch, tokens)
    k = torch.where(_position(far) < draw_horizons(batch, tokens, generator), near, far)
    return inpainted(Drawn(k, k > 0, no_goal(k)), _position(k) == 0)


def shared_to_goal(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """`shared` between a clean start and, mostly, a clean goal: full-sequence diffusion with inpainted ends (Janner et al.
    2022, sec. 3.2). An ablation of `goal_ramp`: the same is known, but all unknown tokens are equally uncertain.
    """
    horizon = draw_horizons(batch, tokens, generator, longest)
    known = known_ends(horizon, tokens, generator)
    return between(horizon, known, _noisy(batch, K, generator).expand(batch, tokens), K)


def next_token_to_goal(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """`next_token` between a clean start and, mostly, a clean goal: the other ablation, by teacher forcing."""
    horizon = draw_horizons(batch, tokens, generator, longest)
    known = known_ends(horizon, tokens, generator)
    now = 1 + (_uniform(batch, generator) * horizon).long().clamp(max=horizon - 1)
    drawn = between(horizon, known, _teacher_forced(now, tokens, K, generator), K)
    return drawn._replace(counted=drawn.counted & (_position(drawn.k) == now))


def draw_horizons(batch: int, tokens: int, generator: Generator, longest: Tensor | None = None) -> Tensor:
    """The token h at which each sequence ends, uniform on 1..longest: (B, 1) int64."""
    last = torch.tensor(tokens - 1, device=generator.device) if longest is None else longest
    return 1 + (_uniform(batch, generator) * last).long().clamp(max=(last - 1).clamp(min=0))


def known_ends(horizon: Tensor, tokens: int, generator: Generator) -> Tensor:
    """(B, T) bool: the start is known, and in three quarters of the sequences so is the token at `horizon` (B, 1)."""
    position = torch.arange(tokens, device=generator.device)
    return (position == 0) | ((position == horizon) & (_uniform(len(horizon), generator) < 0.75))


def between(horizon: Tensor, known: Tensor, k: Tensor, K: int) -> Drawn:
    """Levels k (B, T), but the start is clean, other known tokens (B, T) are goals, and tokens beyond the horizon (B, 1) are
    unknown (pure noise, not counted).
    """
    start, beyond = _position(k) == 0, _position(k) > horizon
    k = torch.where(beyond, K, torch.where(start & known, 0, k))
    return Drawn(k, (k > 0) & ~beyond, known & ~start)


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
    """Tokens where `valid` (B, T) is False become pure noise and are not counted: padding carries no information."""
    return Drawn(torch.where(valid, drawn.k, K), drawn.counted & valid, drawn.goal & valid)


def inpainted(drawn: Drawn, known: Tensor) -> Drawn:
    """What `known` marks, in a shape that broadcasts with k, becomes clean and is not counted: a plan is drawn around it
    (Janner et al. 2022, sec. 3.2). The others keep their levels; with `shared`, this is how Diffuser is trained.
    """
    return drawn._replace(k=torch.where(known, 0, drawn.k), counted=drawn.counted & ~known)


def no_goal(k: Tensor) -> Tensor:
    """(B, T) False: none of these tokens stands for a goal."""
    return torch.zeros_like(k, dtype=torch.bool)


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


def _noisy(batch: int, K: int, generator: Generator) -> Tensor:
    """(batch, 1) levels uniform on 1..K."""
    return torch.randint(1, K + 1, (batch, 1), generator=generator, device=generator.device)


def _teacher_forced(now: Tensor, tokens: int, K: int, generator: Generator) -> Tensor:
    """Levels (B, T): clean before token `now` (B, 1), noisy at it, pure noise after it."""
    position = torch.arange(tokens, device=now.device)
    return torch.where(position < now, 0, torch.where(position == now, _noisy(len(now), K, generator), K))


_TO_GOAL: tuple[Any, ...] = (goal_ramp, shared_to_goal, next_token_to_goal)
_ALL: tuple[Any, ...] = (independent, shared, shared_from_start, next_token, ramp, futures, *_TO_GOAL)
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
        unknown = sorted(set(self.weights) - set(DRAWS))
        if unknown or not self.weights:
            raise ValueError(f"unknown level draws {unknown}: expected some of {sorted(DRAWS)} with weights")
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
