"""What plans of sparse states and their critic learn from: windows with returns, and pairs of states (Lu et al. 2025)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfplan.data.returns import discounted_sums, require_rewards
from dfplan.data.trajectories import IntArray, Trajectories, next_observations, next_true, stops
from dfplan.data.windows import ReturnWindows

PAIRS = 16
"""Pairs of states, a stride apart, that are drawn beside each window."""
Sparse = tuple[NDArray[np.float32], ...]
"""Windows (B, T, D) and their returns (B,) in [-1, 1]; and, from anywhere in the data, states (B, PAIRS, D), the states a
stride later (B, PAIRS, D), and the actions taken in the former (B, PAIRS, A). In recorded units."""


class ReturnPaths:
    """Windows of T states, `stride` steps apart, with the discounted sums of their rewards, scaled to [-1, 1].

    They stay inside one episode, except where the task terminates: what follows is the last observation, at rest. Raises
    ValueError if no episode is long enough, and for data without rewards.
    """

    def __init__(self, data: Trajectories, tokens: int, stride: int, discount: float):
        require_rewards(data, "Diffusion Veteran")
        self.data, self.offsets = data, stride * np.arange(tokens)
        self.windows, self.pairs = ReturnWindows(data, int(self.offsets[-1]) + 1), Pairs(data, stride)
        sums = discounted_sums(data, discount, self.windows.length)[self.windows.starts]
        self.returns = (2 * (sums - sums.min()) / max(np.ptp(sums), 1e-9) - 1).astype(np.float32)

    def sample(self, rng: np.random.Generator, batch_size: int) -> Sparse:
        """Drawn uniformly with replacement: see `Sparse`."""
        which = rng.integers(len(self.windows), size=batch_size)
        starts = self.windows.starts[which]
        recorded = self.windows.recorded(starts)[:, None]
        index = starts[:, None] + np.minimum(self.offsets, recorded - 1)
        plans, rest = self.data.observations[index], self.offsets >= recorded
        plans[rest] = next_observations(self.data, index[rest])
        return plans, self.returns[which], *self.pairs(rng, batch_size)


class GoalPaths:
    """The ways to the goal in the data: windows of T states that begin at most a window's length before a rewarded step.

    The states of a window are `stride` steps apart. A way ends in the middle of its visit to the goal (a run of rewarded
    steps). The rest of its window is filled with `hold`, the mean of all rewarded states: the recorded behavior leaves the
    goal, but a plan should stay. Returns are of the reward minus one: the sum of -gamma^n over the n steps to the first
    rewarded one, scaled to [-1, 1]. No way goes on after the task has terminated.

    Raises ValueError if no step is rewarded or no episode is longer than `stride`.
    """

    def __init__(self, data: Trajectories, tokens: int, stride: int, discount: float):
        self.data = data
        longest, N = (tokens - 1) * stride, len(data)
        rewarded = data.rewards > 0
        if not rewarded.any():
            raise ValueError(f"{data.name}: no step is rewarded, so that there is no goal to learn the way to")
        self.hold = data.observations[rewarded].mean(axis=0, dtype=np.float64).astype(np.float32)
        steps = np.arange(N)
        left = stops(data) - steps
        arrival = next_true(rewarded)
        self.starts = np.flatnonzero(arrival - steps <= np.minimum(longest, left - 1))
        first = arrival[self.starts]
        last = np.minimum(next_true(~rewarded)[first], first + left[first]) - 1
        self.kept = np.maximum((first + last) // 2 - self.starts, 0)
        returns = -np.cumsum(np.append(0.0, discount ** np.arange(longest)))
        self.returns = (1 - 2 * returns / returns[-1]).astype(np.float32)[first - self.starts]
        self.pairs, self.offsets = Pairs(data, stride), stride * np.arange(tokens)

    def sample(self, rng: np.random.Generator, batch_size: int) -> Sparse:
        """Drawn uniformly with replacement: see `Sparse`."""
        which = rng.integers(len(self.starts), size=batch_size)
        on_the_way = self.offsets <= self.kept[which, None]
        index = self.starts[which, None] + np.where(on_the_way, self.offsets, 0)
        plans = np.where(on_the_way[..., None], self.data.observations[index], self.hold)
        return plans, self.returns[which], *self.pairs(rng, batch_size)


class Pairs:
    """Pairs of states of one episode, a stride apart. ValueError if no episode is longer than the stride."""

    def __init__(self, data: Trajectories, stride: int):
        self.data, self.stride = data, stride
        self.first: IntArray = np.flatnonzero(stops(data) - np.arange(len(data)) > stride)
        if not len(self.first):
            raise ValueError(f"{data.name}: no episode is longer than the stride of {stride} steps")

    def __call__(self, rng: np.random.Generator, batch_size: int) -> Sparse:
        """States, the states a stride later, and actions, (B, PAIRS, columns) each."""
        s = self.first[rng.integers(len(self.first), size=(batch_size, PAIRS))]
        return self.data.observations[s], self.data.observations[s + self.stride], self.data.actions[s]
