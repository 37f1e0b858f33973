"""The folder of a training run: whether it is one, who is training in it, and which run it holds.

A run leaves a marker in its folder. Files in a folder without a marker belong to somebody else: no run is begun there, so
that nothing of theirs is overwritten or removed.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic_core import from_json

from dfplan.locks import hold
from dfplan.training.checkpoint import CheckpointError, load_header
from dfplan.whole_files import write_whole

Kind = Literal["offline", "online"]
"""Whether a run learns from data (`dfplan.training.loop`) or in an environment. Their files have the same names."""

MARKER, LOCK = ".dfplan-run", ".dfplan-lock"
CHECKPOINT = "last.safetensors"
"""The checkpoint of an offline run."""
STATE = "run.json"
"""What names the checkpoint of an online run."""


def require_own(run_dir: Path, kind: Kind) -> None:
    """Check that a folder is a run's of this kind, or empty, or not there yet; nothing is written.

    Raises:
        ValueError: It holds a run of the other kind, or files and no run.
        CheckpointError: It has no marker, and its checkpoint is not one of dfplan.
        NotADirectoryError, PermissionError: It is no folder, or cannot be written to.
    """
    if not run_dir.exists():
        there = next(folder for folder in run_dir.absolute().parents if folder.exists())
        _require_writable(there)
        return
    _require_writable(run_dir)
    if all(entry.name == LOCK for entry in run_dir.iterdir()):
        return
    found = _kind(run_dir)
    if found is None:
        raise ValueError(f"{run_dir} holds files, but no run of dfplan: choose another folder, or an empty one")
    if found != kind:
        raise ValueError(
            f"{run_dir} holds another run, an {found} one, and this is an {kind} one: choose another folder"
        )


def require_free(run_dir: Path) -> None:
    """Raise `dfplan.locks.InUseError` if another process trains in the folder; nothing is written."""
    if (run_dir / LOCK).exists():
        with hold(run_dir / LOCK, "looking whether it is free"):
            pass


@contextmanager
def claimed(run_dir: Path, kind: Kind) -> Iterator[None]:
    """Make the folder if need be, mark it as a run's, and keep other processes out while the body runs.

    The claim of a process that has ended, however it ended, is void.

    Raises what `require_own` raises, and `dfplan.locks.InUseError`, which names the process that trains there.
    """
    require_own(run_dir, kind)
    run_dir.mkdir(parents=True, exist_ok=True)
    with hold(run_dir / LOCK, f"training since {time.strftime('%Y-%m-%d %H:%M:%S')}"):
        require_own(run_dir, kind)  # another process may have come first
        if not (run_dir / MARKER).exists():
            write_whole(run_dir / MARKER, f"{kind}\n")
        yield


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Values that differ between two trees of plain data, by dotted name; None stands for what is not in one."""
    ours, theirs = _flat(asked), _flat(there)
    names = sorted({**theirs, **ours})
    return {name: (theirs.get(name), ours.get(name)) for name in names if theirs.get(name) != ours.get(name)}


def another_run(run_dir: Path, differing: Mapping[str, tuple[Any, Any]], reason: str = "") -> ValueError:
    """The error for a folder that holds another run, which names the first fields that differ."""
    fields = [f"{name} is {_short(there)} there and {_short(here)} here" for name, (there, here) in differing.items()]
    more = f" and {len(fields) - 2} more" if len(fields) > 2 else ""
    return ValueError(
        f"{run_dir} holds another run: {', '.join(fields[:2])}{more}{reason}; "
        "choose another folder, or remove that one to start anew"
    )


def _require_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _kind(run_dir: Path) -> str | None:
    """The kind of run in a folder; None if there is none."""
    marker, checkpoint, state = (run_dir / name for name in (MARKER, CHECKPOINT, STATE))
    if marker.is_file():
        return marker.read_text(encoding="utf-8", errors="replace").strip()[:20]
    # Earlier versions left no marker, but their checkpoints can be told.
    if checkpoint.is_file():
        if load_header(checkpoint).get("kind") != "training":
            raise CheckpointError(f"{checkpoint} is not the checkpoint of a training run")
        return "offline"
    if state.is_file():
        try:
            content = from_json(state.read_bytes())
        except ValueError:
            return None
        return "online" if isinstance(content, dict) and {"checkpoint", "recipe", "seed"} <= content.keys() else None
    return None


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return leaves


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 30 else f"{text[:27]}..."
