"""Monte Carlo guidance: the mean cost over sampled futures (Chen et al. 2024, sec. 3.3).

What an agent decides is the near part of a sequence. The rest may become many things, and a cost of the whole depends on which.
So the cost is averaged over futures:

- A future is one joint draw of all undecided tokens given the others as noisy as they are, without guidance, by DDIM from fresh
  noise at level K down to 0. One step would give the network's mean and no draw; eight steps or so give draws.
- The costs of the futures are averaged, not the futures: the mean of the costs, not the cost of the mean. Both are the same
  for a linear cost. For any other, the mean of two outcomes, which never occurs, may look better than either.
- Guidance moves what is decided alone. It does not choose the luck that follows.

The gradient of the mean cost leads through the futures to what is decided (`mean_cost_gradient`). Costs without a gradient
weigh candidates of what is decided instead (`sample_candidates`). A cost gets all futures as one batch of N * B sequences,
future after future, so that row r is a future of sequence r % B.
"""

import torch
from torch import Generator, Tensor

from dfplan.diffusion.costs import Cost, cost_gradient, cost_of
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import noise_like, per_column


def sample_futures(
    diffusion: Diffusion, x: Tensor, k: Tensor, undecided: Tensor, futures: int, steps: int, generator: Generator
) -> Tensor:
    """Predicted clean tokens (N, B, T, C) of N futures of noisy tokens x (B, T, C) at levels k (B, T) or (B, T, C).

    What is `undecided`, a mask in the shape of k, falls from K to 0 in `steps`. Without futures, or with nothing undecided,
    it is the one prediction, N = 1. Differentiable in x where gradients are enabled."""
    if not (futures and bool(undecided.any())):
        return diffusion.denoise(x, k).x0.unsqueeze(0)
    x, k, undecided = _redrawn(diffusion.K, x, k, undecided, futures, generator)
    return _fall(diffusion, x, k, undecided, steps, generator, eta=0.0).unflatten(0, (futures, -1))


def sample_candidates(
    diffusion: Diffusion,
    x: Tensor,
    k: Tensor,
    decided: Tensor,
    undecided: Tensor,
    candidates: int,
    steps: int,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """M candidates, candidate after candidate: tokens (M * B, T, C), their levels, and what is undecided of them.

    What is `decided` is drawn from its distribution given x, in `steps`, by DDPM; it is then clean. Masks have the shape of k.
    """
    x, k, undecided = _redrawn(diffusion.K, x, k, undecided, candidates, generator)
    decided = decided.repeat(candidates, *(1,) * (decided.ndim - 1))
    drawn = _fall(diffusion, x, k, decided, steps, generator, eta=1.0)
    return torch.where(per_column(decided, x), drawn, x), torch.where(decided, 0, k), undecided


def mean_cost(cost: Cost, futures: Tensor) -> Tensor:
    """Mean cost (B,) of futures (N, B, T, C). Raises CostError as `dfplan.diffusion.costs.cost_of`."""
    return cost_of(cost, futures.flatten(0, 1)).unflatten(0, futures.shape[:2]).mean(0)


def mean_cost_gradient(cost: Cost, futures: Tensor, x: Tensor) -> Tensor:
    """Gradient (B, T, C), with respect to x (B, T, C), of the mean cost of futures (N, B, T, C) that depend on x.

    Raises CostError as `dfplan.diffusion.costs.cost_gradient`."""
    gradient = cost_gradient(cost, futures.flatten(0, 1), 1 / len(futures))
    return torch.autograd.grad(futures, x, gradient.view_as(futures))[0]


def _redrawn(
    K: int, x: Tensor, k: Tensor, undecided: Tensor, copies: int, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """x, k and the mask (copies * B, ...), copy after copy; what is undecided is fresh noise at level K in each."""
    x, k, undecided = (v.repeat(copies, *(1,) * (v.ndim - 1)) for v in (x, k, undecided))
    x = torch.where(per_column(undecided, x), noise_like(x, generator), x)
    return x, torch.where(undecided, K, k), undecided


def _fall(
    diffusion: Diffusion, x: Tensor, k: Tensor, falling: Tensor, steps: int, generator: Generator, eta: float
) -> Tensor:
    """The clean tokens that are predicted last while what is `falling` falls from its own level to 0 in `steps`.

    Steps are of second order: a prediction's change since the step before goes on (Lu et al. 2022, DPM-Solver++(2M)). They are
    small near the noise: which of several outcomes a future takes is decided there, the earlier the more tokens show it, and a
    step over it leaves too many futures at the mean."""
    done = [step / steps for step in range(steps + 1)]
    levels = [torch.where(falling, (k * (1 - s * s * (2 - s))).round().long(), k) for s in done]
    log_snr = [diffusion.schedule.snr(level).log() for level in levels]
    x0 = towards = diffusion.denoise(x, k).x0
    for step in range(1, steps):
        x, std = diffusion.schedule.posterior(towards, x, levels[step - 1], levels[step], eta)
        if eta:
            x = x + std * noise_like(x, generator)
        before, x0 = x0, diffusion.denoise(x, levels[step]).x0
        ratio = (log_snr[step + 1] - log_snr[step]) / (log_snr[step] - log_snr[step - 1])
        towards = x0 + per_column(ratio.nan_to_num(0, 0, 0), x) / 2 * (x0 - before)
    return x0
