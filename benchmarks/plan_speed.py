"""Time one full plan of a planning agent, for a single start, and say how much memory it took.

    python benchmarks/plan_speed.py --env maze2d-large
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from dfplan import command
from dfplan.benchmarks import own, play, provenance, rows, speed
from dfplan.benchmarks.protocol import TUNING_SEEDS
from dfplan.benchmarks.store import Wanted
from dfplan.envs.registry import find, task


@dataclass(frozen=True)
class Settings:
    """What to time."""

    env: str = "maze2d-large"
    """Environment, with or without its version."""
    agents: tuple[str, ...] = tuple(name for name in rows.ROWS if name.startswith("diffusion-forcing"))
    """Rows of the benchmark that plan."""
    plans: int = 30
    """Timed plans of each agent, each from another start."""
    threads: tuple[int, ...] = tuple(range(1, speed.THREADS + 1))
    """Numbers of CPU threads to try."""
    device: str = "cpu"
    """cpu, cuda, or one of several as in cuda:1."""


def check(settings: Settings) -> str:
    """The environment's id. Raises ValueError or KeyError, with one sentence, for settings that cannot be used."""
    if not settings.agents:
        raise ValueError("expected one or more agents, not none")
    if not 1 <= settings.plans < len(TUNING_SEEDS):
        raise ValueError(f"plans must lie in 1..{len(TUNING_SEEDS) - 1}, not {settings.plans}")
    if min(settings.threads, default=0) < 1:
        raise ValueError("threads must be one or more numbers of at least 1")
    rows.require_device(settings.device)
    return find(settings.env).env_id


def time_plans(name: str, env_id: str, settings: Settings, threads: int) -> np.ndarray:
    """Milliseconds (plans,) of an agent's plans. ValueError for an agent that does not plan, or fails."""
    (seed, *_) = rows.row(name).training_seeds(task(env_id))
    agent = play.build(Wanted(name, name, env_id, seed, settings.device))
    if not hasattr(agent, "plan"):
        raise ValueError(f"the agent {name!r} does not plan")
    speed.use_threads(threads)
    try:
        return speed.time_plans(agent, env_id, settings.plans)
    except Exception as error:
        raise ValueError(f"the agent {name!r} failed to plan: {own.blame(error)}") from error


@command.with_arguments(Settings, __doc__)
def main(settings: Settings) -> None:
    """Time the plans and show a table."""
    machine = provenance.hardware()
    table = Table(title=f"one plan, batch 1, {settings.env}, {settings.device}, {machine['cpu']}")
    for column in ("agent", "threads", "median ms", "p95 ms", "longest ms"):
        table.add_column(column, justify="left" if column == "agent" else "right")
    env_id = check(settings)
    for name in settings.agents:
        for threads in settings.threads:
            times = time_plans(name, env_id, settings, threads)
            figures = (np.median(times), np.quantile(times, 0.95), times.max())
            table.add_row(name, str(threads), *(f"{figure:.1f}" for figure in figures))
    command.console().print(table)
    print(f"peak memory of this process: {speed.peak_memory_mib():.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
