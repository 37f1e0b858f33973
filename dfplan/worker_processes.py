"""Processes that work for this one by joblib: they leave Ctrl-C to it, and none outlives it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_SECONDS = 1.0
"""How often a worker looks whether the process that it works for is still there."""


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(threads: int = 1) -> Iterator[None]:
    """Within it `joblib.Parallel` works in processes of so many threads, which end with it, whatever they do.

    They are started afresh, not forked, so that it does not matter what this process has loaded. When this process is
    killed, they end within `LOOK_SECONDS`. A single worker (`n_jobs=1`) is this process itself.
    """
    from joblib import parallel_config
    from joblib.externals.loky import get_reusable_executor

    with parallel_config("loky", initializer=_begin, initargs=(os.getpid(),), inner_max_num_threads=threads):
        try:
            yield
        finally:
            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def _begin(parent: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
