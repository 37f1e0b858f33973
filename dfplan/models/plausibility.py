"""A critic of steps: is this a step between two tokens that the data could have made?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfplan.models.embeddings import Waves


class StepCritic(nn.Module):
    """Log-odds that a step from one place to another, one token later, comes from the data and not from a blurred copy.

    Places are the normalised goal columns of an observation, (..., D) each; the result is (...). Trained by telling
    real steps from the same steps with noise on one or both ends (noise-contrastive estimation, Gutmann & Hyvarinen
    2010), it knows where the data never goes (walls) and how far it goes in a token. It judges single steps, so the
    worst step of a plan says whether the plan is possible. Not to be confused with a value function: it says nothing
    of the goal.
    """

    def __init__(self, columns: int, width: int = 256, octaves: int = 4, noise: tuple[float, float] = (0.08, 0.6)):
        super().__init__()
        self.noise = noise
        self.waves = Waves(octaves)
        inputs = self.waves.width(2 * columns) + columns
        self.mlp = nn.Sequential(
            nn.Linear(inputs, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 1),
        )

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        ends = self.waves(torch.cat([before, after], dim=-1))
        return self.mlp(torch.cat([ends, 3 * (after - before)], dim=-1)).squeeze(-1).float()

    def loss(self, before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
        """Binary cross-entropy of telling real steps (N, D), (N, D) from noisy copies, a scalar."""

        def normal() -> Tensor:
            return torch.randn(before.shape, generator=generator, device=before.device, dtype=before.dtype)

        low, high = self.noise
        scale = low + (high - low) * torch.rand((len(before), 1), generator=generator, device=before.device, dtype=before.dtype)
        # A third each: only the end is moved, both ends apart, both alike (a real step in the wrong place).
        kind = torch.randint(0, 3, (len(before), 1), generator=generator, device=before.device)
        first = torch.where(kind == 0, torch.zeros_like(before), scale * normal())
        second = torch.where(kind == 2, first, scale * normal())
        real, fake = self(before, after), self(before + first, after + second)
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
