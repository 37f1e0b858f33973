"""MPPI, model predictive path integral control (Williams et al. 2017, Algorithm 1): plan, act by the first control, plan again.

How a plan is made is in `dfplan.planning.path_integral`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dfplan.agents.base import Agent, LearningAgent, require_finite
from dfplan.arrays import Shape
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.planning.path_integral import Array, Cost, GoalCost, MPPIConfig, Rollout, improve
from dfplan.planning.plan import Plan


class MPPIAgent(Agent):
    """Acts by the first control of a sequence U, which is improved and then shifted every `hold` steps; each row has its own.

    An agent that is made of dynamics and a cost has no weights. `last_plan` is the best sample of the last plan.
    """

    config: MPPIConfig
    rollout: Rollout
    last_plan: Plan | None
    execution = "sampled controls"
    _dtype = np.float64

    def __init__(self, rollout: Rollout, cost: Cost, config: MPPIConfig, card: Mapping[str, Any] | None = None):
        self.rollout, self.cost = rollout, cost
        super().__init__(config, card)

    def _seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def _begin(self) -> None:
        self._controls: Array | None = None  # U, (B, T, A)
        self._clock, self.last_plan = 0, None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        """Their sequences begin at zero, which is played until the batch's next plan, less than `hold` steps later."""
        if self._controls is not None:
            self._controls[rows] = 0.0

    def _with(self, config: MPPIConfig) -> Self:
        return type(self)(self.rollout, self.cost, config, self.card)

    def _act(self, batch: Array, goals: Array | None) -> Array:
        config, U = self.config, self._controls
        if U is None:
            U = np.zeros((len(batch), config.controls, config.action_dim))
        if self._clock % config.hold == 0:
            if self._clock:
                U = np.concatenate([U[:, 1:], np.zeros_like(U[:, :1])], axis=1)
            U, self.last_plan = improve(self.rollout, self.cost, batch, goals, U, config, self._rng)
            require_finite("plan", U)
        self._controls = U
        self._clock += 1
        return U[:, 0]


class LearnedMPPIAgent(MPPIAgent, LearningAgent):
    """The same agent in learned dynamics, between the lowest and the highest recorded actions.

    Without a `cost` it minimizes the Euclidean distance to the goal, and needs one.
    """

    kind = "dynamics"
    learner_class, learner_config_class, config_class = DynamicsModel, DynamicsConfig, MPPIConfig
    execution = "sampled controls in learned dynamics"
    learning_rate = 1e-3

    def __init__(
        self,
        learner: DynamicsModel,
        config: MPPIConfig | None = None,
        card: Mapping[str, Any] | None = None,
        cost: Cost | None = None,
    ):
        A, columns = learner.config.action_dim, learner.config.goal_columns
        config = config or MPPIConfig(A)
        if config.action_dim != A:
            raise ValueError(f"controls must have {A} components, as the recorded actions, got {config.action_dim}")
        self.cost, self.goal_dim = cost or GoalCost(columns=columns), len(columns) or None
        LearningAgent.__init__(self, learner, config, card)

    def rollout(self, states: Array, controls: Array) -> Array:
        """The states (N, S, D) that follow each control (N, S, A), from states (N, D)."""
        return self.learner.rollout(states, self._action(controls))

    def _action(self, controls: Array) -> Array:
        """Recorded units: a control of -1 is the lowest recorded action, 1 the highest."""
        low, high = (limit.cpu().numpy() for limit in (self.learner.action_low, self.learner.action_high))
        return (low + high) / 2 + controls * (high - low) / 2

    def _act(self, batch: Array, goals: Array | None) -> Array:
        return self._action(super()._act(batch, goals))

    @classmethod
    def load(cls, path: str | Path, cost: Cost | None = None) -> Self:
        """The agent of a file written by `save`, with this cost, which is not in the file. CheckpointError for other files."""
        agent = super().load(path)
        agent.cost = cost or agent.cost
        return agent

    def _seed(self, seed: int) -> None:
        MPPIAgent._seed(self, seed)
        LearningAgent._seed(self, seed)

    def _with(self, config: MPPIConfig) -> Self:
        return type(self)(self.learner, config, self.card, self.cost).seeing(self.encoder)

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """Two observations, one step apart, and the actions at them, of which the first is learned from."""
        config = self.learner.config
        return {"observations": ("B", 2, config.observation_dim), "actions": ("B", 2, config.action_dim)}
