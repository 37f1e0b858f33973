"""Sequence windows over recorded behavior: views until a batch is gathered."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplan.data.trajectories import FloatArray, IntArray, Trajectories, next_observations, stops

Batch = tuple[Any, ...]
BatchSource = Callable[[np.random.Generator, int], Batch]
"""`batch(rng, batch_size)`: arrays drawn with `rng` and nothing else."""


class Windows:
    """All sequences of `length` steps that stay inside one episode, the steps `stride` environment steps apart.

    Window i begins at the flat index `starts([i])[0]` and spans `(length - 1) * stride + 1` environment steps.
    Nothing is copied until `gather` copies one batch: `observation_views` (N - span + 1, length, obs_dim) and
    `action_views` are strided views over the flat arrays, indexed by flat start (those that cross an episode's end are
    never drawn), and the valid starts are arithmetic on the E episodes, not a list of N numbers.

    Raises ValueError when length or stride is below 1, or when no episode is long enough.
    """

    def __init__(self, trajectories: Trajectories, length: int, stride: int = 1) -> None:
        if length < 1 or stride < 1:
            raise ValueError(f"A window needs length and stride of at least 1, not {length} and {stride}.")
        self.trajectories, self.length, self.stride = trajectories, length, stride
        span = (length - 1) * stride + 1
        episode_lengths = trajectories.episode_ends - trajectories.episode_starts
        if span > episode_lengths.max():
            raise ValueError(
                f"{trajectories.name}: no episode is long enough for a window of {length} steps with stride {stride} "
                f"({span} environment steps); the longest has {episode_lengths.max()}."
            )
        # Starts counted up to and including each episode: a binary search in it finds a window's episode.
        self._counted = np.cumsum(np.maximum(episode_lengths - span + 1, 0))
        self.observation_views = _window_views(trajectories.observations, span, stride)
        self.action_views = _window_views(trajectories.actions, span, stride)

    def __len__(self) -> int:
        """Number of windows."""
        return int(self._counted[-1])

    def starts(self, indices: ArrayLike) -> IntArray:
        """(B,) window indices -> (B,) flat index of each window's first step. Raises IndexError outside 0..len-1."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"Window indices must lie in 0..{len(self) - 1}.")
        episodes = np.searchsorted(self._counted, indices, side="right")
        before = np.where(episodes > 0, self._counted[episodes - 1], 0)
        return self.trajectories.episode_starts[episodes] + indices - before

    def gather(self, indices: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """(B,) window indices -> fresh, contiguous observations (B, length, obs_dim) and actions (B, length, act_dim).

        `indices` count windows, 0 <= i < len(self); they are not flat step numbers.
        """
        starts = self.starts(indices)
        return np.ascontiguousarray(self.observation_views[starts]), np.ascontiguousarray(self.action_views[starts])

    def sample(self, rng: np.random.Generator, batch_size: int) -> tuple[FloatArray, FloatArray]:
        """`batch_size` windows drawn uniformly with replacement; see `gather` for the shapes."""
        return self.gather(rng.integers(len(self), size=batch_size))


class ReturnWindows:
    """Windows of `length` consecutive steps with the sum of their rewards.

    They stay inside one episode, except where the task terminates. Nothing is gained or lost after that, so a window is
    filled up with the last observation, at rest, and actions and rewards of 0. Without that, the steps before an early end
    would be in no window, and the end would cost nothing.

    `starts` (W,) are the flat indices at which windows begin. Raises ValueError if there is none.
    """

    def __init__(self, data: Trajectories, length: int):
        self.data, self.length = data, length
        steps, self._stops = np.arange(len(data)), stops(data)
        self.starts: IntArray = np.flatnonzero((steps + length <= self._stops) | data.terminations[self._stops - 1])
        self._total = np.concatenate([[0.0], np.cumsum(data.rewards, dtype=np.float64)])
        if not len(self.starts):
            longest = int((self._stops - steps).max())
            raise ValueError(
                f"{data.name}: no episode is long enough for a window of {length} steps; the longest has {longest}."
            )

    def __len__(self) -> int:
        """Number of windows W."""
        return len(self.starts)

    def recorded(self, starts: IntArray) -> IntArray:
        """(B,) starts -> (B,) how many steps of each window were recorded: `length`, or fewer up to a termination."""
        return np.minimum(self._stops[starts] - starts, self.length)

    def returns(self, starts: IntArray) -> NDArray[np.float64]:
        """(B,) starts -> (B,) sums of the rewards recorded in the windows."""
        return self._total[starts + self.recorded(starts)] - self._total[starts]

    def sample(
        self, rng: np.random.Generator, batch_size: int
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Windows drawn uniformly with replacement: observations (B, length, obs_dim), actions (B, length, act_dim),
        returns (B,) and recorded steps (B,)."""
        starts = self.starts[rng.integers(len(self), size=batch_size)]
        recorded, step = self.recorded(starts)[:, None], np.arange(self.length)
        index = starts[:, None] + np.minimum(step, recorded - 1)
        observations, actions = self.data.observations[index], self.data.actions[index]
        row, past = np.nonzero(step >= recorded)
        observations[row, past] = next_observations(self.data, index[:, -1])[row]
        actions[row, past] = 0
        return observations, actions, self.returns(starts).astype(np.float32), recorded[:, 0].astype(np.float32)


def _window_views(array: FloatArray, span: int, stride: int) -> FloatArray:
    """(N, C) -> (N - span + 1, length, C), sharing the array's memory; rows that cross an episode's end are in it."""
    return np.lib.stride_tricks.sliding_window_view(array, span, axis=0)[..., ::stride].swapaxes(1, 2)
