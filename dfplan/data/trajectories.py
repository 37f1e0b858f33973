"""Recorded behavior in memory: flat arrays with episode starts, and sequence windows as views over them."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplan.data.features import AS_RECORDED, Features
from dfplan.fields import check_columns

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Episodes laid end to end in flat arrays; step i of all arrays belongs together.

    Row i says: in `observations[i]` the action `actions[i]` was taken and `rewards[i]` was recorded. The arrays are held
    as read-only views (no copy, but for `truncations`): the fingerprint stays true.

    `observations` (N, obs_dim), `actions` (N, act_dim) and `rewards` (N,) are float32 and finite; `episode_starts`
    (E,) is int64, ascending, begins at 0; every episode has at least one step. `name` says where the data come from
    and opens every error message.

    What the data say of ends is optional. `terminations` (N,) bool: the task ended with this step, and nothing is to be
    gained or lost after it. `truncations` (N,) bool: the record stops after this step, though the task went on. Without
    flags nothing terminates; a last step of an episode that does not terminate counts as truncated. `last_observations`
    (E, obs_dim), float32 and finite, is what was observed after each episode's last action, or None where the source
    has no such thing. `features` say how raw observations became these, and in which of their columns a goal stands; by
    default they are as recorded, without goals.

    Raises ValueError for any array that is not so, naming the key and the first bad row.
    """

    observations: FloatArray
    actions: FloatArray
    rewards: FloatArray
    episode_starts: IntArray
    name: str
    # Arrays once the object is made; None stands for 'not said' in the constructor only.
    terminations: BoolArray = None  # type: ignore[assignment]
    truncations: BoolArray = None  # type: ignore[assignment]
    last_observations: FloatArray | None = None
    features: Features = AS_RECORDED

    def __post_init__(self) -> None:
        for key, ndim in (("observations", 2), ("actions", 2), ("rewards", 1)):
            self._check_floats(key, ndim)
        steps = len(self.observations)
        for key in ("actions", "rewards"):
            self._check_length(key, steps, "steps", "'observations'")
        starts = self.episode_starts
        if not isinstance(starts, np.ndarray) or starts.dtype != np.int64 or starts.ndim != 1:
            raise ValueError(f"{self.name}: 'episode_starts' must be a one-dimensional int64 array.")
        if not len(starts) or starts[0] != 0 or starts[-1] >= steps or (np.diff(starts) < 1).any():
            raise ValueError(
                f"{self.name}: 'episode_starts' must begin at 0, ascend, and stay below the number of steps ({steps})."
            )
        for key in ("terminations", "truncations"):
            flags = getattr(self, key)
            if flags is None:
                object.__setattr__(self, key, np.zeros(steps, bool))
            elif not isinstance(flags, np.ndarray) or flags.dtype != np.bool_ or flags.ndim != 1:
                raise ValueError(f"{self.name}: '{key}' must be a one-dimensional bool array.")
            self._check_length(key, steps, "steps", "'observations'")
        cut = np.array(self.truncations)
        last = self.episode_ends - 1
        cut[last] |= ~self.terminations[last]
        object.__setattr__(self, "truncations", cut)
        if self.last_observations is not None:
            self._check_floats("last_observations", 2)
            self._check_length("last_observations", len(starts), "rows", "'episode_starts'")
            if self.last_observations.shape[1] != self.observations.shape[1]:
                raise ValueError(
                    f"{self.name}: 'last_observations' have {self.last_observations.shape[1]} columns but 'observations' "
                    f"{self.observations.shape[1]}."
                )
        try:
            check_columns(self.features.goal_columns, self.observations.shape[1], "goal columns")
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}.") from error
        for field in dataclasses.fields(self):
            array = getattr(self, field.name)
            if isinstance(array, np.ndarray):
                view = array.view()
                view.flags.writeable = False
                object.__setattr__(self, field.name, view)

    def _check_floats(self, key: str, ndim: int) -> None:
        array = getattr(self, key)
        check_steps(array, key, ndim, self.name)
        if array.dtype != np.float32:
            raise ValueError(f"{self.name}: '{key}' is {array.dtype}; expected float32.")

    def _check_length(self, key: str, length: int, rows: str, other: str) -> None:
        if (found := len(getattr(self, key))) != length:
            raise ValueError(f"{self.name}: '{key}' has {found} {rows} but {other} has {length}.")

    def __len__(self) -> int:
        """Number of steps N."""
        return len(self.observations)

    def __repr__(self) -> str:
        lengths = self.episode_ends - self.episode_starts
        parts = [
            f"{len(self):,} steps in {len(lengths):,} episodes of {lengths.min():,} to {lengths.max():,}",
            f"observations of {self.observations.shape[1]} columns",
            f"actions of {self.actions.shape[1]} from {_listed(self.actions.min(0))} to {_listed(self.actions.max(0))}",
            f"returns {self.returns.min():.5g} to {self.returns.max():.5g}" if rewarding(self) else "no rewards",
            f"goals in columns {self.features.goal_columns}" if self.features.goal_columns else "no goals",
        ]
        return f"Trajectories({self.name}: {', '.join(parts)})"

    @property
    def episode_ends(self) -> IntArray:
        """(E,) int64: one past the last step of each episode."""
        return np.append(self.episode_starts[1:], len(self))

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """(E,) the sum of each episode's rewards."""
        return np.add.reduceat(self.rewards, self.episode_starts, dtype=np.float64)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 hex over each array's key, shape and little-endian bytes; over the terminations only if there is one, and
        over the features only if they do something. The name is left out: the same data under another name have the same
        fingerprint."""
        digest = hashlib.sha256()
        keys = [("observations", "<f4"), ("actions", "<f4"), ("rewards", "<f4"), ("episode_starts", "<i8")]
        if self.terminations.any():
            keys.append(("terminations", "|b1"))
        for key, dtype in keys:
            array = np.ascontiguousarray(getattr(self, key), dtype=dtype)
            digest.update(f"{key} {array.shape}\n".encode())
            digest.update(array.data)
        if not self.features.as_recorded:
            digest.update(f"features {json.dumps(dataclasses.asdict(self.features), sort_keys=True)}\n".encode())
        return digest.hexdigest()


def _listed(numbers: FloatArray) -> str:
    """The first few numbers of a row, in short."""
    return f"({', '.join(f'{number:.3g}' for number in numbers[:4])}{', ...' if len(numbers) > 4 else ''})"


def as_float32(array: np.ndarray) -> FloatArray:
    """The same numbers in float32; those beyond its range become infinite, which `Trajectories` refuses."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def check_steps(array: np.ndarray, key: str, ndim: int, source: str) -> None:
    """Raise ValueError, naming `source` and `key`, unless `array` has `ndim` axes, at least one step, and is finite."""
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{source}: '{key}' holds {type(array).__name__}; expected an array of numbers.")
    check_form(array.dtype, array.shape, key, ndim, source)
    check_finite(array, key, source)


def check_form(dtype: np.dtype[Any], shape: tuple[int, ...], key: str, ndim: int, source: str) -> None:
    """Raise ValueError, naming `source` and `key`, unless these are real numbers with `ndim` axes and at least one step."""
    if dtype.kind not in "fiub":
        raise ValueError(f"{source}: '{key}' holds {dtype}; expected an array of numbers.")
    if len(shape) != ndim or min(shape, default=0) < 1:
        expected = "(steps, width)" if ndim == 2 else "(steps,)"
        flat = key == "actions" and len(shape) == 1
        hint = " One column is (steps, 1); actions of a Discrete space cannot be learned." if flat else ""
        raise ValueError(f"{source}: '{key}' has shape {shape}; expected {expected} with at least one step.{hint}")


def check_finite(array: np.ndarray, key: str, source: str, otherwise: str = "NaN or infinity") -> None:
    """Raise ValueError, naming `source`, `key` and the first bad row, unless all numbers of `array` (N, ...) are finite."""
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argmin(finite.reshape(len(array), -1).all(axis=1)))
        raise ValueError(f"{source}: '{key}' holds {otherwise}, first at step {row}.")


def next_true(flags: BoolArray) -> IntArray:
    """(N,) -> for each step the first one from it on that is true, a number far beyond N if there is none."""
    index = np.where(flags, np.arange(len(flags)), 2 * len(flags) + 1)
    return np.minimum.accumulate(index[::-1])[::-1]


def stops(data: Trajectories) -> IntArray:
    """(N,) int64: one past the last step that follows from each step: where the task terminates, or the episode ends."""
    ends = np.repeat(data.episode_ends, data.episode_ends - data.episode_starts)
    return np.minimum(next_true(data.terminations) + 1, ends)


def rewarding(data: Trajectories) -> bool:
    """Whether something is to be gained: rewards differ, or an end of the task cuts off such as are not 0."""
    first = data.rewards[0]
    return bool((data.rewards != first).any() or (first and data.terminations.any()))


def next_observations(data: Trajectories, indices: IntArray) -> FloatArray:
    """What was observed after the steps of the flat indices (...), (..., obs_dim): the next row, the episode's last
    observation after its last step, or, where the data have none, that step's own observation once more."""
    episodes = np.searchsorted(data.episode_starts, indices, side="right") - 1
    last = indices == data.episode_ends[episodes] - 1
    following = data.observations[np.where(last, indices, indices + 1)]
    if data.last_observations is not None:
        following[last] = data.last_observations[episodes[last]]
    return following


class Steps:
    """The steps of which it is known what followed, as transitions (s, a, r, s', terminated).

    A step is followed by the next row of its episode, the last one by the episode's last observation. A step that
    terminates needs none, because no value is taken after it: without one its own observation stands for s'. So only
    last steps that were truncated, in data without last observations, are left out. With `observed`, so are last steps
    that terminate without one: every s' was then observed.

    `indices` (M,) int64 are the flat indices of these steps. Raises ValueError if there is none.
    """

    def __init__(self, trajectories: Trajectories, observed: bool = False) -> None:
        self.trajectories = trajectories
        known = np.ones(len(trajectories), bool)
        if trajectories.last_observations is None:
            last = trajectories.episode_ends - 1
            known[last] = False if observed else trajectories.terminations[last]
        self.indices: IntArray = np.flatnonzero(known)
        if not len(self.indices):
            raise ValueError(
                f"{trajectories.name}: no step is followed by an observation, so there are no transitions."
            )

    def __len__(self) -> int:
        """Number of steps M."""
        return len(self.indices)

    def gather(self, numbers: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Numbers (...) of steps, each in 0..M-1 -> s, a (..., columns), r (...), s', and terminated (...), 0 or 1."""
        i, data = self.indices[numbers], self.trajectories
        terminated = data.terminations[i].astype(np.float32)
        return data.observations[i], data.actions[i], data.rewards[i], next_observations(data, i), terminated
