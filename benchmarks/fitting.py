"""Whether an agent's spaces are those of the environment that it is to play in.

An agent that learned elsewhere may say so by `action_space` and `observation_space`. Played in another space it would be
scored in silence on something that it never learned: a model of actions from 0 to 1 can only ever push one way.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

import dfplan.envs  # noqa: F401 (registers the environments)


def require_fit(agent: Any, env_id: str, name: str) -> None:
    """Compare an agent, which messages call `name`, with an environment; what the agent does not have is not compared.

    Actions must have the same shape and limits, observations the same shapes; observations that are a dictionary are
    compared with those of the goal-conditioned environment. Raises ValueError, with one sentence, where they differ.
    """
    theirs = {part: getattr(agent, f"{part}_space", None) for part in ("action", "observation")}
    if theirs == {"action": None, "observation": None}:
        return
    conditioned = {"goal_conditioned": True} if isinstance(theirs["observation"], Dict) else {}
    env = gymnasium.make(env_id, disable_env_checker=True, **conditioned)
    ours = {"action": env.action_space, "observation": env.observation_space}
    env.close()
    for part, space in theirs.items():
        there, here = _described(space, part), _described(ours[part], part)
        if space is not None and there != here:
            raise ValueError(f"{name} does not fit {env_id}: its {part}s are {there}, and the environment's are {here}")


def _described(space: Any, part: str) -> str:
    """What of a space must be equal, in words: 'vectors of 2 numbers from -1 to 1'."""
    if isinstance(space, Dict):
        parts = (f"{key} ({_described(inner, part)})" for key, inner in sorted(space.spaces.items()))
        return f"a dictionary of {', '.join(parts)}"
    if not isinstance(space, Box):
        return repr(space)
    size = f"vectors of {space.shape[0]} numbers" if len(space.shape) == 1 else f"arrays of shape {space.shape}"
    return f"{size} from {_limit(space.low)} to {_limit(space.high)}" if part == "action" else size


def _limit(values: np.ndarray) -> str:
    """A limit that all numbers share, or each one's, to six digits."""
    shown = [f"{value:.6g}" for value in values.ravel()]
    return shown[0] if len(set(shown)) == 1 else f"({', '.join(shown)})"
