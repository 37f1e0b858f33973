"""Diffusion over tokens that each have a level: the denoiser and its training loss (Chen et al. 2024, Algorithm 1)."""

from typing import Literal

import torch
from torch import Tensor, nn

from dfplan.diffusion.levels import Drawn
from dfplan.diffusion.noise import Denoised, NoiseSchedule, Prediction, noise_like, per_column

Weighting = Literal["uniform", "min_snr", "fused_snr"]
SNR_CLIP, SNR_DECAY = 5.0, 0.9
"""Constants of `Diffusion.weight`, as the papers have them."""


class Diffusion(nn.Module):
    """A denoiser network with the noise schedule that it was trained on and the quantity that it predicts.

    `model(x (B, T, C), k (B, T)) -> (B, T, C)` is any network, or, in tests, an exact denoiser; K is the level of pure
    noise. Levels k may be (B, T, C) everywhere, one for each column, if the network takes them so. ValueError for an unknown
    prediction or weighting.
    """

    def __init__(
        self, model: nn.Module, schedule: NoiseSchedule, prediction: Prediction = "v", weighting: Weighting = "min_snr"
    ):
        super().__init__()
        if prediction not in ("x0", "eps", "v"):
            raise ValueError(f"unknown prediction {prediction!r}: expected 'x0', 'eps' or 'v'")
        if weighting not in ("uniform", "min_snr", "fused_snr"):
            raise ValueError(f"unknown weighting {weighting!r}: expected 'uniform', 'min_snr' or 'fused_snr'")
        self.model, self.schedule, self.K = model, schedule, schedule.K
        self.prediction, self.weighting = prediction, weighting

    def denoise(self, x: Tensor, k: Tensor) -> Denoised:
        """Clean values and noise, (B, T, C) each, from noisy tokens x (B, T, C) at levels k (B, T)."""
        return self.schedule.interpret(self.model(x, k), x, k, self.prediction)

    def loss(self, x0: Tensor, drawn: Drawn, generator: torch.Generator) -> Tensor:
        """Algorithm 1: add noise to each token by its own level, predict, and take the weighted squared error.

        x0 (B, T, C) are normalized clean tokens, `drawn` their levels. Returns the mean over what is counted, a scalar.
        """
        eps = noise_like(x0, generator)
        x = self.schedule.add_noise(x0, drawn.k, eps)
        target = self.schedule.target(x0, drawn.k, eps, self.prediction)
        error = (self.model(x, drawn.k) - target).square()
        counted = per_column(drawn.counted, x0).expand_as(x0)
        return (error * per_column(self.weight(drawn.k), x0) * counted).sum() / counted.sum().clamp(min=1)

    def weight(self, k: Tensor) -> Tensor:
        """Loss weight of each token, shape of k, for the error of the predicted quantity.

        The error of eps is that of x0 times snr, and the error of v that of x0 times snr + 1. 'uniform' weighs the
        predicted quantity by 1, and so x0 by 1, snr or snr + 1. 'min_snr' weighs x0 by min(snr, clip) (Hang et al. 2023),
        whatever is predicted. 'fused_snr' does the same with the signal of the past added, because a noisy token after
        clean ones is less uncertain than its own level alone would make it (Chen et al. 2024, appendix, fused SNR).
        """
        if self.weighting == "uniform":
            return torch.ones_like(k, dtype=torch.float32)
        snr = self.schedule.snr(k.clamp(min=1))
        x0_weight = snr.clamp(max=SNR_CLIP)
        if self.weighting == "fused_snr":
            past = x0_weight / SNR_CLIP
            x0_weight, snr = (fused_signal(s / SNR_CLIP, past, SNR_DECAY) * SNR_CLIP for s in (x0_weight, snr))
        per_x0: dict[str, Tensor | float] = {"x0": 1.0, "eps": snr, "v": snr + 1}
        return x0_weight / per_x0[self.prediction]


def fused_signal(signal: Tensor, past: Tensor, decay: float) -> Tensor:
    """1 - (1 - decay * S_{t-1}) (1 - s_t), where S is the moving average of the signal of past tokens; all (B, T, ...)."""
    average = torch.zeros_like(signal[:, 0])
    fused = []
    for t in range(signal.shape[1]):
        now = signal[:, t]
        fused.append(now + decay * average * (1 - now))  # as in the docstring, but exact for the smallest signals
        average = past[:, t] if t == 0 else decay * average + (1 - decay) * past[:, t]
    return torch.stack(fused, dim=1)
