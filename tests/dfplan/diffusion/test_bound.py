"""The variational bound, with the exact denoiser of a Gaussian process, whose entropy is known."""

from itertools import pairwise

import pytest
import torch
from gaussian import MATRICES, Perturbed, chain, exact, posterior_variance

from dfplan.diffusion.bound import bound
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import full_sequence
from dfplan.diffusion.noise import NoiseSchedule

PROCESS = chain(tokens=4)
T, C, D = PROCESS.T, PROCESS.C, PROCESS.D


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def expected_bound(levels: int, matrix: torch.Tensor) -> float:
    """E[bound] over data and noise for the exact denoiser: squared errors become posterior variances.

    Written with KL divergences of torch's own distributions, on the token's scale y = x / sqrt(alpha_bar), where the
    noise variance is 1 / snr, and one step is a random walk seen backwards.
    """
    a = NoiseSchedule("cosine", levels).alpha_bar.double()
    variance = (1 - a) / a
    seen = torch.distributions.Normal
    marginal = (a[-1] * (PROCESS.covariance.diagonal() + PROCESS.mean**2)).sqrt()
    total = torch.distributions.kl_divergence(seen(marginal, (1 - a[-1]).sqrt()), seen(0.0, 1.0)).sum().item()
    for row, row_next in pairwise(matrix):
        errors = (posterior_variance(PROCESS, a, row) / C).sqrt()
        for k, j, error in zip(row.tolist(), row_next.tolist(), errors, strict=True):
            if j == 0 < k:
                total -= C * (seen(0.0, (1 - a[k]).sqrt()).log_prob(error)).item()
            elif j < k:
                follow = 1 - variance[j] / variance[k]
                narrow = variance[j] * follow
                p = seen(0.0, (narrow + follow**2 * (1 - a[k])).sqrt())
                total += C * torch.distributions.kl_divergence(seen(follow * error, narrow.sqrt()), p).item()
    return total


@pytest.mark.parametrize("name", MATRICES)
def test_the_bound_is_above_the_entropy_and_tends_to_it(name):
    gap = [expected_bound(K, MATRICES[name](T, K)) - PROCESS.entropy for K in (50, 100, 200)]
    assert all(g > 0 for g in gap)
    assert all(0.45 < fine / coarse < 0.55 for coarse, fine in pairwise(gap)), "the gap falls as 1 / K"
    assert gap[-1] < 0.06, f"{gap[-1]:.3f} nats of {D} numbers are left at 200 levels"


@pytest.mark.parametrize("name", ["full_sequence", "autoregressive", "pyramid, lag 0.4", "each token at its own speed"])
def test_the_bound_has_its_expectation(name):
    N, K = 5_000, 20
    matrix = MATRICES[name](T, K)
    found = bound(exact(PROCESS, K).double(), PROCESS.draw(N), matrix, generator())
    assert found.shape == (N,)
    error = abs(found.mean().item() - expected_bound(K, matrix))
    assert error < 4 * (found.std() / N**0.5).item()
    assert found.mean() > PROCESS.entropy


@pytest.mark.parametrize("name", ["full_sequence", "autoregressive", "trapezoid"])
def test_the_bound_holds_for_each_sequence_by_itself(name):
    """Averaged over noise alone it stays above -log p(x0) of the very sequence, likely or not."""
    N, K = 1_000, 100
    density = torch.distributions.MultivariateNormal(PROCESS.mean, PROCESS.covariance)
    for x0 in (PROCESS.mean, PROCESS.draw(1, seed=5)[0].flatten(), PROCESS.mean + 1.5):
        diffusion = exact(PROCESS, K).double()
        found = bound(diffusion, x0.view(1, T, C).expand(N, T, C), MATRICES[name](T, K), generator())
        gap = found.mean() + density.log_prob(x0)
        assert -4 * found.std() / N**0.5 < gap < 0.5


def test_a_worse_denoiser_has_a_worse_bound():
    best = exact(PROCESS, 30).double()
    worse = Diffusion(Perturbed(best.model, 0.1), best.schedule, "x0")
    x0, matrix = PROCESS.draw(500), full_sequence(T, 30, 30)
    assert bound(worse, x0, matrix, generator()).mean() > bound(best, x0, matrix, generator()).mean() + 0.1
