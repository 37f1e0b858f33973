"""How long things take: single decisions, measured alike for every agent, whole plans, and steps of environments."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

import dfplan.envs  # noqa: F401 (registers the environments)
from dfplan.benchmarks.protocol import EVALUATION_SEEDS, TUNING_SEEDS, Agent

THREADS = min(2, os.cpu_count() or 1)
"""CPU threads while decisions are timed."""
DECISIONS = 300
SEED = EVALUATION_SEEDS.start
"""Reset seed of the timed episode."""


@dataclass(frozen=True)
class DecisionTime:
    """Milliseconds of `act` for a single observation, replanning included."""

    median: float
    p95: float
    mean: float
    plan: float | None
    """Median of the decisions that made a plan, None for an agent that does not plan."""
    decisions: int
    plans: int
    threads: int


def time_decisions(agent: Agent, env_id: str, decisions: int, seed: int, threads: int) -> DecisionTime:
    """Time an agent alone in one environment, after one decision to warm up. `threads` is stated, not set."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    observation, info = env.reset(seed=seed)
    agent.reset(goal=info["goal"], seed=seed)
    agent.act(observation)
    agent.reset(goal=info["goal"], seed=seed)
    seconds, planned, previous = [], [], None
    for _ in range(decisions):
        began = time.perf_counter()
        action = agent.act(observation)
        seconds.append(time.perf_counter() - began)
        plan = getattr(agent, "last_plan", None)
        if plan is not None and plan is not previous:
            planned.append(seconds[-1])
            previous = plan
        observation, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            observation, info = env.reset(seed=seed)
            agent.reset(goal=info["goal"], seed=seed)
    env.close()
    times = 1e3 * np.array(seconds)
    return DecisionTime(
        median=float(np.median(times)),
        p95=float(np.quantile(times, 0.95)),
        mean=float(times.mean()),
        plan=1e3 * float(np.median(planned)) if planned else None,
        decisions=decisions,
        plans=len(planned),
        threads=threads,
    )


def time_plans(agent: Any, env_id: str, plans: int) -> np.ndarray:
    """Milliseconds (plans,) of single plans, each from another start, after one to warm up."""
    env = gymnasium.make(env_id)
    milliseconds = []
    for seed in TUNING_SEEDS[: plans + 1]:
        observation, info = env.reset(seed=seed)
        agent.reset(goal=info["goal"], seed=seed)
        began = time.perf_counter()
        agent.plan(observation, record=False)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    return np.array(milliseconds[1:])


def use_threads(threads: int) -> None:
    """CPU threads of torch in this process, if an agent has loaded it."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def peak_memory_mib() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def step_rates(env_id: str, steps: int, repeats: int, vector: int) -> dict[str, float]:
    """Steps a second of an environment, by the way of stepping it, with random actions drawn beforehand."""
    actions = np.random.default_rng(0).uniform(-1, 1, size=(steps, 2)).astype(np.float32)
    env = gymnasium.make(env_id)
    rates = {
        "raw": _rate(partial(_step_single, env.unwrapped, actions), steps, repeats),
        "gym.make": _rate(partial(_step_single, env, actions), steps, repeats),
    }
    for mode in ("sync", "async"):
        envs = gymnasium.make_vec(env_id, vector, vectorization_mode=mode)
        try:
            rates[f"{mode} x{vector}"] = _rate(partial(_step_vector, envs, actions), steps, repeats)
        finally:
            envs.close()
    return rates


def _rate(run: Callable[[], None], steps: int, repeats: int) -> float:
    """Median steps a second over the repeats, after a run to warm up the caches."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return steps / statistics.median(seconds[1:])


def _step_single(env: gymnasium.Env, actions: np.ndarray) -> None:
    """Play all actions (N, 2); a truncated episode is followed by a reset, which the time includes."""
    env.reset(seed=0)
    for action in actions:
        if env.step(action)[3]:
            env.reset()


def _step_vector(envs: VectorEnv, actions: np.ndarray) -> None:
    """Play (N / B) batches of B actions."""
    envs.reset(seed=0)
    for batch in actions[: len(actions) // envs.num_envs * envs.num_envs].reshape(-1, envs.num_envs, 2):
        envs.step(batch)
