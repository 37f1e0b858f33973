"""Sequences of different lengths side by side in one row, so that a network computes nothing beyond their ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dfplan.models.parts import ByParts
from dfplan.models.transformer import Transformer


class Packed(nn.Module):
    """A denoiser `(x (B, T, C), k) -> (B, T, C)` of sequences of the given lengths, whose network gets them without padding.

    Each sequence has positions of its own from 0 on and attends to itself alone. Beyond its end the prediction is 0. B may be a
    multiple of the number of lengths N: then row r has the length r % N.
    """

    source: Tensor
    place: Tensor
    inside: Tensor
    positions: Tensor
    segments: Tensor

    def __init__(self, network: nn.Module, lengths: Sequence[int], tokens: int):
        """The lengths are whole numbers in 1..tokens. Raises ValueError for a network that takes no segments."""
        super().__init__()
        if not packs(network):
            raise ValueError(f"a {type(network).__name__} cannot tell sequences of one row apart")
        self.network = network
        rows = side_by_side(lengths, tokens)
        shape = (len(rows), tokens)
        source, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
        segments, place = torch.full(shape, -1), torch.zeros((len(lengths), tokens), dtype=torch.long)
        for row, sequences in enumerate(rows):
            start = 0
            for one in sequences:
                end, steps = start + lengths[one], torch.arange(lengths[one])
                source[row, start:end], positions[row, start:end] = one * tokens + steps, steps
                segments[row, start:end], place[one, : lengths[one]] = one, row * tokens + start + steps
                start = end
        inside = torch.arange(tokens) < torch.as_tensor(lengths).unsqueeze(1)
        buffers = {"source": source, "place": place, "inside": inside, "positions": positions, "segments": segments}
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def forward(self, x: Tensor, k: Tensor) -> Tensor:
        """The prediction (B, T, C) from noisy tokens (B, T, C) at their levels k, (B, T) or (B, T, C)."""
        times = len(x) // len(self.place)
        positions, segments = (part.repeat(times, 1) for part in (self.positions, self.segments))
        found = self.network(_move(x, self.source, times), _move(k, self.source, times), positions, segments)
        return torch.where(self.inside.repeat(times, 1).unsqueeze(-1), _move(found, self.place, times), 0.0)


def _move(values: Tensor, index: Tensor, times: int) -> Tensor:
    """Rows of tokens (times * rows, T, ...) whose tokens are those at `index` (rows', T) among the tokens of all rows."""
    moved = values.unflatten(0, (times, -1)).flatten(1, 2)[:, index.flatten()]
    return moved.unflatten(1, tuple(index.shape)).flatten(0, 1)


def packs(network: nn.Module) -> bool:
    """Whether a network takes the positions and segments of its tokens."""
    return isinstance(network.network if isinstance(network, ByParts) else network, Transformer)


def side_by_side(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """The sequences of each row of at most `tokens` tokens: the longest that is left, then the shortest ones that still fit."""
    order = sorted(range(len(lengths)), key=lambda one: -lengths[one])
    rows = []
    while order:
        row = [order.pop(0)]
        free = tokens - lengths[row[0]]
        while order and lengths[order[-1]] <= free:
            row.append(order.pop())
            free -= lengths[row[-1]]
        rows.append(row)
    return rows
