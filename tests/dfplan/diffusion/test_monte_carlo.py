"""Monte Carlo guidance: which futures are drawn, and that the mean of their costs is what guides."""

import pytest
import torch
from gaussian import affine_moments, assert_close, chain, exact, limit

from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import pyramid
from dfplan.diffusion.monte_carlo import sample_futures
from dfplan.diffusion.noise import NoiseSchedule
from dfplan.diffusion.sampler import sample
from dfplan.models import Transformer, TransformerConfig
from dfplan.planning.costs import ReachThroughout

pytestmark = pytest.mark.filterwarnings("ignore:guidance with futures")

PROCESS = chain()
T, C = PROCESS.T, PROCESS.C


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def network(causal=False):
    """A denoiser that is not linear, so that one future differs from another."""
    torch.manual_seed(0)
    model = Transformer(C, 20, TransformerConfig(width=16, depth=1, heads=2, causal=causal))
    torch.nn.init.normal_(model.out.weight)
    return Diffusion(model, NoiseSchedule("cosine", 20), "x0")


def partly_denoised(batch=4):
    """Tokens 0 to 2 decided, 3 to 5 undecided."""
    x = torch.randn(batch, T, C, generator=generator())
    k = torch.tensor([0, 4, 11, 20, 20, 20]).expand(batch, T)
    return x, k, k == 20


def gradient(guidance, x, k, undecided, g):
    return guidance.gradient(network(), x, k, undecided, g)[1]


GOALS = torch.randn(4, C, generator=torch.Generator().manual_seed(7))


def test_the_gradient_is_the_mean_over_the_futures():
    x, k, undecided = partly_denoised()
    cost = ReachThroughout(GOALS, (0, 1))
    found = gradient(Guidance(cost, futures=5, future_steps=1), x, k, undecided, generator(3))
    fresh = torch.randn(5 * 4, T, C, generator=generator(3)).view(5, 4, T, C)
    alone = []
    for noise in fresh:
        tokens = x.clone().requires_grad_()
        future = torch.where(undecided.unsqueeze(-1), noise, tokens)
        alone.append(torch.autograd.grad(cost(network().denoise(future, k).x0).sum(), tokens)[0])
    torch.testing.assert_close(found, torch.stack(alone).mean(0), rtol=1e-4, atol=1e-6)
    assert bool((found[:, 3:] == 0).all()), "an undecided token's own noise is replaced, so it is not led"
    assert (torch.stack(alone).std(0)[:, :3] > 1e-4).any(), "futures differ"


def test_more_futures_give_a_steadier_gradient():
    x, k, undecided = partly_denoised()
    cost = ReachThroughout(GOALS, (0, 1))

    def variance(futures):
        g = generator(futures)
        draws = [gradient(Guidance(cost, futures=futures, future_steps=1), x, k, undecided, g) for _ in range(200)]
        return torch.stack(draws).var(0).sum().item()

    assert variance(8) / variance(1) == pytest.approx(1 / 8, rel=0.35)


def test_with_nothing_undecided_it_is_plain_guidance():
    x, _, _ = partly_denoised()
    k = torch.tensor([0, 4, 11, 12, 15, 19]).expand(4, T)
    cost = ReachThroughout(GOALS, (0, 1))
    plain = gradient(Guidance(cost), x, k, k == 20, generator())
    assert torch.equal(gradient(Guidance(cost, futures=7, future_steps=3), x, k, k == 20, generator()), plain)


def test_futures_follow_their_distribution_given_what_is_decided():
    """With many steps: undecided tokens given the decided ones as noisy as they are. One step gives only their mean."""
    N = 100
    free = PROCESS.columns((3, 4, 5))

    def futures(K, steps):
        diffusion, x = exact(PROCESS, K), partly_denoised(1)[0]
        k = torch.tensor([0, 0.2, 0.5, 1, 1, 1]).mul(K).round().long().unsqueeze(0)
        mean, covariance = given(diffusion, x, k)
        drawn = sample_futures(diffusion, x, k, k == K, N, steps, generator(5))
        assert drawn.shape == (N, 1, T, C)
        fresh = torch.randn(N, T, C, generator=generator(5))[:, 3:]
        return affine_moments(fresh, drawn[:, 0, 3:]), (mean[free], covariance[free][:, free])

    def error(K):
        found, expected = futures(K, K)
        return found[0] - expected[0], found[1] - expected[1]

    assert_close(limit(error), (torch.zeros(6), torch.zeros(6, 6)), 0.02)
    found, expected = futures(200, 1)
    assert_close(found, (expected[0], torch.zeros(6, 6)), 0.01)


def given(diffusion, x, k):
    """Mean (D,) and covariance (D, D) of the process given noisy tokens x (1, T, C) at levels k (1, T)."""
    a = diffusion.schedule.alpha_bar.double()[k[0]]
    S = torch.diag(a.sqrt().repeat_interleave(C))
    gain, covariance = PROCESS.observe(S, (1 - a).repeat_interleave(C))
    return PROCESS.mean + gain @ (x.flatten().double() - S @ PROCESS.mean), covariance


def test_futures_do_not_collapse_to_their_mean():
    """As guidance draws them by default, they are spread as the data are, within a tenth. Those of one step are not."""
    diffusion, x = exact(PROCESS, 256), partly_denoised(1)[0]
    k = torch.tensor([[0, 51, 128, 256, 256, 256]])
    true = given(diffusion, x, k)[1].diagonal().view(T, C)[3:].sqrt()

    def spread(steps):
        return sample_futures(diffusion, x, k, k == 256, 4000, steps, generator(5))[:, 0, 3:].std(0) / true

    found = spread(Guidance(ReachThroughout(GOALS, (0, 1))).future_steps)
    assert bool(((found > 0.9) & (found < 1.1)).all()), found
    assert bool((spread(1) < 0.1).all())


class Outcomes(torch.nn.Module):
    """E[x0 | x_k] of tokens that are all 0 with the probability `stays`, else all 2.5 or all -2.5; exact."""

    values = torch.tensor([0.0, 2.5, -2.5])

    def __init__(self, schedule, stays):
        super().__init__()
        self.schedule, self.prior = schedule, torch.tensor([stays, (1 - stays) / 2, (1 - stays) / 2]).log()

    def forward(self, x, k):
        signal, noise = self.schedule.signal(k)[..., None], self.schedule.noise(k)[..., None].clamp(min=1e-4)
        odds = self.prior - ((x - signal * self.values) / noise).square().sum(1) / 2
        return (odds.softmax(-1) @ self.values)[:, None, None].expand_as(x)


@pytest.mark.parametrize(("tokens", "stays"), [(4, 0.3), (4, 0.7), (8, 0.7)])
def test_futures_take_each_outcome_as_often_as_it_comes(tokens, stays):
    """The more tokens show an outcome, the nearer to pure noise it is decided; steps of equal size jump over that."""
    schedule = NoiseSchedule("cosine", 256)
    diffusion = Diffusion(Outcomes(schedule, stays), schedule, "x0")
    k = torch.full((1, tokens), 256)
    steps = Guidance(ReachThroughout(GOALS, (0, 1))).future_steps
    drawn = sample_futures(diffusion, torch.zeros(1, tokens, 1), k, k > 0, 4000, steps, generator(5))[:, 0, -1, 0]
    assert (drawn.abs() < 1).float().mean() == pytest.approx(stays, abs=0.07)
    assert (drawn > 1).float().mean() == pytest.approx((1 - stays) / 2, abs=0.04)


def test_candidates_tilt_what_is_decided_by_the_mean_cost_of_its_futures():
    """Cost c.x: the mean of what is decided moves by -scale * covariance @ c, though the luck of the futures is in c.x too."""
    c, scale = 0.3 * torch.randn(T, C, generator=generator()), 1.5
    diffusion, x = exact(PROCESS, 200), partly_denoised(1)[0]
    k, nothing = torch.tensor([[0, 40, 100, 200, 200, 200]]), torch.zeros(1, T, dtype=torch.bool)
    mean, covariance = given(diffusion, x, k)
    tilted = (mean - scale * covariance @ c.flatten().double()).view(T, C).float()
    guidance = Guidance(lambda x0: (x0 * c).sum((1, 2)).detach(), scale, futures=4, future_steps=40, candidates=4000)
    found = guidance.denoise(diffusion, x, k, k, nothing, generator(2))
    torch.testing.assert_close(found.x0[0, :3], tilted[:3], rtol=0, atol=0.05)
    assert (tilted - mean.view(T, C).float())[1:3].abs().max() > 0.25
    torch.testing.assert_close(found.x0[0, 3:], diffusion.denoise(x, k).x0[0, 3:]), "the luck is not moved"
    torch.testing.assert_close(diffusion.schedule.add_noise(found.x0, k, found.eps), x, rtol=1e-4, atol=1e-4)


def test_all_futures_are_one_batch():
    x, k, undecided = partly_denoised()
    sizes = []

    def cost(x0):
        sizes.append(len(x0))
        return x0.square().sum((1, 2))

    gradient(Guidance(cost, futures=5), x, k, undecided, generator())
    Guidance(cost, futures=5, candidates=3).denoise(network(), x, k, k, torch.zeros_like(undecided), generator())
    assert sizes == [5 * 4, 5 * 3 * 4]


class Coin(torch.nn.Module):
    """E[x0 | x_k] of two tokens: the first is anything, the second is the first plus 1 or minus 1, as a coin falls.

    The first is shown at any level, the second as pure noise or at any level; exact, but for a first that is uncertain.
    """

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, k):
        first = x[:, :1] / self.schedule.signal(k[:, :1])[..., None]
        signal, noise = self.schedule.signal(k[:, 1:])[..., None], self.schedule.noise(k[:, 1:])[..., None]
        odds = signal * (x[:, 1:] - signal * first) / noise.square().clamp(min=1e-6)
        return torch.cat([first, first + torch.tanh(odds)], dim=1)


def test_the_mean_of_the_costs_guides_and_not_the_cost_of_the_mean():
    """Cost (x_2 - 1/2)^2, the first token at 0. The mean of x_2 is 0, which is pulled up by -1. Both outcomes, 1 and -1,
    are off, by 1/2 and -3/2: their mean pull is the same -1 for this cost, but for |x_2 - 1/2| it is 0, and -1 for the
    mean.
    """
    schedule = NoiseSchedule("cosine", 50)
    diffusion = Diffusion(Coin(schedule), schedule, "x0")
    x, k = torch.zeros(1, 2, 1), torch.tensor([[10, 50]])
    x[:, 1] = torch.randn(1, generator=generator())

    def pull(cost, **options):
        found = Guidance(cost, **options).gradient(diffusion, x, k, k == 50, generator(1))[1][0, 0, 0]
        return (found * schedule.signal(k)[..., None][0, 0]).item()

    def distance(x0):
        return (x0[:, 1] - 0.5).abs().sum(-1)

    def square(x0):
        return (x0[:, 1] - 0.5).square().sum(-1)

    steps = {"futures": 400, "future_steps": 25}
    assert pull(distance) == pytest.approx(-1, abs=0.05) and pull(square) == pytest.approx(-1, abs=0.05)
    assert pull(distance, **steps) == pytest.approx(0, abs=0.2), "half of the futures are above, half below"
    assert pull(square, **steps) == pytest.approx(-1, abs=0.3)
    assert pull(distance, futures=400, future_steps=1) == pytest.approx(-1, abs=0.05), "one step draws no futures"


@pytest.mark.parametrize("future_steps", [1, 3])
def test_each_sequence_keeps_its_own_goal_in_all_its_futures(future_steps):
    diffusion, matrix = exact(PROCESS, 20), pyramid(T, 20, 10, 3)
    goals = torch.tensor([[3.0, 3.0], [-3.0, -3.0]]).repeat(100, 1)
    guidance = Guidance(ReachThroughout(goals, (0, 1)), 2.0, futures=3, future_steps=future_steps)
    drawn = sample(diffusion, matrix, (200, T, C), generator(), guidance=guidance).tokens
    assert bool((drawn[0::2].mean((0, 1)) > drawn[1::2].mean((0, 1)) + 0.5).all())
