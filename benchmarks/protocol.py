"""The evaluation protocol: which episodes are played, for how long, and what is counted.

Episode i of block b starts from `evaluation_seeds(...)[i] = 100_000 + 10_000 b + i`, for every agent alike, so that
agents are compared on the same starts and goals. Whoever tunes anything does it on `TUNING_SEEDS`, which the evaluation
never touches. An episode lasts as long as D4RL's (the environment's own truncation) and is counted raw; the normalized
score is `dfplan.envs.reference.normalized_score` of that.

Episodes are played in lockstep, a batch at a time, because planning for many starts at once is cheaper. A batch is
always the same seeds in the same order, and a sampling agent is seeded by the batch's first one: the result depends on
the protocol's numbers only, not on processes. How long a decision takes is measured apart (`speed`). The whole
protocol in words: docs/protocol.md.
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
"""Seeds for choosing recipes and settings; disjoint from the evaluation's, which a test checks."""
BLOCK = 10_000
BATCH = 5
"""Episodes in lockstep: few, because guided planning of many starts at once takes memory."""
EPISODES = 100
"""Of a recorded cell; of a trained agent there is one for each of `dfplan.benchmarks.rows.TRAINING_SEEDS`."""


class Agent(Protocol):
    """What the protocol asks of an agent."""

    def reset(self, goal: np.ndarray | None = None, seed: int | None = None) -> None:
        """Begin new episodes, with goals (B, 2) or (2,)."""

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Actions (B, act_dim) for observations (B, obs_dim), or (act_dim,) for one."""


Watch = Callable[[Agent, np.ndarray, Sequence[dict[str, Any]]], None]
"""Sees the agent, its observations (B, obs_dim) and the B infos, after the reset and after each step."""


@dataclass(frozen=True)
class Episodes:
    """What was counted, one entry an episode."""

    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    """Raw sum of rewards."""
    success: tuple[bool, ...]
    """Whether the goal's radius was ever entered."""
    first_reach: tuple[int | None, ...]
    """Steps until it was first entered (0: the start lay inside), None if never."""
    reward_curve: tuple[float, ...]
    """Mean reward over the episodes at each step: one for the whole batch."""
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


def evaluate(agent: Agent, env_id: str, seeds: Sequence[int], *, batch: int = BATCH) -> Episodes:
    """Play one episode from each reset seed, `batch` of them at a time. Raises what `play` raises."""
    return join([play(agent, env_id, part) for part in batches(seeds, batch)])


def play(agent: Agent, env_id: str, seeds: Sequence[int], watch: Watch | None = None) -> Episodes:
    """Play one batch in lockstep for the environment's whole episode.

    Raises ValueError for actions of the wrong shape or not finite, for an episode of another length than the
    environment's own, and for seeds of which some are the evaluation's and some are not.
    """
    if len({seed in EVALUATION_SEEDS for seed in seeds}) != 1:
        raise ValueError("a batch is one or more evaluation seeds, or one or more others: the two are never mixed")
    began = time.perf_counter()
    envs = [gymnasium.make(env_id, disable_env_checker=True) for _ in seeds]
    starts = [env.reset(seed=int(seed)) for env, seed in zip(envs, seeds, strict=True)]
    observations, infos = np.stack([observation for observation, _ in starts]), [info for _, info in starts]
    reached: list[int | None] = [0 if info["success"] else None for info in infos]
    rewards: list[np.ndarray] = []
    expected = (len(envs), *envs[0].action_space.shape)  # type: ignore[misc]
    agent.reset(goal=np.stack([info["goal"] for info in infos]), seed=int(seeds[0]))
    if watch is not None:
        watch(agent, observations, infos)
    ended = [False] * len(envs)
    while not any(ended):
        actions = agent.act(observations)
        _check(actions, expected)
        rewards.append(np.zeros(len(envs)))
        for i, env in enumerate(envs):
            observations[i], rewards[-1][i], terminated, truncated, infos[i] = env.step(actions[i])
            ended[i] = terminated or truncated
            if reached[i] is None and infos[i]["success"]:
                reached[i] = len(rewards)
        if watch is not None:
            watch(agent, observations, infos)
    length = envs[0].spec.max_episode_steps  # type: ignore[union-attr]
    for env in envs:
        env.close()
    if not all(ended) or len(rewards) != length:
        raise ValueError(f"an episode of {env_id} ended after {len(rewards)} steps; the protocol plays whole ones, {length}")
    return Episodes(
        seeds=tuple(int(seed) for seed in seeds),
        returns=tuple(sum(rewards, np.zeros(len(envs))).tolist()),
        success=tuple(first is not None for first in reached),
        first_reach=tuple(reached),
        reward_curve=tuple(np.array(rewards).mean(axis=1).tolist()),
        seconds=time.perf_counter() - began,
    )


def _check(actions: Any, expected: tuple[int, ...]) -> None:
    if np.shape(actions) != expected:
        raise ValueError(f"actions for a batch of {expected[0]} must have the shape {expected}, got {np.shape(actions)}")
    if not np.isfinite(actions).all():
        raise ValueError("actions must be finite, got NaN or infinity")


def join(parts: Sequence[Episodes]) -> Episodes:
    """Batches one after another as one: seconds add up, reward curves are averaged over episodes. ValueError for none."""
    if not parts:
        raise ValueError("there is no batch of episodes to join")
    lists: dict[str, Any] = {
        name: tuple(value for part in parts for value in getattr(part, name))
        for name in ("seeds", "returns", "success", "first_reach")
    }
    curve = np.average([part.reward_curve for part in parts], axis=0, weights=[len(part.seeds) for part in parts])
    return Episodes(**lists, reward_curve=tuple(curve.tolist()), seconds=sum(part.seconds for part in parts))
