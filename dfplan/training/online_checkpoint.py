"""The checkpoint of a run of stable-baselines3: what it has learned, in files that are never unpickled, and back.

`run.json` names the folder of the checkpoint, which holds the model, the best model so far, and the replay buffer. The
library's own `save_replay_buffer` pickles the whole buffer, at its full size; here only what was seen is written, as
plain arrays.
"""

from __future__ import annotations

import json
import operator
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from dfplan.config_json import checked
from dfplan.fields import NotNegative, Whole
from dfplan.training.checkpoint import CheckpointError, load_checkpoint, require_tensors, save_checkpoint
from dfplan.training.model_zip import ModelZip

MODEL, BEST, REPLAY = "model.zip", "best.zip", "replay.safetensors"
"""Files of a checkpoint."""
COUNTERS = ("num_timesteps", "_n_updates", "_episode_num", "_total_timesteps", "_num_timesteps_at_start")
"""How far a training has come; all else in a model's JSON follows from its recipe."""
_STEPS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "ep_start", "ep_length")
"""Arrays of a buffer with an entry for each step (steps, copies, ...), or dictionaries of them; the last two for hindsight."""
_NOW = "_current_ep_start"
"""Where the episodes under way began (copies,), in hindsight's buffers."""


class State(TypedDict):
    """What run.json says."""

    checkpoint: Annotated[str, Field(pattern=r"^checkpoint-\d+$")]
    """Name of the folder with the model."""
    step: Whole
    seconds: NotNegative
    curve: list[dict[str, float]]
    recipe: dict[str, Any]
    seed: int


def put(model: Any, file: ModelZip) -> None:
    """Give a model of the same recipe the file's weights, moments of optimizers, and counters.

    Raises CheckpointError for a file of another model, and for tensors of another shape or dtype, or not finite; the
    model is unchanged then.
    """
    states: dict[str, Any] = {name: _state(model, file, name, part) for name, part in model.get_parameters().items()}
    variables = _variables(model, file)
    counters = {name: file.data.get(name) for name in COUNTERS}
    for name, value in counters.items():
        if type(value) is not int or value < 0:
            raise CheckpointError(f"{file.name} is not a model of this run: its {name} is {value!r}")
    model.set_parameters(states, exact_match=True, device=model.device)
    for name, value in variables.items():
        operator.attrgetter(name)(model).data.copy_(value)
    vars(model).update(counters)


def _state(model: Any, file: ModelZip, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """One of the model's parts, a module or an optimizer, as the file has it."""
    part, complaint = operator.attrgetter(name)(model), f"{name}.pth in {file.name} does not fit the recipe"
    if not isinstance(part, torch.optim.Optimizer):
        tensors = file.state(name)
        require_tensors(own, tensors, complaint)
        return tensors
    found = file.load(name)
    state = found.get("state") if isinstance(found, dict) else None
    parameters = [parameter for group in part.param_groups for parameter in group["params"]]
    if not isinstance(state, dict) or not all(type(i) is int and 0 <= i < len(parameters) for i in state):
        raise CheckpointError(f"{name}.pth in {file.name} is not the state of an optimizer of this recipe")
    for i, moments in state.items():
        if not isinstance(moments, dict) or not all(_fits(key, value, parameters[i]) for key, value in moments.items()):
            raise CheckpointError(f"{complaint}: a moment has another shape")
    return {"state": state, "param_groups": own["param_groups"]}  # learning rates are the recipe's


def _fits(name: Any, value: Any, parameter: Tensor) -> bool:
    """Whether an entry of an optimizer's state is a count of steps, or a finite moment of the parameter's shape."""
    like = torch.zeros(()) if name == "step" else parameter
    same = isinstance(value, Tensor) and value.shape == like.shape and value.dtype == like.dtype
    return same and bool(torch.isfinite(value).all())


def _variables(model: Any, file: ModelZip) -> dict[str, Tensor]:
    """Trained tensors outside of modules, such as the logarithm of SAC's temperature."""
    names = model._get_torch_save_params()[1]
    found = file.load("pytorch_variables") if names else {}
    found = found if isinstance(found, dict) else {}
    expected: dict[str, Tensor] = {name: operator.attrgetter(name)(model) for name in names}
    given = {name: found[name] for name in expected if isinstance(found.get(name), Tensor)}
    require_tensors(expected, given, f"pytorch_variables.pth in {file.name} does not fit the recipe")
    return given


def save_replay(buffer: Any, path: str | Path) -> None:
    """Write what a replay buffer holds. OSError if it cannot be written."""
    header = {"kind": "replay", "position": buffer.pos, "full": buffer.full}
    save_checkpoint(path, _held(buffer, buffer.buffer_size if buffer.full else buffer.pos), header)


def load_replay(buffer: Any, path: str | Path) -> None:
    """Fill a new buffer with what `save_replay` wrote; the episodes that were under way end there.

    Raises CheckpointError for a file that is missing, damaged, or of a buffer of another form; the buffer is empty then.
    """
    tensors, header = load_checkpoint(path)
    position, full = header.get("position"), header.get("full")
    if header.get("kind") != "replay" or type(position) is not int or type(full) is not bool:
        raise CheckpointError(f"{path} is not the replay buffer of a run")
    complaint = f"the replay buffer {path} does not fit the recipe"
    if not 0 <= position < buffer.buffer_size:
        raise CheckpointError(f"{complaint}: it is larger")
    own = _held(buffer, buffer.buffer_size if full else position)  # these share the buffer's memory
    require_tensors(own, tensors, complaint)
    for name in ("ep_start", "ep_length", _NOW):  # indices: those outside would fail in the middle of a training
        if name in own and not bool(((tensors[name] >= 0) & (tensors[name] <= buffer.buffer_size)).all()):
            raise CheckpointError(f"the replay buffer {path} has an episode outside of it")
    for name, tensor in own.items():
        tensor.copy_(tensors[name])
    buffer.pos, buffer.full = position, full
    if hasattr(buffer, _NOW):
        with warnings.catch_warnings(action="ignore"):  # that the episode under way is cut off: it is
            buffer.truncate_last_trajectory()
    elif full or position:
        buffer.timeouts[position - 1] = True  # a return of several steps must not reach into another episode


def _held(buffer: Any, steps: int) -> dict[str, Tensor]:
    """The first steps of the buffer's own arrays, by name; those of a dictionary as 'observations/desired_goal'."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in _STEPS if steps else ():  # a file cannot hold arrays without an element
        value = getattr(buffer, name, None)
        if isinstance(value, Mapping):
            arrays |= {f"{name}/{key}": array[:steps] for key, array in value.items()}
        elif value is not None:
            arrays[name] = value[:steps]
    if hasattr(buffer, _NOW):
        arrays[_NOW] = getattr(buffer, _NOW)
    return {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def read_state(file: Path) -> State:
    """What run.json says. CheckpointError if it cannot be read, or is not that of a run."""
    try:
        state: State = checked(State, json.loads(file.read_bytes()), "run")
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not the state of a run ({error})") from error
    return state


def remove_checkpoints(run_dir: Path, keep: str) -> None:
    """Remove a run's own checkpoints but one; a folder that holds anything else is somebody's, and stays whole."""
    own = rf"({re.escape(MODEL)}|{re.escape(BEST)}|{re.escape(REPLAY)}|replay\.pkl)"
    for folder in run_dir.glob("checkpoint-*"):
        if folder.name == keep or folder.is_symlink() or not re.fullmatch(r"checkpoint-\d+", folder.name):
            continue
        files = list(folder.iterdir())
        if all(re.fullmatch(rf"{own}|\.{own}\.[0-9a-f]+\.partial", file.name) and not file.is_dir() for file in files):
            for file in files:
                file.unlink()
            folder.rmdir()
