"""The sampler with the exact denoiser of a Gaussian process: what it draws is known in closed form.

DDIM's moments are computed without sampling error (`gaussian.ddim_moments`). What is left is the error of a finite
number of steps: a denoiser knows the mean of a clean token, not its spread, and a step takes the mean for the token.
That error falls as 1 / steps and is extrapolated away (`gaussian.limit`).
With eta = 1 samples carry fresh noise at every row: there the moments of the finite chain are computed by propagation
(`chain_moments`), shown to tend to the process's own, and samples are compared with them within standard errors.
"""

from itertools import pairwise

import pytest
import torch
from gaussian import MATRICES, assert_close, assert_moments, chain, ddim_moments, exact, limit

from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import autoregressive, full_sequence, pyramid
from dfplan.diffusion.noise import NoiseSchedule
from dfplan.diffusion.sampler import Known, denoise_row, sample

PROCESS = chain()
T, C, D = PROCESS.T, PROCESS.C, PROCESS.D


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def chain_moments(diffusion, matrix, eta):
    """Mean and covariance of the finite chain: each row is x -> J x + b + std * noise."""
    mean, covariance = torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    probe = torch.cat([torch.zeros(1, D), torch.eye(D)]).double().view(-1, T, C)
    for row, row_next in pairwise(matrix):
        k, k_next = row.expand(D + 1, T), row_next.expand(D + 1, T)
        moved, std = diffusion.schedule.posterior(diffusion.denoise(probe, k).x0, probe, k, k_next, eta)
        moved = moved.flatten(1)
        b, J = moved[0], (moved[1:] - moved[0]).T
        mean = J @ mean + b
        covariance = J @ covariance @ J.T + torch.diag(std[0].expand(T, C).flatten() ** 2)
    return mean, covariance


@pytest.mark.parametrize("name", MATRICES)
def test_ddim_draws_the_process_for_every_matrix(name):
    found = limit(lambda K: ddim_moments(exact(PROCESS, K), PROCESS, MATRICES[name](T, K)))
    assert_close(found, (PROCESS.mean, PROCESS.covariance), 0.01)


def test_the_error_of_finite_ddim_halves_when_steps_double():
    def error(K):
        _, covariance = ddim_moments(exact(PROCESS, K), PROCESS, MATRICES["pyramid, lag 0.1"](T, K))
        return (covariance - PROCESS.covariance).abs().max()

    assert 1.7 < error(40) / error(80) < 2.3


@pytest.mark.parametrize("name", MATRICES)
def test_ddpm_chain_tends_to_the_process_for_every_matrix(name):
    def moments(K):
        return chain_moments(exact(PROCESS, K).double(), MATRICES[name](T, K), eta=1.0)

    assert_close(limit(moments), (PROCESS.mean, PROCESS.covariance), 0.01)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MATRICES)
def test_samples_follow_the_finite_chain(name, eta):
    K = 12
    diffusion = exact(PROCESS, K)
    drawn = sample(diffusion, MATRICES[name](T, K), (20_000, T, C), generator(), eta=eta).tokens
    assert_moments(drawn, *chain_moments(diffusion.double(), MATRICES[name](T, K), eta))


def test_ddpm_samples_of_many_steps_look_like_the_process():
    """The plain statement, with no propagation between: 5% is what 100 steps leave of the deviations."""
    drawn = sample(exact(PROCESS, 100), pyramid(T, 100, 100, 10), (20_000, T, C), generator(), eta=1.0)
    assert_moments(drawn.tokens, PROCESS.mean, PROCESS.covariance, bias=0.06)


# Known tokens ---------------------------------------------------------------------------------------------------------


VALUES = torch.tensor([[1.5, -1.0], [0.0, 2.0], [0.5, 0.5], [-1.0, 0.0], [2.0, 1.0], [-0.5, -2.0]])


def known(tokens, share=0.0, noisy=False):
    """`Known` at some tokens, at a level that is a share of K."""

    def make(diffusion, batch):
        mask = torch.zeros(batch, T, dtype=torch.bool)
        mask[:, list(tokens)] = True
        return Known(VALUES.expand(batch, T, C), mask, round(share * diffusion.levels), noisy)

    return make


@pytest.mark.parametrize("name", ["full_sequence", "autoregressive", "pyramid, lag 0.1", "trapezoid"])
@pytest.mark.parametrize("tokens", [(0,), (0, 5), (2, 3), (5,), (0, 1, 3)])
def test_known_tokens_give_the_conditional_of_the_others(name, tokens):
    mean, covariance, _ = PROCESS.given(tokens, VALUES)
    found = limit(lambda K: ddim_moments(exact(PROCESS, K), PROCESS, MATRICES[name](T, K), known(tokens)), steps=40)
    assert_close(found, (mean, covariance), 0.02)


def test_known_tokens_come_back_bit_for_bit():
    given = known((0, 4))(exact(PROCESS, 8), 5)
    drawn = sample(exact(PROCESS, 8), pyramid(T, 8, 8), (5, T, C), generator(), known=given, eta=1.0)
    assert torch.equal(drawn.tokens[:, [0, 4]], given.tokens[:, [0, 4]])


@pytest.mark.parametrize("noisy", [True, False])
def test_tokens_known_at_a_level_are_believed_as_far_as_their_noise(noisy):
    tokens, share = (1, 4), 0.4
    free = PROCESS.columns((0, 2, 3, 5))

    def moments(K):
        matrix = MATRICES["pyramid, lag 0.1"](T, K)
        mean, covariance = ddim_moments(exact(PROCESS, K), PROCESS, matrix, known(tokens, share, noisy))
        return mean[free], covariance[free][:, free]

    a = NoiseSchedule("cosine", 1000).alpha_bar[400].item()
    mean, covariance, gain = PROCESS.given(tokens, VALUES, variance=(1 - a) / a)
    if not noisy:  # the sampler has added the noise, so that it spreads the answers
        covariance = covariance + gain @ gain.T * (1 - a) / a
    assert_close(limit(moments, steps=80), (mean[free], covariance[free][:, free]), 0.02)


# Lengths --------------------------------------------------------------------------------------------------------------


def test_tokens_beyond_a_length_are_ignored():
    """Tokens that stay pure noise tell nothing: the tokens before them keep their marginal, and each its own length."""
    inside = PROCESS.columns(range(4))

    def moments(K):
        matrix, lengths = MATRICES["trapezoid"](T, K), torch.full((64,), 4)
        mean, covariance = ddim_moments(exact(PROCESS, K), PROCESS, matrix, lengths=lengths)
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
    drawn = sample(diffusion, matrix, (3, T, C), generator(), record=True)
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
        ({"known": Known(torch.zeros(3, T, C), torch.zeros(3, T, dtype=torch.bool), 9)}, "in 0..8, got 9"),
        ({"eta": float("nan")}, r"eta must lie in 0\.\.1, got nan"),
        ({"eta": 1.5}, r"eta must lie in 0\.\.1"),
        ({"lengths": torch.tensor([4])}, r"lengths must be \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(options, sentence):
    options = {"matrix": full_sequence(T, 8, 4)} | options
    with pytest.raises(ValueError, match=sentence):
        sample(exact(PROCESS, 8), options.pop("matrix"), (3, T, C), generator(), **options)


@pytest.mark.parametrize(
    ("tokens", "mask", "sentence"),
    [
        (torch.zeros(3, T, C), torch.zeros(3, 1, dtype=torch.bool), r"\(B, T, C\) and their mask \(B, T\) bool"),
        (torch.zeros(3, T), torch.zeros(3, T, dtype=torch.bool), r"got \(3, 6\) and \(3, 6\)"),
        (torch.zeros(3, T, C), torch.zeros(3, T), "torch.float32"),
        (torch.full((3, T, C), float("nan")), torch.ones(3, T, dtype=torch.bool), "must be finite"),
        (torch.full((3, T, C), float("inf")), torch.ones(3, T, dtype=torch.bool), "must be finite"),
    ],
)
def test_known_tokens_are_checked_when_they_are_given(tokens, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        Known(tokens, mask)


def test_what_is_not_known_may_be_anything():
    given = Known(torch.full((3, T, C), float("nan")), torch.zeros(3, T, dtype=torch.bool))
    assert bool(sample(exact(PROCESS, 8), full_sequence(T, 8, 4), (3, T, C), generator(), known=given).tokens.isfinite().all())
