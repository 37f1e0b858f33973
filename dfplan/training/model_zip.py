"""Files of stable-baselines3, read without unpickling.

A model file is a zip. Its entry `data` is JSON, in which Python objects stand as pickles, with plain text beside them;
the entries `*.pth` hold tensors, each a zip of torch's own. Here the JSON is read as JSON, its pickles are left alone, and
tensors come from torch's loader for weights only, so that opening a file never runs code that it carries. Sizes are
compared with the file's own size before anything is unpacked.
"""

from __future__ import annotations

import io
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import TypedDict

from dfplan.config_json import checked
from dfplan.fields import Whole
from dfplan.training.checkpoint import CheckpointError, require_finite
from dfplan.whole_files import opened

UNFOLDED = 32
"""How many times its own size a file may unpack to; stable-baselines3 itself does not compress."""
PICKLED = ":serialized:"
"""The key of a pickle in the JSON."""


_Class = TypedDict("_Class", {"__module__": str})
_Object = TypedDict("_Object", {":type:": str})


class _Data(TypedDict):
    """The part of the JSON that is read."""

    policy_class: _Class
    observation_space: _Object
    action_space: _Object
    policy_kwargs: NotRequired[dict[str, Any]]
    num_timesteps: Whole
    use_sde: NotRequired[bool]


@dataclass(frozen=True)
class ModelZip:
    """A model file in memory."""

    name: str
    """Its path, for messages."""
    content: bytes
    """The whole file."""
    data: Mapping[str, Any]
    """The JSON: settings of the algorithm and its spaces as text, with pickles that are never opened."""
    tensors: Mapping[str, bytes]
    """The entries with tensors, still in torch's format, by name without `.pth`."""

    def misfit(self, what: str) -> CheckpointError:
        """The error for a whole file that cannot be used."""
        return CheckpointError(f"{self.name} does not fit: {what}")

    def observation_widths(self) -> dict[str, int]:
        """Columns of each entry of its observations; of observations that are one vector under the name ''.

        CheckpointError for any others.
        """
        space = self.data["observation_space"]
        kind, text = space[":type:"], space.get("spaces")
        if ".Box'" in kind:
            return {"": self._width(space.get("_shape"))}
        if ".Dict'" in kind and isinstance(text, str) and len(text) < 10_000:
            parts = re.findall(r"'(\w+)'[,:] Box\(.*?, \((\d{1,9}),\), \w+\)", text, flags=re.DOTALL)
            if parts and text.count("'") == 2 * len(parts):
                return {name: self._width([int(width)]) for name, width in parts}
        raise self.misfit(f"its observations are {kind}, expected a Box of shape (D,) or a Dict of them")

    def action_limits(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The lowest and the highest actions (A,), as the file prints them. CheckpointError if they are no vectors."""
        space = self.data["action_space"]
        if ".Box'" not in space[":type:"]:
            raise self.misfit(f"its actions are {space[':type:']}, expected a Box")
        shape, dtype = space.get("_shape"), space.get("dtype")
        low, high = (_numbers(space.get(name)) for name in ("low", "high"))
        whole = _is_vector(shape) and dtype in ("float16", "float32", "float64")
        if not whole or not len(low) == len(high) == shape[0] or not all(a < b for a, b in zip(low, high, strict=True)):
            raise self.misfit("expected actions in a Box of shape (A,) with finite limits")
        return np.array(low, dtype), np.array(high, dtype)

    def _width(self, shape: Any) -> int:
        if not _is_vector(shape) or 4 * shape[0] > len(self.content):  # each number has weights, of four bytes
            raise self.misfit(f"its observations have the shape {shape}, expected (D,)")
        return int(shape[0])

    def load(self, part: str) -> Any:
        """The contents of an entry: tensors in dictionaries and lists, on the CPU. CheckpointError if it cannot be read."""
        if part not in self.tensors:
            raise CheckpointError(f"{self.name} is not a whole model of stable-baselines3: it has no {part}.pth")
        what, entry = f"{part}.pth in {self.name}", self.tensors[part]
        with _zip_errors(what), zipfile.ZipFile(io.BytesIO(entry)) as archive:
            inside = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in inside) or _unfolded(inside) > len(entry):
            raise CheckpointError(f"{what} is compressed, which torch does not do")
        try:
            return torch.load(io.BytesIO(entry), map_location="cpu", weights_only=True)
        except Exception as error:  # whatever torch raises for a damaged or a foreign file
            raise CheckpointError(f"{what} does not hold tensors alone ({_first_line(error)})") from error

    def state(self, part: str) -> dict[str, Tensor]:
        """The tensors of a module, by name. CheckpointError if they are anything else, or not finite."""
        found = self.load(part)
        tensors = isinstance(found, dict) and all(
            isinstance(name, str) and isinstance(value, Tensor) and value.layout == torch.strided
            for name, value in found.items()
        )
        if not tensors:
            raise CheckpointError(f"{part}.pth in {self.name} holds something other than the tensors of a network")
        require_finite(found, f"the tensors of {part}.pth in {self.name} are no weights")
        return dict(found)


def read_model_zip(path: str | Path) -> ModelZip:
    """The model in a file. CheckpointError for a file that is missing or not a whole model of stable-baselines3."""
    try:
        with opened(path) as file:
            content = file.read()
    except (OSError, ValueError, MemoryError) as error:
        raise CheckpointError(f"there is no model file {path} to be read ({_first_line(error)})") from error
    return parse_model_zip(content, str(path))


def parse_model_zip(content: bytes, name: str) -> ModelZip:
    """The model in the bytes of a file; `name` is for messages. CheckpointError as in `read_model_zip`."""
    with _zip_errors(name), zipfile.ZipFile(io.BytesIO(content)) as archive:
        # Other entries, versions and system information, are never opened.
        wanted = [info for info in archive.infolist() if re.fullmatch(r"data|[\w.]+\.pth", info.filename)]
        if any(info.flag_bits & 1 for info in wanted):
            raise CheckpointError(f"{name} is encrypted, expected a file as stable-baselines3 writes it")
        if any(info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in wanted):
            raise CheckpointError(f"{name} is compressed by a method other than deflate")
        if (size := _unfolded(wanted)) > UNFOLDED * len(content):
            raise CheckpointError(f"{name} would unfold to {size:,} bytes, {size // len(content)} times its own size")
        entries = {}
        for info in wanted:
            with archive.open(info) as entry:  # one byte more, so that the end is met and the checksum compared
                entries[info.filename] = entry.read(info.file_size + 1)
    if "data" not in entries:
        raise CheckpointError(
            f"{name} is a zip file, but not a whole model of stable-baselines3: it has no entry 'data'"
        )
    data = _data(entries.pop("data"), name)
    return ModelZip(name, content, data, {file.removesuffix(".pth"): entry for file, entry in entries.items()})


def _data(entry: bytes, name: str) -> dict[str, Any]:
    """The JSON, the part that is read in the expected types."""
    try:
        data = json.loads(entry)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"the entry 'data' of {name} is not JSON ({_first_line(error)})") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"the entry 'data' of {name} is not a JSON object")
    try:
        checked(_Data, {key: data[key] for key in _Data.__annotations__ if key in data}, "data")
    except ValueError as error:
        raise CheckpointError(f"{name} is not a whole model of stable-baselines3: {error}") from error
    return data


def _is_vector(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) == 1 and type(shape[0]) is int and shape[0] > 0


def _numbers(text: Any) -> list[float]:
    """Finite numbers of an array's text, '[-1. 0.5]'; none where it is not one."""
    if not isinstance(text, str) or not re.fullmatch(r"\[[-+.\de\s]*\]", text):
        return []
    try:
        values = [float(word) for word in text[1:-1].split()]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _unfolded(entries: list[zipfile.ZipInfo]) -> int:
    return sum(info.file_size for info in entries)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return text.splitlines()[0][:160]


@contextmanager
def _zip_errors(name: str) -> Iterator[None]:
    """The many errors of a damaged zip as one."""
    try:
        yield
    except CheckpointError:
        raise
    except (
        ArithmeticError,
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise CheckpointError(f"{name} is not a whole zip file ({_first_line(e)})") from e
