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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfplan.benchmarks import provenance

_ELSEWHERE = ("/proc/", "/sys/", "/dev/")
_PYTHON = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
_opened: set[str] = set()
"""Paths of files that this process has opened for reading since `listen`."""


@functools.cache
def listen() -> None:
    """From now on note which files this process reads."""
    import safetensors

    sys.addaudithook(_note)
    opener = safetensors.safe_open

    @functools.wraps(opener)
    def reporting(filename: Any, *arguments: Any, **options: Any) -> Any:
        _note("open", (filename, "rb", os.O_RDONLY))
        return opener(filename, *arguments, **options)

    for module in (safetensors, *(sys.modules.get(f"safetensors.{name}") for name in ("torch", "numpy"))):
        if hasattr(module, "safe_open"):
            module.safe_open = reporting  # type: ignore[union-attr]


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open":
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    if isinstance(path, str | bytes | os.PathLike) and not writes:
        _opened.add(os.path.abspath(os.fsdecode(path)))


def files() -> dict[str, str]:
    """sha256 of each file that was read and is there, but for Python's, installed packages' and dfplan's own code.

    Paths below the working directory are relative to it.
    """
    paths = sorted(path for path in map(_source, list(_opened)) if path.is_file() and _counts(path))
    here = Path.cwd()
    found = {str(path.relative_to(here) if path.is_relative_to(here) else path): _hash(path) for path in paths}
    return {path: digest for path, digest in found.items() if digest is not None}


def changed(known: Mapping[str, str]) -> list[str]:
    """Those of the paths that are not, or no longer, files of these hashes."""
    return [path for path, digest in known.items() if _hash(Path(path)) != digest]


def _hash(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        return provenance.file_hash(path)
    return None


def _source(path: str) -> Path:
    """The source of a compiled module, any other path as it is."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError):
            path = importlib.util.source_from_cache(path)
    return Path(path)


def _counts(path: Path) -> bool:
    """Not installed packages, whose versions are recorded instead."""
    ours = path.suffix == ".py" and any(path.is_relative_to(folder) for folder in provenance.folders())
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    python = any(path.resolve().is_relative_to(folder) for folder in _PYTHON)
    return not (ours or installed or python or str(path).startswith(_ELSEWHERE))
