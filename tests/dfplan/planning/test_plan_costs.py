"""Costs by hand, and their gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from dfplan.diffusion.costs import CostError
from dfplan.planning.costs import Reach, ReachAt, ReachSoonest, ReachThroughout, StayIn, WeightedSum, in_units

GOAL = torch.tensor([1.0, 2.0])


# Columns 0 and 2 are a place; column 1 is in nobody's interest. Distances from the goal (1, 2): 5, 0, 1.
PATH = torch.tensor([[[-2.0, 7.0, -2.0], [1.0, 8.0, 2.0], [1.0, 9.0, 3.0]]])
PLACE = (0, 2)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (ReachAt(GOAL, PLACE, 0), 5.0),
        (ReachAt(GOAL, PLACE, 2), 1.0),
        (ReachAt(GOAL, PLACE, -1), 1.0),
        (ReachThroughout(GOAL, PLACE), 2.0),
        (
            ReachSoonest(GOAL, PLACE, radius=0.5, softness=0.25),
            (sigmoid(18) + sigmoid(18) * sigmoid(-2) + sigmoid(18) * sigmoid(-2) * sigmoid(2)) / 3,
        ),
        # Below by (1, 2), inside, and above by 1 in the second column: (1 + 4 + 0 + 1) / 3.
        (StayIn(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]), PLACE), 2.0),
        (WeightedSum([(2.0, ReachAt(GOAL, PLACE, 0)), (-1.0, ReachThroughout(GOAL, PLACE))]), 8.0),
        (in_units(ReachAt(GOAL, PLACE, 1), lambda x0: 2 * x0), math.sqrt(1 + 4)),
    ],
)
def test_costs_by_hand(cost, expected):
    assert cost(PATH).tolist() == pytest.approx([expected], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("cost", [ReachAt, ReachThroughout, ReachSoonest])
def test_each_sequence_may_have_a_goal_of_its_own(cost):
    paths = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    goals = torch.randn(4, 2, generator=torch.Generator().manual_seed(1))

    def value(x0, goal):
        return (cost(goal, PLACE, 3) if cost is ReachAt else cost(goal, PLACE))(x0)

    alone = torch.cat([value(paths[i : i + 1], goals[i]) for i in range(4)])
    torch.testing.assert_close(value(paths, goals), alone)


@pytest.mark.parametrize(
    "cost",
    [
        ReachAt(GOAL, PLACE, 1),
        ReachThroughout(GOAL, PLACE),
        ReachSoonest(GOAL, PLACE),
        StayIn(-GOAL, GOAL, PLACE),
        in_units(
            WeightedSum([(2.0, ReachThroughout(GOAL, PLACE)), (3.0, StayIn(-GOAL, GOAL, PLACE))]), lambda x0: 3 * x0 - 1
        ),
    ],
)
def test_gradients_are_those_of_the_costs(cost):
    paths = (2 * torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    assert gradcheck(cost, paths)


def test_at_the_goal_the_distance_has_a_finite_gradient():
    at_goal = torch.zeros(1, 1, 2, requires_grad=True)
    Reach(torch.zeros(2), (0, 1)).distance(at_goal).sum().backward()
    assert bool(at_goal.grad.isfinite().all())


def test_an_early_arrival_costs_less():
    far, near = torch.full((3,), 9.0), torch.zeros(3)
    early, late = torch.stack([far, near, far, far]), torch.stack([far, far, far, near])
    never = torch.stack([far, far, far, far])
    paths = torch.stack([early, late, never])
    soonest = ReachSoonest(torch.zeros(2), (0, 1))(paths)
    assert soonest[0] < soonest[1] < soonest[2]


def test_each_term_of_a_sum_is_a_cost():
    with pytest.raises(CostError, match=r"shape \(1, 3\)"):
        WeightedSum([(1.0, ReachThroughout(GOAL, PLACE)), (1.0, lambda x0: x0.sum(-1))])(PATH)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ReachSoonest(GOAL, PLACE, softness=0.0), "softness must be greater than 0, got 0.0"),
        (lambda: ReachSoonest(GOAL, PLACE, softness=math.inf), "softness must be a finite number"),
        (lambda: ReachSoonest(GOAL, PLACE, radius=-0.1), "radius must be greater than or equal to 0"),
        (lambda: ReachSoonest(GOAL, PLACE, radius=math.nan), "radius must be a finite number"),
        (lambda: ReachThroughout(GOAL * math.nan, PLACE), r"\(2,\) or \(B, 2\) finite numbers, got \[nan"),
        (lambda: ReachAt(GOAL, (0, 1, 2), 1), r"in 3 columns is \(3,\) or \(B, 3\) finite numbers, got \[1.0, 2.0\]"),
        (lambda: ReachThroughout(GOAL, ()), r"in 0 columns is"),
        (lambda: StayIn(GOAL, -GOAL, PLACE), "low <= high"),
        (lambda: StayIn(GOAL * math.nan, GOAL, PLACE), "low <= high"),
        (lambda: StayIn(GOAL[:1], GOAL, PLACE), r"are \(2,\) numbers"),
        (lambda: WeightedSum([]), "one or more costs"),
        (lambda: WeightedSum([(math.nan, ReachThroughout(GOAL, PLACE))]), r"finite weights, got the weights \[nan\]"),
    ],
)
def test_costs_are_checked_when_they_are_made(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
