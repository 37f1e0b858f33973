"""A goal of several things, asked for one thing at a time: the columns of all others are NaN, which leaves them open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dfplan.data.things import exchanges
from dfplan.planning.model_config import TrajectoryModelConfig
from dfplan.planning.plan import Plan


def in_turn(
    goal: Tensor,
    present: Tensor,
    groups: Sequence[int],
    within: Sequence[float],
    lowest_first: bool = False,
    clearance: float = 0.0,
) -> Tensor:
    """Goals (B, G) of which one group that is not at its goal yet is kept, and all others are NaN: the first such group, or the
    one with the lowest goal in its last column.

    `present` (B, G) has the present values of the goal's columns, and `groups` the number of neighboring columns of each group.
    A group is at its goal if its Euclidean distance is at most its entry of `within`. Where all groups are, the goal is kept
    whole. A group that was moved away again is asked for again.

    With a `clearance`, a group waits while another one is within that distance of its goal. Where all wait for one another, the
    next one of those that are in the way is asked to go half the way first. With `lowest_first` too, three rules are added:

    - The distance leaves out the last column, the height, and a lower group is not in the way.
    - What lies upon a group goes before it.
    - A group that hangs, such as a cube in a gripper, is asked for until it lies: at its goal; where it is, if another one goes
      before it; or half the way to its goal, if it would be in the way where it is.
    """
    device, count = goal.device, len(groups)
    sizes, index = torch.tensor(groups, device=device), torch.arange(count, device=device)
    apart = torch.stack([part.norm(dim=1) for part in (goal - present).split(list(groups), dim=1)], dim=1)
    away = apart > torch.tensor(within, dtype=apart.dtype, device=device)
    order = goal[:, sizes.cumsum(0) - 1] if lowest_first else index.expand(len(goal), -1).to(goal.dtype)
    blocked, in_the_way, hangs = (torch.zeros_like(away) for _ in range(3))
    aside = (goal + present) / 2
    if clearance:
        wanted, there = (places.unflatten(1, (count, -1)) for places in (goal, present))
        beside = slice(None, -1 if lowest_first else None)
        near = torch.cdist(wanted[..., beside], there[..., beside]) < clearance
        near &= ~torch.eye(count, dtype=torch.bool, device=device)
        if lowest_first:
            near &= there[:, None, :, -1] > wanted[..., -1:] - clearance / 2
            upon, above = _upon(there, clearance)
            hangs = away & (above > clearance) & ~upon.any(dim=2)
            stays = hangs & ~near.any(dim=1)
            places = torch.where(stays.unsqueeze(2), there, aside.unflatten(1, (count, -1)))[..., beside]
            lowest = torch.minimum(wanted, there)[..., -1:].amin(dim=1, keepdim=True).expand(-1, count, 1)
            aside = torch.cat([places, lowest], dim=2).flatten(1)
            blocked = upon.any(dim=1)
        blocked, in_the_way = blocked | near.any(dim=2), near.any(dim=1)
    turn = _first(order, away & ~blocked, away & in_the_way, away)
    one = torch.where(hangs.any(dim=1, keepdim=True), _first(order, hangs, away), turn)
    waits = blocked.gather(1, one) | (order.gather(1, one) > order.gather(1, turn) + clearance / 2)
    number = index.repeat_interleave(sizes)
    goal = torch.where(away.any(dim=1, keepdim=True) & waits, aside, goal)
    return goal.masked_fill(away.any(dim=1, keepdim=True) & (number != one), torch.nan)


def _upon(there: Tensor, clearance: float) -> tuple[Tensor, Tensor]:
    """Of places (B, groups, columns) which lies upon which, (B, groups, groups), and how far above the lowest each is."""
    apart, height = torch.cdist(there[..., :-1], there[..., :-1]), there[..., -1]
    above = height[:, :, None] - height[:, None, :]
    return (apart < clearance) & (above > clearance / 2) & (above < clearance), above.amax(dim=2)


def _first(order: Tensor, *among: Tensor) -> Tensor:
    """(B, 1): which group has the lowest order (B, groups), of the first of the masks (B, groups) in which there is any."""
    chosen = among[-1]
    for mask in among[-2::-1]:
        chosen = torch.where(mask.any(dim=1, keepdim=True), mask, chosen)
    return order.masked_fill(~chosen, torch.inf).argmin(dim=1, keepdim=True)


class Exchange:
    """Puts the thing that a goal is of in the place of the first, and back, for things that are alike.

    Of a goal of several things the first one is asked for.
    """

    def __init__(self, config: TrajectoryModelConfig, observation: Tensor, goal: Tensor):
        device = goal.device
        part = torch.tensor(config.goal_group_of, device=device)
        asked = torch.stack([(goal.isfinite() & (part == group)).any(1) for group in range(len(config.alike))], 1)
        which = asked.long().argmax(1)
        self._seen, self._asked = (
            torch.as_tensor(exchanges(config.alike, columns), device=device)[which]
            for columns in (range(config.layout.observation_dim), config.goal_columns)
        )
        self._absent = [column for thing in config.alike[1:] for column in thing]
        self.observation = observation.gather(1, self._seen)
        """(B, observation_dim) after the exchange."""
        self.goal = goal.gather(1, self._asked).masked_fill(part > 0, torch.nan)
        """(B, G) after the exchange."""

    def back(self, plan: Plan) -> Plan:
        """A plan that was made after the exchange as one of the things as they are: those that were not seen stay where they
        were. It keeps no normalized tokens."""
        history = [(self._back(rows), levels) for rows, levels in plan.history]
        return replace(plan, observations=self._back(plan.observations), tokens=None, history=history)

    def _back(self, observations: Tensor) -> Tensor:
        observations = observations.clone()
        observations[..., self._absent] = self.observation[:, None, None, self._absent]
        return observations.gather(-1, self._seen[:, None, None].expand_as(observations))
