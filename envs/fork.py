"""`fork-v0`: a river that forks, with a short arm on which the current decides and a long one that is safe.

A boat drifts one step of the river at a time, from `START` to a landing at `GOAL`, and is rewarded by how near the landing
it is. Its rudder matters in the first step alone: above 0 the boat goes into the long arm, else into the short one. Nothing
that the agent does later changes where the boat goes.

- The short arm is straight and `SHORT` = 8 steps long. After `RAPIDS` = 4 of them the current sweeps the boat off its course
  with probability `hazard`: to the left or to the right, equally often, to a bank as far from the landing as the start.
- The long arm is half a circle and `LONG` = 13 steps long.

The reward is `1 - |boat - GOAL| / |START - GOAL|`, and an episode has `STEPS` = 20 steps. With rewards r that are sums along
fixed paths, the expected return is linear in the hazard p:

    short arm: (1 - p) * r(straight) + p * r(swept)        long arm: r(half a circle)

so that the best arm changes once, at `SWITCH = (r(straight) - r(half a circle)) / (r(straight) - r(swept))`, about 0.30.

What makes it hard is that the mean of the futures on the short arm is the straight way to the landing, whatever the hazard
is: left and right cancel. Whoever judges the mean future, or asks for a future that ends at the landing, or for the shortest
one that does, finds the short arm perfect. Only the mean of the rewards over the futures tells the arms apart.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

ENV_ID = "fork-v0"
STEPS, SHORT, LONG, RAPIDS = 20, 8, 13, 4
START, GOAL = np.array([0.0, 0.0]), np.array([8.0, 0.0])
ARMS = ("short", "long")


def _paths() -> dict[str, NDArray[np.float64]]:
    """Where the boat is after 0..SHORT or 0..LONG steps, (steps + 1, 2), on each course."""
    n, angle = np.arange(SHORT + 1.0), np.pi * np.arange(LONG + 1.0) / LONG
    swept = 2 * np.maximum(n - RAPIDS, 0)
    return {
        "short": np.stack([n, 0 * n], -1),
        "left": np.stack([n, swept], -1),
        "right": np.stack([n, -swept], -1),
        "long": np.stack([4 - 4 * np.cos(angle), 4 * np.sin(angle)], -1),
    }


PATHS = _paths()
"""Courses: the two arms, and the two ways in which the boat is swept off the short one. It rests at their ends."""


def place(course: str, steps: int) -> NDArray[np.float64]:
    """Where the boat is, (2,), after so many steps on a course, a key of `PATHS`."""
    path = PATHS[course]
    return path[min(steps, len(path) - 1)]


def reward(position: NDArray[np.float64]) -> float:
    """1 at the landing, 0 as far from it as the start."""
    return float(1 - np.linalg.norm(position - GOAL) / np.linalg.norm(START - GOAL))


def expected_return(arm: str, hazard: float) -> float:
    """The expected return of an episode whose first step leads into the arm, 'short' or 'long'."""
    if arm == "long":
        return _return("long")
    return (1 - hazard) * _return("short") + hazard * _return("left")  # as high on the right as on the left


def best_return(hazard: float) -> float:
    """The highest expected return."""
    return max(expected_return(arm, hazard) for arm in ARMS)


def _return(course: str) -> float:
    return sum(reward(place(course, step)) for step in range(1, STEPS + 1))


SWITCH = (_return("short") - _return("long")) / (_return("short") - _return("left"))
"""The hazard at which both arms are equally good: below it the short arm is better, above it the long one."""


class ForkEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """The river. Observation (3,): x, y and the hazard of this river, which is written on a sign. Action (1,): the rudder.

    `hazard` is in 0..1; None draws one, uniformly, at each reset. `reset` and `step` give the landing as `info["goal"]` (2,),
    of the columns x and y, and `step` the course as `info["course"]`. Raises ValueError for a hazard that is no probability.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  # Gymnasium's own form

    def __init__(self, hazard: float | None = None):
        if hazard is not None and not 0 <= hazard <= 1:
            raise ValueError(f"the hazard is a probability in 0..1, or None to draw it at each reset, got {hazard!r}")
        low, high = np.array([0, -8, 0], np.float32), np.array([8, 8, 1], np.float32)
        self.observation_space = spaces.Box(low, high, dtype=np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)
        self._setting = hazard

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The boat at the start, in front of the fork."""
        super().reset(seed=seed)
        self._hazard = float(self.np_random.uniform()) if self._setting is None else float(self._setting)
        self._course, self._steps = "short", 0
        return self._observation(), {"goal": GOAL.astype(np.float32)}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step down the river. It never terminates; Gymnasium's time limit truncates it after `STEPS` steps."""
        if self._steps == 0 and float(action[0]) > 0:
            self._course = "long"
        if self._steps == RAPIDS and self._course == "short" and self.np_random.uniform() < self._hazard:
            self._course = "left" if self.np_random.uniform() < 0.5 else "right"
        self._steps += 1
        gained = reward(place(self._course, self._steps))
        return self._observation(), gained, False, False, {"goal": GOAL.astype(np.float32), "course": self._course}

    def _observation(self) -> NDArray[np.float32]:
        return np.append(place(self._course, self._steps), self._hazard).astype(np.float32)


def record(episodes: int, seed: int, steps: int = STEPS) -> dict[str, NDArray[Any]]:
    """Recorded behavior: episodes of so many steps on rivers of all hazards, the rudder uniform in -1..1 at every step, so
    that half of them go into each arm.

    Flat arrays, as `dfplan.data.trajectories.Trajectories` has them: `observations` (N, 3), `actions` (N, 1), `rewards` (N,),
    `episode_starts` (episodes,) and `last_observations` (episodes, 3).
    """
    env, rng = ForkEnv(), np.random.default_rng(seed)
    rudder = rng.uniform(-1, 1, (episodes, steps, 1)).astype(np.float32)
    observations = np.empty((episodes, steps + 1, 3), np.float32)
    rewards = np.empty((episodes, steps), np.float32)
    for episode in range(episodes):
        observations[episode, 0], _ = env.reset(seed=int(rng.integers(2**31)))
        for step in range(steps):
            observations[episode, step + 1], rewards[episode, step], *_ = env.step(rudder[episode, step])
    return {
        "observations": observations[:, :-1].reshape(-1, 3),
        "actions": rudder.reshape(-1, 1),
        "rewards": rewards.ravel(),
        "episode_starts": np.arange(episodes, dtype=np.int64) * steps,
        "last_observations": observations[:, -1].copy(),
    }
