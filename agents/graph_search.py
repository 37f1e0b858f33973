"""Graph search: the fastest way through recorded states, tracked by learned inverse dynamics, whole in this file.

A baseline without denoising: nothing is sampled. Beside the graph (`dfplan.planning.state_graph`), a network is learned that
gives the action from one observation towards another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfplan.agents.planning_agent import PlanningAgent
from dfplan.arrays import Shape
from dfplan.data.features import AS_RECORDED, Features
from dfplan.data.statistics import Statistics, Widths
from dfplan.data.trajectories import Trajectories
from dfplan.fields import CheckedFields, Count, Positive, Size, check_columns
from dfplan.models import InverseDynamics
from dfplan.planning.ask import Ask
from dfplan.planning.execution import Following, by_inverse_dynamics, padded
from dfplan.planning.model import inverse_loss
from dfplan.planning.plan import Plan
from dfplan.planning.state_graph import StateGraph, Way


@dataclass(frozen=True)
class GraphModelConfig(Widths):
    """What is learned, and how large."""

    goal_columns: tuple[int, ...] = ()
    """Observation columns in which a goal stands."""
    clusters: Size = 3000
    """Clusters of observations, which are the graph's vertices."""
    neighbors: Size = 16
    """The most edges that leave a cluster."""
    longest: Size = 1000
    """Steps of the longest plan; a longer way is followed as far as that."""
    longest_gap: Size = 15
    """Inverse dynamics is trained on targets 1 to this many steps ahead."""
    features: Features = AS_RECORDED
    """How what an environment observes becomes the observations of the data."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.goal_columns, self.observation_dim, "goal_columns")
        if not self.goal_columns:
            raise ValueError("a graph is searched for a way to a goal: goal_columns must name one column at least")


class GraphModel(Statistics):
    """The graph, which is taken from the data before training, and inverse dynamics, which is trained."""

    def __init__(self, config: GraphModelConfig):
        super().__init__(config.observation_dim, config.action_dim)
        self.config = config
        self.graph = StateGraph(config.observation_dim, config.clusters, config.neighbors)
        self.inverse = InverseDynamics(config.observation_dim, config.action_dim, config.longest_gap)

    def fit_statistics(self, data: Trajectories) -> None:
        """Take units, limits and the graph from the data."""
        super().fit_statistics(data)
        self.graph.fit(self.observation.normalize(torch.tensor(data.observations)).numpy(), data)

    def forward(self, batch: tuple[Tensor, ...], generator: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of the normalized action towards random targets in each window, under 'loss'."""
        observations, actions = self.observation.normalize(batch[0]), self.action.normalize(batch[1])
        first = torch.zeros(len(actions), 1, dtype=torch.int64, device=actions.device)
        recorded = first, first + actions.shape[1] - 1
        return {"loss": inverse_loss(self.inverse, observations, actions, recorded, generator)}

    def plan(self, observation: Tensor, goal: Tensor) -> Plan:
        """Plans from observations (B, observation_dim) to rest at goals (B, G), with an observation for each step.

        Where no way was recorded a plan leads straight to the goal.
        """
        columns, config = self.config.goal_columns, self.config
        ends = self.state_at(goal, columns)
        starts = self.observation.normalize(observation)
        ways = self.graph.ways(starts, self.observation.normalize(ends)[:, list(columns)], columns)
        paths = [
            self._each_step(way, start, end)[: config.longest + 1]
            for way, start, end in zip(ways, observation, ends, strict=True)
        ]
        lengths = torch.tensor([len(path) - 1 for path in paths], device=observation.device)
        T = int(lengths.max()) + 1
        observations = torch.cat([padded(path[None], T) for path in paths])
        levels = torch.zeros(observations.shape[:2], dtype=torch.int64, device=observation.device)
        return Plan(observations.unsqueeze(2), lengths, levels)

    def _each_step(self, way: Way, start: Tensor, end: Tensor) -> Tensor:
        """A way as an observation for each step (S + 1, observation_dim), from a start to an end, in recorded units."""
        centers = torch.as_tensor(way.observations, device=start.device)
        between = self.observation.denormalize(centers[1:])
        seen = torch.cat([start[None], between, end[None]]).cpu().numpy()
        arrival = (way.times[-1] if len(way.times) else 0) + self.config.longest_gap
        times = np.concatenate([[0.0], way.times[1:], [arrival]])
        each = np.arange(int(arrival) + 1)
        path = np.stack([np.interp(each, times, column) for column in seen.T], axis=1)
        return torch.as_tensor(path, dtype=torch.float32, device=start.device)


@dataclass(frozen=True)
class GraphSearchConfig(CheckedFields):
    """How the agent acts."""

    replan_every: Count = 30
    """Environment steps between plans."""
    lookahead: Count = 10
    """Environment steps from now to the target of inverse dynamics on the plan."""
    speed: Positive = 1.0
    """Planned steps played in one environment step; above 1 the plan is followed faster than the data drove."""


class GraphSearchAgent(PlanningAgent):
    """Plans ways through the graph and follows them by inverse dynamics."""

    kind = "graph_search"
    learner: GraphModel
    config: GraphSearchConfig
    learner_class, learner_config_class, config_class = GraphModel, GraphModelConfig, GraphSearchConfig
    learning_rate = 1e-3
    needs_goal = True
    answers = frozenset()
    execution = "learned inverse dynamics"

    def _fit_learner(self) -> None:
        self.goal_dim = len(self.learner.config.goal_columns)
        if self.config.lookahead > self.learner.config.longest_gap:
            longest = f"the inverse dynamics' longest gap {self.learner.config.longest_gap}"
            raise ValueError(f"lookahead {self.config.lookahead} is beyond {longest}")

    @property
    def _stride(self) -> int:
        return 1

    @property
    def _steps(self) -> int:
        return self.learner.config.longest

    def _draw(self, observation: Tensor, ask: Ask, record: bool = False, horizons: Tensor | None = None) -> Plan:
        assert ask.goal is not None
        return self.learner.plan(observation, ask.goal)

    def _execute(self, observation: Tensor, following: Following) -> Tensor:
        config = self.config
        return by_inverse_dynamics(self.learner, observation, following, config.lookahead, config.speed, False)

    def _parts(self, given: int) -> Mapping[str, Shape]:
        """Windows of consecutive steps, one more than the longest gap."""
        config, S = self.learner.config, self.learner.config.longest_gap + 1
        parts: dict[str, Any] = {"observations": ("B", S, config.observation_dim)}
        return {**parts, "actions": ("B", S, config.action_dim)}
