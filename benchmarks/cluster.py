"""A Ray cluster for the benchmark's jobs, an existing one or one on this machine, as a backend of joblib.

The driver writes all files. Other machines need the same dfplan and the same weights under the same paths, which every
job checks before it plays.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config, register_parallel_backend

LOCAL = "local"
"""Instead of an address: a cluster of this machine's own, for this run."""


@contextmanager
def joined(address: str, count: int) -> Iterator[tuple[int, int, type[Exception]]]:
    """Within it joblib calls functions on the cluster: its number of machines, that of workers, and the error of a death.

    address: of a running cluster ('auto', 'ray://host:10001', 'host:6379'), or `LOCAL`, with `count` workers.

    Raises ValueError if Ray is not installed, ConnectionError if no cluster answers.
    """
    ray = _ray()
    _reach(address)
    environment = {name: os.environ[name] for name in ("OMP_WAIT_POLICY", "PYTHONPATH") if name in os.environ}
    where = {"num_cpus": max(2, count), "include_dashboard": False} if address == LOCAL else {"address": address}
    runtime = {"env_vars": environment | {"OMP_NUM_THREADS": "1"}}
    try:
        ray.init(**where, log_to_driver=False, logging_level="error", runtime_env=runtime)
    except Exception as error:  # Ray raises plain ones, too
        raise ConnectionError(f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:200]})") from error
    try:
        register_parallel_backend("ray", _backend())
        machines = sum(node["Alive"] for node in ray.nodes())
        workers = count if address == LOCAL else int(ray.cluster_resources().get("CPU", 1))
        with parallel_config("ray"):
            yield machines, workers, ray.exceptions.RayError
    finally:
        ray.shutdown()


def _backend() -> type[Any]:
    from ray.util.joblib.ray_backend import RayBackend

    class Backend(RayBackend):
        """Ray's, whose results are given as they come: each is to be on the disk before the next."""

        supports_return_generator = True

    return Backend


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
