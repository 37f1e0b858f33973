"""Processes that work for this one by joblib: they leave Ctrl-C to it, and none outlives it."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LOOK_SECONDS = 1.0
"""How often a worker looks whether the process that it works for is still there."""


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def worker_processes(threads: int = 1) -> Iterator[None]:
    """Within it `as_they_end` works in processes of so many threads, which end with it, whatever they do.

    They are started afresh, not forked, so that it does not matter what this process has loaded. When this process is
    killed, they end within `LOOK_SECONDS`. A single worker (`count=1`) is this process itself.
    """
    from joblib import parallel_config
    from joblib.externals.loky import get_reusable_executor

    with parallel_config("loky", initializer=_begin, initargs=(os.getpid(),), inner_max_num_threads=threads):
        try:
            yield
        finally:
            get_reusable_executor(reuse=True).shutdown(wait=True, kill_workers=True)


def as_they_end(calls: Iterable[Any], count: int, ahead: int | str = "2 * n_jobs") -> Iterator[Any]:
    """The values of calls, each made by `joblib.delayed`, in the order in which `count` workers return them.

    `ahead`: so many calls are taken from the iterable before their workers are free. Whoever takes no more values, as after
    Ctrl-C, has left the other calls: joblib's warnings, which say that they are left, are not shown. Raises what a call
    raises, and joblib's own error for a worker that has died.
    """
    from joblib import Parallel

    values = Parallel(count, return_as="generator_unordered", batch_size=1, pre_dispatch=ahead)(calls)
    try:
        for value in values:  # noqa: UP028 (`yield from` would close them before their warnings are ignored)
            yield value
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.close()


def _begin(parent: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
