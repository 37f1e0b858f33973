"""Where chance decided in recorded behavior, and the data without it: what is left is what an agent can make happen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from dfplan.data.recorded import Followed
from dfplan.data.trajectories import IntArray, Trajectories, next_observations

ALIKE = 16
"""A leap is compared with those that began nearest: so many, the leap itself among them."""


def without_chance(data: Trajectories, stride: int) -> Trajectories:
    """The same steps, in episodes that end where chance decided: a plan learned from them contains no luck.

    After such a step a new episode begins. What was observed after the last action of an episode is left out. `stride` is as
    in `by_chance`.
    """
    starts = np.union1d(data.episode_starts, by_chance(data, stride) + 1)
    return replace(data, episode_starts=starts, last_observations=None)


def by_chance(data: Trajectories, stride: int) -> IntArray:
    """Flat indices of the steps for which chance decided among ends that are far apart.

    Far is more than `stride` steps usually cover, in deviations of each column. A leap is a step that ends far from where its
    action leads on average (in a linear fit). Chance decided a leap if, of the leaps that began nearest, some end far from
    their mean. So a leap that always ends in the same place is no chance, nor is noise so small that the next steps correct it.
    """
    steps = Followed(data).steps(np.arange(len(Followed(data))))
    scale = data.observations.std(axis=0) + 1e-6
    before, after, action = (
        data.observations[steps] / scale,
        next_observations(data, steps) / scale,
        data.actions[steps],
    )
    change, action = after - before - (after - before).mean(axis=0), action - action.mean(axis=0)
    missed = change - action @ np.linalg.lstsq(action, change, rcond=None)[0]
    far = _usually(data, stride, scale)
    leaps = np.flatnonzero(np.linalg.norm(missed, axis=1) > far)
    if len(leaps) < ALIKE:
        return leaps[:0]
    ends = after[leaps][cKDTree(before[leaps]).query(before[leaps], ALIKE)[1]]
    apart = np.linalg.norm(ends - ends.mean(axis=1, keepdims=True), axis=2).max(axis=1)
    return steps[leaps[apart > far]]


def _usually(data: Trajectories, stride: int, scale: np.ndarray) -> float:
    """The median distance that `stride` steps of an episode cover; infinity where no episode is as long."""
    begins = np.arange(len(data) - stride)
    episode = np.searchsorted(data.episode_starts, np.stack([begins, begins + stride]), side="right")
    begins = begins[episode[0] == episode[1]]
    moved = (data.observations[begins + stride] - data.observations[begins]) / scale
    return float(np.median(np.linalg.norm(moved, axis=1))) if len(moved) else np.inf
