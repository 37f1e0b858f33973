"""How training draws the noise level of every token.

Diffusion Forcing is a choice of levels, not of a network: independent levels for each token (Chen et al. 2024,
Algorithm 1). The paper's baselines are the same network and loss with other draws. A draw is a function
`draw(batch, tokens, K, generator, longest) -> Drawn`. Draws that hold a goal are this project's own: `dfplan.planning.draws`.
Not to be confused with scheduling matrices (`dfplan.diffusion.matrices`), which lower the levels while sampling.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Drawn(NamedTuple):
    """Levels k in 0..K, int64, and `counted`, what of it the loss counts: (B, T), or (B, T, C) where columns have their own.

    `goal` (B, T) marks the tokens that stand for a goal in a draw of planning's; the draws here have none.
    """

    k: Tensor
    counted: Tensor
    goal: Tensor


Draw = Callable[..., Drawn]
"""`draw(batch, tokens, K, generator, longest)`; `longest` (B, 1): the last token of each sequence that may be a goal."""


def independent(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """Each token's level uniform on 0..K, independently: Algorithm 1."""
    k = torch.randint(0, K + 1, (batch, tokens), generator=generator, device=generator.device)
    return Drawn(k, k > 0, no_goal(k))


def shared(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """One level, uniform on 1..K, for the whole sequence: full-sequence diffusion, the paper's baseline."""
    k = noisy(batch, K, generator).expand(batch, tokens).contiguous()
    return Drawn(k, torch.ones_like(k, dtype=torch.bool), no_goal(k))


def next_token(batch: int, tokens: int, K: int, generator: Generator, longest: Tensor | None = None) -> Drawn:
    """A clean past, one noisy token, and an unknown future: teacher-forced next-token diffusion, the paper's baseline.
    Unknown tokens are pure noise, so that a bidirectional network cannot see them, and are not counted.
    """
    now = torch.randint(0, tokens, (batch, 1), generator=generator, device=generator.device)
    k = teacher_forced(now, tokens, K, generator)
    return Drawn(k, torch.arange(tokens, device=k.device) == now, no_goal(k))


def noisy(batch: int, K: int, generator: Generator) -> Tensor:
    """(batch, 1) levels uniform on 1..K."""
    return torch.randint(1, K + 1, (batch, 1), generator=generator, device=generator.device)


def teacher_forced(now: Tensor, tokens: int, K: int, generator: Generator) -> Tensor:
    """Levels (B, T): clean before token `now` (B, 1), noisy at it, pure noise after it."""
    position = torch.arange(tokens, device=now.device)
    return torch.where(position < now, 0, torch.where(position == now, noisy(len(now), K, generator), K))


def inpainted(drawn: Drawn, known: Tensor) -> Drawn:
    """What `known` marks, in a shape that broadcasts with k, becomes clean and is not counted: a plan is drawn around it
    (Janner et al. 2022, sec. 3.2). The others keep their levels; with `shared`, this is how Diffuser is trained.
    """
    return drawn._replace(k=torch.where(known, 0, drawn.k), counted=drawn.counted & ~known)


def unknown(drawn: Drawn, where: Tensor, K: int) -> Drawn:
    """What `where` marks, in a shape that broadcasts with k, is pure noise and not counted: it carries no information."""
    return drawn._replace(k=torch.where(where, K, drawn.k), counted=drawn.counted & ~where)


def no_goal(k: Tensor) -> Tensor:
    """(B, T) False: none of these tokens stands for a goal."""
    return torch.zeros_like(k, dtype=torch.bool)
