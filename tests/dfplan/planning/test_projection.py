"""Projection: predictions are moved out of violations, by as much as is asked for, and what is known stays."""

import pytest
import torch
from gaussian import chain, exact

from dfplan.diffusion.costs import CostError
from dfplan.diffusion.matrices import pyramid
from dfplan.diffusion.sampler import Known, sample
from dfplan.planning.projection import Projection

K, T = 16, 5


def above(x):
    """How far the tokens of a sequence lie above 0.5, summed over them."""
    return (x[..., 0] - 0.5).clamp(min=0).sum(-1)


def test_it_moves_what_violates_alone_and_just_far_enough():
    x = torch.tensor([[[2.0], [0.0]], [[0.25], [0.5]], [[1.0], [3.0]]])
    moved = Projection(above)(x, torch.ones(3, 2, dtype=torch.bool))
    assert moved[0].flatten().tolist() == pytest.approx([0.5, 0.0], abs=1e-6)
    assert moved[1].equal(x[1]) and float(above(moved[2:])) == pytest.approx(0, abs=1e-6)
    held = Projection(above)(x, torch.tensor([[False, True]]).expand(3, 2))
    assert held[:, 0].equal(x[:, 0]) and float(held[2, 1]) <= 0.5


def test_what_is_drawn_keeps_the_constraint_and_what_is_known():
    def drawn(projection):
        known = Known(torch.ones(64, T, 2), torch.arange(T).expand(64, T) == 0)
        options = {"known": known, "projection": projection, "eta": 1.0}
        return sample(
            exact(chain(T), K), pyramid(T, K, 8), (64, T, 2), torch.Generator().manual_seed(0), **options
        ).tokens

    free, kept = drawn(None), drawn(Projection(above))
    free, other, kept = free[:, 1:, 0], free[:, 1:, 1], kept[:, 1:]
    assert (free > 0.5).any() and (kept[..., 0] <= 0.5 + 1e-4).all() and kept[..., 0].std() > 0.1  # still a draw
    assert abs(float(kept[..., 1].std() / other.std()) - 1) < 0.3  # of what the constraint says nothing about


def test_what_is_no_violation_is_refused():
    with pytest.raises(CostError, match="returned float"):
        Projection(lambda x: 3.0)(torch.ones(1, 2, 1), torch.ones(1, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="moves"):
        Projection(above, moves=0)
