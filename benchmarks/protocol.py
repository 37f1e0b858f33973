"""The evaluation protocol: which episodes are played, for how long, and what is counted.

Episode i of block b starts from ``evaluation_seeds(...)[i] = 100_000 + 10_000 b + i``, for every agent alike, so that
agents are compared on the same starts and goals. Whoever tunes anything does it on `TUNING_SEEDS`, which the evaluation
never touches. An episode lasts as long as D4RL's (the environment's own truncation) and is counted raw; the normalised
score is `dfplan.envs.reference.normalized_score` of that.

Episodes are played in lockstep, a batch at a time, because planning for many starts at once is cheaper. A batch is
always the same seeds in the same order, and a sampling agent is seeded by the batch's first one: the result depends on
the protocol's numbers only, not on processes. How long a decision takes is measured apart, one episode at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np

import dfplan.envs  # noqa: F401 (registers the environments)

EVALUATION_SEEDS = range(100_000, 1_000_000)
"""Seeds of reported episodes, in blocks of `BLOCK`."""
TUNING_SEEDS = range(1_000, 2_000)
"""Seeds for choosing recipes and settings; disjoint from the evaluation's."""
BLOCK = 10_000
BATCH = 5
"""Episodes in lockstep: few, because guided planning of many starts at once takes memory."""


class Agent(Protocol):
    """What the protocol asks of an agent."""

    def reset(self, goal: np.ndarray | None = None, seed: int | None = None) -> None: ...

    def act(self, observation: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Episodes:
    """What happened, one entry an episode."""

    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    """Raw sum of rewards."""
    success: tuple[bool, ...]
    """Whether the goal's radius was ever entered."""
    first_reach: tuple[int | None, ...]
    """Steps until it was first entered (0: the start lay inside), None if never."""
    paths: tuple[np.ndarray, ...]
    """Positions (steps + 1, 2) from the reset on."""
    plans: tuple[np.ndarray | None, ...]
    """Positions (points, 2) of the plan that the first decision followed, None for agents that do not plan."""
    goals: tuple[np.ndarray, ...]
    """(2,) each."""
    seconds: float
    """Wall time of agent and environment together."""


def evaluation_seeds(episodes: int, block: int = 0) -> range:
    """The reset seeds of a block's first episodes. ValueError unless 1 <= episodes <= 10,000 and 0 <= block < 90."""
    blocks = len(EVALUATION_SEEDS) // BLOCK
    if not 1 <= episodes <= BLOCK:
        raise ValueError(f"the number of episodes must lie in 1..{BLOCK}, not {episodes}")
    if not 0 <= block < blocks:
        raise ValueError(f"the seed must lie in 0..{blocks - 1} (it chooses a block of episodes), not {block}")
    first = EVALUATION_SEEDS[block * BLOCK]
    return range(first, first + episodes)


def batches(seeds: Sequence[int], size: int = BATCH) -> list[Sequence[int]]:
    """The seeds in lockstep batches; the last one may be smaller."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def evaluate(
    agent: Agent,
    env_id: str,
    seeds: Sequence[int],
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] | None = None,
) -> Episodes:
    """Play one episode from each reset seed; ``progress`` is told how many environment steps were just made."""
    return join([play(agent, env_id, part, progress) for part in batches(seeds, batch)])


def play(agent: Agent, env_id: str, seeds: Sequence[int], progress: Callable[[int], None] | None = None) -> Episodes:
    """Play one batch in lockstep until every episode has ended."""
    began = time.perf_counter()
    envs = [gymnasium.make(env_id, disable_env_checker=True) for _ in seeds]
    starts = [env.reset(seed=int(seed)) for env, seed in zip(envs, seeds, strict=True)]
    observations = np.stack([observation for observation, _ in starts])
    goals = np.stack([info["goal"] for _, info in starts])
    returns = np.zeros(len(envs))
    reached: list[int | None] = [0 if info["success"] else None for _, info in starts]
    paths = [[observation[:2].copy()] for observation in observations]
    plans: list[np.ndarray | None] = [None] * len(envs)
    running = list(range(len(envs)))
    agent.reset(goal=goals, seed=int(seeds[0]))
    step = 0
    while running:
        actions = agent.act(observations)
        step += 1
        if step == 1:
            plans = [planned_path(agent, row) for row in range(len(envs))]
        for i in tuple(running):
            observations[i], reward, terminated, truncated, info = envs[i].step(actions[i])
            returns[i] += float(reward)
            paths[i].append(observations[i, :2].copy())
            if reached[i] is None and info["success"]:
                reached[i] = step
            if terminated or truncated:
                running.remove(i)
        if progress is not None:
            progress(len(envs))
    for env in envs:
        env.close()
    return Episodes(
        seeds=tuple(int(seed) for seed in seeds),
        returns=tuple(returns.tolist()),
        success=tuple(first is not None for first in reached),
        first_reach=tuple(reached),
        paths=tuple(np.array(path, dtype=np.float32) for path in paths),
        plans=tuple(plans),
        goals=tuple(goals),
        seconds=time.perf_counter() - began,
    )


def join(parts: Sequence[Episodes]) -> Episodes:
    """Batches one after another as one; their seconds add up."""
    if not parts:
        raise ValueError("there is no batch of episodes to join")
    fields: dict[str, list[Any]] = {name: [] for name in Episodes.__dataclass_fields__ if name != "seconds"}
    for part in parts:
        for name, values in fields.items():
            values.extend(getattr(part, name))
    return Episodes(**{name: tuple(v) for name, v in fields.items()}, seconds=sum(part.seconds for part in parts))


def planned_path(agent: Any, row: int) -> np.ndarray | None:
    """Positions (points, 2) of the plan that an agent follows in one row of its batch, None if it follows none."""
    plan = getattr(agent, "last_plan", None)
    if plan is None:
        return None
    return positions(plan.observations[row, : int(plan.lengths[row]) + 1])


def positions(tokens: Any) -> np.ndarray:
    """Positions (points, 2), float32, of planned observations (T, kept, observation_dim), an array or a tensor."""
    array = tokens.detach().float().cpu().numpy() if hasattr(tokens, "detach") else np.asarray(tokens)
    # Token 0 is the start alone, whatever a token bundles.
    return np.concatenate([array[0, -1:, :2], array[1:, :, :2].reshape(-1, 2)]).astype(np.float32)


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
