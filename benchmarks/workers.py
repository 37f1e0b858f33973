"""The worker processes of a run: on this machine, or on a Ray cluster, an existing one or one on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from joblib import parallel_config, register_parallel_backend

from dfplan.benchmarks import provenance
from dfplan.worker_processes import Workers, worker_processes

LOCAL = "local"
"""Instead of a cluster's address: a cluster of this machine's own, for this run."""


@contextmanager
def workers(count: int, address: str | None = None, threads: int = 1) -> Iterator[tuple[Workers, dict[str, Any]]]:
    """Up to `count` processes of so many threads on this machine, or, with an address, those of a Ray cluster.

    With them their hardware, for result files. They are started when there is work for them, and end with this context.
    Addresses are 'auto', 'ray://host:10001', 'host:6379', or `LOCAL` for `count` processes here. Other machines need the
    same dfplan and the same weights under the same paths, which every job checks before it plays. Raises ValueError if Ray
    is not installed, ConnectionError if no cluster answers.
    """
    if address is None:
        with worker_processes(threads):
            yield Workers(count), provenance.hardware()
        return
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
        machines = sum(node["Alive"] for node in ray.nodes())
        found = count if address == LOCAL else int(ray.cluster_resources().get("CPU", 1))
        with parallel_config("ray"):
            pool = Workers(found, ray.exceptions.RayError)
            one = pool.call("the question for the hardware", provenance.hardware)
            yield pool, one | {"cores": found, "machines": machines}
    finally:
        ray.shutdown()
