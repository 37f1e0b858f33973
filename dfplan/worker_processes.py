"""Processes that work for this one by joblib, here or on a Ray cluster: they leave Ctrl-C to it, none outlives it, and those
that die are replaced."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEATHS = 3
"""So many workers may die of one job before it is given up."""
LOCAL = "local"
"""Instead of a Ray cluster's address: a cluster of this machine's own."""
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

    with _interruptions_wait():
        values = Parallel(count, return_as="generator_unordered", batch_size=1, pre_dispatch=ahead)(calls)
    try:
        for value in values:  # noqa: UP028 (`yield from` would close them before their warnings are ignored)
            yield value
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values.close()


@contextmanager
def _interruptions_wait() -> Iterator[None]:
    """Ctrl-C takes effect after this context. Processes that start in it ignore Ctrl-C, also while they import."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class WorkersDiedError(RuntimeError):
    """A job killed every worker that it was given to."""


@dataclass(frozen=True)
class Workers:
    """So many processes that call functions, within `worker_processes` or what else joblib is configured with."""

    count: int
    death: type[Exception] = BrokenProcessPool
    """What joblib raises when a worker has died."""
    machines: int = 1
    """On which they work."""

    def ended(self, jobs: Mapping[Any, Sequence[Any]]) -> Iterator[tuple[Any, Any]]:
        """Each job's name and value, as they end; a job is a function and its arguments, all of which can be pickled.

        A worker's death ends all that is being called, and joblib does not say whose it was: what was under way is
        called again, one job at a time. Raises what a job raises, and WorkersDiedError for one that kills every worker.
        """
        left, deaths = dict(jobs), Counter[Any]()
        while left:
            suspects = [name for name in left if deaths[name]]
            begun: list[Any] = []
            try:
                for name, value in self._call(left, suspects[:1] or list(left), begun):
                    del left[name]
                    begun.remove(name)
                    yield name, value
            except self.death as error:
                deaths.update(begun)
                for name in begun:
                    if deaths[name] == DEATHS:
                        sentence = f"{DEATHS} worker processes died of {name} (not enough memory?), so it is given up"
                        raise WorkersDiedError(sentence) from error

    def _call(self, jobs: Mapping[Any, Sequence[Any]], names: Sequence[Any], begun: list[Any]) -> Iterator[Any]:
        from joblib import delayed

        def handed() -> Iterator[Any]:  # joblib asks for the next when a worker is free
            for name in names:
                begun.append(name)
                yield delayed(_answer)(str(Path.cwd()), name, *jobs[name])

        # With a single worker joblib would call the functions in this process, whose death ends the run: two, one of
        # which has nothing to do.
        return as_they_end(handed(), max(2, self.count), ahead=self.count)

    def call(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """One call, waited for."""
        ((_, value),) = self.ended({name: (function, *arguments)})
        return value


def _answer(folder: str, name: Any, function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """Call in the driver's working folder, where a machine has one of that name."""
    if Path(folder).is_dir():
        os.chdir(folder)
    return name, function(*arguments)


@contextmanager
def workers(count: int, address: str | None = None, threads: int = 1) -> Iterator[Workers]:
    """Up to `count` processes of so many threads on this machine, or, with an address, those of a Ray cluster.

    They are started when there is work for them, and end with this context. Addresses are 'auto', 'ray://host:10001',
    'host:6379', or `LOCAL` for `count` processes here. Other machines need the same dfplan. Raises ValueError if Ray is not
    installed, ConnectionError if no cluster answers.
    """
    if address is None:
        with worker_processes(threads):
            yield Workers(count)
        return
    from joblib import parallel_config, register_parallel_backend

    try:
        import ray
        from ray.util.joblib.ray_backend import RayBackend
    except ImportError as error:
        install = "`pip install -c constraints.txt -e '.[cluster]'`"
        raise ValueError(f"a run on a cluster needs Ray, which is not installed: {install}") from error

    class Backend(RayBackend):
        """Ray's, whose results are given as they come: each is to be on the disk before the next."""

        supports_return_generator = True

    where = {"num_cpus": max(2, count), "include_dashboard": False} if address == LOCAL else {"address": address}
    variables = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "PYTHONPATH") if name in os.environ}
    runtime = {"env_vars": variables | {"OMP_NUM_THREADS": "1"}}
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    try:
        if colon and port.isdigit():  # where nobody listens, Ray itself takes minutes to say so
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime)
    except Exception as error:  # Ray raises plain ones, too
        raise ConnectionError(
            f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:200]})"
        ) from error
    try:
        register_parallel_backend("ray", Backend)
        found = count if address == LOCAL else int(ray.cluster_resources().get("CPU", 1))
        with parallel_config("ray"):
            yield Workers(found, ray.exceptions.RayError, sum(node["Alive"] for node in ray.nodes()))
    finally:
        ray.shutdown()
