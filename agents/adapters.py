"""The faces of an agent for other libraries' loops, in one place. A plain Gymnasium loop needs none: ``agent.act(obs)``.

`Policy` is what stable-baselines3's ``evaluate_policy`` asks of a model (``predict``), and drives Gymnasium's vector
environments as well. Nothing here imports those libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Agent(Protocol):
    """What an adapter asks of an agent; `forget` only where episodes of a batch end at different times."""

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None: ...

    def act(self, observation: ArrayLike) -> NDArray[Any]: ...


class Policy:
    """An agent as a policy with memory: ``predict(observation, state, episode_start)``.

    goal: (G,) for every episode, (B, G) for each row, or None: then dictionary observations must bring ``desired_goal``
    (goal-conditioned environments), or the agent acts without a goal. seed: the agent's randomness from the first episode on.
    """

    def __init__(self, agent: Agent, goal: ArrayLike | None = None, seed: int | None = 0):
        self.agent, self.seed = agent, seed
        self._goal = None if goal is None else np.asarray(goal, dtype=np.float32)
        self._rows: tuple[int, ...] | None = None

    def predict(
        self,
        observation: NDArray[Any] | Mapping[str, NDArray[Any]],
        state: Any = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = True,
    ) -> tuple[NDArray[Any], Any]:
        """Actions (B, action_dim) for observations (B, observation_dim), or one for one; ``state`` is passed through.

        episode_start (B,) marks rows whose episode begins now: they are planned anew. ``deterministic`` is accepted for the
        face's sake; an agent's randomness comes from the seed. Raises TypeError if some but not all rows begin anew and the
        agent cannot forget single rows.
        """
        plain, goal = self._parts(observation)
        rows = np.shape(plain)[:-1]
        begins = np.zeros(rows, dtype=bool) if episode_start is None else np.asarray(episode_start, bool).reshape(rows)
        if rows != self._rows or begins.all():
            self._rows = rows
            self.agent.reset(goal, self.seed)
            self.seed = None  # one seed for the whole run: each further episode goes on with the same generator
        elif begins.any():
            self._begin_rows(np.flatnonzero(begins), goal)
        return self.agent.act(plain), state

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
