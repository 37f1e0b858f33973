"""Embeddings of positions and noise levels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CODE_BITS, MOST_ROWS = 40, 2**22
"""Of `distinct_rows`: bits of the number of some columns, and how many different rows there may be; together below 63 bits."""


def sinusoid(value: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of `value` (...) at `width / 2` geometrically spaced frequencies: (..., width), fp32."""
    steps = torch.arange(width // 2, dtype=torch.float32, device=value.device)
    frequency = torch.exp(steps * (-math.log(longest) / (width // 2)))
    angle = value.float().unsqueeze(-1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class LevelEmbedding(nn.Module):
    """Noise levels k in 0..K of tokens (...), or of the P parts of tokens (..., P), to vectors (..., width); K is called
    `levels` here, as in configs.

    A table of K + 1 rows would learn each level alone; sinusoids of k / K let near levels share what they learn. Each part has
    an embedding of its own, and a token's is their sum.
    """

    def __init__(self, levels: int, width: int, parts: int = 1):
        super().__init__()
        self.levels, self.width, self.parts = levels, width, parts
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, parts * width))

    def forward(self, k: Tensor) -> Tensor:
        """Levels, int64, to vectors (..., width)."""
        vectors, which = self.distinct(k)
        return F.embedding(which, vectors)

    def distinct(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (U, width) of the levels that there are, far fewer than tokens, and which of them each token (...) has."""
        every = torch.arange(self.levels + 1, dtype=torch.float32, device=k.device) * (1000.0 / self.levels)
        table = self.mlp(sinusoid(every, self.width))
        if self.parts == 1:
            return table, k
        rows, which = distinct_rows(k, self.levels + 1)
        part = torch.arange(self.parts, device=k.device)
        return table.unflatten(-1, (self.parts, self.width))[rows, part].sum(-2), which


def distinct_rows(k: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The different rows (U, P) of whole numbers k (..., P) below `count`, and which of them each row (...) is.

    Some columns at a time become one number, because those of many columns would be beyond int64.
    """
    rows, which = k.new_zeros(1, 0), k.new_zeros(k.shape[:-1])
    for columns in k.split(max(1, int(CODE_BITS / math.log2(count))), dim=-1):
        base = count ** torch.arange(columns.shape[-1], device=k.device)
        code, which = torch.unique(which + MOST_ROWS * (columns * base).sum(-1), return_inverse=True)
        digits = (code // MOST_ROWS).unsqueeze(-1) // base % count
        rows = torch.cat([rows[code % MOST_ROWS], digits], dim=-1)
    return rows, which


class Waves(nn.Module):
    """Numbers x (..., C) with their sines and cosines at 1, 2, 4, ... radians per unit: (..., C * (1 + 2 * octaves)).

    Without them a network learns sharp borders in x, such as the walls of a maze, only slowly (Tancik et al. 2020).
    """

    frequencies: Tensor

    def __init__(self, octaves: int):
        super().__init__()
        self.octaves = octaves
        self.register_buffer("frequencies", torch.tensor([2.0**octave for octave in range(octaves)]), persistent=False)

    def width(self, columns: int) -> int:
        """Number of features of so many columns."""
        return columns * (1 + 2 * self.octaves)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers (..., C) to features (..., width(C)): the numbers first, then all sines, then all cosines."""
        angle = (x.unsqueeze(-1) * self.frequencies).flatten(-2)
        return torch.cat([x, angle.sin(), angle.cos()], dim=-1)
