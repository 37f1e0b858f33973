"""Per-column standardization of observations or actions."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn


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
