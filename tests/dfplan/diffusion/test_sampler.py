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

from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import autoregressive, full_sequence, pyramid
from dfplan.diffusion.noise import NoiseSchedule
from dfplan.diffusion.sampler import Known, State, begin, run, sample, step
from dfplan.models import Transformer, TransformerConfig
from dfplan.planning.costs import ReachThroughout

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
    drawn = sample(diffusion, MATRICES[name](T, K), (8_000, T, C), generator(), eta=eta).tokens
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
        return Known(VALUES.expand(batch, T, C), mask, round(share * diffusion.K), noisy)

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


def test_what_is_known_at_the_last_level_is_noise_also_where_observations_are_noisy():
    diffusion = exact(PROCESS, 8)
    states = [
        begin(diffusion, (5, T, C), generator(), known((1,), 1.0, noisy)(diffusion, 5)).tokens
        for noisy in (True, False)
    ]
    assert torch.equal(*states) and states[0][:, 1].std() > 0.5


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


# Temperature ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MATRICES)
def test_temperature_scales_how_far_samples_lie_from_their_mean(name):
    def draw(temperature):
        return sample(exact(PROCESS, 20), MATRICES[name](T, 20), (8, T, C), generator(), temperature=temperature).tokens

    mean, whole = draw(0.0), draw(1.0)
    torch.testing.assert_close(draw(0.5) - mean, 0.5 * (whole - mean), atol=1e-4, rtol=0)
    assert bool(((whole - mean).abs() > 0.01).any(0).all())


def test_without_noise_every_sample_is_the_mean():
    def mean(K):
        return sample(exact(PROCESS, K), pyramid(T, K, K), (3, T, C), generator(), temperature=0.0).tokens.flatten(1)

    drawn = 2 * mean(80) - mean(40)
    torch.testing.assert_close(drawn, PROCESS.mean.float().expand(3, D), atol=0.01, rtol=0)


def test_temperature_leaves_known_tokens_and_what_stays_noise():
    """The network has learned that unit noise says nothing."""
    diffusion, mask = exact(PROCESS, 20), torch.zeros(3, T, dtype=torch.bool)
    mask[:, :2] = True
    given = Known(torch.ones(3, T, C), mask, torch.where(torch.arange(T) == 1, 20, 5).expand(3, T))
    cold, warm = (
        begin(diffusion, (3, T, C), generator(), given, torch.tensor([4, 5, 6]), temperature)
        for temperature in (0.0, 1.0)
    )
    assert torch.equal(cold.tokens[cold.known], warm.tokens[warm.known])
    assert bool((cold.tokens[~cold.known] == 0).all())
    assert cold.known.sum(1).tolist() == [4, 3, 2]


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


def network(levels=10):
    """A denoiser whose tokens all depend on one another, for sequences of any length."""
    torch.manual_seed(0)
    model = Transformer(C, levels, TransformerConfig(width=16, depth=1, heads=2))
    torch.nn.init.normal_(model.out.weight)
    return Diffusion(model, NoiseSchedule("cosine", levels), "v")


def end(states):
    return list(states)[-1]


def rows_of(states, rows):
    """One state of some sequences of each: sequence b as it stands in states[rows[b]]."""
    parts = [(s.tokens[b], s.levels[b], s.known[b]) for b, s in enumerate(states[row] for row in rows)]
    return State(*(torch.stack(part) for part in zip(*parts, strict=True)))


def same(found, expected):
    return all(torch.equal(getattr(found, name), getattr(expected, name)) for name in ("tokens", "levels", "known"))


def test_history_holds_every_row_and_walking_by_hand_gives_the_same():
    diffusion, matrix = exact(PROCESS, 10), pyramid(T, 10, 5)
    drawn = sample(diffusion, matrix, (3, T, C), generator(), eta=0.7, record=True)
    assert [k[1].tolist() for _, k in drawn.history] == matrix.tolist()
    g = generator()
    state = begin(diffusion, (3, T, C), g)
    assert not bool(state.known.any())
    for (tokens, levels), row in zip(drawn.history[1:], matrix[1:], strict=True):
        state = step(diffusion, state, row, g, eta=0.7)
        assert torch.equal(state.tokens, tokens) and torch.equal(state.levels, levels)
    assert torch.equal(state.tokens, drawn.tokens) and torch.equal(state.levels, drawn.levels)
    assert sample(diffusion, matrix, (3, T, C), generator()).history == []


OPTIONS = {
    "ddim": {},
    "ddpm": {"eta": 1.0},
    "stabilized": {"stabilization": 2},
    "guided": {"guidance": Guidance(ReachThroughout(torch.ones(2), (0, 1)), 0.5)},
    "futures": {"guidance": Guidance(ReachThroughout(torch.ones(2), (0, 1)), 0.5, futures=2, future_steps=2)},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("row", [0, 1, 4, 9])
def test_sampling_may_stop_after_any_row_and_go_on(name, row):
    """With known tokens, one of them uncertain, and lengths."""
    diffusion, matrix = network(), pyramid(T, 10, 5)
    given, lengths = known((0, 3), share=0.3)(diffusion, 3), torch.tensor([6, 4, 5])
    g = generator()
    start = begin(diffusion, (3, T, C), g, given, lengths)
    whole = list(run(diffusion, start, matrix, g, **OPTIONS[name]))
    g = generator()
    stopped = end(run(diffusion, begin(diffusion, (3, T, C), g, given, lengths), matrix[: row + 1], g, **OPTIONS[name]))
    assert same(stopped, whole[row])
    assert same(end(run(diffusion, stopped, matrix[row:], g, **OPTIONS[name])), whole[-1])
    drawn = sample(diffusion, matrix, (3, T, C), generator(), known=given, lengths=lengths, **OPTIONS[name])
    free = ~given.mask
    assert torch.equal(drawn.tokens[free], whole[-1].tokens[free]) and torch.equal(drawn.levels, whole[-1].levels)


@pytest.mark.parametrize("name", ["ddim", "guided"])
def test_a_batch_of_sequences_from_different_rows_goes_on_as_each_would_have(name):
    """Down the whole matrix: a sequence waits until a row is below it."""
    diffusion, matrix = network(), pyramid(T, 10, 5)
    start = begin(diffusion, (3, T, C), generator(), known((0,))(diffusion, 3), torch.tensor([6, 4, 5]))
    whole = list(run(diffusion, start, matrix, generator(1), **OPTIONS[name]))
    joined = rows_of(whole, (2, 7, 5))
    assert len({tuple(levels) for levels in joined.levels.tolist()}) == 3
    for rows in (matrix, matrix[2:]):
        assert same(end(run(diffusion, joined, rows, generator(9), **OPTIONS[name])), whole[-1])


def test_each_sequence_may_have_a_matrix_of_its_own():
    diffusion = network()
    matrices = [pyramid(T, 10, 4, 1), autoregressive(T, 10, 1), full_sequence(T, 10, 9)]
    longest = max(map(len, matrices))
    padded = torch.stack([torch.cat([m, m[-1:].expand(longest - len(m), -1)]) for m in matrices], dim=1)
    start = begin(diffusion, (3, T, C), generator())
    found = end(run(diffusion, start, padded, generator()))
    for b, matrix in enumerate(matrices):
        alone = end(run(diffusion, start, matrix, generator()))
        torch.testing.assert_close(found.tokens[b], alone.tokens[b])


def test_tokens_never_rise_and_known_ones_never_move():
    diffusion, g = network(), generator()
    state = begin(diffusion, (2, T, C), g, known((1,), share=0.5)(diffusion, 2), torch.tensor([6, 5]))
    half = step(diffusion, state, torch.tensor([3, 3, 10, 7, 3, 3]), g)
    assert half.levels.tolist() == [[3, 5, 10, 7, 3, 3], [3, 5, 10, 7, 3, 10]]
    back = step(diffusion, half, torch.tensor([9, 9, 9, 9, 9, 9]), g)
    assert back.levels.tolist() == [[3, 5, 9, 7, 3, 3], [3, 5, 9, 7, 3, 10]]
    moved = back.levels < half.levels
    assert torch.equal(back.tokens[~moved], half.tokens[~moved]) and bool((back.tokens != half.tokens)[moved].all())
    last = step(diffusion, back, torch.zeros(T, dtype=torch.int64), g)
    assert torch.equal(last.tokens[:, 1], state.tokens[:, 1]) and torch.equal(last.tokens[1, 5], state.tokens[1, 5])


def test_a_row_in_which_nothing_moves_costs_nothing():
    """The rows of a token that is known, and of one beyond the lengths, in one-by-one sampling."""
    spy = Spy()
    diffusion = Diffusion(spy, NoiseSchedule("cosine", 10), "x0")
    given = Known(torch.ones(2, 4, 1), torch.tensor([True, False, False, False]).expand(2, 4))
    matrix = autoregressive(4, 10, 3)
    drawn = sample(diffusion, matrix, (2, 4, 1), generator(), known=given, lengths=torch.tensor([3, 2]), record=True)
    assert len(spy.calls) == 6, "two tokens of three steps"
    assert len(drawn.history) == len(matrix)
    assert drawn.levels.tolist() == [[0, 0, 0, 10], [0, 0, 10, 10]]


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
        (
            {"matrix": full_sequence(T + 1, 8, 4)},
            r"3 sequences of 6 tokens is \(rows, 6\) or \(rows, 3, 6\), got \(5, 7\)",
        ),
        ({"matrix": full_sequence(T, 9, 4)}, "first row must be all 8"),
        ({"stabilization": 9}, "stabilization is a level in 0..8, got 9"),
        (
            {"known": Known(torch.zeros(2, T, C), torch.zeros(2, T, dtype=torch.bool))},
            r"must be \(3, 6, 2\), got \(2, 6",
        ),
        ({"known": Known(torch.zeros(3, T, C), torch.zeros(3, T, dtype=torch.bool), 9)}, "in 0..8, got 9"),
        ({"eta": float("nan")}, r"eta must lie in 0\.\.1, got nan"),
        ({"eta": 1.5}, r"eta must lie in 0\.\.1"),
        ({"temperature": -0.5}, r"temperature must be at least 0 and finite, got -0\.5"),
        ({"temperature": float("nan")}, "temperature must be at least 0 and finite, got nan"),
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
        (
            torch.zeros(3, T, C),
            torch.zeros(3, 1, dtype=torch.bool),
            r"\(B, T, C\) and their mask \(B, T\) or \(B, T, C\) bool",
        ),
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
    assert bool(
        sample(exact(PROCESS, 8), full_sequence(T, 8, 4), (3, T, C), generator(), known=given).tokens.isfinite().all()
    )


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (full_sequence(T + 1, 8, 4), r"of 6 tokens is \(rows, 6\) or \(rows, 3, 6\), got \(5, 7\)"),
        (full_sequence(T, 8, 4).unsqueeze(1).expand(-1, 2, -1), r"for 3 sequences .* got \(5, 2, 6\)"),
        (full_sequence(T, 9, 4), r"lie in 0\.\.8, got 0 to 9"),
        (full_sequence(T, 8, 4) - 1, r"lie in 0\.\.8, got -1 to 7"),
        (full_sequence(T, 8, 4).flip(0), "token 0 rises from row 0 to 1"),
        (full_sequence(T, 8, 4).unsqueeze(1).expand(-1, 3, -1).flip(0), "token 0 rises from row 0 to 1"),
        (full_sequence(T, 8, 4).float(), "of integers, got .*float32"),
        (full_sequence(T, 8, 4)[0], r"is \(rows >= 1, tokens\) of integers, got \(6,\)"),
        (full_sequence(T, 8, 4)[:0], r"got \(0, 6\)"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows, sentence):
    diffusion = exact(PROCESS, 8)
    with pytest.raises(ValueError, match=sentence):
        next(run(diffusion, begin(diffusion, (3, T, C), generator()), rows, generator()))


@pytest.mark.parametrize(
    ("tokens", "levels", "mask", "sentence"),
    [
        (torch.zeros(3, T), torch.zeros(3, T), torch.zeros(3, T, dtype=torch.bool), r"a state is tokens \(B, T, C\)"),
        (torch.zeros(3, T, C), torch.zeros(3, T), torch.zeros(3, T), "torch.float32"),
        (
            torch.zeros(3, T, C),
            torch.zeros(T),
            torch.zeros(3, T, dtype=torch.bool),
            r"levels must be \(3, 6\).*got \(6,\)",
        ),
    ],
)
def test_states_are_checked_when_they_are_made(tokens, levels, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        State(tokens, levels.long(), mask)
