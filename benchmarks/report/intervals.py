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
from functools import partial

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
    return stratified(checked(strata), partial(stats.trim_mean, proportiontocut=0.25), resamples)


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


def compare(first: ArrayLike, second: ArrayLike, resamples: int = RESAMPLES) -> Comparison:
    """Two agents' scores (S, E) and (S', E), or (E,), on the same E starts in the same order.

    Each start's score is averaged over an agent's training seeds; the E differences are then one sample: its mean, the
    bootstrap's interval, and Wilcoxon's p. Narrower than two separate intervals, because a far start is far for both.
    Raises ValueError if the shapes differ, or a score is not finite.
    """
    ours, theirs = (_matrix(np.atleast_2d(scores)).mean(axis=0) for scores in (first, second))
    if ours.shape != theirs.shape:
        raise ValueError(f"only scores on the same starts can be compared, got {len(ours)} and {len(theirs)}")
    p = float(stats.wilcoxon(ours - theirs).pvalue) if (ours != theirs).any() else 1.0
    return Comparison(mean([ours - theirs], resamples), p)


def _matrix(scores: ArrayLike) -> np.ndarray:
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"expected scores (training seeds, starts), got shape {array.shape}")
    return np.stack(checked(list(array)))
