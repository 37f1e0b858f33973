"""How fast the environments step: `python benchmarks/env_speed.py`.

Each row is the median of several runs in one process, with random actions drawn beforehand; one environment uses one
core. 'raw' is the environment without Gymnasium's wrappers, 'gym.make' with them, 'sync' and 'async' are Gymnasium's
vector environments, counted in steps of single environments.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from rich.table import Table

import dfplan
from dfplan import command
from dfplan.benchmarks.speed import step_rates
from dfplan.envs.registry import find


@dataclass(frozen=True)
class Settings:
    """Measure how many steps a second the environments make."""

    envs: tuple[str, ...] = ("maze2d-umaze-v1", "maze2d-medium-v1", "maze2d-large-v1")
    """Environments, with or without their version."""
    steps: int = 20_000
    """Steps of a single environment in each run."""
    repeats: int = 5
    """Runs; the median is shown."""
    vector: int = 8
    """Environments in a vector environment."""


@command.with_arguments(Settings, prog="python benchmarks/env_speed.py")
def main(settings: Settings) -> None:
    """Measure and show a table. ValueError or KeyError for settings that cannot be used."""
    for name, value, least in (("repeats", settings.repeats, 1), ("vector", settings.vector, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    if settings.steps < settings.vector:
        raise ValueError(f"steps must be at least the {settings.vector} of one vector step, not {settings.steps}")
    if not settings.envs:
        raise ValueError("expected one or more environments, not none")
    found = {}
    console = command.console()
    for env_id in dict.fromkeys([find(name).env_id for name in settings.envs]):
        with console.status(f"stepping {env_id}"):
            found[env_id] = step_rates(env_id, settings.steps, settings.repeats, settings.vector)
    table = Table(title=f"steps per second, dfplan {dfplan.__version__}")
    table.add_column("environment")
    for name in next(iter(found.values())):
        table.add_column(name, justify="right")
    for env_id, rates in found.items():
        table.add_row(env_id, *(f"{value:,.0f}" for value in rates.values()))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
