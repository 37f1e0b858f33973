"""D4RL's reference returns, and the score normalized by them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import ArrayLike

from dfplan.envs.real_arrays import real_array
from dfplan.names import unknown


@dataclass(frozen=True)
class Reference:
    """The two returns that a D4RL-normalized score calls 0 and 100, and the episode length they belong to."""

    min_return: float
    max_return: float
    max_episode_steps: int


@cache
def references() -> dict[str, Reference]:
    """All of them, by environment id; for locomotion, manipulation and kitchen by the id's first word."""
    table = json.loads(files("dfplan.envs").joinpath("reference.json").read_text(encoding="utf-8"))
    rows = table["values"].items()
    return {name: Reference(float(low), float(high), int(steps)) for name, (low, high, steps) in rows}


def reference(env_id: str) -> Reference:
    """The reference of an environment id, such as 'maze2d-large-v1' or 'hopper-medium-v2'.

    `multi2d-*` is normalized by the returns of `maze2d-*` in the same maze, as in Diffuser (Janner et al. 2022,
    Table 1). Raises KeyError, naming the nearest ids, for an unknown one.
    """
    table = references()
    family = env_id.split("-")[0]
    name = env_id.replace("multi2d-", "maze2d-", 1) if family == "multi2d" else env_id
    if name in table:
        return table[name]
    if family in table:
        return table[family]
    raise unknown("environment for a D4RL-normalized score", env_id, table)


def normalized_score(env_id: str, returns: ArrayLike) -> np.ndarray:
    """100 (R - min) / (max - min) of raw episode returns of any shape; float64 of the same shape.

    Meaningful on D4RL's own episode length only (`reference(env_id).max_episode_steps`). Not to be confused with the
    raw 'episode reward' that some papers print for the same tasks. Raises KeyError for an unknown id, ValueError for
    returns that are not finite numbers.
    """
    entry = reference(env_id)
    raw = real_array("returns are finite numbers", returns)
    return np.asarray(100.0 * (raw - entry.min_return) / (entry.max_return - entry.min_return))
