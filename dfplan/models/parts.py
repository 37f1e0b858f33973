"""Tokens whose parts have noise levels of their own, such as an observation, the columns of a goal, and actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class ByParts(nn.Module):
    """A denoiser `(x (B, T, C), k (B, T, C)) -> (B, T, C)` around a network that takes one level for each part of a token.

    The columns of one part have the same level everywhere.
    """

    def __init__(self, network: nn.Module, parts: Sequence[int]):
        """`parts` is the number 0..P-1 of each column's part. Raises ValueError where a number is left out."""
        super().__init__()
        if sorted(set(parts)) != list(range(len(set(parts)))):
            raise ValueError(f"parts are numbered 0, 1, ... without gaps, got {tuple(parts)}")
        self.network = network
        self.first = [list(parts).index(part) for part in range(len(set(parts)))]

    def forward(self, x: Tensor, k: Tensor) -> Any:
        """The prediction (B, T, C) from noisy tokens (B, T, C), each column at its level k (B, T, C), in float32."""
        return self.network(x, k[..., self.first])
