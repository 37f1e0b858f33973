"""Noise schedules: how much signal is left at noise level k.

A level is an integer from 0 (clean) to K (pure noise). The forward process is
`x_k = sqrt(alpha_bar_k) x_0 + sqrt(1 - alpha_bar_k) eps` (Ho et al. 2020, eq. 4), for each token at its own level. Columns of
one token may have different levels too: a part of it is then known while another is not. Not to be confused with a scheduling
matrix (`dfplan.diffusion.matrices`), the level of each token at each row of sampling.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

ScheduleName = Literal["linear", "cosine", "sigmoid"]
Prediction = Literal["x0", "eps", "v"]

MAX_BETA = 0.999  # Nichol & Dhariwal 2021, sec. 3.2: keeps alpha_bar[K] above zero, so that eps stays defined


class Denoised(NamedTuple):
    """What a denoiser predicts of noisy tokens: their clean values and their noise, of unit variance, (B, T, C) each."""

    x0: Tensor
    eps: Tensor


def alpha_bar(name: ScheduleName, K: int) -> Tensor:
    """The share of signal power left at each level: (K + 1,) float64, from 1 at level 0, strictly falling.

    linear: Ho et al. 2020, betas rescaled to K levels; cosine: Nichol & Dhariwal 2021, eq. 17; sigmoid: Jabri et al. 2022,
    eq. 2 with start -3, end 3, tau 1. Raises ValueError for another name and for K < 1."""
    if K < 1:
        raise ValueError(f"a noise schedule needs at least one level, got {K}")
    t = torch.linspace(0, 1, K + 1, dtype=torch.float64)
    if name == "linear":
        beta = torch.linspace(1e-4 * (1000 / K), 2e-2 * (1000 / K), K, dtype=torch.float64)
    elif name == "cosine":
        f = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = 1 - f[1:] / f[:-1]
    elif name == "sigmoid":
        f = torch.sigmoid(torch.tensor(3.0, dtype=torch.float64)) - torch.sigmoid(6 * t - 3)
        beta = 1 - f[1:] / f[:-1]
    else:
        raise ValueError(f"unknown noise schedule {name!r}: expected 'linear', 'cosine' or 'sigmoid'")
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta.clamp(max=MAX_BETA), dim=0)])


def per_column(k: Tensor, x: Tensor) -> Tensor:
    """Levels or a mask, of each token (B, T) or of each column of it (B, T, C), so that they broadcast with x (B, T, C)."""
    return k if k.ndim == x.ndim else k.unsqueeze(-1)


def noise_like(x: Tensor, generator: Generator) -> Tensor:
    """Noise of unit variance in the shape, type and place of x."""
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)


class NoiseSchedule(nn.Module):
    """The forward process and its exact posteriors, for tokens that each have a level of their own.

    Methods take x (B, T, C) and levels k: (B, T) for whole tokens, or (B, T, C). ValueError as of `alpha_bar`."""

    alpha_bar: Tensor

    def __init__(self, name: ScheduleName = "cosine", K: int = 256):
        super().__init__()
        self.K = K
        with torch.device("cpu"):  # where a model has shapes alone, computing loads torch's compiler: two seconds
            values = alpha_bar(name, K).float()
        self.register_buffer("alpha_bar", values.to(torch.get_default_device()), persistent=False)

    def signal(self, k: Tensor) -> Tensor:
        """sqrt(alpha_bar_k), shape of k."""
        return self.alpha_bar[k].sqrt()

    def noise(self, k: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar_k), shape of k."""
        return (1 - self.alpha_bar[k]).sqrt()

    def snr(self, k: Tensor) -> Tensor:
        """Signal-to-noise ratio alpha_bar / (1 - alpha_bar), shape of k; infinite at level 0."""
        return self.alpha_bar[k] / (1 - self.alpha_bar[k])

    def add_noise(self, x0: Tensor, k: Tensor, eps: Tensor) -> Tensor:
        """x_k ~ q(x_k | x_0); level 0 returns x_0 bit for bit."""
        k = per_column(k, x0)
        return self.signal(k) * x0 + self.noise(k) * eps

    def target(self, x0: Tensor, k: Tensor, eps: Tensor, prediction: Prediction) -> Tensor:
        """What the network is trained to predict: x0, eps, or v = sqrt(a) eps - sqrt(1 - a) x0 (Salimans & Ho 2022)."""
        if prediction == "v":
            k = per_column(k, x0)
            return self.signal(k) * eps - self.noise(k) * x0
        return x0 if prediction == "x0" else eps

    def interpret(self, output: Tensor, x: Tensor, k: Tensor, prediction: Prediction) -> Denoised:
        """Clean values and noise that a network's output (B, T, C) stands for. What is at level 0 is returned as it is."""
        k = per_column(k, x)
        s, n, clean = self.signal(k), self.noise(k), k == 0
        if prediction == "x0":
            x0 = output
        elif prediction == "eps":
            x0 = (x - n * output) / s
        else:
            x0 = s * x - n * output
        eps = torch.where(clean, torch.zeros_like(x), (x - s * x0) / n.clamp(min=1e-12))
        return Denoised(torch.where(clean, x, x0), eps)

    def posterior(self, x0: Tensor, x: Tensor, k: Tensor, k_next: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor]:
        """Mean (B, T, C) and standard deviation, (B, T, 1) or (B, T, C), of q_eta(x_{k_next} | x_k, x_0), for k_next <= k.

        eta = 1 is the forward process's own posterior (Ho et al. 2020, eq. 6-7, over any number of levels at once);
        eta = 0 is DDIM's deterministic step (Song et al. 2021, eq. 12). What has k_next = k does not move."""
        k, k_next = per_column(k, x), per_column(k_next, x)
        a, a_next, moving = self.alpha_bar[k], self.alpha_bar[k_next], k_next < k
        noise_power = torch.where(moving, 1 - a, torch.ones_like(a))
        std = eta * ((1 - a_next) / noise_power * (1 - a / a_next)).clamp(min=0).sqrt()
        eps = (x - a.sqrt() * x0) / noise_power.sqrt()
        mean = a_next.sqrt() * x0 + (1 - a_next - std**2).clamp(min=0).sqrt() * eps
        return torch.where(moving, mean, x), torch.where(moving, std, torch.zeros_like(std))
