"""Sampling by a scheduling matrix (Chen et al. 2024, Algorithm 2): row by row, each token falls to the level of its row.

A partly denoised batch is a value, `State`. `begin` makes one of noise, `step` moves it by one row, `run` walks a matrix,
`sample` is all of it. Sampling may stop after any row and go on, also with a batch of sequences from different rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Generator, Tensor

from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import check
from dfplan.diffusion.noise import noise_like, per_column


@dataclass(frozen=True)
class State:
    """Partly denoised sequences: tokens (B, T, C) as noisy as their levels in 0..K say, int64.

    Levels are (B, T), or (B, T, C) where columns have levels of their own. Where `known`, of the same shape, is True, value and
    level are given and never move: what is known, and noise beyond a sequence's length. ValueError for shapes that do not fit.
    """

    tokens: Tensor
    levels: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        _check("a state is tokens (B, T, C), known (B, T) or (B, T, C) bool", self.tokens, self.known, self.levels)


@dataclass(frozen=True)
class Known:
    """Tokens (B, T, C) whose value is given where the mask, (B, T) or (B, T, C), is True. They come back as they were given.

    At `level` 0 they are exact. Above it the model sees them at that level, as uncertain values: with noise of the level
    added once, or, if they are `noisy`, as observations that have noise of variance (1 - alpha_bar) / alpha_bar already. At
    level K they are absent: pure noise that stays. `level` is one for all, or of the mask's shape. Raises ValueError for shapes
    that do not fit and known values that are not finite."""

    tokens: Tensor
    mask: Tensor
    level: int | Tensor = 0
    noisy: bool = False

    def __post_init__(self) -> None:
        _check("known tokens are (B, T, C) and their mask (B, T) or (B, T, C) bool", self.tokens, self.mask, self.level)
        if not bool(self.tokens[self.mask].isfinite().all()):
            raise ValueError("known tokens must be finite, got NaN or infinity where the mask says that they are known")


@dataclass(frozen=True)
class Sample:
    """Clean normalized tokens (B, T, C) and their levels, (B, T) or (B, T, C): 0, a known token's own, or K beyond a sequence's
    length, where tokens are noise, to be ignored. History: tokens and levels at each row, if it was asked for, else empty.
    """

    tokens: Tensor
    levels: Tensor
    history: list[tuple[Tensor, Tensor]]


class StepOptions(TypedDict, total=False):
    """Options of `step`, which `run` and `sample` hand on."""

    guidance: Guidance | None
    projection: Callable[[Tensor, Tensor], Tensor] | None
    eta: float
    stabilization: int


@torch.no_grad()
def begin(
    diffusion: Diffusion,
    shape: tuple[int, int, int],
    generator: Generator,
    known: Known | None = None,
    lengths: Tensor | None = None,
    temperature: float = 1.0,
) -> State:
    """Pure noise of `shape` (B, T, C), but for known tokens. Beyond `lengths` (B,) it stays noise, which says nothing.
    `temperature` is the deviation of the noise that becomes samples: below 1 they lie nearer to the most common ones (compare
    Ajay et al. 2023, low-temperature sampling). Raises ValueError for what does not fit the shape."""
    (B, T, _), device = shape, diffusion.schedule.alpha_bar.device
    if lengths is not None and lengths.shape != (B,):
        raise ValueError(f"lengths must be ({B},), one for each sequence, got {tuple(lengths.shape)}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be at least 0 and finite, got {temperature}")
    x = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    k = torch.full((B, T), diffusion.K, device=device)
    beyond = (torch.arange(T, device=device) >= (T if lengths is None else lengths.unsqueeze(1))).expand(B, T)
    known = known or Known(x, torch.zeros_like(beyond))
    if known.tokens.shape != shape:
        raise ValueError(f"known tokens must be {tuple(shape)}, got {tuple(known.tokens.shape)}")
    level = torch.as_tensor(known.level, device=device)
    if not bool(((level >= 0) & (level <= diffusion.K)).all()):
        raise ValueError(f"known tokens have a level in 0..{diffusion.K}, got {int(level.min())} to {int(level.max())}")
    if known.mask.ndim == 3:
        k, beyond = (v.unsqueeze(-1).expand(shape) for v in (k, beyond))
    k = torch.where(known.mask, level, k)
    x = torch.where(per_column(beyond | known.mask, x), x, temperature * x)  # what stays noise is seen as such
    # What is absent is noise all the same.
    added = x.masked_fill(per_column(k < diffusion.K, x), 0.0) if known.noisy else x
    shown = diffusion.schedule.add_noise(known.tokens, k, added)
    return State(torch.where(per_column(known.mask, x), shown, x), k, beyond | known.mask)


@torch.no_grad()
def step(
    diffusion: Diffusion,
    state: State,
    row: Tensor,
    generator: Generator,
    *,
    guidance: Guidance | None = None,
    projection: Callable[[Tensor, Tensor], Tensor] | None = None,
    eta: float = 0.0,
    stabilization: int = 0,
) -> State:
    """Each token falls to its level in the row (T,) or (B, T), if that is below its own; what is known never moves.

    `eta` 0 is DDIM, 1 is DDPM's ancestral step. `stabilization` is the paper's k_small: the model sees clean tokens at this
    level, with noise of the level, so that errors of a long rollout do not add up. `projection` maps predictions, and a mask
    of what may move, to what is sampled instead. ValueError for an eta outside 0..1 and a stabilization outside 0..K.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0..1, got {eta}")
    if not 0 <= stabilization <= diffusion.K:
        raise ValueError(f"stabilization is a level in 0..{diffusion.K}, got {stabilization}")
    guidance = guidance if guidance is not None and guidance.scale else None
    x, k = state.tokens, state.levels
    k_next = torch.where(state.known, k, torch.minimum(k, row.unsqueeze(-1) if k.ndim == 3 else row))
    draws = eta > 0 or stabilization > 0 or (guidance is not None and guidance.futures + guidance.candidates > 0)
    if not draws and torch.equal(k_next, k):  # else each row has its random numbers, whether a token moves or not
        return state
    shown, shown_k = x, k
    if stabilization:
        clean = k == 0
        shown_k = torch.where(clean, stabilization, k)
        shown = torch.where(per_column(clean, x), diffusion.schedule.add_noise(x, shown_k, noise_like(x, generator)), x)
    given = diffusion, shown, shown_k, k_next, state.known, generator
    x0, _ = diffusion.denoise(shown, shown_k) if guidance is None else guidance.denoise(*given)
    x0 = x0 if projection is None else projection(x0, ~state.known & (k > 0))
    x_next, std = diffusion.schedule.posterior(x0, x, k, k_next, eta)
    if eta > 0:
        x_next = x_next + std * noise_like(x, generator)
    return State(x_next, k_next, state.known)


def run(
    diffusion: Diffusion, state: State, matrix: Tensor, generator: Generator, **options: Unpack[StepOptions]
) -> Iterator[State]:
    """Algorithm 2: walk the rows of a scheduling matrix, (rows, T) or (rows, B, T), and yield the state at each.

    The state stands at the first row, or at any later one: then a token waits until a row is below its own level. Raises
    ValueError, at the first state, for a matrix that is not valid or does not fit."""
    check(matrix, diffusion.K, state.levels.shape[:2])
    yield state
    for row in matrix[1:].to(state.levels.device):
        state = step(diffusion, state, row, generator, **options)
        yield state


def sample(
    diffusion: Diffusion,
    matrix: Tensor,
    shape: tuple[int, int, int],
    generator: Generator,
    *,
    known: Known | None = None,
    lengths: Tensor | None = None,
    temperature: float = 1.0,
    record: bool = False,
    **options: Unpack[StepOptions],
) -> Sample:
    """Draw sequences of `shape` (B, T, C): from noise (`begin`) down a whole scheduling matrix (M + 1, T) (`run`).

    Raises ValueError for a matrix that is not valid, and for what `begin` and `step` refuse."""
    check(matrix, diffusion.K)
    history, start = [], begin(diffusion, shape, generator, known, lengths, temperature)
    for state in run(diffusion, start, matrix, generator, **options):
        history += [(state.tokens, state.levels)] if record else []
    x = state.tokens if known is None else torch.where(per_column(known.mask, state.tokens), known.tokens, state.tokens)
    return Sample(x, state.levels, history)


def _check(expected: str, tokens: Tensor, mask: Tensor, levels: Tensor | int) -> None:
    if tokens.ndim != 3 or mask.shape not in (tokens.shape[:2], tokens.shape) or mask.dtype != torch.bool:
        raise ValueError(f"{expected}, got {tuple(tokens.shape)} and {tuple(mask.shape)} {mask.dtype}")
    if isinstance(levels, Tensor) and levels.shape != mask.shape:
        raise ValueError(f"levels must be {tuple(mask.shape)} like the mask, got {tuple(levels.shape)}")
