"""Agents of the benchmark that are not trained and need no model: what the scores are to be compared with."""

from __future__ import annotations

import numpy as np

from dfplan.envs.maze.expert import WaypointExpert
from dfplan.envs.registry import Task


class RandomAgent:
    """Uniform actions in [-1, 1]: what a score of about 0 means."""

    def __init__(self, action_dim: int = 2) -> None:
        self._action_dim = action_dim
        self.reset()

    def reset(self, goal: np.ndarray | None = None, seed: int | None = None) -> None:
        """Begin episodes; the goal is not used. `seed` starts the random numbers anew."""
        self._rng = np.random.default_rng(seed)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions (act_dim,) for one observation (obs_dim,), (B, act_dim) for a batch."""
        shape = (*np.shape(observation)[:-1], self._action_dim)
        return self._rng.uniform(-1.0, 1.0, size=shape).astype(np.float32)


def expert(task: Task) -> WaypointExpert:
    """The controller that made the data; it is given the maze's map."""
    return WaypointExpert(task.layout)


def random_actions(task: Task) -> RandomAgent:
    """Uniform actions, the same in every task."""
    return RandomAgent()
