"""Fetch's arm (gymnasium-robotics): scripted demonstrations of reaching and pushing, with noise.

An observation is a dict with a goal of its own key; a reward is 0 where the goal is reached and -1 elsewhere; nothing ends
an episode but its 50 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dfplan.envs.registry import Task, make
from dfplan.envs.shards import Arrays, Scripted, record

Floats = NDArray[np.float64]
_REACH = 0.05  # meters that the gripper moves by an action of 1
NOISE = {"FetchReach": 1.0, "FetchPush": 0.5}
"""Largest standard deviation of the noise on actions; each episode has one of its own, uniform from 0."""


@dataclass(frozen=True)
class Demonstrations(Scripted):
    """Episodes of a script with noise on its actions."""

    BYTES_PER_STEP: ClassVar[int] = 300
    PACKAGES: ClassVar[tuple[str, ...]] = (*Scripted.PACKAGES, "gymnasium-robotics")
    ALGORITHM: ClassVar[str] = "script with noise"
    SOURCE: ClassVar[str] = "https://robotics.farama.org/envs/fetch/"

    @classmethod
    def own(cls, task: Task, quick: bool) -> Self:
        """The recipe of a task's own data, which is small in any case."""
        return cls(task.env_id, NOISE[task.env_id.split("-")[0]], 100_000, seed=0)

    def collect(self, index: int, folder: Path) -> Arrays:
        """One shard: a hundred whole episodes."""
        seed = self.shard_seed(index)
        rng, script = np.random.default_rng(seed), reach if self.env_id.startswith("FetchReach") else push

        def actor() -> Callable[[Any], Any]:
            spread = rng.uniform(0.0, self.noise)
            return lambda seen: np.clip(script(seen) + rng.normal(0.0, spread, 4), -1.0, 1.0).astype(np.float32)

        return record(make(self.env_id), self.shard_steps(index), seed, actor)

    def description(self, env_id: str) -> str:
        """Who acted, and what the rewards are."""
        return (
            f"Scripted demonstrations in {env_id}. Noise on the actions has a standard deviation of its own in each "
            f"episode, uniform between 0 and {self.noise}."
        )


def reach(observation: Mapping[str, Floats]) -> Floats:
    """The action (4,) that moves the gripper towards the goal."""
    return _towards(observation["observation"][:3], observation["desired_goal"], gain=0.7)


def push(observation: Mapping[str, Floats]) -> Floats:
    """The action (4,) of a script that goes behind the block, down, and pushes it to its goal on the table."""
    gripper, block, goal = observation["observation"][:3], observation["observation"][3:6], observation["desired_goal"]
    way = goal[:2] - block[:2]
    distance = float(np.linalg.norm(way))
    if distance < 0.02:
        return np.array([0.0, 0.0, 0.5, 0.0])  # up, away from a block that has arrived
    way = way / distance
    offset = gripper[:2] - block[:2]
    along = float(offset @ way)
    aside = offset - along * way
    behind = block[:2] - 0.075 * way
    height = float(block[2])
    if -0.13 < along < -0.02 and np.linalg.norm(aside) < 0.02:
        if gripper[2] > height + 0.025:
            return _towards(gripper, np.array([*behind, height]))
        step = np.clip(distance, 0.01, 0.04) * way - aside
        return _towards(gripper, np.array([*(gripper[:2] + step), height]))
    if np.linalg.norm(gripper[:2] - behind) <= 0.02:
        return _towards(gripper, np.array([*behind, height]))
    if gripper[2] > height + 0.06:
        return _towards(gripper, np.array([*behind, height + 0.1]))
    return _towards(gripper, np.array([*gripper[:2], height + 0.12]))  # up first: the block may be in the way


def _towards(gripper: Floats, target: Floats, gain: float = 1.0) -> Floats:
    return np.array([*np.clip(gain * (target - gripper) / _REACH, -1.0, 1.0), 0.0])
