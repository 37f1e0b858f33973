"""Show an agent's plans in the browser.

    python -m dfplan.viewer --env maze2d-large
    python -m dfplan.viewer --env cube-single

Serves one page at http://127.0.0.1:8000 until Ctrl-C: click a start and a goal in the maze, or choose a robot's task, watch the
plan being denoised, and watch it driven. Needs starlette and uvicorn: `pip install -c constraints.txt -e ".[viewer]"`.
"""

from __future__ import annotations

import ipaddress
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from dfplan import command

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Arguments:
    """What to show, and where."""

    env: str = "maze2d-large"
    """A maze or a robot's task, with or without its version."""
    weights: Path | None = None
    """Weights of a Diffusion Forcing agent; without it the shipped ones."""
    host: str = "127.0.0.1"
    """Address to listen at. Anybody who reaches it can use this machine's processors: 127.0.0.1 is reached from here alone."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    threads: int = 2
    """Plans that are made at the same time."""


@command.with_arguments(Arguments, __doc__, prog="python -m dfplan.viewer", interrupted="the page is closed")
def main(arguments: Arguments) -> None:
    """Serve the page until it is interrupted."""
    for name, value, low, high in (("port", arguments.port, 0, 65_535), ("threads", arguments.threads, 1, 64)):
        if not low <= value <= high:
            raise ValueError(f"{name} lies in {low}..{high}, got {value}")
    from dfplan.envs import sight

    sight.without_display()  # before what follows imports MuJoCo
    try:
        import uvicorn

        from dfplan.viewer.page import application
    except ImportError as error:
        install = "pip install -c constraints.txt -e '.[viewer]'"
        raise ValueError(f"the viewer needs starlette and uvicorn ({error}): {install}") from error
    import torch

    from dfplan.agents.loading import from_pretrained, load
    from dfplan.benchmarks.rows import suite_of
    from dfplan.envs.registry import MazeTask, find, short_name
    from dfplan.viewer.robots import RobotScene
    from dfplan.viewer.scene import Scene

    torch.set_num_threads(1)  # of each plan; plans are small, and several are made at once
    task = find(arguments.env)
    suite_of(task)  # it registers the features that weights name
    agent = load(arguments.weights) if arguments.weights else from_pretrained(short_name(task.data_id))
    hosts = LOOPBACK if is_loopback(arguments.host) else ("*",)
    scene = Scene(task, agent) if isinstance(task, MazeTask) else RobotScene(task, agent)
    app = application(scene, arguments.threads, hosts)
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    with socket.create_server((arguments.host, arguments.port), family=family) as listening:
        port = listening.getsockname()[1]
        print(f"{task.env_id} is shown at http://{arguments.host}:{port}; Ctrl-C ends it", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False)).run([listening])


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())
