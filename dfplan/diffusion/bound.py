"""The variational bound: what a denoiser is worth as a model of the data, in nats."""

import math
from itertools import pairwise

import torch
from torch import Generator, Tensor

from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import noise_like


@torch.no_grad()
def bound(diffusion: Diffusion, x0: Tensor, matrix: Tensor, generator: Generator) -> Tensor:
    """One-sample estimate (B,) of an upper bound on -log p(x0), in nats for each sequence of x0 (B, T, C).

    The prior's KL, plus the sum over the rows of a scheduling matrix (M + 1, T) of KL(q(x_next | x, x0) || p(x_next | x));
    a token's last step, to level 0, counts -log p(x0 | x) instead (Ho et al. 2020, eq. 5; for independent levels Chen et
    al. 2024, theorem 3.1). Any valid matrix gives a bound: it is the order in which the sequence is factorized.

    The variance of p is free. Here it is exact for white tokens of unit variance, whose clean value is uncertain by
    1 - alpha_bar: the bound tends to -log p(x0) with many levels. The posterior's own variance, which the sampler uses with
    eta = 1, takes the prediction for certain, and leaves a gap that more levels do not close.
    """
    a_bar, C = diffusion.schedule.alpha_bar.double(), x0.shape[-1]
    total = 0.5 * (a_bar[-1] * x0.double().square().flatten(1) - a_bar[-1] - torch.log1p(-a_bar[-1])).sum(1)
    for row, row_next in pairwise(matrix):
        if torch.equal(row, row_next):
            continue
        k, k_next = row.expand(x0.shape[:2]), row_next.expand(x0.shape[:2])
        eps = noise_like(x0, generator)  # afresh: terms are marginal
        guess = diffusion.denoise(diffusion.schedule.add_noise(x0, k, eps), k).x0
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
