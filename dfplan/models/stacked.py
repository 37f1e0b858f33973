"""Many small networks of one shape as one: the parameters of M perceptrons stacked, (M, in, out), and multiplied at once.

Three training seeds with two critics each are six small networks. One after another, each waits for its own kernel
launches; stacked, they are one batched product. Nothing is shared: member m sees its own inputs, has its own weights and
gets its own gradient, so that it learns what it would have learned alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn


class StackedMLP(nn.Module):
    """M perceptrons with ReLU between their layers: (M, B, sizes[0]) -> (M, B, sizes[-1]), float32.

    Parameters are `weights.l` (M, in, out) and `biases.l` (M, 1, out) of layer l. `generators` holds one torch.Generator
    for each member, from which its initial values are drawn: uniform within +-1/sqrt(in), as torch.nn.Linear does. The
    same generator given twice makes two members with different values.

    Under autocast products are made in bfloat16, but the last layer is summed in float32: an advantage is a small
    difference of large values, for which 8 bits are too few. Not to be confused with an ensemble: nothing here averages.

    Raises ValueError for fewer than three sizes or no member, and for inputs of another shape.
    """

    def __init__(self, sizes: Sequence[int], generators: Sequence[torch.Generator]):
        super().__init__()
        if len(sizes) < 3 or min(sizes) < 1 or not generators:
            raise ValueError(
                "a stack needs an input, a hidden and an output size, all positive, and a member; "
                f"got sizes {tuple(sizes)} and {len(generators)} members"
            )
        self.sizes = tuple(sizes)
        # float32 whatever torch's default is: other numbers would be drawn in another precision.
        empty = partial(torch.empty, dtype=torch.float32)
        weights = [empty(len(generators), fan_in, fan_out) for fan_in, fan_out in pairwise(sizes)]
        biases = [empty(len(generators), 1, fan_out) for fan_out in sizes[1:]]
        for member, generator in enumerate(generators):
            for weight, bias in zip(weights, biases, strict=True):
                bound = weight.shape[1] ** -0.5
                for part in (weight, bias):
                    part[member].uniform_(-bound, bound, generator=generator)
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """`frozen`: gradients flow through to `x`, but not into the parameters."""
        if x.ndim != 3 or len(x) != len(self.weights[0]) or x.shape[-1] != self.sizes[0]:
            raise ValueError(f"expected inputs ({len(self.weights[0])}, batch, {self.sizes[0]}), got {tuple(x.shape)}")
        parameters = [*self.weights, *self.biases]
        if frozen:
            parameters = [p.detach() for p in parameters]
        autocast = torch.is_autocast_enabled(x.device.type)
        dtype = torch.get_autocast_dtype(x.device.type) if autocast else torch.float32
        with torch.autocast(x.device.type, enabled=False):  # the layers themselves say what is made in which precision
            return _Layers.apply(x, dtype, *parameters)

    def alone(self, member: int, x: Tensor) -> Tensor:
        """What one member makes of (B, sizes[0]): (B, sizes[-1])."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.addmm(bias[member], x, weight[member])
            x = x if layer == last else x.relu()
        return x

    @property
    def members(self) -> int:
        """Number of perceptrons M."""
        return len(self.weights[0])

    def target(self) -> Self:
        """A copy that no optimizer sees: its values are buffers, which `follow` moves towards these parameters."""
        target = copy.deepcopy(self)
        for parts in (target.weights, target.biases):
            for name, parameter in list(parts.named_parameters()):
                delattr(parts, name)
                parts.register_buffer(name, parameter.detach().clone())
        return target

    @torch.no_grad()
    def follow(self, source: Self, tau: float) -> None:
        """Polyak averaging in place: theta_target <- (1 - tau) theta_target + tau theta."""
        mine = [*self.weights, *self.biases]
        torch._foreach_lerp_(mine, [p.detach() for p in (*source.weights, *source.biases)], tau)


class _Layers(torch.autograd.Function):
    """The layers with their gradient written out, which on a CPU takes half the time of automatic differentiation:
    nothing is cast twice or copied.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights = [weight.to(dtype) for weight in parameters[:depth]]
        inputs = [x.to(dtype)]
        for weight, bias in zip(weights[:-1], parameters[depth:-1], strict=True):
            inputs.append(torch.baddbmm(bias.to(dtype), inputs[-1], weight).relu_())
        ctx.save_for_backward(*inputs, *weights)
        # Transposed, because a product with few columns leaves most lanes of the hardware idle.
        return torch.bmm(parameters[depth - 1].mT, inputs[-1].float().mT).mT + parameters[-1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        depth = len(saved) // 2
        inputs, weights = saved[:depth], saved[depth:]
        to_x, to_parameters = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        d_weights: list[Tensor | None] = [None] * depth
        d_biases: list[Tensor | None] = [None] * depth
        delta = gradients[0].to(weights[0].dtype)
        for layer in reversed(range(depth)):
            if to_parameters:
                d_weights[layer] = torch.bmm(inputs[layer].mT, delta).float()
                d_biases[layer] = delta.sum(1, keepdim=True).float()
            if layer == 0 and not to_x:
                return None, None, *d_weights, *d_biases
            delta = torch.bmm(delta, weights[layer].mT)
            if layer > 0:
                delta = torch.ops.aten.threshold_backward(delta, inputs[layer], 0)
        return delta.float(), None, *d_weights, *d_biases
