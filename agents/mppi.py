"""Model predictive path integral control: plan by a weighted average of sampled futures, again and again.

Williams et al. 2017, *Information Theoretic MPC for Model-Based Reinforcement Learning*, Algorithms 1 and 2. The dynamics and
the cost are functions that the agent is given, and may hold a simulator, a map or learned weights. Not to be confused with
the cross-entropy method, which averages the best samples alike and adapts Sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dfplan.agents.base import Agent, LearningAgent
from dfplan.arrays import Shape
from dfplan.fields import NotNegative, Positive, PositiveOrInf, Size, check_fields
from dfplan.planning.dynamics import DynamicsConfig, DynamicsModel
from dfplan.planning.plan import Plan

Array = NDArray[np.float64]
Rollout = Callable[[Array, Array], Array]
"""States (N, D) and actions (N, S, A) to the states (N, S, D) that follow each action."""
Cost = Callable[[Array, Array], Array]
"""States (B, K, S, D) and goals (B, G) to costs (B, K): the paper's S(E), without its control cost."""
Distance = Callable[[Array, Array], Array]
"""Points (B, K, S, G) and goals (B, G) to distances (B, K, S)."""


@dataclass(frozen=True)
class MPPIConfig:
    samples: Size = 128
    """K: sampled control sequences a plan."""
    controls: Size = 12
    """T: controls of a plan."""
    hold: Size = 4
    """Environment steps for which one control is held; a new plan is made when the first control of the last one is over."""
    sigma: Positive = 1.0
    """Standard deviation of the noise on a control; Sigma = sigma^2 I."""
    temperature: Positive = 0.1
    """lambda, in units of the cost: how much worse a sample may be and still count."""
    gamma: NotNegative = 0.0
    """Weight of the control cost u^T Sigma^-1 epsilon; 0 lets the cost alone decide."""
    limit: PositiveOrInf = 1.0
    """Controls are clipped to [-limit, limit]."""
    action_dim: Size = 2
    """Components of a control."""

    def __post_init__(self) -> None:
        check_fields(self)


def euclidean(points: Array, goals: Array) -> Array:
    """Straight distances (B, K, S) of points (B, K, S, G) to goals (B, G): a wall between them is not seen."""
    return np.asarray(np.linalg.norm(points - goals[:, None, None], axis=-1))


@dataclass(frozen=True)
class GoalCost:
    """Sum over a future's steps of how far beyond ``arrival`` the goal still is: reach it soon, then stay.

    The first G entries of a state are compared with the goal. ``distance`` may be another one than the Euclidean, such as
    the length of the shortest way through a maze.
    """

    distance: Distance = euclidean
    arrival: float = 0.0
    """Distance from which on a state costs nothing."""

    def __call__(self, states: Array, goals: Array) -> Array:
        distance = self.distance(states[..., : goals.shape[-1]], goals)
        return np.maximum(distance - self.arrival, 0.0).sum(axis=-1)


def plan_of(path: Array, best_cost: Array) -> Plan:
    """A plan of the states (B, S + 1, D) of the best sample, the present one first; its score is its cost (B,)."""
    B, S = len(path), path.shape[1] - 1
    observations, costs = torch.from_numpy(path[:, :, None]), torch.from_numpy(best_cost)
    return Plan(observations, torch.full((B,), S), torch.zeros(B, S + 1, dtype=torch.int64), scores={"cost": costs})


class MPPIAgent(Agent):
    """Acts by the first control of a sequence U that each decision improves: u += sum_k w_k epsilon_k, then shifts.

    One agent may drive a batch of environments: observations (B, D), and every row has a sequence of its own. The mean is
    taken of clipped controls, so that it keeps the limits; the first sample is U itself, without noise.
    """

    def __init__(
        self, rollout: Rollout, cost: Cost, config: MPPIConfig | None = None, card: dict[str, Any] | None = None
    ) -> None:
        self.rollout, self.cost = rollout, cost
        super().__init__(config or MPPIConfig(), card)

    config: MPPIConfig
    execution = "sampled controls"
    _dtype = np.float64

    def _seed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def _begin(self) -> None:
        self._controls: Array | None = None  # U, (B, T, A)
        self._clock = 0
        self.last_plan: Plan | None = None

    def _begin_rows(self, rows: NDArray[np.intp]) -> None:
        """Their sequences begin at zero. They follow that zero until the batch's next plan, less than ``hold`` steps later."""
        if self._controls is not None:
            self._controls[rows] = 0.0

    def _with(self, config: MPPIConfig) -> Self:
        return type(self)(self.rollout, self.cost, config, self.card)

    def _act(self, batch: Array, goals: Array | None) -> Array:
        if self._controls is None:
            self._controls = np.zeros((len(batch), self.config.controls, self.config.action_dim))
        if self._clock % self.config.hold == 0:
            controls = self._controls
            if self._clock:
                controls = np.concatenate([controls[:, 1:], np.zeros_like(controls[:, :1])], axis=1)
            controls = self.improve(batch, controls)
            self._finite("plan", controls)
            self._controls = controls
        self._clock += 1
        return self._controls[:, 0]

    def improve(self, states: Array, controls: Array) -> Array:
        """One path integral update of control sequences U (B, T, A) from states (B, D): the same U, improved.

        A sample whose states or cost are NaN or infinite has no weight. Raises ValueError for a row without any other,
        and for a cost that is not (B, K).
        """
        config, (B, T, A) = self.config, controls.shape
        goals = self._goals(self._goal, B)
        if goals is None:
            raise ValueError("this planner needs a goal: call reset(goal=...) before it acts")
        K, S = config.samples, T * config.hold
        noise = config.sigma * self._rng.standard_normal((B, K, T, A))
        noise[:, 0] = 0.0
        tried = np.clip(controls[:, None] + noise, -config.limit, config.limit)
        held = np.repeat(tried, config.hold, axis=2).reshape(B * K, S, A)
        futures = self.rollout(np.repeat(states, K, axis=0), held).reshape(B, K, S, -1)
        cost = self.cost(futures, goals)
        if np.shape(cost) != (B, K):
            raise ValueError(f"a cost of {K} samples for {B} states must be {(B, K)}, got {np.shape(cost)}")
        if config.gamma:
            cost = cost + config.gamma / config.sigma**2 * np.einsum("bta,bkta->bk", controls, noise)
        cost = np.where(np.isfinite(cost) & np.isfinite(futures).all(axis=(2, 3)), cost, np.inf)
        if np.isinf(cost).all(axis=1).any():
            raise ValueError(f"none of the {K} sampled futures is finite: the dynamics, the cost or the start are out of range")
        best = cost.argmin(axis=1)
        weight = np.exp((cost.min(axis=1, keepdims=True) - cost) / config.temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        path = np.concatenate([states[:, None], futures[np.arange(B), best]], axis=1)
        self.last_plan = plan_of(path, best_cost=cost.min(axis=1))
        return np.einsum("bk,bkta->bta", weight, tried)


class LearnedMPPIAgent(MPPIAgent, LearningAgent):
    """The same agent in learned dynamics. Without a ``cost`` it minimises the Euclidean distance to the goal."""

    def __init__(
        self,
        learner: DynamicsModel,
        config: MPPIConfig | None = None,
        card: dict[str, Any] | None = None,
        cost: Cost | None = None,
    ) -> None:
        self.rollout, self.cost = learner.rollout, cost or GoalCost()
        dim = learner.config.observation_dim
        LearningAgent.__init__(self, learner, config or MPPIConfig(), card, observation_dim=dim)

    execution = "sampled controls in learned dynamics"
    learning_rate = 1e-3
    kind = "dynamics"
    learner_class, learner_config_class, config_class = DynamicsModel, DynamicsConfig, MPPIConfig

    def _seed(self, seed: int) -> None:
        MPPIAgent._seed(self, seed)
        LearningAgent._seed(self, seed)

    def _with(self, config: MPPIConfig) -> Self:
        return type(self)(self.learner, config, self.card, self.cost)

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """Two observations, one step apart, and the actions at them, of which the first is learned from."""
        config = self.learner.config
        return {"observations": ("B", 2, config.observation_dim), "actions": ("B", 2, config.action_dim)}

    @classmethod
    def load(cls, path: str | Path, cost: Cost | None = None) -> Self:
        """The agent of a file written by `save`, with this cost: it is not in the file. CheckpointError for other files."""
        agent = super().load(path)
        agent.cost = cost or agent.cost
        return agent
