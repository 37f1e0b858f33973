"""Outliers: an observation that has changed faster than anything in the data is treated as unknown.

This finds corrupted observations that nothing marks: no arm crosses the table in a tenth of a second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dfplan.data.trajectories import Trajectories


def largest_changes(data: Trajectories) -> Tensor:
    """The largest change of each observation column in one recorded step, (observation_dim,), in recorded units."""
    changes = np.abs(np.diff(data.observations, axis=0))
    within = np.ones(len(changes), dtype=bool)
    within[data.episode_ends[:-1] - 1] = False  # from one episode to the next
    return torch.as_tensor(changes[within].max(axis=0, initial=0.0), dtype=torch.float32)


@dataclass
class Accepted:
    """What was accepted last, a row for each environment. `check` changes it."""

    observation: Tensor
    """(B, observation_dim) accepted last; NaN where nothing was."""
    age: Tensor
    """(B,) steps since then."""
    before: Tensor
    """(B, observation_dim) of the step before, accepted or not."""

    @classmethod
    def start(cls, observation: Tensor) -> Accepted:
        """The state before anything is accepted, for observations (B, observation_dim)."""
        nothing = torch.full_like(observation, torch.nan)
        return cls(nothing, torch.zeros(len(observation), device=observation.device), nothing.clone())

    def forget(self, rows: Tensor) -> None:
        """Forget what was accepted in these rows, in which episodes begin."""
        self.observation[rows] = self.before[rows] = torch.nan

    def check(self, observation: Tensor, largest: Tensor) -> Tensor:
        """Which observations (B, observation_dim) are accepted, (B,) bool, where `largest` (observation_dim,) is the largest
        change in one step.

        One is accepted if no column is farther from what was accepted last than the steps since then allow, or if it agrees
        with the one before. The first of an episode is always accepted; two later ones that agree show that it was an outlier.
        """
        allowed = largest * (self.age + 1).unsqueeze(1)
        near = ~((observation - self.observation).abs() > allowed).any(1)  # NaN is no reason to refuse
        near |= ((observation - self.before).abs() <= largest).all(1)
        seen = near & observation.isfinite().all(1)
        self.observation[seen] = observation[seen]
        self.age = torch.where(seen, 0.0, self.age + 1)
        self.before = observation.clone()
        return near
