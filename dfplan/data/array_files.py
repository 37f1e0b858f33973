"""Arrays in HDF5 and npz files that may come from anywhere: what a file claims is checked before anything is allocated.

A file of a few bytes can claim arrays of 10^12 numbers, unfold to gigabytes, and hold links to other files or in a circle.
Whatever is wrong is a ValueError of one sentence that names the file.
"""

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy

from dfplan.data.trajectories import FloatArray, check_finite, check_form
from dfplan.whole_files import opened

ALWAYS = 2**28
"""Bytes that the arrays of any file may take."""
UNFOLDING = 100
"""How many bytes more for each byte of the file. Recorded numbers shrink to a tenth at best; flags and zeros among them
shrink more."""


def room(path: Path) -> int:
    """Bytes that the arrays of a file may take in memory."""
    return ALWAYS + UNFOLDING * path.stat().st_size


def require_ordinary(path: Path) -> None:
    """Raise FileNotFoundError if there is no such file, ValueError if it is a folder, a pipe, a device, or not readable."""
    try:
        with opened(path):
            pass
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file '{path}'.") from error
    except OSError as error:
        raise ValueError(f"{path}: the file cannot be read ({error.strerror or error}).") from error


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file, open for reading. A file that another program writes to is not damaged, and the sentence says so."""
    require_ordinary(path)
    try:
        file = h5py.File(path, "r")
    except BlockingIOError as error:
        raise ValueError(
            f"{path}: another program has the file open and holds a lock on it; close it there and try again."
        ) from error
    except OSError as error:
        raise ValueError(f"{path}: not a whole HDF5 file; it is truncated or of another kind.") from error
    with file:
        yield file


def find(file: h5py.File, key: str, path: Path) -> h5py.Dataset | h5py.Group | None:
    """What lies at a key such as 'infos/goal' of the file itself, None if there is nothing. Links are not followed."""
    item: Any = file
    try:
        for part in key.split("/"):
            link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
            if link is None:
                return None
            if not isinstance(link, h5py.HardLink):
                raise ValueError(f"{path}: '{key}' is a link; expected the data themselves.")
            item = item[part]
    except (KeyError, OSError, RuntimeError) as error:
        raise _damaged(path, key) from error
    return item


def read_hdf5(file: h5py.File, key: str, ndim: int, path: Path) -> FloatArray:
    """The whole array at `key` as finite float32. A column (N, 1) is taken where (N,) is expected, as d4rl does."""
    item = find(file, key, path)
    if not isinstance(item, h5py.Dataset):
        raise ValueError(f"{path}: the key '{key}' is missing.")
    try:
        dtype, shape = item.dtype, item.shape or ()
    except (TypeError, ValueError, OSError, RuntimeError) as error:
        raise _damaged(path, key) from error
    check_form(dtype, _column(shape, ndim), key, ndim, str(path))
    _check_size(_hdf5_size(item.id, key, path), key, path)
    try:
        array = np.asarray(item[()])
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(path, key) from error
    return _floats(array, key, ndim, path)


def _hdf5_size(dataset: h5py.h5d.DatasetID, key: str, path: Path) -> int:
    """Bytes that it takes to read a dataset."""
    plan = dataset.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise ValueError(f"{path}: the numbers of '{key}' lie in other files; expected the data themselves.")
    numbers = dataset.get_space().get_simple_extent_npoints()
    if plan.get_layout() == h5py.h5d.CHUNKED:
        numbers = max(numbers, math.prod(plan.get_chunk()))  # a chunk is unfolded whole
    return numbers * dataset.get_type().get_size()


def check_hdf5_tree(file: h5py.File, path: Path) -> set[str]:
    """The keys of all groups and arrays in the file.

    Raises ValueError unless a library that reads all of it is safe: no links to elsewhere, each group and array in one
    place only, and not more numbers than the file has room for.
    """
    arrays: list[bytes] = []
    keys: set[str] = set()

    # An exception must not pass through HDF5's own code: what is wrong is returned, which ends the visit.
    def link(name: bytes, info: Any) -> str | None:
        return None if info.type == h5py.h5l.TYPE_HARD else f"'{_text(name)}' is a link; expected the data themselves."

    def item(name: bytes, info: Any) -> str | None:
        keys.add(_text(name))
        if info.type == h5py.h5o.TYPE_DATASET:
            arrays.append(name)
        return f"'{_text(name)}' lies in {info.rc} places of the file; expected one." if info.rc > 1 else None

    try:
        wrong = file.id.links.visit(link, info=True) or h5py.h5o.visit(file.id, item, info=True)
        sizes = [_hdf5_size(h5py.h5d.open(file.id, name), _text(name), path) for name in arrays if wrong is None]
    except (KeyError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path}: the file cannot be read; it is truncated or damaged.") from error
    if wrong is not None:
        raise ValueError(f"{path}: {wrong}")
    for name, size in zip(arrays, accumulate(sizes), strict=True):
        _check_size(size, _text(name), path)
    return keys


@contextmanager
def open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """An npz file, as `numpy.savez` writes it, open for reading."""
    require_ordinary(path)
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path}: not a whole npz file; it is truncated or of another kind.") from error
    with archive:
        yield archive


def read_npz(archive: zipfile.ZipFile, key: str, ndim: int, path: Path) -> FloatArray:
    """The whole array `key` as finite float32; see `read_hdf5`. Nothing in it is ever unpickled."""
    try:
        info = archive.getinfo(f"{key}.npy")
    except KeyError as error:
        raise ValueError(f"{path}: the key '{key}' is missing.") from error
    _check_size(info.file_size, key, path)
    try:
        with archive.open(info) as stream:
            shape, fortran, dtype = _npy_header(stream)
    except Exception as error:  # zip files and headers can be wrong in many ways
        raise _damaged(path, key) from error
    check_form(dtype, _column(shape, ndim), key, ndim, str(path))
    _check_size(math.prod(shape) * dtype.itemsize, key, path)
    try:
        with archive.open(info) as stream:
            _npy_header(stream)
            array = np.frombuffer(stream.read(), dtype=dtype)
            array = array.reshape(shape[::-1]).T if fortran else array.reshape(shape)
    except Exception as error:
        raise _damaged(path, key) from error
    return _floats(array, key, ndim, path)


def _npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = {
        (1, 0): npy.read_array_header_1_0,
        (2, 0): npy.read_array_header_2_0,
    }[version](stream)
    return header


def _floats(array: np.ndarray, key: str, ndim: int, path: Path) -> FloatArray:
    array = array.reshape(_column(array.shape, ndim))
    check_finite(array, key, str(path))
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    check_finite(array, key, str(path), "a number beyond the range of float32")
    return array


def _column(shape: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    return shape[:1] if ndim == 1 and len(shape) == 2 and shape[1] == 1 else shape


def _check_size(size: int, key: str, path: Path) -> None:
    if size > room(path):
        raise ValueError(
            f"{path}: '{key}' would take {size / 2**30:,.1f} GiB, more than a file of {path.stat().st_size:,} bytes can hold."
        )


def _damaged(path: Path, key: str) -> ValueError:
    return ValueError(f"{path}: '{key}' cannot be read; the file is truncated or damaged.")


def _text(name: bytes | str) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else name
