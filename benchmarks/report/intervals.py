"""Means of a benchmark's episodes with their uncertainty, and two agents compared on the same starts.

An agent's scores are *strata*: one array of episodes for each training seed. Three questions are kept apart:

- `mean`, `interquartile_mean`: what would other episodes of *these* weights score? Stratified bootstrap, strata =
  training seeds (Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, Section 4).
- `over_seeds_and_starts`: what would *other* weights of the same recipe score, on other starts?
- `compare`: is one agent better than another on the same starts? Differences of pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from dfplan.agents.intervals import RESAMPLES, Estimate, checked, mean, percentiles, stratified

SEEDS_FOR_SPREAD = 3
"""From this many training seeds on, they are resampled too; fewer say too little of other seeds."""


@dataclass(frozen=True)
class Comparison:
    """Mean of the per-start differences, first minus second, its 95% interval, and Wilcoxon's signed-rank p."""

    difference: Estimate
    p: float
    """Two-sided, of 'the differences lie symmetrically about 0'; 1 where all of them are 0."""


def interquartile_mean(strata: Sequence[ArrayLike], resamples: int = RESAMPLES) -> Estimate:
    """Mean of the middle half of all episodes together (Agarwal et al. 2021, Section 4.3), and its interval as in `mean`.

    A few extreme episodes do not move it; it hides a failure in less than a quarter of the episodes. Not to be confused
    with a mean of the seeds' own interquartile means.
    """
    return stratified(checked(strata), _middle_mean, resamples)


def _middle_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """`scipy.stats.trim_mean(values, 0.25)` to the last bit, without its checks: they take longer than 500 resamples."""
    values = np.moveaxis(values, axis, -1)
    low, high = values.shape[-1] // 4, values.shape[-1] - values.shape[-1] // 4
    return np.partition(values, (low, high - 1))[..., low:high].mean(axis=-1)


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
    checked(list(array))
    value, (seeds, starts) = float(array.mean()), array.shape
    if seeds < SEEDS_FOR_SPREAD or starts == 1:
        return Estimate(value)
    rng = np.random.default_rng(0)
    seed_weights = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    start_weights = rng.multinomial(starts, np.full(starts, 1 / starts), size=resamples) / starts
    return Estimate(value, *percentiles(((seed_weights @ array) * start_weights).sum(axis=1)))


def compare(
    first: ArrayLike,
    second: ArrayLike,
    first_starts: Sequence[int],
    second_starts: Sequence[int],
    resamples: int = RESAMPLES,
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
