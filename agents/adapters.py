"""Agents in other libraries' loops. A plain Gymnasium loop needs no adapter: `agent.act(observation)`.

`Policy` has the `predict` that stable-baselines3's `evaluate_policy` calls, and drives Gymnasium's vector environments as well.
Nothing here imports those libraries.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfplan.agents.jumps import Jumps


class Agent(Protocol):
    """What an adapter needs of an agent; `forget` only where episodes of a batch end at different times."""

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Begin new episodes."""

    def act(self, observation: ArrayLike) -> NDArray[Any]:
        """The actions for observations."""


AUTORESETS = ("SameStep", "NextStep", "Disabled")
"""When a vector environment begins an episode after another has ended, by the names of Gymnasium's `AutoresetMode`."""


class Policy:
    """An agent as a policy with memory: `predict(observation, state, episode_start)`.

    goal: (G,) for every episode, (B, G) for each row, or None: then dictionary observations must bring `desired_goal`
    (goal-conditioned environments), or the agent acts without a goal. seed: the agent's randomness from the first episode on.

    autoreset: what the first observation of an episode comes with. In 'SameStep', stable-baselines3's way, it comes with
    the end of the episode before. In 'NextStep', Gymnasium's default, an end comes with the old episode's last observation,
    and the first one a step later, whose action counts for nothing. Pass `envs.metadata["autoreset_mode"]`; then the
    loop is the same in both. ValueError for anything else.
    """

    def __init__(self, agent: Agent, goal: ArrayLike | None = None, seed: int | None = 0, autoreset: Any = "SameStep"):
        mode = getattr(autoreset, "value", autoreset)  # Gymnasium's is an enum
        if mode not in AUTORESETS:
            expected = ", ".join(AUTORESETS)
            raise ValueError(f"autoreset must be one of {expected}, or of Gymnasium's AutoresetMode, got {autoreset!r}")
        self.agent, self.seed, self.autoreset = agent, seed, mode
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

        Warns, once, when a row moves as only a reset moves it, although no episode was to begin there. Raises ValueError
        for an `episode_start` of another length, and TypeError if some but not all rows begin and the agent has no `forget`.
        """
        plain, goal = self._parts(observation)
        rows = np.shape(plain)[:-1]
        ended = np.zeros(rows, dtype=bool) if episode_start is None else np.asarray(episode_start, bool)
        if ended.size != int(np.prod(rows)):
            raise ValueError(f"episode_start must have one entry for each row, {rows or (1,)}, got {ended.shape}")
        ended = ended.reshape(rows)
        if rows != self._rows:
            self._rows, self._ended, self._jumps = rows, np.zeros(rows, dtype=bool), Jumps()
            begins = np.ones(rows, dtype=bool)
        elif self.autoreset == "NextStep":
            begins, self._ended = self._ended, ended
        else:
            begins = ended
        self._look_for_jumps(observation, goal, begins)
        if begins.all():
            self.agent.reset(goal, self.seed)
            self.seed = None  # one seed for the whole run: each further episode goes on with the same generator
        elif begins.any():
            self._begin_rows(np.flatnonzero(begins), goal)
        return self.agent.act(plain), state

    def _look_for_jumps(
        self,
        observation: NDArray[Any] | Mapping[str, NDArray[Any]],
        goal: NDArray[np.float32] | None,
        begins: NDArray[np.bool_],
    ) -> None:
        """Warn of rows in which an episode began unannounced, judged by where they are, in the columns of the goal."""
        if goal is None or self._jumps.found or not begins.size:
            return
        width = goal.shape[-1]
        if isinstance(observation, Mapping):
            where, aim = observation.get("achieved_goal"), goal.reshape(-1, width)
        else:  # a goal that is a whole observation has velocities in it, and those may well jump
            given = np.asarray(observation)
            where, aim = given[..., :width] if width < given.shape[-1] else None, None
        if where is None:
            return
        jumped = self._jumps.look(np.asarray(where, dtype=np.float64).reshape(begins.size, -1), aim, begins.reshape(-1))
        if jumped.any():
            warnings.warn(
                f"row {int(np.argmax(jumped))} of the observations moved as only a new episode moves it, but episode_start "
                "did not announce one there, so that the agent goes on with its old plan: pass `terminated | truncated` of "
                'each step, and Policy(..., autoreset=envs.metadata["autoreset_mode"]) for Gymnasium\'s vector environments',
                stacklevel=3,
            )

    def _parts(
        self, observation: NDArray[Any] | Mapping[str, NDArray[Any]]
    ) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        if not isinstance(observation, Mapping):
            return np.asarray(observation), self._goal
        missing = {"observation", "desired_goal"} - set(observation)
        if missing:
            raise ValueError(f"a dictionary observation needs 'observation' and 'desired_goal', {sorted(missing)} missing")
        return np.asarray(observation["observation"]), np.asarray(observation["desired_goal"], dtype=np.float32)

    def _begin_rows(self, rows: NDArray[np.int64], goal: NDArray[np.float32] | None) -> None:
        forget = getattr(self.agent, "forget", None)
        if forget is None:
            raise TypeError(
                f"{type(self.agent).__name__} cannot begin an episode in some rows of a batch (it has no `forget`): "
                "use one environment, or environments whose episodes end together"
            )
        forget(rows, goal[rows] if goal is not None and goal.ndim == 2 else None)
