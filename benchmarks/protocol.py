"""The evaluation protocol: which episodes are played, for how long, and what is counted.

Episode i of block b starts from `evaluation_seeds(...)[i] = 100_000 + 10_000 b + i`, for every agent alike, so that
agents are compared on the same starts and goals; a task's reset options are taken in turn, by the seed. Whoever tunes
anything does it on `TUNING_SEEDS`, which the evaluation never touches. The environment ends an episode, and at the latest
its task's `max_episode_steps` do. Episodes are counted raw; what score that makes stands in the task's suite.

Episodes are played in lockstep, a batch at a time, because planning for many starts at once is cheaper. A batch is
always the same seeds in the same order, and a sampling agent is seeded by the batch's first one: the result depends on
the protocol's numbers only, not on processes. How long a decision takes is measured apart (`speed`). The whole
protocol in words: docs/protocol.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import gymnasium
import numpy as np

from dfplan.agents.episodes import Player, Start, Watch, goal_of
from dfplan.agents.episodes import play as play_together
from dfplan.envs.registry import task

EVALUATION_SEEDS = range(100_000, 1_000_000)
"""Seeds of reported episodes, in blocks of `BLOCK`."""
TUNING_SEEDS = range(1_000, 2_000)
"""Seeds for choosing recipes and settings; disjoint from the evaluation's, which a test checks."""
BLOCK = 10_000
BATCH = 5
"""Episodes in lockstep: few, because guided planning of many starts at once takes memory."""
EPISODES = 100
"""Of a recorded cell; of a trained agent there is one for each of `dfplan.benchmarks.rows.TRAINING_SEEDS`."""


@dataclass(frozen=True)
class Episodes:
    """What was counted, one entry an episode."""

    seeds: tuple[int, ...]
    returns: tuple[float, ...]
    """Raw sum of rewards."""
    success: tuple[bool, ...] | None
    """Whether there was success at any step; None where the environment has none."""
    first_reach: tuple[int | None, ...] | None
    """Steps until the first success (0: at the reset), None if never; None altogether where the environment has none."""
    lengths: tuple[int, ...]
    """Steps of each episode."""
    reward_curve: tuple[float, ...]
    """Mean reward over the episodes at each of the task's steps, an episode that has ended counting 0: one for the batch."""
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


def evaluate(agent: Player, env_id: str, seeds: Sequence[int], *, batch: int = BATCH) -> Episodes:
    """Play one episode from each reset seed, `batch` of them at a time. Raises what `play` raises."""
    return join([play(agent, env_id, part) for part in batches(seeds, batch)])


def play(agent: Player, env_id: str, seeds: Sequence[int], watch: Watch | None = None) -> Episodes:
    """Play one batch in lockstep, each episode to its end.

    Raises KeyError for an environment that is no registered task, ValueError for actions of the wrong shape or not finite,
    and for seeds of which some are the evaluation's and some are not.
    """
    if len({seed in EVALUATION_SEEDS for seed in seeds}) != 1:
        raise ValueError("a batch is one or more evaluation seeds, or one or more others: the two are never mixed")
    began, steps = time.perf_counter(), task(env_id).max_episode_steps
    starts = [start(env_id, int(seed)) for seed in seeds]
    played = play_together(agent, _environments(env_id, len(starts)), starts, watch=watch, longest=steps)
    curve = np.zeros(steps)
    curve[: len(played.rewards)] = played.rewards.mean(axis=1)
    return Episodes(
        seeds=tuple(one.seed for one in starts),
        returns=played.returns,
        success=played.success,
        first_reach=played.first_success,
        lengths=played.lengths,
        reward_curve=tuple(curve.tolist()),
        seconds=time.perf_counter() - began,
    )


def begin(agent: Player, env: gymnasium.Env[Any, Any], env_id: str, seed: int) -> Any:
    """Reset a task's environment and an agent for one episode; the first observation."""
    observation, info = start(env_id, seed).reset(env)
    agent.reset(goal=goal_of(observation, info), seed=seed)
    return observation


def start(env_id: str, seed: int) -> Start:
    """The start of a task's episode with this reset seed, by which its reset options are taken in turn."""
    options = task(env_id).options
    return Start(seed, options[seed % len(options)] if options else None)


@lru_cache(maxsize=1)
def _environments(env_id: str, count: int) -> list[gymnasium.Env[Any, Any]]:
    """So many environments, made once in a process and reset for each batch: some take seconds and much memory to make."""
    return [task(env_id).make(disable_env_checker=True) for _ in range(count)]


def join(parts: Sequence[Episodes]) -> Episodes:
    """Batches one after another as one: seconds add up, reward curves are averaged over episodes. ValueError for none."""
    if not parts:
        raise ValueError("there is no batch of episodes to join")
    lists: dict[str, Any] = {}
    for name in ("seeds", "returns", "success", "first_reach", "lengths"):
        values = [getattr(part, name) for part in parts]
        lists[name] = None if None in values else tuple(chain(*values))
    curve = np.average([part.reward_curve for part in parts], axis=0, weights=[len(part.seeds) for part in parts])
    return Episodes(**lists, reward_curve=tuple(curve.tolist()), seconds=sum(part.seconds for part in parts))


UNITS = ("normalized", "success %", "return")
"""What a score may be."""


def score(
    reference: Mapping[str, float] | None, returns: Sequence[float], success: Sequence[bool] | None
) -> tuple[str, np.ndarray]:
    """Scores (E,), float64, of E episodes, and what they are.

    'normalized' where there are reference returns, else 'success %' where there is success, else 'return'.
    """
    if reference:
        low, high = reference["min"], reference["max"]
        return UNITS[0], 100.0 * (np.asarray(returns, dtype=np.float64) - low) / (high - low)
    if success is not None:
        return UNITS[1], 100.0 * np.asarray(success, dtype=np.float64)
    return UNITS[2], np.asarray(returns, dtype=np.float64)
