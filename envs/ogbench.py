"""OGBench's manipulation environments (Park et al. 2025): an arm with a gripper, cubes, a drawer, a window, buttons.

The environments are the package's own, with its protocol: five tasks by `reset(options={"task_id": 1})`, a goal that is a
whole observation in `info["goal"]`, success from `step`, and an end of the episode at success.

Its 'play' data are collected by the package's own oracles, by the recipe of the published sets: an episode of 1001 steps in a
scene with random places, in which an oracle follows one plan after another, each to a random target, with smooth noise on
the plan. Nothing is reset between targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from dfplan.envs.numpys_generator import in_place_of_numpys
from dfplan.envs.registry import OGBENCH, Task
from dfplan.envs.shards import Arrays, Recipe, Recorder

EPISODE_STEPS = 1001
NOISE, NOISE_SMOOTHING = 0.1, 0.5
STACKING = {"cube-single": (0.0, 0.0), "cube-double": (0.0, 0.25), "cube-triple": (0.05, 0.35)}
"""Probability of a target on top of another cube: each episode has one of its own, uniform between these; elsewhere 0.5."""
_PARTS = {"cube": ("cube",), "scene": ("cube", "button", "drawer", "window"), "puzzle": ("button",)}


class SeededGoal(gymnasium.Wrapper, RecordConstructorArgs):
    """An OGBench environment in which a reset's seed decides about the goal too.

    The package takes two random steps before it observes the goal, with actions that no seed reaches: of the same seed, the
    cubes in the goal are at the same places and the arm is not.
    """

    def __init__(self, env: gymnasium.Env):
        RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        self._rng: np.random.Generator | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the package resets. A seed is also that of the task, where `options` name none."""
        env: Any = self.env.unwrapped
        if seed is not None or self._rng is None:
            self._rng = np.random.default_rng(seed)
        rng, step = self._rng, env.step
        if options is None or not {"task_id", "task_info"} & options.keys():
            options = {"task_id": int(rng.integers(1, env.num_tasks + 1)), **(options or {})}
        env.step = lambda action: step(rng.uniform(-1.0, 1.0, np.shape(action)))
        try:
            return self.env.reset(seed=seed, options=options)
        finally:
            del env.step


@dataclass(frozen=True)
class Play(Recipe):
    """Episodes of OGBench's oracles at play."""

    SHARD_STEPS: ClassVar[int] = 10 * EPISODE_STEPS
    BYTES_PER_STEP: ClassVar[int] = 500
    PACKAGES: ClassVar[tuple[str, ...]] = (*Recipe.PACKAGES, "ogbench")

    env_id: str
    """The environment."""
    steps: int
    """Number of steps to collect."""
    seed: int
    """Of scenes, targets and noise."""

    @classmethod
    def own(cls, task: Task, quick: bool) -> Self:
        """The recipe of a task's own data."""
        return cls(task.env_id, 1_000_000, seed=0)

    def collect(self, index: int, folder: Path) -> Arrays:
        """One shard: ten episodes. In a scene, those in which the cube gets out of sight are left out, as in the recipe."""
        seed, steps = self.shard_seed(index), self.shard_steps(index)
        with in_place_of_numpys(np.random.RandomState(seed.generate_state(4))):
            env = new_env(self.env_id)
            oracles = new_oracles(env)
            start: int | None = int(seed.generate_state(1)[0])
            episodes: list[Arrays] = []
            while left := steps - sum(len(episode["actions"]) for episode in episodes):
                episode, healthy = play(env, oracles, STACKING.get(self.env_id[:-3]), min(left, EPISODE_STEPS), start)
                start = None
                episodes += [episode] if healthy else []
            env.close()
        return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}

    ALGORITHM: ClassVar[str] = "OGBench's plan oracles"
    SOURCE: ClassVar[str] = "https://github.com/seohongpark/ogbench/blob/master/data_gen_scripts/generate_manipspace.py"

    def description(self, env_id: str) -> str:
        """Who acted, and what the rewards are."""
        return (
            f"Play data of {env_id}, collected by OGBench's recipe: its oracles move things to random targets, one after "
            "another. Rewards are all 0: the data belong to no task."
        )


def new_env(env_id: str) -> gymnasium.Env:
    """The environment in its mode for collection, in which no goal ends an episode."""
    OGBENCH.load(f"data of {env_id}")
    return gymnasium.make(
        env_id,
        terminate_at_goal=False,
        mode="data_collection",
        max_episode_steps=EPISODE_STEPS,
        disable_env_checker=True,
    )


def new_oracles(env: gymnasium.Env) -> dict[str, Any]:
    """Who acts for each kind of target."""
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    kinds: dict[str, Any] = {
        "cube": CubePlanOracle,
        "button": ButtonPlanOracle,
        "drawer": DrawerPlanOracle,
        "window": WindowPlanOracle,
    }
    assert env.spec is not None
    family = env.spec.id.split("-")[0]
    options = {"noise": NOISE, "noise_smoothing": NOISE_SMOOTHING}
    if family == "puzzle":
        options["gripper_always_closed"] = True
    return {part: kinds[part](env=env, **options) for part in _PARTS[family]}


def play(
    env: Any, oracles: dict[str, Any], stacking: tuple[float, float] | None, steps: int, seed: int | None
) -> tuple[Arrays, bool]:
    """One episode of so many steps, and whether the cube of a scene was in sight all the while."""
    observation, info = env.reset(seed=seed)
    chance = 0.5 if stacking is None else np.random.uniform(*stacking)
    oracle = oracles[info["privileged/target_task"]]
    oracle.reset(observation, info)
    recorder, goes_on, healthy, scene = Recorder(steps), True, True, "drawer" in oracles
    recorder.begin(observation)
    while goes_on:
        action = np.clip(np.asarray(oracle.select_action(observation, info)), -1.0, 1.0)
        observation, _, terminated, truncated, info = env.step(action)
        goes_on = recorder.step(action, observation, 0.0, terminated, truncated)
        healthy = healthy and not (scene and _out_of_sight(info["prev_qpos"][14:17]))
        if oracle.done:
            seen, about = env.unwrapped.set_new_target(p_stack=chance)
            oracle = oracles[about["privileged/target_task"]]
            oracle.reset(seen, about)
    return recorder.arrays(), healthy


def _out_of_sight(cube: np.ndarray) -> bool:
    """Whether a scene's cube is beyond the table's right side, or beyond its left side and not in the drawer."""
    _, y, z = cube
    return bool(y >= 0.29 or (y <= -0.3 and not 0.06 <= z <= 0.08))
