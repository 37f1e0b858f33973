"""OGBench's point mazes (Park et al. 2025): a point moves through a maze of square cells. One maze has teleports.

The environments are the package's own, with its protocol: five tasks by `reset(options={"task_id": 1})`, noise on start and
goal, a goal that is a whole observation (x, y) in `info["goal"]`, and success from `step`, which ends the episode. A task's id
also names its data, as in the package: `pointmaze-large-stitch-v0` is `pointmaze-large-v0` with the data 'stitch'.

The data are collected by the recipe of the published sets. A guide, which is a script with the map, goes from cell to cell
along a shortest path, with noise on each action. For 'navigate' it goes to one random corner, crossing or dead end after
another. For 'stitch' it goes to a cell four cells from its start and stays there. Its path treats teleports as floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from dfplan.envs.numpys_generator import in_place_of_numpys
from dfplan.envs.registry import OGBENCH, Task, short_name
from dfplan.envs.shards import Arrays, Recipe, Recorder

NOISE = 0.5
"""Deviation of the noise on each of the guide's actions."""
EPISODES = {"navigate": (1000, 1001), "giant-navigate": (500, 2001), "stitch": (5000, 201)}
"""How many episodes the published sets have, and their steps."""
NEARBY = 4
"""Cells between the start and the goal of 'stitch'."""
SHARD_EPISODES = {201: 50, 1001: 10, 2001: 5}
_AROUND = ((-1, 0), (0, -1), (1, 0), (0, 1))

Cell = tuple[int, int]


class SeededMaze(gymnasium.Wrapper, RecordConstructorArgs):
    """An OGBench maze in which the seed of a reset determines the whole episode.

    The package draws the task, the noise on start and goal, and the exit of each teleport from NumPy's global generator. Here
    the environment has a generator of its own, which replaces that one while the package computes.
    """

    def __init__(self, env: gymnasium.Env):
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self._generator = np.random.RandomState()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the package resets. The seed also draws the task, unless `options` name one."""
        if seed is not None:
            self._generator = np.random.RandomState(np.random.SeedSequence(seed).generate_state(4))
        with in_place_of_numpys(self._generator):
            return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        """As the package steps."""
        with in_place_of_numpys(self._generator):
            return self.env.step(action)


@dataclass(frozen=True)
class Guided(Recipe):
    """Episodes of a guide that has the maze's map."""

    BYTES_PER_STEP: ClassVar[int] = 100
    PACKAGES: ClassVar[tuple[str, ...]] = (*Recipe.PACKAGES, "ogbench")

    data_id: str
    """The data, such as 'pointmaze-teleport-navigate-v0'."""
    steps: int
    """Number of steps to collect."""
    seed: int
    """Of places, noise and teleports."""

    @classmethod
    def own(cls, task: Task, quick: bool) -> Self:
        """The recipe of a task's own data."""
        count, steps = _episodes(task.data_id)
        return cls(task.data_id, count * steps, seed=0)

    @property
    def SHARD_STEPS(self) -> int:  # type: ignore[override]  # noqa: N802
        """Whole episodes, about 10,000 steps."""
        steps = _episodes(self.data_id)[1]
        return SHARD_EPISODES[steps] * steps

    def collect(self, index: int, folder: Path) -> Arrays:
        """One shard: a few episodes."""
        env, (_, steps) = new_env(self.data_id), _episodes(self.data_id)
        guide, episodes = Guide(env.unwrapped), []
        left, kind = self.shard_steps(index), short_name(self.data_id).split("-")[-1]
        seed = self.shard_seed(index)
        with in_place_of_numpys(np.random.RandomState(seed.generate_state(4))):
            first: int | None = int(seed.generate_state(1)[0])
            while left:
                episodes.append(guided(env, guide, kind, min(left, steps), first))
                left, first = left - len(episodes[-1]["actions"]), None
        env.close()
        return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}

    ALGORITHM: ClassVar[str] = "a guide that has the maze's map, with noise on its actions"
    SOURCE: ClassVar[str] = "https://github.com/seohongpark/ogbench/blob/master/data_gen_scripts/generate_locomaze.py"

    def description(self, env_id: str) -> str:
        """Who acted, and what the rewards are."""
        return (
            f"{short_name(env_id)}, collected by OGBench's recipe. Rewards are all 0: the data belong to no task. An "
            "observation is that before a teleport where the point is teleported, and the next one is beyond it."
        )


def _episodes(data_id: str) -> tuple[int, int]:
    """How many episodes a published set has, and their steps."""
    maze = short_name(data_id).removeprefix("pointmaze-")
    return EPISODES.get(maze) or EPISODES[maze.split("-")[-1]]


def new_env(data_id: str) -> gymnasium.Env:
    """The environment in its mode for collection, in which no goal ends an episode."""
    OGBENCH.load(f"data of {data_id}")
    steps = _episodes(data_id)[1]
    return gymnasium.make(data_id, terminate_at_goal=False, max_episode_steps=steps, disable_env_checker=True)


class Guide:
    """The way from each cell to each other one, as OGBench's environment gives it, and the noise around it."""

    def __init__(self, env: Any):
        self.env = env
        self.towards = cache(self._towards)
        """The center (2,) of the cell after one cell on the way to another; its own where no way leads there."""
        free = [(int(i), int(j)) for i, j in np.argwhere(env.maze_map == 0)]
        self.cells: list[Cell] = free
        """All free cells."""
        self.corners: list[Cell] = [cell for cell in free if not self._is_hallway(cell)]
        """Free cells that are no straight hallway."""

    def action(self, goal: Cell) -> np.ndarray:
        """A noisy step (2,) on the way from where the point is to a cell."""
        place = self.env.get_xy()
        way = self.towards(self.env.xy_to_ij(place), goal) - place
        action = way / (np.linalg.norm(way) + 1e-6) + np.random.normal(0, NOISE, 2)
        return np.clip(action, -1, 1).astype(np.float32)

    def nearby(self, cell: Cell) -> list[Cell]:
        """Cells `NEARBY` steps from one; itself where there are none."""
        away = self._distances(cell)
        return [(int(i), int(j)) for i, j in np.argwhere(away == NEARBY)] or [cell]

    def _towards(self, cell: Cell, goal: Cell) -> np.ndarray:
        return np.array(self.env.get_oracle_subgoal(self.env.ij_to_xy(cell), self.env.ij_to_xy(goal))[0])

    def _distances(self, cell: Cell) -> np.ndarray:
        place = self.env.ij_to_xy(cell)
        return np.asarray(self.env.get_oracle_subgoal(place, place)[1])

    def _is_hallway(self, cell: Cell) -> bool:
        up, left, down, right = (bool(self.env.maze_map[cell[0] + i, cell[1] + j]) for i, j in _AROUND)
        return (up, down, left, right) in ((False, False, True, True), (True, True, False, False))


def guided(env: gymnasium.Env, guide: Guide, kind: str, steps: int, seed: int | None) -> Arrays:
    """One episode of so many steps, of the data 'navigate' or 'stitch'."""
    maze: Any = env.unwrapped
    start = _one_of(guide.cells)
    goal = _one_of(guide.corners) if kind == "navigate" else _one_of(guide.nearby(start))
    observation, _ = env.reset(seed=seed, options={"task_info": {"init_ij": start, "goal_ij": goal}})
    recorder, goes_on = Recorder(steps), True
    recorder.begin(observation)
    while goes_on:
        action = guide.action(goal)
        observation, _, terminated, truncated, info = env.step(action)
        goes_on = recorder.step(action, observation, 0.0, terminated, truncated)
        if info["success"] and kind == "navigate":
            goal = _one_of(guide.corners)
            maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(goal)))
    return recorder.arrays()


def _one_of(cells: list[Cell]) -> Cell:
    return cells[np.random.randint(len(cells))]
