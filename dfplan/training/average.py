"""The exponential moving average of the weights: the weights that a trained model is used with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def ema_decay(step: int, decay: float) -> float:
    """Decay of the moving average at a step (counted from 0): at first short, so that the initial weights fade."""
    return min(decay, (1 + step) / (10 + step))


class MovingAverage:
    """Exponential moving average of a module's parameters, in float32; buffers are not averaged."""

    def __init__(self, module: nn.Module) -> None:
        self._parameters = list(module.parameters())
        self._averages = [parameter.detach().to(torch.float32, copy=True) for parameter in self._parameters]
        by_parameter = dict(zip(map(id, self._parameters), self._averages, strict=True))
        # Tied parameters have several names and one average.
        self.state = {name: by_parameter[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """average <- decay * average + (1 - decay) * parameter."""
        torch._foreach_lerp_(self._averages, [p.detach() for p in self._parameters], 1 - decay)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Lend the averages to the module as its parameters; afterwards it has its own back, bit for bit."""
        own = [parameter.detach().clone() for parameter in self._parameters]
        try:
            self._write(self._averages)
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)
