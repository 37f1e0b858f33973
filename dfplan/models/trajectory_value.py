"""The value of a plan: the return to expect of a whole sequence of states."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dfplan.models.embeddings import Waves, sinusoid
from dfplan.models.transformer import Block, TransformerConfig


class TrajectoryValue(nn.Module):
    """V(tau): clean plans (B, T, C) of normalized tokens to returns (B,), in the units of those that it was trained on.

    A transformer over the tokens, regressed on returns of recorded windows by `loss`: the value in Monte Carlo sampling
    with selection (Lu et al. 2025). Where the denoiser's blocks are shifted and scaled by a token's noise level, these are
    by its position. Not to be confused with `StepPlausibility`, which is of a single step and depends on no return, nor
    with `TemporalValue`, whose gradient guides sampling: the gradient of this one is not used.
    """

    def __init__(self, columns: int, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.waves = Waves(config.octaves)
        self.embed = nn.Linear(self.waves.width(columns), config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B,) of plans (B, T, C), in float32."""
        position = sinusoid(torch.arange(tokens.shape[1], device=tokens.device), self.config.width)
        h = self.embed(self.waves(tokens)) + position
        for block in self.blocks:
            h = block(h, position)
        return self.out(self.norm(h).mean(dim=1)).squeeze(-1).float()

    def loss(self, tokens: Tensor, returns: Tensor) -> Tensor:
        """Mean squared error of the returns (B,) of plans (B, T, C), a scalar."""
        return (self(tokens) - returns).square().mean()
