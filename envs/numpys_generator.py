"""NumPy's global generator, lent: for packages whose randomness no seed reaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def in_place_of_numpys(generator: np.random.RandomState) -> Iterator[None]:
    """Within it NumPy's global functions draw from this generator; afterwards the global one is as it was."""
    before = np.random.get_state()
    np.random.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(np.random.get_state())
        np.random.set_state(before)
