"""How fast the environments step: ``python benchmarks/env_speed.py``.

Each row is the median of several runs in one process, with random actions drawn beforehand; one environment uses one
core. 'raw' is the environment without Gymnasium's wrappers, 'gym.make' with them, 'sync' and 'async' are Gymnasium's
vector environments, counted in steps of single environments.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv
from rich.table import Table

import dfplan.envs
from dfplan import command
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


def step_single(env: gymnasium.Env, actions: np.ndarray) -> None:
    """Play all actions, (N, 2); a truncated episode is followed by a reset, which the time includes."""
    env.reset(seed=0)
    for action in actions:
        if env.step(action)[3]:
            env.reset()


def step_vector(envs: VectorEnv, actions: np.ndarray) -> None:
    """Play (N / B) batches of B actions."""
    envs.reset(seed=0)
    for batch in actions[: len(actions) // envs.num_envs * envs.num_envs].reshape(-1, envs.num_envs, 2):
        envs.step(batch)


def rate(run: Callable[[], None], steps: int, repeats: int) -> float:
    """Median steps a second over the repeats, after a short run to warm up the caches."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return steps / statistics.median(seconds[1:])


def measure(env_id: str, settings: Settings) -> dict[str, float]:
    """Steps a second of one environment id, by way of stepping it."""
    actions = np.random.default_rng(0).uniform(-1, 1, size=(settings.steps, 2)).astype(np.float32)
    env = gymnasium.make(env_id)
    rates = {
        "raw": rate(partial(step_single, env.unwrapped, actions), len(actions), settings.repeats),
        "gym.make": rate(partial(step_single, env, actions), len(actions), settings.repeats),
    }
    for mode in ("sync", "async"):
        envs = gymnasium.make_vec(env_id, settings.vector, vectorization_mode=mode)
        run = partial(step_vector, envs, actions)
        try:
            rates[f"{mode} x{settings.vector}"] = rate(run, len(actions), settings.repeats)
        finally:
            envs.close()
    return rates


@command.with_arguments(Settings, prog="python benchmarks/env_speed.py")
def main(settings: Settings) -> None:
    for name, value, least in (("repeats", settings.repeats, 1), ("vector", settings.vector, 1)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
    if settings.steps < settings.vector:
        raise ValueError(f"steps must be at least the {settings.vector} of one vector step, not {settings.steps}")
    if not settings.envs:
        raise ValueError("expected one or more environments, not none")
    ids = list(dict.fromkeys(find(name).env_id for name in settings.envs))
    console = command.console()
    rows = {}
    for env_id in ids:
        with console.status(f"stepping {env_id}"):
            rows[env_id] = measure(env_id, settings)
    table = Table(title=f"steps per second, dfplan {dfplan.__version__}")
    table.add_column("environment")
    for name in rows[ids[0]]:
        table.add_column(name, justify="right")
    for env_id, rates in rows.items():
        table.add_row(env_id, *(f"{value:,.0f}" for value in rates.values()))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
