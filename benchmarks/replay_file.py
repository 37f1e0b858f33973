"""Replay buffers of stable-baselines3 as files of plain arrays, for checkpoints.

The library's own `save_replay_buffer` pickles the whole buffer, at its full size; here only what was seen is written, and
nothing is unpickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfplan.training.checkpoint import CheckpointError, load_checkpoint, require_tensors, save_checkpoint

KIND = "replay"
_STEPS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "ep_start", "ep_length")
"""Arrays with an entry for each step (steps, copies, ...), or dictionaries of them; the last two are hindsight's."""
_NOW = "_current_ep_start"
"""Where the episodes under way began (copies,), in hindsight's buffers."""


def save_replay(buffer: Any, path: str | Path) -> None:
    """Write what a buffer holds. OSError if it cannot be written."""
    held = buffer.buffer_size if buffer.full else buffer.pos
    # Arrays without an element cannot be written, so that an empty buffer leaves the header alone.
    arrays = {name: array[:held] for name, array in _arrays(buffer).items()} if held else {}
    if hasattr(buffer, _NOW):
        arrays[_NOW] = getattr(buffer, _NOW)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    save_checkpoint(path, tensors, {"kind": KIND, "position": buffer.pos, "full": buffer.full})


def load_replay(buffer: Any, path: str | Path) -> None:
    """Fill a new buffer with what `save_replay` wrote; the episodes that were under way end there.

    Raises CheckpointError for a file that is missing, damaged, or of a buffer of another form; the buffer is empty then.
    """
    tensors, header = load_checkpoint(path)
    position, full = header.get("position"), header.get("full")
    if header.get("kind") != KIND or type(position) is not int or type(full) is not bool:
        raise CheckpointError(f"{path} is not the replay buffer of a run")
    if not 0 <= position < buffer.buffer_size:
        raise CheckpointError(f"the replay buffer {path} does not fit the recipe: it is larger")
    held, arrays = buffer.buffer_size if full else position, _arrays(buffer)
    expected = {name: torch.from_numpy(array[:held]) for name, array in arrays.items()} if held else {}
    if hasattr(buffer, _NOW):
        expected[_NOW] = torch.from_numpy(getattr(buffer, _NOW))
    require_tensors(expected, tensors, f"the replay buffer {path} does not fit the recipe")
    _require_steps_within(buffer.buffer_size, tensors, path)
    for name, array in arrays.items() if held else ():
        array[:held] = tensors[name].numpy()
    buffer.pos, buffer.full = position, full
    if hasattr(buffer, _NOW):
        getattr(buffer, _NOW)[:] = tensors[_NOW].numpy()
        with warnings.catch_warnings(action="ignore"):  # that the episode under way is cut off: it is
            buffer.truncate_last_trajectory()
    elif held:
        buffer.timeouts[position - 1] = True  # a return of several steps must not reach into another episode


def _arrays(buffer: Any) -> dict[str, NDArray[Any]]:
    """The buffer's own arrays, by name; those of a dictionary as 'observations/desired_goal'."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in _STEPS:
        value = getattr(buffer, name, None)
        if isinstance(value, Mapping):
            arrays |= {f"{name}/{key}": array for key, array in value.items()}
        elif value is not None:
            arrays[name] = value
    return arrays


def _require_steps_within(size: int, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Episodes' places are indices: those outside would fail in the middle of a training."""
    for name in ("ep_start", "ep_length", _NOW):
        if name in tensors and not bool(((tensors[name] >= 0) & (tensors[name] <= size)).all()):
            raise CheckpointError(f"the replay buffer {path} has an episode outside of it")
