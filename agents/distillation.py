"""Distillation: a policy that acts as a planner would, by one evaluation of a small network.

policy = dfplan.train(data, distilled(DiffusionForcingAgent.from_pretrained("maze2d-large")), minutes=5)

The planner is asked for plans from recorded observations to recorded goals, and then no more. Every state on a plan, moved at
random, is a lesson: the goal is a place later on the same plan, and the action is the one by which the planner would follow it.
Nothing is played for it, neither in an environment nor in learned dynamics. What learns is behavior cloning with goals
(`dfplan.agents.offline.bc`).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.offline.base import ActingConfig
from dfplan.agents.offline.bc import BC, BCConfig, BehaviorCloningAgent
from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Transitions
from dfplan.data.windows import Batch
from dfplan.planning.execution import Following, by_inverse_dynamics
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe

TOGETHER = 20
"""Plans that are made at once."""


class TrackingPlanner(Protocol):
    """An agent that plans states to a goal and tracks them by learned inverse dynamics, `config.lookahead` steps ahead at
    `config.speed`, such as Diffusion Forcing's or graph search."""

    learner: Any
    config: Any
    features: Features

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def with_options(self) -> Self:
        """Another one with the same weights."""

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Take goals."""

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """Make plans, and act."""

    def followed(self, row: int = 0) -> NDArray[Any] | None:
        """The plan of a row."""


class Lessons:
    """Draws what a planner would do at states on and around its plans, for each training seed its own."""

    def __init__(self, planner: TrackingPlanner, data: Trajectories, plans: int, spread: float, seeds: tuple[int, ...]):
        """Makes the plans, which takes a while; the arguments are those of `distilled`."""
        self._seeds, self._columns = seeds, list(planner.learner.config.goal_columns)
        self._planner = planner.with_options()  # the caller's own may be in the middle of an episode
        self._planner.features = AS_RECORDED  # the data's observations are made already
        self._steps = int(np.ceil(planner.config.lookahead * planner.config.speed)) + 1
        rng = np.random.default_rng(seeds[0])
        made = [
            path for first in range(0, plans, TOGETHER) for path in self._plans(data, min(TOGETHER, plans - first), rng)
        ]
        self._ends = np.array([len(path) - 1 for path in made])
        paths = [torch.from_numpy(path).to(planner.device) for path in made]
        self._paths = torch.nn.utils.rnn.pad_sequence(paths, batch_first=True)
        led = [path[np.minimum(np.arange(len(path)) + self._steps, len(path) - 1)] - path for path in paths]
        self._moved = spread * torch.cat(led).std(0)

    def _plans(self, data: Trajectories, count: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
        """Plans (S + 1, observation_dim) from recorded observations to recorded goals."""
        starts, ends = data.observations[rng.integers(len(data), size=(2, count))]
        self._planner.reset(goal=ends[:, self._columns], seed=int(rng.integers(2**31)))
        self._planner.act(starts)
        return [path for path in map(self._planner.followed, range(count)) if path is not None]

    def __call__(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """`Transitions` of which only states and actions matter, and goals (S, B, G), in recorded units."""
        draw = int(rng.integers(2**63))
        drawn = [self._drawn(np.random.default_rng((seed, draw)), batch_size) for seed in self._seeds]
        state, target, goal = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        action = self._action(state.flatten(0, 1), target.flatten(0, 1)).unflatten(0, state.shape[:2])
        nothing = torch.zeros(state.shape[:2])
        return tuple(part.cpu() for part in (*Transitions(state, action, nothing, state, nothing), goal))

    def _drawn(self, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, D) on plans, moved at random, the plans (B, S, D) from there to rest at goals, and these goals (B, G)."""
        row = rng.integers(len(self._ends), size=count)
        now = rng.integers(self._ends[row] + 1)
        end = rng.integers(now, self._ends[row] + 1)[:, None]
        step = now[:, None] + np.arange(self._steps + 1)
        path, goal = self._paths[row[:, None], np.minimum(step, end)], self._paths[row, end[:, 0]][:, self._columns]
        rest = self._planner.learner.state_at(goal, self._columns)
        there = torch.from_numpy(step >= end).to(path.device)
        moved = torch.from_numpy(rng.standard_normal((count, path.shape[-1]), dtype=np.float32)).to(path.device)
        return path[:, 0] + moved * self._moved, torch.where(there[..., None], rest[:, None], path), goal

    @torch.no_grad()
    def _action(self, state: Tensor, path: Tensor) -> Tensor:
        """What the planner does at states (B, D) as it begins to follow paths (B, S, D): (B, action_dim)."""
        following = Following.start(len(state), path.shape[1] - 1, path.shape[2], path.device)
        following.path = path
        learner, how = self._planner.learner, self._planner.config
        action = by_inverse_dynamics(learner, state, following, how.lookahead, how.speed, policy=False)
        return action.clamp(learner.action_low, learner.action_high)


def distilled(planner: TrackingPlanner, plans: int = 2_000, spread: float = 0.3, **model: Any) -> Recipe:
    """What `dfplan.train` takes to make a policy of a planner.

    Args:
        planner: Of goals, tracked by inverse dynamics.
        plans: How many it makes.
        spread: How far states are moved from plans, as a share of how far plans lead in the steps that the planner looks ahead.
        model: Further fields of `BCConfig`.

    Raises ValueError for a planner of another kind.
    """
    learned = planner.learner.config
    tracks = getattr(planner.config, "execution", "inverse_dynamics") == "inverse_dynamics"
    if not (tracks and hasattr(planner.config, "lookahead") and learned.goal_columns):
        kinds = "plans states to goals and tracks them by inverse dynamics"
        raise ValueError(f"a policy is distilled from an agent that {kinds}, not from this {type(planner).__name__}")
    layout = getattr(learned, "layout", learned)
    fields = {"hidden": (256, 256, 256), "goal_columns": learned.goal_columns, "features": learned.features, **model}
    config = BCConfig(layout.observation_dim, layout.action_dim, **fields)
    train = TrainConfig(steps=20_000, batch_size=256, warmup_steps=0, weight_decay=0.0)

    @cache
    def lessons(data: Trajectories) -> Lessons:
        return Lessons(planner, data, plans, spread, config.seeds)

    return Recipe(BehaviorCloningAgent, BC, config, ActingConfig(), train, lessons)
