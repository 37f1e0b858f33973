import pytest
import torch

from dfplan.diffusion.matrices import autoregressive, check, from_lag, full_sequence, pyramid, trapezoid


@pytest.mark.parametrize(("tokens", "levels", "steps"), [(1, 1, 1), (1, 10, 3), (5, 100, 7), (6, 256, 8), (4, 10, 25)])
@pytest.mark.parametrize("uncertainty", [0, 0.25, 1, 3.5, 40])
def test_every_named_matrix_is_valid(tokens, levels, steps, uncertainty):
    for matrix in (
        full_sequence(tokens, levels, steps),
        autoregressive(tokens, levels, steps),
        pyramid(tokens, levels, steps, uncertainty),
        trapezoid(tokens, levels, steps, uncertainty),
    ):
        assert check(matrix, levels) is matrix
        assert matrix.shape[1] == tokens and matrix.dtype == torch.int64


def test_the_ends_of_the_pyramid_are_full_sequence_and_autoregressive():
    assert torch.equal(full_sequence(5, 100, 8), pyramid(5, 100, 8, 0))
    assert torch.equal(autoregressive(5, 100, 8), pyramid(5, 100, 8, 8))
    assert full_sequence(5, 100, 8).shape == (9, 5)
    assert bool((full_sequence(5, 100, 8) == full_sequence(5, 100, 8)[:, :1]).all())
    one_at_a_time = autoregressive(3, 4, 2)
    assert one_at_a_time.tolist() == [[4, 4, 4], [2, 4, 4], [0, 4, 4], [0, 2, 4], [0, 0, 4], [0, 0, 2], [0, 0, 0]]


def test_zig_zag_by_hand():
    assert pyramid(3, 10, 2, 1).tolist() == [[10, 10, 10], [5, 10, 10], [0, 5, 10], [0, 0, 5], [0, 0, 0]]
    # Half a row of lag: the second token is half a step of 50 behind.
    assert pyramid(2, 100, 2, 0.5).tolist() == [[100, 100], [50, 75], [0, 25], [0, 0]]
    # A lag of two rows and three steps of a third of 9 each.
    assert pyramid(2, 9, 3, 2).tolist() == [[9, 9], [6, 9], [3, 9], [0, 6], [0, 3], [0, 0]]


def test_the_far_future_is_never_surer_than_the_near():
    matrix = pyramid(12, 256, 8, 0.7)
    assert bool((matrix[:, 1:] >= matrix[:, :-1]).all())


def test_sequences_may_have_lags_of_their_own():
    lags = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 0.5]])
    both = from_lag(lags, 8, 4)
    assert both.shape == (7, 2, 3) and check(both, 8) is both
    for row, lag in enumerate(lags):
        alone = from_lag(lag, 8, 4)
        assert torch.equal(both[: len(alone), row], alone) and bool((both[len(alone) :, row] == 0).all())


@pytest.mark.parametrize("tokens", [1, 2, 5, 6])
def test_trapezoid_is_symmetric_and_resolves_the_ends_first(tokens):
    matrix = trapezoid(tokens, 100, 6, 1.5)
    assert torch.equal(matrix, matrix.flip(1))
    half = matrix[:, : (tokens + 1) // 2]
    assert bool((half[:, 1:] >= half[:, :-1]).all())
    assert trapezoid(4, 10, 2, 1).tolist() == [[10] * 4, [5, 10, 10, 5], [0, 5, 5, 0], [0, 0, 0, 0]]


def test_lags_of_the_users_own():
    matrix = from_lag(torch.tensor([2, 0, 1]), K=10, steps=2)
    assert check(matrix, 10).tolist() == [[10, 10, 10], [10, 5, 10], [10, 0, 5], [5, 0, 0], [0, 0, 0]]


def valid():
    return torch.tensor([[4, 4], [2, 4], [0, 1], [0, 0]])


def changed(row, column, value):
    matrix = valid()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        (torch.tensor([4, 0]), r"is \(rows >= 2, tokens\) of integers, got \(2,\) torch.int64"),
        (valid()[:1], r"rows >= 2.*got \(1, 2\)"),
        (valid().float(), "of integers, got .*float32"),
        (valid().bool(), "of integers, got .*bool"),
        (changed(0, 1, 3), "first row must be all 4"),
        (changed(0, 0, 5), "first row must be all 4"),
        (changed(3, 1, 1), "last row must be all 0"),
        (changed(3, 0, -1), "last row must be all 0"),
        (changed(2, 0, 3), "token 0 rises from row 1 to 2"),
        (changed(1, 1, 5), "token 1 rises from row 0 to 1"),
        (changed(2, 1, -1), "token 1 rises from row 2 to 3"),
    ],
)
def test_check_says_what_is_wrong(matrix, sentence):
    assert check(valid(), 4) is not None
    with pytest.raises(ValueError, match=sentence):
        check(matrix, 4)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: pyramid(4, 10, 0), "at least one denoising step, a whole number, got steps=0"),
        (lambda: pyramid(4, 10, 5, -1), "uncertainty is a number of rows >= 0, got -1"),
        (lambda: pyramid(4, 10, 5, float("nan")), "uncertainty is a number"),
        (lambda: trapezoid(4, 10, 5, float("inf")), "uncertainty is a number"),
        (lambda: pyramid(0, 10, 5), "at least one token, a whole number, got 0"),
        (lambda: trapezoid(2.5, 10, 5), "at least one token, a whole number, got 2.5"),
        (lambda: pyramid(4, 10, 2.5), "at least one denoising step, a whole number, got steps=2.5"),
        (lambda: pyramid(4, 10.5, 5), "at least one noise level, a whole number, got 10.5"),
        (lambda: from_lag(torch.tensor([0.0, float("nan")]), 10, 5), "finite numbers >= 0"),
        (lambda: from_lag(torch.tensor([]), 10, 5), "one for each token"),
        (lambda: pyramid(4, 0, 5), "at least one noise level, a whole number, got 0"),
        (lambda: from_lag(torch.tensor([0.0, -1.0]), 10, 5), "finite numbers >= 0"),
        (lambda: from_lag(torch.tensor([0.0, float("inf")]), 10, 5), "finite numbers >= 0"),
        (lambda: from_lag(torch.zeros(2, 2, 2), 10, 5), r"\(T,\) or \(B, T\)"),
    ],
)
def test_impossible_matrices_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
