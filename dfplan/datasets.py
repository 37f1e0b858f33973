"""Recorded behaviour in memory: flat arrays with episode starts, and sequence windows as views over them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Batch = tuple[Any, ...]
BatchSource = Callable[[np.random.Generator, int], Batch]
"""``batch(rng, batch_size)``: arrays drawn with ``rng`` and nothing else."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes laid end to end in flat arrays; step i of all arrays belongs together.

    Row i says: in `observations[i]` the action `actions[i]` was taken and `rewards[i]` was recorded. The observation
    that follows an episode's last action is not kept, so every row is complete. The arrays are held as read-only
    views (no copy): the fingerprint stays true.

    `observations` (N, obs_dim), `actions` (N, act_dim) and `rewards` (N,) are float32 and finite; `episode_starts`
    (E,) is int64, ascending, begins at 0; every episode has at least one step. `name` says where the data come from
    and opens every error message.

    Raises ValueError for any array that is not so, naming the key and the first bad row.
    """

    observations: FloatArray
    actions: FloatArray
    rewards: FloatArray
    episode_starts: IntArray
    name: str

    def __post_init__(self) -> None:
        steps = len(self.observations) if np.ndim(self.observations) else 0
        for key, ndim in (("observations", 2), ("actions", 2), ("rewards", 1)):
            array = getattr(self, key)
            check_steps(array, key, ndim, self.name)
            if array.dtype != np.float32:
                raise ValueError(f"{self.name}: '{key}' is {array.dtype}; expected float32.")
            if len(array) != steps:
                raise ValueError(f"{self.name}: '{key}' has {len(array)} steps but 'observations' has {steps}.")
        starts = self.episode_starts
        if not isinstance(starts, np.ndarray) or starts.dtype != np.int64 or starts.ndim != 1:
            raise ValueError(f"{self.name}: 'episode_starts' must be a one-dimensional int64 array.")
        if not len(starts) or starts[0] != 0 or starts[-1] >= steps or (np.diff(starts) < 1).any():
            raise ValueError(
                f"{self.name}: 'episode_starts' must begin at 0, ascend, and stay below the number of steps ({steps})."
            )
        for key in ("observations", "actions", "rewards", "episode_starts"):
            view = getattr(self, key).view()
            view.flags.writeable = False
            object.__setattr__(self, key, view)

    def __len__(self) -> int:
        """Number of steps N."""
        return len(self.observations)

    @property
    def episode_ends(self) -> IntArray:
        """(E,) int64: one past the last step of each episode."""
        return np.append(self.episode_starts[1:], len(self))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 hex over each array's key, shape and little-endian bytes. The name is left out: the same data under
        another name have the same fingerprint."""
        digest = hashlib.sha256()
        for key, dtype in (("observations", "<f4"), ("actions", "<f4"), ("rewards", "<f4"), ("episode_starts", "<i8")):
            array = np.ascontiguousarray(getattr(self, key), dtype=dtype)
            digest.update(f"{key} {array.shape}\n".encode())
            digest.update(array.data)
        return digest.hexdigest()


def check_steps(array: np.ndarray, key: str, ndim: int, source: str) -> None:
    """Raise ValueError, naming `source` and `key`, unless `array` has `ndim` axes, at least one step, and is finite."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{source}: '{key}' holds {kind}; expected an array of numbers.")
    if array.ndim != ndim or array.size == 0:
        expected = "(steps, width)" if ndim == 2 else "(steps,)"
        raise ValueError(f"{source}: '{key}' has shape {array.shape}; expected {expected} with at least one step.")
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
        raise ValueError(f"{source}: '{key}' holds NaN or infinity, first at step {row}.")


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


def _window_views(array: FloatArray, span: int, stride: int) -> FloatArray:
    """(N, C) -> (N - span + 1, length, C), sharing the array's memory; rows that cross an episode's end are in it."""
    return np.lib.stride_tricks.sliding_window_view(array, span, axis=0)[..., ::stride].swapaxes(1, 2)
