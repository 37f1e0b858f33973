"""Guidance where theory says what it does.

For Gaussian tokens a linear cost tilts every noised marginal by exactly the gradient that guidance adds, whatever the
levels of the tokens: guidance samples p(x) exp(-scale * cost), for every matrix. A quadratic cost is not of that kind:
guidance judges the mean prediction as if it were certain. What comes out for one number was derived from the
differential equation that DDIM solves (`dawson` below), and it agrees with the tilt only to first order in the scale.
"""

import math
import warnings

import pytest
import torch
from gaussian import MATRICES, Process, assert_close, chain, ddim_moments, exact, limit
from scipy.special import dawsn

from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.matrices import full_sequence, pyramid
from dfplan.diffusion.sampler import State, sample, step
from dfplan.planning.costs import ReachSoonest, ReachThroughout

pytestmark = pytest.mark.filterwarnings("ignore:guidance with futures")  # what it is about is tested

PROCESS = chain()
T, C, D = PROCESS.T, PROCESS.C, PROCESS.D
GOAL = torch.tensor([1.0, 2.0])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# What guidance samples ------------------------------------------------------------------------------------------------


def linear(weights):
    return lambda x0: (x0 * weights).sum((1, 2))


@pytest.mark.parametrize(
    ("name", "futures", "future_steps"),
    [("pyramid, lag 0.1", 2, 1), *((name, *futures) for name in MATRICES for futures in ((0, 1), (2, 3)))],
)
def test_a_linear_cost_tilts_the_process_exactly(name, futures, future_steps):
    """p(x) exp(-c.x) is the process with its mean moved by -covariance @ c; so too with Monte Carlo futures."""
    c = 0.3 * torch.randn(T, C, generator=generator())
    guidance = Guidance(linear(c), scale=1.5, futures=futures, future_steps=future_steps)
    mean = PROCESS.mean - 1.5 * PROCESS.covariance @ c.flatten().double()

    def moments(K):
        return ddim_moments(exact(PROCESS, K), PROCESS, MATRICES[name](T, K), guidance=guidance)

    # The network's derivative at pure noise is 1e-4 of its output: in single precision that costs some accuracy.
    assert_close(limit(moments, steps=30), (mean, PROCESS.covariance), 0.08)  # the first of the steps is not guided


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_one_guided_row_is_one_row_of_the_tilted_process(eta):
    """Exact for a step of any size: the guide is scaled by the noise of the level that it is applied at."""
    c = 0.3 * torch.randn(T, C, generator=generator(), dtype=torch.float64)
    tilted = Process((PROCESS.mean - 1.5 * PROCESS.covariance @ c.flatten()).view(T, C), PROCESS.covariance)
    x = torch.randn(5, T, C, generator=generator(), dtype=torch.float64)
    k, k_next = torch.tensor([0, 4, 11, 12, 15, 19]).expand(5, T), torch.tensor([0, 0, 2, 12, 9, 8]).expand(5, T)
    state = State(x, k, torch.zeros(5, T, dtype=torch.bool))
    guided = step(exact(PROCESS, 20).double(), state, k_next, generator(1), guidance=Guidance(linear(c), 1.5), eta=eta)
    expected = step(exact(tilted, 20).double(), state, k_next, generator(1), eta=eta)
    torch.testing.assert_close(guided.tokens[:, 1:], expected.tokens[:, 1:], rtol=1e-4, atol=1e-5)
    assert torch.equal(guided.tokens[:, 0], x[:, 0]), "a clean token is not moved"


def test_guidance_that_fades_moves_the_noisy_sample_and_leaves_the_last_step_to_the_network():
    x = torch.randn(5, T, C, generator=generator(), dtype=torch.float64)
    k, k_next = torch.tensor([0, 4, 11, 12, 15, 19]).expand(5, T), torch.tensor([0, 0, 2, 12, 9, 8]).expand(5, T)
    diffusion, state = exact(PROCESS, 20).double(), State(x, k, torch.zeros(5, T, dtype=torch.bool))
    guidance = Guidance(linear(torch.randn(T, C, generator=generator(2), dtype=torch.float64)), 1.5, fading=True)
    free, guided = (step(diffusion, state, k_next, generator(1), guidance=one) for one in (None, guidance))
    _, gradient = guidance.gradient(diffusion, x, k, k < 0, generator())
    n, n_next = (diffusion.schedule.noise(level) for level in (k, k_next))
    moved = 1.5 * (n * (n - n_next) * (k_next > 0)).unsqueeze(-1) * gradient
    assert bool((moved[:, 1] == 0).all()) and bool((moved[:, 2].abs() > 1e-3).any())
    torch.testing.assert_close(guided.tokens, free.tokens - moved, rtol=1e-4, atol=1e-5)


def test_a_row_draws_futures_of_the_tokens_that_stay_pure_noise():
    """A token that starts to fall in this row is decided: it is moved from the very noise that it has."""
    asked = []

    class Asked(Guidance):
        def undecided(self, k_next, known, K):
            asked.append(super().undecided(k_next, known, K))
            return asked[-1]

    diffusion, matrix = exact(PROCESS, 20), pyramid(T, 20, 4, 1)
    guidance = Asked(ReachThroughout(GOAL, (0, 1)), futures=2, future_steps=2)
    sample(diffusion, matrix, (3, T, C), generator(), guidance=guidance)
    assert bool(asked[0].any()) and not bool(asked[-1].any())
    for row, undecided in zip(matrix[1:], asked, strict=True):
        assert torch.equal(undecided, (row == 20).expand(3, T))


class Counted(torch.nn.Module):
    """A denoiser that counts how often it is called."""

    def __init__(self, model):
        super().__init__()
        self.model, self.calls = model, 0

    def forward(self, x, k):
        self.calls += 1
        return self.model(x, k)


def test_plain_guidance_asks_the_network_once_a_row():
    """The prediction that is moved is the one that the cost has judged."""
    diffusion = exact(PROCESS, 20)
    diffusion.model = Counted(diffusion.model)
    sample(diffusion, full_sequence(T, 20, 4), (3, T, C), generator(), guidance=Guidance(ReachThroughout(GOAL, (0, 1))))
    assert diffusion.model.calls == 4


def test_the_prediction_moves_with_its_noise():
    diffusion, x = exact(PROCESS, 20), torch.randn(3, T, C, generator=generator())
    k, nothing = torch.tensor([0, 4, 11, 12, 15, 19]).expand(3, T), torch.zeros(3, T, dtype=torch.bool)
    guidance = Guidance(ReachThroughout(GOAL, (0, 1)), 1.5)
    plain, gradient = guidance.gradient(diffusion, x, k, nothing, generator())
    assert all(torch.equal(a, b) for a, b in zip(plain, diffusion.denoise(x, k), strict=True))
    asks = x.clone().requires_grad_()
    guidance.cost(diffusion.denoise(asks, k).x0).sum().backward()
    torch.testing.assert_close(gradient, asks.grad)
    moved = guidance.denoise(diffusion, x, k, k, nothing, generator())
    assert not moved.x0.requires_grad and not moved.eps.requires_grad
    torch.testing.assert_close(moved.eps, plain.eps + 1.5 * diffusion.schedule.noise(k)[..., None] * gradient)
    torch.testing.assert_close(
        diffusion.schedule.add_noise(moved.x0, k, moved.eps)[:, 1:], x[:, 1:], rtol=1e-4, atol=1e-4
    )
    assert torch.equal(moved.x0[:, 0], x[:, 0]), "a clean token stays"


def test_pure_noise_is_not_moved_by_a_gradient():
    """The signal of level K is so small that what the network's derivative finds in it is error, magnified."""
    diffusion, x = exact(PROCESS, 20), torch.randn(3, T, C, generator=generator())
    k, nothing = torch.tensor([0, 4, 20, 12, 20, 19]).expand(3, T), torch.zeros(3, T, dtype=torch.bool)
    guidance = Guidance(ReachThroughout(GOAL, (0, 1)), 5.0)
    plain, moved = diffusion.denoise(x, k), guidance.denoise(diffusion, x, k, 0 * k, nothing, generator())
    kept = torch.tensor([True, False, True, False, True, False])
    for ours, theirs in zip(moved, plain, strict=True):
        assert torch.equal(ours[:, kept], theirs[:, kept]) and bool((ours[:, ~kept] != theirs[:, ~kept]).all())


def test_what_is_known_is_not_moved_and_only_what_is_decided_is():
    diffusion, x = exact(PROCESS, 20), torch.randn(3, T, C, generator=generator())
    k, known = torch.tensor([0, 5, 5, 5, 5, 5]).expand(3, T), torch.tensor([1, 0, 0, 0, 0, 1]).bool().expand(3, T)
    guidance = Guidance(ReachThroughout(GOAL, (0, 1)), futures=2, future_steps=3, decided=2)
    undecided = torch.tensor([0, 0, 0, 1, 1, 0]).bool().expand(3, T)
    assert torch.equal(guidance.undecided(k, known, 20), undecided)
    moved = guidance.denoise(diffusion, x, k, k, known, generator()).eps != diffusion.denoise(x, k).eps
    assert torch.equal(moved.any(-1), ~(undecided | known))


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
    cost = lambda x0: 0.5 * (x0[:, token] - GOAL).square().sum(-1)  # noqa: E731

    def shifted(K):
        diffusion, matrix = exact(PROCESS, K), MATRICES[name](T, K)
        guided = ddim_moments(diffusion, PROCESS, matrix, guidance=Guidance(cost, scale))
        free = ddim_moments(diffusion, PROCESS, matrix)
        return guided[0] - free[0], guided[1] - free[1]

    found = limit(shifted, steps=40)[0]
    assert (found - shift).norm() < 0.1 * shift.norm()


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("guide", [ReachThroughout, ReachSoonest])
def test_guided_samples_come_closer_to_the_goal(guide, eta):
    diffusion, matrix = exact(PROCESS, 40), pyramid(T, 40, 40, 10)
    cost = guide(torch.tensor([2.0, 2.0]), (0, 1))

    def mean_cost(guidance):
        return cost(sample(diffusion, matrix, (500, T, C), generator(), guidance=guidance, eta=eta).tokens).mean()

    free, weak, strong = mean_cost(None), mean_cost(Guidance(cost, 0.5)), mean_cost(Guidance(cost, 2.0))
    assert strong < weak < free
    assert mean_cost(Guidance(cost, 0.0)) == free


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"futures": -1}, "futures must"),
        ({"futures": 1.5}, "futures must"),
        ({"future_steps": 0}, "future_steps must"),
        ({"decided": -1}, "decided must"),
        ({"candidates": 1.5}, "candidates must"),
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
        Guidance(guide, futures=2, future_steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Guidance(guide, futures=2)
        Guidance(guide, future_steps=1)
        Guidance(guide, 0.0, futures=2, future_steps=1)  # not used
