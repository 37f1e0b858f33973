"""Drive the expert through a maze by D4RL's recipe.

The recipe (D4RL's `generate_maze2d_datasets.py`, without noise): the waypoint expert drives to a random target, a
free cell's center +-0.1; when the target is reached, or the episode length has passed, a new target is drawn and the
particle drives on from where it is. The environment is never reset between targets. Rewards are the sparse ones of the
maze's own fixed goal, computed from the observation they stand beside, as in D4RL's relabeled files.

Two differences from D4RL: the data is made of independent shards, one long episode each, so that several processes can
make it and an interrupted collection can go on; and the first observation on the way to a new target is the current one
(D4RL writes the one before it a second time).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from dfplan.envs.maze.layouts import CUSTOM_ID, Layout, parse
from dfplan.envs.shards import About, Arrays, Recipe

SHARD_STEPS = 20_000
DEFAULT_STEPS = {"umaze": 1_000_000, "medium": 2_000_000, "large": 4_000_000}
"""D4RL's own sizes; any other maze gets a million."""


@dataclass(frozen=True)
class MazeRecipe(Recipe):
    """A maze, and how long the expert drives in it."""

    SHARD_STEPS: ClassVar[int] = SHARD_STEPS
    BYTES_PER_STEP: ClassVar[int] = 45

    layout: str
    """The maze, as text."""
    episode_steps: int
    """Steps after which a target is given up."""
    steps: int
    """Number of steps to collect, over all shards."""
    seed: int
    """Each shard has a seed of its own, which follows from this one and its index."""

    def collect(self, index: int, folder: Path) -> Arrays:
        """One shard: an episode that nothing terminates, with the expert's target at each observation in 'infos/goal'."""
        steps = self.shard_steps(index)
        arrays = drive(parse(self.layout), self.episode_steps, steps, self.shard_seed(index))
        ends = {"terminations": np.zeros(steps, dtype=bool), "truncations": np.arange(steps) == steps - 1}
        return {"infos/goal": arrays.pop("goals"), **arrays, **ends}

    ALGORITHM: ClassVar[str] = "waypoint expert"
    SOURCE: ClassVar[str] = (
        "https://github.com/Farama-Foundation/D4RL/blob/master/scripts/generation/generate_maze2d_datasets.py"
    )

    def description(self, env_id: str) -> str:
        """Who acted, and what the rewards are."""
        return (
            f"Data of {env_id}, collected by D4RL's recipe: a waypoint expert drives to random targets with no reset "
            f"between them. The rewards are sparse and belong to the fixed goal {parse(self.layout).goal.tolist()}."
        )

    def about(self, env_id: str) -> About:
        """As of any recipe, with the text of a maze that has no id of its own."""
        options = {"layout": self.layout} if env_id == CUSTOM_ID else {}
        return replace(super().about(env_id), options=options)

    def difference(self, name: str, found: object) -> str:
        """As of any recipe, in words for a maze."""
        if name == "layout":
            return "another layout"
        if name == "episode_steps":
            return f"targets given up after {found} steps instead of {self.episode_steps}"
        return super().difference(name, found)


def drive(layout: Layout, episode_steps: int, steps: int, seed: np.random.SeedSequence) -> dict[str, np.ndarray]:
    """Drive the expert for `steps` steps without a reset.

    Returns float32 arrays: observations (steps + 1, 4), actions (steps, 2), rewards (steps,), goals (steps + 1, 2).
    The action at t was chosen at, and executed from, the observation at t, on the way to the goal at t.
    """
    # MuJoCo is loaded by the processes that drive, not by the one that watches them.
    from dfplan.envs.maze.env import GOAL_RADIUS
    from dfplan.envs.maze.expert import Driver
    from dfplan.envs.maze.physics import PointMass

    rng = np.random.default_rng(seed)
    observations = np.empty((steps + 1, 4), dtype=np.float32)
    actions = np.empty((steps, 2), dtype=np.float32)
    goals = np.empty((steps + 1, 2), dtype=np.float32)
    physics, driver = PointMass(layout), Driver(layout, rng)
    cell, goal = layout.random_place(rng)
    _, (x, y) = layout.random_place(rng)
    vx, vy = rng.normal(0.0, 0.1, size=2).tolist()
    physics.set_state(x, y, vx, vy)
    age = 0
    for t in range(steps):
        ax, ay, reached = driver.act(x, y, vx, vy, cell)
        observations[t] = x, y, vx, vy
        actions[t] = ax, ay
        goals[t] = goal
        x, y, vx, vy = physics.step(ax, ay)
        age += 1
        if reached or age > episode_steps:
            cell, goal = layout.random_place(rng)
            age = 0
    observations[steps] = x, y, vx, vy
    goals[steps] = goal
    distance = np.linalg.norm(observations[:-1, :2] - layout.goal, axis=1)
    rewards = (distance <= GOAL_RADIUS).astype(np.float32)
    return {"observations": observations, "actions": actions, "rewards": rewards, "goals": goals}
