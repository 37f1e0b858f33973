"""Locks between processes: work that only one of them may do at a time."""

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class InUseError(OSError):
    """Another process holds the lock; the message is one sentence that says which, and what it does."""


@contextmanager
def hold(path: str | Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path` while the body runs. The file names its holder, and is removed at the end.

    The lock of a process that has ended, however it ended, is free, also when its file is still there.

    Args:
        path: the lock file; its folder must exist.
        doing: what is being done, for the sentence that others read, as in 'collecting dfplan/maze2d-large-v1'.
        wait: True waits until the lock is free, and says so on stderr; False raises.

    Raises InUseError when another process holds it and `wait` is False; OSError when the file cannot be made.
    """
    path = Path(path)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        holder = _holder(path)
        if not wait:
            raise InUseError(f"{path} is locked by {holder}: wait for its end, or end it") from error
        print(f"waiting for {holder}", file=sys.stderr)
        lock.acquire()
    try:
        path.write_text(f"process {os.getpid()} on {platform.node()}, {doing}\n", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # on Windows nobody can remove an open file
            path.unlink()
        lock.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    except OSError:
        return "another process"
