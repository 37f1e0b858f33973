"""Scheduling matrices: which noise level each token has at each row of sampling (Chen et al. 2024, Algorithm 2).

A matrix is data: ``(M + 1, T)`` int64, row 0 all K (pure noise), the last row all 0 (clean), never rising down a
column. New sampling behaviour is a new matrix, never a new sampler. ``steps`` is how many rows one token needs from K
to 0; levels fall linearly in k over these rows.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor


def full_sequence(tokens: int, levels: int, steps: int) -> Tensor:
    """All tokens fall together: ordinary diffusion of a whole sequence. (steps + 1, T)."""
    return pyramid(tokens, levels, steps, uncertainty=0.0)


def autoregressive(tokens: int, levels: int, steps: int) -> Tensor:
    """One token after another, each finished before the next begins. (steps * T + 1, T)."""
    return pyramid(tokens, levels, steps, uncertainty=float(steps))


def pyramid(tokens: int, levels: int, steps: int, uncertainty: float = 1.0) -> Tensor:
    """The paper's zig-zag: each token lags the one before by ``uncertainty`` rows, so the far future stays uncertain.

    uncertainty 0 is `full_sequence`, ``steps`` is `autoregressive`; fractions are allowed.
    """
    return from_lag(_positions(tokens) * _lag(uncertainty), levels, steps)


def trapezoid(tokens: int, levels: int, steps: int, uncertainty: float = 1.0) -> Tensor:
    """Both ends first, the middle last: for plans whose start and goal are known."""
    t = _positions(tokens)
    return from_lag(torch.minimum(t, tokens - 1 - t) * _lag(uncertainty), levels, steps)


def from_lag(lag: Tensor, levels: int, steps: int) -> Tensor:
    """The matrix in which token t starts to fall after ``lag[t] >= 0`` rows, for any lag (T,) of the user's."""
    if not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"a token needs at least one denoising step, a whole number, got steps={steps}")
    if lag.ndim != 1 or lag.numel() == 0 or not bool(((lag >= 0) & lag.isfinite()).all()):
        raise ValueError(f"lag must be a vector of finite numbers >= 0, one for each token, got {lag.tolist()}")
    if not isinstance(levels, Integral) or levels < 1:
        raise ValueError(f"a scheduling matrix needs at least one noise level, a whole number, got {levels}")
    rows = steps + int(lag.max().ceil())
    m = torch.arange(rows + 1, dtype=torch.float64).unsqueeze(1)
    left = (steps + lag - m).clamp(0, steps)
    return torch.round(left * (levels / steps)).long()


def check(matrix: Tensor, levels: int) -> Tensor:
    """Return the matrix if it is a valid one, else raise ValueError with one sentence that says what is wrong."""
    if matrix.ndim != 2 or matrix.shape[0] < 2 or matrix.dtype not in (torch.int32, torch.int64):
        found = f"{tuple(matrix.shape)} {matrix.dtype}"
        raise ValueError(f"a scheduling matrix is (rows >= 2, tokens) of integers, got {found}")
    if not bool((matrix[0] == levels).all()):
        raise ValueError(f"a scheduling matrix starts at pure noise: its first row must be all {levels}")
    if not bool((matrix[-1] == 0).all()):
        raise ValueError("a scheduling matrix ends clean: its last row must be all 0")
    rises = (matrix[1:] > matrix[:-1]).nonzero()
    if len(rises):
        row, token = rises[0].tolist()
        raise ValueError(f"noise levels never rise while sampling, but token {token} rises from row {row} to {row + 1}")
    return matrix


def _positions(tokens: int) -> Tensor:
    if not isinstance(tokens, Integral) or tokens < 1:
        raise ValueError(f"a scheduling matrix needs at least one token, a whole number, got {tokens}")
    return torch.arange(tokens, dtype=torch.float64)


def _lag(uncertainty: float) -> float:
    if not 0 <= uncertainty < float("inf"):
        raise ValueError(f"uncertainty is a number of rows >= 0, got {uncertainty}")
    return uncertainty
