"""What is no cost, and what happens to a sequence without a finite one."""

import math

import pytest
import torch
from gaussian import chain, exact

from dfplan.diffusion.costs import CostError, cost_of
from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.matrices import full_sequence, pyramid
from dfplan.diffusion.sampler import sample

PROCESS = chain()
T, C = PROCESS.T, PROCESS.C


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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
    tokens = torch.ones(1, 2, 3)
    torch.testing.assert_close(cost_of(in_place, tokens), plain(tokens))
    assert bool((tokens == 1).all()), "the caller's tokens stay"


def test_a_sequence_that_is_lost_does_not_cost_the_others():
    """Its gradient is NaN from the start: it becomes NaN, and nobody asks for a finite cost of it."""

    def root_of_nothing(x0):
        return torch.cat([x0[:1].square().sum((1, 2)), (0 * x0[1:]).square().sum((1, 2)).sqrt()])

    diffusion, matrix = exact(PROCESS, 8), full_sequence(T, 8, 4)
    drawn = sample(diffusion, matrix, (2, T, C), generator(), guidance=Guidance(root_of_nothing)).tokens
    assert bool(drawn[0].isfinite().all()) and bool(drawn[1].isnan().any())
