"""The registered tasks of all families, as data.

D4RL's maze ids mean exactly D4RL's tasks (its registrations in `d4rl/pointmaze/__init__.py`): layout, reward, fixed goal
and episode length. `multi2d-*` is the same maze with a new random goal each episode, under a name of its own. OGBench's
and Fetch's ids are those of their packages; those of OGBench's point mazes name the data too. Locomotion has ids of our
own, one for each data set, which end in `-own` because the data are not D4RL's; the environments are Gymnasium's. Kitchen
and Adroit are Gymnasium-Robotics', under ids that end in `-minari` and the version of the published data. The tasks of
`memory-swap` are one environment, whose observations are clean, corrupted or missing, with one data set of states and one of
pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import Any

import gymnasium
from gymnasium.envs.registration import register, registry

from dfplan.envs import fork
from dfplan.envs.maze.layouts import CUSTOM_ID, Layout, named
from dfplan.envs.packages import Package
from dfplan.names import unknown

OGBENCH = Package("ogbench", "ogbench>=1.2")
ROBOTICS = Package("gymnasium_robotics", "gymnasium-robotics>=1.4,<2")
_EPISODE_STEPS = {"open": 150, "umaze": 300, "medium": 600, "large": 800}
_MANIPULATION_STEPS = {"cube-single": 200, "cube-double": 500, "cube-triple": 1000, "scene": 750, "puzzle-3x3": 500}
POINT_MAZES = {
    f"pointmaze-{maze}-{data}-v0": maze
    for maze in ("medium", "large", "giant", "teleport")
    for data in ("navigate", "stitch")
}
"""OGBench's mazes by environment id."""
_WALKERS = {"hopper": "hopper_v5:HopperEnv", "walker2d": "walker2d_v5:Walker2dEnv"}
_RUNNERS = {"halfcheetah": "half_cheetah_v5:HalfCheetahEnv"}
CORRUPTED = 0.2
"""Share of the observations that are corrupted or missing in the tasks of that name."""
MEMORY_SWAPS: dict[str, dict[str, Any]] = {
    "memory-swap-v0": {},
    "memory-swap-corrupted-v0": {"corrupted": CORRUPTED},
    "memory-swap-missing-v0": {"corrupted": CORRUPTED, "told": True},
    "memory-swap-camera-v0": {"observe": "camera"},
    "memory-swap-camera-corrupted-v0": {"observe": "camera", "corrupted": CORRUPTED},
    "memory-swap-camera-missing-v0": {"observe": "camera", "corrupted": CORRUPTED, "told": True},
    "memory-swap-camera-distractor-v0": {"observe": "camera", "distractor": True},
}
"""Options of the environment by id."""
KITCHENS: dict[str, tuple[str, ...]] = {
    "complete": ("microwave", "kettle", "light switch", "slide cabinet"),
    "partial": ("microwave", "kettle", "bottom burner", "light switch"),
    "mixed": ("microwave", "kettle", "bottom burner", "light switch"),
}
"""Of D4RL's kitchen: what is to be done, by data set."""
HANDS = {"pen": 100, "hammer": 200, "door": 200, "relocate": 200}
"""Of D4RL's Adroit: steps of an episode, by task."""
HAND_LEVELS = ("human", "cloned", "expert")
"""The data sets of each of these."""
LEVELS = ("medium", "expert", "mixed")
"""Of locomotion's data: an agent in the middle of its training, at its end, and all that it was on the way."""


@dataclass(frozen=True)
class Task:
    """One environment, with what its benchmark protocol asks for."""

    env_id: str
    """Its id for `make`, with the version."""
    suite: str
    """The family of tasks that it belongs to: 'maze2d', 'ogbench', 'pointmaze', 'memory', 'locomotion', 'fetch', 'kitchen' or
    'adroit'."""
    data_id: str
    """Id of the task whose data and weights serve this one."""
    max_episode_steps: int
    """Steps after which an episode is truncated."""
    random_goal: bool = False
    """True: the goal changes between episodes. False: it is fixed, or there is none."""
    options: tuple[Mapping[str, Any], ...] = field(default=(), hash=False)
    """What the protocol gives to `reset(options=...)`, one after another; empty for nothing."""
    package: Package | None = None
    """The optional package that has the environment."""
    wrapper: str = ""
    """'module:class' of a wrapper around the package's environment; empty for none."""
    published: str = ""
    """Minari id of its data, where others published them; empty where dfplan collects them."""

    def make(self, **options: Any) -> gymnasium.Env:
        """The environment, by `make`."""
        return make(self.env_id, **options)


@dataclass(frozen=True, kw_only=True)
class MazeTask(Task):
    """A point mass in a maze."""

    maze: str
    """Name of the layout, a key of `dfplan.envs.maze.layouts.LAYOUTS`."""
    reward: str
    """'sparse' (1 within the goal's radius, else 0) or 'dense' (exp of minus the distance)."""

    @property
    def layout(self) -> Layout:
        """The maze."""
        return named(self.maze)


def _mazes() -> Iterator[MazeTask]:
    def of(name: str, maze: str, reward: str, random_goal: bool = False) -> MazeTask:
        steps, data_id = _EPISODE_STEPS[maze.removeprefix("eval-")], f"maze2d-{maze}-v{0 if maze == 'open' else 1}"
        return MazeTask(name, "maze2d", data_id, steps, random_goal, maze=maze, reward=reward)

    for maze in ("open", "umaze", "medium", "large", "eval-umaze", "eval-medium", "eval-large"):
        version = 0 if maze == "open" else 1
        yield of(f"maze2d-{maze}-v{version}", maze, "sparse")
        yield of(f"maze2d-{maze}-dense-v{version}", maze, "dense")
    for maze in ("umaze", "medium", "large"):
        yield of(f"multi2d-{maze}-v1", maze, "sparse", random_goal=True)


def _robots() -> Iterator[Task]:
    five_tasks = tuple({"task_id": number} for number in range(1, 6))
    for name, steps in _MANIPULATION_STEPS.items():
        wrapper = "dfplan.envs.ogbench:SeededGoal"
        yield Task(f"{name}-v0", "ogbench", f"{name}-v0", steps, True, five_tasks, OGBENCH, wrapper)
    for name in POINT_MAZES:
        yield Task(name, "pointmaze", name, 1000, True, five_tasks, OGBENCH, "dfplan.envs.ogbench_mazes:SeededMaze")
    for name, how in MEMORY_SWAPS.items():
        yield Task(name, "memory", f"memory-swap{'-camera' * ('observe' in how)}-v0", 200, package=OGBENCH)
    for body in (*_WALKERS, *_RUNNERS):
        for level in LEVELS:
            name = f"{body}-{level}-own-v0"
            yield Task(name, "locomotion", name, 1000)
    for name in ("FetchReach-v4", "FetchPush-v4"):
        yield Task(name, "fetch", name, 50, True, package=ROBOTICS)
    for level in KITCHENS:
        name, wrapper, data = f"kitchen-{level}-minari-v2", "dfplan.envs.kitchen:StateAlone", f"D4RL/kitchen/{level}-v2"
        yield Task(name, "kitchen", name, 280, package=ROBOTICS, wrapper=wrapper, published=data)
    for hand, steps in HANDS.items():
        for level in HAND_LEVELS:
            name = f"{hand}-{level}-minari-v2"
            yield Task(name, "adroit", name, steps, package=ROBOTICS, published=f"D4RL/{hand}/{level}-v2")


MAZES: dict[str, MazeTask] = {task.env_id: task for task in _mazes()}
TASKS: dict[str, Task] = {**MAZES, **{task.env_id: task for task in _robots()}}


def task(env_id: str) -> Task:
    """The task of an environment id; a KeyError that names the nearest ids if there is none."""
    if env_id not in TASKS:
        raise unknown("environment", env_id, TASKS)
    return TASKS[env_id]


def find(name: str) -> Task:
    """The task of an environment id with or without its version, in any case ('maze2d-large'); KeyError as in `task`."""
    lower = name.lower()
    known = (known for known in TASKS if lower in (known.lower(), short_name(known).lower()))
    return task(next(known, name))


def short_name(env_id: str) -> str:
    """An environment id without its version: 'maze2d-large' for 'maze2d-large-v1'."""
    return re.sub(r"-v\d+$", "", env_id)


def make(env_id: str, **options: Any) -> gymnasium.Env:
    """`gymnasium.make` for any id; of a task in `TASKS`, with its package loaded first and its wrapper around it.

    Raises ModuleNotFoundError, with one sentence that says how to install it, where that package is missing.
    """
    entry = TASKS.get(env_id)
    if entry is not None and entry.package is not None:
        entry.package.load(f"the environment {env_id}")
    env = gymnasium.make(env_id, **options)
    return resolve_name(entry.wrapper)(env) if entry is not None and entry.wrapper else env


def register_all() -> None:
    """Make every task that is not another package's known to `gymnasium.make`.

    Entry points are strings, so nothing heavy is imported.
    """
    entry_point = "dfplan.envs.maze.env:Maze2dEnv"
    for maze in MAZES.values():
        kwargs = {"maze": maze.maze, "reward": maze.reward, "random_goal": maze.random_goal}
        _register(maze.env_id, entry_point, maze.max_episode_steps, kwargs)
    _register(CUSTOM_ID, entry_point, _EPISODE_STEPS["large"], {"maze": None})  # the user passes layout="..."
    _register(fork.ENV_ID, "dfplan.envs.fork:ForkEnv", fork.STEPS, {})
    for name, maze_type in POINT_MAZES.items():
        kwargs = {"loco_env_type": "point", "maze_env_type": "maze", "maze_type": maze_type}
        _register(name, "ogbench.locomaze.maze:make_maze_env", 1000, kwargs)
    for name, kwargs in MEMORY_SWAPS.items():
        _register(name, "dfplan.envs.memory_swap:MemorySwapEnv", 200, kwargs)
    for level, done in KITCHENS.items():
        kwargs = {"tasks_to_complete": list(done)}
        _register(f"kitchen-{level}-minari-v2", "gymnasium_robotics.envs.franka_kitchen:KitchenEnv", 280, kwargs)
    for hand, steps in HANDS.items():
        entry_point = f"gymnasium_robotics.envs.adroit_hand:AdroitHand{hand.title()}Env"
        for level in HAND_LEVELS:
            _register(f"{hand}-{level}-minari-v2", entry_point, steps, {"reward_type": "dense"})
    for body, place in (_WALKERS | _RUNNERS).items():
        for level in LEVELS:
            _register(f"{body}-{level}-own-v0", f"gymnasium.envs.mujoco.{place}", 1000, {})


def _register(env_id: str, entry_point: str, steps: int, kwargs: dict[str, Any]) -> None:
    if env_id not in registry:
        register(env_id, entry_point, max_episode_steps=steps, kwargs=kwargs)
