"""Which files a user's own agent reads while it is made and tried: its results are void when one of them changes.

Python tells of every file that it opens (`sys.addaudithook`), from imports to `numpy.load`; safetensors opens its files below
Python and is asked separately. Libraries that open files in C alone, such as h5py, stay unseen, which is why a run says
whenever it uses results again. Agents of one process share what they read, since modules and caches are shared too: a
record may name too many files, never too few.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfplan.benchmarks import fingerprint

_ROOMS = ("dfplan", "dfplan.envs", "dfplan.agents", "dfplan.benchmarks")
_ELSEWHERE = ("/proc/", "/sys/", "/dev/")
_opened: set[str] = set()
"""Paths of files that this process has opened for reading since `listen`."""
_listening = False


def listen() -> None:
    """From now on note which files this process reads."""
    global _listening
    if _listening:
        return
    _listening = True
    sys.addaudithook(_hear)
    import safetensors

    told = _telling(safetensors.safe_open)
    for module in (safetensors, *(sys.modules.get(f"safetensors.{name}") for name in ("torch", "numpy"))):
        if hasattr(module, "safe_open"):
            module.safe_open = told  # type: ignore[union-attr]


def files() -> dict[str, str]:
    """Hash (`fingerprint.file`) of each file that was read and is there, but for Python's and dfplan's own code.

    Paths below the working directory are relative to it.
    """
    found = {}
    for path in sorted(filter(_counts, map(_source, list(_opened)))):
        digest = fingerprint.file(path)
        if digest is not None:
            found[_short(path)] = digest
    return found


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if isinstance(path, str | bytes | os.PathLike) and not writes:
        _opened.add(os.path.abspath(os.fsdecode(path)))


def _telling(opener: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(opener)
    def told(filename: Any, *arguments: Any, **options: Any) -> Any:
        _hear("open", (filename, "rb", os.O_RDONLY))
        return opener(filename, *arguments, **options)

    return told


def _source(path: str) -> Path:
    """The source of a compiled module, any other path as it is."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    return Path(path)


def _counts(path: Path) -> bool:
    ours = path.suffix == ".py" and any(path.is_relative_to(folder) for folder in _folders())
    return not ours and not str(path).startswith(_ELSEWHERE) and path.is_file() and fingerprint.is_own(path)


@functools.cache
def _folders() -> list[Path]:
    """Of dfplan's own code, which a result's key holds."""
    return [Path(str(importlib.import_module(room).__file__)).parent for room in _ROOMS]


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
