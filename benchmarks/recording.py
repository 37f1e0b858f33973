"""What the pictures of a run are drawn from: executed paths, the plans of first decisions, and one plan's denoising.

Positions are the first two entries of an observation.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

import dfplan.envs  # noqa: F401 (registers the environments)

LARGEST = 64 * 2**20
"""Bytes of arrays that a file of paths may unfold to."""


@dataclass(frozen=True)
class Paths:
    """Goals, executed paths and first plans of a few episodes, one entry an episode."""

    goals: tuple[np.ndarray, ...]
    """(2,) each."""
    executed: tuple[np.ndarray, ...]
    """Positions (steps + 1, 2) from the reset on."""
    planned: tuple[np.ndarray | None, ...]
    """Positions (points, 2) of the plan that the first decision followed, None for agents that do not plan."""

    def to_npz(self) -> bytes:
        """A compressed npz file; plans that are not finite are left out."""
        arrays = {f"path{i}": path for i, path in enumerate(self.executed)}
        plans = {f"plan{i}": plan for i, plan in enumerate(self.planned) if plan is not None}
        arrays |= {name: plan for name, plan in plans.items() if np.isfinite(plan).all()}
        file = io.BytesIO()
        np.savez_compressed(file, goals=np.stack(self.goals), **arrays)  # type: ignore[arg-type]
        return file.getvalue()


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


def read_paths(path: Path, episodes: int, steps: int) -> Paths | None:
    """Paths of at most so many episodes of so many steps from a file; None if there is no file.

    Raises ValueError, naming the file, if it is damaged or of other episodes.
    """
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError(f"it unfolds to more than {LARGEST // 2**20} MiB")
        with np.load(path, allow_pickle=False) as arrays:
            goals = _points(arrays["goals"])
            executed = tuple(_points(arrays[f"path{i}"]) for i in range(len(goals)))
            planned = tuple(_points(arrays[f"plan{i}"]) if f"plan{i}" in arrays else None for i in range(len(goals)))
        if not 0 < len(goals) <= episodes or {len(one) for one in executed} != {steps + 1}:
            raise ValueError("it does not fit the result beside it")
    except (ValueError, OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    return Paths(tuple(goals), executed, planned)


def _points(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError("it holds other things than points")
    return array


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
    return positions(plan.observations[row, : int(plan.lengths[row]) + 1])


def positions(tokens: Any) -> np.ndarray:
    """Positions (points, 2), float32, of planned observations (T, kept, observation_dim), an array or a tensor."""
    array = tokens.detach().float().cpu().numpy() if hasattr(tokens, "detach") else np.asarray(tokens)
    # Token 0 is the start alone, whatever a token bundles.
    return np.concatenate([array[0, -1:, :2], array[1:, :, :2].reshape(-1, 2)]).astype(np.float32)
