"""Places that cover recorded observations evenly, however often each was visited."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from dfplan.data.trajectories import FloatArray, IntArray

PLACES = 1000
"""How many places there are at most."""
LOOKED_AT = 50_000
"""Random observations among which they are found."""


class Evenly:
    """Draws rows of recorded values (N, D) so that all places that hold any are equally likely."""

    def __init__(self, values: FloatArray):
        scaled = (values / (values.std(axis=0) + 1e-6)).astype(np.float32)
        nearest = cKDTree(cover(scaled, PLACES)).query(scaled)[1]
        self._order = np.argsort(nearest, kind="stable")
        sizes = np.bincount(nearest)
        self._starts, self._sizes = (np.cumsum(sizes) - sizes)[sizes > 0], sizes[sizes > 0]

    def __call__(self, rng: np.random.Generator, size: int) -> IntArray:
        """Rows (size,), drawn with replacement."""
        place = rng.integers(len(self._sizes), size=size)
        return self._order[self._starts[place] + rng.integers(self._sizes[place])]


def cover(points: FloatArray, count: int) -> FloatArray:
    """Up to `count` of the points (N, D): each is the farthest from those before it, among `LOOKED_AT` random ones."""
    rng = np.random.default_rng(0)
    points = points[rng.choice(len(points), min(LOOKED_AT, len(points)), replace=False)]
    away: NDArray[np.float32] = np.full(len(points), np.inf, np.float32)
    chosen = [0]
    while len(chosen) < count:
        away = np.minimum(away, np.square(points - points[chosen[-1]]).sum(axis=1))
        if not away.max():
            break
        chosen.append(int(away.argmax()))
    return points[chosen]
