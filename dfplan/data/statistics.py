"""Units of observations and actions: per-column standardization, and what a learner takes from its data."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from dfplan.data.trajectories import Trajectories
from dfplan.fields import CheckedFields, Size

BOUND = 10.0
"""Deviations from the mean that a normalized value of fitted columns never exceeds."""
UNBOUNDED = torch.finfo(torch.float32).max


class Normalizer(nn.Module):
    """Affine map between recorded units and zero mean, unit deviation, for each column by itself.

    `mean` and `std` have shape (C,) and are float32 buffers: they move with `.to(device)` and are saved with the
    module that owns them, but are never trained. This is no batch normalization: the statistics are fixed. `bound`, a
    buffer too, limits normalized values to -bound..bound, so that an observation far outside the data does no harm.

    Raises ValueError when the shapes differ, a number is not finite, or a deviation or the bound is not positive.
    """

    STD_FLOOR = 1e-6  # a column that moves less than this, relative to its size, is held constant

    mean: Tensor
    std: Tensor
    bound: Tensor

    def __init__(self, mean: Any, std: Any, bound: float = UNBOUNDED) -> None:
        super().__init__()
        mean, std = (torch.as_tensor(value, dtype=torch.float32).detach().clone() for value in (mean, std))
        if not 0 < bound <= UNBOUNDED:
            raise ValueError(f"A normalizer needs a finite, positive bound, not {bound}.")
        if mean.ndim != 1 or mean.shape != std.shape or not len(mean):
            raise ValueError(
                f"A normalizer needs mean and std of one shape (columns,), not {tuple(mean.shape)} "
                f"and {tuple(std.shape)}."
            )
        # On the device 'meta', where only shapes are, there are no numbers to be checked.
        if not mean.is_meta and not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
            raise ValueError("A normalizer needs finite means and finite, positive deviations.")
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("bound", torch.tensor(bound, dtype=torch.float32))

    @classmethod
    def standard(cls, columns: int) -> Self:
        """Mean 0 and deviation 1: the units stay as they are."""
        return cls(torch.zeros(columns), torch.ones(columns))

    @classmethod
    def fit(cls, array: np.ndarray) -> Self:
        """Mean and population deviation of every column of `array` (N, C), summed in float64, and the bound `BOUND`.

        A column that is constant (up to float32 rounding) gets the deviation 1: it normalizes to about 0 and comes
        back as it was. A column with outliers beyond `BOUND` gets a deviation so large that they are at `BOUND`: no
        recorded value is cut. Raises ValueError unless the array is (N, C) with N >= 1 and finite.
        """
        mean, std, farthest = _spread(array)
        std[std <= cls.STD_FLOOR * np.maximum(1.0, np.abs(mean))] = 1.0
        return cls(mean, np.maximum(std, farthest / BOUND), BOUND)

    def normalize(self, x: Tensor) -> Tensor:
        """(..., C) in recorded units -> (..., C) in deviations from the mean, within the bound. Infinity stays what it is."""
        self._check(x)
        normalized = (x - self.mean) / self.std
        return torch.where(x.isinf(), normalized, normalized.clamp(-self.bound, self.bound))

    def denormalize(self, x: Tensor) -> Tensor:
        """(..., C) in deviations from the mean -> (..., C) in recorded units."""
        self._check(x)
        return x * self.std + self.mean

    def _check(self, x: Tensor) -> None:
        if x.ndim == 0 or x.shape[-1] != len(self.mean):
            raise ValueError(f"This normalizer is for {len(self.mean)} columns, but the tensor is {tuple(x.shape)}.")


def _spread(array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, population deviation, and distance from the mean of the farthest value of each column of (N, C), in float64."""
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"A normalizer is fitted to an array (steps, columns), not {array.shape}.")
    # Column by column: float64 copies of the whole array would be twice its size.
    mean, std, farthest = (np.empty(array.shape[1]) for _ in range(3))
    for c in range(array.shape[1]):
        column = array[:, c].astype(np.float64)
        mean[c], std[c] = column.mean(), column.std()
        farthest[c] = max(column.max() - mean[c], mean[c] - column.min())
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise ValueError("A normalizer cannot be fitted to NaN or infinity.")
    return mean, std, farthest


def outliers(array: np.ndarray) -> dict[int, float]:
    """The columns of `array` (N, C) with values beyond `BOUND`, and how many deviations from the mean the farthest is."""
    mean, std, farthest = _spread(array)
    constant = std <= Normalizer.STD_FLOOR * np.maximum(1.0, np.abs(mean))
    reach = np.where(constant, 0.0, farthest / np.where(constant, 1.0, std))
    return {int(c): float(reach[c]) for c in np.flatnonzero(reach > BOUND)}


def bounded_since(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a file, with the bounds that `expected` names: values were not bounded when a file without them was made."""
    added = {
        name: torch.tensor(UNBOUNDED)
        for name in expected
        if name.endswith(".bound") and name not in tensors and f"{name.removesuffix('bound')}std" in tensors
    }
    return {**tensors, **added}


@dataclass(frozen=True)
class Widths(CheckedFields):
    """How wide observations and actions are: with this the config of a learner begins."""

    observation_dim: Size
    """Columns of an observation."""
    action_dim: Size
    """Columns of an action."""


class Statistics(nn.Module):
    """The units in which a learner computes, taken from recorded data before training.

    Observations are normalized by `observation`. Actions are normalized too, by `action`, or, with `scale_actions`, scaled
    so that their recorded limits `action_low` and `action_high` (action_dim,) become -1 and 1. A learner is a subclass, so
    that its files hold these tensors by these names: `observation.mean`, `action_low`, ... Before `fit_statistics` they are
    zero means, unit deviations and limits of -1 and 1.
    """

    action_low: Tensor
    action_high: Tensor

    def __init__(self, observation_dim: int, action_dim: int, scale_actions: bool = False) -> None:
        super().__init__()
        self.observation = Normalizer.standard(observation_dim)
        if not scale_actions:
            self.action = Normalizer.standard(action_dim)
        self.register_buffer("action_low", torch.full((action_dim,), -1.0))
        self.register_buffer("action_high", torch.ones(action_dim))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers and action limits from the data. A warning names the columns that have outliers.

        Raises ValueError if actions are scaled and a column of them never changes.
        """
        low, high = data.actions.min(axis=0), data.actions.max(axis=0)
        if "action" in self._modules:
            self.action = Normalizer.fit(data.actions)
        elif len(still := np.flatnonzero(low == high)):
            raise ValueError(f"{data.name}: column {still[0]} of the actions never changes, so that it has no limits")
        self.observation = Normalizer.fit(data.observations)
        far = {f"observation column {c}": reach for c, reach in outliers(data.observations).items()}
        if "action" in self._modules:
            far |= {f"action column {c}": reach for c, reach in outliers(data.actions).items()}
        if far:
            columns = ", ".join(f"{column} ({reach:.0f})" for column, reach in far.items())
            warnings.warn(
                f"{data.name}: outliers of more than {BOUND:.0f} deviations in {columns}: these columns are scaled by their "
                "outliers, so that all else in them looks small; consider leaving them out with features=",
                stacklevel=2,
            )
        self.action_low, self.action_high = torch.from_numpy(low), torch.from_numpy(high)

    def scale_action(self, action: Tensor) -> Tensor:
        """Actions (..., action_dim) in recorded units to [-1, 1]."""
        return 2 * (action - self.action_low) / (self.action_high - self.action_low) - 1

    def unscale_action(self, scaled: Tensor) -> Tensor:
        """Actions (..., action_dim) in [-1, 1] to recorded units."""
        return self.action_low + (scaled + 1) / 2 * (self.action_high - self.action_low)

    def state_at(self, goal: Tensor, columns: Sequence[int]) -> Tensor:
        """Observations (..., observation_dim) at goals (..., G) that stand in these G columns, all in recorded units.

        The other columns are at the data's mean.
        """
        state = self.observation.mean.expand(*goal.shape[:-1], -1).clone()
        state[..., list(columns)] = goal
        return state

    def normalize_goal(self, goal: Tensor, columns: Sequence[int]) -> Tensor:
        """Goals (..., G) in recorded units to deviations from the means of the G columns in which they stand."""
        return self.observation.normalize(self.state_at(goal, columns))[..., list(columns)]
