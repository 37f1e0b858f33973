"""Result files: what they hold, where they lie, and how they are written and read.

    results/maze2d-large/diffusion-forcing/seed0.json     a cell: one agent in one environment, weights of training seed 0
    results/maze2d-large/expert/untrained.json            a cell of an agent that is not trained
    results/maze2d-large/expert/.untrained.json           the finished batches of a cell that is not whole yet
    results/maze2d-large/expert/timing.json               how long decisions take, once for all training seeds

Tables and plots are made from these files alone. Each is written whole or not at all, and an old cell stays until the new
one is whole. Processes that write into the same environment's folder do so one after another.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dfplan.benchmarks.protocol import Episodes
from dfplan.envs.registry import short_name
from dfplan.locks import hold
from dfplan.whole_files import opened, write_whole

SCHEMA: Literal[2] = 2
RECORDED = Path(__file__).resolve().parent / "recorded"
"""The tree of the results that dfplan publishes, in a checkout."""
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Key:
    """What a result depends on, each a sha256 in hex."""

    code: str
    config: str
    weights: str | None
    """None where there are none."""
    protocol: str

    __pydantic_config__ = STRICT

    def others(self, other: Key) -> list[str]:
        """Names of the entries that differ."""
        return [entry.name for entry in fields(self) if getattr(self, entry.name) != getattr(other, entry.name)]


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a cell and a timing have in common."""

    env_id: str
    agent: str
    """Name of its row."""
    training_seed: int | None
    """Seed of the training that made the weights, None for an agent that is not trained."""
    device: str
    key: Key
    hardware: dict[str, Any]
    commit: str | None
    """Of the source tree, with '+' if it had changes; None outside a git checkout."""
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """UTC, ISO 8601."""
    files: dict[str, str] = field(default_factory=dict)
    """sha256 of each file that a user's own agent read while it was made and tried, by path; empty for registered rows."""
    schema: Literal[2] = SCHEMA

    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Cell(Result, Episodes):
    """All episodes of one agent in one environment with one training seed; the reward curve is rounded to four digits."""

    about: str
    execution: str
    """What turns its plans or states into actions."""
    episode_steps: int
    reference: dict[str, float] | None = None
    """The raw returns that the normalized score calls 0 ('min') and 100 ('max'), where it has such a score."""
    batch: int
    """Episodes played in lockstep."""
    lengths: tuple[int, ...] | None = None  # type: ignore[assignment]
    """None: all have `episode_steps`."""
    parameters: int | None
    config: dict[str, Any]
    card: dict[str, Any] | None
    """Where the weights come from: command, seed, data fingerprint, training time."""
    command: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        """ValueError unless there is an entry for each seed, and what says the same agrees."""
        counted = (self.returns, self.lengths, self.success, self.first_reach)
        if not self.seeds or any(len(one) != len(set(self.seeds)) for one in (self.seeds, *counted) if one is not None):
            raise ValueError("there must be one entry for each of one or more different seeds")
        reached = None if self.first_reach is None else tuple(steps is not None for steps in self.first_reach)
        if reached != (None if self.success is None else tuple(self.success)):
            raise ValueError("'success' and 'first_reach' do not name the same episodes")
        if self.reward_curve and len(self.reward_curve) != self.episode_steps:
            raise ValueError(f"'reward_curve' has not one entry for each of the {self.episode_steps} steps")
        mean = sum(self.returns) / len(self.seeds)
        if self.reward_curve and abs(sum(self.reward_curve) - mean) > 5e-5 * self.episode_steps + 1e-6 * abs(mean):
            raise ValueError("the returns are not those of its reward curve")


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


@dataclass(frozen=True)
class Unfinished:
    """Finished batches of a cell that is not whole yet, and what they depend on."""

    key: Key
    files: dict[str, str]
    batches: list[Episodes]
    schema: Literal[2] = SCHEMA

    __pydantic_config__ = STRICT


class NewerSchemaError(ValueError):
    """A newer dfplan wrote a file, which must not be replaced; the message is one sentence that names it."""


def agent_folder(agent: str) -> str:
    """The agent's name with '_' for whatever does not belong into a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", agent)


def seed_name(training_seed: int | None) -> str:
    """'seed1', or 'untrained'."""
    return "untrained" if training_seed is None else f"seed{training_seed}"


def cell_path(folder: str | Path, env_id: str, agent: str, training_seed: int | None) -> Path:
    """Where the tree in `folder` keeps a cell; `timing.json` lies beside it, and '.seed0.json' while it is not whole."""
    return Path(folder) / short_name(env_id) / agent_folder(agent) / f"{seed_name(training_seed)}.json"


def write(folder: str | Path, result: Cell | Timing) -> Path:
    """Write a result into the tree in `folder` and return its path. ValueError for a number that is not finite."""
    path = cell_path(folder, result.env_id, result.agent, result.training_seed)
    return write_file(path if isinstance(result, Cell) else path.with_name("timing.json"), result)


def write_file(path: Path, content: Cell | Timing | Unfinished) -> Path:
    """Write one file of the tree and return its path. ValueError for a number that is not finite."""
    write_whole(path, json.dumps(asdict(content), indent=1, allow_nan=False, default=str) + "\n")
    return path


File = TypeVar("File", Cell, Timing, Unfinished)
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read(path: str | Path, kind: type[File]) -> File:
    """What a file holds.

    Raises OSError for what cannot be read, NewerSchemaError for a file of a newer schema, and ValueError, naming the file, for
    anything else that is not a whole one.
    """
    with opened(path) as file:
        text = file.read()
    try:
        found: File = _adapter(kind).validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        for one in errors:
            if one["loc"] == ("schema",) and isinstance(one["input"], int) and one["input"] > SCHEMA:
                newer = f"{path} is of schema {one['input']}: a newer dfplan wrote it, this one reads schema {SCHEMA}"
                raise NewerSchemaError(newer) from error
        place = ".".join(map(str, errors[0]["loc"]))
        reason = f"{place}: {errors[0]['msg']}".removeprefix(": ")
        raise ValueError(f"{path} is not a whole {kind.__name__.lower()} ({reason})") from error
    return found


def cells_in(folder: str | Path) -> list[Cell]:
    """All cells of a tree, ordered by environment, agent and training seed. Raises what `read` raises."""
    return [read(path, Cell) for path in sorted(Path(folder).glob("*/*/[su]*.json"))]


def timings_in(folder: str | Path) -> list[Timing]:
    """All timings of a tree, ordered by environment and agent. Raises what `read` raises."""
    return [read(path, Timing) for path in sorted(Path(folder).glob("*/*/timing.json"))]


@contextmanager
def writing(folder: Path, env_ids: Iterable[str]) -> Iterator[None]:
    """Keep other runs out of the folders of some environments, after waiting for those that are in one.

    What killed runs left half written there is removed, and folders that stay empty are.
    """
    with ExitStack() as ended:
        for name in sorted(map(short_name, env_ids)):  # the same order in all runs: none waits in a circle
            place = folder / name
            for new in reversed([one for one in (place, *place.parents) if not one.exists()]):
                ended.callback(_remove_empty, new)
            held = False
            while not held:
                place.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # the run that this one waited for has removed its empty folder
                    ended.enter_context(hold(place / ".lock", f"which plays {name} in {folder}", wait=True))
                    held = True
            for partial in place.rglob(".*.partial"):
                if not partial.is_dir() or partial.is_symlink():
                    partial.unlink(missing_ok=True)
        yield


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
