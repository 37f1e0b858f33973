"""A plan that is kept between decisions: observe, shift, add noise, evaluate the network once, act.

In each decision the part of a plan that was played is cut off, and its first token becomes what was observed. Noise is added
to some variants of it around the worst step, as in search (`dfplan.planning.search`), and one network evaluation takes this
noise away. Of these and the plan as it was, the best by the planner's scores is kept. So a plan follows what happens, and
is improved in each decision. A plan that is kept is called alive. It shrinks as its goal, a known clean token, comes near:
variants are as long as what is left, or a token shorter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from dfplan.planning.ask import Ask
from dfplan.planning.choice import Score, choose, judge, tokens_of
from dfplan.planning.model import TrajectoryModel
from dfplan.planning.plan import Plan
from dfplan.planning.plan_config import PlanConfig
from dfplan.planning.search import again, found_faults, in_time, taken_back

CHANGES = (0, 0, -1, -1)
"""Lengths of the variants, in tokens beside what is left. The first one is the plan as it was."""


@dataclass
class Alive:
    """The plans that live, a row for each environment. It changes: `put` in plans, or `end` them."""

    tokens: Tensor
    """(B, T, C) normalized; T = the longest plan's length + 1."""
    lengths: Tensor
    """(B,) tokens after the present."""
    left: Tensor
    """(B,) tokens until the goal, which are no whole number while a token is being played; 0: no plan lives."""
    goal: Tensor
    """(B, G) to which they lead."""
    age: Tensor
    """(B,) decisions since they were drawn from noise."""

    @classmethod
    def start(cls, rows: int, model: TrajectoryModel) -> Alive:
        """No plan lives in any of the rows."""
        config, device = model.config, model.action_low.device
        tokens = torch.zeros(rows, config.future + 1, config.layout.width, device=device)
        goal = torch.full((rows, len(config.goal_columns)), torch.nan, device=device)
        lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        return cls(tokens, lengths, lengths.float(), goal, lengths.clone())

    def put(self, rows: Tensor, plan: Plan, goal: Tensor, left: Tensor | None = None) -> None:
        """Let plans live in these rows (R,): new ones, or, with what is `left` (R,) of them, those that moved on."""
        tokens = tokens_of(plan)
        self.tokens[rows, : tokens.shape[1]] = tokens.float()
        self.lengths[rows], self.goal[rows] = plan.lengths, goal
        self.left[rows] = plan.lengths.float() if left is None else left
        self.age[rows] = 0 if left is None else self.age[rows] + 1

    def end(self, rows: Tensor) -> None:
        """No plan lives in these rows (R,) any longer."""
        self.left[rows] = 0.0

    def lives(self, goal: Tensor) -> Tensor:
        """(B,) bool: where a plan to these goals (B, G) lives."""
        return (self.left > 0) & (self.goal == goal).all(1)


@torch.no_grad()
def advance(
    model: TrajectoryModel,
    alive: Alive,
    rows: Tensor,
    observation: Tensor,
    ask: Ask,
    config: PlanConfig,
    generator: Generator,
    played: float,
    scores: Mapping[str, Score],
) -> tuple[Plan, Tensor]:
    """The living plans of these rows (R,) as they go on from observations (R, observation_dim), and what is left of them, (R,).

    `played` is how many tokens of a plan are played in one decision. Plans lead to the goals (R, G) that are asked for. One
    evaluation of the network for all rows and lengths.
    """
    R, N, longest = len(rows), len(CHANGES), model.config.future
    lengths, before = alive.lengths[rows], alive.left[rows]
    left = (before - played).clamp(min=0.5)
    expected = left.round().long().clamp(1, longest)
    tried = (expected.unsqueeze(1) + torch.tensor(CHANGES, device=expected.device)).clamp(1, longest).flatten()
    passed = torch.minimum(played * lengths / before, lengths - 0.5 * lengths / before).clamp(min=0)
    each = [part.repeat_interleave(N, dim=0) for part in (alive.tokens[rows], lengths, passed)]
    tokens = in_time(each[0], each[1], tried, each[2])
    tokens = tokens[:, : int(tried.max()) + 1]
    tokens[:, 0] = model.config.layout.state_token(model.observation.normalize(observation)).repeat_interleave(N, dim=0)
    faults = found_faults(model, ask, config, tokens, tried, R, generator)
    k = taken_back(faults, tried, model.config.levels, generator)
    k[::N] = 0
    plans = again(model, observation, ask, config, generator, tokens, tried, k, steps=1)
    found = judge(scores, model, plans, ask, N)
    best = choose({name: score.view(R, N) for name, score in found.items()}, tried.float().view(R, N), config)
    index = torch.arange(R, device=best.device) * N + best
    return replace(plans, scores=found).rows(index), left + (tried[index] - expected)
