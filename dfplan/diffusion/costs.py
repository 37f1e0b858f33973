"""What a cost is that steers sampling, its gradient, and the check of what a function returns.

A cost is a function `(x0 (B, T, C)) -> (B,)` of predicted clean tokens: one number for each sequence, lower is better, finite
and differentiable in x0. It gets a copy of the tokens, which it may change in place. Costs of plans, such as the distance to a
goal, are in `dfplan.planning.costs`. A cost is not a constraint: a token that must have a value is a known token
(`dfplan.diffusion.sampler.Known`).
"""

from collections.abc import Callable

import torch
from torch import Tensor

Cost = Callable[[Tensor], Tensor]
APART = 1e15
"""A sequence with larger numbers is lost: squares in float32 overflow soon, so that no finite cost can be expected."""


class CostError(ValueError):
    """A cost function that does not give one finite, differentiable number for each sequence."""


def cost_of(cost: Cost, x0: Tensor) -> Tensor:
    """The cost (B,) of tokens x0 (B, T, C).

    Raises CostError for a function that raises, that returns anything but floats (B,), or NaN or infinity for a sequence
    whose numbers are finite and below `APART`; and, where x0 asks for a gradient, for a result that does not depend on
    x0: a constant or detached cost would steer nothing."""
    try:
        value = cost(x0.clone())
    except (CostError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _refusal(x0, f"this one raised {type(error).__name__}: {error}") from error
    if not isinstance(value, Tensor):
        raise _refusal(x0, f"this one returned {type(value).__name__}")
    if value.shape != (len(x0),) or not value.is_floating_point():
        raise _refusal(x0, f"this one returned shape {tuple(value.shape)}, {value.dtype}")
    if torch.is_grad_enabled() and x0.requires_grad and not value.requires_grad:
        raise _refusal(x0, "the cost of this one does not depend on the sequence: it is constant or detached")
    whole = x0.detach().abs().flatten(1).amax(1) < APART  # False for NaN
    wrong = ~value.detach().isfinite() & whole
    if bool(wrong.any()):
        raise _refusal(x0, f"this one returned {value[wrong][0].item()} for a finite sequence")
    return value


def cost_gradient(cost: Cost, x0: Tensor, weight: float = 1.0) -> Tensor:
    """Gradient (B, T, C) of weight times the cost of each sequence with respect to x0 (B, T, C).

    Not finite where the cost has no finite gradient: the sequence is lost then, and the planner leaves it out. Raises
    CostError as `cost_of`, and for a cost through which no gradient flows."""
    with torch.enable_grad():
        x0 = x0.detach().requires_grad_()
        value = cost_of(cost, x0)
        try:
            (gradient,) = torch.autograd.grad(value, x0, torch.full_like(value, weight), allow_unused=True)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise CostError(f"this cost cannot be differentiated: {error}") from error
    if gradient is None:
        raise _refusal(x0, "the cost of this one does not depend on the sequence: it is detached")
    return gradient


def _refusal(x0: Tensor, found: str) -> CostError:
    return CostError(
        "a cost function returns one finite, differentiable cost for each sequence, a float tensor of shape (B,), "
        f"here ({len(x0)},); {found}"
    )
