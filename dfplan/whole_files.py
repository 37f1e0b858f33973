"""Files that are written whole or not at all, for every room of the house.

The bytes go to a new file beside the old one, under a name that no other process has, and a rename puts them into place.
"""

import contextlib
import os
import re
import secrets
from pathlib import Path


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
