"""The benchmark's jobs on a Ray cluster, an existing one or one on this machine, with the face of `Processes`.

Ray gives a job that lost its worker to another one; the driver writes all files. Other machines need the same dfplan and
the same weights under the same paths, which every job checks before it plays.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from dfplan.benchmarks import provenance
from dfplan.benchmarks.processes import DEATHS, Done, WorkersDiedError, portable

LOCAL = "local"
"""Instead of an address: a cluster of this machine's own, for this run."""


class Cluster:
    """``address``: of a running cluster ('auto', 'ray://host:10001', 'host:6379'), or `LOCAL`, with ``count`` workers.

    Raises ValueError if Ray is not installed, ConnectionError if no cluster answers.
    """

    def __init__(self, address: str, count: int) -> None:
        self._ray = _ray()
        _reach(address)
        environment = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "PYTHONPATH") if name in os.environ}
        where = {"num_cpus": count} if address == LOCAL else {"address": address}
        try:
            self._ray.init(
                **where, include_dashboard=False if address == LOCAL else None, log_to_driver=False, logging_level="error",
                runtime_env={"env_vars": environment | {"OMP_NUM_THREADS": "1"}},
            )  # fmt: skip
        except Exception as error:  # Ray raises plain ones, too
            raise ConnectionError(f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:200]})") from error
        self._call = self._ray.remote(num_cpus=1, max_retries=DEATHS - 1)(_answer)
        self._jobs: dict[Any, Hashable] = {}

    def submit(self, job: Hashable, function: Callable[..., Any], *arguments: Any) -> None:
        self._jobs[self._call.remote(str(Path.cwd()), function, arguments)] = job

    def finished(self, timeout: float) -> list[Done]:
        if not self._jobs:
            return []
        ready, _ = self._ray.wait(list(self._jobs), num_returns=len(self._jobs), timeout=timeout)
        return [self._done(reference, self._jobs.pop(reference)) for reference in ready]

    def steps(self) -> list[tuple[Hashable, int]]:
        """None: a job tells nothing before its end."""
        return []

    def hardware(self) -> dict[str, Any]:
        """Of one of its machines, with the number of machines and their cores together."""
        machines = [node for node in self._ray.nodes() if node["Alive"]]
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        one = self._ray.get(self._call.remote(str(Path.cwd()), provenance.hardware, ()))["value"]
        return one | {"cores": cores, "machines": len(machines)}

    def close(self) -> None:
        for reference in self._jobs:
            self._ray.cancel(reference, force=True)
        self._jobs.clear()
        self._ray.shutdown()

    def _done(self, reference: Any, job: Hashable) -> Done:
        try:
            return Done(job, **self._ray.get(reference))
        except self._ray.exceptions.RayError as error:  # its machine or its worker is gone
            raise WorkersDiedError(job) from error


def _answer(folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Call, in the driver's working folder where there is one of that name, with errors as values."""
    if Path(folder).is_dir():
        os.chdir(folder)
    try:
        return {"value": function(*arguments)}
    except Exception as error:
        return {"error": portable(error)}


def _reach(address: str) -> None:
    """Say within seconds that nobody listens at 'host:port', for which Ray itself takes minutes."""
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster answers at {address!r} ({error})") from error


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "a run on a cluster needs Ray, which is not installed: `pip install -c constraints.txt -e '.[cluster]'`"
        ) from error
    return ray
