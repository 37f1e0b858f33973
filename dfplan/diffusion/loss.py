"""Diffusion over tokens with a level each: the training loss (Algorithm 1), the denoiser, and the variational bound."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from dfplan.diffusion.levels import Levels
from dfplan.diffusion.noise import Denoised, NoiseSchedule, Prediction

Weighting = Literal["uniform", "min_snr", "fused_snr"]


class Diffusion(nn.Module):
    """A denoiser network with the noise schedule it was trained on and the quantity it predicts.

    ``model(x (B, T, C), k (B, T)) -> (B, T, C)`` is any network, or, in tests, an exact denoiser.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: NoiseSchedule,
        prediction: Prediction = "v",
        weighting: Weighting = "min_snr",
        snr_clip: float = 5.0,
        snr_decay: float = 0.9,
    ):
        super().__init__()
        if prediction not in ("x0", "eps", "v"):
            raise ValueError(f"unknown prediction {prediction!r}: expected 'x0', 'eps' or 'v'")
        if weighting not in ("uniform", "min_snr", "fused_snr"):
            raise ValueError(f"unknown weighting {weighting!r}: expected 'uniform', 'min_snr' or 'fused_snr'")
        self.model, self.schedule = model, schedule
        self.prediction, self.weighting = prediction, weighting
        self.snr_clip, self.snr_decay = snr_clip, snr_decay

    @property
    def levels(self) -> int:
        return self.schedule.levels

    def denoise(self, x: Tensor, k: Tensor) -> Denoised:
        """Clean value and noise of every token, (B, T, C) each, from noisy tokens x at levels k (B, T)."""
        return self.schedule.interpret(self.model(x, k), x, k, self.prediction)

    def loss(self, x0: Tensor, levels: Levels, generator: torch.Generator) -> Tensor:
        """Algorithm 1: noise each token to its own level, predict, and take the weighted squared error.

        x0 (B, T, C) normalised clean tokens. Returns the mean over the counted tokens, a scalar.
        """
        eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
        x = self.schedule.add_noise(x0, levels.k, eps)
        target = self.schedule.target(x0, levels.k, eps, self.prediction)
        error = (self.model(x, levels.k) - target).square().mean(dim=-1)
        weight = self.weight(levels.k) * levels.counted
        return (error * weight).sum() / levels.counted.sum().clamp(min=1)

    def weight(self, k: Tensor) -> Tensor:
        """Loss weight of each token (B, T), for the error of the predicted quantity.

        'uniform' is 1, whatever is predicted: on x0 that means 1, snr and snr + 1 for x0, eps and v. 'min_snr' weighs
        the error of x0 by min(snr, clip) (Hang et al. 2023); 'fused_snr' likewise with the signal of the past counted
        in, because a noisy token after clean ones is not as unknown as its own level says (Chen et al. 2024, appendix,
        fused SNR). Errors of eps and v are those of x0 times snr and snr + 1, and so divided by them.
        """
        if self.weighting == "uniform":
            return torch.ones_like(k, dtype=torch.float32)
        snr = self.schedule.snr(k.clamp(min=1))
        x0_weight = snr.clamp(max=self.snr_clip)
        if self.weighting == "fused_snr":
            share = fused_signal(x0_weight / self.snr_clip, self.snr_decay)
            snr = fused_signal(snr / self.snr_clip, self.snr_decay, past=x0_weight / self.snr_clip) * self.snr_clip
            x0_weight = share * self.snr_clip
        if self.prediction == "x0":
            return x0_weight
        if self.prediction == "eps":
            return x0_weight / snr
        return x0_weight / (snr + 1)

    @torch.no_grad()
    def bound(self, x0: Tensor, matrix: Tensor, generator: torch.Generator) -> Tensor:
        """One-sample estimate of a variational upper bound on -log p(x0), in nats for each sequence: (B,).

        The prior's KL, plus the sum over the rows of a scheduling matrix of KL(q(x_next | x, x0) || p(x_next | x));
        a token's last step, to level 0, counts -log p(x0 | x) instead (Ho et al. 2020, eq. 5; for independent levels
        Chen et al. 2024, theorem 3.1). Any valid matrix gives a bound: the order in which tokens are resolved is the
        order in which the sequence is factorised. Each row's noise is drawn afresh: its terms depend on its own
        marginal alone.

        The variance of p is free. Here it is the one that is exact for white tokens of unit variance, whose clean value
        is uncertain by 1 - alpha_bar: then the bound tends to -log p(x0) with many levels. The posterior's own
        variance, which `sample` uses with eta = 1, takes the prediction for certain, and leaves a gap that more levels
        do not close.
        """
        a_bar = self.schedule.alpha_bar.double()
        C = x0.shape[-1]
        power = x0.double().square().flatten(1)
        total = 0.5 * (a_bar[-1] * power - a_bar[-1] - torch.log1p(-a_bar[-1])).sum(1)
        for row, row_next in pairwise(matrix):
            if torch.equal(row, row_next):
                continue
            k, k_next = row.expand(x0.shape[:2]), row_next.expand(x0.shape[:2])
            eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
            guess = self.denoise(self.schedule.add_noise(x0, k, eps), k).x0
            error = (guess - x0).double().square().sum(-1)
            a, a_next = a_bar[k], a_bar[k_next]
            step = 1 - a / a_next
            pull = a_next.sqrt() * step / (1 - a)  # how far the posterior's mean follows the clean token
            true = (1 - a_next) / (1 - a) * step
            assumed = true + pull**2 * (1 - a)
            spread = torch.where(k_next == 0, math.log(2 * math.pi), true / assumed - 1 - torch.log(true))
            term = 0.5 * (pull**2 * error / assumed + C * (torch.log(assumed) + spread))
            total = total + torch.where(k_next < k, term, 0.0).sum(1)
        return total.to(x0.dtype)


def fused_signal(signal: Tensor, decay: float, past: Tensor | None = None) -> Tensor:
    """1 - (1 - decay * S_{t-1}) (1 - s_t), where S is the moving average of the past tokens' signal; all (B, T)."""
    past = signal if past is None else past
    average = torch.zeros_like(signal[:, 0])
    fused = []
    for t in range(signal.shape[1]):
        now = signal[:, t]
        fused.append(now + decay * average * (1 - now))  # as in the docstring, but exact for the smallest signals
        average = past[:, t] if t == 0 else decay * average + (1 - decay) * past[:, t]
    return torch.stack(fused, dim=1)
