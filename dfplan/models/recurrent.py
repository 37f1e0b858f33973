"""The paper's recurrent denoiser: a latent z_t that sums up the noisy tokens so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfplan.fields import Depth, Size, check_fields
from dfplan.models.embeddings import LevelEmbedding


@dataclass(frozen=True)
class RecurrentConfig:
    """Size of a `Recurrent` denoiser. Raises ValueError for fields out of range and an odd width."""

    width: Size = 256
    """Features of the latent z_t."""
    depth: Depth = 2
    """Hidden layers of the network that reads a token's clean value out of (z_{t-1}, x_t, k_t)."""

    kind: Literal["recurrent"] = "recurrent"
    """The name of this kind of network in the header of a weights file."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % 2:
            raise ValueError(f"the width must be even, got {self.width}")


class Recurrent(nn.Module):
    """Denoiser `(x (B, T, C), k (B, T) or (B, T, P)) -> (B, T, C)` through a latent z_t ~ p(z_t | z_{t-1}, x_t, k_t).

    Chen et al. 2024, sec. 3.2 and Algorithm 1: the latent is a filter. A clean token (k = 0) updates it like an
    observation (the posterior), pure noise (k = K) has no information and leaves the prior, and levels between lie between.
    The network is causal by construction. As in the paper's implementation the latent is its mean: the transition is
    deterministic, and the randomness of the future is in the tokens.
    """

    def __init__(self, columns: int, levels: int, config: RecurrentConfig, parts: int = 1):
        super().__init__()
        self.config = config
        width = config.width
        self.level = LevelEmbedding(levels, width, parts)
        self.embed = nn.Linear(columns, width)
        self.start = nn.Parameter(torch.zeros(width))
        self.cell = nn.GRU(width, width, batch_first=True)
        self.read = nn.ModuleList(nn.Linear(2 * width if i == 0 else width, width) for i in range(config.depth))
        self.out = nn.Linear(width, columns)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """The prediction (B, T, C) from noisy tokens (B, T, C) at their levels k, in float32."""
        token = F.silu(self.embed(x) + self.level(k))
        z = self.start.expand(1, x.shape[0], -1).to(token.dtype).contiguous()
        latents, _ = self.cell(token, z)
        before = torch.cat([z.transpose(0, 1), latents[:, :-1]], dim=1)  # z_{t-1}, which token t is read with
        h = torch.cat([before, token], dim=-1)
        for layer in self.read:
            h = F.silu(layer(h))
        return self.out(h).float()
