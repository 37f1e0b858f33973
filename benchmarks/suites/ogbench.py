"""OGBench's manipulation tasks (Park et al. 2025): what is observed of an arm with a gripper and cubes, and where goals stand.

Scored by success. A goal is a whole observation; what counts of it are the cubes' places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplan.benchmarks.suites.suite import Suite
from dfplan.data.features import register_features
from dfplan.envs.registry import Task, short_name

JOINTS, ARM, CUBE = 12, 19, 9
"""Columns of the arm's joints, of all of the arm (then effector's place, cosine and sine of its yaw, the gripper's opening
and contact), and of each cube (place, quaternion, cosine and sine of its yaw)."""
CUBES = {"cube-single": 1, "cube-double": 2, "cube-triple": 3}


@register_features("ogbench-cubes")
def cubes(observation: NDArray[Any]) -> NDArray[Any]:
    """(..., 19 + 9 n) -> (..., 7 + 10 n): the effector and the gripper; the cubes' places; of each cube its yaw, its place
    seen from the effector, and four times the angle between them, since a cube looks the same after a quarter turn.

    Joints and quaternions are left out: some of them hardly ever change, and then by much.
    """
    arm, rest = observation[..., JOINTS:ARM], observation[..., ARM:]
    each = rest.reshape(*rest.shape[:-1], -1, CUBE)
    places, yaws = each[..., :3], each[..., -2:]
    angle = 4 * (np.arctan2(yaws[..., 1], yaws[..., 0]) - np.arctan2(arm[..., 4], arm[..., 3])[..., None])
    seen = [yaws, places - arm[..., None, :3], np.cos(angle)[..., None], np.sin(angle)[..., None]]
    return np.concatenate(
        [arm, *(part.reshape(*rest.shape[:-1], -1) for part in (places, np.concatenate(seen, -1)))], -1
    )


def read(task: Task, source: str) -> Any:
    """The data of a task with cubes by `cubes`, with the cubes' places as goals; other data as they are recorded."""
    from dfplan.data.readers import load  # late: torch takes seconds to import

    count = CUBES.get(short_name(task.data_id))
    if count is None:
        return load(source)
    start = ARM - JOINTS
    return load(source, features="ogbench-cubes", goal=tuple(range(start, start + 3 * count)))


SUITE = Suite(tasks=(*CUBES, "scene", "puzzle-3x3"), read=read)
