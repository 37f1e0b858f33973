"""Guidance: each denoising step is moved along the gradient of a cost.

The noise that the network predicts is moved by `scale * sqrt(1 - alpha_bar_k) * gradient` (Dhariwal & Nichol 2021,
Algorithm 2), where k is the level at which the step begins. The cost judges predicted clean tokens, the gradient is with
respect to the noisy ones, through the network.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from dfplan.diffusion.costs import Cost
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.monte_carlo import mean_cost_gradient, sample_futures
from dfplan.diffusion.noise import Denoised
from dfplan.fields import Size, SizeOrZero, check_fields


@dataclass(frozen=True)
class Guidance:
    """A cost with its strength, and how the tokens that it judges are predicted.

    `futures = 0` is plain guidance: the cost of the one prediction from the tokens as they are. `futures = N >= 1` is
    Monte Carlo guidance: the mean cost of N sampled futures of the undecided tokens (`dfplan.diffusion.monte_carlo`).

    Either is exact for a linear cost: it samples p(x) exp(-scale * cost). For a curved cost it is an approximation: the
    prediction is judged as if it were certain, which pulls too hard while much is undecided.

    Raises ValueError for fields out of range; warns of futures that take a single step, because that is no draw.
    """

    cost: Cost
    scale: float = 1.0
    """How many times the gradient of the cost is added to the score, in units of one over the cost's; 0 is off."""
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

    def denoise(
        self, diffusion: Diffusion, x: Tensor, k: Tensor, undecided: Tensor, generator: torch.Generator
    ) -> Denoised:
        """The network's prediction from noisy tokens x (B, T, C) at levels k (B, T), moved along the gradient.

        `undecided` (B, T) marks the tokens that stay pure noise in this step. Raises CostError for a cost that is none.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0, eps = diffusion.denoise(x, k)
        gradient = self.gradient(diffusion, x, k, undecided, generator, x0)
        signal, noise = diffusion.schedule.signal(k), diffusion.schedule.noise(k)
        x, x0, eps = x.detach(), x0.detach(), eps.detach() + self.scale * noise * gradient
        return Denoised(torch.where((k > 0).unsqueeze(-1), (x - noise * eps) / signal, x0), eps)

    def gradient(
        self,
        diffusion: Diffusion,
        x: Tensor,
        k: Tensor,
        undecided: Tensor,
        generator: torch.Generator,
        predicted: Tensor | None = None,
    ) -> Tensor:
        """Gradient (B, T, C) of the (mean) cost with respect to noisy tokens x (B, T, C) at levels k (B, T).

        Where no token is `undecided` (B, T), every future is the one prediction, and guidance is plain. `predicted` is
        that prediction, if x asks for a gradient and the network has seen it already. Raises CostError for a cost that
        is none.
        """
        with torch.enable_grad():
            if predicted is None:
                x = x.detach().requires_grad_()
            if self.futures and bool(undecided.any()):
                judged = sample_futures(diffusion, x, k, undecided, self.futures, self.future_steps, generator)
            else:
                judged = (diffusion.denoise(x, k).x0 if predicted is None else predicted).unsqueeze(0)
        return mean_cost_gradient(self.cost, judged, x)
