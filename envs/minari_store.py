"""Minari's local store: where a dataset lies, whether it is whole, and how a new one takes its place.

A dataset is a folder STORE/NAMESPACE/NAME with `data/main_data.hdf5` and `data/metadata.json`. A new one is made in a
hidden folder beside it, `.NAME.new-TOKEN`, and the two are exchanged in one step. Where the system cannot do that, the old
one waits as `.NAME.old-TOKEN` until the new one has its name. Whenever that is interrupted, `tidy` leaves one of the two.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dfplan.whole_files import exchange, sync_folder, write_whole

PARTS = ("main_data.hdf5", "metadata.json")
"""The files of a dataset, in its folder `data`."""
_ID = re.compile(r"(?:\w[-\w]+/)*\w[-\w]*-v\d+")
_LONGEST_ID = 150
_LARGEST_METADATA = 10_000_000


def check_id(dataset_id: str) -> None:
    """Raise ValueError for what is no Minari id with a version, such as 'dfplan/maze2d-large-v1'."""
    if not isinstance(dataset_id, str) or len(dataset_id) > _LONGEST_ID or not _ID.fullmatch(dataset_id):
        raise ValueError(
            f"a dataset id has a name and a version, such as 'mine/maze2d-ring-v0', and at most {_LONGEST_ID} characters, "
            f"not {dataset_id[:_LONGEST_ID] if isinstance(dataset_id, str) else dataset_id!r}"
        )


def dataset_folder(dataset_id: str) -> Path:
    """The absolute path of a dataset's folder in Minari's local store ($MINARI_DATASETS_PATH, or ~/.minari/datasets).

    Raises ValueError for a bad id, and where there is neither the variable nor a home; OSError if the store cannot be made.
    """
    from minari.storage import get_dataset_path

    check_id(dataset_id)
    if not os.environ.get("MINARI_DATASETS_PATH"):
        if "MINARI_DATASETS_PATH" in os.environ:
            raise ValueError("MINARI_DATASETS_PATH is empty: set it to the folder of Minari's datasets, or unset it")
        if os.path.expanduser("~") == "~":
            raise ValueError("there is no home folder for Minari's datasets: set MINARI_DATASETS_PATH to a folder")
    try:
        folder = Path(os.path.abspath(get_dataset_path(dataset_id)))
    except OSError as error:
        raise _unwritable(os.environ.get("MINARI_DATASETS_PATH", "~/.minari/datasets"), error) from error
    store = folder.parents[dataset_id.count("/")]
    for parent in folder.parents[: dataset_id.count("/")]:
        if (parent / "data" / PARTS[1]).exists():
            raise ValueError(f"{dataset_id} would lie in another dataset, {parent.relative_to(store)}")
    return folder


def prepare(folder: Path) -> None:
    """Make a folder that datasets are written into. Raises OSError, with one sentence, if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"dfplan")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: str | Path, error: OSError) -> OSError:
    reason = error.strerror or str(error)
    return OSError(f"nothing can be written to {folder} ({reason}): set MINARI_DATASETS_PATH to a folder that can")


def need_room(folder: Path, size: int, what: str) -> None:
    """Raise OSError, with one sentence, if the disk of an existing folder has not `size` bytes left, and a tenth more."""
    free = shutil.disk_usage(folder).free
    if free < 1.1 * size:
        raise OSError(
            f"{what} needs {1.1 * size / 1e6:,.0f} MB, and the disk of {folder} has {free / 1e6:,.0f} MB left"
        )


def metadata(folder: Path) -> dict[str, Any]:
    """Minari's metadata of a dataset. ValueError if they are not there or no JSON object."""
    path = folder / "data" / PARTS[1]
    if not path.is_file():
        raise ValueError(f"{PARTS[1]} is missing")
    if path.stat().st_size > _LARGEST_METADATA:
        raise ValueError(f"{PARTS[1]} has more than {_LARGEST_METADATA:,} bytes")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{PARTS[1]} is not JSON") from error
    if not isinstance(found, dict):
        raise ValueError(f"{PARTS[1]} is no JSON object")
    return found


def flaw(folder: Path) -> str | None:
    """Why a folder is not a whole dataset, as in 'metadata.json is missing'; None if it is one.

    Raises OSError if a file is there and cannot be opened, as when another process is writing to it.
    """
    try:
        about = metadata(folder)
        if about.get("data_format", "hdf5") == "hdf5":
            _check_data(folder / "data" / PARTS[0], about)
    except ValueError as error:
        return str(error)
    return None


def _check_data(path: Path, about: dict[str, Any]) -> None:
    """Raise ValueError unless an HDF5 file holds what the metadata say."""
    import h5py

    if not path.is_file():
        raise ValueError(f"{path.name} is missing")
    try:
        with h5py.File(path, "r") as file:
            episodes = len(file)
            steps = sum(len(episode["rewards"]) for episode in file.values())
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's: no permission, or locked
            raise OSError(f"{path} cannot be opened ({os.strerror(error.errno)})") from error
        raise ValueError(f"{path.name} is truncated or damaged") from error
    if (about.get("total_episodes"), about.get("total_steps")) != (episodes, steps):
        raise ValueError(f"{path.name} has {episodes} episodes and {steps} steps, and {PARTS[1]} says otherwise")


def foreign(folder: Path) -> Path | None:
    """The first thing found in a dataset's place that is no part of a dataset, or None."""
    if folder.is_symlink() or not folder.is_dir():
        return folder
    for entry in sorted(folder.iterdir()):
        if entry.name != "data" or entry.is_symlink() or not entry.is_dir():
            return entry
        for part in sorted(entry.iterdir()):
            if part.name not in PARTS or part.is_symlink() or not part.is_file():
                return part
    return None


def new_folder(target: Path) -> Path:
    """An empty hidden folder beside a dataset's place, under a name of its own, where a new one can be made."""
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))


def put(new: Path, target: Path) -> None:
    """Put a finished dataset into its place, once all of it is on the disk. What was there before is removed after that."""
    for folder, _, files in os.walk(new, topdown=False):
        for name in files:
            with open(Path(folder) / name, "rb") as file:
                os.fsync(file.fileno())
        sync_folder(folder)
    if not os.path.lexists(target):
        os.rename(new, target)
    elif not exchange(new, target):
        old = target.with_name(f".{target.name}.old-{secrets.token_hex(4)}")
        os.rename(target, old)
        os.rename(new, target)
        new = old
    sync_folder(target.parent)
    sync_folder(new.parent)
    remove(new)


def put_namespaces(made: Path, store: Path) -> None:
    """Copy Minari's descriptions of namespaces from one store into another that lacks them."""
    for path in made.rglob("namespace_metadata.json"):
        place = store / path.relative_to(made)
        if not place.exists():
            write_whole(place, path.read_bytes())


def tidy(target: Path) -> None:
    """Clear away what killed collections left beside a dataset's place; only call this where no other process writes there.

    An old dataset whose successor did not come gets its name back.
    """
    for old in sorted(_left(target, "old")):
        if not os.path.lexists(target):
            os.rename(old, target)
            sync_folder(target.parent)
    for folder in [*_left(target, "old"), *_left(target, "new")]:
        remove(folder)


def _left(target: Path, kind: str) -> list[Path]:
    return [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.{kind}-")]


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, or what has its name: of a link, the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)  # what cannot go now is in nobody's way, and goes the next time
