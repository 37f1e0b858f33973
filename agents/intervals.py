"""Means of episodes with their 95% intervals.

An agent's values are *strata*: one array of episodes for each training seed, or one array alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval; `low` and `high` are None where the sample cannot tell."""

    value: float
    low: float | None = None
    high: float | None = None

    def __format__(self, digits: str) -> str:
        """The value with its interval in brackets, if there is one, each number as `digits` says."""
        low, high = self.low, self.high
        value = format(self.value, digits)
        return value if low is None or high is None else f"{value} [{low:{digits}}, {high:{digits}}]"


def mean(strata: Sequence[ArrayLike], resamples: int = RESAMPLES) -> Estimate:
    """Mean of all episodes, with the stratified bootstrap's interval.

    `strata`: one array (E_s,) of independent episodes for each training seed. Episodes are drawn with replacement
    within each seed and seeds are kept: the interval shows how far other episodes of the same weights would move the
    mean, and nothing about other weights. It takes all episodes as independent; where seeds play the same starts and
    these decide much, it is too narrow. Same values, same interval. Raises ValueError if there is no value, or one is not
    finite.
    """
    return stratified(checked(strata), np.mean, resamples)


def share(successes: Sequence[bool]) -> Estimate:
    """Share of episodes with success, with Wilson's interval. Raises ValueError if there are no episodes."""
    if not len(successes):
        raise ValueError("a share needs one or more episodes")
    found = stats.binomtest(int(np.sum(successes)), len(successes))
    low, high = found.proportion_ci(LEVEL, method="wilson")
    return Estimate(float(np.mean(successes)), float(low), float(high))


def checked(strata: Sequence[ArrayLike]) -> list[np.ndarray]:
    """The strata as arrays of float64. ValueError if there is no value in one, or one that is not finite."""
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not arrays or any(array.ndim != 1 or array.size == 0 for array in arrays):
        raise ValueError(f"a mean needs one or more values of each seed, got shapes {[a.shape for a in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a mean needs finite values, got NaN or infinity")
    return arrays


def stratified(strata: list[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int) -> Estimate:
    """A statistic of all episodes, with the bias-corrected and accelerated (BCa) interval, else percentiles.

    BCa is undefined where leaving an episode out never changes the statistic, such as the interquartile mean of an
    agent that fails in most episodes. Percentiles are of the same resamples.
    """

    def pooled(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(np.concatenate(samples, axis=axis), axis=axis)

    value = float(pooled(*strata))
    if any(stratum.size == 1 for stratum in strata):
        return Estimate(value)
    if all(np.ptp(stratum) == 0 for stratum in strata):
        return Estimate(value, value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 in the acceleration
        options = {"n_resamples": resamples, "batch": 500, "confidence_level": LEVEL, "method": "BCa"}
        found = stats.bootstrap(strata, pooled, **options, rng=np.random.default_rng(0))
    low, high = map(float, found.confidence_interval)
    return Estimate(
        value, *((low, high) if np.isfinite([low, high]).all() else percentiles(found.bootstrap_distribution))
    )


def percentiles(resampled: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
