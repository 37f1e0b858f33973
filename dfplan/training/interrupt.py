"""Ctrl-C and SIGTERM during a training: the step under way is finished, the checkpoint written, and then the process ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class TrainingInterrupted(SystemExit):
    """SIGINT or SIGTERM arrived and the checkpoint is written; uncaught, the process exits with status 130 or 143."""


def interrupted(received: list[int], step: int, steps: int, checkpoint: Path) -> TrainingInterrupted:
    """The error to raise once `checkpoint` is written after `step` of `steps`; says on stderr how the run goes on."""
    print(
        f"\ninterrupted after step {step} of {steps}; {checkpoint} is written: run the same command to continue",
        file=sys.stderr,
    )
    return TrainingInterrupted(128 + (received[0] if received else signal.SIGINT))


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying in the middle of a step; a second Ctrl-C is obeyed at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may install handlers
        return

    def handler(number: int, frame: Any) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
