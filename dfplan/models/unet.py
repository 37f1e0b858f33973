"""Diffuser's temporal U-Net: convolutions over time for sequences that share one noise level."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from dfplan.fields import Octaves, Size, check_fields
from dfplan.models.embeddings import LevelEmbedding, Waves

KERNEL = 5
GROUPS = 8


@dataclass(frozen=True)
class UNetConfig:
    """Size of a `TemporalUNet` or `TemporalValue`. Raises ValueError for fields out of range."""

    width: Size = 32
    """Channels at full resolution; a multiple of 8."""
    multiples: Annotated[tuple[Size, ...], Field(min_length=1, max_length=16)] = (1, 2, 4)
    """Channels of each resolution as multiples of the width; from one to the next, time is halved."""
    octaves: Octaves = 4
    """Sines and cosines of each column at 1, 2, 4, ... radians per unit that the network sees beside it."""
    film: bool = False
    """Whether level and condition scale features as well as shift them (Perez et al. 2018)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % GROUPS:
            raise ValueError(f"the width must be a multiple of {GROUPS}, got {self.width}")


class TemporalUNet(nn.Module):
    """Denoiser `(x (B, T, C), k (B, T)) -> (B, T, C)` for one level a sequence; T may differ from call to call.

    Janner et al. 2022, appendix C: residual blocks of two convolutions over time with group normalization, the level
    added between them; time is halved on the way down and doubled on the way up, with a skip at each resolution. The
    level of a sequence is the highest among its tokens: known tokens are clean among noisy ones. Not to be confused with a
    denoiser for tokens that each have a level (`dfplan.models.Transformer`). Unlike the paper's, the output keeps a learned
    share of the input, by level, so that what is nearly clean need not pass through the normalizations.

    `condition > 0` adds an input y (B, condition), NaN in the rows that have none (Ajay et al. 2023, sec. 3.1):
    embedded, or replaced by a learned vector where there is none, it is added to the level's embedding.
    """

    def __init__(self, columns: int, levels: int, config: UNetConfig, condition: int = 0):
        super().__init__()
        self.config = config
        channels = [config.width * multiple for multiple in config.multiples]
        self.waves, self.level = Waves(config.octaves), LevelEmbedding(levels, config.width)
        self.condition = ConditionEmbedding(condition, config.width) if condition else None
        self.embed = nn.Linear(self.waves.width(columns), channels[0])
        before, block = [channels[0], *channels], partial(ResidualBlock, conditions=config.width, film=config.film)
        self.down = nn.ModuleList(
            nn.ModuleList([block(a, b), block(b, b)]) for a, b in zip(before, channels, strict=False)
        )
        self.halve = nn.ModuleList(nn.Conv2d(c, c, (1, 3), stride=(1, 2), padding=(0, 1)) for c in channels[:-1])
        last = channels[-1]
        self.middle = nn.ModuleList([block(last, last), block(last, last)])
        self.stretch = nn.ModuleList(
            nn.ConvTranspose2d(c, c, (1, 4), stride=(1, 2), padding=(0, 1)) for c in channels[:0:-1]
        )
        self.up = nn.ModuleList(
            nn.ModuleList([block(a + b, b), block(b, b)])
            for a, b in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.keep = nn.Linear(config.width, columns)
        self.out = nn.Linear(channels[0], columns)
        for layer in (self.keep, self.out):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, k: Tensor, y: Tensor | None = None) -> Tensor:
        """The prediction (B, T, C) from noisy tokens (B, T, C) at levels k (B, T), given y (B, condition), in float32."""
        T, depth = x.shape[1], len(self.config.multiples)
        condition = self.level(k.amax(dim=1))
        if self.condition is not None:
            condition = condition + self.condition(y, len(x))
        condition = F.silu(condition)
        h = F.pad(self.embed(self.waves(x)), (0, 0, 0, -T % 2 ** (depth - 1)))
        h = h.transpose(1, 2).unsqueeze(2)
        skips = []
        for resolution, blocks in enumerate(self.down):
            assert isinstance(blocks, nn.ModuleList)
            for block in blocks:
                h = block(h, condition)
            if resolution < depth - 1:
                skips.append(h)
                h = self.halve[resolution](h)
        for block in self.middle:
            h = block(h, condition)
        for stretch, blocks in zip(self.stretch, self.up, strict=True):
            assert isinstance(blocks, nn.ModuleList)
            h = torch.cat([stretch(h), skips.pop()], dim=1)
            for block in blocks:
                h = block(h, condition)
        h = h.squeeze(2).transpose(1, 2)[:, :T]
        return (self.out(h) + self.keep(condition).unsqueeze(1) * x).float()


class ResidualBlock(nn.Module):
    """Two convolutions over time, features (B, before, 1, T) to (B, after, 1, T), with a vector for each whole sequence,
    (B, conditions), added between them, and a residual path. With `film` it scales the features too.
    """

    def __init__(self, before: int, after: int, conditions: int, film: bool = False):
        super().__init__()
        over_time: dict[str, Any] = {"kernel_size": (1, KERNEL), "padding": (0, KERNEL // 2)}
        self.first = nn.Conv2d(before, after, **over_time)
        self.norm1 = nn.GroupNorm(GROUPS, after)
        self.film, self.shift = film, nn.Linear(conditions, 2 * after if film else after)
        self.second = nn.Conv2d(after, after, **over_time)
        self.norm2 = nn.GroupNorm(GROUPS, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        """Features (B, after, 1, T)."""
        inner, moved = F.silu(self.norm1(self.first(h))), self.shift(condition)[:, :, None, None]
        if self.film:
            scale, moved = moved.chunk(2, dim=1)
            inner = inner * (1 + scale)
        inner = inner + moved
        return F.silu(self.norm2(self.second(inner))) + self.skip(h)


class ConditionEmbedding(nn.Module):
    """Conditions y (B, columns) to vectors (B, width); rows of NaN, and all rows of None, to one learned vector."""

    def __init__(self, columns: int, width: int, octaves: int = 4):
        super().__init__()
        self.waves = Waves(octaves)
        inputs = self.waves.width(columns)
        self.mlp = nn.Sequential(nn.Linear(inputs, 4 * width), nn.SiLU(), nn.Linear(4 * width, width))
        self.none = nn.Parameter(torch.zeros(width))

    def forward(self, y: Tensor | None, batch: int) -> Tensor:
        """Vectors (batch, width) of conditions (batch, columns), or of None for all of them."""
        if y is None:
            return self.none.expand(batch, -1)
        absent = y.isnan().any(dim=1, keepdim=True)
        return torch.where(absent, self.none, self.mlp(self.waves(y.nan_to_num())))


class Conditioned(nn.Module):
    """A denoiser given y (B, condition): f(x, k, none) + omega (f(x, k, y) - f(x, k, none)); at omega = 1, f(x, k, y).

    This is classifier-free guidance (Ho and Salimans 2022), in one pass of the network for both predictions.
    """

    def __init__(self, network: nn.Module, y: Tensor, omega: float = 1.0):
        super().__init__()
        self.network, self.y, self.omega = network, y, omega

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """The prediction (B, T, C) for noisy sequences (B, T, C) at levels (B, T)."""
        if self.omega == 1:
            return self.network(x, k, self.y)
        y = torch.cat([self.y, torch.full_like(self.y, torch.nan)])
        given, free = self.network(x.repeat(2, 1, 1), k.repeat(2, 1), y).chunk(2)
        return free + self.omega * (given - free)


class TemporalValue(nn.Module):
    """J: clean tokens (B, T, C) to a return (B,), by the downward half of a U-Net and a mean over time.

    Janner et al. 2022, appendix C. Its gradient guides sampling, where it sees the denoiser's prediction of the clean
    tokens. Not to be confused with `dfplan.models.StepPlausibility`, which is of a single step and depends on no return.
    """

    def __init__(self, columns: int, config: UNetConfig):
        super().__init__()
        channels = [config.width * multiple for multiple in config.multiples]
        self.waves = Waves(config.octaves)
        self.embed = nn.Linear(self.waves.width(columns), channels[0])
        before = [channels[0], *channels]
        self.blocks = nn.ModuleList(ResidualBlock(a, b, 1) for a, b in zip(before, channels, strict=False))
        self.head = nn.Sequential(nn.Linear(channels[-1], config.width), nn.SiLU(), nn.Linear(config.width, 1))

    def forward(self, x0: Tensor) -> Tensor:
        """Returns (B,) of clean tokens (B, T, C), in float32 and in the units of those that it was trained on."""
        h = self.embed(self.waves(x0)).transpose(1, 2).unsqueeze(2)
        clean = x0.new_zeros(len(x0), 1)
        for block in self.blocks:
            h = F.avg_pool2d(block(h, clean), (1, 2), ceil_mode=True)
        return self.head(h.mean(dim=(2, 3))).squeeze(-1).float()
