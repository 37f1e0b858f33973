"""OGBench's manipulation tasks (Park et al. 2025): what is observed of an arm with a gripper, which columns are a goal, and how
long each task is trained.

Scored by success. A goal is a whole observation, of which the positions of cubes, drawer and window and the buttons count.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplan.benchmarks.recipes.budget import Budget, budget_of
from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.features import register_features
from dfplan.data.spec import Spec
from dfplan.envs.registry import Task, short_name

JOINTS, ARM, CUBE, BUTTON = 12, 19, 9, 4
"""Columns of the arm's joints, of all of the arm (then effector's place, cosine and sine of its yaw, the gripper's opening
and contact), of each cube (place, quaternion, cosine and sine of its yaw), and of each button (off, on, depth, velocity)."""
GOALS = ARM - JOINTS
"""Where the goal's columns begin in what all the functions below return."""

SCALE, MIDDLE = 10.0, (0.425, 0.0, 0.0)
"""Places are observed in tenths of a meter, from the middle of the table."""
CLEARANCE = 0.6
"""Distance of a cube from another one's goal within which it is in the way, but not below it: cubes are 0.4 wide and high."""


@dataclass(frozen=True)
class Things:
    """What of a task's observation can be asked for."""

    features: str
    """Name of the function of observations."""
    groups: tuple[int, ...]
    """Goal columns of each thing."""
    within: tuple[float, ...]
    """Distance from its goal within which a thing is there: a little less than the task's own."""
    goal_within: int
    """Steps within which goals of training are reached: about what moving one thing takes, with what must be done before."""
    steps: int
    """Optimizer steps of the default recipe."""
    alike: tuple[tuple[int, ...], ...] = ()
    """Columns of each thing, where all are alike: they lie on one another, so that the lower goals come first."""
    kinds: tuple[int, ...] = ()
    """At how many kinds of places each thing rests, where some have to be moved before others."""
    temperature: float = 1.0
    """Of the plans' noise."""

    @property
    def goal(self) -> tuple[int, ...]:
        """Columns of the goal."""
        return tuple(range(GOALS, GOALS + sum(self.groups)))


def _cubes(count: int, steps: int) -> Things:
    places, rest = 7, 7 + 3 * count
    columns = [
        (*range(places + 3 * i, places + 3 * i + 3), *range(rest + 7 * i, rest + 7 * i + 7)) for i in range(count)
    ]
    alike = tuple(columns) if count > 1 else ()
    return Things("ogbench-cubes", (3,) * count, (0.3,) * count, 100 if count == 1 else 150, steps, alike)


THINGS = {
    "cube-single": _cubes(1, 6_000),
    "cube-double": _cubes(2, 6_000),
    "cube-triple": _cubes(3, 9_000),
    "scene": Things(
        "ogbench-scene", (3, 1, 1, 1, 1), (0.3, 0.6, 0.5, 0.5, 0.5), 120, 7_000, kinds=(2, 3, 3, 2, 2), temperature=0.5
    ),
    "puzzle-3x3": Things("ogbench-buttons", (1,) * 9, (0.5,) * 9, 100, 4_000, kinds=(2,) * 9),
}
"""By task. Of a scene: the cube, the drawer, the window, and the buttons last, because they lock the other two."""


@register_features("ogbench-cubes")
def cubes(observation: NDArray[Any]) -> NDArray[Any]:
    """(..., 19 + 9 n) -> (..., 7 + 10 n): the effector and the gripper; the cubes' places; of each cube its yaw, its place
    seen from the effector, and four times the angle between them, since a cube looks the same after a quarter turn.

    Joints and quaternions are left out: some of them hardly ever change, and then by much.
    """
    arm, rest = observation[..., JOINTS:ARM], observation[..., ARM:]
    each = rest.reshape(*rest.shape[:-1], -1, CUBE)
    return _joined(arm, _flat(each[..., :3]), _seen(arm, each))


@register_features("ogbench-scene")
def scene(observation: NDArray[Any]) -> NDArray[Any]:
    """(..., 40) -> (..., 25): the effector and the gripper; the cube's place, how far drawer and window are open, and which
    buttons are on; the cube as in `cubes`, the buttons' depths, and how far the handles of drawer and window are from the
    effector along their slides."""
    arm, cube = observation[..., JOINTS:ARM], observation[..., ARM : ARM + CUBE]
    buttons = observation[..., ARM + CUBE : ARM + CUBE + 2 * BUTTON]
    drawer, window = observation[..., -4, None], observation[..., -2, None]
    handles = [-2.4 - drawer / 1.8 - arm[..., 1, None], -1.39 + window / 1.5 - arm[..., 0, None]]
    on, depth = buttons[..., 1::BUTTON], buttons[..., 2::BUTTON]
    return _joined(arm, cube[..., :3], drawer, window, on, _seen(arm, cube[..., None, :]), depth, *handles)


@register_features("ogbench-buttons")
def buttons(observation: NDArray[Any]) -> NDArray[Any]:
    """(..., 19 + 4 n) -> (..., 7 + 2 n): the effector and the gripper; which buttons are on, and their depths."""
    rest = observation[..., ARM:]
    return _joined(observation[..., JOINTS:ARM], rest[..., 1::BUTTON], rest[..., 2::BUTTON])


def _seen(arm: NDArray[Any], each: NDArray[Any]) -> NDArray[Any]:
    """Of cubes (..., n, 9) the yaw, the place seen from the effector of an arm (..., 7), four times the angle: (..., 7 n)."""
    places, yaws = each[..., :3], each[..., -2:]
    angle = 4 * (np.arctan2(yaws[..., 1], yaws[..., 0]) - np.arctan2(arm[..., 4], arm[..., 3])[..., None])
    seen = [yaws, places - arm[..., None, :3], np.cos(angle)[..., None], np.sin(angle)[..., None]]
    return _flat(np.concatenate(seen, axis=-1))


def _flat(each: NDArray[Any]) -> NDArray[Any]:
    return each.reshape(*each.shape[:-2], -1)


def _joined(*parts: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(parts, axis=-1)


def places(task: Task, observations: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Of observations that the functions above gave: the effector, and the cubes where there are any, (..., 3) in meters."""
    columns = {"effector": 0}
    name = THINGS[short_name(task.data_id)].features
    cubes = {"ogbench-cubes": len(THINGS[short_name(task.data_id)].groups), "ogbench-scene": 1}.get(name, 0)
    columns |= {f"cube {i + 1}": GOALS + 3 * i for i in range(cubes)}
    return {name: observations[..., first : first + 3] / SCALE + MIDDLE for name, first in columns.items()}


def read(task: Task, source: str) -> Any:
    """The data of a task by its function of observations, with the columns that can be asked for as its goal."""
    from dfplan.data.readers import load  # late: torch takes seconds to import

    things = THINGS[short_name(task.data_id)]
    return load(source, features=things.features, goal=things.goal)


def budget(task: Task, spec: Spec | None = None) -> Budget:
    """Numbers of the recipes: a goal of several things is learned, and asked for, one thing at a time."""
    things = THINGS[short_name(task.data_id)]
    spec = Spec(GOALS + 2 * len(things.goal), 5, things.goal, longest=1001)
    own, several = budget_of(spec), len(things.groups) > 1
    model: dict[str, Any] = {
        "goal_within": things.goal_within,
        "goal_groups": things.groups if several else (),
        "alike": things.alike,
        "kinds": things.kinds,
    }
    acting: dict[str, Any] = {
        "in_turn": things.within if several else (),
        "lowest_first": bool(things.alike),
        "clearance": CLEARANCE if things.alike else 0.0,
        "plan": {"temperature": things.temperature},
    }
    return replace(
        own,
        steps={**own.steps, "chunks": things.steps, "sequence": 5_000, "offline": 10_000, "gciql": 30_000},
        model={
            **own.model,
            "chunks": model,
            "diffusion-policy": {"goal_within": things.goal_within},
            "bc": {"goal_columns": things.goal, "longest": things.goal_within},
        },
        acting={**own.acting, "chunks": acting},
        curve=0,
    )


SUITE = Suite(
    tasks=tuple(THINGS),
    rows=("diffusion-forcing", "diffusion-policy", "bc", "gciql", "random"),
    read=read,
    budget=budget,
    recipes={"default": "dfplan.benchmarks.recipes.diffusion_forcing:chunks"},
    places=places,
)
