"""Agents in other libraries' loops. A plain Gymnasium loop needs no adapter: `agent.act(observation)`.

`Policy` has the `predict` that stable-baselines3's `evaluate_policy` calls, and drives Gymnasium's vector environments as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import ArrayLike, NDArray

from dfplan.agents.episodes import Player


def _rows(observation: Any) -> tuple[int, ...]:
    """Leading sizes of an observation: () of one, (B,) of a batch. A picture has three axes of its own, all else one."""
    while isinstance(observation, Mapping | tuple):
        observation = next(iter(observation.values() if isinstance(observation, Mapping) else observation))
    array = np.asarray(observation)
    return array.shape[: -3 if array.dtype == np.uint8 and array.ndim > 2 else -1]


class Policy:
    """An agent as a policy with memory: `predict(observation, state, episode_start)`.

    agent: needs `forget(rows, goal)` only where episodes of a batch end at different times.

    goal: (G,) for every episode, (B, G) for each row, or None: then dictionary observations must bring `desired_goal`
    (goal-conditioned environments), or the agent acts without a goal. seed: the agent's randomness from the first episode on.

    autoreset: what the first observation of an episode comes with. In 'SameStep', stable-baselines3's way, it comes with
    the end of the episode before. In 'NextStep', Gymnasium's default, an end comes with the old episode's last observation,
    and the first one a step later, whose action counts for nothing. Pass `envs.metadata["autoreset_mode"]`; then the
    loop is the same in both. ValueError for anything else.
    """

    def __init__(self, agent: Player, goal: ArrayLike | None = None, seed: int | None = 0, autoreset: Any = "SameStep"):
        try:
            self.autoreset = AutoresetMode(autoreset)
        except ValueError:
            modes = ", ".join(mode.value for mode in AutoresetMode)
            raise ValueError(f"autoreset must be one of Gymnasium's modes, {modes}, got {autoreset!r}") from None
        self.agent, self.seed = agent, seed
        self._goal = None if goal is None else np.asarray(goal, dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Call this after all environments were reset by hand: the next `predict` begins an episode in each row."""
        self._rows: tuple[int, ...] | None = None

    def predict(
        self,
        observation: NDArray[Any] | Mapping[str, NDArray[Any]],
        state: Any = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Actions (B, action_dim) for observations (B, observation_dim), or one for one; `state` is passed through.

        episode_start (B,): rows in which the step that gave these observations ended an episode, `terminated | truncated`
        in Gymnasium. At the first call all rows begin. Rows that begin are planned anew. `deterministic` has no effect: an
        agent's randomness comes from the seed.

        Raises ValueError for an `episode_start` of another length and for a row whose goal changes although no episode was to
        begin there, and TypeError if some but not all rows begin and the agent has no `forget`.
        """
        plain, goal = self._parts(observation)
        rows = _rows(plain)
        ended = np.zeros(rows, dtype=bool) if episode_start is None else np.asarray(episode_start, bool)
        if ended.size != int(np.prod(rows)):
            raise ValueError(f"episode_start must have one entry for each row, {rows or (1,)}, got {ended.shape}")
        ended = ended.reshape(rows)
        if rows != self._rows:
            self._rows, self._ended, begins = rows, np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool)
        elif self.autoreset == AutoresetMode.NEXT_STEP:
            begins, self._ended = self._ended, ended
        else:
            begins = ended
        if begins.all():
            self.agent.reset(goal, self.seed)
            self.seed = None  # one seed for the whole run: each further episode goes on with the same generator
        else:
            self._require_same_goals(goal, begins)
            if begins.any():
                self._begin_rows(np.flatnonzero(begins), goal)
        self._goals = None if goal is None else goal.copy()
        return self.agent.act(plain), state

    def _require_same_goals(self, goal: NDArray[np.float32] | None, begins: NDArray[np.bool_]) -> None:
        """A goal that changes shows an end that was not announced: the agent would go on with its old plan."""
        if goal is None or self._goals is None or goal is self._goal:
            return
        changed = (goal != self._goals).any(axis=-1) & ~begins
        if changed.any():
            raise ValueError(
                f"the goal of row {int(np.argmax(changed))} has changed, but episode_start did not announce a new episode "
                "there: pass `terminated | truncated` of each step, and "
                'Policy(..., autoreset=envs.metadata["autoreset_mode"]) for Gymnasium\'s vector environments'
            )

    def _parts(self, observation: NDArray[Any] | Mapping[str, NDArray[Any]]) -> tuple[Any, NDArray[np.float32] | None]:
        if getattr(getattr(self.agent, "features", None), "keys", ()):  # the agent reads a Dict or Tuple itself
            goal = observation.get("desired_goal") if isinstance(observation, Mapping) else None
            return observation, self._goal if goal is None else np.asarray(goal, dtype=np.float32)
        if not isinstance(observation, Mapping):
            return np.asarray(observation), self._goal
        missing = {"observation", "desired_goal"} - set(observation)
        if missing:
            raise ValueError(
                f"a dictionary observation needs 'observation' and 'desired_goal', {sorted(missing)} missing"
            )
        return np.asarray(observation["observation"]), np.asarray(observation["desired_goal"], dtype=np.float32)

    def _begin_rows(self, rows: NDArray[np.int64], goal: NDArray[np.float32] | None) -> None:
        forget = getattr(self.agent, "forget", None)
        if forget is None:
            raise TypeError(
                f"{type(self.agent).__name__} cannot begin an episode in some rows of a batch (it has no `forget`): "
                "use one environment, or environments whose episodes end together"
            )
        forget(rows, goal[rows] if goal is not None and goal.ndim == 2 else None)
