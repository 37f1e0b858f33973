"""Gaussian tokens, whose denoiser, conditionals, tilts and entropy are known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import autoregressive, from_lag, full_sequence, pyramid, trapezoid
from dfplan.diffusion.noise import NoiseSchedule, Prediction
from dfplan.diffusion.sampler import sample


class Process:
    """Tokens x ~ N(mean, covariance), mean (T, C) and covariance (D, D), both kept flat with D = T * C, in float64."""

    def __init__(self, mean: Tensor, covariance: Tensor):
        (self.T, self.C), self.D = mean.shape, mean.numel()
        self.mean, self.covariance = mean.flatten(), covariance

    def draw(self, count: int, seed: int = 1000) -> Tensor:
        noise = torch.randn(count, self.D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (self.mean + noise @ torch.linalg.cholesky(self.covariance).T).view(count, self.T, self.C)

    def observe(self, S: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Of x given y = S x + e, e ~ N(0, diag(noise)): the gain A (..., D, n) of E[x | y] = mean + A (y - S mean),
        and the covariance (..., D, D). S is (..., n, D) and noise (..., n)."""
        innovation = S @ self.covariance @ S.mT + torch.diag_embed(noise)
        gain = torch.linalg.solve(innovation, S @ self.covariance).mT
        return gain, self.covariance - gain @ S @ self.covariance

    def given(self, tokens: tuple[int, ...], values: Tensor, variance: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, covariance and gain of x given that noisy observations of some tokens have the values (T, C) there."""
        S = torch.eye(self.D, dtype=torch.float64)[self.columns(tokens)]
        gain, covariance = self.observe(S, torch.full((len(S),), float(variance), dtype=torch.float64))
        return self.mean + gain @ (S @ (values.flatten().double() - self.mean)), covariance, gain

    def columns(self, tokens) -> Tensor:
        """Where these tokens stand in the flat vector."""
        return torch.tensor([t * self.C + c for t in tokens for c in range(self.C)])

    @property
    def entropy(self) -> float:
        return 0.5 * (self.D * math.log(2 * math.pi * math.e) + torch.logdet(self.covariance).item())


def chain(tokens: int = 6, correlation: float = 0.8) -> Process:
    """An AR(1) chain of tokens with two correlated columns."""
    t = torch.arange(tokens, dtype=torch.float64)
    columns = torch.tensor([[1.0, 0.5], [0.5, 0.8]], dtype=torch.float64)
    mean = torch.stack([torch.sin(t), 0.3 * t - 0.5], dim=-1)
    return Process(mean, torch.kron(correlation ** (t[:, None] - t[None, :]).abs(), columns))


class ExactDenoiser(nn.Module):
    """E[x0 | x_k] of a process for tokens at levels of their own, said as x0, eps or v."""

    def __init__(self, process: Process, schedule: NoiseSchedule, prediction: Prediction = "x0"):
        super().__init__()
        self.process, self.prediction = process, prediction
        self.alpha_bar = schedule.alpha_bar.double()

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        shared = bool((k == k[:1]).all())
        levels, index = k[:1], torch.zeros(len(k), dtype=torch.long)
        if not shared:
            levels, index = k.unique(dim=0, return_inverse=True)
        a = self.alpha_bar[levels].repeat_interleave(self.process.C, dim=1)
        S = torch.diag_embed(a.sqrt())
        gain, _ = self.process.observe(S, 1 - a)
        gain, offset = gain.to(x.dtype), (self.process.mean - gain @ S @ self.process.mean).to(x.dtype)
        flat = x.flatten(1)
        product = flat @ gain[0].T if shared else torch.einsum("bij,bj->bi", gain[index], flat)
        x0 = (product + offset[index]).view_as(x)
        if self.prediction == "x0":
            return x0
        a = self.alpha_bar[k].unsqueeze(-1).to(x.dtype)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt().clamp(min=1e-6)
        return eps if self.prediction == "eps" else a.sqrt() * eps - (1 - a).sqrt() * x0


def exact(process: Process, levels: int = 100, prediction: Prediction = "x0", **options) -> Diffusion:
    """The process as a Diffusion with its exact denoiser."""
    schedule = NoiseSchedule("cosine", levels)
    return Diffusion(ExactDenoiser(process, schedule, prediction), schedule, prediction, **options)


def posterior_variance(process: Process, alpha_bar: Tensor, row: Tensor) -> Tensor:
    """Variance of each clean token given all noisy ones at the levels of a row (T,), summed over its columns: (T,)."""
    a = alpha_bar[row].repeat_interleave(process.C)
    _, covariance = process.observe(torch.diag(a.sqrt()), 1 - a)
    return covariance.diagonal().view(process.T, process.C).sum(1)


class Perturbed(nn.Module):
    """Another network's answer, and a step away from it along a fixed direction in what it was shown."""

    def __init__(self, model, size):
        super().__init__()
        self.model, self.size = model, size

    def forward(self, x, k):
        return self.model(x, k) + self.size * torch.cos(3 * x + k.unsqueeze(-1))


def at_own_speeds(tokens: int, levels: int) -> Tensor:
    """A matrix of a user: tokens fall by curves of their own, some fast at first and some late."""
    u = torch.linspace(0, 1, levels + 1).unsqueeze(1)
    return torch.round(levels * (1 - u ** torch.tensor([1.0, 0.6, 1.7, 0.8, 1.3, 2.0])[:tokens])).long()


MATRICES = {
    "full_sequence": lambda T, K: full_sequence(T, K, K),
    "autoregressive": lambda T, K: autoregressive(T, K, K),
    "pyramid, lag 0.1": lambda T, K: pyramid(T, K, K, 0.1 * K),
    "pyramid, lag 0.4": lambda T, K: pyramid(T, K, K, 0.4 * K),
    "trapezoid": lambda T, K: trapezoid(T, K, K, 0.3 * K),
    "backwards": lambda T, K: from_lag(torch.arange(T).flip(0) * 0.2 * K, K, K),
    "each token at its own speed": at_own_speeds,
}
"""For T tokens and K levels, in as many steps: so that twice the levels are the same way with half the step."""


def ddim_moments(diffusion, process, matrix, known=None, **options) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of `sample` with eta = 0, exactly.

    With a linear denoiser DDIM is an affine function of the initial noise: some dozen samples give it, and with it the
    moments. ``known(diffusion, batch)`` makes known tokens.
    """
    batch = 64
    given = None if known is None else known(diffusion, batch)
    shape = (batch, process.T, process.C)
    drawn = sample(diffusion, matrix, shape, torch.Generator().manual_seed(0), known=given, record=True, **options)
    noise, k = drawn.history[0]
    if given is not None:
        signal, share = diffusion.schedule.signal(k)[..., None], diffusion.schedule.noise(k)[..., None]
        added = (noise - signal * given.tokens) / share.clamp(min=1e-6) if given.level and not given.noisy else 0.0
        noise = torch.where(given.mask.unsqueeze(-1), added, noise)
    return affine_moments(noise, drawn.tokens)


def affine_moments(noise: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of ``out`` (N, ...), an affine function of standard normal ``noise`` (N, ...)."""
    noise, out = noise.flatten(1).double(), out.detach().flatten(1).double()
    inputs = torch.cat([noise, torch.ones(len(noise), 1, dtype=torch.float64)], dim=1)
    fit = torch.linalg.lstsq(inputs, out, driver="gelsd").solution
    assert (inputs @ fit - out).abs().max() < 2e-3, "with a linear denoiser this must be an affine function"
    return fit[-1], fit[:-1].T @ fit[:-1]


def limit(moments, steps: int = 60) -> tuple[Tensor, Tensor]:
    """moments(steps), with an error that falls as 1 / steps, extrapolated to infinitely many (Richardson)."""
    coarse, fine = moments(steps), moments(2 * steps)
    return 2 * fine[0] - coarse[0], 2 * fine[1] - coarse[1]


def assert_close(found, expected, tolerance: float) -> None:
    """Two pairs of mean and covariance agree within an absolute tolerance (deviations here are about 1)."""
    for name, f, e in zip(("mean", "covariance"), found, expected, strict=True):
        worst = (f - e).abs().max().item()
        assert worst < tolerance, f"{name} is off by {worst:.4f}"


def assert_moments(samples: Tensor, mean: Tensor, covariance: Tensor, bias: float = 0.0) -> None:
    """Samples (N, ...) have this mean and covariance, within 4.5 standard errors and the share ``bias`` of deviations.

    4.5 standard errors: with some hundred numbers tested, a right sampler fails about once in a thousand seeds.
    """
    samples = samples.flatten(1).double()
    N = len(samples)
    deviation = covariance.diagonal().sqrt()
    scale = deviation[:, None] * deviation[None, :]
    error = (samples.mean(0) - mean).abs()
    allowed = (4.5 / N**0.5 + bias) * deviation + 1e-5
    assert bool((error <= allowed).all()), f"mean is off by {error} where {allowed} is allowed"
    error = (torch.cov(samples.T) - covariance).abs()
    allowed = 4.5 * ((scale**2 + covariance**2) / N).sqrt() + bias * scale + 1e-5
    assert bool((error <= allowed).all()), f"covariance is off by {error} where {allowed} is allowed"
