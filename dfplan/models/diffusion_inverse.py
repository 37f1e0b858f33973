"""Diffusion inverse dynamics: the distribution of actions that lead from one observation to another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfplan.diffusion.noise import NoiseSchedule
from dfplan.fields import check_columns
from dfplan.models.embeddings import LevelEmbedding
from dfplan.models.mlp import mlp


class DiffusionInverse(nn.Module):
    """a ~ p(a | s, s'): the data's actions at s when the target s' was observed a fixed number of steps later.

    s and s' (B, observation_dim) are normalized, actions (B, action_dim) scaled into [-1, 1]. In the `relative` columns
    (positions) the network sees only the difference s' - s, so that what is learned at one place holds everywhere. A small
    diffusion over the one action, sampled by DDPM (Lu et al. 2025, sec. 3.3). Not to be confused with `InverseDynamics`, a
    regression of the mean action that takes the number of steps to the target as an input. Raises ValueError for relative
    columns that are not different columns of the observation.
    """

    def __init__(
        self, observation_dim: int, action_dim: int, relative: Sequence[int] = (), levels: int = 10, width: int = 256
    ):
        super().__init__()
        self.action_dim, self.relative = action_dim, tuple(relative)
        check_columns(self.relative, observation_dim, "relative")
        self.absolute = tuple(sorted(set(range(observation_dim)) - set(self.relative)))
        self.schedule = NoiseSchedule("cosine", levels)
        self.level = LevelEmbedding(levels, width)
        self.embed = nn.Linear(action_dim + observation_dim + len(self.absolute), width)
        self.mlp = nn.Sequential(nn.SiLU(), *mlp(width, width, width, action_dim))

    def forward(self, action: Tensor, k: Tensor, pair: Tensor) -> Tensor:
        """Predicted v (B, action_dim) of noisy actions (B, action_dim) at levels k (B,), given a `pair`."""
        return self.mlp(self.embed(torch.cat([action, pair], dim=-1)) + self.level(k)).float()

    def pair(self, s: Tensor, target: Tensor) -> Tensor:
        """The network's input from s and s': the differences of relative columns, then both values of the others."""
        relative, absolute = list(self.relative), list(self.absolute)
        return torch.cat([(target - s)[..., relative], s[..., absolute], target[..., absolute]], dim=-1)

    def loss(self, s: Tensor, target: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of v at levels uniform on 1..K, a scalar."""
        k = torch.randint(1, self.schedule.K + 1, (len(s),), generator=generator, device=s.device)
        eps = torch.randn(action.shape, generator=generator, device=s.device, dtype=action.dtype)
        noisy = self.schedule.add_noise(action, k, eps)
        return F.mse_loss(self(noisy, k, self.pair(s, target)), self.schedule.target(action, k, eps, "v"))

    @torch.no_grad()
    def sample(self, s: Tensor, target: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
        """Actions (B, action_dim) in [-1, 1], drawn by DDPM over all levels; `temperature` scales all its noise."""
        pair = self.pair(s, target)

        def normal() -> Tensor:
            return temperature * torch.randn(
                (len(s), self.action_dim), generator=generator, device=s.device, dtype=s.dtype
            )

        action = normal()
        for level in range(self.schedule.K, 0, -1):
            k = torch.full((len(s),), level, device=s.device)
            x0 = self.schedule.interpret(self(action, k, pair), action, k, "v").x0.clamp(-1, 1)
            mean, std = self.schedule.posterior(x0, action, k, k - 1)
            action = mean + std * normal() if level > 1 else mean
        return action
