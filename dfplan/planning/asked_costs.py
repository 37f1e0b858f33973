"""Costs that users ask for, as functions of candidates: of recorded units, one candidate of every start at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dfplan.diffusion.costs import Cost, cost_of
from dfplan.planning.plan import Plan


def by_candidate(guide: Cost, starts: int, each: int) -> Cost:
    """One candidate of every start at a time: a user's function may hold a goal for each of the starts. Rows (n * B * each)."""

    def costs(x: Tensor) -> Tensor:
        parts = x.unflatten(0, (-1, starts, each)).transpose(1, 2)  # (n, each, B, ...)
        found = torch.stack([cost_of(guide, part) for part in parts.flatten(0, 1)])
        return found.unflatten(0, parts.shape[:2]).transpose(1, 2).flatten()

    return costs


def violation_cost(constraint: Cost) -> Cost:
    """A constraint as a cost: a violation is never below 0."""
    return lambda x: constraint(x).clamp(min=0)


def sum_of(guides: Sequence[Cost], candidates: Plan, each: int) -> Tensor | None:
    """The sum (B * N,) of functions of closing observations; None where there are none."""
    closing, starts = candidates.observations[:, :, -1], len(candidates) // each
    return torch.stack([by_candidate(guide, starts, each)(closing) for guide in guides]).sum(0) if guides else None
