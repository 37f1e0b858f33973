"""A transformer over trajectory tokens that each carry their own noise level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfplan.fields import Depth, Octaves, Size, check_fields
from dfplan.models.embeddings import LevelEmbedding, Waves, sinusoid


@dataclass(frozen=True)
class TransformerConfig:
    """Size of a `Transformer`. Raises ValueError for fields out of range and heads that do not divide the width."""

    width: Size = 128
    """Features of each token inside the network."""
    depth: Depth = 4
    """Number of blocks."""
    heads: Size = 4
    """Attention heads; must divide the width."""
    causal: bool = False
    """Whether token t sees only tokens 0..t (the paper) or the whole sequence."""
    octaves: Octaves = 3
    """Sines and cosines of each column at 1, 2, 4, ... radians per unit that the network sees beside it."""
    kind: Literal["transformer"] = "transformer"
    """The name of this kind of network in the header of a weights file."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"heads must divide the width into even parts, got {self.heads} for a width of {self.width}"
            )


class Transformer(nn.Module):
    """Denoiser `(x (B, T, C), k (B, T) or (B, T, P)) -> (B, T, C)`; T may differ from call to call.

    A row may hold several sequences: then `positions` (B, T) are those of tokens in their own sequence, and tokens attend only
    to those of the same number in `segments` (B, T).

    Blocks are pre-norm; the noise level of a token, or of each of its P parts, shifts and scales each of its normalizations
    (Peebles & Xie 2023, adaLN without gates), because every block depends on how certain a token is.
    """

    def __init__(self, columns: int, levels: int, config: TransformerConfig, parts: int = 1):
        super().__init__()
        self.config = config
        self.waves = Waves(config.octaves)
        self.embed = nn.Linear(self.waves.width(columns), config.width)
        self.level = LevelEmbedding(levels, config.width, parts)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, columns)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, k: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """The prediction (B, T, C) from noisy tokens (B, T, C) at their levels k, in float32."""
        return self.out(self.norm(self.features(x, k, positions, segments))).float()

    def features(self, x: Tensor, k: Tensor, positions: Tensor | None = None, segments: Tensor | None = None) -> Tensor:
        """What the last block gives, (B, T, width)."""
        positions = torch.arange(x.shape[1], device=x.device) if positions is None else positions
        hidden = self._hidden(x, segments)
        levels, which = self.level.distinct(k)
        position = sinusoid(positions, self.config.width).to(levels.dtype)
        h = self.embed(self.waves(x)) + position + F.embedding(which, levels)
        condition = F.silu(levels)
        for block in self.blocks:
            h = block(h, condition, which, hidden)
        return h

    def _hidden(self, x: Tensor, segments: Tensor | None) -> Tensor | None:
        """Which tokens a token does not see: a mask (T, T) or (B, 1, T, T), None for none."""
        hidden = None if segments is None else (segments.unsqueeze(1) != segments.unsqueeze(2)).unsqueeze(1)
        if not self.config.causal:
            return hidden
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return future if hidden is None else hidden | future


class Block(nn.Module):
    """Attention and a perceptron with residual paths, over features h (B, T, width), each normalized and then shifted and
    scaled by a condition: the embedding of a level or a position.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulate = nn.Linear(width, 4 * width)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self, h: Tensor, condition: Tensor, which: Tensor | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """Features (B, T, width) after the block.

        The condition is (B, T, width) or (T, width). With `which` (B, T) it is (U, width), and says which one each token has:
        there are fewer levels than tokens. `hidden`, (T, T) or (B, 1, T, T), is True where a token does not see another.
        """
        modulation = self.modulate(condition)
        modulation = modulation if which is None else F.embedding(which, modulation)
        scale1, shift1, scale2, shift2 = modulation.chunk(4, dim=-1)
        h = h + self.attend(self.norm1(h) * (1 + scale1) + shift1, hidden)
        return h + self.down(F.gelu(self.up(self.norm2(h) * (1 + scale2) + shift2)))

    def attend(self, h: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Multi-head attention of tokens (B, T, width) to one another, but for those that are hidden."""
        B, T, width = h.shape
        q, k, v = self.qkv(h).view(B, T, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if h.is_cuda:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if hidden is None else ~hidden)
        else:
            # On a CPU two plain batched products are faster than the fused kernel, above all backwards.
            score = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            score = score if hidden is None else score.masked_fill(hidden, float("-inf"))
            mixed = score.softmax(dim=-1).to(v.dtype) @ v
        return self.project(mixed.transpose(1, 2).reshape(B, T, width))
