"""Guidance: each denoising step is moved along the gradient of a cost of the predicted clean tokens."""

import warnings
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from dfplan.diffusion.costs import Cost
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.monte_carlo import mean_cost_gradient, sample_futures
from dfplan.diffusion.noise import Denoised, per_column
from dfplan.fields import Size, SizeOrZero, check_fields


@dataclass(frozen=True)
class Guidance:
    """A cost, how strongly it steers, and how the tokens that it judges are predicted.

    `futures = 0` is plain guidance: the cost of the one prediction from the tokens as they are. `futures = N >= 1` is
    Monte Carlo guidance: the mean cost of N sampled futures of the undecided tokens (`dfplan.diffusion.monte_carlo`).
    Either is exact for a linear cost: it samples p(x) exp(-scale * cost). For a curved cost it is an approximation: the
    prediction is judged as if it were certain, which pulls too hard while much is undecided.

    Raises ValueError for fields out of range; warns of futures that take a single step, because that is no draw.
    """

    cost: Cost
    scale: float = 1.0
    """How many times the cost's gradient is added to the score; 0 is off."""
    futures: SizeOrZero = 0
    """Number N of sampled futures, or 0 for plain guidance."""
    future_steps: Size = 1
    """Denoising steps that draw a future; 1 gives the network's mean, and only more give samples."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scale and self.futures and self.future_steps == 1:
            warnings.warn(
                f"guidance with futures={self.futures} and future_steps=1 draws no futures, because one step from pure noise "
                "gives the network's mean: set future_steps to 8 or so, or futures to 0",
                UserWarning,
                stacklevel=3,
            )

    def denoise(self, diffusion: Diffusion, x: Tensor, k: Tensor, undecided: Tensor, generator: Generator) -> Denoised:
        """The network's prediction, its noise moved by scale * sqrt(1 - alpha_bar_k) * gradient, and the clean tokens with it
        (Dhariwal & Nichol 2021, Algorithm 2). Arguments and errors as of `gradient`.
        """
        (x0, eps), gradient = self.gradient(diffusion, x, k, undecided, generator)
        k = per_column(k, x)
        signal, noise = diffusion.schedule.signal(k), diffusion.schedule.noise(k)
        eps = eps + self.scale * noise * gradient
        return Denoised(torch.where(k > 0, (x - noise * eps) / signal, x0), eps)

    def gradient(
        self, diffusion: Diffusion, x: Tensor, k: Tensor, undecided: Tensor, generator: Generator
    ) -> tuple[Denoised, Tensor]:
        """The network's prediction from noisy tokens x (B, T, C) at levels k (B, T), and the gradient (B, T, C) of the cost
        with respect to x, through the network. `undecided` (B, T) marks the tokens that stay pure noise in this step:
        where there are none, every future is the one prediction. Raises CostError for a cost that is none.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0, eps = diffusion.denoise(x, k)
            if self.futures and bool(undecided.any()):
                judged = sample_futures(diffusion, x, k, undecided, self.futures, self.future_steps, generator)
            else:
                judged = x0.unsqueeze(0)
        return Denoised(x0.detach(), eps.detach()), mean_cost_gradient(self.cost, judged, x)
