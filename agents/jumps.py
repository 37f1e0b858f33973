"""Resets that were not announced, found in the positions that an agent observes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Jumps:
    """Finds steps that are far larger than every step before them: those at which an environment was reset.

    For positions, which move a little in each step, whatever happens; velocities may jump.
    """

    TIMES = 5.0
    """How many times the largest step so far a jump is. Driving in a maze stays below 2.5, resets are at 20 and more."""
    LEAST = 1e-3
    """The smallest size of an ordinary step, as a part of the largest coordinate: rest alone is no measure."""
    CALLS = 10
    """Steps that are seen before any is judged."""

    def __init__(self) -> None:
        self.found = False
        self._calls = 0
        self._last: NDArray[np.float64] | None = None
        self._aim: NDArray[np.float32] | None = None
        self._largest_step = self._largest = np.zeros(1)

    def look(
        self, where: NDArray[np.float64], aim: NDArray[np.float32] | None, begins: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Rows (B,) that jumped though they do not begin, from positions (B, G) and goals (B, G) that come with them."""
        jumped = np.zeros(len(begins), dtype=bool)
        if self._last is not None:
            step = np.abs(where - self._last)
            if self._calls >= self.CALLS:
                far = self.TIMES * np.maximum(self._largest_step, self.LEAST * self._largest)
                jumped = ~begins & (step > far).any(axis=1)
            if aim is not None and self._aim is not None:
                jumped |= ~begins & (aim != self._aim).any(axis=1)
            ordinary = step[~begins & ~jumped]
            if len(ordinary):
                self._largest_step = np.maximum(self._largest_step, ordinary.max(axis=0))
        self._largest = np.maximum(self._largest, np.abs(where).max(axis=0))
        self._last, self._aim, self._calls = where.copy(), None if aim is None else aim.copy(), self._calls + 1
        self.found = bool(jumped.any())
        return jumped
