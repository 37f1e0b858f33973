"""Plausibility of a step: could the data contain a step from here to there?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfplan.models.embeddings import Waves
from dfplan.models.mlp import mlp


class StepPlausibility(nn.Module):
    """Log-odds that a step from one place to another, one token later, is from the data and not a noisy copy.

    Places are normalized columns of an observation, (..., D) each; the result is (...). Trained to tell real steps from
    the same steps with noise on one or both ends (noise-contrastive estimation, Gutmann & Hyvarinen 2010), it is low where
    the data never go (walls) and for steps longer than any in the data. It judges single steps: a plan is as plausible as
    its worst one. Not to be confused with a value function: it depends neither on a goal nor on a reward.
    """

    def __init__(self, columns: int, *, noise: tuple[float, float], gain: float, width: int = 256, octaves: int = 4):
        """`noise` is the range of the standard deviations, in normalized units, that make false steps: from a little more
        than steps differ in the data to the size of what must be kept apart, such as a wall and the room behind it.
        `gain` multiplies the step (the difference of the two places) on its way into the network: about one over the
        length of a step. Raises ValueError for a range that is empty or not positive, and a gain that is not positive.
        """
        super().__init__()
        low, high = noise
        if not 0 < low <= high < float("inf") or not 0 < gain < float("inf"):
            raise ValueError(
                f"noise must be a range of finite numbers above 0 and gain one such number, got {noise} and {gain}"
            )
        self.noise, self.gain = (low, high), gain
        self.waves = Waves(octaves)
        inputs = self.waves.width(2 * columns) + columns
        self.mlp = mlp(inputs, width, width, width, 1)

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """Log-odds (...) of steps from places `before` (..., D) to places `after` (..., D), in float32."""
        ends = self.waves(torch.cat([before, after], dim=-1))
        return self.mlp(torch.cat([ends, self.gain * (after - before)], dim=-1)).squeeze(-1).float()

    def loss(self, before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
        """Binary cross-entropy of real steps (N, D), (N, D) against noisy copies of them, a scalar."""

        def normal() -> Tensor:
            return torch.randn(before.shape, generator=generator, device=before.device, dtype=before.dtype)

        low, high = self.noise
        scale = low + (high - low) * torch.rand(
            (len(before), 1), generator=generator, device=before.device, dtype=before.dtype
        )
        # A third each: only the end is moved, both ends apart, both alike (a real step in the wrong place).
        kind = torch.randint(0, 3, (len(before), 1), generator=generator, device=before.device)
        first = torch.where(kind == 0, torch.zeros_like(before), scale * normal())
        second = torch.where(kind == 2, first, scale * normal())
        real, fake = self(before, after), self(before + first, after + second)
        return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
