"""Scheduling matrices: which noise level each token has at each row of sampling (Chen et al. 2024, Algorithm 2).

A matrix is data: (M + 1, T) int64, row 0 all K (pure noise), the last row all 0 (clean), never rising down a column. New
sampling behavior is a new matrix, never a new sampler. `steps` is how many rows one token needs from K to 0; levels fall
linearly in k over these rows. Functions here raise ValueError for numbers of tokens, levels and steps below 1, and for
lags that are negative or not finite.
"""

from numbers import Integral

import torch
from torch import Tensor


def full_sequence(tokens: int, K: int, steps: int) -> Tensor:
    """All tokens fall together: ordinary diffusion of a whole sequence. (steps + 1, T)."""
    return pyramid(tokens, K, steps, uncertainty=0.0)


def autoregressive(tokens: int, K: int, steps: int) -> Tensor:
    """One token after another, each finished before the next begins. (steps * T + 1, T)."""
    return pyramid(tokens, K, steps, uncertainty=float(steps))


def pyramid(tokens: int, K: int, steps: int, uncertainty: float = 1.0) -> Tensor:
    """The paper's zig-zag: each token lags the one before by `uncertainty` rows, so the far future stays uncertain.

    An uncertainty of 0 is `full_sequence`, one of `steps` is `autoregressive`; fractions are allowed."""
    return from_lag(_lags(tokens, uncertainty), K, steps)


def trapezoid(tokens: int, K: int, steps: int, uncertainty: float = 1.0) -> Tensor:
    """Both ends first, the middle last, for plans whose start and goal are known. This project's own."""
    lags = _lags(tokens, uncertainty)
    return from_lag(torch.minimum(lags, lags.flip(0)), K, steps)


def from_lag(lag: Tensor, K: int, steps: int) -> Tensor:
    """The matrix (steps + ceil(max(lag)) + 1, T) in which token t starts to fall after lag[t] >= 0 rows, for any lag (T,);
    of lags (B, T), sequences of which each has its own, it is (steps + ceil(max(lag)) + 1, B, T)."""
    if not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"a token needs at least one denoising step, a whole number, got steps={steps}")
    if lag.ndim not in (1, 2) or lag.numel() == 0 or not bool(((lag >= 0) & lag.isfinite()).all()):
        raise ValueError(f"lag must be (T,) or (B, T) finite numbers >= 0, one for each token, got {lag.tolist()}")
    if not isinstance(K, Integral) or K < 1:
        raise ValueError(f"a scheduling matrix needs at least one noise level, a whole number, got {K}")
    rows = steps + int(lag.max().ceil())
    m = torch.arange(rows + 1, dtype=torch.float64).view(-1, *(1,) * lag.ndim)
    left = (steps + lag - m).clamp(0, steps)
    return torch.round(left * (K / steps)).long()


def check(matrix: Tensor, K: int, shape: tuple[int, ...] | None = None) -> Tensor:
    """Return a valid matrix, else raise ValueError with one sentence that names the fault.

    Without a shape it is a whole one, (M + 1, T), from pure noise to clean. With the shape (B, T) of sequences it is some
    rows for them, (rows, T) or (rows, B, T)."""
    whole, found = shape is None, f"{tuple(matrix.shape)} {matrix.dtype}"
    if matrix.ndim < 2 or len(matrix) < 1 + whole or matrix.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"a scheduling matrix is (rows >= {1 + whole}, tokens) of integers, got {found}")
    if shape is not None and matrix.shape[1:] not in (shape, shape[1:]):
        B, T = shape
        raise ValueError(
            f"a scheduling matrix for {B} sequences of {T} tokens is (rows, {T}) or (rows, {B}, {T}), got {found}"
        )
    if whole and not bool((matrix[0] == K).all() and (matrix[-1] == 0).all()):
        raise ValueError(f"a scheduling matrix falls to clean: first row must be all {K}, last row must be all 0")
    rises = (matrix[1:] > matrix[:-1]).nonzero()
    if len(rises):
        row, token = rises[0, 0].item(), rises[0, -1].item()
        raise ValueError(f"noise levels never rise while sampling, but token {token} rises from row {row} to {row + 1}")
    if not bool(((matrix >= 0) & (matrix <= K)).all()):
        raise ValueError(f"levels in a scheduling matrix lie in 0..{K}, got {int(matrix.min())} to {int(matrix.max())}")
    return matrix


def _lags(tokens: int, uncertainty: float) -> Tensor:
    """Token t lags by t * uncertainty rows: (T,)."""
    if not isinstance(tokens, Integral) or tokens < 1:
        raise ValueError(f"a scheduling matrix needs at least one token, a whole number, got {tokens}")
    if not 0 <= uncertainty < float("inf"):
        raise ValueError(f"uncertainty is a number of rows >= 0, got {uncertainty}")
    return torch.arange(tokens, dtype=torch.float64) * uncertainty
