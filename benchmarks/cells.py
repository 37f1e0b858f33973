"""The benchmark's result files: one agent on one environment with one training seed is a cell, one JSON file.

    results/maze2d-large/diffusion-forcing/seed0.json       an agent whose weights were trained with seed 0
    results/maze2d-large/expert/untrained.json              an agent that is not trained
    results/maze2d-large/diffusion-forcing/timing.json      how long its decisions take, measured once for all its seeds

A file is written whole or not at all. Tables and plots are made from these files alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dfplan.whole_files import write_whole

SCHEMA = 2
KEY = ("code", "config", "weights", "protocol")
"""What a cell depends on: each a sha256 in hex, 'weights' None where there are none."""


@dataclass(frozen=True)
class Cell:
    """All episodes of one agent on one environment with one training seed, in the order of ``seeds``."""

    env_id: str
    agent: str
    """Name of its row."""
    training_seed: int | None
    """Seed of the training that made the weights, None for an agent that is not trained."""
    about: str
    execution: str
    """What turns its plans or states into actions."""
    episode_steps: int
    reference: dict[str, float]
    """The raw returns that the normalised score calls 0 ('min') and 100 ('max')."""
    seeds: list[int]
    """Reset seed of each episode."""
    batch: int
    """Episodes played in lockstep."""
    returns: list[float]
    """Raw return of each episode."""
    success: list[bool]
    """Whether the goal's radius was ever entered."""
    first_reach: list[int | None]
    """Steps until it was first entered, None if never."""
    reward_curve: list[float]
    """Mean reward over the episodes at each step (episode_steps,)."""
    seconds: float
    """Wall time of playing, summed over the processes that did."""
    device: str
    parameters: int | None
    config: dict[str, Any]
    card: dict[str, Any] | None
    """Where the weights come from: command, seed, data fingerprint, training time."""
    key: dict[str, str | None]
    """Hashes of what the numbers depend on, by the names in `KEY`."""
    command: str
    created: str
    """UTC, ISO 8601."""
    commit: str | None
    """Of the source tree, with '+' if it had changes; None outside a git checkout."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    schema: int = SCHEMA


@dataclass(frozen=True)
class Timing:
    """Milliseconds of single decisions of one agent on one environment, one episode at a time, replanning included."""

    env_id: str
    agent: str
    training_seed: int | None
    median: float
    p95: float
    mean: float
    plan: float | None
    """Median of the decisions that made a plan, None for an agent that does not plan."""
    decisions: int
    plans: int
    threads: int
    device: str
    key: dict[str, str | None]
    hardware: dict[str, Any]
    commit: str | None
    created: str
    schema: int = SCHEMA


def env_folder(env_id: str) -> str:
    """'maze2d-large' for 'maze2d-large-v1'."""
    return re.sub(r"-v\d+$", "", env_id)


def agent_folder(agent: str) -> str:
    """The agent's name with '_' for whatever does not belong into a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", agent)


def seed_name(training_seed: int | None) -> str:
    return "untrained" if training_seed is None else f"seed{training_seed}"


def cell_path(folder: str | Path, env_id: str, agent: str, training_seed: int | None) -> Path:
    """Where the tree in ``folder`` keeps a cell."""
    return Path(folder) / env_folder(env_id) / agent_folder(agent) / f"{seed_name(training_seed)}.json"


def timing_path(folder: str | Path, env_id: str, agent: str) -> Path:
    return Path(folder) / env_folder(env_id) / agent_folder(agent) / "timing.json"


def write_cell(folder: str | Path, cell: Cell) -> Path:
    """Write a cell into the tree in ``folder`` and return its path. ValueError for a number that is not finite."""
    path = cell_path(folder, cell.env_id, cell.agent, cell.training_seed)
    write_whole(path, to_json(dataclasses.asdict(cell)))
    return path


def write_timing(folder: str | Path, timing: Timing) -> Path:
    path = timing_path(folder, timing.env_id, timing.agent)
    write_whole(path, to_json(dataclasses.asdict(timing)))
    return path


def to_json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False, default=str) + "\n"


def read_cell(path: str | Path) -> Cell:
    """ValueError, naming the file, if it is not a whole cell; FileNotFoundError if it is not there."""
    cell = _read(Path(path), Cell)
    for name in ("returns", "success", "first_reach"):
        if len(getattr(cell, name)) != len(cell.seeds):
            raise ValueError(f"{path}: {name!r} has not one entry for each of the seeds")
    if not cell.seeds or len(set(cell.seeds)) < len(cell.seeds):
        raise ValueError(f"{path}: 'seeds' must be one or more different numbers")
    if cell.reward_curve and len(cell.reward_curve) != cell.episode_steps:
        raise ValueError(f"{path}: 'reward_curve' has not one entry for each of the {cell.episode_steps} steps")
    if not all(math.isfinite(value) for value in (*cell.returns, *cell.reward_curve)):
        raise ValueError(f"{path} holds a return or reward that is not finite")
    return cell


def read_timing(path: str | Path) -> Timing:
    """ValueError, naming the file, if it is not a whole timing; FileNotFoundError if it is not there."""
    return _read(Path(path), Timing)


File = TypeVar("File", Cell, Timing)


def _read(path: Path, kind: type[File]) -> File:
    what = kind.__name__.lower()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {what} {path}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a {what} of schema {SCHEMA}")
    try:
        found = kind(**data)
    except TypeError as error:
        raise ValueError(f"{path} is not a whole {what} ({error})") from error
    if not isinstance(found.key, dict) or set(found.key) != set(KEY):
        raise ValueError(f"{path}: 'key' must have the entries {', '.join(KEY)}")
    return found


def cells_in(folder: str | Path) -> list[Cell]:
    """All cells of a tree, or of one environment's folder in it, ordered by environment, agent and training seed."""
    return [read_cell(path) for path in _files(folder, ("seed*.json", "untrained.json"))]


def timings_in(folder: str | Path) -> list[Timing]:
    """All timings of a tree, or of one environment's folder in it, ordered by environment and agent."""
    return [read_timing(path) for path in _files(folder, ("timing.json",))]


def _files(folder: str | Path, names: Iterable[str]) -> list[Path]:
    found = (path for name in names for depth in ("*", "*/*") for path in Path(folder).glob(f"{depth}/{name}"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
