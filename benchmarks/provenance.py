"""Where a number comes from, and what it depends on: code, configuration, weights, commit, versions, machine.

The code that counts is dfplan's own: the bytes of all Python files of the method, the environments and the agents, and of
the protocol. What a user's own agent reads besides is found by `dfplan.benchmarks.own`.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dfplan.worker_processes import cores

ROOMS = ("dfplan", "dfplan.envs", "dfplan.agents", "dfplan.benchmarks")
PLAYED = ("protocol.py", "baselines.py", "suites/maze2d_mppi.py", "suites/ogbench.py", "speed.py")
"""Files of the benchmark that decide about episodes, actions and times."""
_PACKAGES = ("dfplan", "torch", "numpy", "gymnasium", "mujoco", "scipy", "stable-baselines3")


def folders() -> list[Path]:
    """The rooms of dfplan's own code, wherever they are installed."""
    return [Path(str(import_module(room).__file__)).parent for room in ROOMS]


@cache
def code() -> str:
    """Hash of the Python files that decide about results, comments and all; read once in a process."""
    *rooms, benchmarks = folders()
    method = {path for room in rooms for path in room.rglob("*.py") if not path.is_relative_to(benchmarks)}
    counted = method | {benchmarks / name for name in PLAYED}
    digest = hashlib.sha256()
    # By their names, and not by their folders, which are others in a checkout and where a wheel is installed.
    for name, content in sorted((path.name, path.read_bytes()) for path in counted):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def data_hash(values: Mapping[str, Any]) -> str:
    """Hash of plain data (numbers, strings, None, lists and mappings of them), whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_hash(path: str | Path) -> str:
    """Hash of a file's bytes. OSError if there is none."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str | None:
    """The commit of the tree that this file lies in, with '+' if tracked files differ from it; None without git."""
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    try:
        if git("ls-files", Path(__file__).name) == "":  # an installed copy inside somebody else's repository
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Python's, dfplan's and the versions of what the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def hardware() -> dict[str, Any]:
    """Processor model, the cores that this process may use, system and machine."""
    cpu = platform.processor()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    return {"cpu": cpu, "cores": cores(), "system": f"{platform.system()} {platform.machine()}"}
