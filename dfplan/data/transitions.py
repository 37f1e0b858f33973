"""What a step of training is drawn from: transitions and noise, for each of several training seeds its own.

Both are pure functions of the step's random numbers and of one training seed, so that a seed sees the same whether it is
trained alone or beside others.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfplan.data.goals import hindsight
from dfplan.data.recorded import bounds, observations_at
from dfplan.data.trajectories import FloatArray, Steps, Trajectories, next_observations
from dfplan.data.windows import Batch, BatchSource


class Transitions(NamedTuple):
    """(s, a, r, s', terminated) for each of S members: observations and actions (S, B, columns), the rest (S, B)."""

    s: Tensor
    a: Tensor
    r: Tensor
    s_next: Tensor
    terminated: Tensor
    """1 where the task ended with the step, so that no value follows; 0 elsewhere, where the record was cut off too."""


class Replay:
    """Draws transitions from recorded behavior, for each training seed its own.

    Every step of which it is known what followed (`dfplan.data.trajectories.Steps`) is equally likely. With `longest`, each
    has a goal in hindsight that was observed up to so many steps later (`dfplan.data.goals.hindsight`).
    """

    def __init__(self, data: Trajectories, seeds: tuple[int, ...], longest: int = 0):
        self._seeds, self._longest, self._steps = seeds, longest, Steps(data, observed=longest > 0)

    def __call__(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """`Transitions`, or these and goals (S, B, G): (S, B, columns) or (S, B) each, in recorded units.

        Which seeds are drawn beside it does not change a seed's batch.
        """
        draw = int(rng.integers(2**63))
        generators = [np.random.default_rng((seed, draw)) for seed in self._seeds]
        picks = np.stack([own.integers(len(self._steps), size=batch_size) for own in generators])
        batch = Transitions(*(torch.from_numpy(part) for part in self._steps.gather(picks)))
        if not self._longest:
            return batch
        data, now = self._steps.trajectories, self._steps.indices[picks]
        goals = [hindsight(data, steps, own, self._longest) for steps, own in zip(now, generators, strict=True)]
        return (*batch, torch.from_numpy(np.stack(goals)))


class Relabeled:
    """Draws transitions towards goals in hindsight, for each training seed its own, by the shares of OGBench.

    A critic's goal is the present itself in 20% (reward 0, and the task ends), in 50% what was observed a geometric number
    of steps later in the episode, 1 / (1 - gamma) on average, in 30% any observation of the data (both: reward -1). A policy's
    goal was observed at any later step. Raises ValueError for data without goal columns, and where nothing followed any step.
    """

    PRESENT, LATER = 0.2, 0.5

    def __init__(self, data: Trajectories, seeds: tuple[int, ...], columns: tuple[int, ...], gamma: float):
        self._data, self._seeds, self._columns, self._gamma = data, seeds, list(columns), gamma
        self._steps, self._longest = Steps(data, observed=True), len(data)

    def __call__(self, rng: np.random.Generator, batch_size: int) -> Batch:
        """`Transitions`, goals (S, B, G) of the critics and (S, B, G) of the policy, in recorded units."""
        draw = int(rng.integers(2**63))
        generators = [np.random.default_rng((seed, draw)) for seed in self._seeds]
        drawn = [self._of_seed(own, batch_size) for own in generators]
        return tuple(torch.from_numpy(np.stack(parts)) for parts in zip(*drawn, strict=True))

    def _of_seed(self, rng: np.random.Generator, batch_size: int) -> tuple[FloatArray, ...]:
        picks = rng.integers(len(self._steps), size=batch_size)
        s, a, _, s_next, _ = self._steps.gather(picks)
        now, other = self._steps.indices[picks], self._steps.indices[rng.integers(len(self._steps), size=batch_size)]
        kind, later = rng.random(batch_size), now + rng.geometric(1 - self._gamma, size=batch_size)
        present, anywhere = kind < self.PRESENT, kind >= self.PRESENT + self.LATER
        episodes, _, last = bounds(self._data, np.where(anywhere, other, now))
        rows = np.where(present, now, np.where(anywhere, other, np.minimum(later, last)))
        goals = observations_at(self._data, episodes, rows)[:, self._columns]
        wanted = hindsight(self._data, now, rng, self._longest, tuple(self._columns))
        reached = present.astype(np.float32)
        return s, a, reached - 1, s_next, reached, goals, wanted


def changes(data: Trajectories) -> BatchSource:
    """Steps drawn uniformly, for a model of the dynamics: observations (B, 2, columns) and actions (B, 2, columns).

    The step into an episode's last observation is one of them. Only the first action is read: the second is 0.
    """
    steps = Steps(data, observed=True)

    def batch(rng: np.random.Generator, batch_size: int) -> Batch:
        i = steps.indices[rng.integers(len(steps), size=batch_size)]
        actions = np.stack([data.actions[i], np.zeros_like(data.actions[i])], axis=1)
        return np.stack([data.observations[i], next_observations(data, i)], axis=1), actions

    return batch


class Noise:
    """The random numbers of one step: S generators, each seeded by the step and its own training seed."""

    def __init__(self, generator: torch.Generator, seeds: tuple[int, ...]):
        draw = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._generators = [
            torch.Generator(generator.device).manual_seed((draw + seed * 0x9E3779B97F4A7C15) % 2**63) for seed in seeds
        ]

    def normal(self, *shape: int) -> Tensor:
        """(S, *shape), standard normal."""
        drawn = [torch.randn(shape, generator=g, device=g.device, dtype=torch.float32) for g in self._generators]
        return torch.stack(drawn)

    def uniform(self, *shape: int) -> Tensor:
        """(S, *shape), uniform in [-1, 1)."""
        drawn = [torch.rand(shape, generator=g, device=g.device, dtype=torch.float32) for g in self._generators]
        return torch.stack(drawn) * 2 - 1
