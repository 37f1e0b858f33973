"""Result files: what they say, where they lie, and how they are checked when they are read.

One agent in one environment with one training seed is a cell, one JSON file; how long decisions take is another, measured
once for all training seeds. Tables and plots are made from these files alone.

    results/maze2d-large/diffusion-forcing/seed0.json     a cell: an agent whose weights were trained with seed 0
    results/maze2d-large/expert/untrained.json            an agent that is not trained
    results/maze2d-large/expert/timing.json               how long decisions take
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dfplan.envs.registry import short_name
from dfplan.whole_files import write_whole

SCHEMA = 2
KEY = ("code", "config", "weights", "protocol")
"""What a result depends on: each a sha256 in hex, 'weights' None where there are none."""
LARGEST = 64 * 2**20
"""Bytes of a file that is read at all."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a cell and a timing have in common."""

    env_id: str
    agent: str
    """Name of its row."""
    training_seed: int | None
    """Seed of the training that made the weights, None for an agent that is not trained."""
    device: str
    key: dict[str, str | None]
    """Hashes of what the numbers depend on, by the names in `KEY`."""
    hardware: dict[str, Any]
    commit: str | None
    """Of the source tree, with '+' if it had changes; None outside a git checkout."""
    created: str
    """UTC, ISO 8601."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file that a user's own agent read while it was made and tried, by path; empty for registered rows."""
    schema: int = SCHEMA

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class Cell(Result):
    """All episodes of one agent in one environment with one training seed, in the order of `seeds`."""

    about: str
    execution: str
    """What turns its plans or states into actions."""
    episode_steps: int
    reference: dict[str, float] | None = None
    """The raw returns that the normalized score calls 0 ('min') and 100 ('max'), where it has such a score."""
    seeds: list[int]
    """Reset seed of each episode."""
    batch: int
    """Episodes played in lockstep."""
    returns: list[float]
    """Raw return of each episode."""
    lengths: list[int] | None = None
    """Steps of each episode; None: all have `episode_steps`."""
    success: list[bool] | None = None
    """Whether it succeeded at some step, where the environment says so."""
    first_reach: list[int | None] | None = None
    """Steps until it first did, None if never."""
    reward_curve: list[float]
    """Mean reward over the episodes at each step (episode_steps,)."""
    seconds: float
    """Wall time of playing, summed over the processes that did."""
    parameters: int | None
    config: dict[str, Any]
    card: dict[str, Any] | None
    """Where the weights come from: command, seed, data fingerprint, training time."""
    command: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Timing(Result):
    """Milliseconds of single decisions of one agent in one environment, one episode at a time, replanning included."""

    median: float
    p95: float
    mean: float
    plan: float | None
    """Median of the decisions that made a plan, None for an agent that does not plan."""
    decisions: int
    plans: int
    threads: int


class NewerSchemaError(ValueError):
    """A file was written by a newer dfplan; the message is one sentence that names it."""


def agent_folder(agent: str) -> str:
    """The agent's name with '_' for whatever does not belong into a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", agent)


def seed_name(training_seed: int | None) -> str:
    """'seed1', or 'untrained'."""
    return "untrained" if training_seed is None else f"seed{training_seed}"


def cell_path(folder: str | Path, env_id: str, agent: str, training_seed: int | None) -> Path:
    """Where the tree in `folder` keeps a cell."""
    return Path(folder) / short_name(env_id) / agent_folder(agent) / f"{seed_name(training_seed)}.json"


def timing_path(folder: str | Path, env_id: str, agent: str) -> Path:
    """Where the tree in `folder` keeps a timing."""
    return cell_path(folder, env_id, agent, None).with_name("timing.json")


def write(folder: str | Path, result: Cell | Timing) -> Path:
    """Write a result into the tree in `folder` and return its path. ValueError for a number that is not finite."""
    place = result.env_id, result.agent
    path = cell_path(folder, *place, result.training_seed) if isinstance(result, Cell) else timing_path(folder, *place)
    write_whole(path, json.dumps(asdict(result), indent=1, allow_nan=False, default=str) + "\n")
    return path


def read_cell(path: str | Path) -> Cell:
    """ValueError, naming the file, if it is not a whole cell; FileNotFoundError if it is not there."""
    cell = read(Path(path), Cell)
    check_episodes(path, cell, cell.episode_steps if cell.reward_curve else 0)
    if cell.reward_curve and not _adds_up(cell):
        raise ValueError(f"{path}: the returns are not those of its reward curve")
    return cell


def read_timing(path: str | Path) -> Timing:
    """ValueError, naming the file, if it is not a whole timing; FileNotFoundError if it is not there."""
    return read(Path(path), Timing)


def cells_in(folder: str | Path) -> list[Cell]:
    """All cells of a tree, or of one environment's folder in it, ordered by environment, agent and training seed."""
    return [read_cell(path) for path in _files(folder, "seed*.json", "untrained.json")]


def timings_in(folder: str | Path) -> list[Timing]:
    """All timings of a tree, or of one environment's folder in it, ordered by environment and agent."""
    return [read_timing(path) for path in _files(folder, "timing.json")]


def _files(folder: str | Path, *names: str) -> list[Path]:
    found = (path for name in names for depth in ("*", "*/*") for path in Path(folder).glob(f"{depth}/{name}"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def check_episodes(path: str | Path, found: Any, steps: int) -> None:
    """ValueError, naming the file, unless a cell or `Episodes` has an entry for each of its seeds, and they agree."""
    for name in ("returns", "success", "first_reach", "lengths"):
        if getattr(found, name, None) is not None and len(getattr(found, name)) != len(found.seeds):
            raise ValueError(f"{path}: {name!r} has not one entry for each of the seeds")
    if not found.seeds or len(set(found.seeds)) < len(found.seeds):
        raise ValueError(f"{path}: 'seeds' must be one or more different numbers")
    reached = None if found.first_reach is None else [steps is not None for steps in found.first_reach]
    if reached != (None if found.success is None else list(found.success)):
        raise ValueError(f"{path}: 'success' and 'first_reach' do not name the same episodes")
    if len(found.reward_curve) != steps:
        raise ValueError(f"{path}: 'reward_curve' has not one entry for each of the {steps} steps")


def _adds_up(cell: Cell) -> bool:
    """Whether the returns add up to the reward curve, which is rounded to four digits."""
    count, total = len(cell.seeds), sum(cell.returns)
    if all(value.is_integer() for value in cell.returns):  # rewards of 0 and 1: what was rounded is known
        return sum(round(mean * count) for mean in cell.reward_curve) == total
    return abs(sum(cell.reward_curve) * count - total) <= 0.5e-4 * count * len(cell.reward_curve) + 1e-6 * abs(total)


File = TypeVar("File", bound=Result)
adapter = cache(TypeAdapter)
"""Checks JSON against a dataclass."""


def read(path: Path, kind: type[File]) -> File:
    """A result from its JSON file.

    Raises FileNotFoundError if there is no such file, NewerSchemaError for one of a newer schema, and ValueError, naming the
    file, for anything else that is not a whole one.
    """
    what = kind.__name__.lower()
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no {what} {path}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
        raise ValueError(f"{path} is not a file of at most {LARGEST // 2**20} MiB")
    text = path.read_bytes()
    try:
        data = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if type(schema) is int and schema > SCHEMA:
        raise NewerSchemaError(f"{path} is of schema {schema}: a newer dfplan wrote it, this one reads schema {SCHEMA}")
    if schema != SCHEMA:
        raise ValueError(f"{path} is not a {what} of schema {SCHEMA}")
    try:
        found: File = adapter(kind).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is not a whole {what} ({place}: {first['msg']})") from error
    if set(found.key) != set(KEY):
        raise ValueError(f"{path}: 'key' must have the entries {', '.join(KEY)}")
    return found
