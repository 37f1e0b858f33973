"""A generator in place of NumPy's global one: for packages that draw from the global one and take no seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def in_place_of_numpys(generator: np.random.RandomState) -> Iterator[None]:
    """Let NumPy's global functions draw from this generator inside the `with` block. Afterwards the global one is as before."""
    before = np.random.get_state()
    np.random.set_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(np.random.get_state())
        np.random.set_state(before)
