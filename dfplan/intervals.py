"""Means of episodes with their 95% intervals, and two agents compared on the same starts.

An agent's values are *strata*: one array of episodes for each training seed, or one array alone. Three questions are kept
apart:

- `mean`, `interquartile_mean`: what would other episodes of *these* weights score? Stratified bootstrap, strata =
  training seeds (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, Section 4). Where
  seeds play the same starts, these are drawn for all seeds at once: a far start is far for each of them.
- `over_seeds_and_starts`: what would *other* weights of the same recipe score, on other starts?
- `compare`: is one agent better than another on the same starts? Differences of pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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

    def __format__(self, digits: str) -> str:
        """The value with its interval in brackets, if there is one, each number as `digits` says."""
        low, high = self.low, self.high
        value = format(self.value, digits)
        return value if low is None or high is None else f"{value} [{low:{digits}}, {high:{digits}}]"


def mean(strata: Sequence[ArrayLike], resamples: int = RESAMPLES, same_starts: bool = False) -> Estimate:
    """Mean of all episodes, with the stratified bootstrap's interval.

    `strata`: one array (E_s,) of episodes for each training seed. Episodes are drawn with replacement within each seed and
    seeds are kept: the interval shows how far other episodes of the same weights would move the mean, and nothing about other
    weights. With `same_starts` the e-th episodes of all seeds begin alike and are drawn together; without it all episodes are
    taken as independent, which gives too narrow an interval where seeds share their starts. Same values, same interval. Raises
    ValueError if there is no value, one is not finite, or seeds with the same starts have different numbers of episodes.
    """
    return stratified(checked(strata), np.mean, resamples, same_starts)


def interquartile_mean(strata: Sequence[ArrayLike], resamples: int = RESAMPLES, same_starts: bool = False) -> Estimate:
    """Mean of the middle half of all episodes together (Agarwal et al. 2021, Section 4.3), and its interval as in `mean`.

    A few extreme episodes do not move it; it hides a failure in less than a quarter of the episodes. Not to be confused
    with a mean of the seeds' own interquartile means.
    """
    return stratified(checked(strata), partial(stats.trim_mean, proportiontocut=0.25), resamples, same_starts)


def over_seeds_and_starts(scores: ArrayLike, resamples: int = RESAMPLES) -> Estimate:
    """Mean of scores (S, E), S training seeds on the same E starts, with an interval that takes both as random.

    Seeds and starts are drawn with replacement, each on its own, and their crossing is averaged (the pigeonhole
    bootstrap of Owen 2007): how would other weights of the same recipe score, on other starts? From few seeds the
    answer is rough and too narrow, so read the seeds' own means beside it; for fewer than three there is no interval. Raises
    ValueError unless the scores are a finite matrix.
    """
    array = _matrix(scores)
    seeds, starts = array.shape
    if seeds < SEEDS_FOR_SPREAD or starts == 1:
        return Estimate(float(array.mean()))
    rng = np.random.default_rng(0)
    seed_weights, start_weights = (rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in (seeds, starts))
    return Estimate(float(array.mean()), *percentiles(((seed_weights @ array) * start_weights).sum(axis=1)))


def compare(first: ArrayLike, second: ArrayLike, resamples: int = RESAMPLES) -> Estimate:
    """The mean difference, first minus second, of two agents' scores (S, E) and (S', E), or (E,), on the same E starts.

    Each start's score is averaged over an agent's training seeds; the E differences are then one sample. Its interval is
    narrower than two separate ones, because a far start is far for both. Raises ValueError if the shapes differ, or a score is
    not finite.
    """
    ours, theirs = (_matrix(np.atleast_2d(scores)).mean(axis=0) for scores in (first, second))
    if ours.shape != theirs.shape:
        raise ValueError(f"only scores on the same starts can be compared, got {len(ours)} and {len(theirs)}")
    return mean([ours - theirs], resamples)


def share(successes: Sequence[bool]) -> Estimate:
    """Share of episodes with success, with Wilson's interval. Raises ValueError if there are no episodes."""
    if not len(successes):
        raise ValueError("a share needs one or more episodes")
    found = stats.binomtest(int(np.sum(successes)), len(successes))
    low, high = found.proportion_ci(LEVEL, method="wilson")
    return Estimate(float(np.mean(successes)), float(low), float(high))


def _matrix(scores: ArrayLike) -> np.ndarray:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"expected scores (training seeds, starts), got shape {array.shape}")
    return np.stack(checked(list(array)))


def checked(strata: Sequence[ArrayLike]) -> list[np.ndarray]:
    """The strata as arrays of float64. ValueError if there is no value in one, or one that is not finite."""
    arrays = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not arrays or any(array.ndim != 1 or array.size == 0 for array in arrays):
        raise ValueError(f"a mean needs one or more values of each seed, got shapes {[a.shape for a in arrays]}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a mean needs finite values, got NaN or infinity")
    return arrays


def stratified(
    strata: list[np.ndarray], statistic: Callable[..., np.ndarray], resamples: int, same_starts: bool = False
) -> Estimate:
    """A statistic of all episodes, with the bias-corrected and accelerated (BCa) interval, else percentiles.

    `same_starts` as in `mean`. BCa is undefined where leaving an episode out never changes the statistic, such as the
    interquartile mean of an agent that fails in most episodes. Percentiles are of the same resamples.
    """

    def pooled(*samples: np.ndarray, axis: int = -1) -> np.ndarray:
        return statistic(np.concatenate(samples, axis=axis), axis=axis)

    if same_starts and len({stratum.size for stratum in strata}) > 1:
        sizes = [stratum.size for stratum in strata]
        raise ValueError(f"training seeds with the same starts have as many episodes each, got {sizes}")
    value = float(pooled(*strata))
    if any(stratum.size == 1 for stratum in strata):
        return Estimate(value)
    if all(np.ptp(stratum) == 0 for stratum in strata):
        return Estimate(value, value, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 in the acceleration
        options = {
            "n_resamples": resamples,
            "batch": 500,
            "confidence_level": LEVEL,
            "method": "BCa",
            "paired": same_starts,
        }
        found = stats.bootstrap(strata, pooled, **options, rng=np.random.default_rng(0))
    low, high = map(float, found.confidence_interval)
    return Estimate(
        value, *((low, high) if np.isfinite([low, high]).all() else percentiles(found.bootstrap_distribution))
    )


def percentiles(resampled: np.ndarray) -> tuple[float, float]:
    """The middle 95% of resampled values."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
