"""Guides by hand, and guidance where theory says what it does.

For Gaussian tokens a linear cost tilts every noised marginal by exactly the gradient that guidance adds, whatever the
levels of the tokens: guidance samples p(x) exp(-scale * cost), for every matrix. A quadratic cost is not of that kind:
guidance judges the mean prediction as if it were certain. What comes out for one number was derived from the
differential equation that DDIM solves (`dawson` below), and it agrees with the tilt only to first order in the scale.
"""

import math
import warnings

import pytest
import torch
from gaussian import MATRICES, Process, affine_moments, assert_close, chain, ddim_moments, exact, limit
from scipy.special import dawsn
from torch.autograd import gradcheck

from dfplan.diffusion.guidance import (
    Guidance,
    GuideError,
    LearnedReturn,
    ReachAny,
    ReachAt,
    ReachSoonest,
    ReachThroughout,
    StayIn,
    WeightedSum,
    distance,
    in_units,
    sample_futures,
)
from dfplan.diffusion.matrices import full_sequence, pyramid
from dfplan.diffusion.sampler import denoise_row, sample
from dfplan.models import Transformer, TransformerConfig

pytestmark = pytest.mark.filterwarnings("ignore:guidance with futures")  # what it is about is tested

PROCESS = chain()
T, C, D = PROCESS.T, PROCESS.C, PROCESS.D
GOAL = torch.tensor([1.0, 2.0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Guides ---------------------------------------------------------------------------------------------------------------

# Columns 0 and 2 are a place; column 1 is in nobody's interest. Distances from the goal (1, 2): 5, 0, 1.
PATH = torch.tensor([[[-2.0, 7.0, -2.0], [1.0, 8.0, 2.0], [1.0, 9.0, 3.0]]])
PLACE = (0, 2)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("guide", "cost"),
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
def test_costs_by_hand(guide, cost):
    assert guide(PATH).tolist() == pytest.approx([cost], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("guide", [ReachAt, ReachThroughout, ReachAny, ReachSoonest])
def test_each_sequence_may_have_a_goal_of_its_own(guide):
    paths = torch.randn(4, 5, 3, generator=generator())
    goals = torch.randn(4, 2, generator=generator(1))

    def cost(x0, goal):
        return guide(goal, PLACE, 3)(x0) if guide is ReachAt else guide(goal, PLACE)(x0)

    alone = torch.cat([cost(paths[i : i + 1], goals[i]) for i in range(4)])
    torch.testing.assert_close(cost(paths, goals), alone)


@pytest.mark.parametrize(
    "guide",
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
def test_gradients_are_those_of_the_costs(guide):
    paths = (2 * torch.randn(3, 4, 3, generator=generator(), dtype=torch.float64)).requires_grad_()
    assert gradcheck(guide, paths)


def test_at_the_goal_the_distance_has_a_finite_gradient():
    at_goal = torch.zeros(1, 1, 2, requires_grad=True)
    distance(at_goal, torch.zeros(2), (0, 1)).sum().backward()
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


# What guidance samples ------------------------------------------------------------------------------------------------


def linear(weights):
    return lambda x0: (x0 * weights).sum((1, 2))


@pytest.mark.parametrize(("futures", "future_steps"), [(0, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("name", MATRICES)
def test_a_linear_cost_tilts_the_process_exactly(name, futures, future_steps):
    """p(x) exp(-c.x) is the process with its mean moved by -covariance @ c; so too with Monte Carlo futures."""
    c = 0.3 * torch.randn(T, C, generator=generator())
    guidance = Guidance(linear(c), scale=1.5, futures=futures, future_steps=future_steps)
    mean = PROCESS.mean - 1.5 * PROCESS.covariance @ c.flatten().double()

    def moments(K):
        return ddim_moments(exact(PROCESS, K), PROCESS, MATRICES[name](T, K), guidance=guidance)

    # The network's derivative at pure noise is 1e-4 of its output: in single precision that costs some accuracy.
    assert_close(limit(moments, steps=30), (mean, PROCESS.covariance), 0.04)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_guided_row_is_one_row_of_the_tilted_process(eta):
    """Exact for a step of any size: the guide is scaled by the noise of the level that it is applied at."""
    c = 0.3 * torch.randn(T, C, generator=generator(), dtype=torch.float64)
    tilted = Process((PROCESS.mean - 1.5 * PROCESS.covariance @ c.flatten()).view(T, C), PROCESS.covariance)
    x = torch.randn(5, T, C, generator=generator(), dtype=torch.float64)
    k, k_next = torch.tensor([0, 4, 11, 12, 15, 19]).expand(5, T), torch.tensor([0, 0, 2, 12, 9, 8]).expand(5, T)
    guided = denoise_row(
        exact(PROCESS, 20).double(), x, k, k_next, generator(1), guidance=Guidance(linear(c), 1.5), eta=eta
    )
    expected = denoise_row(exact(tilted, 20).double(), x, k, k_next, generator(1), eta=eta)
    torch.testing.assert_close(guided[:, 1:], expected[:, 1:], rtol=1e-4, atol=1e-5)


def test_a_row_draws_futures_of_the_tokens_that_stay_pure_noise():
    """A token that starts to fall in this row is decided: it is moved from the very noise that it has."""
    asked = []

    class Asked(Guidance):
        def gradient(self, denoise, renoise, x, k, undecided, levels, generator):
            asked.append((undecided, levels))
            return super().gradient(denoise, renoise, x, k, undecided, levels, generator)

    diffusion, matrix = exact(PROCESS, 20), pyramid(T, 20, 4, 1)
    sample(diffusion, matrix, (3, T, C), generator(), guidance=Asked(ReachThroughout(GOAL, (0, 1)), futures=2))
    assert len(asked) == len(matrix) - 1
    for row, (undecided, levels) in zip(matrix[1:], asked, strict=True):
        assert levels == 20 and torch.equal(undecided, (row == 20).expand(3, T))
    assert bool(asked[0][0].any()) and not bool(asked[-1][0].any())


def one_number(variance=0.8):
    return Process(torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), variance, dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.05, 0.5, 2.0, 8.0])
def test_a_quadratic_cost_gives_what_the_theory_of_guidance_says(scale):
    """One number x ~ N(0, V), cost (x - g)^2 / 2. With z = y / sqrt(V + u), u = 1 / snr, DDIM's equation becomes
    dz/du = scale V / 2 (V z / (V + u)^2 - g (V + u)^-1.5), which from u = infinity to 0 gives, with a = scale V / 2,
    mean 2 g sqrt(a) dawson(sqrt(a)) and variance V exp(-2 a). The tilt would be g 2a / (1 + 2a) and V / (1 + 2a).
    """
    V, g = 0.8, 1.5
    process, a = one_number(V), scale * V / 2
    guidance = Guidance(lambda x0: 0.5 * (x0 - g).square().sum((1, 2)), scale)

    def moments(K):
        return ddim_moments(exact(process, K), process, full_sequence(1, K, K), guidance=guidance)

    theory = torch.tensor([2 * g * math.sqrt(a) * dawsn(math.sqrt(a))]), torch.tensor([[V * math.exp(-2 * a)]])
    assert_close(limit(moments, steps=200), theory, 0.02)
    tilt = torch.tensor([g * 2 * a / (1 + 2 * a)]), torch.tensor([[V / (1 + 2 * a)]])
    if scale <= 0.05:
        assert_close(limit(moments), tilt, 3 * a**2 + 0.002)
    assert theory[1] <= tilt[1], "guidance is surer than it should be"


@pytest.mark.parametrize("name", ["full_sequence", "autoregressive", "pyramid, lag 0.1", "trapezoid"])
def test_a_weak_quadratic_cost_moves_the_mean_as_the_tilt_does(name):
    """To first order in the scale: the second is a few hundredths of the shift, the tolerance a tenth of it."""
    scale, token = 0.02, 4
    E = torch.eye(D, dtype=torch.float64)[PROCESS.columns((token,))]
    covariance = torch.linalg.inv(torch.linalg.inv(PROCESS.covariance) + scale * E.T @ E)
    shift = scale * covariance @ E.T @ (GOAL.double() - E @ PROCESS.mean)
    guide = lambda x0: 0.5 * (x0[:, token] - GOAL).square().sum(-1)  # noqa: E731

    def shifted(K):
        diffusion, matrix = exact(PROCESS, K), MATRICES[name](T, K)
        guided = ddim_moments(diffusion, PROCESS, matrix, guidance=Guidance(guide, scale))
        free = ddim_moments(diffusion, PROCESS, matrix)
        return guided[0] - free[0], guided[1] - free[1]

    found = limit(shifted, steps=40)[0]
    assert (found - shift).norm() < 0.1 * shift.norm()


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("guide", [ReachThroughout, ReachAny, ReachSoonest])
def test_guided_samples_come_closer_to_the_goal(guide, eta):
    diffusion, matrix = exact(PROCESS, 40), pyramid(T, 40, 40, 10)
    cost = guide(torch.tensor([2.0, 2.0]), (0, 1))

    def mean_cost(guidance):
        return cost(sample(diffusion, matrix, (500, T, C), generator(), guidance=guidance, eta=eta).tokens).mean()

    free, weak, strong = mean_cost(None), mean_cost(Guidance(cost, 0.5)), mean_cost(Guidance(cost, 2.0))
    assert strong < weak < free
    assert mean_cost(Guidance(cost, 0.0)) == free


# Monte Carlo guidance -------------------------------------------------------------------------------------------------


def network(causal=False):
    """A denoiser that is not linear, so that one future differs from another."""
    torch.manual_seed(0)
    model = Transformer(C, 20, TransformerConfig(width=16, depth=1, heads=2, causal=causal))
    torch.nn.init.normal_(model.out.weight)
    return model


def partly_denoised(batch=4):
    """Tokens 0 to 2 decided, 3 to 5 undecided."""
    x = torch.randn(batch, T, C, generator=generator())
    k = torch.tensor([0, 4, 11, 20, 20, 20]).expand(batch, T)
    return x, k, k == 20


def gradient(guidance, x, k, undecided, g):
    renoise = lambda x0, x, k, k_next: exact(PROCESS, 20).schedule.posterior(x0, x, k, k_next, 0.0)[0]  # noqa: E731
    return guidance.gradient(network(), renoise, x, k, undecided, 20, g)


GOALS = torch.randn(4, C, generator=torch.Generator().manual_seed(7))


def test_the_gradient_is_the_mean_over_the_futures():
    x, k, undecided = partly_denoised()
    guide = ReachThroughout(GOALS, (0, 1))
    found = gradient(Guidance(guide, futures=5), x, k, undecided, generator(3))
    fresh = torch.randn(5 * 4, T, C, generator=generator(3)).view(5, 4, T, C)
    alone = []
    for noise in fresh:
        tokens = x.clone().requires_grad_()
        future = torch.where(undecided.unsqueeze(-1), noise, tokens)
        alone.append(torch.autograd.grad(guide(network()(future, k)).sum(), tokens)[0])
    torch.testing.assert_close(found, torch.stack(alone).mean(0), rtol=1e-4, atol=1e-6)
    assert bool((found[:, 3:] == 0).all()), "an undecided token's own noise is replaced, so it is not led"
    assert (torch.stack(alone).std(0)[:, :3] > 1e-4).any(), "futures differ"


def test_more_futures_give_a_steadier_gradient():
    x, k, undecided = partly_denoised()
    guide = ReachThroughout(GOALS, (0, 1))

    def variance(futures):
        g = generator(futures)
        draws = [gradient(Guidance(guide, futures=futures), x, k, undecided, g) for _ in range(200)]
        return torch.stack(draws).var(0).sum().item()

    assert variance(8) / variance(1) == pytest.approx(1 / 8, rel=0.35)


def test_with_nothing_undecided_it_is_plain_guidance():
    x, _, _ = partly_denoised()
    k = torch.tensor([0, 4, 11, 12, 15, 19]).expand(4, T)
    guide = ReachThroughout(GOALS, (0, 1))
    plain = gradient(Guidance(guide), x, k, k == 20, generator())
    assert torch.equal(gradient(Guidance(guide, futures=7, future_steps=3), x, k, k == 20, generator()), plain)


def test_futures_follow_their_distribution_given_what_is_decided():
    """With many steps: undecided tokens given the decided ones as noisy as they are. One step gives only their mean."""
    N = 100
    free = PROCESS.columns((3, 4, 5))

    def futures(K, steps):
        diffusion = exact(PROCESS, K)
        k = torch.tensor([0, 0.2, 0.5, 1, 1, 1]).mul(K).round().long().unsqueeze(0)
        x = partly_denoised(1)[0]
        a = diffusion.schedule.alpha_bar.double()[k[0]]
        S = torch.diag(a.sqrt().repeat_interleave(C))
        gain, covariance = PROCESS.observe(S, (1 - a).repeat_interleave(C))
        mean = PROCESS.mean + gain @ (x.flatten().double() - S @ PROCESS.mean)
        renoise = lambda x0, x, k, k_next: diffusion.schedule.posterior(x0, x, k, k_next, 0.0)[0]  # noqa: E731
        drawn = sample_futures(
            lambda x, k: diffusion.denoise(x, k).x0, renoise, x, k, k == K, K, N, steps, generator(5)
        )
        assert drawn.shape == (N, 1, T, C)
        fresh = torch.randn(N, T, C, generator=generator(5))[:, 3:]
        return affine_moments(fresh, drawn[:, 0, 3:]), (mean[free], covariance[free][:, free])

    def error(K):
        found, expected = futures(K, K)
        return found[0] - expected[0], found[1] - expected[1]

    assert_close(limit(error), (torch.zeros(6), torch.zeros(6, 6)), 0.02)
    found, expected = futures(200, 1)
    assert_close(found, (expected[0], torch.zeros(6, 6)), 0.01)


@pytest.mark.parametrize("future_steps", [1, 3])
def test_each_sequence_keeps_its_own_goal_in_all_its_futures(future_steps):
    diffusion, matrix = exact(PROCESS, 20), pyramid(T, 20, 10, 3)
    goals = torch.tensor([[3.0, 3.0], [-3.0, -3.0]]).repeat(100, 1)
    guidance = Guidance(ReachThroughout(goals, (0, 1)), 2.0, futures=3, future_steps=future_steps)
    drawn = sample(diffusion, matrix, (200, T, C), generator(), guidance=guidance).tokens
    assert bool((drawn[0::2].mean((0, 1)) > drawn[1::2].mean((0, 1)) + 0.5).all())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"futures": -1}, "futures must"),
        ({"futures": 1.5}, "futures must"),
        ({"future_steps": 0}, "future_steps must"),
        ({"scale": math.nan}, "scale must"),
        ({"scale": math.inf}, "scale must"),
    ],
)
def test_guidance_is_checked_when_it_is_made(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Guidance(ReachThroughout(GOAL, (0, 1)), **options)


def test_futures_of_one_step_are_said_to_be_none():
    """One step from pure noise is the mean: `test_futures_follow_their_distribution_given_what_is_decided`."""
    guide = ReachThroughout(GOAL, (0, 1))
    with pytest.warns(UserWarning, match="draws no futures"):
        Guidance(guide, futures=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Guidance(guide, futures=2, future_steps=8)
        Guidance(guide, futures=0)
        Guidance(guide, 0.0, futures=2)  # not used


# What a guide returns -------------------------------------------------------------------------------------------------


NOT_COSTS = {
    "a scalar": (lambda x0: x0.sum(), r"shape \(\)"),
    "a cost for each token": (lambda x0: x0.sum(-1), r"shape \(4, 6\)"),
    "a column": (lambda x0: x0.sum((1, 2)).unsqueeze(1), r"shape \(4, 1\)"),
    "one cost too few": (lambda x0: x0.sum((1, 2))[1:], r"shape \(3,\)"),
    "whole numbers": (lambda x0: torch.zeros(len(x0), dtype=torch.int64), "int64"),
    "a float": (lambda x0: 1.0, "returned float"),
    "nothing": (lambda x0: None, "returned NoneType"),
    "an array": (lambda x0: x0.detach().numpy().sum((1, 2)), "returned ndarray"),
    "a constant": (lambda x0: torch.ones(len(x0)), "does not depend on the sequence"),
    "a detached cost": (lambda x0: x0.detach().sum((1, 2)), "does not depend on the sequence"),
    "the cost of another tensor": (lambda x0: torch.ones(len(x0), requires_grad=True) * 2, "does not depend"),
    "NaN": (lambda x0: x0.sum((1, 2)) * math.nan, "returned nan for a finite sequence"),
    "infinity": (lambda x0: x0.sum((1, 2)) - math.inf, "returned -inf for a finite sequence"),
    "NaN for one sequence": (lambda x0: x0.sum((1, 2)) * torch.tensor([1, 1, math.nan, 1]), "returned nan"),
    "an exception": (lambda x0: {}["key"], "raised KeyError: 'key'"),
    "torch's own": (lambda x0: x0.numpy(), "raised RuntimeError: Can't call numpy"),
}


@pytest.mark.parametrize("futures", [0, 2])
@pytest.mark.parametrize("name", NOT_COSTS)
def test_what_is_no_cost_is_refused_with_one_sentence(name, futures):
    guide, sentence = NOT_COSTS[name]
    diffusion, matrix = exact(PROCESS, 8), pyramid(T, 8, 4, 2)
    guidance = Guidance(guide, futures=futures, future_steps=2)
    with pytest.raises(GuideError, match=sentence) as caught:
        sample(diffusion, matrix, (4, T, C), generator(), guidance=guidance)
    assert "\n" not in str(caught.value) and isinstance(caught.value, ValueError)


def test_a_guide_that_breaks_its_own_gradient_is_refused():
    def broken(x0):
        y = x0.exp()
        cost = y.square().sum((1, 2))
        y.zero_()
        return cost

    with pytest.raises(GuideError, match="cannot be differentiated"):
        sample(exact(PROCESS, 8), full_sequence(T, 8, 4), (4, T, C), generator(), guidance=Guidance(broken))


@pytest.mark.parametrize("futures", [0, 2])
def test_a_guide_may_change_its_tokens_in_place(futures):
    def plain(x0):
        return (2 * x0).square().sum((1, 2))

    def in_place(x0):
        return x0.mul_(2).square().sum((1, 2))

    def draw(guide):
        guidance = Guidance(guide, 0.1, futures, future_steps=2)
        return sample(exact(PROCESS, 8), pyramid(T, 8, 4, 2), (4, T, C), generator(), guidance=guidance).tokens

    assert torch.equal(draw(plain), draw(in_place))
    both = WeightedSum([(1.0, in_place), (1.0, plain)])
    torch.testing.assert_close(both(PATH), 2 * plain(PATH))
    assert PATH[0, 0, 0] == -2, "the caller's tokens stay"


def test_each_term_of_a_sum_is_a_guide():
    with pytest.raises(GuideError, match=r"shape \(1, 3\)"):
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
        (lambda: ReachAny(GOAL, PLACE, softness=0.0), "softness must be a finite number above 0, got 0"),
        (lambda: ReachAny(GOAL, PLACE, softness=math.nan), "softness must be"),
        (lambda: ReachSoonest(GOAL, PLACE, softness=0.0), "softness finite and above 0"),
        (lambda: ReachSoonest(GOAL, PLACE, softness=math.inf), "softness finite and above 0"),
        (lambda: ReachSoonest(GOAL, PLACE, radius=-0.1), "radius must be finite and not negative"),
        (lambda: ReachSoonest(GOAL, PLACE, radius=math.nan), "radius must be finite and not negative"),
        (lambda: ReachThroughout(GOAL * math.nan, PLACE), "a goal must be finite"),
        (lambda: ReachAt(GOAL, (0, 1, 2), 1), r"must be \(3,\) or \(B, 3\), got \(2,\)"),
        (lambda: ReachAny(GOAL, ()), r"must be \(0,\)"),
        (lambda: StayIn(GOAL, -GOAL, PLACE), "low <= high"),
        (lambda: StayIn(GOAL * math.nan, GOAL, PLACE), "low <= high"),
        (lambda: StayIn(GOAL[:1], GOAL, PLACE), r"are \(2,\) numbers"),
        (lambda: WeightedSum([]), "one or more guides"),
        (lambda: WeightedSum([(math.nan, ReachAny(GOAL, PLACE))]), r"finite weights, got the weights \[nan\]"),
    ],
)
def test_guides_are_checked_when_they_are_made(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
