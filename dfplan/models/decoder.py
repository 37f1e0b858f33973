"""A transformer in which actions attend to observations; all actions of a sequence have one noise level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from dfplan.fields import Depth, Octaves, Size, check_fields
from dfplan.models.embeddings import LevelEmbedding, Waves, sinusoid


@dataclass(frozen=True)
class DecoderConfig:
    """Size of a `Decoder`. Raises ValueError for fields out of range and heads that do not divide the width."""

    width: Size = 96
    """Features of each token inside the network."""
    depth: Depth = 3
    """Number of blocks."""
    heads: Size = 4
    """Attention heads; must divide the width."""
    octaves: Octaves = 3
    """Sines and cosines of each column at 1, 2, 4, ... radians per unit that the network sees beside it."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"the width must be even and a multiple of the heads, got {self.width} and {self.heads}")


class Decoder(nn.Module):
    """Denoiser `(x (B, T, C), k (B, T), y (B, H * D + G)) -> (B, T, C)`; T may differ from call to call.

    The transformer of Chi et al. 2023: tokens attend to one another and, across, to the level, to each of H observations of D
    columns and to a goal of G. Not to be confused with `dfplan.models.Transformer`, whose tokens are observations too.
    """

    def __init__(self, columns: int, levels: int, config: DecoderConfig, observed: tuple[int, int], goal: int = 0):
        """`observed` is (H, D)."""
        super().__init__()
        width, self.config, self.observed = config.width, config, observed
        self.waves, self.level = Waves(config.octaves), LevelEmbedding(levels, width)
        self.embed = nn.Linear(self.waves.width(columns), width)
        self.observe = nn.Linear(self.waves.width(observed[1]), width)
        self.aim = nn.Linear(self.waves.width(goal), width) if goal else None
        block = nn.TransformerDecoderLayer(
            width, config.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerDecoder(block, config.depth, nn.LayerNorm(width))
        self.out = nn.Linear(width, columns)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, k: Tensor, y: Tensor) -> Tensor:
        """The prediction (B, T, C) from noisy tokens (B, T, C) at levels k (B, T), given y (B, H * D + G), in float32."""
        seen = self._placed(self.observe(self.waves(y[:, : self._seen].unflatten(1, self.observed))))
        given = [self.level(k.amax(dim=1)), *([] if self.aim is None else [self.aim(self.waves(y[:, self._seen :]))])]
        memory = torch.cat([torch.stack(given, dim=1), seen], dim=1)
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused kernels are several times slower, above all backwards
            return self.out(self.blocks(self._placed(self.embed(self.waves(x))), memory)).float()

    @property
    def _seen(self) -> int:
        return self.observed[0] * self.observed[1]

    def _placed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, T, width) with their places in their sequence."""
        return tokens + sinusoid(torch.arange(tokens.shape[1], device=tokens.device), tokens.shape[2])
