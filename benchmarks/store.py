"""What is on disk of the wanted cells: whole ones, and the finished batches of unfinished ones.

    results/maze2d-large/expert/untrained.json                  a whole cell
    results/maze2d-large/expert/untrained.paths.npz             paths and plans of its first episodes, for the picture
    results/maze2d-large/expert/.untrained/batch-0003.json      a finished batch of a cell that is not whole yet

Every file carries the key of what it depends on, and is written whole or not at all: a kill at any moment costs no more
than the batches that were being played.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dfplan.benchmarks.cells import (
    Cell,
    Timing,
    cell_path,
    read_cell,
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


def whole(folder: Path, wanted: Wanted) -> Cell | None:
    """The wanted cell, None if there is none, or one of other code, weights, settings or episodes."""
    try:
        cell = read_cell(_path(folder, wanted))
    except (FileNotFoundError, ValueError):
        return None
    return cell if wanted.fits(cell) else None


def timed(folder: Path, wanted: WantedTiming, hardware: dict[str, Any]) -> Timing | None:
    """The wanted timing, None if there is none, or one of other code, weights or hardware."""
    try:
        timing = read_timing(timing_path(folder, wanted.task.env_id, wanted.name))
    except (FileNotFoundError, ValueError):
        return None
    return timing if wanted.fits(timing, hardware) else None


def forget(folder: Path, wanted: Wanted) -> None:
    """Delete a cell and its finished batches."""
    _path(folder, wanted).unlink(missing_ok=True)
    shutil.rmtree(_parts(folder, wanted), ignore_errors=True)


def keep(folder: Path, wanted: Wanted, index: int, episodes: Episodes) -> None:
    """Keep a finished batch; of the first one also paths, plans and goals."""
    if index == 0:
        write_whole(_parts(folder, wanted) / "paths.npz", _drawing(episodes))
    content: dict[str, Any] = {name: list(getattr(episodes, name)) for name in _LISTS}
    content |= {
        "reward_curve": episodes.reward_curve.tolist(),
        "seconds": episodes.seconds,
        "key": wanted.key.to_dict(),
    }
    write_whole(_parts(folder, wanted) / _batch_name(index), to_json(content))


def kept(folder: Path, wanted: Wanted) -> dict[int, Episodes]:
    """The finished batches of a cell by their index, without paths and plans."""
    found = {}
    for index, seeds in enumerate(batches(wanted.seeds)):
        try:
            content = json.loads((_parts(folder, wanted) / _batch_name(index)).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        if content["key"] == wanted.key.to_dict() and content["seeds"] == list(seeds):
            lists: dict[str, Any] = {name: tuple(content[name]) for name in _LISTS}
            curve, seconds = np.array(content["reward_curve"]), content["seconds"]
            found[index] = Episodes(**lists, reward_curve=curve, paths=(), plans=(), goals=(), seconds=seconds)
    return found


def finish(folder: Path, wanted: Wanted, description: Mapping[str, Any], origin: Mapping[str, Any]) -> Cell:
    """Make the cell of its batches, all of which must be kept, and delete them. ValueError if one is missing.

    description: of the agent, by `dfplan.benchmarks.registry.Row.description`; origin: command, commit, versions, hardware.
    """
    parts = kept(folder, wanted)
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
        os.replace(_parts(folder, wanted) / "paths.npz", _path(folder, wanted).with_suffix(".paths.npz"))
    write_cell(folder, cell)
    shutil.rmtree(_parts(folder, wanted), ignore_errors=True)
    return cell


def first_episodes(folder: Path, cell: Cell) -> Episodes | None:
    """The first episodes of a cell with paths and plans, None if the file that holds them is missing."""
    path = cell_path(folder, cell.env_id, cell.agent, cell.training_seed).with_suffix(".paths.npz")
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        count = len(arrays["goals"])
        plans = tuple(arrays.get(f"plan{i}") for i in range(count))
        return Episodes(
            **{name: tuple(getattr(cell, name)[:count]) for name in _LISTS},
            reward_curve=np.array(cell.reward_curve),
            paths=tuple(arrays[f"path{i}"] for i in range(count)),
            plans=plans,
            goals=tuple(arrays["goals"]),
            seconds=cell.seconds,
        )


def _drawing(episodes: Episodes) -> bytes:
    arrays = {f"path{i}": path for i, path in enumerate(episodes.paths)}
    arrays |= {f"plan{i}": plan for i, plan in enumerate(episodes.plans) if plan is not None}
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
