"""Agents of the benchmark that are not trained and need no model: what the scores are to be compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import ArrayLike

from dfplan.envs.maze.expert import WaypointExpert
from dfplan.envs.registry import MazeTask, Task


class RandomAgent:
    """Uniform actions between two limits, numbers or arrays (act_dim,): what a score of about 0 means."""

    def __init__(self, action_dim: int = 2, low: ArrayLike = -1.0, high: ArrayLike = 1.0) -> None:
        self._action_dim, self._low, self._high = action_dim, np.asarray(low, float), np.asarray(high, float)
        self.reset()

    def reset(self, goal: np.ndarray | None = None, seed: int | None = None) -> None:
        """Begin episodes; the goal is not used. `seed` starts the random numbers anew."""
        self._rng = np.random.default_rng(seed)

    def act(self, observation: Any) -> np.ndarray:
        """Actions (act_dim,) for one observation (obs_dim,), (B, act_dim) for a batch; or for dictionaries of them."""
        first = next(iter(observation.values())) if isinstance(observation, Mapping) else observation
        shape = (*np.shape(first)[:-1], self._action_dim)
        return np.asarray(self._rng.uniform(self._low, self._high, size=shape), np.float32)


def expert(task: MazeTask) -> WaypointExpert:
    """The controller that made the data; it is given the maze's map."""
    return WaypointExpert(task.layout)


def random_actions(task: Task) -> RandomAgent:
    """Uniform actions within the limits of a task's actions."""
    env = task.make(disable_env_checker=True)
    space = env.action_space
    env.close()
    if not isinstance(space, Box):
        raise ValueError(f"the actions of {task.env_id} are {space}: expected a Box")
    return RandomAgent(space.shape[0], space.low.astype(float), space.high.astype(float))
