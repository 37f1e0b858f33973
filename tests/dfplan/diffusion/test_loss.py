"""The loss, with the exact denoiser of a Gaussian process where the right value is known."""

import pytest
import torch
from gaussian import Perturbed, chain, exact, posterior_variance

from dfplan.diffusion.levels import Drawn, independent, next_token, no_goal, shared
from dfplan.diffusion.loss import Diffusion, fused_signal
from dfplan.diffusion.noise import NoiseSchedule

PROCESS = chain(tokens=4)
T, C, D = PROCESS.T, PROCESS.C, PROCESS.D
PREDICTIONS = ["x0", "eps", "v"]
WEIGHTINGS = ["uniform", "min_snr", "fused_snr"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The denoiser ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_denoise_gives_the_posterior_mean_whatever_is_predicted(prediction):
    x0 = PROCESS.draw(200)
    k = independent(200, T, 30, generator()).k
    schedule = NoiseSchedule("cosine", 30).double()
    x = schedule.add_noise(x0, k, torch.randn(x0.shape, generator=generator(1), dtype=torch.float64))
    found = exact(PROCESS, 30, prediction).double().denoise(x, k)
    a = schedule.alpha_bar[k[0]].repeat_interleave(C)
    gain, _ = PROCESS.observe(torch.diag(a.sqrt()), 1 - a)
    mean = PROCESS.mean + gain @ (x[0].flatten() - a.sqrt() * PROCESS.mean)
    torch.testing.assert_close(found.x0[0].flatten(), mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(schedule.add_noise(found.x0, k, found.eps), x, rtol=1e-5, atol=1e-5)


# The loss -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_loss_is_least_at_the_exact_denoiser(prediction, weighting):
    N, K = 20_000, 4
    x0, levels = PROCESS.draw(N), independent(N, T, K, generator())
    best = exact(PROCESS, K, prediction, weighting=weighting).double()

    def loss(size):
        network = Perturbed(best.model, size)
        return Diffusion(network, best.schedule, prediction, weighting).loss(x0, levels, generator(1)).item()

    # The excess is quadratic in the perturbation: a linear part would say that another denoiser is better.
    up, down, least = loss(0.3), loss(-0.3), loss(0.0)
    assert up > least < down
    assert abs(up - down) < 0.2 * (up + down - 2 * least), "the slope at the exact denoiser is zero"


def test_the_least_loss_is_the_posterior_variance():
    N, K = 20_000, 6
    diffusion = exact(PROCESS, K, weighting="uniform").double()
    row = torch.tensor([0, 6, 2, 3])
    levels = Drawn(row.expand(N, T), (row > 0).expand(N, T), no_goal(row.expand(N, T)))
    found = diffusion.loss(PROCESS.draw(N), levels, generator())
    expected = posterior_variance(PROCESS, diffusion.schedule.alpha_bar, row)[row > 0].mean() / C
    assert found.item() == pytest.approx(expected.item(), rel=0.02)


def test_only_counted_tokens_enter_the_loss():
    class Zero(torch.nn.Module):
        def forward(self, x, k):
            return torch.zeros_like(x)

    diffusion = Diffusion(Zero(), NoiseSchedule("cosine", 10), "x0", "uniform")
    x0 = torch.randn(50, T, C, generator=generator())
    counted = torch.rand(50, T, generator=generator()) < 0.3
    levels = Drawn(torch.full((50, T), 5), counted, torch.zeros_like(counted))
    loss = diffusion.loss(x0, levels, generator())
    torch.testing.assert_close(loss, x0[counted].square().mean())
    other = torch.where(counted.unsqueeze(-1), x0, 1e6)
    assert torch.equal(diffusion.loss(other, levels, generator()), loss)
    nothing = levels._replace(counted=torch.zeros(50, T, dtype=torch.bool))
    assert diffusion.loss(x0, nothing, generator()) == 0


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("draw", [independent, shared, next_token])
def test_the_loss_is_finite_at_every_level(prediction, weighting, draw):
    diffusion = exact(PROCESS, 256, prediction, weighting=weighting)
    loss = diffusion.loss(PROCESS.draw(100).float(), draw(100, T, 256, generator()), generator())
    assert loss.isfinite() and loss > 0


def with_snr(prediction, weighting):
    """A diffusion whose levels 1, 2, 3 have the signal-to-noise ratios 9, 1 and 1/9."""
    schedule = NoiseSchedule("cosine", 3).double()
    schedule.alpha_bar = torch.tensor([1.0, 0.9, 0.5, 0.1], dtype=torch.float64)
    return Diffusion(torch.nn.Identity(), schedule, prediction, weighting)


@pytest.mark.parametrize(
    ("prediction", "expected"), [("x0", [5, 1, 1 / 9]), ("eps", [5 / 9, 1, 1]), ("v", [0.5, 0.5, 0.1])]
)
def test_min_snr_weights_by_hand(prediction, expected):
    found = with_snr(prediction, "min_snr").weight(torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(found, torch.tensor([expected]).double())
    assert with_snr(prediction, "uniform").weight(torch.tensor([[1, 2, 3]])).tolist() == [[1, 1, 1]]


def test_fused_snr_weights_by_hand():
    """Shares of the clip: 1, 1/5, 1/45. The past's average is 0, then 1, then 0.9 * 1 + 0.1 / 5 = 0.92.

    Fused: 1; 1 - (1 - 0.9)(1 - 1/5) = 0.92; 1 - (1 - 0.9 * 0.92)(1 - 1/45) = 1 - 0.172 * 44/45.
    Without the clip the first is 9/5, the others are the same.
    """
    last = 1 - 0.172 * 44 / 45
    k = torch.tensor([[1, 2, 3]])
    x0 = torch.tensor([[5.0, 4.6, 5 * last]]).double()
    snr = torch.tensor([[9.0, 4.6, 5 * last]]).double()
    torch.testing.assert_close(with_snr("x0", "fused_snr").weight(k), x0)
    torch.testing.assert_close(with_snr("eps", "fused_snr").weight(k), x0 / snr)
    torch.testing.assert_close(with_snr("v", "fused_snr").weight(k), x0 / (snr + 1))


def test_fused_signal_is_the_papers_recursion():
    signal = torch.rand(5, 9, generator=generator(), dtype=torch.float64)
    found = fused_signal(signal, signal, 0.8)
    for b in range(5):
        average = 0.0
        for t in range(9):
            s = signal[b, t].item()
            assert found[b, t].item() == pytest.approx(1 - (1 - 0.8 * average) * (1 - s))
            average = s if t == 0 else 0.8 * average + 0.2 * s
    noise = with_snr("x0", "fused_snr").weight(torch.tensor([[1, 1, 3], [3, 3, 3]]))[:, 2]
    assert noise[0] > 5 * noise[1], "noise after clean tokens counts more than noise after noise"


def test_unknown_names_are_refused():
    schedule = NoiseSchedule("cosine", 4)
    with pytest.raises(ValueError, match="unknown prediction 'x'"):
        Diffusion(torch.nn.Identity(), schedule, "x")
    with pytest.raises(ValueError, match="unknown weighting 'snr'"):
        Diffusion(torch.nn.Identity(), schedule, "v", "snr")
