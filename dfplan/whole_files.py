"""Files that are written whole or not at all, and read only where they are ordinary files, for every room of the house.

What is written goes to a new file beside the old one, under a name that no other process has, and a rename puts it into
place. What is to be read may be a pipe or a device, from which reading never ends: those are refused.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Write a file whole or not at all: a new file in the same folder, fsync, then a rename over `path`.

    Parent folders are created; text is written as UTF-8. A symbolic link at `path` is replaced, and what it points to
    stays as it is. A process that is killed on the way leaves the old file, and perhaps a hidden
    `.NAME.TOKEN.partial` beside it (see `remove_partial_files`); a failed write leaves nothing.

    Raises OSError when the file cannot be written; UnicodeEncodeError for text that UTF-8 cannot hold.
    """
    path, content = Path(path), data.encode() if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    with open(partial, "xb") as file:  # exclusive: never a file, or a link, that somebody else has put there
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """An ordinary file, or a link to one, open for reading.

    Raises OSError, with what is wrong in `strerror`, for what is not there or cannot be read, for a folder, a pipe or a
    device, and for links that lead in a circle. ValueError for a path that no file can have.
    """
    _require_ordinary(os.stat(path), path)  # before it is opened: to open a device may set it going
    # Without waiting: a pipe may have taken the file's place by now.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as file:
        _require_ordinary(os.fstat(file.fileno()), path)
        yield file


def _require_ordinary(found: os.stat_result, path: str | Path) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no ordinary file, but a pipe or a device", str(path))


def remove_partial_files(path: str | Path) -> None:
    """Remove what killed writers of `path` left behind; only call this where no other process is writing it."""
    path = Path(path)
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.partial")
    if path.parent.is_dir():
        for partial in path.parent.iterdir():
            if left.fullmatch(partial.name):
                partial.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """Make renames and removals in a folder survive a power failure, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems do not sync folders
            os.fsync(handle)
    finally:
        os.close(handle)


def exchange(first: str | Path, second: str | Path) -> bool:
    """Let two files or folders of one file system swap their names in one step; False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # no Linux, or an old one
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    sys.audit("os.rename", str(first), str(second), -1, -1)  # as Python's own renames are announced
    return rename(here, os.fsencode(first), here, os.fsencode(second), swap) == 0
