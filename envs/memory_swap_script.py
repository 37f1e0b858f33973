"""Demonstrations of `memory-swap-v0`: a script that is given the true state, with noise on its actions.

The script counts its moves; an agent that learns from the demonstrations has to infer that number from the past.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from dfplan.envs.registry import Task, make
from dfplan.envs.shards import Arrays, Recorder, Scripted

Floats = NDArray[np.float64]
NOISE = 0.2
"""Largest standard deviation of the noise on moves; each episode has one of its own, uniform from 0."""
SLOWEST = 0.7
"""Each move has a speed of its own, uniform from this share of the full one: else the time would show how far it has come."""
STAY = 20
"""Steps of rest that end a demonstration: more than the task asks for, so that staying is learned too."""
MISSES, OFF = 0.25, (0.02, 0.045)
"""Share of the grasps that miss on purpose, and by how many meters: so that a demonstration shows how to mend a miss."""
KNOCKED = 0.1
"""Meters from the row of places beyond which an object has been knocked away: no demonstration of anything."""
ABOVE = 0.12
"""Meters over the table at which an object is approached and carried."""
OPEN, CLOSE = -1.0, 1.0


@dataclass(frozen=True)
class Swaps(Scripted):
    """Episodes of the script that ended with success."""

    BYTES_PER_STEP: ClassVar[int] = 250
    PACKAGES: ClassVar[tuple[str, ...]] = (*Scripted.PACKAGES, "ogbench")
    ALGORITHM: ClassVar[str] = "script with memory and noise"
    SOURCE: ClassVar[str] = "https://arxiv.org/abs/2407.01392"

    @classmethod
    def own(cls, task: Task, quick: bool) -> Self:
        """The recipe of a task's own data, which is small in any case."""
        kind = PicturedSwaps if "camera" in task.env_id else cls
        return kind(task.env_id, NOISE, 45_000, seed=0)  # type: ignore[return-value]

    def collect(self, index: int, folder: Path) -> Arrays:
        """One shard: whole episodes, but for the last."""
        seed, steps = self.shard_seed(index), self.shard_steps(index)
        rng, start = np.random.default_rng(seed), int(seed.generate_state(1)[0])
        env = make(self.env_id, disable_env_checker=True, held=STAY)
        episodes: list[Arrays] = []
        while left := steps - sum(len(episode["actions"]) for episode in episodes):
            episode, whole = demonstrate(env, left, rng, self.noise, start if not episodes else None)
            episodes += [episode] if whole else []
        env.close()
        return {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}

    def description(self, env_id: str) -> str:
        """Who acted, and what the rewards are."""
        return (
            f"Scripted demonstrations in {env_id}, all of them successful. Noise on the moves has a standard deviation of its "
            f"own in each episode, uniform between 0 and {self.noise}. The reward is 1 at success."
        )


class PicturedSwaps(Swaps):
    """The same with pictures in the observations."""

    BYTES_PER_STEP: ClassVar[int] = 13_000


def demonstrate(env: Any, steps: int, rng: np.random.Generator, noise: float, seed: int | None) -> tuple[Arrays, bool]:
    """One episode of so many steps at most, and whether it is a demonstration: it ended with success, or was cut off, and no
    object was knocked away."""
    from dfplan.envs.memory_swap import PLACES  # late, as above

    recorder = Recorder(steps)
    observation, _ = env.reset(seed=seed)
    table, farthest = env.unwrapped.table, 0.0
    spread, script, goes_on = rng.uniform(0.0, noise), moves(env.unwrapped, rng), True
    recorder.begin(observation)
    while goes_on:
        action = next(script)
        action[:3] += rng.normal(0.0, spread, 3)
        action = np.clip(action, -1.0, 1.0).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        goes_on = recorder.step(action, observation, reward, terminated, truncated)
        farthest = max(farthest, float(np.abs(table.objects[:, 0] - PLACES[0, 0]).max()))
    return recorder.arrays(), bool(info["success"] or not (terminated or truncated)) and farthest < KNOCKED


def moves(env: Any, rng: np.random.Generator) -> Iterator[Floats]:
    """Actions (4,), one for each state of a `MemorySwapEnv`: the three moves, then rest. What they act on is read from it."""
    from dfplan.envs.memory_swap import PLACES, SPREAD  # late: OGBench is optional

    cube, can = env.starts
    for thing, place in ((0, 3 - cube - can), (1, cube), (0, can)):
        speed = rng.uniform(SLOWEST, 1.0)
        for action in _move(env.table, thing, PLACES[place] + rng.uniform(-SPREAD, SPREAD, 2), rng):
            action[:3] = np.clip(action[:3], -speed, speed)
            yield action
    while True:
        yield _rest(env.table)


def _move(table: Any, thing: int, place: Floats, rng: np.random.Generator) -> Iterator[Floats]:
    """Take an object, put it down at a place (2,), return to rest."""
    from dfplan.envs.memory_swap import HEIGHT, REST  # late, as above

    def there(height: float) -> Floats:
        return np.array([*place, height])

    while not _is_held(table, thing):
        yield from _grasp(table, thing, rng)
    while _aside(table, there(ABOVE)) > 0.01:
        yield _towards(table, there(ABOVE), CLOSE)
    while table.gripper[2] > HEIGHT + 0.008:
        yield _towards(table, there(HEIGHT), CLOSE)
    for _ in range(3):
        yield _towards(table, there(HEIGHT), OPEN)
    while table.gripper[2] < ABOVE - 0.03:
        yield _towards(table, _here(table, ABOVE), OPEN)
    while np.linalg.norm(table.gripper[:3] - REST) > 0.02:
        yield _rest(table)


def _grasp(table: Any, thing: int, rng: np.random.Generator) -> Iterator[Floats]:
    """Go above an object, down, close and go up: beside it where the grasp misses on purpose."""
    from dfplan.envs.memory_swap import HEIGHT  # late, as above

    angle, off = rng.uniform(0.0, 2 * np.pi), rng.uniform(*OFF) if rng.uniform() < MISSES else 0.0
    beside = off * np.array([np.cos(angle), np.sin(angle), 0.0])

    def there() -> Floats:
        return np.asarray(table.objects[thing] + beside)

    while _aside(table, there()) > 0.01 or table.gripper[2] > ABOVE + 0.03:
        yield _towards(table, np.array([*there()[:2], ABOVE]), OPEN)
    while table.gripper[2] > HEIGHT + 0.008:
        yield _towards(table, there(), OPEN)
    for _ in range(4):
        yield _towards(table, _here(table, HEIGHT) if off else there(), CLOSE)
    while table.gripper[2] < ABOVE - 0.03:
        yield _towards(table, _here(table, ABOVE), CLOSE)


def _is_held(table: Any, thing: int) -> bool:
    """Whether an object is off the table and in the gripper."""
    return bool(np.linalg.norm(table.objects[thing] - table.gripper[:3]) < 0.03 and table.objects[thing][2] > ABOVE / 2)


def _here(table: Any, height: float) -> Floats:
    return np.array([*table.gripper[:2], height])


def _aside(table: Any, target: Floats) -> float:
    return float(np.linalg.norm((target - table.gripper[:3])[:2]))


def _rest(table: Any) -> Floats:
    from dfplan.envs.memory_swap import REST  # late, as above

    return _towards(table, REST, OPEN)


def _towards(table: Any, target: Floats, grip: float) -> Floats:
    from dfplan.envs.memory_swap import REACH  # late, as above

    return np.array([*np.clip((target - table.gripper[:3]) / REACH, -1.0, 1.0), grip])
