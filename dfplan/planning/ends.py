"""What is known of a plan before it is drawn: the start at its first token, and a goal at its last one."""

from __future__ import annotations

import torch
from torch import Tensor

from dfplan.diffusion.sampler import Known


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
