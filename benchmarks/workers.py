"""What the benchmark's worker processes do: build agents, play batches, time decisions, record a plan's denoising.

Every function takes names and plain data, so that a process on any machine can be given its work; an agent stays built in
its process.
"""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np

from dfplan.benchmarks import protocol, reading, rows, timing, trial
from dfplan.benchmarks.fingerprint import Key
from dfplan.benchmarks.fitting import require_fit
from dfplan.benchmarks.importing import blame
from dfplan.envs.registry import task

_REPORT_EVERY = 25
_report: Callable[[int], None] | None = None


@dataclass(frozen=True)
class Player:
    """Which agent is to play where: all that a process needs to build it."""

    agent: str
    """As `dfplan.benchmarks.rows.row` takes it."""
    env_id: str
    training_seed: int | None
    device: str
    key: Key | None = None
    """What its results depend on; a process whose code or weights are others refuses to play."""


@dataclass(frozen=True)
class Denoising:
    """How one plan came about: positions and noise levels of its points, one row of sampling after another."""

    positions: np.ndarray
    """(rows, points, 2)."""
    levels: np.ndarray
    """(rows, points) in [0, 1]: 0 clean, 1 pure noise."""
    goal: np.ndarray
    """(2,)."""


def report_to(report: Callable[[int], None]) -> None:
    """Have this process tell ``report`` the environment steps that it makes."""
    global _report
    _report = report


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@lru_cache(maxsize=4)
def build(player: Player) -> Any:
    """The agent. Raises ValueError, KeyError or OSError with one sentence where it cannot be built."""
    row, where = rows.row(player.agent), task(player.env_id)
    if player.key is not None:
        own = row.key(where, player.training_seed, {})
        for kind in ("code", "weights"):
            if getattr(own, kind) != getattr(player.key, kind):
                raise ValueError(
                    f"a worker process found other {kind} of {player.agent!r} than this run began with: changed while it was "
                    "going on, or different on another machine; start it again"
                )
    if player.device != "cpu":
        check_device(player.device)
    agent = row.build(where, player.device, player.training_seed)
    require_fit(agent, player.env_id, f"the agent {player.agent!r}")
    return agent


def describe(player: Player) -> dict[str, Any]:
    """What a cell keeps of the agent, and the files that it read; a user's own agent is tried before.

    ValueError, KeyError or OSError, with one sentence, for an agent that cannot be made or does not act as it should.
    """
    agent, files = _made(player)
    return rows.row(player.agent).description(agent) | {"files": files}


def _made(player: Player) -> tuple[Any, dict[str, str]]:
    """The agent, with the files that it read if it is a user's own, which is then tried too."""
    if not rows.is_own(player.agent):
        return build(player), {}
    reading.listen()
    agent = build(player)
    use_threads(1)
    trial.decide(agent, player.agent, player.env_id)
    return agent, reading.files()


def check_device_name(device: str) -> None:
    """ValueError for what no agent computes on, wherever it runs."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ValueError(f"the device {device!r} is none that agents compute on: expected cpu or cuda")


def check_device(device: str) -> None:
    """ValueError unless torch can compute on the device."""
    check_device_name(device)
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


def play_batch(player: Player, seeds: Sequence[int]) -> protocol.Episodes:
    """Play one batch with one thread, telling how far it got. ValueError, with one sentence, if the agent fails."""
    agent = build(player)
    use_threads(1)
    waiting = 0

    def progress(steps: int) -> None:
        nonlocal waiting
        waiting += steps
        if _report is not None and waiting >= _REPORT_EVERY * len(seeds):
            _report(waiting)
            waiting = 0

    try:
        return protocol.play(agent, player.env_id, seeds, progress)
    except ConnectionError:  # nobody listens to the reports any more
        raise
    except (Exception, SystemExit) as error:
        raise ValueError(f"the agent {player.agent!r} failed on {player.env_id}: {blame(error)}") from error


def time_agent(player: Player, decisions: int) -> tuple[timing.DecisionTime, dict[str, str]]:
    """Time single decisions with as many threads as for every agent; also the files that a user's own agent read.

    ValueError, with one sentence, if the agent fails.
    """
    agent, files = _made(player)
    use_threads(timing.THREADS)
    try:
        return timing.time_decisions(agent, player.env_id, decisions, timing.SEED, timing.THREADS), files
    except Exception as error:
        raise ValueError(f"the agent {player.agent!r} failed on {player.env_id}: {blame(error)}") from error


def record_denoising(player: Player, seed: int) -> Denoising | None:
    """Plan once from a reset and keep every row of sampling; None for an agent that does not plan."""
    agent = build(player)
    if not hasattr(agent, "plan"):
        return None
    env = gymnasium.make(player.env_id, disable_env_checker=True)
    observation, info = env.reset(seed=seed)
    env.close()
    agent.reset(goal=info["goal"], seed=seed)
    try:
        plan = agent.plan(observation, record=True)
    except Exception as error:
        raise ValueError(f"the agent {player.agent!r} did not record a plan: {blame(error)}") from error
    if not getattr(plan, "history", None):
        return None
    kept = plan.observations.shape[2]
    used = int(plan.lengths[0]) + 1
    positions, levels = [], []
    for observations, noise in plan.history:
        positions.append(protocol.positions(observations[0, :used]))
        token_levels = np.array(noise[0, :used].tolist(), dtype=np.float64)
        levels.append(np.concatenate([token_levels[:1], token_levels[1:].repeat(kept)]))
    scale = max(float(np.max(levels)), 1.0)
    return Denoising(np.stack(positions), np.stack(levels) / scale, np.asarray(info["goal"]))
