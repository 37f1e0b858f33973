"""What the pictures of a run are drawn from: executed paths, the plans of first decisions, and one plan's denoising.

Positions are the first two entries of an observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

import dfplan.envs  # noqa: F401 (registers the environments)


@dataclass(frozen=True)
class Paths:
    """Goals, executed paths and first plans of a few episodes, one entry an episode."""

    goals: tuple[np.ndarray, ...]
    """(2,) each."""
    executed: tuple[np.ndarray, ...]
    """Positions (steps + 1, 2) from the reset on."""
    planned: tuple[np.ndarray | None, ...]
    """Positions (points, 2) of the plan that the first decision followed, None without a plan, or one that is not finite."""


@dataclass
class Recorder:
    """Records what `Paths` holds while `dfplan.benchmarks.protocol.play` plays one batch: it is the `watch`."""

    goals: list[np.ndarray] = field(default_factory=list)
    positions: list[np.ndarray] = field(default_factory=list)
    planned: list[np.ndarray | None] = field(default_factory=list)

    def __call__(self, agent: Any, observations: np.ndarray, infos: Sequence[dict[str, Any]]) -> None:
        """Keep positions, goals and first plans of a batch: called after the reset and after each step."""
        self.positions.append(observations[:, :2].astype(np.float32))
        if len(self.positions) == 1:
            self.goals = [np.asarray(info["goal"]) for info in infos]
        elif len(self.positions) == 2:  # one decision has been made
            self.planned = [planned_path(agent, row) for row in range(len(infos))]

    def paths(self) -> Paths:
        """What was recorded."""
        return Paths(tuple(self.goals), tuple(np.stack(self.positions, axis=1)), tuple(self.planned))


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
    env = gymnasium.make(env_id, disable_env_checker=True)
    observation, info = env.reset(seed=seed)
    env.close()
    agent.reset(goal=info["goal"], seed=seed)
    plan = agent.plan(observation, record=True)
    if not getattr(plan, "history", None):
        return None
    kept, used = plan.observations.shape[2], int(plan.lengths[0]) + 1
    points = np.stack([positions(observations[0, :used]) for observations, _ in plan.history])
    tokens = np.array([levels[0, :used].tolist() for _, levels in plan.history], dtype=np.float64)
    levels = np.concatenate([tokens[:, :1], tokens[:, 1:].repeat(kept, axis=1)], axis=1)
    return Denoising(points, levels / max(float(levels.max()), 1.0), np.asarray(info["goal"]))


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
