"""Configurations of several things: at which kind of place each of them rests, and what follows what in recorded behavior.

A drawer is open or closed, a button is on or off, a cube lies on the table or in the drawer. The kinds of each thing are
clusters of the places where it was seen at rest, and a configuration has one kind of each. What was recorded then is a path
through a graph, in which a locked drawer has no edge that opens it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from dfplan.data.trajectories import BoolArray, FloatArray, IntArray, Trajectories

AT_REST = 0.01
"""How far a thing at rest moves in one step at most, in deviations of its columns."""
ROUNDS = 50
"""Of the clustering."""
AT_ONCE = 10_000
"""Rows that are compared with all centers at a time: more would take gigabytes."""


class Changes(NamedTuple):
    """E changes from one configuration to another, in the order in which they were recorded."""

    episodes: IntArray
    """(E,) in which episode."""
    left: IntArray
    """(E,) flat index of the last step before it in which all things were at rest."""
    reached: IntArray
    """(E,) flat index of the first step after it in which all were."""
    before: IntArray
    """(E,) the configuration's number before it."""
    after: IntArray
    """(E,) and after it."""


def cluster(data: Trajectories, columns: Sequence[int], groups: Sequence[int], kinds: Sequence[int]) -> FloatArray:
    """(N, G): of each configuration the centers of its kinds, in the goal columns (G,). N is the product of all `kinds`.

    A group has some neighboring columns and as many kinds of places, numbered along the column that tells them apart best.
    Raises ValueError for a group that is seldom at rest.
    """
    values, still = data.observations[:, list(columns)], at_rest(data, columns, groups)
    starts = np.append(0, np.cumsum(groups)[:-1])
    centers = []
    for number, (start, size, count) in enumerate(zip(starts, groups, kinds, strict=True)):
        places = values[still[:, number], start : start + size].astype(np.float64)
        if len(places) < 2 * count:
            raise ValueError(
                f"{data.name}: the things of goal group {number} are seldom at rest, so that they have no kinds"
            )
        found: NDArray[Any] = kmeans2(places, _far_apart(places, count), iter=ROUNDS, minit="matrix")[0]
        centers.append(found[np.argsort(found[:, np.ptp(found, axis=0).argmax()])])
    return np.array([np.concatenate(kind) for kind in product(*centers)], np.float32)


def nearest(values: FloatArray, centers: FloatArray) -> IntArray:
    """Goal columns (..., G) -> (...) the number of their configuration: that of the nearest center, group by group."""
    rows, squares = values.reshape(-1, values.shape[-1]), (centers**2).sum(axis=1)
    parts = [rows[start : start + AT_ONCE] for start in range(0, max(len(rows), 1), AT_ONCE)]
    found: IntArray = np.concatenate([(squares - 2 * part @ centers.T).argmin(axis=-1) for part in parts])
    return found.reshape(values.shape[:-1])


def kinds_in_each(kinds: Sequence[int]) -> IntArray:
    """(N, things): of which kind each thing is in each configuration."""
    return np.stack(np.unravel_index(np.arange(int(np.prod(kinds))), tuple(kinds)), axis=1)


def at_rest(data: Trajectories, columns: Sequence[int], groups: Sequence[int]) -> BoolArray:
    """(N, groups): whether each thing was at the same place in the step before and in the step after, where there are any."""
    values = data.observations[:, list(columns)]
    moved = np.abs(np.diff(values, axis=0)) / (values.std(axis=0) + 1e-6)
    starts = np.append(0, np.cumsum(groups)[:-1])
    moved = np.maximum.reduceat(moved, starts, axis=1) > AT_REST
    moved[data.episode_starts[1:] - 1] = False
    none = np.zeros((1, len(groups)), bool)
    still: BoolArray = ~(np.concatenate([moved, none]) | np.concatenate([none, moved]))
    return still


def changes(data: Trajectories, columns: Sequence[int], groups: Sequence[int], centers: FloatArray) -> Changes:
    """What was recorded as a path through configurations, by the steps in which all things were at rest."""
    settled = np.flatnonzero(at_rest(data, columns, groups).all(axis=1))
    number = nearest(data.observations[settled][:, list(columns)], centers)
    episode = np.searchsorted(data.episode_starts, settled, side="right") - 1
    at = np.flatnonzero((number[1:] != number[:-1]) & (episode[1:] == episode[:-1]))
    return Changes(episode[at], settled[at], settled[at + 1], number[at], number[at + 1])


def until_the_second(data: Trajectories, found: Changes) -> IntArray:
    """(N,): how many steps after each step of the data the second change from there on begins: at least 1.

    Where there is no second one in the episode it is the length of all data.
    """
    steps = np.arange(len(data))
    second = np.searchsorted(found.reached, steps, side="right") + 1
    episode = np.searchsorted(data.episode_starts, steps, side="right") - 1
    there = second < len(found.left)
    at = np.minimum(second, max(len(found.left) - 1, 0))
    if not there.any():
        return np.full(len(data), len(data))
    there &= found.episodes[at] == episode
    return np.where(there, np.maximum(found.left[at] - steps, 1), len(data))


def until_another(still: BoolArray) -> IntArray:
    """(N,): the number of steps from each step of the data until a second thing moves, at least 1.

    `still` (N, things) is as of `at_rest`. Where no second one moves, the number is not below that of all steps that are left.
    """
    steps = np.arange(len(still))
    moves = np.minimum.accumulate(np.where(still, len(still), steps[:, None])[::-1])[::-1]
    return np.maximum(np.sort(moves, axis=1)[:, 1] - steps, 1)


def change_together(data: Trajectories, found: Changes, kinds: Sequence[int]) -> BoolArray:
    """(N, things): which things change their kind by the next change from each step of the data on.

    One switch may turn several lamps. All are False where no change follows in the episode.
    """
    steps, number = np.arange(len(data)), kinds_in_each(kinds)
    following = np.searchsorted(found.reached, steps, side="right")
    episode = np.searchsorted(data.episode_starts, steps, side="right") - 1
    differ = np.append(number[found.before] != number[found.after], np.zeros((1, len(kinds)), bool), axis=0)
    same = np.append(found.episodes, -1)[following] == episode
    return differ[following] & same[:, None]


def _far_apart(places: NDArray[Any], count: int) -> NDArray[Any]:
    """(count, columns): the place that is farthest from the mean, then always the one that is farthest from all of these."""
    chosen = [np.square(places - places.mean(axis=0)).sum(axis=1).argmax()]
    for _ in range(count - 1):
        apart = np.square(places[:, None] - places[chosen]).sum(axis=2).min(axis=1)
        chosen.append(apart.argmax())
    return places[chosen]
