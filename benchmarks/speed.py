"""How long single decisions take, measured alike for every agent."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from dfplan.agents.episodes import Player
from dfplan.benchmarks.protocol import EVALUATION_SEEDS, begin
from dfplan.envs.registry import task

THREADS = min(2, os.cpu_count() or 1)
"""CPU threads while decisions are timed."""
DECISIONS = 300
SEED = EVALUATION_SEEDS.start
"""Reset seed of the timed episode."""


def time_decisions(agent: Player, env_id: str, decisions: int, seed: int, threads: int) -> dict[str, Any]:
    """Time an agent alone in one environment, after one decision to warm up. `threads` is stated, not set.

    What `dfplan.benchmarks.results.Timing` calls median, p95, mean, plan, decisions, plans and threads.
    """
    env = task(env_id).make(disable_env_checker=True)
    agent.act(begin(agent, env, env_id, seed))
    observation, seconds, planned, previous = begin(agent, env, env_id, seed), [], [], None
    for _ in range(decisions):
        began = time.perf_counter()
        action = agent.act(observation)
        seconds.append(time.perf_counter() - began)
        plan = getattr(agent, "last_plan", None)
        if plan is not None and plan is not previous:
            planned.append(seconds[-1])
            previous = plan
        observation, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            observation = begin(agent, env, env_id, seed)
    env.close()
    times = 1e3 * np.array(seconds)
    return {
        "median": float(np.median(times)),
        "p95": float(np.quantile(times, 0.95)),
        "mean": float(times.mean()),
        "plan": 1e3 * float(np.median(planned)) if planned else None,
        "decisions": decisions,
        "plans": len(planned),
        "threads": threads,
    }
