"""Recorded pictures: which arrays are pictures, and how they are kept as uint8 until an encoder makes numbers of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfplan.data.features import AS_RECORDED, Features, parts

CHANNELS = (1, 3, 4)
"""Channels of gray pictures, colored ones, and colored ones with opacity."""


def shapes(observations: Any) -> dict[str, tuple[int, int, int]]:
    """Height, width and channels of the pictures among recorded observations, by their keys; '' where these are pictures.

    Pictures are (N, height, width, channels) uint8, as Gymnasium has them. Raises ValueError for arrays of uint8 with four
    axes and another number of channels.
    """
    named = parts(observations)
    found: dict[str, tuple[int, int, int]] = {}
    for key, value in ({"": observations} if named is None else named).items():
        try:
            array = np.asarray(value) if not isinstance(value, Mapping | tuple) else np.zeros(0)
        except ValueError:  # rows of unequal length, which are refused as numbers
            continue
        if array.dtype != np.uint8 or array.ndim != 4:
            continue
        if array.shape[-1] not in CHANNELS:
            what = f"the observation's entry '{key}'" if key else "an observation"
            raise ValueError(
                f"{what} must be a picture (height, width, channels) with 1, 3 or 4 channels, got {array.shape[1:]}"
            )
        _, height, width, channels = map(int, array.shape)
        found[key] = (height, width, channels)
    return found


@dataclass(frozen=True, eq=False)
class Pictured:
    """Episodes whose observations hold pictures. `dfplan.data.readers.encoded` makes `Trajectories` of them."""

    arrays: Mapping[str, Any]
    """As `dfplan.load` takes them: 'observations' are pictures (N, height, width, channels) uint8, or a Dict with pictures."""
    name: str
    """Where they come from."""
    goal: Any = None
    """Columns of a flat observation in which a goal stands, as in `dfplan.load`; numbers take the places of pictures."""
    features: Features = AS_RECORDED
    """How observations become flat ones, once numbers have taken the places of pictures."""

    def __len__(self) -> int:
        """Number of steps N."""
        return len(self.arrays["actions"])

    def __repr__(self) -> str:
        pictures = ", ".join(f"{key or 'observations'} {shape}" for key, shape in self.shapes.items())
        return f"Pictured({self.name}: {len(self):,} steps with pictures {pictures})"

    @property
    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """Height, width and channels of each picture, by its key."""
        return shapes(self.arrays["observations"])

    def pictures(self, key: str, of: str = "observations") -> NDArray[np.uint8]:
        """(N, height, width, channels)."""
        observed = self.arrays[of]
        return np.asarray((parts(observed) or {})[key] if key else observed)
