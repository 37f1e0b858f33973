"""What an agent reaches in an environment: returns, success and lengths of episodes, with their 95% intervals.

print(dfplan.evaluate(agent, "Hopper-v5", episodes=50))
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, compress
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
from gymnasium.vector import VectorEnv

from dfplan.agents.episodes import Played, Player, Start, play
from dfplan.arrays import read_whole
from dfplan.intervals import Estimate, mean, share

BLOCK = 10_000
"""Reset seeds of a block of episodes, so that no two values of `seed` share a start."""
Make = Callable[[], gymnasium.Env[Any, Any]]


@dataclass(frozen=True)
class Evaluation:
    """Played episodes, one entry for each. Prints as a table: a line for all, and one for each reset option."""

    seeds: tuple[int, ...]
    """Reset seeds."""
    options: tuple[Mapping[str, Any] | None, ...]
    """Reset options."""
    returns: tuple[float, ...]
    """Sum of rewards."""
    success: tuple[bool, ...] | None
    """Whether there was success at any step; None where the environment's infos never have it."""
    success_at_end: tuple[bool, ...] | None
    """Whether there was success in the last step, which is how Gymnasium-Robotics' tasks are mostly reported."""
    lengths: tuple[int, ...]
    """Steps."""
    seconds: float
    """Wall time of agent and environment together."""

    @property
    def mean_return(self) -> Estimate:
        """With the bootstrap's interval."""
        return mean([self.returns])

    @property
    def success_rate(self) -> Estimate | None:
        """With Wilson's interval; None where the environment has no success."""
        return None if self.success is None else share(self.success)

    @property
    def mean_length(self) -> float:
        """In steps."""
        return float(np.mean(self.lengths))

    def by_options(self) -> dict[str, Evaluation]:
        """The episodes of each reset option, by its name such as 'task_id=1'; nothing where there are no options.

        Their `seconds` are not known apart, and 0.
        """
        names = [
            "" if options is None else ", ".join(f"{k}={v}" for k, v in options.items()) for options in self.options
        ]
        found, each = {}, {name: part for name, part in vars(self).items() if isinstance(part, tuple)}
        for name in dict.fromkeys(filter(None, names)):
            own: Any = {part: tuple(compress(values, map(name.__eq__, names))) for part, values in each.items()}
            found[name] = dataclasses.replace(self, **own, seconds=0.0)
        return found

    def to_json(self) -> str:
        """All episodes, the means and their intervals, as JSON."""
        rate = self.success_rate
        means = {"mean_return": vars(self.mean_return), "success_rate": None if rate is None else vars(rate)}
        return json.dumps(vars(self) | means, default=lambda value: np.asarray(value).tolist(), allow_nan=False)

    def __str__(self) -> str:
        table = pd.DataFrame({name: _line(one) for name, one in {"all": self, **self.by_options()}.items()}).T
        return str(table.dropna(axis=1, how="all").to_string())


def evaluate(
    agent: Player,
    env: str | gymnasium.Env[Any, Any] | Make,
    episodes: int = 50,
    seed: int = 0,
    options: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    *,
    batch: int = 5,
    longest: int | None = None,
    ask: Any = None,
) -> Evaluation:
    """Play episodes with an agent, and count returns, success and lengths.

    Episode i is reset with the seed `10_000 * seed + i`, and with the options i, i + len(options), ...: the same starts for
    every agent. A goal is `desired_goal` of a dictionary observation, or `info["goal"]`; where there is neither, the
    agent is reset without one.

    Args:
        agent: Any object with `reset(goal=..., seed=...)` and `act(observations)` for a batch.
        env: An id for `gymnasium.make`, a function without arguments that makes an environment, or an environment, which is
            used for one episode at a time and left open.
        episodes: How many, 1 to 10,000.
        seed: Chooses the starts, at least 0.
        options: For `env.reset(options=...)`: one mapping, or several that are used in turn.
        batch: Episodes in lockstep, each in an environment of its own. Environments are made once and reset, and each
            may take much memory. The result may depend on it, for an agent that samples.
        longest: Steps after which an episode is cut off, for environments that do not end it themselves.
        ask: A `dfplan.Ask` for the agent's `reset`, such as the return that is asked for.

    Raises ValueError for arguments out of range, an environment that cannot be made, actions of another shape than the
    environment's, and numbers that are not finite.
    """
    if not all(callable(getattr(agent, method, None)) for method in ("reset", "act")):
        raise ValueError(
            f"an agent must have reset(goal=..., seed=...) and act(observations), got a {type(agent).__name__}"
        )
    episodes = read_whole(episodes, "episodes", 1, BLOCK)
    first = BLOCK * read_whole(seed, "seed", 0, 2**31 // BLOCK - 1)
    batch = read_whole(batch, "batch", 1, BLOCK)
    if longest is not None:
        longest = read_whole(longest, "longest", 1, 2**31)
    turns = _options(options)
    starts = [Start(first + i, turns[i % len(turns)]) for i in range(episodes)]
    began = time.perf_counter()
    parts: list[Played] = []
    with _made(env, min(batch, episodes)) as envs:
        for at in range(0, episodes, len(envs)):
            batched = starts[at : at + len(envs)]
            parts.append(play(agent, envs, batched, longest=longest, asked=None if ask is None else {"ask": ask}))

    def joined(name: str) -> Any:
        """A part of all batches; None where one has none."""
        found = [getattr(part, name) for part in parts]
        return None if None in found else tuple(chain(*found))

    counted: Any = {name: joined(name) for name in ("returns", "success", "success_at_end", "lengths")}
    seeds, used = tuple(start.seed for start in starts), tuple(start.options for start in starts)
    return Evaluation(seeds, used, **counted, seconds=round(time.perf_counter() - began, 1))


def _options(given: Any) -> list[Mapping[str, Any] | None]:
    if given is None:
        return [None]
    several = [given] if isinstance(given, Mapping) else list(given)
    if not several or not all(isinstance(one, Mapping) for one in several):
        raise ValueError(f"options must be one mapping for env.reset, or one or more of them, got {given!r}")
    return several


@contextmanager
def _made(env: Any, count: int) -> Iterator[list[gymnasium.Env[Any, Any]]]:
    """So many environments, which are closed in the end; one that was given stands alone and stays open."""
    if isinstance(env, gymnasium.Env):
        yield [env]
        return
    if isinstance(env, VectorEnv) or not (isinstance(env, str) or callable(env)):
        expected = "an id for gymnasium.make, a function that makes one, or one environment"
        raise ValueError(f"env must be {expected}, got {type(env).__name__}")
    envs: list[gymnasium.Env[Any, Any]] = []
    try:
        for _ in range(count):
            envs.append(_by_id(env) if isinstance(env, str) else env())
        if not all(isinstance(one, gymnasium.Env) for one in envs):
            raise ValueError(f"env made a {type(envs[0]).__name__}, which is no environment of Gymnasium")
        yield envs
    finally:
        for one in envs:
            if hasattr(one, "close"):
                one.close()


def _by_id(name: str) -> gymnasium.Env[Any, Any]:
    try:
        return gymnasium.make(name, disable_env_checker=True)
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ValueError(f"the environment {name!r} cannot be made ({error})") from error


def _line(found: Evaluation) -> dict[str, Any]:
    rate, differs = found.success_rate, found.success != found.success_at_end
    return {
        "episodes": str(len(found.seeds)),
        "success": None if rate is None else f"{rate:.2f}",
        "success at end": f"{share(found.success_at_end):.2f}" if differs and found.success_at_end else None,
        "return": f"{found.mean_return:.1f}",
        "length": f"{found.mean_length:.1f}",
    }
