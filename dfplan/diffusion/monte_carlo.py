"""Monte Carlo guidance: the gradient of the mean cost over sampled futures (Chen et al. 2024, sec. 3.3).

While the first tokens of a plan are decided, those that are still pure noise may become many things, and a cost of the
whole plan depends on which. So the cost is averaged over futures:

- The tokens that are redrawn are the undecided ones: pure noise, also after the row that is guided. All others keep their
  value and their level in every future: known tokens, clean ones, and those that fall.
- A future is one joint draw of all undecided tokens given the others, without guidance, by DDIM from fresh noise at
  level K down to 0. One step from pure noise would give the network's mean and no draw; eight steps or so give draws.
- The costs of the futures are averaged, not the futures: the mean of the costs, not the cost of the mean. Both are the same
  for a linear cost. For any other, the mean of two outcomes, which never occurs, may look better than either.

Each future replaces the noise of the undecided tokens, so that the gradient is zero there: guidance moves the tokens that
are decided, and does not choose the luck that follows.
"""

import torch
from torch import Generator, Tensor

from dfplan.diffusion.costs import Cost, cost_gradient
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.noise import per_column


def sample_futures(
    diffusion: Diffusion, x: Tensor, k: Tensor, undecided: Tensor, futures: int, steps: int, generator: Generator
) -> Tensor:
    """Predicted clean tokens (N, B, T, C) of N futures of noisy tokens x (B, T, C) at levels k (B, T).

    The tokens `undecided` (B, T) fall from K to 0 in `steps`. Differentiable in x where gradients are enabled.
    """
    N, B = futures, x.shape[0]
    x, k, undecided = (v.repeat(N, *(1,) * (v.ndim - 1)) for v in (x, k, undecided))
    fresh = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    x = torch.where(per_column(undecided, x), fresh, x)
    x0 = diffusion.denoise(x, k).x0
    for step in range(1, steps):
        k_next = torch.where(undecided, round(diffusion.K * (1 - step / steps)), k)
        x, _ = diffusion.schedule.posterior(x0, x, k, k_next, eta=0.0)
        k = k_next
        x0 = diffusion.denoise(x, k).x0
    return x0.unflatten(0, (N, B))


def mean_cost_gradient(cost: Cost, futures: Tensor, x: Tensor) -> Tensor:
    """Gradient (B, T, C), with respect to x (B, T, C), of the mean cost of futures (N, B, T, C) that depend on x.

    Raises CostError as `dfplan.diffusion.costs.cost_gradient`.
    """
    # One future at a time: a cost may hold a goal for each of the B sequences.
    gradients = torch.stack([cost_gradient(cost, future, 1 / len(futures)) for future in futures])
    return torch.autograd.grad(futures, x, gradients)[0]
