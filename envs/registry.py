"""The registered tasks, as data.

D4RL's ids mean exactly D4RL's tasks (its registrations in `d4rl/pointmaze/__init__.py`): layout, reward, fixed goal
and episode length. `multi2d-*` is the same maze with a new random goal each episode, under a name of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gymnasium.envs.registration import register, registry

from dfplan.envs import fork
from dfplan.envs.maze.layouts import Layout, named
from dfplan.names import unknown

CUSTOM_ID = "maze2d-custom-v1"
_EPISODE_STEPS = {"open": 150, "umaze": 300, "medium": 600, "large": 800}


@dataclass(frozen=True)
class Task:
    """One registered environment."""

    env_id: str
    """Its id for `gymnasium.make`, with the version."""
    maze: str
    """Name of the layout, a key of `dfplan.envs.maze.layouts.LAYOUTS`."""
    reward: str
    """'sparse' (1 within the goal's radius, else 0) or 'dense' (exp of minus the distance)."""
    max_episode_steps: int
    """Steps after which an episode is truncated; nothing else ends it."""
    random_goal: bool
    """True: a new goal at each reset (multi2d). False: the layout's fixed goal (maze2d)."""

    @property
    def layout(self) -> Layout:
        """The maze."""
        return named(self.maze)

    @property
    def data_id(self) -> str:
        """The id under which this maze's data is collected: one data set serves all tasks in the same maze."""
        return f"maze2d-{self.maze}-v{0 if self.maze == 'open' else 1}"


def _tasks() -> Iterable[Task]:
    for maze in ("open", "umaze", "medium", "large", "eval-umaze", "eval-medium", "eval-large"):
        steps = _EPISODE_STEPS[maze.removeprefix("eval-")]
        version = 0 if maze == "open" else 1
        yield Task(f"maze2d-{maze}-v{version}", maze, "sparse", steps, random_goal=False)
        yield Task(f"maze2d-{maze}-dense-v{version}", maze, "dense", steps, random_goal=False)
    for maze in ("umaze", "medium", "large"):
        yield Task(f"multi2d-{maze}-v1", maze, "sparse", _EPISODE_STEPS[maze], random_goal=True)


TASKS: dict[str, Task] = {task.env_id: task for task in _tasks()}


def task(env_id: str) -> Task:
    """The task of an environment id; a KeyError that names the nearest ids if there is none."""
    if env_id not in TASKS:
        raise unknown("environment", env_id, TASKS)
    return TASKS[env_id]


def find(name: str) -> Task:
    """The task of an environment id with or without its version ('maze2d-large'); KeyError as in `task`."""
    return task(next((known for known in (name, f"{name}-v1", f"{name}-v0") if known in TASKS), name))


def short_name(env_id: str) -> str:
    """An environment id without its version: 'maze2d-large' for 'maze2d-large-v1'."""
    return re.sub(r"-v\d+$", "", env_id)


def register_all() -> None:
    """Make every task known to `gymnasium.make`; entry points are strings, so nothing heavy is imported."""
    entry_point = "dfplan.envs.maze.env:Maze2dEnv"
    for entry in TASKS.values():
        if entry.env_id not in registry:
            kwargs = {"maze": entry.maze, "reward": entry.reward, "random_goal": entry.random_goal}
            register(entry.env_id, entry_point, max_episode_steps=entry.max_episode_steps, kwargs=kwargs)
    if fork.ENV_ID not in registry:
        register(fork.ENV_ID, "dfplan.envs.fork:ForkEnv", max_episode_steps=fork.STEPS)
    if CUSTOM_ID not in registry:  # the user passes layout="..."
        register(CUSTOM_ID, entry_point, max_episode_steps=_EPISODE_STEPS["large"], kwargs={"maze": None})
