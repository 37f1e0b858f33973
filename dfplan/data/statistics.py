"""Units of observations and actions: per-column standardization, and what a learner takes from its data."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from dfplan.data.trajectories import Trajectories


class Normalizer(nn.Module):
    """Affine map between recorded units and zero mean, unit deviation, for each column by itself.

    `mean` and `std` have shape (C,) and are float32 buffers: they move with `.to(device)` and are saved with the
    module that owns them, but are never trained. This is no batch normalization: the statistics are fixed.

    Raises ValueError when the shapes differ, a number is not finite, or a deviation is not positive.
    """

    STD_FLOOR = 1e-6  # a column that moves less than this, relative to its size, is held constant

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        mean, std = (torch.as_tensor(value, dtype=torch.float32).detach().clone() for value in (mean, std))
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

    @classmethod
    def standard(cls, columns: int) -> Self:
        """Mean 0 and deviation 1: the units stay as they are."""
        return cls(torch.zeros(columns), torch.ones(columns))

    @classmethod
    def fit(cls, array: np.ndarray) -> Self:
        """Mean and population deviation of every column of `array` (N, C), summed in float64.

        A column that is constant (up to float32 rounding) gets the deviation 1: it normalizes to about 0 and comes
        back as it was. Raises ValueError unless the array is (N, C) with N >= 1 and finite.
        """
        if array.ndim != 2 or len(array) == 0:
            raise ValueError(f"A normalizer is fitted to an array (steps, columns), not {array.shape}.")
        # Column by column: float64 copies of the whole array would be twice its size.
        mean, std = np.empty(array.shape[1]), np.empty(array.shape[1])
        for c in range(array.shape[1]):
            column = array[:, c].astype(np.float64)
            mean[c], std[c] = column.mean(), column.std()
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise ValueError("A normalizer cannot be fitted to NaN or infinity.")
        std[std <= cls.STD_FLOOR * np.maximum(1.0, np.abs(mean))] = 1.0
        return cls(mean, std)

    def normalize(self, x: Tensor) -> Tensor:
        """(..., C) in recorded units -> (..., C) in deviations from the mean."""
        self._check(x)
        return (x - self.mean) / self.std

    def denormalize(self, x: Tensor) -> Tensor:
        """(..., C) in deviations from the mean -> (..., C) in recorded units."""
        self._check(x)
        return x * self.std + self.mean

    def _check(self, x: Tensor) -> None:
        if x.ndim == 0 or x.shape[-1] != len(self.mean):
            raise ValueError(f"This normalizer is for {len(self.mean)} columns, but the tensor is {tuple(x.shape)}.")


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
        self.register_buffer("action_low", -torch.ones(action_dim))
        self.register_buffer("action_high", torch.ones(action_dim))

    def fit_statistics(self, data: Trajectories) -> None:
        """Take normalizers and action limits from the data.

        Raises ValueError if actions are scaled and a column of them never changes.
        """
        low, high = data.actions.min(axis=0), data.actions.max(axis=0)
        if "action" in self._modules:
            self.action = Normalizer.fit(data.actions)
        elif len(still := np.flatnonzero(low == high)):
            raise ValueError(f"{data.name}: column {still[0]} of the actions never changes, so that it has no limits")
        self.observation = Normalizer.fit(data.observations)
        self.action_low, self.action_high = torch.from_numpy(low), torch.from_numpy(high)

    def scale_action(self, action: Tensor) -> Tensor:
        """Actions (..., action_dim) in recorded units to [-1, 1]."""
        return 2 * (action - self.action_low) / (self.action_high - self.action_low) - 1

    def unscale_action(self, scaled: Tensor) -> Tensor:
        """Actions (..., action_dim) in [-1, 1] to recorded units."""
        return self.action_low + (scaled + 1) / 2 * (self.action_high - self.action_low)

    def state_at(self, goal: Tensor, columns: Sequence[int]) -> Tensor:
        """Observations (B, observation_dim) at goals (B, G) that stand in these G columns, all in recorded units.

        The other columns are at the data's mean.
        """
        state = self.observation.mean.repeat(len(goal), 1)
        state[:, list(columns)] = goal
        return state
