"""Trials: before one candidate is chosen, each is followed in several futures, in which chance decides as it did in the data.

A plan to a known goal shows what leads there if all goes well. Where chance decides the outcome of an action, the plan shows
the lucky one. The agent does not decide the outcome: it decides to follow the plan. So each candidate is played several times,
with actions of the follower and drawn outcomes of each step. The mean of the times counts, not the time of the lucky future.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfplan.planning.ask import Ask
from dfplan.planning.choice import tokens_of, worst_step
from dfplan.planning.execution import Following, by_inverse_dynamics, each_step
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.plan import Plan
from dfplan.planning.plan_config import PlanConfig

ARRIVED = 0.15
"""Distance from a plan's end, in normalized units, within which a follower has arrived."""
SLACK = 1.25
"""How much longer than planned a follower may take."""


@torch.no_grad()
def mean_time(
    model: TrajectoryModel,
    candidates: Plan,
    ask: Ask,
    each: int,
    *,
    config: PlanConfig,
    lookahead: int,
    speed: float,
    generator: torch.Generator,
) -> Tensor | None:
    """Mean time (B * N,), in tokens, after which a follower is at the end of each candidate, over `config.trials` futures.

    A future without an arrival counts as `config.lost` tokens. A candidate that is not plausible counts as its length plus
    `config.lost`. None if the model has no outcomes, plausibility or inverse dynamics, or if plans do not end at a goal.
    `lookahead`, `speed`: as of `dfplan.planning.execution.by_inverse_dynamics`.
    """
    ends_there = ask.goal is not None and "goal" not in model.config.condition
    if not (ends_there and config.trials and model.outcomes and model.plausibility and model.inverse):
        return None
    time = candidates.lengths + config.lost
    possible = worst_step(model, tokens_of(candidates), candidates.lengths) >= config.margin
    if not bool(possible.any()):
        return time
    stride, tried = model.config.layout.stride, candidates.rows(possible.nonzero().squeeze(1))
    path = each_step(tried.observations, stride, (tried.observations.shape[1] - 1) * stride)
    late = (SLACK * tried.lengths * stride / speed).repeat(config.trials)
    with torch.autocast(path.device.type, enabled=False):
        arrived = follow(model, path.float().repeat(config.trials, 1, 1), late, stride, lookahead, speed, generator)
    tokens = (arrived * speed / stride).where(arrived <= late, config.lost)
    time[possible] = tokens.view(config.trials, -1).mean(0)
    return time


def follow(
    model: TrajectoryModel,
    path: Tensor,
    late: Tensor,
    stride: int,
    lookahead: int,
    speed: float,
    generator: torch.Generator,
) -> Tensor:
    """Steps (R,) until a follower of each path (R, S + 1, observation_dim) is at its end; infinity if not within `late` (R,).

    Every `stride` steps, rows that have arrived or are late are left out.
    """
    columns, normalize, outcomes = list(model.config.judged), model.observation.normalize, model.outcomes
    assert outcomes is not None
    arrived = torch.full((len(path),), torch.inf, device=path.device)
    rows, observation, end = arrived.isinf().nonzero().squeeze(1), path[:, 0], normalize(path[:, -1])[:, columns]
    for begun in range(0, int(late.max()) + 1, stride):
        left = arrived[rows].isinf() & (late[rows] > begun)
        rows, observation = rows[left], observation[left]
        if not len(rows):
            break
        following = Following.start(len(rows), path.shape[1] - 1, path.shape[2], path.device)
        following.put(torch.arange(len(rows), device=path.device), path[rows], 0)
        for step in range(begun, begun + stride):
            following.clock[:] = step
            action = by_inverse_dynamics(model, observation, following, lookahead, speed, False)
            action = model.action.normalize(action.clamp(model.action_low, model.action_high))
            seen = outcomes.draw(normalize(observation), action, generator)
            there = (seen[:, columns] - end[rows]).norm(dim=1) <= ARRIVED
            arrived[rows] = arrived[rows].where(~there, arrived[rows].clamp(max=step + 1))
            observation = model.observation.denormalize(seen)
    return arrived
