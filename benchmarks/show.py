"""What a run shows and writes of one environment: the table, and the pictures where its suite has any."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group

from dfplan.benchmarks import jobs
from dfplan.benchmarks.protocol import batches
from dfplan.benchmarks.results import Cell, Timing
from dfplan.benchmarks.suites import suite
from dfplan.benchmarks.wanted import Wanted
from dfplan.envs.registry import Task, short_name
from dfplan.worker_processes import Workers


def show(
    machine: Workers,
    where: Task,
    played: Mapping[Wanted, Cell],
    times: Mapping[Wanted, Timing],
    folder: Path,
    say: Callable[[str], None],
) -> tuple[Group, list[str]] | None:
    """Write the files; the table for the screen, and the files' names. None for an environment that nobody played."""
    from dfplan.benchmarks.report import summaries, tables  # late: pandas and matplotlib take seconds to import

    mine = {wanted: cell for wanted, cell in played.items() if wanted.env_id == where.env_id}
    if not mine:
        return None
    place = folder / short_name(where.env_id)
    summary = summaries.summarize(list(mine.values()), [timing for timing in times.values() if timing.env_id == where.env_id])
    tables.write(place, summary)
    pictures = suite.of(where).pictures
    if pictures is not None:
        draw(pictures, machine, where, mine, place, say)
    names = [name for name in ("table.md", "table.csv", "paths.png", "denoising.gif") if (place / name).exists()]
    return tables.to_rich(summary), names


def draw(
    pictures: Callable[..., None],
    machine: Workers,
    where: Task,
    mine: Mapping[Wanted, Cell],
    place: Path,
    say: Callable[[str], None],
) -> None:
    """Let the suite write its pictures: of each agent the paths of its first cell, and one plan being denoised."""
    cells = {cell.agent: (wanted, cell) for wanted, cell in reversed(list(mine.items()))}

    def ask(agent: str, what: str, job: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return machine.call(f"{what} of {agent}", job, cells[agent][0], *arguments)
        except (ValueError, KeyError, OSError, RuntimeError) as error:
            say(f"no {what} of {agent} is drawn: {error}")
            return None

    pictures(
        place,
        where,
        {agent: cell for agent, (_, cell) in reversed(cells.items())},
        lambda agent: ask(agent, "path", jobs.record_paths, batches(cells[agent][0].seeds)[0]),
        lambda agent, seed: ask(agent, "plan", jobs.record_plan, seed),
    )
