"""What the benchmark's worker processes do: build agents, play batches, time decisions, record a plan's denoising.

Every function takes names and plain data, so that a process can be given its work; an agent stays built in its process.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import gymnasium
import numpy as np

from dfplan.benchmarks import protocol, registry
from dfplan.envs.tasks import task

_REPORT_EVERY = 25
_put: Callable[[tuple[str, int]], None] | None = None


@dataclass(frozen=True)
class Answer:
    """What a call returned, and the peak resident memory (MiB) so far of the process that made it."""

    value: Any
    process: int
    peak_mib: float


@dataclass(frozen=True)
class Denoising:
    """How one plan came about: positions and noise levels of its points, one row of sampling after another."""

    positions: np.ndarray
    """(rows, points, 2)."""
    levels: np.ndarray
    """(rows, points) in [0, 1]: 0 clean, 1 pure noise."""
    goal: np.ndarray
    """(2,)."""


def start(put: Callable[[tuple[str, int]], None]) -> None:
    """Set a new process up: ``put`` takes (agent, environment steps made); Ctrl-C ends the process silently."""
    global _put
    _put = put
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def call(function: Callable[..., Any], *arguments: Any) -> Answer:
    """Call and say how much memory this process has needed so far."""
    value = function(*arguments)
    return Answer(value, os.getpid(), peak_memory_mib())


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@cache
def build(name: str, env_id: str, device: str) -> Any:
    """The agent of a row. Raises ValueError or KeyError with one sentence where it cannot be built."""
    return registry.row(name).build(task(env_id), device)


def describe(name: str, env_id: str, device: str) -> dict[str, Any]:
    return registry.description(name, build(name, env_id, device))


def check_device(device: str) -> None:
    """ValueError unless torch can compute on the device."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise ValueError(f"the device {device!r} cannot be used here ({reason}); expected 'cpu' or 'cuda'") from error


def use_threads(threads: int) -> None:
    """CPU threads of torch in this process, if an agent has loaded it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def play_batch(name: str, env_id: str, device: str, seeds: Sequence[int]) -> protocol.Episodes:
    """Play one batch with one thread, telling the parent how far it got."""
    agent = build(name, env_id, device)
    use_threads(1)
    waiting = 0

    def progress(steps: int) -> None:
        nonlocal waiting
        waiting += steps
        if _put is not None and waiting >= _REPORT_EVERY * len(seeds):
            _put((name, waiting))
            waiting = 0

    episodes = protocol.play(agent, env_id, seeds, progress)
    if _put is not None:
        _put((name, waiting))
    return episodes


def time_agent(name: str, env_id: str, device: str, decisions: int, seed: int, threads: int) -> protocol.DecisionTime:
    """Time single decisions with ``threads`` threads."""
    agent = build(name, env_id, device)
    use_threads(threads)
    return protocol.time_decisions(agent, env_id, decisions, seed, threads)


def record_denoising(name: str, env_id: str, device: str, seed: int) -> Denoising | None:
    """Plan once from a reset and keep every row of sampling; None for an agent that does not plan."""
    agent = build(name, env_id, device)
    if not hasattr(agent, "plan"):
        return None
    env = gymnasium.make(env_id, disable_env_checker=True)
    observation, info = env.reset(seed=seed)
    env.close()
    agent.reset(goal=info["goal"], seed=seed)
    plan = agent.plan(observation, record=True)
    kept = plan.observations.shape[2]
    used = int(plan.lengths[0]) + 1
    positions, levels = [], []
    for observations, noise in plan.history:
        positions.append(protocol.positions(observations[0, :used]))
        token_levels = np.array(noise[0, :used].tolist(), dtype=np.float64)
        levels.append(np.concatenate([token_levels[:1], token_levels[1:].repeat(kept)]))
    scale = max(float(np.max(levels)), 1.0)
    return Denoising(np.stack(positions), np.stack(levels) / scale, np.asarray(info["goal"]))
