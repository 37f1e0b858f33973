"""What a run writes beside the cells, for each environment: table.md, table.csv, paths.png and denoising.gif."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from dfplan.benchmarks import fingerprint, store
from dfplan.benchmarks.cells import Cell, Timing, env_folder
from dfplan.benchmarks.protocol import Episodes
from dfplan.benchmarks.workers import Denoising
from dfplan.envs.registry import Task
from dfplan.whole_files import write_whole

_STAMP = ".drawn"
"""File that says of which cells the pictures are."""
Record = Callable[[Cell, int], Denoising | None]
"""From a cell of an agent that plans, and a reset seed, to the denoising of its plan there."""


def write_tables(folder: Path, task: Task, cells: Sequence[Cell], timings: Sequence[Timing]) -> None:
    """Write table.md and table.csv of one environment from its cells."""
    from dfplan.benchmarks import report

    place = folder / env_folder(task.env_id)
    write_whole(place / "table.md", report.to_markdown(cells, timings))
    write_whole(place / "table.csv", report.to_csv(cells, timings))


def draw(folder: Path, task: Task, cells: Sequence[Cell], record: Record) -> None:
    """Draw paths.png, and denoising.gif of the first agent that plans; again only if the cells have changed since."""
    place = folder / env_folder(task.env_id)
    stamp = fingerprint.config({"cells": [[cell.agent, cell.training_seed, cell.key, cell.created] for cell in cells]})
    if not _is_drawn(place, stamp):
        _draw(place, task, _of_each_agent(folder, cells), record)
        write_whole(place / _STAMP, stamp)


def names(folder: Path, task: Task) -> list[str]:
    """Names of the files of one environment that are there."""
    place = folder / env_folder(task.env_id)
    return [name for name in ("table.md", "table.csv", "paths.png", "denoising.gif") if (place / name).exists()]


def _is_drawn(place: Path, stamp: str) -> bool:
    path = place / _STAMP
    return (place / "paths.png").exists() and path.is_file() and path.read_bytes() == stamp.encode()


def _of_each_agent(folder: Path, cells: Sequence[Cell]) -> dict[str, tuple[Cell, Episodes]]:
    """The first cell of each agent with its first episodes; agents whose file of paths is missing are left out."""
    found: dict[str, tuple[Cell, Episodes]] = {}
    for cell in cells:
        episodes = store.first_episodes(folder, cell) if cell.agent not in found else None
        if episodes is not None:
            found[cell.agent] = cell, episodes
    return found


def _draw(place: Path, task: Task, agents: Mapping[str, tuple[Cell, Episodes]], record: Record) -> None:
    from dfplan.benchmarks import pictures

    if agents:
        shown = {agent: episodes for agent, (_, episodes) in agents.items()}
        _whole(place / "paths.png", lambda file: pictures.draw_paths(file, task.layout, shown))
    denoising = _denoising(agents, record)
    if denoising is None:
        (place / "denoising.gif").unlink(missing_ok=True)  # of an earlier run
    else:
        _whole(place / "denoising.gif", lambda file: pictures.animate(file, task.layout, denoising))


def _denoising(agents: Mapping[str, tuple[Cell, Episodes]], record: Record) -> Denoising | None:
    """Of the longest plan of the first agent that plans."""
    for cell, episodes in agents.values():
        lengths = [0 if plan is None else len(plan) for plan in episodes.plans]
        if max(lengths) > 0:
            return record(cell, cell.seeds[lengths.index(max(lengths))])
    return None


def _whole(path: Path, draw: Callable[[BinaryIO], None]) -> None:
    file = io.BytesIO()
    draw(file)
    write_whole(path, file.getvalue())
