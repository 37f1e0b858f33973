import math

import pytest
import torch

from dfplan.diffusion.noise import NoiseSchedule, alpha_bar

NAMES = ["linear", "cosine", "sigmoid"]


def noisy_batch(schedule, batch=4, tokens=9, columns=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    x0 = torch.randn(batch, tokens, columns, generator=g, dtype=torch.float64)
    eps = torch.randn(batch, tokens, columns, generator=g, dtype=torch.float64)
    k = torch.randint(0, schedule.K + 1, (batch, tokens), generator=g)
    k[:, 0], k[:, -1] = 0, schedule.K
    return x0, eps, k


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [1, 2, 8, 50, 256, 1000])
def test_signal_falls_strictly_from_one_to_almost_nothing(name, levels):
    a = alpha_bar(name, levels)
    assert a.shape == (levels + 1,) and a.dtype == torch.float64
    assert a[0] == 1
    assert bool((a[1:] < a[:-1]).all()) and a[-1] > 0
    single = NoiseSchedule(name, levels).alpha_bar
    assert single.dtype == torch.float32 and bool((single[1:] < single[:-1]).all()), "strict after rounding too"
    if levels >= 50:
        assert a[-1] < 1e-3


def test_named_schedules_against_their_papers():
    assert alpha_bar("linear", 1000)[1].item() == pytest.approx(1 - 1e-4)
    assert alpha_bar("linear", 1000)[-1].item() == pytest.approx(4.036e-5, rel=1e-3)  # Ho et al. 2020, T = 1000
    for k in (10, 128, 200):
        cosine = math.cos((k / 256 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
        assert alpha_bar("cosine", 256)[k].item() == pytest.approx(cosine)
        s = lambda t: 1 / (1 + math.exp(-t))  # noqa: E731
        sigmoid = (s(3) - s(6 * k / 256 - 3)) / (s(3) - s(-3))
        assert alpha_bar("sigmoid", 256)[k].item() == pytest.approx(sigmoid)


@pytest.mark.parametrize("name", NAMES)
def test_level_zero_returns_the_token_bit_for_bit(name):
    schedule = NoiseSchedule(name, 16)
    x0, eps = torch.randn(50, 3, 2) * 1e3, torch.randn(50, 3, 2)
    k = torch.tensor([0, 7, 0]).expand(50, 3)
    x = schedule.add_noise(x0, k, eps)
    assert torch.equal(x[:, [0, 2]], x0[:, [0, 2]])
    assert not torch.equal(x[:, 1], x0[:, 1])
    for prediction in ("x0", "eps", "v"):
        clean = schedule.interpret(torch.randn_like(x), x, k, prediction)
        assert torch.equal(clean.x0[:, [0, 2]], x0[:, [0, 2]]), "whatever the network says of a clean token"
        assert bool((clean.eps[:, [0, 2]] == 0).all())


@pytest.mark.parametrize("name", NAMES)
def test_snr_signal_and_noise_are_one_quantity(name):
    schedule = NoiseSchedule(name, 64).double()
    k = torch.arange(1, 65)
    torch.testing.assert_close(schedule.snr(k), (schedule.signal(k) / schedule.noise(k)) ** 2)
    torch.testing.assert_close(schedule.signal(k) ** 2 + schedule.noise(k) ** 2, torch.ones(64).double())
    assert schedule.snr(torch.tensor(0)).isinf()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_what_the_network_is_asked_for_gives_back_token_and_noise(name, prediction):
    schedule = NoiseSchedule(name, 40).double()
    x0, eps, k = noisy_batch(schedule)
    x = schedule.add_noise(x0, k, eps)
    found = schedule.interpret(schedule.target(x0, k, eps, prediction), x, k, prediction)
    torch.testing.assert_close(found.x0, x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.eps, torch.where((k == 0).unsqueeze(-1), 0.0, eps), rtol=1e-6, atol=1e-6)


def test_predictions_of_any_value_agree_with_one_another():
    """Not only at the truth: x0 and eps of an answer, said as x0, eps and v, are the same answer."""
    schedule = NoiseSchedule("cosine", 40).double()
    x0, eps, k = noisy_batch(schedule)
    k = k.clamp(min=1, max=39)
    x = schedule.add_noise(x0, k, eps)
    guess = schedule.interpret(torch.randn_like(x), x, k, "v")
    torch.testing.assert_close(schedule.add_noise(guess.x0, k, guess.eps), x)
    for prediction in ("x0", "eps", "v"):
        again = schedule.interpret(schedule.target(guess.x0, k, guess.eps, prediction), x, k, prediction)
        torch.testing.assert_close(again.x0, guess.x0)
        torch.testing.assert_close(again.eps, guess.eps)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("k", "k_next"), [(1, 0), (2, 1), (20, 19), (40, 39), (30, 7), (40, 0), (40, 1)])
def test_posterior_is_the_product_of_two_gaussians(name, k, k_next):
    """q(x_j | x_k, x_0) is proportional to q(x_j | x_0) q(x_k | x_j): precisions add, and means by their precision."""
    a = alpha_bar(name, 40)
    x0, x = 0.7, -1.3
    ratio = (a[k] / a[k_next]).item()  # x_k = sqrt(ratio) x_j + sqrt(1 - ratio) noise
    prior_mean, prior_variance = math.sqrt(a[k_next]) * x0, 1 - a[k_next].item()
    seen_mean, seen_variance = x / math.sqrt(ratio), (1 - ratio) / ratio
    if prior_variance == 0:
        mean, variance = prior_mean, 0.0
    else:
        variance = 1 / (1 / prior_variance + 1 / seen_variance)
        mean = variance * (prior_mean / prior_variance + seen_mean / seen_variance)
    schedule = NoiseSchedule(name, 40)
    schedule.alpha_bar = a
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    found_mean, found_std = schedule.posterior(
        x0 * one, x * one, torch.tensor([[k]]), torch.tensor([[k_next]]), eta=1.0
    )
    assert found_mean.item() == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert found_std.item() == pytest.approx(math.sqrt(variance), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_posteriors_of_any_eta_keep_the_marginals(eta):
    """If x_k ~ q(x_k | x_0) then x_{k_next} ~ q(x_{k_next} | x_0): the mean's slope and the variance must fit."""
    schedule = NoiseSchedule("sigmoid", 30).double()
    k, k_next = torch.tensor([[1, 9, 30, 30]]), torch.tensor([[0, 4, 29, 2]])
    x0 = torch.full((1, 4, 1), 1.7, dtype=torch.float64)
    center = schedule.signal(k)[..., None] * x0
    mean, std = schedule.posterior(x0, center, k, k_next, eta)
    torch.testing.assert_close(mean, schedule.signal(k_next)[..., None] * x0)
    slope = schedule.posterior(x0, center + 1, k, k_next, eta)[0] - mean
    torch.testing.assert_close(
        (slope * schedule.noise(k)[..., None]) ** 2 + std**2, schedule.noise(k_next)[..., None] ** 2
    )
    assert eta > 0 or bool((std == 0).all())


def test_tokens_that_do_not_move_stay_bit_for_bit():
    schedule = NoiseSchedule("cosine", 30)
    x0, x = torch.randn(5, 3, 2), torch.randn(5, 3, 2)
    k = torch.tensor([0, 12, 30]).expand(5, 3)
    mean, std = schedule.posterior(x0, x, k, k, eta=1.0)
    assert torch.equal(mean, x) and bool((std == 0).all())


def test_errors():
    with pytest.raises(ValueError, match="unknown noise schedule 'cosin'"):
        alpha_bar("cosin", 10)
    with pytest.raises(ValueError, match="at least one level, got 0"):
        NoiseSchedule("linear", 0)
