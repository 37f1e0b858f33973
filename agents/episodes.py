"""Episodes of an agent in environments, several in lockstep: played once here, for `evaluate` and for the benchmark.

Rewards are always counted; success is, where infos have it; goals are given, where there are any. Episodes may end early.
Those of a batch that have ended wait for the others: their last observation is shown to the agent again, and what it does
there counts for nothing. So any object with `reset` and `act` can be played, and what one episode gives depends on its
batch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np

SUCCESS = ("success", "is_success")
"""Names under which infos say whether the task is done."""


STEP = "observation, reward, terminated, truncated, info"
"""What `env.step` gives."""


class Player(Protocol):
    """What is asked of an agent."""

    def reset(self, goal: Any = None, seed: int | None = None) -> None:
        """Begin new episodes, with a goal (B, G) for each row; None where the environment has none."""

    def act(self, observation: Any) -> np.ndarray:
        """Actions (B, action_dim) for observations (B, observation_dim), or for a dictionary of such arrays."""


@dataclass(frozen=True)
class Start:
    """Where an episode begins: `env.reset(seed=seed, options=options)`."""

    seed: int
    options: Mapping[str, Any] | None = None

    def reset(self, env: gymnasium.Env[Any, Any]) -> tuple[Any, dict[str, Any]]:
        """The first observation and its info. ValueError for an environment that gives something else."""
        found = env.reset(seed=self.seed, **({} if self.options is None else {"options": dict(self.options)}))
        observation, info = _values(found, "reset", "observation, info")
        return observation, info


@dataclass(frozen=True)
class Played:
    """What was counted of a batch of B episodes."""

    rewards: np.ndarray
    """(steps of the longest episode, B), float64; 0 after an episode's end."""
    lengths: tuple[int, ...]
    """Steps of each episode."""
    first_success: tuple[int | None, ...] | None
    """Steps until an episode's first success (0: at the reset), None for none; None altogether where no info has it."""
    success_at_end: tuple[bool, ...] | None
    """Whether there was success in an episode's last step; None where no info has it."""

    @property
    def returns(self) -> tuple[float, ...]:
        """Sum of rewards of each episode."""
        return tuple(sum(self.rewards, np.zeros(self.rewards.shape[1])).tolist())

    @property
    def success(self) -> tuple[bool, ...] | None:
        """Whether there was success at any step; None where no info has it."""
        return None if self.first_success is None else tuple(first is not None for first in self.first_success)


Watch = Callable[[Any, Any, Sequence[dict[str, Any]]], None]
"""Sees the agent, its observations (B, ...) and the B infos, after the reset and after each step."""


def play(
    agent: Player,
    envs: Sequence[gymnasium.Env[Any, Any]],
    starts: Sequence[Start],
    *,
    watch: Watch | None = None,
    longest: int | None = None,
    asked: Mapping[str, Any] | None = None,
) -> Played:
    """Play one episode from each start in an environment of its own, of which there may be more.

    The agent is seeded by the first start; one whose `goal_dim` is 0 is given no goal. `longest`: steps after which
    episodes are cut off, if the environment does not end them. `asked`: further arguments of the agent's `reset`. Raises
    ValueError for actions of another shape than the environment's, and for actions or rewards that are not finite.
    """
    envs = envs[: len(starts)]
    reset = [start.reset(env) for env, start in zip(envs, starts, strict=True)]
    observations, infos = [observation for observation, _ in reset], [info for _, info in reset]
    space = envs[0].action_space
    goals = [goal_of(observation, info) for observation, info in reset]
    goal = None if getattr(agent, "goal_dim", None) == 0 or any(one is None for one in goals) else stacked(goals)
    agent.reset(goal=goal, seed=starts[0].seed, **(asked or {}))
    batch, playing = stacked(observations), list(range(len(envs)))
    rewards: list[np.ndarray] = []
    success = [[_success(info)] for info in infos]  # of each episode, at the reset and at each of its steps
    if watch is not None:
        watch(agent, batch, infos)
    while playing and len(rewards) != longest:
        actions = _within(_checked(agent.act(batch), len(envs), space), space)
        rewards.append(np.zeros(len(envs)))
        for i in tuple(playing):
            found = envs[i].step(actions[i])
            observations[i], rewards[-1][i], terminated, truncated, infos[i] = _values(found, "step", STEP)
            success[i].append(_success(infos[i]))
            if terminated or truncated:
                playing.remove(i)
        batch = stacked(observations)
        if watch is not None:
            watch(agent, batch, infos)
    counted, lengths = np.array(rewards), tuple(len(steps) - 1 for steps in success)
    if not np.isfinite(counted).all():
        raise ValueError(f"the environment gives rewards that are not finite, {counted[~np.isfinite(counted)][0]}")
    if all(steps[-1] is None for steps in success):
        return Played(counted, lengths, None, None)
    first = tuple(next((step for step, done in enumerate(steps) if done), None) for steps in success)
    return Played(counted, lengths, first, tuple(bool(steps[-1]) for steps in success))


def stacked(observations: Sequence[Any]) -> Any:
    """Observations of B environments as one batch: arrays (B, ...); of a Dict or Tuple space, entry by entry."""
    first = observations[0]
    if isinstance(first, Mapping):
        return {name: stacked([one[name] for one in observations]) for name in first}
    if isinstance(first, tuple):
        return tuple(map(stacked, zip(*observations, strict=True)))
    return np.stack(observations)


def goal_of(observation: Any, info: Mapping[str, Any]) -> Any:
    """The goal of the episode that a reset began: `desired_goal` of a dictionary observation, else the info's; else None."""
    if isinstance(observation, Mapping) and "desired_goal" in observation:
        return observation["desired_goal"]
    return info.get("goal")


def _success(info: Mapping[str, Any]) -> bool | None:
    return next((bool(info[name]) for name in SUCCESS if name in info), None)


def _values(found: Any, method: str, names: str) -> Any:
    """What a method of an environment gave, if it is a tuple of as many values as there are names. Else ValueError."""
    if not isinstance(found, tuple) or len(found) != names.count(",") + 1:
        got = f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"
        raise ValueError(f"env.{method} must give ({names}), as Gymnasium's environments do, got {got}")
    return found


def _checked(actions: Any, rows: int, space: gymnasium.Space[Any]) -> Any:
    """The same actions, if they are finite and an action of the space for each row. Else ValueError."""
    if np.shape(actions) != (expected := (rows, *(space.shape or ()))):
        raise ValueError(
            f"actions for a batch of {rows} must have the shape {expected} for {space}, got {np.shape(actions)}"
        )
    if not np.isfinite(actions).all():
        raise ValueError("actions must be finite, got NaN or infinity")
    if not isinstance(space, gymnasium.spaces.Box) and np.asarray(actions).dtype.kind == "f":
        raise ValueError(f"the environment's actions are {space}, but the agent gives numbers with fractions")
    return actions


def _within(actions: Any, space: gymnasium.Space[Any]) -> Any:
    """The same actions, but one that rounding to its dtype put beyond a limit, such as 0.3 in float32, is set to the limit."""
    given = np.asarray(actions)
    if not isinstance(space, gymnasium.spaces.Box) or given.dtype.kind != "f":
        return actions
    limited = np.clip(given, space.low, space.high)
    rounded = (limited != given) & (limited.astype(given.dtype) == given)
    return np.where(rounded, limited, given) if rounded.any() else actions
