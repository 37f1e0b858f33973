"""How long a training has taken, over all resumptions and without what is done beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Counts seconds of training on from those of earlier sessions; scoring and writing are `paused`."""

    def __init__(self, seconds: float, step: int) -> None:
        """Begin at a number of seconds and steps that are done."""
        self._began = time.perf_counter() - seconds
        self._lap = seconds, step

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self._began

    def rate(self, step: int) -> float:
        """Steps a second since this was asked last."""
        (seconds, before), now = self._lap, self.seconds
        self._lap = now, step
        return (step - before) / max(now - seconds, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time of the body does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._began += time.perf_counter() - began
