"""What is on disk of the wanted results: whole ones, and the finished batches of unfinished ones.

    results/maze2d-large/diffusion-forcing/seed0.json       a cell: an agent whose weights were trained with seed 0
    results/maze2d-large/expert/untrained.json              an agent that is not trained
    results/maze2d-large/expert/untrained.paths.npz         paths and plans of its first episodes, for the picture
    results/maze2d-large/expert/timing.json                 how long decisions take, measured once for all its seeds
    results/maze2d-large/expert/.untrained/batch-0003.json  a finished batch of a cell that is not whole yet

Every file carries the key of what it depends on, and is written whole or not at all: a kill at any moment costs no more
than the batches that were being played. What cannot be used is said and played again; an old cell stays until the new one
is whole. Processes that write into the same environment's folder do so one after another (`dfplan.locks`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dfplan.benchmarks import provenance
from dfplan.benchmarks.protocol import BATCH, Episodes, batches, join
from dfplan.benchmarks.results import (
    SCHEMA,
    STRICT,
    Cell,
    NewerSchemaError,
    Timing,
    check_episodes,
    read,
    read_cell,
    read_timing,
)
from dfplan.benchmarks.rows import Row
from dfplan.envs.reference import reference
from dfplan.envs.registry import Task, short_name
from dfplan.locks import hold
from dfplan.whole_files import write_whole

_AFRESH = "afresh"
"""File among the batches of a cell that is played anew though there is a whole one: so many episodes of it."""


@dataclass(frozen=True)
class Batch:
    """A finished batch of a cell that is not whole yet."""

    episodes: Episodes
    key: dict[str, str | None]
    files: dict[str, str]
    """As of a cell."""
    schema: int = SCHEMA

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Wanted:
    """A result that is to be in the table, there already or not; what a worker process needs to know of it."""

    name: str
    """Of the row, as tables show it."""
    agent: str
    """As `dfplan.benchmarks.rows.row` takes it."""
    env_id: str
    training_seed: int | None
    device: str
    key: provenance.Key | None = None
    """A process whose code or weights are others refuses to play."""
    own: bool = False
    """Whether it is of a user's own agent, whose results say which files it read."""
    seeds: tuple[int, ...] = ()
    """Reset seeds of a cell's episodes."""
    steps: int = 0
    """Of one episode."""
    decisions: int = 0
    """Of a timing."""

    def __str__(self) -> str:
        return f"{self.name} on {self.env_id} ({seed_name(self.training_seed)})"

    @property
    def group(self) -> tuple[str, str]:
        """Cells that differ in their training seed only are a group."""
        return self.env_id, self.name

    def changed(self, found: Cell | Timing | Batch) -> str | None:
        """What has changed since a result was made, in words; None if nothing that it depends on has."""
        parts = [kind for kind, value in key_of(self).items() if found.key.get(kind) != value]
        if parts:
            return f"its {' and '.join(parts)} changed"
        if self.own and not found.files:
            return "it does not say which files the agent read"
        files = provenance.changed(found.files)
        return f"{' and '.join(files[:3])} changed" if files else None


def key(row: Row, task: Task, training_seed: int | None, protocol: Mapping[str, Any]) -> provenance.Key:
    """What a row's results on a task depend on, with what of the protocol decides about them."""
    path, member = row.weights_file(task, training_seed), training_seed if row.stacked > 1 else None
    chosen = {"agent": row.agent, "options": dict(row.options), "member": member}
    return provenance.Key(
        code=provenance.code(),
        config=provenance.config(chosen),
        weights=None if path is None else provenance.weights(path),
        protocol=provenance.config(protocol),
    )


def key_of(wanted: Wanted) -> dict[str, str | None]:
    """The key as files hold it."""
    return {} if wanted.key is None else wanted.key.to_dict()


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
    return Path(folder) / short_name(env_id) / agent_folder(agent) / "timing.json"


def paths_path(folder: str | Path, wanted: Wanted) -> Path:
    """Where the tree in `folder` keeps the paths of a cell's first episodes: `dfplan.benchmarks.recording.read_paths`."""
    return _path(folder, wanted).with_suffix(".paths.npz")


def write_cell(folder: str | Path, cell: Cell) -> Path:
    """Write a cell into the tree in `folder` and return its path. ValueError for a number that is not finite."""
    return _write(cell_path(folder, cell.env_id, cell.agent, cell.training_seed), cell)


def write_timing(folder: str | Path, timing: Timing) -> Path:
    """Write a timing into the tree in `folder` and return its path. ValueError for a number that is not finite."""
    return _write(timing_path(folder, timing.env_id, timing.agent), timing)


def _write(path: Path, result: Any) -> Path:
    write_whole(path, json.dumps(dataclasses.asdict(result), indent=1, allow_nan=False, default=str) + "\n")
    return path


def look(folder: Path, wanted: Wanted) -> Cell | str | None:
    """The wanted cell; why that which is there cannot be used, in words; None if there is none.

    Raises ValueError, with one sentence, where a cell must not be replaced by the wanted one: it is of a newer schema, of
    another agent, environment or block, or has more episodes.
    """
    path = _path(folder, wanted)
    cell = _look(path, read_cell)
    if not isinstance(cell, Cell):
        return cell
    if (cell.agent, cell.env_id) != (wanted.name, wanted.env_id):
        raise ValueError(f"{path} is of {cell.agent} on {cell.env_id}, not of {wanted}: choose another --output")
    if cell.seeds[0] != wanted.seeds[0]:
        raise ValueError(
            f"{path} holds episodes from seed {cell.seeds[0]} on, not from {wanted.seeds[0]}: choose another --output"
        )
    there, asked = len(cell.seeds), len(wanted.seeds)
    difference = wanted.changed(cell) or (None if there >= asked else f"it has {there} of {asked} episodes")
    if difference is None and _afresh(folder, wanted) != asked:
        return cell
    if there > asked:
        raise _fewer(path, there, asked)
    return difference or "an interrupted --fresh goes on"


def look_for_timing(folder: Path, wanted: Wanted, hardware: Mapping[str, Any]) -> Timing | str | None:
    """The wanted timing; why that which is there cannot be used, in words; None if there is none, or an older one.

    Raises ValueError for one of a newer schema, which must not be replaced.
    """
    found = _look(timing_path(folder, wanted.env_id, wanted.name), read_timing)
    if not isinstance(found, Timing):
        return found
    same = found.agent == wanted.name and found.hardware == hardware and found.decisions >= wanted.decisions
    return found if same and wanted.changed(found) is None else None


def _look(path: Path, read: Callable[[Path], Any]) -> Any:
    """What a file holds, why it cannot be read, or None if there is none. ValueError where none can be written."""
    reason = None
    try:
        if path.exists():
            return read(path)
    except NewerSchemaError as error:
        raise ValueError(f"{error}: choose another --output") from error
    except (ValueError, OSError) as error:
        reason = str(error)
    if path.is_dir() and not path.is_symlink():
        raise ValueError(f"{path} is a folder, where a result is to be written: choose another --output")
    taken = next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)
    if taken is not None:
        raise ValueError(f"{taken} is a file, where a folder of results is to be: choose another --output")
    return reason


def check(folder: Path, cells: Iterable[Wanted], timings: Iterable[Wanted], *, fresh: bool) -> None:
    """Raise ValueError, with one sentence, where a file that is there must not be replaced, or none can be written.

    `fresh`: cells are to be replaced that could be used.
    """
    for cell in cells:
        found = look(folder, cell)
        if fresh and isinstance(found, Cell) and len(found.seeds) > len(cell.seeds):
            raise _fewer(_path(folder, cell), len(found.seeds), len(cell.seeds))
    for timing in timings:
        look_for_timing(folder, timing, {})


def _fewer(path: Path, there: int, new: int) -> ValueError:
    return ValueError(
        f"{path} holds {there} episodes, which {new} new ones would replace: choose another --output, or --episodes {there}"
    )


def begin_afresh(folder: Path, wanted: Wanted) -> None:
    """Delete the finished batches of a cell, and note that a whole one is not to be used until it is played anew."""
    shutil.rmtree(_parts(folder, wanted), ignore_errors=True)
    write_whole(_parts(folder, wanted) / _AFRESH, str(len(wanted.seeds)))


def _afresh(folder: Path, wanted: Wanted) -> int | None:
    """How many episodes an interrupted run was to play anew."""
    try:
        return int((_parts(folder, wanted) / _AFRESH).read_bytes()[:20])
    except (OSError, ValueError):
        return None


def keep(folder: Path, wanted: Wanted, index: int, batch: Batch, paths: bytes | None = None) -> None:
    """Keep a finished batch; of the first one also its paths."""
    if paths is not None:
        write_whole(_parts(folder, wanted) / "paths.npz", paths)
    _write(_parts(folder, wanted) / _batch_name(index), batch)


def kept(folder: Path, wanted: Wanted, say: Callable[[str], None] = lambda sentence: None) -> dict[int, Batch]:
    """The finished batches of a cell by their index, where nothing has changed since; `say` is given damaged ones."""
    found = {}
    for index, seeds in enumerate(batches(wanted.seeds)):
        path = _parts(folder, wanted) / _batch_name(index)
        try:
            batch = read(path, Batch)
            check_episodes(path, batch.episodes, wanted.steps)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            say(f"a batch is played again: {error}")
            continue
        if wanted.changed(batch) is None and batch.episodes.seeds == tuple(seeds):
            found[index] = batch
    return found


def finish(
    folder: Path, wanted: Wanted, parts: Sequence[Episodes], description: Mapping[str, Any], origin: Mapping[str, Any]
) -> Cell:
    """Write the cell of all its batches, in order, and delete them on disk.

    description: about, execution, parameters, config, card and files of the agent; origin: command, commit, versions and
    hardware.
    """
    entry, episodes = reference(wanted.env_id), join(parts)
    lists: dict[str, Any] = {name: list(getattr(episodes, name)) for name in ("seeds", "returns", "success", "first_reach")}
    cell = Cell(
        env_id=wanted.env_id,
        agent=wanted.name,
        training_seed=wanted.training_seed,
        episode_steps=wanted.steps,
        reference={"min": entry.min_return, "max": entry.max_return},
        batch=BATCH,
        **lists,
        reward_curve=[round(reward, 4) for reward in episodes.reward_curve],
        seconds=round(episodes.seconds, 1),
        device=wanted.device,
        key=key_of(wanted),
        created=now(),
        **description,
        **origin,
    )
    if (_parts(folder, wanted) / "paths.npz").exists():  # else it was moved by a run that was killed just then
        os.replace(_parts(folder, wanted) / "paths.npz", paths_path(folder, wanted))
    write_cell(folder, cell)
    shutil.rmtree(_parts(folder, wanted), ignore_errors=True)
    return cell


@contextmanager
def writing(folder: Path, env_ids: Iterable[str]) -> Iterator[None]:
    """Keep other runs out of the folders of some environments, after waiting for those that are in one.

    What killed runs left half written there is removed.
    """
    since = now()
    with ExitStack() as locks:
        for name in sorted(map(short_name, env_ids)):  # the same order in all runs: none waits in a circle
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            locks.enter_context(hold(place / ".lock", f"which plays {name} in {folder} since {since}", wait=True))
            for partial in place.rglob(".*.partial"):
                if not partial.is_dir() or partial.is_symlink():
                    partial.unlink(missing_ok=True)
        yield


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _path(folder: str | Path, wanted: Wanted) -> Path:
    return cell_path(folder, wanted.env_id, wanted.name, wanted.training_seed)


def _parts(folder: Path, wanted: Wanted) -> Path:
    path = _path(folder, wanted)
    return path.with_name(f".{path.stem}")


def _batch_name(index: int) -> str:
    return f"batch-{index:04d}.json"
