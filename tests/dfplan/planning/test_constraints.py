"""Constraints of plans: what counts as a violation, also between two tokens, and which way they steer."""

import pytest
import torch

from dfplan.planning.constraints import KeepOut, StayBelow

PATHS = torch.tensor([[[0.0, 9.0, 0.0], [4.0, 9.0, 0.0]], [[0.0, 9.0, 2.0], [4.0, 9.0, 2.0]]])
"""Two paths of two tokens, whose position is in columns 0 and 2: one leads through (2, 0), between its tokens."""


def test_a_region_is_left_out_between_tokens_too():
    region = KeepOut(torch.tensor([[2.0, 0.5]]), 1.0, (0, 2), weight=3.0)
    x = PATHS.clone().requires_grad_()
    violation = region(x)
    assert violation.tolist() == pytest.approx([1.5, 0.0], abs=1e-4)
    violation.sum().backward()
    assert (x.grad[0, :, 2] > 0).all() and not x.grad[1].any()  # downwards is out of it
    two = KeepOut(torch.tensor([[2.0, 0.5], [4.0, 0.0]]), 1.0, (0, 2))
    assert float(two(PATHS)[0]) == pytest.approx(1.5, abs=1e-4)
    assert float(region(PATHS[:1, [0, 0]])) == 0  # a plan that rests has pieces of no length


def test_a_speed_is_that_along_the_path_and_the_planned_one():
    limit = StayBelow(1.5, (0,), (2,), seconds=2.0)
    assert limit(PATHS).tolist() == pytest.approx([0.5, 0.5 + 2 * 0.5], abs=1e-4)
    x = PATHS.clone().requires_grad_()
    limit(x)[0].backward()
    assert x.grad[0, 1, 0] > 0 > x.grad[0, 0, 0]  # closer together is slower


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: KeepOut(torch.zeros(2), 1.0, (0, 1)), "centers are"),
        (lambda: KeepOut(torch.full((1, 2), torch.nan), 1.0, (0, 1)), "centers are"),
        (lambda: KeepOut(torch.zeros(1, 2), 0.0, (0, 1)), "radius"),
        (lambda: StayBelow(1.0, (0, 1), (2,), 0.1), "as many columns each"),
        (lambda: StayBelow(-1.0, (0,), (2,), 0.1), "speed"),
    ],
)
def test_what_cannot_be_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
