"""Diffusion over tokens with a level each: the training loss (Algorithm 1), the denoiser, and the variational bound."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from dfplan.levels import Levels
from dfplan.schedules import Denoised, NoiseSchedule, Prediction

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

        Sum over the rows of a scheduling matrix of KL(q(x_next | x, x0) || p(x_next | x)), plus the prior's KL, plus
        the Gaussian likelihood of a token's last step to level 0, whose variance is that of the noise it removes,
        (1 - a) / a (Ho et al. 2020, eq. 5; for independent levels Chen et al. 2024, theorem 3.1). Any valid matrix
        gives a bound: the order in which tokens are resolved is the order in which the sequence is factorised.
        Each row's noise is drawn afresh: a row's terms depend on its own marginal alone, not on the path to it.
        """
        schedule = self.schedule
        a_last = schedule.alpha_bar[-1]
        D = x0[0].numel()
        prior = 0.5 * (a_last * x0.square().flatten(1).sum(1) - D * a_last - D * torch.log1p(-a_last))
        total = prior
        for row in range(len(matrix) - 1):
            k, k_next = matrix[row].expand(x0.shape[:2]), matrix[row + 1].expand(x0.shape[:2])
            if torch.equal(k, k_next):
                continue
            eps = torch.randn(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
            x = schedule.add_noise(x0, k, eps)
            guess = self.denoise(x, k).x0
            error = (guess - x0).square().sum(-1)
            snr, snr_next = schedule.snr(k), schedule.snr(k_next)
            kl = 0.5 * (snr_next - snr) * error
            likelihood = 0.5 * (snr * error + x0.shape[-1] * (math.log(2 * math.pi) - torch.log(snr)))
            term = torch.where(k_next == 0, likelihood, kl)
            total = total + torch.where(k_next < k, term, torch.zeros_like(term)).sum(1)
        return total


def fused_signal(signal: Tensor, decay: float, past: Tensor | None = None) -> Tensor:
    """1 - (1 - decay * S_{t-1}) (1 - s_t), where S is the moving average of the past tokens' signal; all (B, T)."""
    past = signal if past is None else past
    average = torch.zeros_like(signal[:, 0])
    fused = []
    for t in range(signal.shape[1]):
        fused.append(1 - (1 - decay * average) * (1 - signal[:, t]))
        average = past[:, t] if t == 0 else decay * average + (1 - decay) * past[:, t]
    return torch.stack(fused, dim=1)
