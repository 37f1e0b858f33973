"""Time one full plan of a planning agent, for a single start, and say how much memory it took.

python benchmarks/plan_speed.py --env maze2d-large
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from dfplan import command
from dfplan.benchmarks import own, play, provenance, rows, speed
from dfplan.benchmarks.protocol import TUNING_SEEDS, begin
from dfplan.benchmarks.wanted import wanted
from dfplan.envs.registry import Task, find


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


def milliseconds(agent: Any, where: Task, plans: int) -> np.ndarray:
    """Times (plans,) of single plans, each from another start, after one to warm up."""
    env, seconds = where.make(disable_env_checker=True), []
    for seed in TUNING_SEEDS[: plans + 1]:
        observation = begin(agent, env, where.env_id, seed)
        began = time.perf_counter()
        agent.plan(observation, record=False)
        seconds.append(time.perf_counter() - began)
    return 1e3 * np.array(seconds[1:])


@command.with_arguments(Settings, __doc__)
def main(settings: Settings) -> None:
    """Time the plans and show a table."""
    import torch  # late: see dfplan.command

    if not settings.agents:
        raise ValueError("expected one or more agents, not none")
    if not 1 <= settings.plans < len(TUNING_SEEDS):
        raise ValueError(f"plans must lie in 1..{len(TUNING_SEEDS) - 1}, not {settings.plans}")
    if min(settings.threads, default=0) < 1:
        raise ValueError("threads must be one or more numbers of at least 1")
    where, cpu = find(settings.env), provenance.hardware()["cpu"]
    cells, skipped = wanted([where], settings.agents, TUNING_SEEDS, device=settings.device, first_only=True)
    table = Table("agent", title=f"one plan, batch 1, {settings.env}, {settings.device}, {cpu}")
    for column in ("threads", "median ms", "p95 ms", "longest ms"):
        table.add_column(column, justify="right")
    for cell in cells:
        agent = play.build(cell)
        if not hasattr(agent, "plan"):
            raise ValueError(f"the agent {cell.agent!r} does not plan")
        for threads in settings.threads:
            torch.set_num_threads(threads)
            with own.blamed(f"the agent {cell.agent!r} failed to plan"):
                times = milliseconds(agent, where, settings.plans)
            figures = (np.median(times), np.quantile(times, 0.95), times.max())
            table.add_row(cell.name, str(threads), *(f"{figure:.1f}" for figure in figures))
    command.console().print(*skipped, table, sep="\n")
    try:
        import resource
    except ImportError:  # Windows
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(f"peak memory of this process: {peak:.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
