"""Model predictive path integral control: plan by a weighted average of sampled futures, again and again.

Williams et al. 2017, *Information Theoretic MPC for Model-Based Reinforcement Learning*, Algorithms 1 and 2. The agent
is given a model of the dynamics and a cost, as functions; what they know (a simulator, a map, learned weights) is what
it knows. Not to be confused with the cross-entropy method, which averages the best samples alike and adapts Sigma.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from dfplan.checkpoint import CheckpointError, load_checkpoint, load_into, save_checkpoint
from dfplan.dynamics_model import DynamicsConfig, DynamicsModel
from dfplan.fields import Count, NotNegative, Positive, PositiveOrInf, check_fields

Array = NDArray[np.float64]
Rollout = Callable[[Array, Array], Array]
"""States (N, D) and actions (N, S, A) to the states (N, S, D) that follow each action."""
Cost = Callable[[Array, Array], Array]
"""States (B, K, S, D) and goals (B, G) to costs (B, K): the paper's S(E), without its control cost."""
Distance = Callable[[Array, Array], Array]
"""Points (B, K, S, G) and goals (B, G) to distances (B, K, S)."""


@dataclass(frozen=True)
class MPPIConfig:
    samples: Count = 128
    """K: sampled control sequences a plan."""
    controls: Count = 12
    """T: controls of a plan."""
    hold: Count = 4
    """Environment steps for which one control is held; a new plan is made when the first control of the last one is over."""
    sigma: Positive = 1.0
    """Standard deviation of the noise on a control; Sigma = sigma^2 I."""
    temperature: Positive = 0.1
    """lambda, in units of the cost: how much worse a sample may be and still count."""
    gamma: NotNegative = 0.0
    """Weight of the control cost u^T Sigma^-1 epsilon; 0 lets the cost alone decide."""
    limit: PositiveOrInf = 1.0
    """Controls are clipped to [-limit, limit]."""
    action_dim: Count = 2
    """Components of a control."""

    def __post_init__(self) -> None:
        check_fields(self)

    def to_header(self) -> dict[str, Any]:
        """Plain JSON values; ``MPPIConfig(**header)`` gives the same config back."""
        return dataclasses.asdict(self)


class SampledPlan(NamedTuple):
    """The best sample of a plan, for pictures."""

    observations: Array
    """(B, S + 1, 1, D): its states, the present one first."""
    lengths: NDArray[np.int64]
    """(B,) S each."""


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


class MPPIAgent:
    """Acts by the first control of a sequence U that each decision improves: u += sum_k w_k epsilon_k, then shifts.

    One agent may drive a batch of environments: observations (B, D), and every row has a sequence of its own. The mean is
    taken of clipped controls, so that it keeps the limits; the first sample is U itself, without noise.
    """

    def __init__(
        self, rollout: Rollout, cost: Cost, config: MPPIConfig | None = None, card: dict[str, Any] | None = None
    ) -> None:
        self.rollout, self.cost = rollout, cost
        self.config = config or MPPIConfig()
        self.card = card or {}
        self._rng = np.random.default_rng(0)
        self.reset()

    parameters = 0
    """Trained parameters: none, the dynamics are given."""
    execution = "sampled controls"

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Begin episodes towards ``goal``, (G,) for all rows or (B, G); ``seed`` starts the agent's randomness anew."""
        if goal is not None:
            goal = np.array(goal, dtype=np.float64)
            if goal.ndim not in (1, 2) or not np.isfinite(goal).all():
                raise ValueError(f"a goal is (G,) or (batch, G) finite numbers, got shape {goal.shape}")
        self._goal = goal
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._controls: Array | None = None  # U, (B, T, A)
        self._clock = 0
        self.last_plan: SampledPlan | None = None

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The action (A,) for an observation (D,), or actions (B, A) for (B, D)."""
        given = np.asarray(observation, dtype=np.float64)
        if given.ndim not in (1, 2) or not np.isfinite(given).all():
            raise ValueError(f"an observation is (D,) or (batch, D) finite numbers, got shape {given.shape}")
        states = np.atleast_2d(given)
        if self._controls is None or len(self._controls) != len(states):
            self._controls = np.zeros((len(states), self.config.controls, self.config.action_dim))
            self._clock = 0
        if self._clock % self.config.hold == 0:
            if self._clock:
                self._controls = np.concatenate([self._controls[:, 1:], np.zeros_like(self._controls[:, :1])], axis=1)
            self._controls = self.improve(states, self._controls)
        self._clock += 1
        actions = self._controls[:, 0].astype(np.float32)
        return actions if given.ndim == 2 else actions[0]

    def improve(self, states: Array, controls: Array) -> Array:
        """One path integral update of control sequences U (B, T, A) from states (B, D): the same U, a little better."""
        if self._goal is None:
            raise ValueError("this agent plans towards a goal: call reset(goal) first")
        config, (B, T, A) = self.config, controls.shape
        K, S = config.samples, T * config.hold
        noise = config.sigma * self._rng.standard_normal((B, K, T, A))
        noise[:, 0] = 0.0
        tried = np.clip(controls[:, None] + noise, -config.limit, config.limit)
        held = np.repeat(tried, config.hold, axis=2).reshape(B * K, S, A)
        futures = self.rollout(np.repeat(states, K, axis=0), held).reshape(B, K, S, -1)
        cost = self.cost(futures, np.broadcast_to(self._goal, (B, self._goal.shape[-1])))
        if config.gamma:
            cost = cost + config.gamma / config.sigma**2 * np.einsum("bta,bkta->bk", controls, noise)
        best = cost.argmin(axis=1)
        weight = np.exp((cost.min(axis=1, keepdims=True) - cost) / config.temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        path = np.concatenate([states[:, None], futures[np.arange(B), best]], axis=1)
        self.last_plan = SampledPlan(path[:, :, None], np.full(B, S))
        return np.einsum("bk,bkta->bta", weight, tried)

    def forget(self, rows: ArrayLike, goal: ArrayLike | None = None) -> None:
        """New episodes began in these rows of the batch, towards new goals (len(rows), G): their sequences begin at zero.

        They follow that zero until the batch's next plan, less than ``hold`` steps later.
        """
        index = np.asarray(rows, dtype=np.intp).reshape(-1)
        if goal is not None:
            if self._goal is None or self._goal.ndim != 2:
                raise ValueError("goals of single rows need a goal for each row: reset(goal) with (batch, G) first")
            self._goal[index] = np.asarray(goal, dtype=np.float64)
        if self._controls is not None:
            self._controls[index] = 0.0


class LearnedMPPIAgent(MPPIAgent):
    """The same agent in learned dynamics. Without a ``cost`` it minimises the Euclidean distance to the goal."""

    def __init__(
        self,
        learner: DynamicsModel,
        config: MPPIConfig | None = None,
        card: dict[str, Any] | None = None,
        cost: Cost | None = None,
    ) -> None:
        self.learner = learner.eval()
        self._optimizer: torch.optim.Optimizer | None = None
        super().__init__(learner.rollout, cost or GoalCost(), config, card)

    execution = "sampled controls in learned dynamics"

    @property
    def parameters(self) -> int:  # type: ignore[override]
        """Number of trained parameters."""
        return sum(p.numel() for p in self.learner.parameters())

    def update(self, batch: tuple[ArrayLike, ...]) -> dict[str, float]:
        """One AdamW step of the dynamics on observations (B, 2, D) and actions (B, 2, A): the loss."""
        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.learner.parameters(), lr=1e-3)
        tensors = tuple(torch.from_numpy(np.array(part, dtype=np.float32)) for part in batch)
        loss = self.learner.train()(tensors, torch.Generator())["loss"]
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.learner.eval()
        return {"loss": float(loss.detach())}

    def save(self, path: str | Path) -> None:
        """Write the dynamics' weights, both configurations and the card as one file; the cost is not in it."""
        header = {
            "kind": "dynamics",
            "config": self.learner.to_header(),
            "agent": self.config.to_header(),
            "card": self.card,
        }
        save_checkpoint(Path(path), self.learner.state_dict(), header)

    @classmethod
    def load(cls, path: str | Path, cost: Cost | None = None) -> Self:
        """The agent of a file written by `save`. Raises CheckpointError for a file that is not one."""
        tensors, header = load_checkpoint(Path(path))
        if header.get("kind") != "dynamics":
            raise CheckpointError(f"{path} holds {header.get('kind')!r}, not learned dynamics")
        try:
            learner = DynamicsModel(DynamicsConfig(**header["config"]))
            config, card = MPPIConfig(**header["agent"]), header["card"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} describes dynamics that this version cannot build: {error}") from error
        load_into(learner, tensors, Path(path))
        return cls(learner, config, card, cost)
