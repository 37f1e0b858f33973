"""A goal of several things, asked for one thing at a time: the columns of all others are NaN, which leaves them open."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def in_turn(
    goal: Tensor, present: Tensor, groups: Sequence[int], within: Sequence[float], lowest_first: bool = False
) -> Tensor:
    """Goals (B, G) of which one group that is not at its goal yet is kept, and all others are NaN: the first such group, or the
    one with the lowest goal in its last column.

    `present` (B, G) has the present values of the goal's columns, and `groups` the number of neighboring columns of each group.
    A group is at its goal if its Euclidean distance is at most its entry of `within`. Where all groups are, the goal is kept
    whole. A group that was moved away again is asked for again.
    """
    device, sizes = goal.device, torch.tensor(groups, device=goal.device)
    apart = torch.stack([part.norm(dim=1) for part in (goal - present).split(list(groups), dim=1)], dim=1)
    away = apart > torch.tensor(within, dtype=apart.dtype, device=device)
    rank = (
        goal[:, sizes.cumsum(0) - 1] if lowest_first else torch.arange(len(groups), device=device).expand(len(goal), -1)
    )
    one = rank.masked_fill(~away, rank.max().item() + 1).argmin(dim=1, keepdim=True)
    number = torch.arange(len(groups), device=device).repeat_interleave(sizes)
    return goal.masked_fill(away.any(dim=1, keepdim=True) & (number != one), torch.nan)
