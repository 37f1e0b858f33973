"""Distillation: a policy that acts as a planner would, by one evaluation of small networks.

policy = dfplan.train(data, distilled(DiffusionForcingAgent.from_pretrained("maze2d-large")), minutes=5)

The planner makes plans from recorded observations to recorded goals, once, before training. An example for training is a
state on a plan, with noise added, and a goal, which is a later place on the same plan. The target is the place to which the
plan leads within the steps that the planner looks ahead. The planner's inverse dynamics gives the action that leads there. No
episode is played for this, neither in an environment nor in learned dynamics.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dfplan.agents.offline.base import ActingConfig, Losses, OfflineAgent, OfflineConfig, OfflineLearner
from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.statistics import Normalizer
from dfplan.data.trajectories import Trajectories
from dfplan.data.transitions import Noise, Transitions
from dfplan.data.windows import Batch
from dfplan.fields import Octaves, Positive, Size, check_columns
from dfplan.models import InverseDynamics
from dfplan.models.embeddings import Waves
from dfplan.models.stacked import StackedMLP
from dfplan.training.config import TrainConfig
from dfplan.training.fit import Recipe

TOGETHER = 20
"""Plans that are made at once."""


@dataclass(frozen=True)
class DistilledConfig(OfflineConfig):
    """The policy's size, and how its planner follows plans."""

    hidden: tuple[Size, ...] = (256, 256, 256)
    """Widths of the hidden layers."""
    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal stands."""
    octaves: Octaves = 4
    """How many sines and cosines of each column are inputs beside it: more where borders are sharp."""
    lookahead: Size = 10
    """Environment steps from now to the place on a plan that is predicted."""
    speed: Positive = 1.0
    """Planned steps in one environment step."""
    longest_gap: Size = 15
    """Of the planner's inverse dynamics."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")


class Distilled(OfflineLearner[DistilledConfig]):
    """Networks that predict where the planner would be, and the planner's inverse dynamics, which stays as it is."""

    rewarded = False

    def __init__(self, config: DistilledConfig):
        super().__init__(config)
        self.action = Normalizer.standard(config.action_dim)
        self.inverse = InverseDynamics(config.observation_dim, config.action_dim, config.longest_gap).requires_grad_(
            False
        )
        self.waves = Waves(config.octaves)
        seen = self.waves.width(config.observation_dim + len(config.goal_columns))
        self.pi = StackedMLP((seen, *config.hidden, config.observation_dim), self._initial)

    def of(self, planner: Any) -> Self:
        """With a planner's inverse dynamics, and its units, which `fit_statistics` leaves as they are."""
        for part in ("observation", "action", "inverse"):
            getattr(self, part).load_state_dict(getattr(planner, part).state_dict())
        self.action_low, self.action_high = planner.action_low.clone(), planner.action_high.clone()
        return self

    def fit_statistics(self, data: Trajectories) -> None:
        """Nothing: units are the planner's."""

    def losses(self, batch: Transitions, noise: Noise) -> Losses:
        """Squared error of the change from s to s', (S,), where s' is the place on the plan."""
        D = self.config.observation_dim
        guess = self.pi(self.waves(batch.s))
        return {"imitation": (guess - (batch.s_next - batch.s)[..., :D]).square().mean(dim=(1, 2))}, {}

    @torch.no_grad()
    def play(self, observation: Tensor, member: int, goal: Tensor | None = None) -> Tensor:
        """One member's action (B, action_dim) for (B, observation_dim) and goals (B, G), all in recorded units."""
        s = self.state(observation, goal)
        present = s[:, : self.config.observation_dim]
        target = present + self.pi.alone(member, self.waves(s))
        gap = torch.full_like(present[:, 0], self.config.lookahead)
        action = self.action.denormalize(self.inverse(present, target, gap))
        return action.clamp(self.action_low, self.action_high)


class DistilledAgent(OfflineAgent):
    """Acts towards the place that the planner would reach, and makes no plan."""

    kind = "distilled"
    learner_class, learner_config_class = Distilled, DistilledConfig
    acting = ("pi.", "observation.", "action", "inverse.")
    execution = "learned inverse dynamics"


class TrackingPlanner(Protocol):
    """An agent that plans states to a goal and tracks them by learned inverse dynamics, `config.lookahead` steps ahead at
    `config.speed`, such as Diffusion Forcing's or graph search."""

    learner: Any
    config: Any
    features: Features

    def with_options(self) -> Self:
        """Another one with the same weights."""

    def reset(self, goal: ArrayLike | None = None, seed: int | None = None) -> None:
        """Begin episodes with these goals."""

    def act(self, observation: ArrayLike) -> NDArray[np.float32]:
        """Make plans, and act."""

    def followed(self, row: int = 0) -> NDArray[Any] | None:
        """The plan of a row."""


class Lessons:
    """Draws where a planner would go from states on and around its plans, for each training seed its own."""

    def __init__(self, planner: TrackingPlanner, data: Trajectories, plans: int, spread: float, seeds: tuple[int, ...]):
        """Make the plans, which takes a while; the arguments are those of `distilled`. ValueError if no plan is found."""
        self._seeds, self._columns = seeds, list(planner.learner.config.goal_columns)
        self._planner = planner.with_options()  # the caller's own may be in the middle of an episode
        self._planner.features = AS_RECORDED  # the data's observations are made already
        self._ahead = planner.config.lookahead * planner.config.speed
        rng = np.random.default_rng(seeds[0])
        counts = [min(TOGETHER, plans - first) for first in range(0, plans, TOGETHER)]
        made = [path for count in counts for path in self._plans(data, count, rng)]
        if not made:
            raise ValueError(f"the planner found none of {plans} plans between recorded observations and goals")
        self._ends = np.array([len(path) - 1 for path in made])
        self._paths = np.stack([np.pad(path, ((0, max(self._ends) + 1 - len(path)), (0, 0)), "edge") for path in made])
        steps = round(self._ahead)
        led = [path[np.minimum(np.arange(len(path)) + steps, len(path) - 1)] - path for path in made]
        self._moved = spread * np.concatenate(led).std(0)

    def _plans(self, data: Trajectories, count: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
        """Plans (S + 1, observation_dim) from recorded observations to recorded goals."""
        starts, ends = data.observations[rng.integers(len(data), size=(2, count))]
        self._planner.reset(goal=ends[:, self._columns], seed=int(rng.integers(2**31)))
        self._planner.act(starts)
        return [path for path in map(self._planner.followed, range(count)) if path is not None]

    def __call__(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """`Transitions` from states to places on plans, without actions and rewards, and goals (S, B, G), in recorded units."""
        draw = int(rng.integers(2**63))
        drawn = [self._drawn(np.random.default_rng((seed, draw)), batch_size) for seed in self._seeds]
        state, ahead, goal = (torch.from_numpy(np.stack(parts)) for parts in zip(*drawn, strict=True))
        nothing = torch.zeros(state.shape[:2])
        actions = torch.zeros((*nothing.shape, len(self._planner.learner.action_low)))
        return (*Transitions(state, actions, nothing, ahead, nothing), goal)

    def _drawn(self, rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], ...]:
        """States (B, D) on plans, moved at random, the places (B, D) to which the plans lead from there, and goals (B, G)."""
        row = rng.integers(len(self._ends), size=count)
        now = rng.integers(self._ends[row] + 1)
        end = rng.integers(now, self._ends[row] + 1)
        state, goal = self._paths[row, now], self._paths[row, end][:, self._columns]
        time = np.minimum(now + self._ahead, end)
        before, share = np.floor(time).astype(int), (time % 1)[:, None].astype(np.float32)
        after = np.minimum(before + 1, end)
        ahead = (1 - share) * self._paths[row, before] + share * self._paths[row, after]
        rest = self._planner.learner.state_at(torch.from_numpy(goal), self._columns).numpy()
        moved = rng.random((count, 1), dtype=np.float32) * rng.standard_normal(state.shape, dtype=np.float32)
        return state + moved * self._moved, np.where((time >= end)[:, None], rest, ahead), goal


def distilled(planner: TrackingPlanner, plans: int = 2_000, spread: float = 1.5, **model: Any) -> Recipe:
    """What `dfplan.train` takes to make a policy of a planner, which computes on the CPU.

    Args:
        planner: An agent that plans states to goals, and tracks its plans by learned inverse dynamics.
        plans: How many it makes.
        spread: How far states are moved from plans at most, as a share of how far plans lead in the steps that the planner
            looks ahead.
        model: Further fields of `DistilledConfig`.

    Raises ValueError for a planner of another kind.
    """
    learned, how = planner.learner.config, planner.config
    tracks = getattr(how, "execution", "inverse_dynamics") == "inverse_dynamics"
    if not (tracks and hasattr(how, "lookahead") and learned.goal_columns):
        kinds = "plans states to goals and tracks them by inverse dynamics"
        raise ValueError(f"a policy is distilled from an agent that {kinds}, not from this {type(planner).__name__}")
    layout = getattr(learned, "layout", learned)
    fields = {"goal_columns": learned.goal_columns, "features": learned.features, "longest_gap": learned.longest_gap}
    fields |= {"lookahead": how.lookahead, "speed": how.speed, **model}
    config = DistilledConfig(layout.observation_dim, layout.action_dim, **fields)
    train = TrainConfig(steps=20_000, batch_size=256, warmup_steps=0, weight_decay=0.0)
    teacher = deepcopy(planner.learner)

    @cache
    def lessons(data: Trajectories) -> Lessons:
        return Lessons(planner, data, plans, spread, config.seeds)

    return Recipe(DistilledAgent, lambda config: Distilled(config).of(teacher), config, ActingConfig(), train, lessons)
