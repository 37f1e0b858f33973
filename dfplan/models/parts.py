"""Tokens whose parts have noise levels of their own, such as an observation, the columns of a goal, and actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class ByParts(nn.Module):
    """A denoiser `(x (B, T, C), k (B, T, C)) -> (B, T, C)` around a network that takes one level for each part of a token.

    The columns of one part have the same level everywhere. What is pure noise is shown as 0: it says nothing, and beside the
    noise of many absent columns a network is slow to find the few that are known.
    """

    def __init__(self, network: nn.Module, parts: Sequence[int], levels: int):
        """`parts` is the number 0..P-1 of each column's part. Raises ValueError where a number is left out."""
        super().__init__()
        if sorted(set(parts)) != list(range(len(set(parts)))):
            raise ValueError(f"parts are numbered 0, 1, ... without gaps, got {tuple(parts)}")
        self.network, self.levels = network, levels
        self.first = [list(parts).index(part) for part in range(len(set(parts)))]

    def forward(self, x: Tensor, k: Tensor, *packing: Tensor) -> Any:
        """The prediction (B, T, C) from noisy tokens (B, T, C), each column at its level k (B, T, C), in float32.

        `packing` are positions and segments of networks that take them.
        """
        levels = k[..., self.first] if len(self.first) > 1 else k[..., 0]  # a goal may be all of an observation
        return self.network(x.masked_fill(k == self.levels, 0.0), levels, *packing)
