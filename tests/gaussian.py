"""A Gaussian process over tokens, whose denoiser, conditionals, tilts and entropy are known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dfplan.diffusion import Diffusion
from dfplan.schedules import NoiseSchedule, Prediction

T, C = 6, 2
D = T * C


class Process:
    """Tokens x ~ N(mean, covariance): an AR(1) chain of T tokens of C correlated columns, flattened to (T * C,)."""

    def __init__(self, correlation: float = 0.8):
        t = torch.arange(T, dtype=torch.float64)
        columns = torch.tensor([[1.0, 0.5], [0.5, 0.8]], dtype=torch.float64)
        self.mean = torch.stack([torch.sin(t), 0.3 * t - 0.5], dim=-1).flatten()
        self.covariance = torch.kron(correlation ** (t[:, None] - t[None, :]).abs(), columns)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        noise = torch.randn(count, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (self.mean + noise @ torch.linalg.cholesky(self.covariance).T).float().view(count, T, C)

    def observe(self, S: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Gain A (D, n) and covariance (D, D) of x given y = S x + e, e ~ N(0, diag(noise)): E[x | y] = mean + A (y - S mean)."""
        gain = torch.linalg.solve(S @ self.covariance @ S.T + torch.diag(noise), S @ self.covariance).T
        return gain, self.covariance - gain @ S @ self.covariance

    @property
    def entropy(self) -> float:
        return 0.5 * (D * math.log(2 * math.pi * math.e) + torch.logdet(self.covariance).item())


class ExactDenoiser(nn.Module):
    """E[x0 | x_k] of the process for tokens at levels of their own, returned as x0, eps or v."""

    def __init__(self, process: Process, schedule: NoiseSchedule, prediction: Prediction = "x0"):
        super().__init__()
        self.process, self.prediction = process, prediction
        self.alpha_bar = schedule.alpha_bar.double()
        self.affine: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        if bool((k == k[:1]).all()):
            x0 = self._x0(x, k[0])
        else:
            x0 = torch.zeros_like(x)
            for levels in k.unique(dim=0):
                here = (k == levels).all(dim=1)
                x0 = torch.where(here[:, None, None], self._x0(x, levels), x0)
        if self.prediction == "x0":
            return x0
        a = self.alpha_bar[k].unsqueeze(-1).to(x.dtype)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt().clamp(min=1e-6)
        return eps if self.prediction == "eps" else a.sqrt() * eps - (1 - a).sqrt() * x0

    def _x0(self, x: Tensor, levels: Tensor) -> Tensor:
        key = tuple(levels.tolist())
        if key not in self.affine:
            a = self.alpha_bar[levels].repeat_interleave(C)
            S = torch.diag(a.sqrt())
            gain, _ = self.process.observe(S, 1 - a)
            self.affine[key] = gain.T, self.process.mean - gain @ S @ self.process.mean
        matrix, offset = (v.to(x.dtype) for v in self.affine[key])
        return (x.flatten(1) @ matrix + offset).view_as(x)


def exact(process: Process, levels: int = 100, prediction: Prediction = "x0", **options) -> Diffusion:
    """The process as a Diffusion with its exact denoiser."""
    schedule = NoiseSchedule("cosine", levels)
    return Diffusion(ExactDenoiser(process, schedule, prediction), schedule, prediction, **options)


def assert_moments(samples: Tensor, mean: Tensor, covariance: Tensor, bias: float = 0.0) -> None:
    """Samples (N, n) have this mean and covariance, within 4.5 standard errors and the share ``bias`` of the deviations.

    4.5 standard errors: with some hundred numbers tested, a right sampler fails about once in a thousand seeds.
    """
    samples = samples.double()
    N = len(samples)
    var = covariance.diagonal()
    scale = (var[:, None] * var[None, :]).sqrt()
    error = (samples.mean(0) - mean).abs()
    allowed = 4.5 * (var / N).sqrt() + bias * var.sqrt()
    assert bool((error <= allowed + 1e-5).all()), f"mean is off by {error} where {allowed} is allowed"
    error = (torch.cov(samples.T) - covariance).abs()
    allowed = 4.5 * ((scale**2 + covariance**2) / N).sqrt() + bias * scale
    assert bool((error <= allowed + 1e-5).all()), f"covariance is off by {error} where {allowed} is allowed"
