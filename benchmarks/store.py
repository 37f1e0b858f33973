"""What is on disk of the wanted cells: whole ones, and the finished batches of unfinished ones.

    results/maze2d-large/expert/untrained.json                  a whole cell
    results/maze2d-large/expert/untrained.paths.npz             paths and plans of its first episodes, for the picture
    results/maze2d-large/expert/.untrained/batch-0003.json      a finished batch of a cell that is not whole yet

Every file carries the key of what it depends on, and is written whole or not at all: a kill at any moment costs no more
than the batches that were being played. What cannot be used is said and played again; an old cell stays until the new one
is whole. Processes that write into the same environment's folder do so one after another (`dfplan.locks`).
"""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dfplan.benchmarks.cells import (
    LARGEST,
    SCHEMA,
    STRICT,
    Cell,
    NewerSchemaError,
    Timing,
    cell_path,
    check_episodes,
    env_folder,
    read_cell,
    read_file,
    read_timing,
    timing_path,
    to_json,
    write_cell,
)
from dfplan.benchmarks.protocol import BATCH, Episodes, batches, join
from dfplan.benchmarks.wanted import Wanted, WantedTiming
from dfplan.envs.reference import reference
from dfplan.whole_files import write_whole

_LISTS = ("seeds", "returns", "success", "first_reach")
_AFRESH = "afresh"
"""File among the batches of a cell that is played anew though there is a whole one: so many episodes of it."""


@dataclass(frozen=True)
class Batch:
    """A finished batch of a cell that is not whole yet, as its file holds it."""

    seeds: list[int]
    returns: list[float]
    success: list[bool]
    first_reach: list[int | None]
    reward_curve: list[float]
    seconds: float
    key: dict[str, str | None]
    files: dict[str, str]
    schema: int = SCHEMA

    __pydantic_config__ = STRICT


def check(folder: Path, cells: Iterable[Wanted], times: Iterable[WantedTiming], *, fresh: bool) -> None:
    """Raises ValueError, with one sentence, where a file that is there must not be replaced, or none can be written.

    ``fresh``: cells are to be replaced that could be used.
    """
    for cell in cells:
        found = look(folder, cell)
        if fresh and isinstance(found, Cell) and len(found.seeds) > len(cell.seeds):
            raise _fewer(_path(folder, cell), found, cell)
    for timing in times:
        look_for_timing(folder, timing, {})


def whole(folder: Path, wanted: Wanted) -> Cell | None:
    """The wanted cell; None if there is none that can be used."""
    found = look(folder, wanted)
    return found if isinstance(found, Cell) else None


def look(folder: Path, wanted: Wanted) -> Cell | str | None:
    """The wanted cell; why that which is there cannot be used, in words; None if there is none.

    Raises ValueError, with one sentence, where a cell must not be replaced by the wanted one: it is of a newer schema, of
    another agent, environment or block, or has more episodes.
    """
    path = _path(folder, wanted)
    try:
        cell = read_cell(path)
    except NewerSchemaError as error:
        raise ValueError(f"{error}: choose another --output") from error
    except FileNotFoundError:
        _check_place(path)
        return None
    except (ValueError, OSError) as error:
        _check_place(path)
        return str(error)
    if (cell.agent, cell.env_id) != (wanted.name, wanted.task.env_id):
        raise ValueError(f"{path} is of {cell.agent} on {cell.env_id}, not of {wanted}: choose another --output")
    if cell.seeds[0] != wanted.seeds[0]:
        raise ValueError(
            f"{path} holds episodes from seed {cell.seeds[0]} on, not from {wanted.seeds[0]}: choose another --output"
        )
    difference = wanted.differs(cell)
    if difference is None and _afresh(folder, wanted) != len(wanted.seeds):
        return cell
    if len(cell.seeds) > len(wanted.seeds):
        raise _fewer(path, cell, wanted)
    return difference or "an interrupted --fresh goes on"


def _fewer(path: Path, cell: Cell, wanted: Wanted) -> ValueError:
    return ValueError(
        f"{path} holds {len(cell.seeds)} episodes, which {len(wanted.seeds)} new ones would replace: choose another "
        f"--output, or --episodes {len(cell.seeds)}"
    )


def _check_place(path: Path) -> None:
    """ValueError if no cell can be written there."""
    if path.is_dir() and not path.is_symlink():
        raise ValueError(f"{path} is a folder, where a result is to be written: choose another --output")
    taken = next((folder for folder in path.parents if folder.exists() and not folder.is_dir()), None)
    if taken is not None:
        raise ValueError(f"{taken} is a file, where a folder of results is to be: choose another --output")


def look_for_timing(folder: Path, wanted: WantedTiming, hardware: dict[str, Any]) -> Timing | str | None:
    """The wanted timing; why that which is there cannot be used, in words; None if there is none, or an older one.

    Raises ValueError for one of a newer schema, which must not be replaced.
    """
    path = timing_path(folder, wanted.task.env_id, wanted.name)
    try:
        timing = read_timing(path)
    except NewerSchemaError as error:
        raise ValueError(f"{error}: choose another --output") from error
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        _check_place(path)
        return str(error)
    return timing if wanted.differs(timing, hardware) is None else None


def timed(folder: Path, wanted: WantedTiming, hardware: dict[str, Any]) -> Timing | None:
    """The wanted timing; None if there is none that can be used."""
    found = look_for_timing(folder, wanted, hardware)
    return found if isinstance(found, Timing) else None


def begin_afresh(folder: Path, wanted: Wanted) -> None:
    """Forget the finished batches of a cell, and remember that a whole one is not to be used until it is played anew."""
    shutil.rmtree(_parts(folder, wanted), ignore_errors=True)
    write_whole(_parts(folder, wanted) / _AFRESH, str(len(wanted.seeds)))


def _afresh(folder: Path, wanted: Wanted) -> int | None:
    """How many episodes an interrupted run was to play anew."""
    try:
        return int((_parts(folder, wanted) / _AFRESH).read_bytes()[:20])
    except (OSError, ValueError):
        return None


def remove_leftovers(folder: Path, env_id: str) -> None:
    """Remove what killed runs left half written in an environment's folder; only where no other process writes."""
    for partial in (folder / env_folder(env_id)).rglob(".*.partial"):
        if not partial.is_dir() or partial.is_symlink():
            partial.unlink(missing_ok=True)


def keep(folder: Path, wanted: Wanted, index: int, episodes: Episodes, files: Mapping[str, str]) -> None:
    """Keep a finished batch; of the first one also paths, plans and goals. ``files``: as of the cell."""
    if index == 0:
        write_whole(_parts(folder, wanted) / "paths.npz", _drawing(episodes))
    lists: dict[str, Any] = {name: list(getattr(episodes, name)) for name in _LISTS}
    curve, key = episodes.reward_curve.tolist(), wanted.key.to_dict()
    batch = Batch(**lists, reward_curve=curve, seconds=episodes.seconds, key=key, files=dict(files))
    write_whole(_parts(folder, wanted) / _batch_name(index), to_json(dataclasses.asdict(batch)))


def kept(
    folder: Path, wanted: Wanted, say: Callable[[str], None] = lambda sentence: None, *, unchanged: bool = True
) -> dict[int, Episodes]:
    """The finished batches of a cell by their index, without paths and plans; ``say`` is told of damaged ones.

    ``unchanged``: leave out those of a user's own agent whose files have changed since.
    """
    found = {}
    for index, seeds in enumerate(batches(wanted.seeds)):
        path = _parts(folder, wanted) / _batch_name(index)
        try:
            batch = _read_batch(path, wanted.task.max_episode_steps)
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            say(f"a batch is played again: {error}")
            continue
        valid = wanted.accepts(batch.key, batch.files) if unchanged else batch.key == wanted.key.to_dict()
        if valid and batch.seeds == list(seeds):
            lists: dict[str, Any] = {name: tuple(getattr(batch, name)) for name in _LISTS}
            curve = np.array(batch.reward_curve)
            found[index] = Episodes(**lists, reward_curve=curve, paths=(), plans=(), goals=(), seconds=batch.seconds)
    return found


def _read_batch(path: Path, steps: int) -> Batch:
    batch = read_file(path, Batch)
    check_episodes(path, batch.seeds, batch.returns, batch.success, batch.first_reach)
    if len(batch.reward_curve) != steps:
        raise ValueError(f"{path}: 'reward_curve' has not one entry for each of the {steps} steps")
    return batch


def finish(folder: Path, wanted: Wanted, description: Mapping[str, Any], origin: Mapping[str, Any]) -> Cell:
    """Make the cell of its batches, all of which must be kept, and delete them. ValueError if one is missing.

    description: of the agent, by `dfplan.benchmarks.rows.Row.description`; origin: command, commit, versions, hardware.
    """
    parts = kept(folder, wanted, unchanged=False)  # an agent may well write, while it plays, what it read before
    if len(parts) < len(batches(wanted.seeds)):
        raise ValueError(f"{wanted} has {len(parts)} of {len(batches(wanted.seeds))} batches")
    episodes = join([parts[index] for index in sorted(parts)])
    entry = reference(wanted.task.env_id)
    lists: dict[str, Any] = {name: list(getattr(episodes, name)) for name in _LISTS}
    cell = Cell(
        env_id=wanted.task.env_id,
        agent=wanted.name,
        training_seed=wanted.player.training_seed,
        episode_steps=wanted.task.max_episode_steps,
        reference={"min": entry.min_return, "max": entry.max_return},
        batch=BATCH,
        **lists,
        reward_curve=[round(float(reward), 4) for reward in episodes.reward_curve],
        seconds=round(episodes.seconds, 1),
        device=wanted.player.device,
        key=wanted.key.to_dict(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **description,
        **origin,
    )
    if (_parts(folder, wanted) / "paths.npz").exists():  # else it was moved by a run that was killed just then
        os.replace(_parts(folder, wanted) / "paths.npz", _paths(_path(folder, wanted)))
    write_cell(folder, cell)
    shutil.rmtree(_parts(folder, wanted), ignore_errors=True)
    return cell


def first_episodes(folder: Path, cell: Cell) -> Episodes | None:
    """The first episodes of a cell with paths and plans, None if the file that holds them is missing.

    ValueError, naming the file, if it is damaged.
    """
    path = _paths(cell_path(folder, cell.env_id, cell.agent, cell.training_seed))
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError(f"it unfolds to more than {LARGEST // 2**20} MiB")
        with np.load(path, allow_pickle=False) as arrays:
            goals = _points(arrays["goals"])
            count = len(goals)
            paths = tuple(_points(arrays[f"path{i}"]) for i in range(count))
            plans = tuple(_points(arrays[f"plan{i}"]) if f"plan{i}" in arrays else None for i in range(count))
        if not 0 < count <= len(cell.seeds) or {len(one) for one in paths} != {cell.episode_steps + 1}:
            raise ValueError("it does not fit the result beside it")
    except (ValueError, OSError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    return Episodes(
        **{name: tuple(getattr(cell, name)[:count]) for name in _LISTS},
        reward_curve=np.array(cell.reward_curve),
        paths=paths,
        plans=plans,
        goals=tuple(goals),
        seconds=cell.seconds,
    )


def write_first_episodes(folder: Path, wanted: Wanted, episodes: Episodes) -> None:
    """Write paths, plans and goals of a cell's first batch anew."""
    write_whole(_paths(_path(folder, wanted)), _drawing(episodes))


def _points(array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise ValueError("it holds other things than points")
    return array


def _paths(path: Path) -> Path:
    return path.with_suffix(".paths.npz")


def _drawing(episodes: Episodes) -> bytes:
    arrays = {f"path{i}": path for i, path in enumerate(episodes.paths)}
    arrays |= {f"plan{i}": plan for i, plan in enumerate(episodes.plans) if plan is not None and np.isfinite(plan).all()}
    file = io.BytesIO()
    np.savez_compressed(file, goals=np.stack(episodes.goals), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _path(folder: Path, wanted: Wanted) -> Path:
    return cell_path(folder, wanted.task.env_id, wanted.name, wanted.player.training_seed)


def _parts(folder: Path, wanted: Wanted) -> Path:
    path = _path(folder, wanted)
    return path.with_name(f".{path.stem}")


def _batch_name(index: int) -> str:
    return f"batch-{index:04d}.json"
