"""Where a number comes from: the commit of the source tree, the versions of the packages, and the machine."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dfplan.worker_processes import cores

_PACKAGES = ("torch", "numpy", "gymnasium", "mujoco", "scipy", "stable-baselines3")


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
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
