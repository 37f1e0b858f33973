"""What the pictures of a run are drawn from: executed paths, the plans of first decisions, and one plan's denoising.

Positions are the first two entries of an observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dfplan.agents.episodes import goal_of
from dfplan.benchmarks.protocol import start
from dfplan.envs.registry import task


@dataclass
class Recorder:
    """Goals, executed paths and first plans of a few episodes: it is the `watch` of `dfplan.benchmarks.protocol.play`."""

    goals: list[np.ndarray] = field(default_factory=list)
    """(2,) of each episode."""
    positions: list[np.ndarray] = field(default_factory=list)
    """(episodes, 2) at each step, from the reset on."""
    planned: list[np.ndarray | None] = field(default_factory=list)
    """Positions (points, 2) of the plan that the first decision of each episode followed, None for none that is finite."""

    def __call__(self, agent: Any, observations: np.ndarray, infos: Sequence[dict[str, Any]]) -> None:
        """Keep what is seen of a batch: called after the reset and after each step."""
        self.positions.append(observations[:, :2].astype(np.float32))
        if len(self.positions) == 1:
            self.goals = [np.asarray(info["goal"]) for info in infos]
        elif len(self.positions) == 2:  # one decision has been made
            self.planned = [planned_path(agent, row) for row in range(len(infos))]

    @property
    def executed(self) -> np.ndarray:
        """Positions (episodes, steps + 1, 2)."""
        return np.stack(self.positions, axis=1)

    @property
    def longest_plan(self) -> int | None:
        """The episode with the longest plan; None if there is no plan."""
        lengths = [0 if plan is None else len(plan) for plan in self.planned]
        return int(np.argmax(lengths)) if max(lengths) else None


@dataclass(frozen=True)
class Denoising:
    """How one plan came about: positions and noise levels of its points, one row of sampling after another."""

    positions: np.ndarray
    """(rows, points, 2)."""
    levels: np.ndarray
    """(rows, points) in [0, 1]: 0 clean, 1 pure noise."""
    goal: np.ndarray
    """(2,)."""


def record_denoising(agent: Any, env_id: str, seed: int) -> Denoising | None:
    """Plan once from a reset and keep every row of sampling; None for an agent that does not plan or keeps none."""
    if not hasattr(agent, "plan"):
        return None
    env = task(env_id).make(disable_env_checker=True)
    observation, info = start(env_id, seed).reset(env)
    goal = goal_of(observation, info)
    agent.reset(goal=goal, seed=seed)
    plan = agent.plan(observation, record=True)
    return denoising_of(plan, np.asarray(goal))


def denoising_of(plan: Any, goal: np.ndarray) -> Denoising | None:
    """How the first of the plans came about, to a goal (2,); None for one without a history."""
    if not getattr(plan, "history", None):
        return None
    kept, used = plan.observations.shape[2], int(plan.lengths[0]) + 1
    points = np.stack([positions(observations[0, :used]) for observations, _ in plan.history])
    tokens = np.array([levels[0, :used].tolist() for _, levels in plan.history], dtype=np.float64)
    levels = np.concatenate([tokens[:, :1], tokens[:, 1:].repeat(kept, axis=1)], axis=1)
    return Denoising(points, levels / max(float(levels.max()), 1.0), goal)


def planned_path(agent: Any, row: int) -> np.ndarray | None:
    """Positions (points, 2) of the plan that an agent follows in one row of its batch, None if it follows none."""
    plan = getattr(agent, "last_plan", None)
    if plan is None:
        return None
    path = positions(plan.observations[row, : int(plan.lengths[row]) + 1])
    return path if np.isfinite(path).all() else None


def positions(tokens: Any) -> np.ndarray:
    """Positions (points, 2), float32, of planned observations (T, kept, observation_dim), an array or a tensor."""
    array = tokens.detach().float().cpu().numpy() if hasattr(tokens, "detach") else np.asarray(tokens)
    # Token 0 is the start alone, whatever a token bundles.
    return np.concatenate([array[0, -1:, :2], array[1:, :, :2].reshape(-1, 2)]).astype(np.float32)
