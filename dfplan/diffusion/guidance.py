"""Guidance: each denoising step is moved towards a low cost of the predicted clean tokens."""

import warnings
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from dfplan.diffusion.costs import Cost
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.monte_carlo import mean_cost, mean_cost_gradient, sample_candidates, sample_futures
from dfplan.diffusion.noise import Denoised, per_column
from dfplan.fields import Size, SizeOrZero, check_fields


@dataclass(frozen=True)
class Guidance:
    """A cost, how strongly it steers, and how the tokens that it judges are predicted.

    `futures = 0` is plain guidance: the cost of the one prediction from the tokens as they are. `futures = N >= 1` is
    Monte Carlo guidance: the mean cost of N sampled futures of the undecided tokens (`dfplan.diffusion.monte_carlo`).
    Either is exact for a linear cost of Gaussian tokens: it samples p(x) exp(-scale * cost). Else the gradient is an
    approximation: the prediction is judged as if it were certain. With a curved cost that pulls too hard while much is
    undecided. `candidates` need no gradient, and many of them with many futures are exact for any cost.

    Raises ValueError for fields out of range; warns of futures that take a single step, because that is no draw."""

    cost: Cost
    scale: float = 1.0
    """How many times the cost's gradient is added to the score; 0 is off."""
    futures: SizeOrZero = 0
    """Number N of sampled futures, or 0 for plain guidance."""
    future_steps: Size = 8
    """Denoising steps that draw a future or a candidate; 1 gives the network's mean, and only more give samples."""
    decided: SizeOrZero = 0
    """Tokens after the start that are the agent's to decide: only these are moved, and the others are redrawn in each future;
    0: what has begun to fall is decided."""
    candidates: SizeOrZero = 0
    """Draws of what is decided, which are weighed by exp(-scale * cost); 0 follows the cost's gradient."""
    fading: bool = False
    """Whether the gradient moves a token less the noisier it is, by a factor of about alpha_bar, and not at all in the token's
    last step, as in the paper's published code. It does not concern `candidates`, which have no gradient."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scale and self.futures and self.future_steps == 1:
            warnings.warn(
                f"guidance with futures={self.futures} and future_steps=1 draws no futures, because one step from pure noise "
                "gives the network's mean: set future_steps to 8 or so, or futures to 0",
                stacklevel=3,
            )

    def undecided(self, k_next: Tensor, known: Tensor, K: int) -> Tensor:
        """What futures draw anew, of tokens that fall to levels k_next in this step, in the shape of k_next and `known`: what
        stays pure noise or lies beyond the `decided` tokens, and is not known."""
        if not self.decided:
            return (k_next == K) & ~known
        position = torch.arange(k_next.shape[1], device=k_next.device).view(-1, *(1,) * (k_next.ndim - 2))
        return (position > self.decided) & ~known

    def denoise(
        self, diffusion: Diffusion, x: Tensor, k: Tensor, k_next: Tensor, known: Tensor, generator: Generator
    ) -> Denoised:
        """The prediction from noisy tokens x (B, T, C) at levels k, (B, T) or (B, T, C), that fall to k_next, moved towards a
        low cost where it is decided.

        A gradient does not move what is at level K: noise holds nothing of x0 there, and what the gradient finds in it is
        the network's error. Raises CostError for a cost that is none."""
        undecided = self.undecided(k_next, known, diffusion.K)
        decided = ~(undecided | known) & (k > 0)
        moves = decided if self.candidates else decided & (k < diffusion.K)
        if not bool(moves.any()):
            return diffusion.denoise(x, k)
        signal, noise = (per_column(part(k), x) for part in (diffusion.schedule.signal, diffusion.schedule.noise))
        if self.candidates:
            plain = diffusion.denoise(x, k)
            moved = (x - signal * self.weighed(diffusion, x, k, decided, undecided, generator)) / noise
        else:  # Dhariwal & Nichol 2021, Algorithm 2
            plain, gradient = self.gradient(diffusion, x, k, undecided, generator)
            factor = self._fade(diffusion, x, k, k_next) if self.fading else 1
            moved = plain.eps + self.scale * noise * gradient * factor
        moves = per_column(moves, x)
        return Denoised(
            torch.where(moves, (x - noise * moved) / signal, plain.x0), torch.where(moves, moved, plain.eps)
        )

    def _fade(self, diffusion: Diffusion, x: Tensor, k: Tensor, k_next: Tensor) -> Tensor:
        """Factors of the gradient by which the noisy sample moves by (n - n') n times it, with n and n' the noise before and
        after a step of DDIM; 0 where that is the last one."""
        schedule = diffusion.schedule
        s, n = (per_column(part(k), x) for part in (schedule.signal, schedule.noise))
        s_next, n_next = (per_column(part(k_next), x) for part in (schedule.signal, schedule.noise))
        turned = (n * s_next - n_next * s).clamp(min=1e-12)
        return torch.where(per_column((k_next > 0) & (k_next < k), x), (n - n_next) * s / turned, 0.0)

    def gradient(
        self, diffusion: Diffusion, x: Tensor, k: Tensor, undecided: Tensor, generator: Generator
    ) -> tuple[Denoised, Tensor]:
        """The network's prediction from noisy tokens x at levels k, and the gradient (B, T, C) of the mean cost with respect to
        x, through the network; a mask says what is undecided. Raises CostError for a cost that is none."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            predicted = diffusion.denoise(x, k)
            judged = predicted.x0.unsqueeze(0)
            if self.futures and bool(undecided.any()):
                judged = sample_futures(diffusion, x, k, undecided, self.futures, self.future_steps, generator)
        return Denoised(*(part.detach() for part in predicted)), mean_cost_gradient(self.cost, judged, x)

    def weighed(
        self, diffusion: Diffusion, x: Tensor, k: Tensor, decided: Tensor, undecided: Tensor, generator: Generator
    ) -> Tensor:
        """The mean (B, T, C) of what is decided under p(x0 | x) exp(-scale * J), J the mean cost given x0. With few futures J
        is noisy, and a lucky candidate weighs too much. Raises CostError for a cost that is none."""
        M, N, steps = self.candidates, self.futures, self.future_steps
        drawn, level, rest = sample_candidates(diffusion, x, k, decided, undecided, M, steps, generator)
        J = mean_cost(self.cost, sample_futures(diffusion, drawn, level, rest, N, steps, generator))
        weight = torch.softmax(-self.scale * J.unflatten(0, (M, -1)), 0)
        return torch.einsum("mb,mbtc->btc", weight, drawn.unflatten(0, (M, -1)))
