"""What is known of a plan before it is drawn: the start at its first token, and a goal at its last one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfplan.data.statistics import Normalizer
from dfplan.diffusion.sampler import Known


def state_at(statistics: Normalizer, goal: Tensor, columns: Sequence[int]) -> Tensor:
    """Observations (B, observation_dim) in recorded units at goals (B, G) that are given in `columns`.

    Their other columns are at the data's mean.
    """
    state = statistics.mean.repeat(len(goal), 1)
    state[:, list(columns)] = goal
    return state


def known_ends(start: Tensor, tokens: int, end: Tensor | None = None, at: Tensor | int = -1) -> Known:
    """The start token (B, C) as token 0 of `tokens` and, where it is given, the end token (B, C) as token `at`, (B,) or one for
    all; both normalized."""
    values = start.new_zeros(len(start), tokens, start.shape[1])
    mask = torch.zeros(values.shape[:2], dtype=torch.bool, device=start.device)
    values[:, 0], mask[:, 0] = start, True
    if end is not None:
        row = torch.arange(len(start), device=start.device)
        values[row, at], mask[row, at] = end, True
    return Known(values, mask)
