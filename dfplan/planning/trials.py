"""Trials: candidates are followed in futures, in which chance decides as it did in the data, before one is chosen.

A plan to a known goal is what leads there if all goes well: where chance decides what an action leads to, the plan shows the
lucky outcome. What the agent decides is that it follows the plan. So the follower and learned outcomes of each step play it
through, several times, and the mean of the times counts, not the time of the lucky one.
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

    A future without an arrival counts `config.lost` tokens, and a candidate that is not plausible as many more than it has.
    None where the model has no outcomes, plausibility or inverse dynamics, and where plans do not end at a goal. `lookahead`,
    `speed`: as of `dfplan.planning.execution.by_inverse_dynamics`.
    """
    ends_there = ask.goal is not None and "goal" not in model.config.condition
    if not (ends_there and config.trials and model.outcomes and model.plausibility and model.inverse):
        return None
    time = candidates.lengths + config.lost
    possible = worst_step(model, tokens_of(candidates), candidates.lengths) >= config.margin
    if not bool(possible.any()):
        return time
    stride, tried = model.config.layout.stride, candidates.rows(possible.nonzero().squeeze(1))
    steps = int(tried.lengths.max()) * stride
    path = each_step(tried.observations, stride, steps)
    with torch.autocast(path.device.type, enabled=False):
        arrived = follow(model, path, tried.lengths, config.trials, lookahead, speed, generator)
    late = SLACK * tried.lengths * stride / speed
    tokens = (arrived * speed / stride).where(arrived <= late, config.lost)
    time[possible] = tokens.mean(0)
    return time


def follow(
    model: TrajectoryModel,
    path: Tensor,
    lengths: Tensor,
    trials: int,
    lookahead: int,
    speed: float,
    generator: torch.Generator,
) -> Tensor:
    """Steps (trials, R) until a follower of each path (R, S + 1, observation_dim) is at its end; infinity for never."""
    R, columns, normalize = len(path), list(model.config.judged), model.observation.normalize
    rows = torch.arange(trials * R, device=path.device)
    following = Following.start(len(rows), path.shape[1] - 1, path.shape[2], path.device)
    following.put(rows, path.float().repeat(trials, 1, 1), lengths.repeat(trials))
    observation, end = following.path[:, 0], normalize(following.path[:, -1])[:, columns]
    arrived = torch.full((len(rows),), torch.inf, device=path.device)
    for step in range(1, int(SLACK * (path.shape[1] - 1) / speed) + 1):
        action = by_inverse_dynamics(model, observation, following, lookahead, speed, False)
        action = model.action.normalize(action.clamp(model.action_low, model.action_high))
        assert model.outcomes is not None
        seen = model.outcomes.draw(normalize(observation), action, generator)
        arrived = arrived.where(~((seen[:, columns] - end).norm(dim=1) <= ARRIVED), arrived.clamp(max=step))
        if bool(arrived.isfinite().all()):
            break
        observation = model.observation.denormalize(seen)
        following.clock += 1
    return arrived.view(trials, R)
