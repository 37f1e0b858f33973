"""How long single decisions take, measured alike for every agent: one environment, nothing else running."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import gymnasium
import numpy as np

import dfplan.envs  # noqa: F401 (registers the environments)
from dfplan.benchmarks.protocol import EVALUATION_SEEDS, Agent

THREADS = min(2, os.cpu_count() or 1)
"""CPU threads of torch while decisions are timed."""
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
    """Time an agent alone in one environment, after one decision to warm up. ``threads`` is stated, not set."""
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
