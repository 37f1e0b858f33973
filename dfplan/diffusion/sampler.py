"""Sampling by a scheduling matrix (Chen et al. 2024, Algorithm 2): walk it row by row, denoising each token as it says.

`denoise_row` is one step between two rows and keeps nothing: a partly denoised plan is a value (tokens and levels), so
sampling may stop after any row and go on from other tokens. `sample` walks a whole matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from dfplan.diffusion.guidance import Guidance
from dfplan.diffusion.loss import Diffusion
from dfplan.diffusion.matrices import check


@dataclass(frozen=True)
class Known:
    """Tokens whose value is given, anywhere in the sequence.

    tokens (B, T, C) normalised values; mask (B, T) bool, which of them are known. ``level`` says how far the model is
    to believe them: 0 is exactly; above it they are shown at that level, with noise of that level added once. Values
    that are ``noisy`` have it already, with variance (1 - alpha_bar) / alpha_bar: nothing is added, and the other
    tokens are drawn from their distribution given these noisy observations. Known tokens come back as they were given.
    """

    tokens: Tensor
    mask: Tensor
    level: int = 0
    noisy: bool = False

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.mask.shape != self.tokens.shape[:2] or self.mask.dtype != torch.bool:
            raise ValueError(
                f"known tokens are (B, T, C) and their mask (B, T) bool, "
                f"got {tuple(self.tokens.shape)} and {tuple(self.mask.shape)} {self.mask.dtype}"
            )
        if not bool(self.tokens[self.mask].isfinite().all()):
            raise ValueError("known tokens must be finite, got NaN or infinity where the mask says that they are known")


@dataclass(frozen=True)
class Sample:
    tokens: Tensor
    """(B, T, C) clean normalised tokens; beyond a sequence's length they are noise without meaning."""
    history: list[tuple[Tensor, Tensor]]
    """Tokens (B, T, C) and levels (B, T) at each row, if recording was asked for; else empty."""


def denoise_row(
    diffusion: Diffusion,
    x: Tensor,
    k: Tensor,
    k_next: Tensor,
    generator: torch.Generator,
    *,
    guidance: Guidance | None = None,
    eta: float = 0.0,
    stabilization: int = 0,
) -> Tensor:
    """Tokens x (B, T, C) at levels k (B, T) to levels k_next <= k: (B, T, C). Tokens with k_next = k do not move.

    eta 0 is DDIM, 1 is DDPM's ancestral step. ``stabilization`` shows the model tokens that are already clean as if at
    this small level, with noise of that level (the paper's k_small): a long rollout then does not trust its own slips.
    Raises ValueError for an eta outside 0..1.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in 0..1, got {eta}")
    schedule = diffusion.schedule
    shown, shown_k = x, k
    if stabilization:
        shown_k = torch.where(k == 0, stabilization, k)
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        shown = torch.where((k == 0).unsqueeze(-1), schedule.add_noise(x, shown_k, noise), x)
    with torch.no_grad():
        x0, eps = diffusion.denoise(shown, shown_k)
        if guidance is not None and guidance.scale != 0:
            gradient = guidance.gradient(
                lambda a, b: diffusion.denoise(a, b).x0,
                lambda a0, a, b, c: schedule.posterior(a0, a, b, c, eta=0.0)[0],
                shown,
                shown_k,
                k_next == diffusion.levels,
                diffusion.levels,
                generator,
            )
            eps = eps + guidance.scale * schedule.noise(k) * gradient
            x0 = torch.where((k > 0).unsqueeze(-1), (x - schedule.noise(k) * eps) / schedule.signal(k), x0)
        mean, std = schedule.posterior(x0, x, k, k_next, eta)
        if eta > 0:
            mean = mean + std * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        return mean


def sample(
    diffusion: Diffusion,
    matrix: Tensor,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    *,
    known: Known | None = None,
    lengths: Tensor | None = None,
    guidance: Guidance | None = None,
    eta: float = 0.0,
    stabilization: int = 0,
    record: bool = False,
) -> Sample:
    """Algorithm 2: draw sequences of ``shape`` (B, T, C) by a scheduling matrix (M + 1, T).

    lengths (B,) bounds each sequence: tokens from there on stay pure noise throughout, which tells the model nothing.
    Raises ValueError for a matrix that is not valid, and for matrix, known tokens or lengths that do not fit the shape.
    """
    B, T, _ = shape
    check(matrix, diffusion.levels)
    if matrix.shape[1] != T:
        raise ValueError(f"the scheduling matrix has {matrix.shape[1]} tokens, but the sequences have {T}")
    if not 0 <= stabilization <= diffusion.levels:
        raise ValueError(f"stabilization is a level in 0..{diffusion.levels}, got {stabilization}")
    if known is not None and (known.tokens.shape != shape or known.mask.shape != shape[:2]):
        raise ValueError(
            f"known tokens and their mask must be {tuple(shape)} and {(B, T)}, "
            f"got {tuple(known.tokens.shape)} and {tuple(known.mask.shape)}"
        )
    if known is not None and not 0 <= known.level <= diffusion.levels:
        raise ValueError(f"the level of known tokens is in 0..{diffusion.levels}, got {known.level}")
    if lengths is not None and lengths.shape != (B,):
        raise ValueError(f"lengths must be ({B},), one for each sequence, got {tuple(lengths.shape)}")
    device = diffusion.schedule.alpha_bar.device
    rows = matrix.to(device).unsqueeze(1).expand(-1, B, -1)
    x = torch.randn(shape, generator=generator, device=device, dtype=torch.float32)
    if lengths is not None:
        beyond = torch.arange(T, device=device) >= lengths.unsqueeze(1)
        rows = torch.where(beyond, diffusion.levels, rows)
    if known is not None:
        level = torch.full((B, T), known.level, device=device)
        rows = torch.where(known.mask, level, rows)
        noise = torch.zeros_like(x) if known.noisy else x
        x = torch.where(known.mask.unsqueeze(-1), diffusion.schedule.add_noise(known.tokens, level, noise), x)
    history = [(x, rows[0])] if record else []
    for k, k_next in pairwise(rows):
        x = denoise_row(diffusion, x, k, k_next, generator, guidance=guidance, eta=eta, stabilization=stabilization)
        if record:
            history.append((x, k_next))
    if known is not None and known.level:
        x = torch.where(known.mask.unsqueeze(-1), known.tokens, x)
    return Sample(x, history)
