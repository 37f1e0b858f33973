"""Windows over the recorded ways to a rewarded place (Lu et al. 2025)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dfplan.data.trajectories import Trajectories, next_true, stops

PAIRS = 16
"""Pairs of states, a stride apart, that are drawn beside each window."""


class GoalPaths:
    """The ways to the goal in the data: windows of T states that begin at most a window's length before a rewarded step.

    The states of a window are `stride` steps apart. A way ends in the middle of its visit to the goal (a run of rewarded
    steps). The rest of its window is filled with `hold`, the mean of all rewarded states: the recorded behavior leaves the
    goal, but a plan should stay. Returns are of the reward minus one: the sum of -gamma^n over the n steps to the first
    rewarded one, scaled to [-1, 1]. No way goes on after the task has terminated.

    Raises ValueError if no step is rewarded or no episode is longer than `stride`.
    """

    def __init__(self, data: Trajectories, tokens: int, stride: int, discount: float):
        self.data, self.stride = data, stride
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
        self.pairs = np.flatnonzero(left > stride)
        if not len(self.pairs):
            raise ValueError(f"{data.name}: no episode is longer than the stride of {stride} steps")
        self.offsets = stride * np.arange(tokens)

    def sample(self, rng: np.random.Generator, batch_size: int) -> tuple[NDArray[np.float32], ...]:
        """Drawn uniformly with replacement, in recorded units.

        Windows (B, T, D) and their returns (B,) in [-1, 1]; and, from anywhere in the data, states (B, PAIRS, D), the states
        a stride later (B, PAIRS, D), and the actions taken in the former (B, PAIRS, A).
        """
        which = rng.integers(len(self.starts), size=batch_size)
        on_the_way = self.offsets <= self.kept[which, None]
        index = self.starts[which, None] + np.where(on_the_way, self.offsets, 0)
        plans = np.where(on_the_way[..., None], self.data.observations[index], self.hold)
        s = self.pairs[rng.integers(len(self.pairs), size=(batch_size, PAIRS))]
        data = self.data
        return plans, self.returns[which], data.observations[s], data.observations[s + self.stride], data.actions[s]
