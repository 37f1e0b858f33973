"""Rows of observations within an episode, of which the observation after the last action is one where it was recorded."""

import numpy as np

from dfplan.data.trajectories import FloatArray, IntArray, Trajectories


def bounds(data: Trajectories, steps: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Flat indices (...) of steps -> their episodes, and the first and the last row of them with an observation, (...) each.

    The last row is one past the last step in data that have last observations.
    """
    episodes = np.searchsorted(data.episode_starts, steps, side="right") - 1
    last = data.episode_ends[episodes] - (data.last_observations is None)
    return episodes, data.episode_starts[episodes], last


def observations_at(data: Trajectories, episodes: IntArray, rows: IntArray) -> FloatArray:
    """Observations (..., obs_dim) of flat rows (...) within the bounds of their episodes (...)."""
    ends = data.episode_ends[episodes]
    observations = data.observations[np.minimum(rows, ends - 1)]
    if data.last_observations is not None:
        after = rows == ends
        observations[after] = data.last_observations[np.broadcast_to(episodes, rows.shape)[after]]
    return observations


class Followed:
    """The M steps of which the next observation was recorded, numbered without a list of them: all steps, or, in data
    without last observations, all but each episode's last one.

    Raises ValueError if there is none.
    """

    def __init__(self, data: Trajectories) -> None:
        cut = data.last_observations is None
        # One step is left out of each episode: a binary search finds how many were left out before.
        self._counted = np.cumsum(data.episode_ends - data.episode_starts - 1) if cut else None
        self._length = len(data) - cut * len(data.episode_starts)
        if not self._length:
            raise ValueError(f"{data.name}: no step is followed by an observation.")

    def __len__(self) -> int:
        """Number of steps M."""
        return self._length

    def steps(self, numbers: IntArray) -> IntArray:
        """Numbers (...) in 0..M-1 -> the flat indices (...) of these steps. Raises IndexError for other numbers."""
        if numbers.size and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"These steps are numbered 0..{len(self) - 1}.")
        return numbers if self._counted is None else numbers + np.searchsorted(self._counted, numbers, side="right")
