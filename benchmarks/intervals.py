"""Means with their uncertainty. (Not called `statistics`: beside a script, that would hide Python's own module.)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95% confidence interval; ``low`` and ``high`` are None for a single value."""

    mean: float
    low: float | None
    high: float | None
    interquartile_mean: float
    """Mean of the middle half (Agarwal et al. 2021, Section 4.3): not moved by a few extreme episodes."""
    count: int


def estimate(values: ArrayLike, resamples: int = 10_000) -> Estimate:
    """The mean of independent values (N,) with a bias-corrected bootstrap interval; same values, same interval.

    Not to be confused with the standard deviation over training seeds that papers print: the spread here is that of
    episodes of one set of weights. Raises ValueError if there is no value, or one is not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"a mean needs at least one value in one dimension, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("a mean needs finite values, got NaN or infinity")
    mean, middle = float(array.mean()), float(stats.trim_mean(array, 0.25))
    if array.size == 1:
        return Estimate(mean, None, None, middle, 1)
    if np.ptp(array) == 0:  # the bootstrap's correction divides by the spread
        return Estimate(mean, mean, mean, middle, int(array.size))
    rng = np.random.default_rng(0)
    interval = stats.bootstrap((array,), np.mean, n_resamples=resamples, batch=1_000, rng=rng).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), middle, int(array.size))
