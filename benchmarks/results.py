"""The result of a benchmark run, as a JSON file: everything that its tables and pictures of numbers are made from."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

SCHEMA = 1
_PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "scipy")


@dataclass(frozen=True)
class AgentResult:
    """One agent's episodes, in the order of the result's seeds."""

    agent: str
    about: str
    execution: str
    returns: list[float]
    """Raw return of each episode."""
    success: list[bool]
    """Whether the goal's radius was ever entered."""
    first_reach: list[int | None]
    """Steps until it was first entered, None if never."""
    decision: dict[str, Any]
    """Milliseconds of single decisions: median, p95, mean, plan (or None), and decisions, plans, threads."""
    seconds: float
    """Wall time of playing its episodes, summed over the processes that did."""
    parameters: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    card: dict[str, Any] | None = None
    """Where the weights come from: command, seed, data fingerprint, training time."""


@dataclass(frozen=True)
class Result:
    """One run of the benchmark on one environment."""

    env_id: str
    episode_steps: int
    reference: dict[str, float]
    """The raw returns that the normalised score calls 0 ('min') and 100 ('max')."""
    seeds: list[int]
    """Reset seed of each episode, the same for every agent."""
    batch: int
    """Episodes played in lockstep."""
    quick: bool
    device: str
    agents: list[AgentResult]
    command: str
    created: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall time of the whole run."""
    peak_memory_mib: float
    """Sum of the peak resident memory of its processes while measuring: an upper bound of their common peak."""
    commit: str | None
    """Of the source tree, with '+' if it had changes; None outside a git checkout."""
    versions: dict[str, str]
    hardware: dict[str, Any]
    schema: int = SCHEMA

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, allow_nan=False, default=str) + "\n"


def read_result(path: str | Path) -> Result:
    """Read a result. ValueError, naming the file, if it is not one; FileNotFoundError if it is not there."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no result {path}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a benchmark result of schema {SCHEMA}")
    try:
        result = Result(**data | {"agents": [AgentResult(**entry) for entry in data["agents"]]})
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a whole benchmark result ({error})") from error
    for entry in result.agents:
        for name in ("returns", "success", "first_reach"):
            if len(getattr(entry, name)) != len(result.seeds):
                raise ValueError(f"{path}: {name!r} of {entry.agent!r} has not one entry for each of the seeds")
    return result


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
    for package in ("dfplan", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor model, the cores that this process may use, system and machine."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
