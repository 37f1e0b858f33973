"""How certain a plan is: the spread of other futures that end as it does, and when the world has left it.

A plan is one draw. Others with the same start, the same goal and the same length show how much is open at each of its tokens:
little in a corridor, much where there are several ways.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from dfplan.planning.ask import Ask
from dfplan.planning.choice import tokens_of
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.past import Past
from dfplan.planning.plan import Plan, hold_end
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.search import again


@torch.no_grad()
def with_spread(
    model: TrajectoryModel,
    plan: Plan,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: Generator,
    past: Past | None = None,
) -> Plan:
    """The plan with its `spread` (B, T): the deviation of `config.spread` futures, and its mean over tokens among the scores.

    It is the root of the summed variances of the columns by which steps are judged, in recorded units.
    """
    N, lengths = config.spread, plan.lengths.repeat_interleave(config.spread)
    tokens = tokens_of(plan).float().repeat_interleave(N, dim=0)
    k = torch.full(tokens.shape[:2], model.config.levels, device=tokens.device)
    drawn = again(model, observation, ask, config, generator, tokens, lengths, k, config.steps, past)
    places = drawn.observations[:, :, -1, list(model.config.judged)].unflatten(0, (-1, N))
    spread = hold_end(places.var(1, correction=0).sum(-1).sqrt(), plan.lengths)
    inside = torch.arange(spread.shape[1], device=spread.device) <= plan.lengths.unsqueeze(1)
    mean = (spread * inside).sum(1) / inside.sum(1)
    return replace(plan, spread=spread, scores={**plan.scores, "spread": mean})


def has_left(places: Tensor, path: Tensor, spread: Tensor, stride: int, spreads: float, least: float) -> Tensor:
    """(B,) bool: which places (B, D) are farther from their path (B, S, D) than `least` and so many spreads, by `spread` (B, T)
    at the nearest token. Tokens are `stride` steps of the path apart."""
    away, step = (path - places.unsqueeze(1)).norm(dim=-1).min(1)
    token = (step // stride).clamp(max=spread.shape[1] - 1).unsqueeze(1)
    return away > least + spreads * spread.gather(1, token)[:, 0]
