"""Which files a user's own agent reads while it is made and tried: its results are void when one of them changes.

Python reports every file that it opens (`sys.addaudithook`), from imports to `numpy.load`; safetensors opens its files below
Python and is wrapped. Files that libraries open in C alone, as h5py does, are not seen, which is why a run says
whenever it uses results again. Agents of one process share what they read, since modules and caches are shared too: a
record may name too many files, never too few.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfplan.benchmarks import provenance

_ELSEWHERE = ("/proc/", "/sys/", "/dev/")
_PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_opened: set[str] = set()
"""Paths of files that this process has opened for reading since `listen`."""
_listening = False


def listen() -> None:
    """From now on note which files this process reads."""
    global _listening
    if _listening:
        return
    _listening = True
    sys.addaudithook(_note)
    import safetensors

    reporting = _reporting(safetensors.safe_open)
    for module in (safetensors, *(sys.modules.get(f"safetensors.{name}") for name in ("torch", "numpy"))):
        if hasattr(module, "safe_open"):
            module.safe_open = reporting  # type: ignore[union-attr]


def files() -> dict[str, str]:
    """Hash (`provenance.file`) of each file that was read and is there, but for Python's and dfplan's own code.

    Paths below the working directory are relative to it.
    """
    found = {}
    for path in sorted(filter(_counts, map(_source, list(_opened)))):
        digest = provenance.file(path)
        if digest is not None:
            found[_short(path)] = digest
    return found


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if isinstance(path, str | bytes | os.PathLike) and not writes:
        _opened.add(os.path.abspath(os.fsdecode(path)))


def _reporting(opener: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(opener)
    def reporting(filename: Any, *arguments: Any, **options: Any) -> Any:
        _note("open", (filename, "rb", os.O_RDONLY))
        return opener(filename, *arguments, **options)

    return reporting


def _source(path: str) -> Path:
    """The source of a compiled module, any other path as it is."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    return Path(path)


def _counts(path: Path) -> bool:
    ours = path.suffix == ".py" and any(path.is_relative_to(folder) for folder in provenance.folders())
    return not ours and not str(path).startswith(_ELSEWHERE) and path.is_file() and not _is_installed(path)


def _is_installed(path: Path) -> bool:
    """Whether a file is Python's or of an installed package, whose versions are recorded instead."""
    packages = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(packages) or any(path.resolve().is_relative_to(folder) for folder in _PYTHON)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
