"""Checkpoints: named tensors and a JSON header in one safetensors file.

The file is an ordinary safetensors file. Its metadata hold one entry, `dfplan`, a JSON object with the format version,
the caller's header, and a sha256 of all of it. One entry only, because safetensors does not promise an order of several,
and equal contents must give equal bytes. Nothing is ever pickled, so opening a checkpoint never runs code.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic_core import from_json
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from dfplan.data.statistics import Normalizer
from dfplan.quoting import printable, shortened
from dfplan.whole_files import opened, write_whole

MARKER = "dfplan"
FORMAT_VERSION = 1
LONGEST_INDEX = 100_000_000
"""Bytes of the JSON at the head of a safetensors file, as safetensors itself bounds it."""


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit; the message is one sentence that names the file and the reason.

    It is at most 300 characters of one line, and what a file says in it cannot steer a terminal.
    """

    def __init__(self, sentence: str):
        super().__init__(shortened(printable(sentence), 300))


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header to `path`, whole or not at all; equal contents give equal bytes.

    Args:
        path: The file to write; parent folders are created.
        tensors: Named tensors of any shape, dtype and device; tensors that share memory are stored once each.
        header: A JSON object: strings, finite numbers, booleans, None, lists and dictionaries with string keys, nested
            less than 200 deep.

    Raises:
        TypeError, ValueError: The header is not such JSON (NaN and infinity are not).
        OSError: The file cannot be written.
    """
    plain = from_json(json.dumps(header, allow_nan=False))
    # A clone each: safetensors refuses tensors that share memory, as tied weights do.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    entry = {"format": FORMAT_VERSION, "header": plain, "sha256": _digest(owned, plain)}
    write_whole(path, safetensors_bytes(owned, metadata={MARKER: json.dumps(entry, sort_keys=True)}))


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and the header that `save_checkpoint` wrote, and compare them with their sha256.

    Files that were written before there was a sha256 have none to compare with, and are read as they are.

    Raises:
        CheckpointError: The file is missing, no ordinary file, truncated, not safetensors, not of dfplan, of a newer
            format, damaged, or was changed while it was read.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            before = os.fstat(file.fileno())
            head, index = _index(file, before.st_size)
            rest = file.read(before.st_size - len(head) + 1)
            after = os.fstat(file.fileno())
    except (OSError, ValueError, MemoryError) as error:
        raise _unreadable(path, error) from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise CheckpointError(f"{path} was changed by another program while it was read: try again")
    entry = _entry(path, index)
    try:
        tensors = tensors_of(head + rest)
    except (
        SafetensorError,
        ArithmeticError,
        AssertionError,
        LookupError,
        MemoryError,
        RuntimeError,
        ValueError,
    ) as error:
        raise _unreadable(path, error) from error
    if entry.get("sha256", (found := _digest(tensors, entry["header"]))) != found:
        raise CheckpointError(f"{path} is damaged: its contents do not give the sha256 that was written with them")
    return tensors, entry["header"]


def load_header(path: str | Path) -> dict[str, Any]:
    """The header alone: the tensors are not read, and so not compared with their sha256.

    Raises CheckpointError as `load_checkpoint` does.
    """
    path = Path(path)
    try:
        with opened(path) as file:
            _, index = _index(file, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError, MemoryError) as error:
        raise _unreadable(path, error) from error
    header: dict[str, Any] = _entry(path, index)["header"]
    return header


def _index(file: BinaryIO, size: int) -> tuple[bytes, dict[str, Any]]:
    """The head of a safetensors file as it is and as JSON: where each tensor lies, and the metadata. ValueError if it lies."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or not 2 <= length <= min(size - 8, LONGEST_INDEX):
        raise ValueError(f"{size} bytes cannot begin with {length} bytes of header")
    text = file.read(length)
    index = from_json(text, allow_inf_nan=False)
    if not isinstance(index, dict):
        raise ValueError("its header is no JSON object")
    try:
        end = max((entry["data_offsets"][1] for name, entry in index.items() if name != "__metadata__"), default=0)
        whole = size == 8 + length + end
    except (LookupError, TypeError) as error:
        raise ValueError("its header does not say where its tensors lie") from error
    if not whole:
        raise ValueError(f"it has {size} bytes, its header asks for {8 + length + end}")
    return start + text, index


def _entry(path: Path, index: Mapping[str, Any]) -> dict[str, Any]:
    metadata = index.get("__metadata__")
    if not isinstance(metadata, dict) or not isinstance(metadata.get(MARKER), str):
        raise CheckpointError(f"{path} is a safetensors file, but not one of dfplan (its metadata lack '{MARKER}')")
    try:
        entry = from_json(metadata[MARKER], allow_inf_nan=False)
        json.dumps(entry, allow_nan=False)  # finds what is too large for a float, which is read as infinity
        version, header = entry["format"], entry["header"]
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"the dfplan header of {path} cannot be read ({error!r})") from error
    if type(version) is not int or version < 1 or not isinstance(header, dict):
        raise CheckpointError(f"the dfplan header of {path} has an unexpected form")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version}, this dfplan reads up to {FORMAT_VERSION}: install a newer dfplan"
        )
    if unknown := sorted(entry.keys() - {"format", "header", "sha256"}):
        raise CheckpointError(f"the dfplan header of {path} has an unexpected form: it holds {unknown[0]!r}")
    return entry


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"there is no checkpoint file {path}")
    if isinstance(error, OSError):
        return CheckpointError(f"there is no checkpoint file to be read at {path}: {error.strerror or error}")
    if isinstance(error, MemoryError):
        return CheckpointError(f"{path} is larger than the memory of this machine")
    return CheckpointError(f"{path} is not a whole safetensors file ({error})")


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """sha256 hex over the header and each tensor's name, dtype, shape and bytes."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{json.dumps(name)} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy `tensors` into `module` (its whole state dict); `path` only names the origin in the message.

    Floating-point tensors may be of another precision than the module's, such as weights that were rounded to float16.

    Raises:
        CheckpointError: A tensor is missing, has another shape, is of another kind of numbers, is unknown to the module,
            or holds NaN, infinity or a deviation or bound of a normalizer that is not positive; nothing is copied then.
    """
    complaint = f"the tensors of {path} do not fit {type(module).__name__}"
    expected = module.state_dict()
    as_expected = {name: _in_precision_of(expected.get(name), tensor) for name, tensor in tensors.items()}
    require_tensors(expected, as_expected, complaint)
    require_finite(as_expected, f"the tensors of {path} are no weights")
    for owner in (name for name, part in module.named_modules() if isinstance(part, Normalizer)):
        for part in ("std", "bound"):
            name = f"{owner}.{part}".lstrip(".")
            if not bool((as_expected[name] > 0).all()):
                raise CheckpointError(f"the tensors of {path} are no weights: a number in {name} is not positive")
    module.load_state_dict(as_expected)


def _in_precision_of(expected: Tensor | None, tensor: Tensor) -> Tensor:
    if expected is not None and expected.is_floating_point() and tensor.is_floating_point():
        return tensor.to(expected.dtype)
    return tensor


def require_tensors(
    expected: Mapping[str, Tensor], given: Mapping[str, Tensor], complaint: str, dtypes: bool = True
) -> None:
    """Compare tensors by name, shape and, unless `dtypes` is False, dtype; their values are not read.

    Raises:
        CheckpointError: They differ; the message is `complaint` and the first names of each kind of difference.
    """
    shared = [(name, expected[name], given[name]) for name in expected if name in given]
    problems = {
        "missing": [name for name in expected if name not in given],
        "of another shape": [
            f"{name} {tuple(b.shape)} instead of {tuple(a.shape)}" for name, a, b in shared if a.shape != b.shape
        ],
        "of another dtype": [
            f"{name} {b.dtype} instead of {a.dtype}" for name, a, b in shared if dtypes and a.dtype != b.dtype
        ],
        "unknown": [name for name in given if name not in expected],
    }
    found = [f"{len(names)} {kind} ({_first(names)})" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(f"{complaint}: {', '.join(found)}")


def require_finite(tensors: Mapping[str, Tensor], complaint: str) -> None:
    """Raise CheckpointError, `complaint` and the first names, if floating-point tensors hold NaN or infinity."""
    bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise CheckpointError(f"{complaint}: {len(bad)} with NaN or infinity ({_first(bad)})")


def _first(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
