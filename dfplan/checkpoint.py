"""Checkpoints: named tensors and a JSON header in one safetensors file.

The file is an ordinary safetensors file. Its metadata hold one entry, ``dfplan``, a JSON object with the format version
and the caller's header. One entry only, because safetensors does not promise an order of several, and equal contents
must give equal bytes. Nothing is ever pickled, so opening a checkpoint never runs code.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn

from dfplan.whole_files import write_whole

MARKER = "dfplan"
FORMAT_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint cannot be read, or does not fit; the message is one sentence that names the file and the reason."""


def save_checkpoint(path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header to ``path``, whole or not at all; equal contents give equal bytes.

    Args:
        path: The file to write; parent folders are created.
        tensors: Named tensors of any shape, dtype and device; tensors that share memory are stored once each.
        header: A JSON object: strings, finite numbers, booleans, None, lists and dictionaries with string keys.

    Raises:
        TypeError, ValueError: The header is not JSON (NaN and infinity are not).
        OSError: The file cannot be written.
    """
    entry = json.dumps({"format": FORMAT_VERSION, "header": header}, sort_keys=True, allow_nan=False)
    # A clone each: safetensors refuses tensors that share memory, as tied weights do.
    owned = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_whole(path, safetensors_bytes(owned, metadata={MARKER: entry}))


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors (on the CPU) and the header that :func:`save_checkpoint` wrote.

    Raises:
        CheckpointError: The file is missing, truncated, not safetensors, not of dfplan, or of a newer format.
    """
    with _opened(Path(path)) as file:
        header = _header(Path(path), file.metadata())
        # A clone each: the tensors must not stay tied to the mapped file.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    return tensors, header


def load_header(path: str | Path) -> dict[str, Any]:
    """The header alone, without reading the tensors. Raises CheckpointError as `load_checkpoint` does."""
    with _opened(Path(path)) as file:
        return _header(Path(path), file.metadata())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint file {path}")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error})") from error


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    if not metadata or MARKER not in metadata:
        raise CheckpointError(f"{path} is a safetensors file, but not one of dfplan (its metadata lack '{MARKER}')")
    try:
        entry = json.loads(metadata[MARKER])
        version, header = entry["format"], entry["header"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the dfplan header of {path} cannot be read ({error!r})") from error
    if not isinstance(version, int) or not isinstance(header, dict):
        raise CheckpointError(f"the dfplan header of {path} has an unexpected form")
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has checkpoint format {version}, this dfplan reads up to {FORMAT_VERSION}: install a newer dfplan"
        )
    return header


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Copy ``tensors`` into ``module`` (its whole state dict); ``path`` only names the origin in the message.

    Raises:
        CheckpointError: A tensor is missing, has another shape, or is unknown to the module; nothing is copied then.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {shape}"
            for name, shape in expected.items()
            if name in tensors and tuple(tensors[name].shape) != shape
        ],
        "unknown": [name for name in tensors if name not in expected],
    }
    found = [f"{len(names)} {kind} ({_first(names)})" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(f"the tensors of {path} do not fit {type(module).__name__}: {', '.join(found)}")
    module.load_state_dict(dict(tensors))


def _first(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
