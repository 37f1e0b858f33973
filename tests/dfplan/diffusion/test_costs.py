"""Costs by hand, their gradients, and what is no cost."""

import math

import pytest
import torch
from gaussian import chain, exact
from torch.autograd import gradcheck

from dfplan.diffusion.costs import (
    CostError,
    LearnedReturn,
    Reach,
    ReachAny,
    ReachAt,
    ReachSoonest,
    ReachThroughout,
    StayIn,
    WeightedSum,
    in_units,
)
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.matrices import full_sequence, pyramid
from dfplan.diffusion.sampler import sample

PROCESS = chain()
T, C = PROCESS.T, PROCESS.C
GOAL = torch.tensor([1.0, 2.0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Costs ----------------------------------------------------------------------------------------------------------------

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
        (ReachAny(GOAL, PLACE, softness=0.5), -0.5 * math.log(math.exp(-10) + 1 + math.exp(-2))),
        (
            ReachSoonest(GOAL, PLACE, radius=0.5, softness=0.25),
            (sigmoid(18) + sigmoid(18) * sigmoid(-2) + sigmoid(18) * sigmoid(-2) * sigmoid(2)) / 3,
        ),
        # Below by (1, 2), inside, and above by 1 in the second column: (1 + 4 + 0 + 1) / 3.
        (StayIn(torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]), PLACE), 2.0),
        (LearnedReturn(lambda x0: x0[:, :, 1].sum(-1)), -24.0),
        (WeightedSum([(2.0, ReachAt(GOAL, PLACE, 0)), (-1.0, ReachThroughout(GOAL, PLACE))]), 8.0),
        (in_units(ReachAt(GOAL, PLACE, 1), lambda x0: 2 * x0), math.sqrt(1 + 4)),
    ],
)
def test_costs_by_hand(cost, expected):
    assert cost(PATH).tolist() == pytest.approx([expected], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("cost", [ReachAt, ReachThroughout, ReachAny, ReachSoonest])
def test_each_sequence_may_have_a_goal_of_its_own(cost):
    paths = torch.randn(4, 5, 3, generator=generator())
    goals = torch.randn(4, 2, generator=generator(1))

    def value(x0, goal):
        return (cost(goal, PLACE, 3) if cost is ReachAt else cost(goal, PLACE))(x0)

    alone = torch.cat([value(paths[i : i + 1], goals[i]) for i in range(4)])
    torch.testing.assert_close(value(paths, goals), alone)


@pytest.mark.parametrize(
    "cost",
    [
        ReachAt(GOAL, PLACE, 1),
        ReachThroughout(GOAL, PLACE),
        ReachAny(GOAL, PLACE),
        ReachSoonest(GOAL, PLACE),
        StayIn(-GOAL, GOAL, PLACE),
        LearnedReturn(lambda x0: x0.sin().sum((1, 2))),
        in_units(WeightedSum([(2.0, ReachAny(GOAL, PLACE)), (3.0, StayIn(-GOAL, GOAL, PLACE))]), lambda x0: 3 * x0 - 1),
    ],
)
def test_gradients_are_those_of_the_costs(cost):
    paths = (2 * torch.randn(3, 4, 3, generator=generator(), dtype=torch.float64)).requires_grad_()
    assert gradcheck(cost, paths)


def test_at_the_goal_the_distance_has_a_finite_gradient():
    at_goal = torch.zeros(1, 1, 2, requires_grad=True)
    Reach(torch.zeros(2), (0, 1)).distance(at_goal).sum().backward()
    assert bool(at_goal.grad.isfinite().all())


def test_an_early_arrival_costs_less_and_any_arrival_will_do():
    far, near = torch.full((3,), 9.0), torch.zeros(3)
    early, late = torch.stack([far, near, far, far]), torch.stack([far, far, far, near])
    never = torch.stack([far, far, far, far])
    paths = torch.stack([early, late, never])
    soonest = ReachSoonest(torch.zeros(2), (0, 1))(paths)
    assert soonest[0] < soonest[1] < soonest[2]
    anywhere = ReachAny(torch.zeros(2), (0, 1))(paths)
    assert anywhere[0] == anywhere[1] < anywhere[2]


# What a cost returns --------------------------------------------------------------------------------------------------


NOT_COSTS = {
    "a scalar": (lambda x0: x0.sum(), r"shape \(\)"),
    "a cost for each token": (lambda x0: x0.sum(-1), r"shape \((4|8), 6\)"),
    "a column": (lambda x0: x0.sum((1, 2)).unsqueeze(1), r"shape \((4|8), 1\)"),
    "one cost too few": (lambda x0: x0.sum((1, 2))[1:], r"shape \((3|7),\)"),
    "whole numbers": (lambda x0: torch.zeros(len(x0), dtype=torch.int64), "int64"),
    "a float": (lambda x0: 1.0, "returned float"),
    "nothing": (lambda x0: None, "returned NoneType"),
    "an array": (lambda x0: x0.detach().numpy().sum((1, 2)), "returned ndarray"),
    "a constant": (lambda x0: torch.ones(len(x0)), "does not depend on the sequence"),
    "a detached cost": (lambda x0: x0.detach().sum((1, 2)), "does not depend on the sequence"),
    "the cost of another tensor": (lambda x0: torch.ones(len(x0), requires_grad=True) * 2, "does not depend"),
    "NaN": (lambda x0: x0.sum((1, 2)) * math.nan, "returned nan for a finite sequence"),
    "infinity": (lambda x0: x0.sum((1, 2)) - math.inf, "returned -inf for a finite sequence"),
    "NaN for one sequence": (
        lambda x0: x0.sum((1, 2)) * torch.tensor([1, 1, math.nan, 1]).repeat(len(x0) // 4),
        "returned nan",
    ),
    "an exception": (lambda x0: {}["key"], "raised KeyError: 'key'"),
    "torch's own": (lambda x0: x0.numpy(), "raised RuntimeError: Can't call numpy"),
}


@pytest.mark.parametrize("futures", [0, 2])
@pytest.mark.parametrize("name", NOT_COSTS)
def test_what_is_no_cost_is_refused_with_one_sentence(name, futures):
    cost, sentence = NOT_COSTS[name]
    diffusion, matrix = exact(PROCESS, 8), pyramid(T, 8, 4, 2)
    guidance = Guidance(cost, futures=futures, future_steps=2)
    with pytest.raises(CostError, match=sentence) as caught:
        sample(diffusion, matrix, (4, T, C), generator(), guidance=guidance)
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


def test_a_cost_that_breaks_its_own_gradient_is_refused():
    def broken(x0):
        y = x0.exp()
        cost = y.square().sum((1, 2))
        y.zero_()
        return cost

    with pytest.raises(CostError, match="cannot be differentiated"):
        sample(exact(PROCESS, 8), full_sequence(T, 8, 4), (4, T, C), generator(), guidance=Guidance(broken))


@pytest.mark.parametrize("futures", [0, 2])
def test_a_cost_may_change_its_tokens_in_place(futures):
    def plain(x0):
        return (2 * x0).square().sum((1, 2))

    def in_place(x0):
        return x0.mul_(2).square().sum((1, 2))

    def draw(cost):
        guidance = Guidance(cost, 0.1, futures, future_steps=2)
        return sample(exact(PROCESS, 8), pyramid(T, 8, 4, 2), (4, T, C), generator(), guidance=guidance).tokens

    assert torch.equal(draw(plain), draw(in_place))
    both = WeightedSum([(1.0, in_place), (1.0, plain)])
    torch.testing.assert_close(both(PATH), 2 * plain(PATH))
    assert PATH[0, 0, 0] == -2, "the caller's tokens stay"


def test_each_term_of_a_sum_is_a_cost():
    with pytest.raises(CostError, match=r"shape \(1, 3\)"):
        WeightedSum([(1.0, ReachThroughout(GOAL, PLACE)), (1.0, lambda x0: x0.sum(-1))])(PATH)


def test_a_sequence_that_is_lost_does_not_cost_the_others():
    """Its gradient is NaN from the start: it becomes NaN, and nobody asks for a finite cost of it."""

    def root_of_nothing(x0):
        return torch.cat([x0[:1].square().sum((1, 2)), (0 * x0[1:]).square().sum((1, 2)).sqrt()])

    diffusion, matrix = exact(PROCESS, 8), full_sequence(T, 8, 4)
    drawn = sample(diffusion, matrix, (2, T, C), generator(), guidance=Guidance(root_of_nothing)).tokens
    assert bool(drawn[0].isfinite().all()) and bool(drawn[1].isnan().any())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ReachAny(GOAL, PLACE, softness=0.0), "softness must be greater than 0, got 0.0"),
        (lambda: ReachAny(GOAL, PLACE, softness=math.nan), "softness must be a finite number"),
        (lambda: ReachSoonest(GOAL, PLACE, softness=0.0), "softness must be greater than 0"),
        (lambda: ReachSoonest(GOAL, PLACE, softness=math.inf), "softness must be a finite number"),
        (lambda: ReachSoonest(GOAL, PLACE, radius=-0.1), "radius must be greater than or equal to 0"),
        (lambda: ReachSoonest(GOAL, PLACE, radius=math.nan), "radius must be a finite number"),
        (lambda: ReachThroughout(GOAL * math.nan, PLACE), r"\(2,\) or \(B, 2\) finite numbers, got \[nan"),
        (lambda: ReachAt(GOAL, (0, 1, 2), 1), r"in 3 columns is \(3,\) or \(B, 3\) finite numbers, got \[1.0, 2.0\]"),
        (lambda: ReachAny(GOAL, ()), r"in 0 columns is"),
        (lambda: StayIn(GOAL, -GOAL, PLACE), "low <= high"),
        (lambda: StayIn(GOAL * math.nan, GOAL, PLACE), "low <= high"),
        (lambda: StayIn(GOAL[:1], GOAL, PLACE), r"are \(2,\) numbers"),
        (lambda: WeightedSum([]), "one or more costs"),
        (lambda: WeightedSum([(math.nan, ReachAny(GOAL, PLACE))]), r"finite weights, got the weights \[nan\]"),
    ],
)
def test_costs_are_checked_when_they_are_made(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
