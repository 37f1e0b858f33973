"""The value of a noisy plan: the reward to expect from it on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfplan.models.transformer import Transformer, TransformerConfig


class TokenValue(nn.Module):
    """V(x_k, k): sequences of noisy tokens (B, T, C) at levels (B, T) to values (B,), in the units that it was trained on.

    Its gradient may guide sampling at any level, and at level 0 it judges whole plans (Janner et al. 2022, sec. 3.1, with a
    level for each token). Not to be confused with `TrajectoryValue`, which takes clean plans alone, nor with `TemporalValue`,
    whose sequences have one level.
    """

    def __init__(self, columns: int, levels: int, config: TransformerConfig):
        super().__init__()
        self.network = Transformer(columns, levels, config)
        del self.network.out
        self.out = nn.Linear(config.width, 1)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """Values (B,), in float32."""
        h = self.network.norm(self.network.features(x, k))
        return self.out(h.mean(1)).squeeze(-1).float()

    def loss(self, x: Tensor, k: Tensor, values: Tensor) -> Tensor:
        """Mean squared error of the values (B,), a scalar."""
        return (self(x, k) - values).square().mean()


def at_level_zero(value: TokenValue, x0: Tensor) -> Tensor:
    """The values (B,) of clean tokens (B, T, C)."""
    return value(x0, torch.zeros(x0.shape[:2], dtype=torch.int64, device=x0.device))
