"""The sampler with the exact denoiser of a Gaussian process: what it draws is known in closed form.

DDIM is deterministic, and with a linear denoiser its samples are an affine function of the initial noise. So a
few dozen samples give their mean and covariance exactly, without sampling error (`ddim_moments`). What is left is the error of a
finite number of steps, which falls as 1 / steps, and is extrapolated away (`limit`).
With eta = 1 samples carry fresh noise at every row: there the moments of the finite chain are computed by propagation
(`chain_moments`), shown to tend to the process's own, and samples are compared with them within standard errors.
"""

import pytest
import torch
from gaussian import C, D, Process, T, assert_moments, exact

from dfplan.diffusion import Diffusion
from dfplan.sampler import Known, Sample, denoise_row, sample
from dfplan.schedules import NoiseSchedule
from dfplan.scheduling import autoregressive, from_lag, full_sequence, pyramid, trapezoid

PROCESS = Process()


def at_own_speeds(levels, steps):
    """Tokens that fall by curves of their own, some fast at first and some late: valid, and none of the named shapes."""
    u = torch.linspace(0, 1, steps + 1).unsqueeze(1)
    return torch.round(levels * (1 - u ** torch.tensor([1.0, 0.6, 1.7, 0.8, 1.3, 2.0]))).long()


MATRICES = {
    "full_sequence": lambda K: full_sequence(T, K, K),
    "autoregressive": lambda K: autoregressive(T, K, K),
    "pyramid slope 0.1": lambda K: pyramid(T, K, K, 0.1 * K),
    "pyramid slope 0.4": lambda K: pyramid(T, K, K, 0.4 * K),
    "trapezoid": lambda K: trapezoid(T, K, K, 0.3 * K),
    "backwards": lambda K: from_lag(torch.arange(T).flip(0) * 0.2 * K, K, K),
    "tokens at their own speeds": lambda K: at_own_speeds(K, K),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def ddim_moments(diffusion, matrix, known=None, **options):
    """Mean (D,) and covariance (D, D) of `sample` with eta = 0, from its affine dependence on the initial noise."""
    B = 64
    batch = None if known is None else known(diffusion, B)
    drawn = sample(diffusion, matrix, (B, T, C), generator(), known=batch, record=True, **options)
    x, k = drawn.history[0]
    if batch is not None:  # the noise in what was shown, instead of what was shown
        signal, noise = diffusion.schedule.signal(k), diffusion.schedule.noise(k)
        shown = (x - signal * batch.tokens) / noise.clamp(min=1e-6)
        x = torch.where(batch.mask.unsqueeze(-1), shown * (not batch.noisy) * (batch.level > 0), x)
    noise, out = x.flatten(1).double(), drawn.tokens.flatten(1).double()
    inputs = torch.cat([noise, torch.ones(B, 1, dtype=torch.float64)], dim=1)
    fit = torch.linalg.lstsq(inputs, out, driver="gelsd").solution
    assert (inputs @ fit - out).abs().max() < 1e-3, "a linear denoiser must give an affine sampler"
    return fit[-1], fit[:-1].T @ fit[:-1]


def limit(moments, steps=60):
    """Richardson extrapolation of moments(steps) to infinitely many steps; also the error left at 2 * steps."""
    coarse, fine = moments(steps), moments(2 * steps)
    return tuple(2 * f - c for c, f in zip(coarse, fine, strict=True))


def assert_close(found, expected, tolerance):
    for name, f, e in zip(("mean", "covariance"), found, expected, strict=True):
        worst = (f - e).abs().max().item()
        assert worst < tolerance, f"{name} is off by {worst:.4f}"


def chain_moments(diffusion, matrix, eta):
    """Mean and covariance of the finite chain: each row is x -> J x + b + std * noise."""
    mean, covariance = torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    probe = torch.cat([torch.zeros(1, D), torch.eye(D)]).double().view(-1, T, C)
    for row, row_next in zip(matrix[:-1], matrix[1:], strict=True):
        k, k_next = row.expand(D + 1, T), row_next.expand(D + 1, T)
        moved, std = diffusion.schedule.posterior(diffusion.denoise(probe, k).x0, probe, k, k_next, eta)
        moved = moved.flatten(1)
        b, J = moved[0], (moved[1:] - moved[0]).T
        mean = J @ mean + b
        covariance = J @ covariance @ J.T + torch.diag(std[0].expand(T, C).flatten() ** 2)
    return mean, covariance


@pytest.mark.parametrize("name", MATRICES)
def test_ddim_draws_the_process_for_every_matrix(name):
    found = limit(lambda K: ddim_moments(exact(PROCESS, K), MATRICES[name](K)))
    assert_close(found, (PROCESS.mean, PROCESS.covariance), 0.01)


def test_the_error_of_finite_ddim_halves_when_steps_double():
    def error(K):
        return (ddim_moments(exact(PROCESS, K), MATRICES["pyramid slope 0.1"](K))[1] - PROCESS.covariance).abs().max()

    assert 1.7 < error(40) / error(80) < 2.3


@pytest.mark.parametrize("name", MATRICES)
def test_ddpm_chain_tends_to_the_process_for_every_matrix(name):
    def moments(K):
        return chain_moments(exact(PROCESS, K).double(), MATRICES[name](K), eta=1.0)

    assert_close(limit(moments), (PROCESS.mean, PROCESS.covariance), 0.01)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MATRICES)
def test_samples_follow_the_finite_chain(name, eta):
    K = 12
    diffusion = exact(PROCESS, K)
    drawn = sample(diffusion, MATRICES[name](K), (20_000, T, C), generator(), eta=eta).tokens.flatten(1)
    assert_moments(drawn, *chain_moments(diffusion.double(), MATRICES[name](K), eta))


def test_ddpm_samples_of_many_steps_look_like_the_process():
    """The plain statement, with no propagation between: 5% is what 100 steps leave of the deviations."""
    drawn = sample(exact(PROCESS, 100), pyramid(T, 100, 100, 10), (20_000, T, C), generator(), eta=1.0)
    assert_moments(drawn.tokens.flatten(1), PROCESS.mean, PROCESS.covariance, bias=0.06)


# Known tokens ---------------------------------------------------------------------------------------------------------


VALUES = torch.tensor([[1.5, -1.0], [0.0, 2.0], [0.5, 0.5], [-1.0, 0.0], [2.0, 1.0], [-0.5, -2.0]])


def known(tokens, share=0.0, noisy=False):
    """`Known` at some tokens, at a level that is a share of K."""

    def make(diffusion, batch):
        mask = torch.zeros(batch, T, dtype=torch.bool)
        mask[:, list(tokens)] = True
        return Known(VALUES.expand(batch, T, C), mask, round(share * diffusion.levels), noisy)

    return make


def columns(tokens):
    return torch.tensor([t * C + c for t in tokens for c in range(C)])


def rest(tokens):
    return [t for t in range(T) if t not in tokens]


@pytest.mark.parametrize("name", ["full_sequence", "autoregressive", "pyramid slope 0.1", "trapezoid"])
@pytest.mark.parametrize("tokens", [(0,), (0, 5), (2, 3), (5,), (0, 1, 3)])
def test_known_tokens_give_the_conditional_of_the_others(name, tokens):
    S = torch.eye(D, dtype=torch.float64)[columns(tokens)]
    gain, covariance = PROCESS.observe(S, torch.zeros(len(S), dtype=torch.float64))
    mean = PROCESS.mean + gain @ (VALUES.flatten().double()[columns(tokens)] - S @ PROCESS.mean)
    found = limit(lambda K: ddim_moments(exact(PROCESS, K), MATRICES[name](K), known(tokens)), steps=40)
    assert_close(found, (mean, covariance), 0.02)


def test_known_tokens_come_back_bit_for_bit():
    given = known((0, 4))(exact(PROCESS, 8), 5)
    drawn = sample(exact(PROCESS, 8), pyramid(T, 8, 8), (5, T, C), generator(), known=given, eta=1.0)
    assert torch.equal(drawn.tokens[:, [0, 4]], given.tokens[:, [0, 4]])


@pytest.mark.parametrize("noisy", [True, False])
def test_tokens_known_at_a_level_are_believed_as_far_as_their_noise(noisy):
    tokens, share = (1, 4), 0.4
    free = columns(rest(tokens))

    def moments(K):
        mean, covariance = ddim_moments(
            exact(PROCESS, K), MATRICES["pyramid slope 0.1"](K), known(tokens, share, noisy)
        )
        return mean[free], covariance[free][:, free]

    a = NoiseSchedule("cosine", 1000).alpha_bar[400].double()
    variance = ((1 - a) / a).expand(len(tokens) * C)
    S = torch.eye(D, dtype=torch.float64)[columns(tokens)]
    gain, covariance = PROCESS.observe(S, variance)
    mean = PROCESS.mean + gain @ (VALUES.flatten().double()[columns(tokens)] - S @ PROCESS.mean)
    if not noisy:  # the sampler has added the noise, so that it spreads the answers
        covariance = covariance + gain @ torch.diag(variance) @ gain.T
    assert_close(limit(moments, steps=80), (mean[free], covariance[free][:, free]), 0.02)


# Lengths --------------------------------------------------------------------------------------------------------------


def test_tokens_beyond_a_length_are_ignored():
    """Tokens that stay pure noise tell nothing: the tokens before them keep their marginal, and each its own length."""
    inside = columns(range(4))

    def moments(K):
        mean, covariance = ddim_moments(exact(PROCESS, K), MATRICES["trapezoid"](K), lengths=torch.full((64,), 4))
        return mean[inside], covariance[inside][:, inside]

    assert_close(limit(moments), (PROCESS.mean[inside], PROCESS.covariance[inside][:, inside]), 0.01)


def test_sequences_of_different_lengths_do_not_disturb_one_another():
    diffusion, matrix = exact(PROCESS, 20), pyramid(T, 20, 20)
    lengths = torch.tensor([2, 6, 4])
    drawn = sample(diffusion, matrix, (3, T, C), generator(), lengths=lengths, record=True)
    for b, length in enumerate(lengths.tolist()):
        alone = sample(diffusion, matrix, (3, T, C), generator(), lengths=torch.full((3,), length)).tokens
        torch.testing.assert_close(drawn.tokens[b], alone[b])
        assert torch.equal(drawn.tokens[b, length:], drawn.history[0][0][b, length:]), "beyond it noise stays noise"
        assert all(bool((k[b, length:] == 20).all()) for _, k in drawn.history)


# The walk -------------------------------------------------------------------------------------------------------------


class Spy(torch.nn.Module):
    """Remembers what it was shown and answers with zeros."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, k):
        self.calls.append((x.clone(), k.clone()))
        return torch.zeros_like(x)


def test_stabilization_shows_clean_tokens_at_the_small_level():
    spy = Spy()
    diffusion = Diffusion(spy, NoiseSchedule("cosine", 10), "x0")
    given = Known(torch.ones(2000, 3, 1), torch.tensor([True, False, False]).expand(2000, 3))
    drawn = sample(
        diffusion, autoregressive(3, 10, 2), (2000, 3, 1), generator(), known=given, stabilization=3, record=True
    )
    a = diffusion.schedule.alpha_bar[3]
    for (x, k), (held, level) in zip(spy.calls, drawn.history, strict=False):
        assert torch.equal(k, torch.where(level == 0, 3, level))
        assert torch.equal(x[level > 0], held[level > 0]), "tokens that are not clean are shown as they are"
        shown = x[:, 0, 0]
        assert abs(shown.mean() - a.sqrt()) < 4.5 * ((1 - a) / 2000).sqrt()
        assert abs(shown.var() / (1 - a) - 1) < 4.5 * (2 / 2000) ** 0.5
    assert not torch.equal(spy.calls[0][0][:, 0], spy.calls[1][0][:, 0]), "the noise is drawn afresh at each row"
    assert torch.equal(drawn.tokens[:, 0], given.tokens[:, 0]), "only what is shown is noisy, the token stays"
    assert len(spy.calls) == len(drawn.history) - 1


def test_history_holds_every_row_and_walking_by_hand_gives_the_same():
    diffusion, matrix = exact(PROCESS, 10), pyramid(T, 10, 5)
    drawn = sample(diffusion, matrix, (3, T, C), generator(), eta=0.7, record=True)
    assert [k[1].tolist() for _, k in drawn.history] == matrix.tolist()
    g = generator()
    x = torch.randn((3, T, C), generator=g)
    for (held, k), row in zip(drawn.history[:-1], matrix[1:], strict=True):
        assert torch.equal(x, held)
        x = denoise_row(diffusion, x, k, row.expand(3, T), g, eta=0.7)
    assert torch.equal(x, drawn.tokens)
    assert sample(diffusion, matrix, (3, T, C), generator()).history == []


def test_sampling_may_stop_after_any_row_and_go_on():
    diffusion, matrix = exact(PROCESS, 10), pyramid(T, 10, 5)
    drawn: Sample = sample(diffusion, matrix, (3, T, C), generator(), record=True)
    x, k = drawn.history[4]
    for row in matrix[5:]:
        x, k = denoise_row(diffusion, x, k, row.expand(3, T), generator(9)), row.expand(3, T)
    assert torch.equal(x, drawn.tokens), "DDIM draws nothing on the way"


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_same_seed_same_bytes(eta):
    def draw(seed):
        matrix = pyramid(T, 16, 8)
        return sample(exact(PROCESS, 16), matrix, (4, T, C), generator(seed), eta=eta, stabilization=2).tokens

    assert draw(3).numpy().tobytes() == draw(3).numpy().tobytes()
    assert not torch.equal(draw(3), draw(4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"matrix": full_sequence(T + 1, 8, 4)}, "has 7 tokens, but the sequences have 6"),
        ({"matrix": full_sequence(T, 9, 4)}, "first row must be all 8"),
        ({"stabilization": 9}, "stabilization is a level in 0..8, got 9"),
        ({"known": Known(torch.zeros(2, T, C), torch.zeros(2, T, dtype=torch.bool))}, r"must be \(3, 6, 2\)"),
        ({"known": Known(torch.zeros(3, T, C), torch.zeros(3, 1, dtype=torch.bool))}, r"and \(3, 6\), got"),
        ({"known": Known(torch.zeros(3, T, C), torch.zeros(3, T, dtype=torch.bool), 9)}, "in 0..8, got 9"),
        ({"lengths": torch.tensor([4])}, r"lengths must be \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(options, sentence):
    options = {"matrix": full_sequence(T, 8, 4)} | options
    with pytest.raises(ValueError, match=sentence):
        sample(exact(PROCESS, 8), options.pop("matrix"), (3, T, C), generator(), **options)
