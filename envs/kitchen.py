"""D4RL's kitchen as Gymnasium-Robotics has it: an arm that opens, moves and switches things.

Four things are to be done in any order; each is worth 1 when it is done, and nothing else is. Observations are those of
`FrankaKitchen-v1`, which differ from D4RL's own (59 columns with velocities, instead of 60 with the goal).
"""

from __future__ import annotations

from typing import Any

import gymnasium
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray


class StateAlone(gymnasium.ObservationWrapper, RecordConstructorArgs):
    """The entry `observation` of a Dict observation: what is to be done is the same in all episodes."""

    def __init__(self, env: gymnasium.Env):
        RecordConstructorArgs.__init__(self)
        gymnasium.ObservationWrapper.__init__(self, env)
        spaces: Any = env.observation_space
        self.observation_space = spaces["observation"]

    def observation(self, observation: Any) -> NDArray[Any]:
        """(59,): joints of the arm, then of the things, each with their velocities."""
        return observation["observation"]
