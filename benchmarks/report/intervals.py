"""Means of a benchmark's episodes with their uncertainty, and two agents compared on the same starts.

An agent's scores are *strata*: one array of episodes for each training seed. Three questions are kept apart:

- `mean`, `interquartile_mean`: what would other episodes of *these* weights score? Stratified bootstrap, strata =
  training seeds (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, Section 4).
- `over_seeds_and_starts`: what would *other* weights of the same recipe score, on other starts?
- `compare`: is one agent better than another on the same starts? Differences of pairs.
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
SEEDS_FOR_SPREAD = 3
"""From this many training seeds on, they are resampled too; fewer say too little of other seeds."""


@dataclass(frozen=True)
class Estimate:
    """A value and its 95% interval; `low` and `high` are None where the sample cannot tell."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Mean of the per-start differences, first minus second, its 95% interval, and Wilcoxon's signed-rank p."""

    difference: Estimate
    p: float
    """Two-sided, of 'the differences lie symmetrically about 0'; 1 where all of them are 0."""


def mean(strata: Sequence[ArrayLike], resamples: int = RESAMPLES) -> Estimate:
    """Mean of all episodes, with the stratified bootstrap's interval.

    `strata`: one array (E_s,) of independent episodes for each training seed. Episodes are drawn with replacement
    within each seed and seeds are kept: the interval says how far other episodes of the same weights would move the
    mean, and nothing about other weights. It takes all episodes as independent; where seeds play the same starts and
    these decide much, it is narrower than `over_seeds_and_starts`. Same values, same interval. Raises ValueError if
    there is no value, or one is not finite.
    """
    return _stratified(_checked(strata), np.mean, resamples)


def interquartile_mean(strata: Sequence[ArrayLike], resamples: int = RESAMPLES) -> Estimate:
    """Mean of the middle half of all episodes together (Agarwal et al. 2021, Section 4.3), and its interval as in `mean`.

    A few extreme episodes do not move it; it hides a failure in less than a quarter of the episodes. Not to be confused
    with a mean of the seeds' own interquartile means.
    """
    return _stratified(_checked(strata), lambda values, axis=-1: stats.trim_mean(values, 0.25, axis=axis), resamples)


def over_seeds_and_starts(scores: ArrayLike, resamples: int = RESAMPLES) -> Estimate:
    """Mean of scores (S, E), S training seeds on the same E starts, with an interval that takes both as random.

    Seeds and starts are drawn with replacement, each on its own, and their crossing is averaged (the pigeonhole
    bootstrap of Owen 2007): how would other weights of the same recipe score, on other starts? From few seeds the
    answer is rough and too narrow, so read the seeds' own means beside it; for fewer than three there is no interval. Raises
    ValueError unless the scores are a finite matrix.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"expected scores (training seeds, starts), got shape {array.shape}")
    _checked(list(array))
    value, (seeds, starts) = float(array.mean()), array.shape
    if seeds < SEEDS_FOR_SPREAD or starts == 1:
        return Estimate(value)
    rng = np.random.default_rng(0)
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    start_weights = rng.multinomial(starts, np.full(starts, 1 / starts), size=resamples) / starts
    return Estimate(value, *_percentiles(((seed_weights @ array) * start_weights).sum(axis=1)))


def compare(
    first: ArrayLike, second: ArrayLike, first_starts: Sequence[int], second_starts: Sequence[int], resamples: int = RESAMPLES
) -> Comparison:
    """Two agents' scores (S, E) and (S', E) on the same E starts, given by their reset seeds.

    Each start's score is averaged over an agent's training seeds; the E differences are then one sample: its mean, the
    bootstrap's interval, and Wilcoxon's p. Narrower than two separate intervals, because a far start is far for both.
    Raises ValueError if the starts differ, or the shapes do not fit them.
    """
    if list(first_starts) != list(second_starts):
        raise ValueError("only agents that played the same reset seeds in the same order can be compared")
    per_start = []
    for scores in (first, second):
        array = np.atleast_2d(np.asarray(scores, dtype=np.float64))
        if array.ndim != 2 or array.shape[1] != len(first_starts):
            raise ValueError(f"expected scores (training seeds, {len(first_starts)} starts), got shape {array.shape}")
        per_start.append(array.mean(axis=0))
    differences = per_start[0] - per_start[1]
    p = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
    return Comparison(mean([differences], resamples), p)


def _checked(strata: Sequence[ArrayLike]) -> list[np.ndarray]:
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not arrays or any(array.ndim != 1 or array.size == 0 for array in arrays):
        raise ValueError(f"a mean needs one or more values of each seed, got shapes {[a.shape for a in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a mean needs finite values, got NaN or infinity")
    return arrays


def _stratified(strata: list[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int) -> Estimate:
    """The bias-corrected and accelerated (BCa) interval where it exists, else percentiles of the same resamples.

    BCa is undefined where leaving an episode out never changes the statistic, such as the interquartile mean of an
    agent that fails in most episodes.
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
    return Estimate(value, *((low, high) if np.isfinite([low, high]).all() else _percentiles(found.bootstrap_distribution)))


def _percentiles(resampled: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
