"""From a plan and a clock to an action: plans are laid out step by step, and followed row by row.

A plan's tokens are `stride` environment steps apart; its path has an observation for each of these steps. Actions come from the
path by learned inverse dynamics (`by_inverse_dynamics`) or a PD controller (`by_pd`), or are those that were diffused with the
plan (`diffused_action`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from dfplan.data.statistics import Normalizer
from dfplan.models import InverseDynamics


class Tracks(Protocol):
    """A learner whose inverse dynamics tracks plans."""

    observation: Normalizer
    action: Normalizer
    config: Any

    @property
    def inverse(self) -> InverseDynamics | None:
        """The network; None where it was not learned."""


@dataclass
class Following:
    """The plans that are followed, a row for each environment. It changes: `put` in new plans, count with `clock`."""

    path: Tensor
    """(B, S + 1, observation_dim): one observation for each planned step; a plan's end repeats."""
    actions: Tensor | None
    """(B, S, action_dim) planned actions, of planners that give any."""
    lengths: Tensor
    """(B,) tokens after the start."""
    possible: Tensor
    """(B,) bool: whether the plan's steps were found plausible; False before there is a plan."""
    clock: Tensor
    """(B,) int64: environment steps since the plan was made."""
    begins: Tensor
    """(B,) bool: rows in which an episode begins, and no plan of it was made yet."""

    @classmethod
    def start(cls, rows: int, steps: int, observation_dim: int, device: torch.device) -> Following:
        """Nothing to follow yet: an episode begins in each of the rows. Plans will have up to `steps` steps."""
        path = torch.zeros(rows, steps + 1, observation_dim, dtype=torch.float32, device=device)
        lengths, clock = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(2))
        return cls(path, None, lengths, clock > 0, clock, clock == 0)

    def due(self, every: int) -> Tensor:
        """Rows (R,) that need a plan: those that begin, and those whose plan is `every` steps old; 0: the others never do."""
        late = self.clock >= every if every else torch.zeros_like(self.begins)
        return (self.begins | late).nonzero().squeeze(1)

    def put(
        self,
        rows: Tensor,
        path: Tensor,
        lengths: Tensor | int,
        actions: Tensor | None = None,
        possible: Tensor | None = None,
    ) -> None:
        """Follow new plans in `rows` (R,), from their first step on.

        Their paths (R, S' + 1, D) and actions (R, S', A), S' <= S, are continued by their last entries. `possible` (R,) bool;
        None: all are.
        """
        self.path[rows] = padded(path, self.path.shape[1])
        if actions is not None:
            if self.actions is None:
                self.actions = actions.new_zeros(len(self.path), self.path.shape[1] - 1, actions.shape[-1])
            self.actions[rows] = padded(actions, self.actions.shape[1])
        self.lengths[rows] = lengths
        self.possible[rows] = True if possible is None else possible
        self.clock[rows], self.begins[rows] = 0, False

    def actions_left(self, steps: int, held: Tensor) -> Tensor:
        """The planned actions (B, steps, action_dim) of the next steps; NaN where an episode begins, and beyond the `held` (B,)
        steps of a plan that have actions."""
        assert self.actions is not None
        step = self.clock.unsqueeze(1) + torch.arange(steps, device=self.clock.device)
        none = (step >= held.unsqueeze(1)) | self.begins.unsqueeze(1)
        step = step.clamp(max=self.actions.shape[1] - 1)
        actions = self.actions[torch.arange(len(step), device=step.device).unsqueeze(1), step]
        return actions.masked_fill(none.unsqueeze(-1), torch.nan)

    def at(self, step: Tensor) -> Tensor:
        """The path's observations (B, D) at whole steps (B,); the path's end holds."""
        return self.path[torch.arange(len(step), device=step.device), step.clamp(max=self.path.shape[1] - 1)]

    def around(self, time: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The path's observations (B, D) at the steps before and after `time` (B,), and the share (B, 1) of the way from the
        first to the second; the path's end holds."""
        last = self.path.shape[1] - 1
        time = time.clamp(max=last)
        before = time.floor().long().clamp(max=last - 1)
        row = torch.arange(len(time), device=time.device)
        return self.path[row, before], self.path[row, before + 1], (time - before).unsqueeze(1)


def by_inverse_dynamics(
    model: Tracks, observation: Tensor, following: Following, lookahead: int, speed: float, policy: bool
) -> Tensor:
    """Actions (B, action_dim) in recorded units from observations (B, observation_dim) towards targets on the path.

    The path is played `speed` steps in one environment step; the target lies `lookahead` environment steps ahead. A `policy`
    plans one token that is not a place to rest: its target is never beyond the token's end, in as many steps as are left to it.
    """
    played = following.clock.float() * speed
    ahead = (played + lookahead * speed).clamp(max=following.path.shape[1] - 1)
    gap = torch.full_like(ahead, lookahead)
    if policy:
        ahead = torch.minimum(ahead, following.lengths * model.config.layout.stride)
        gap = ((ahead - played) / speed).clamp(min=1)
    before, after, share = following.around(ahead)
    target = (1 - share) * model.observation.normalize(before) + share * model.observation.normalize(after)
    assert model.inverse is not None
    return model.action.denormalize(model.inverse(model.observation.normalize(observation), target, gap))


def by_pd(observation: Tensor, following: Following, positions: Sequence[int], velocities: Sequence[int]) -> Tensor:
    """Actions (B, A) = (p' - p) + (v' - v), with p, v the position and velocity now, p', v' one step ahead on the path.

    At the path's end v' = 0. `positions` and `velocities` are columns of an observation (B, observation_dim), one of each for
    an action. The controller is not learned: it is the one of Diffuser's published maze scores (Janner et al. 2022).
    """
    p, v = list(positions), list(velocities)
    ahead, ended = following.at(following.clock + 1), following.clock >= following.path.shape[1] - 1
    velocity = ahead[:, v].masked_fill(ended.unsqueeze(1), 0.0)
    return ahead[:, p] - observation[:, p] + velocity - observation[:, v]


def diffused_action(following: Following) -> Tensor:
    """The planned actions (B, action_dim) of this step; the last one beyond a plan's end."""
    assert following.actions is not None
    now = following.clock.clamp(max=following.actions.shape[1] - 1)
    return following.actions[torch.arange(len(now), device=now.device), now]


def each_step(observations: Tensor, stride: int, steps: int) -> Tensor:
    """Planned observations (B, T, kept, D) as one for each environment step, (B, steps + 1, D), the end repeated.

    Where a token keeps only its last observation, the steps between are on the straight line.
    """
    B, T, kept, D = observations.shape
    if kept == 1:
        ends = observations[:, :, 0]
        share = torch.arange(stride, dtype=observations.dtype, device=observations.device) / stride
        body = ends[:, :-1, None] * (1 - share[:, None]) + ends[:, 1:, None] * share[:, None]
        path = torch.cat([body.reshape(B, (T - 1) * stride, D), ends[:, -1:]], dim=1)
    else:
        path = torch.cat([observations[:, :1, -1], observations[:, 1:].reshape(B, (T - 1) * kept, D)], dim=1)
    return padded(path, steps + 1)


def padded(x: Tensor, length: int) -> Tensor:
    """(B, S, D) to (B, length, D), the last entry repeated."""
    return torch.cat([x, x[:, -1:].expand(-1, length - x.shape[1], -1)], dim=1)
