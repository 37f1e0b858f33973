"""Forbidden rectangles as a constraint on plans."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Rectangle = tuple[float, float, float, float]
"""x_min, x_max, y_min, y_max."""
BETWEEN = 8
"""Points looked at from one token to the next, so that no plan jumps over a narrow rectangle."""
MARGIN = 0.15
"""Cells by which a rectangle counts as larger: the particle cuts corners."""


def violation(observations: Tensor, rectangles: Sequence[Rectangle]) -> Tensor:
    """How deep paths lie in rectangles, in cells, summed over tokens; a path between two tokens is straight.

    Observations (B, T, D), whose first two columns are a position, to (B,); differentiable. Its weight is 1: ten times as much
    pushes plans into walls.
    """
    places = observations[..., :2]
    ahead = places.roll(-1, 1)
    ahead = torch.cat([ahead[:, :-1], places[:, -1:]], 1)
    share = torch.linspace(0, 1, BETWEEN + 1, device=places.device)[:-1, None]
    points = (places.unsqueeze(-2) * (1 - share) + ahead.unsqueeze(-2) * share).flatten(1, 2)
    found = points.new_zeros(len(points))
    for x_min, x_max, y_min, y_max in rectangles:
        x, y = points.unbind(-1)
        sides = torch.stack([x - x_min, x_max - x, y - y_min, y_max - y]) + MARGIN
        found = found + sides.amin(0).clamp(min=0).sum(-1)
    return found / BETWEEN
